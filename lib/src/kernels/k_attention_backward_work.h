/* k_attention_backward_work.h - memory of the backward pass of efficient attention: what each
 * thread, unit, sample and group holds, and how it is laid out in scratch. Private to
 * k_efficient_attention_backward.c. */
#ifndef TL_K_ATTENTION_BACKWARD_WORK_H
#define TL_K_ATTENTION_BACKWARD_WORK_H

#include "kernels/k_attention_constant.h"

/* One tile of positions; a thread owns one. */
typedef struct backward_tile {
    tl_real *x;          /* [tile, c_row], copies where the caller's rows are no whole vectors */
    tl_real *dy;         /* [tile, out_row] */
    tl_real *dx;         /* [tile, c_row] */
    tl_real *x_t, *dy_t; /* [C, tile], with few key channels */
    tl_real *projected;  /* [tile, k_row]: query logits, keys */
    tl_real *dprojected; /* [tile, k_row]: their gradients */
    tl_real *queries;    /* [K, tile]; with few key channels keys too */
    tl_real *dqueries;   /* [K, tile]; the same */
    tl_real *values;     /* [tile, v_row]: queries G, values */
    tl_real *dvalues;    /* [tile, v_row]: their gradients */
    tl_real *row_sums;   /* constant queries: sums of dY, over a period, then [out_row] */
} backward_tile;

/* Sums over the positions of the samples of one group: the parameters' gradients. */
typedef struct parameter_sums {
    tl_real *query, *key;           /* [K, c_row] */
    tl_real *query_bias, *key_bias; /* [k_row] */
    tl_real *value;                 /* [V, c_row] */
    tl_real *value_bias;            /* [v_row] */
    tl_real *reprojection;          /* transposed: [V, c_row] */
    tl_real *reprojection_bias;     /* [out_row] */
} parameter_sums;

/* One sample, between the passes. Matrices ending in _t are transposed. */
typedef struct backward_sample {
    tl_real *folded, *dfolded, *dfolded_t;                /* H [K, c_row]; [C, k_row] */
    tl_real *context, *context_t, *dcontext, *dcontext_t; /* G [K, e_row]; [e, k_row] */
    tl_real *map, *map_t;                                 /* M [K, c_row]; [C, k_row] */
    tl_real *maximum, *inverse;                           /* of the key softmax [k_row] */
    tl_real *shift; /* what is added to the gradient of the keys, per channel [k_row] */
} backward_sample;

typedef struct backward_work {
    attention_sizes size;
    attention_projections weights;
    /* not transposed, not scaled: [K, c_row], [K, c_row], [V, c_row], [C, v_row] */
    tl_real *query, *key, *value, *reprojection;
    const tl_real *x, *dy;
    tl_real *saved;
    const tl_attention_gradients *gradients;
    attention_arena unit_area, sample_area, group_area, thread_area;
    size_t unit_bytes, sample_bytes, group_bytes, thread_bytes;
} backward_work;

TL_INLINE backward_tile take_backward_tile(const attention_sizes *s, attention_arena *arena) {
    return (backward_tile){
        .x = attention_take(arena, TL_ATTENTION_TILE * s->c_row),
        .dy = attention_take(arena, TL_ATTENTION_TILE * s->out_row),
        .dx = attention_take(arena, TL_ATTENTION_TILE * s->c_row),
        .x_t = s->narrow ? attention_take_matrix(arena, s->c, TL_ATTENTION_TILE) : NULL,
        .dy_t = s->narrow ? attention_take_matrix(arena, s->c, TL_ATTENTION_TILE) : NULL,
        .projected = attention_take(arena, TL_ATTENTION_TILE * s->k_row),
        .dprojected = attention_take(arena, TL_ATTENTION_TILE * s->k_row),
        .queries = attention_take_matrix(arena, s->k, TL_ATTENTION_TILE),
        .dqueries = attention_take_matrix(arena, s->k, TL_ATTENTION_TILE),
        .values = attention_take(arena, TL_ATTENTION_TILE * s->v_row),
        .dvalues = attention_take(arena, TL_ATTENTION_TILE * s->v_row),
        .row_sums =
            s->constant_queries ? attention_take(arena, constant_room(s->out) + s->out_row) : NULL,
    };
}

