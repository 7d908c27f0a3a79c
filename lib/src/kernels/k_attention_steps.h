/* k_attention_steps.h - the steps that forward and backward of efficient attention share: sizes,
 * packed weights, and queries and keys of one tile. Private to kernel files.
 *
 * Rows in scratch are padded to whole cache lines (`c_row` and so on), and matrices have room for
 * whole vectors of rows as well. A product whose columns are the e value channels (or d key
 * channels) of one head runs over whole vectors and so writes a few columns too many: those of the
 * next head, whose own product then overwrites them; heads are worked in order, and rows of several
 * heads have one cache line of slack at their end (TL_ATTENTION_HEADS_ROW).
 */
#ifndef TL_K_ATTENTION_STEPS_H
#define TL_K_ATTENTION_STEPS_H

#include "kernels/k_attention_narrow.h"
#include "kernels/k_attention_tiles.h"
#include "kernels/kernels.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define TL_ATTENTION_HEADS_ROW(count)                                                              \
    (TL_ATTENTION_PADDED(count) + (int64_t)(TL_ALIGNMENT / sizeof(tl_real)))

typedef struct attention_sizes {
    int64_t n, c, k, v, heads, d, e, out; /* out: channels of y */
    int64_t c_row, k_row, v_row, e_row, out_row;
    bool scaling, reprojection, residual, fold_values, fold_output;
    bool constant_queries;  /* k_attention_constant.h */
    bool narrow;            /* k_attention_narrow.h */
    tl_real logit_scale;    /* what queries and keys are multiplied by (softmax: log2 e included) */
    tl_real gradient_scale; /* the derivative of the scaled (natural) logit */
    tl_attention_cut cut;
    int64_t saved; /* values a sample */
} attention_sizes;

TL_INLINE attention_sizes attention_sizes_of(const tl_attention_shape *s) {
    const double log2_e = 1.44269504088896340736;
    const double scale = s->scaling ? 1 / sqrt((double)s->positions) : 1 / s->temperature;
    const int64_t out = tl_attention_output_channels(s);
    return (attention_sizes){
        .n = s->positions,
        .c = s->channels,
        .k = s->key_channels,
        .v = s->value_channels,
        .heads = s->heads,
        .d = s->key_channels / s->heads,
        .e = s->value_channels / s->heads,
        .out = out,
        .c_row = TL_ATTENTION_PADDED(s->channels),
        .k_row = TL_ATTENTION_HEADS_ROW(s->key_channels),
        .v_row = TL_ATTENTION_HEADS_ROW(s->value_channels),
        .e_row = TL_ATTENTION_PADDED(s->value_channels / s->heads),
        .out_row = TL_ATTENTION_HEADS_ROW(out),
        .scaling = s->scaling,
        .reprojection = s->reprojection,
        .residual = s->residual,
        .fold_values = tl_attention_folds_values(s),
        .fold_output = tl_attention_folds_output(s),
        .constant_queries = tl_attention_constant_queries(s),
        .narrow = tl_attention_is_narrow(s, TL_LANES),
        .logit_scale = (tl_real)(s->scaling ? scale : scale * log2_e),
        .gradient_scale = (tl_real)scale,
        .cut = tl_attention_cut_of(s),
        .saved = tl_attention_saved_per_sample(s),
    };
}

/* What was saved for one sample, taken apart. */
typedef struct attention_saved {
    tl_real *folded;  /* H [K, C]; NULL where values are not folded */
    tl_real *context; /* G [K, e] */
    tl_real *maximum; /* [K], of the logits times log2 e */
    tl_real *sum;     /* [K] */
} attention_saved;

TL_INLINE attention_saved attention_saved_of(const attention_sizes *s, tl_real *saved,
                                             int64_t sample) {
    tl_real *at = saved + sample * s->saved;
    attention_saved parts = {.folded = s->fold_values ? at : NULL};
    at += s->fold_values ? s->k * s->c : 0;
    parts.context = at;
    parts.maximum = parts.context + s->k * s->e;
    parts.sum = parts.maximum + s->k;
    return parts;
}

/* ---- scratch: a cursor that hands out aligned runs; with base NULL it only counts */

typedef struct attention_arena {
    char *base;
    size_t used;
} attention_arena;

TL_INLINE tl_real *attention_take(attention_arena *arena, int64_t count) {
    const size_t at = arena->used;
    arena->used += (size_t)TL_ATTENTION_PADDED(count) * sizeof(tl_real);
    return arena->base == NULL ? NULL : (tl_real *)(void *)(arena->base + at);
}

/* Matrices have room for whole cache lines of rows: transposition works on square blocks. */
TL_INLINE tl_real *attention_take_matrix(attention_arena *arena, int64_t rows, int64_t row) {
    return attention_take(arena, TL_ATTENTION_PADDED(rows) * row);
}

/* Number `index` of the equal parts of an area. */
TL_INLINE attention_arena attention_part(attention_arena area, size_t bytes, int64_t index) {
    area.used += bytes * (size_t)index;
    return area;
}

TL_INLINE int attention_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* ---- rows of a tile */

typedef struct attention_rows {
    int64_t count;
    const tl_real *values; /* whole vectors can be read from each row */
    int64_t row;
    const tl_real *transposed; /* [channels, tile]; only with few key channels */
} attention_rows;

/* The caller's rows, or a copy of them in `copy`, and where they are wanted transposed. */
TL_INLINE attention_rows attention_rows_of(const attention_sizes *s, int64_t count,
                                           int64_t channels, const tl_real *in, tl_real *copy,
                                           int64_t copy_row, tl_real *transposed) {
    attention_rows rows = {.count = count, .transposed = transposed};
    if (s->narrow) {
        rows.values = narrow_rows(count, channels, in, copy, copy_row, transposed, &rows.row);
    } else {
        rows.values = tile_whole_rows(count, channels, in, copy, copy_row, &rows.row);
    }
    return rows;
}

/* ---- weights, packed once a call for row times matrix products */

typedef struct attention_projections {
    tl_real *query, *key, *value; /* transposed: [C, K], [C, K], [C, V]; narrow: [K, C] the two */
    tl_real *query_bias, *key_bias, *value_bias; /* scaled as the weights are */
    tl_real *reprojection;                       /* transposed: [V, C] */
    tl_real *reprojection_bias;
} attention_projections;

TL_INLINE attention_projections attention_take_projections(const attention_sizes *s,
                                                           attention_arena *arena) {
    attention_projections w = {
        .query = attention_take_matrix(arena, s->c, s->k_row),
        .key = attention_take_matrix(arena, s->c, s->k_row),
        .value = attention_take_matrix(arena, s->c, s->v_row),
        .query_bias = attention_take(arena, s->k_row),
        .key_bias = attention_take(arena, s->k_row),
        .value_bias = attention_take(arena, s->v_row),
    };
    if (s->reprojection) {
        w.reprojection = attention_take_matrix(arena, s->v, s->c_row);
        w.reprojection_bias = attention_take(arena, s->c_row);
    }
    return w;
}

TL_INLINE void attention_pack(const attention_sizes *s, const tl_attention_parameters *p,
                              const attention_projections *w) {
    if (s->narrow) {
        narrow_pack(s->k, s->c, p->query_weight, s->logit_scale, w->query, s->c_row);
        narrow_pack(s->k, s->c, p->key_weight, s->logit_scale, w->key, s->c_row);
    } else {
        tile_pad_transposed(s->k, s->c, p->query_weight, s->logit_scale, w->query, s->k_row);
        tile_pad_transposed(s->k, s->c, p->key_weight, s->logit_scale, w->key, s->k_row);
    }
    tile_pad_transposed(s->v, s->c, p->value_weight, 1, w->value, s->v_row);
    tile_pad_transposed(s->k, 1, p->query_bias, s->logit_scale, w->query_bias, s->k_row);
    tile_pad_transposed(s->k, 1, p->key_bias, s->logit_scale, w->key_bias, s->k_row);
    tile_pad_transposed(s->v, 1, p->value_bias, 1, w->value_bias, s->v_row);
    if (s->reprojection) {
        tile_pad_transposed(s->c, s->v, p->reprojection_weight, 1, w->reprojection, s->c_row);
        tile_pad_rows(1, s->c, p->reprojection_bias, s->c, w->reprojection_bias, s->c_row);
    }
}

/* ---- positions of a unit */

typedef struct attention_run {
    int64_t sample;
    int64_t first, end; /* positions */
} attention_run;

TL_INLINE attention_run attention_run_of(const attention_sizes *s, int64_t unit) {
    const int64_t piece = unit % s->cut.pieces;
    const int64_t first = piece * s->cut.tiles / s->cut.pieces * TL_ATTENTION_TILE;
    const int64_t end = (piece + 1) * s->cut.tiles / s->cut.pieces * TL_ATTENTION_TILE;
    return (attention_run){unit / s->cut.pieces, first, end < s->n ? end : s->n};
}

/* ---- queries of a tile */

/* Softmax over each head's d rows of queries [K, tile], whose columns are positions. */
TL_INLINE void attention_softmax_queries(const attention_sizes *s, int64_t rows, tl_real *queries) {
    for (int64_t head = 0; head < s->heads; head++) {
        tl_real *of_head = queries + head * s->d * TL_ATTENTION_TILE;
        for (int64_t i = 0; i < rows; i += TL_LANES) {
            tl_real *q = of_head + i;
            tl_v maximum = tl_v_load(q);
            for (int64_t a = 1; a < s->d; a++) {
                maximum = tl_v_max(maximum, tl_v_load(q + a * TL_ATTENTION_TILE));
            }
            tl_v sum = tl_v_zero();
            for (int64_t a = 0; a < s->d; a++) {
                const tl_v p = tl_v_exp2_low(tl_v_load(q + a * TL_ATTENTION_TILE) - maximum);
                tl_v_store(q + a * TL_ATTENTION_TILE, p);
                sum += p;
            }
            const tl_v inverse = (tl_real)1 / sum;
            for (int64_t a = 0; a < s->d; a++) {
                tl_v_store(q + a * TL_ATTENTION_TILE,
                           tl_v_load(q + a * TL_ATTENTION_TILE) * inverse);
            }
        }
    }
}