TL_INLINE parameter_sums take_parameter_sums(const attention_sizes *s, attention_arena *arena) {
    parameter_sums sums = {
        .query = attention_take(arena, s->k * s->c_row),
        .key = attention_take(arena, s->k * s->c_row),
        .query_bias = attention_take(arena, s->k_row),
        .key_bias = attention_take(arena, s->k_row),
        .value = attention_take(arena, s->v * s->c_row),
        .value_bias = attention_take(arena, s->v_row),
    };
    if (s->reprojection) {
        sums.reprojection = attention_take(arena, s->v * s->c_row);
        sums.reprojection_bias = attention_take(arena, s->out_row);
    }
    return sums;
}

TL_INLINE backward_sample take_backward_sample(const attention_sizes *s, attention_arena *arena) {
    backward_sample sample = {
        .context = attention_take_matrix(arena, s->k, s->e_row),
        .context_t = attention_take_matrix(arena, s->e, s->k_row),
        .dcontext = attention_take_matrix(arena, s->k, s->e_row),
        .dcontext_t = attention_take_matrix(arena, s->e, s->k_row),
        .maximum = attention_take(arena, s->k_row),
        .inverse = attention_take(arena, s->k_row),
        .shift = attention_take(arena, s->k_row),
    };
    if (s->fold_values) {
        sample.folded = attention_take_matrix(arena, s->k, s->c_row);
        sample.dfolded = attention_take_matrix(arena, s->k, s->c_row);
        sample.dfolded_t = attention_take_matrix(arena, s->c, s->k_row);
    }
    if (s->fold_output) {
        sample.map = attention_take_matrix(arena, s->k, s->c_row);
        sample.map_t = attention_take_matrix(arena, s->c, s->k_row);
    }
    return sample;
}

/* The row length of what queries are summed into over positions: dM [K, c_row], or dG [K, e_row]
 * where the output is not folded. */
TL_INLINE int64_t query_sums_row(const attention_sizes *s) {
    return s->fold_output ? s->c_row : s->e_row;
}

/* With one piece a sample is finished by the thread that began it: units and samples need room per
 * thread only. Returns the bytes of scratch. */
TL_INLINE size_t lay_out_backward(backward_work *work, void *scratch, int threads) {
    const attention_sizes *s = &work->size;
    attention_arena arena = {.base = scratch};
    work->weights = attention_take_projections(s, &arena);
    work->query = attention_take_matrix(&arena, s->k, s->c_row);
    work->key = attention_take_matrix(&arena, s->k, s->c_row);
    work->value = attention_take_matrix(&arena, s->v, s->c_row);
    work->reprojection = s->reprojection ? attention_take_matrix(&arena, s->c, s->v_row) : NULL;
    attention_arena count = {.base = NULL};
    attention_take_matrix(&count, s->k, query_sums_row(s));
    work->unit_bytes = count.used;
    count.used = 0;
    take_backward_sample(s, &count);
    work->sample_bytes = count.used;
    count.used = 0;
    take_parameter_sums(s, &count);
    work->group_bytes = count.used;
    count.used = 0;
    take_backward_tile(s, &count);
    work->thread_bytes = count.used;
    const bool whole = s->cut.pieces == 1;
    work->unit_area = arena;
    arena.used += work->unit_bytes * (size_t)(whole ? threads : s->cut.units);
    work->sample_area = arena;
    arena.used += work->sample_bytes * (size_t)(whole ? threads : s->cut.units / s->cut.pieces);
    work->group_area = arena;
    arena.used += work->group_bytes * (size_t)s->cut.groups;
    work->thread_area = arena;
    arena.used += work->thread_bytes * (size_t)threads;
    return arena.used;
}

TL_INLINE tl_real *query_sums_of(const backward_work *work, int64_t unit) {
    attention_arena part = attention_part(work->unit_area, work->unit_bytes, unit);
    return attention_take_matrix(&part, work->size.k, query_sums_row(&work->size));
}

TL_INLINE backward_sample backward_sample_of(const backward_work *work, int64_t sample) {
    attention_arena part = attention_part(work->sample_area, work->sample_bytes, sample);
    return take_backward_sample(&work->size, &part);
}

TL_INLINE parameter_sums parameter_sums_of(const backward_work *work, int64_t group) {
    attention_arena part = attention_part(work->group_area, work->group_bytes, group);
    return take_parameter_sums(&work->size, &part);
}

TL_INLINE backward_tile backward_tile_of(const backward_work *work, int thread) {
    attention_arena part = attention_part(work->thread_area, work->thread_bytes, thread);
    return take_backward_tile(&work->size, &part);
}

#endif