/* queries [K, tile] of x's rows, normalised; `projected` is scratch [tile, K]. */
TL_INLINE void attention_queries(const attention_sizes *s, const attention_projections *w,
                                 const attention_rows *x, tl_real *projected, tl_real *queries) {
    if (s->narrow) {
        narrow_product(s->k, x->count, s->c, w->query, s->c_row, x->transposed, queries);
        narrow_add_bias(s->k, x->count, w->query_bias, queries);
    } else {
        tile_multiply_rows(x->count, s->k, s->c, x->values, x->row, w->query, s->k_row,
                           w->query_bias, projected, s->k_row);
        tile_transpose(x->count, s->k, projected, s->k_row, queries, TL_ATTENTION_TILE);
    }
    if (!s->scaling) {
        attention_softmax_queries(s, x->count, queries);
    }
}

/* ---- keys of a tile */

/* Keys, or their gradients, of a tile: channel a of position i at values[i * row + a * step]. */
typedef struct attention_keys {
    tl_real *values;
    int64_t row, step;
} attention_keys;

/* They lie in `projected` [tile, K], or with few channels in `narrow` [K, tile]. */
TL_INLINE attention_keys attention_keys_in(const attention_sizes *s, tl_real *projected,
                                           tl_real *narrow) {
    return s->narrow ? (attention_keys){narrow, 1, TL_ATTENTION_TILE}
                     : (attention_keys){projected, s->k_row, 1};
}

/* The scaled logits of x's rows. Under softmax the bias is left out: it is the same for all
 * positions and cancels. */
TL_INLINE void attention_key_logits(const attention_sizes *s, const attention_projections *w,
                                    const attention_rows *x, attention_keys keys) {
    if (s->narrow) {
        narrow_product(s->k, x->count, s->c, w->key, s->c_row, x->transposed, keys.values);
        if (s->scaling) {
            narrow_add_bias(s->k, x->count, w->key_bias, keys.values);
        }
        return;
    }
    tile_multiply_rows(x->count, s->k, s->c, x->values, x->row, w->key, s->k_row,
                       s->scaling ? w->key_bias : NULL, keys.values, s->k_row);
}

/* Logits on entry, exp(logit - maximum) / sum on return; inverse is 1 / sum. */
TL_INLINE void attention_normalize_keys(const attention_sizes *s, int64_t rows,
                                        const tl_real *maximum, const tl_real *inverse,
                                        attention_keys keys) {
    if (s->narrow) {
        narrow_normalize(s->k, rows, maximum, inverse, keys.values);
        return;
    }
    for (int64_t column = 0; column < s->k; column += TL_LANES) {
        const tl_v top = tl_v_load(maximum + column), scale = tl_v_load(inverse + column);
        for (int64_t i = 0; i < rows; i++) {
            tl_real *at = keys.values + i * s->k_row + column;
            tl_v_store(at, tl_v_exp2_low(tl_v_load(at) - top) * scale);
        }
    }
}

/* values [tile, V] of x's rows. */
TL_INLINE void attention_values(const attention_sizes *s, const attention_projections *w,
                                const attention_rows *x, tl_real *values) {
    tile_multiply_rows(x->count, s->v, s->c, x->values, x->row, w->value, s->v_row, w->value_bias,
                       values, s->v_row);
}

/* out [rows, V] = queries G, head by head; context is G [K, e_row]. */
TL_INLINE void attention_apply_context(const attention_sizes *s, int64_t rows,
                                       const tl_real *queries, const tl_real *context,
                                       const tl_real *start, int64_t start_row, tl_real *out,
                                       int64_t out_row) {
    for (int64_t head = 0; head < s->heads; head++) {
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->e),
                                     .inner = s->d,
                                     .a = queries + head * s->d * TL_ATTENTION_TILE,
                                     .a_row = 1,
                                     .a_step = TL_ATTENTION_TILE,
                                     .b = context + head * s->d * s->e_row,
                                     .b_row = s->e_row,
                                     .out = out + head * s->e,
                                     .out_row = out_row,
                                     .start = start == NULL ? NULL : start + head * s->e,
                                     .start_row = start_row});
    }
}

/* M [K, C] = G Wr^T, head by head. */
TL_INLINE void attention_fold_output(const attention_sizes *s, const attention_projections *w,
                                     const tl_real *context, tl_real *map) {
    for (int64_t head = 0; head < s->heads; head++) {
        tile_multiply((tile_product){.rows = s->d,
                                     .columns = tile_columns(s->c),
                                     .inner = s->e,
                                     .a = context + head * s->d * s->e_row,
                                     .a_row = s->e_row,
                                     .a_step = 1,
                                     .b = w->reprojection + head * s->e * s->c_row,
                                     .b_row = s->c_row,
                                     .out = map + head * s->d * s->c_row,
                                     .out_row = s->c_row});
    }
}

#endif
