/* k_efficient_attention.c - the forward pass, and the table of both.
 *
 * Three stages, each over units that do not depend on the number of threads (k_attention_plan.h):
 *
 *   1. every unit sweeps its tiles once: key logits, running maximum over the positions, sums of
 *      2^(logit - maximum), and H = keys^T X (or G = keys^T values) rescaled when the maximum rises;
 *   2. every sample merges its pieces in order, normalises, and forms G and, folded, M = G Wr^T;
 *   3. every unit sweeps its tiles again: queries, their softmax, y = x + queries M + br.
 *
 * Bytes moved: x twice, y once. Scratch per thread is a few tiles; per unit K (C or e) values.
 */
#include "kernels/k_attention_steps.h"

#include <omp.h>

/* What a unit of stage 1 leaves behind. */
typedef struct unit_sums {
    tl_real *maximum; /* [K] */
    tl_real *sum;     /* [K] */
    tl_real *context; /* H [K, c_row], or G [K, e_row] where values are not folded */
} unit_sums;

typedef struct forward_plan {
    attention_sizes s;
    attention_projections w;
    int64_t context_row; /* of a unit's sums */
    int64_t context_columns;
    tl_real *units;
    int64_t unit_values;
    tl_real *contexts; /* per sample: G [K, e_row] */
    tl_real *maps;     /* per sample: M [K, c_row], folded output only */
    int64_t sample_context;
    int64_t sample_map;
    tl_real *tiles; /* per thread */
    int64_t tile_values;
    size_t bytes;
} forward_plan;

/* The tiles of a thread. */
typedef struct forward_tiles {
    tl_real *x;       /* [T, c_row], for widths that are no whole vectors */
    tl_real *keys;    /* [T, k_row]; in stage 3 the projected queries */
    tl_real *queries; /* [K, T] */
    tl_real *values;  /* [T, v_row]; in stage 3 the heads' outputs */
    tl_real *y;       /* [T, out_row] */
} forward_tiles;

static forward_tiles take_tiles(const attention_sizes *s, attention_arena *arena) {
    return (forward_tiles){
        .x = attention_take_matrix(arena, TL_ATTENTION_TILE, s->c_row),
        .keys = attention_take_matrix(arena, TL_ATTENTION_TILE, s->k_row),
        .queries = attention_take_matrix(arena, s->k, TL_ATTENTION_TILE),
        .values = attention_take_matrix(arena, TL_ATTENTION_TILE, s->v_row),
        .y = attention_take_matrix(arena, TL_ATTENTION_TILE, s->out_row),
    };
}

static forward_plan make_plan(const tl_attention_shape *shape, int threads, char *base) {
    forward_plan plan = {.s = attention_sizes_of(shape)};
    const attention_sizes *s = &plan.s;
    attention_arena arena = {.base = base};
    plan.w = attention_take_projections(s, &arena);
    plan.context_row = s->fold_values ? s->c_row : s->e_row;
    plan.context_columns = tile_columns(s->fold_values ? s->c : s->e);
    plan.unit_values = TL_ATTENTION_PADDED(2 * s->k_row + s->k * plan.context_row);
    plan.units = attention_take(&arena, s->cut.units * plan.unit_values);
    plan.sample_context = TL_ATTENTION_PADDED(TL_ATTENTION_PADDED(s->k) * s->e_row);
    plan.contexts = attention_take(&arena, shape->batch * plan.sample_context);
    plan.sample_map = s->fold_output ? TL_ATTENTION_PADDED(s->k) * s->c_row : 0;
    plan.maps = attention_take(&arena, shape->batch * plan.sample_map);
    attention_arena counting = {0};
    (void)take_tiles(s, &counting);
    plan.tile_values = (int64_t)(counting.used / sizeof(tl_real));
    plan.tiles = attention_take(&arena, threads * plan.tile_values);
    plan.bytes = arena.used;
    return plan;
}

static unit_sums sums_of(const forward_plan *plan, int64_t unit) {
    tl_real *at = plan->units + unit * plan->unit_values;
    return (unit_sums){.maximum = at,
                       .sum = at + plan->s.k_row,
                       .context = at + 2 * plan->s.k_row};
}

static forward_tiles tiles_of(const forward_plan *plan, int thread) {
    tl_real *base = plan->tiles + thread * plan->tile_values;
    attention_arena arena = {.base = (char *)base};
    return take_tiles(&plan->s, &arena);
}

/* ------------------------------------------------------------------ stage 1: keys */

/* Raises the running maximum to the tile's, and rescales what was summed under the old one. */
static void raise_maximum(const forward_plan *plan, int64_t rows, const tl_real *logits,
                          const unit_sums *u) {
    const attention_sizes *s = &plan->s;
    for (int64_t a = 0; a < s->k; a += TL_LANES) {
        const tl_v old = tl_v_load(u->maximum + a);
        tl_v maximum = old;
        for (int64_t i = 0; i < rows; i++) {
            maximum = tl_v_max(maximum, tl_v_load(logits + i * s->k_row + a));
        }
        const tl_vi raised = maximum > old;
        bool any = false;
        for (int lane = 0; lane < TL_LANES; lane++) {
            any = any || raised[lane] != 0;
        }
        if (!any) {
            continue;
        }
        const tl_v factor = tl_v_exp2(old - maximum); /* 0 for the first tile, old = -inf */
        tl_v_store(u->maximum + a, maximum);
        tl_v_store(u->sum + a, tl_v_load(u->sum + a) * factor);
        for (int lane = 0; lane < TL_LANES && a + lane < s->k; lane++) {
            tl_real *row = u->context + (a + lane) * plan->context_row;
            const tl_v scale = tl_v_set(factor[lane]);
            for (int64_t j = 0; j < plan->context_columns; j += TL_LANES) {
                tl_v_store(row + j, tl_v_load(row + j) * scale);
            }
        }
    }
}

/* logits -> 2^(logit - maximum), and their sums over the rows. */
static void exponentiate(const attention_sizes *s, int64_t rows, tl_real *logits,
                         const unit_sums *u) {
    for (int64_t a = 0; a < s->k; a += TL_LANES) {
        const tl_v maximum = tl_v_load(u->maximum + a);
        tl_v sum = tl_v_zero();
        for (int64_t i = 0; i < rows; i++) {
            tl_real *at = logits + i * s->k_row + a;
            const tl_v p = tile_exp2(tl_v_load(at) - maximum);
            tl_v_store(at, p);
            sum += p;
        }
        tl_v_store(u->sum + a, tl_v_load(u->sum + a) + sum);
    }
}

/* context += keys^T values, head by head (or keys^T X for all heads at once). */
static void add_context(const forward_plan *plan, const forward_tiles *t, int64_t rows,
                        const tl_real *x, int64_t x_row, const unit_sums *u) {
    const attention_sizes *s = &plan->s;
    if (s->fold_values) {
        tile_multiply((tile_product){.rows = s->k,
                                     .columns = plan->context_columns,
                                     .inner = rows,
                                     .a = t->keys,
                                     .a_row = 1,
                                     .a_step = s->k_row,
                                     .b = x,
                                     .b_row = x_row,
                                     .out = u->context,
                                     .out_row = s->c_row,
                                     .start = u->context,
                                     .start_row = s->c_row});
        return;
    }
    attention_values(s, &plan->w, rows, x, x_row, t->values);
    for (int64_t head = 0; head < s->heads; head++) {
        tl_real *context = u->context + head * s->d * s->e_row;
        tile_multiply((tile_product){.rows = s->d,
                                     .columns = plan->context_columns,
                                     .inner = rows,
                                     .a = t->keys + head * s->d,
                                     .a_row = 1,
                                     .a_step = s->k_row,
                                     .b = t->values + head * s->e,
                                     .b_row = s->v_row,
                                     .out = context,
                                     .out_row = s->e_row,
                                     .start = context,
                                     .start_row = s->e_row});
    }
}

static void sum_unit(const forward_plan *plan, int64_t unit, const tl_real *x, int thread) {
    const attention_sizes *s = &plan->s;
    const attention_run run = attention_run_of(s, unit);
    const forward_tiles t = tiles_of(plan, thread);
    const unit_sums u = sums_of(plan, unit);
    memset(u.maximum, 0, (size_t)plan->unit_values * sizeof(tl_real));
    for (int64_t a = 0; a < s->k_row && !s->scaling; a++) {
        u.maximum[a] = -(tl_real)INFINITY;
    }
    for (int64_t first = run.first; first < run.end; first += TL_ATTENTION_TILE) {
        const int64_t left = run.end - first;
        const int64_t rows = left < TL_ATTENTION_TILE ? left : TL_ATTENTION_TILE;
        int64_t x_row;
        const tl_real *tile = tile_whole_rows(rows, s->c, x + (run.sample * s->n + first) * s->c,
                                              t.x, s->c_row, &x_row);
        attention_key_logits(s, &plan->w, rows, tile, x_row, t.keys);
        if (s->scaling) {
            tile_add_rows(rows, tile_columns(s->k), t.keys, s->k_row, u.sum);
        } else {
            raise_maximum(plan, rows, t.keys, &u);
            exponentiate(s, rows, t.keys, &u);
        }
        add_context(plan, &t, rows, tile, x_row, &u);
    }
}

/* ------------------------------------------------------------------ stage 2: one sample */

/* Adds the other pieces of a sample to its first, in order, under the common maximum. */
static void merge_pieces(const forward_plan *plan, int64_t sample) {
    const attention_sizes *s = &plan->s;
    const unit_sums total = sums_of(plan, sample * s->cut.pieces);
    for (int64_t piece = 1; piece < s->cut.pieces; piece++) {
        const unit_sums part = sums_of(plan, sample * s->cut.pieces + piece);
        for (int64_t a = 0; a < s->k; a++) {
            tl_real ours = 1;
            tl_real theirs = 1;
            if (!s->scaling) {
                const tl_real maximum =
                    total.maximum[a] > part.maximum[a] ? total.maximum[a] : part.maximum[a];
                ours = tl_v_exp2(tl_v_set(total.maximum[a] - maximum))[0];
                theirs = tl_v_exp2(tl_v_set(part.maximum[a] - maximum))[0];
                total.maximum[a] = maximum;
            }
            total.sum[a] = total.sum[a] * ours + part.sum[a] * theirs;
            tl_real *to = total.context + a * plan->context_row;
            const tl_real *from = part.context + a * plan->context_row;
            for (int64_t j = 0; j < plan->context_columns; j += TL_LANES) {
                tl_v_store(to + j, tl_v_load(to + j) * ours + tl_v_load(from + j) * theirs);
            }
        }
    }
}

/* G = H Wv^T + s bv^T, with s = 1 under softmax and the sums of the keys under scaling. */
static void context_from_folded(const forward_plan *plan, const unit_sums *u, tl_real *context) {
    const attention_sizes *s = &plan->s;
    for (int64_t head = 0; head < s->heads; head++) {
        tl_real *out = context + head * s->d * s->e_row;
        const tl_real *bias = plan->w.value_bias + head * s->e;
        tile_multiply((tile_product){.rows = s->d,
                                     .columns = tile_columns(s->e),
                                     .inner = s->c,
                                     .a = u->context + head * s->d * s->c_row,
                                     .a_row = s->c_row,
                                     .a_step = 1,
                                     .b = plan->w.value + head * s->e,
                                     .b_row = s->v_row,
                                     .out = out,
                                     .out_row = s->e_row,
                                     .bias = s->scaling ? NULL : bias});
        for (int64_t a = 0; a < s->d && s->scaling; a++) {
            for (int64_t j = 0; j < s->e; j++) {
                out[a * s->e_row + j] += u->sum[head * s->d + a] * bias[j];
            }
        }
    }
}

static void save_sample(const forward_plan *plan, const unit_sums *u, const tl_real *context,
                        tl_real *saved, int64_t sample) {
    const attention_sizes *s = &plan->s;
    const attention_saved parts = attention_saved_of(s, saved, sample);
    for (int64_t a = 0; a < s->k; a++) {
        if (parts.folded != NULL) {
            memcpy(parts.folded + a * s->c, u->context + a * s->c_row,
                   (size_t)s->c * sizeof(tl_real));
        }
        memcpy(parts.context + a * s->e, context + a * s->e_row, (size_t)s->e * sizeof(tl_real));
    }
    memcpy(parts.maximum, u->maximum, (size_t)s->k * sizeof(tl_real));
    memcpy(parts.sum, u->sum, (size_t)s->k * sizeof(tl_real));
}

static void finish_sample(const forward_plan *plan, int64_t sample, tl_real *saved) {
    const attention_sizes *s = &plan->s;
    const unit_sums u = sums_of(plan, sample * s->cut.pieces);
    tl_real *context = plan->contexts + sample * plan->sample_context;
    merge_pieces(plan, sample);
    for (int64_t a = 0; a < s->k && !s->scaling; a++) {
        const tl_real inverse = (tl_real)1 / u.sum[a];
        tl_real *row = u.context + a * plan->context_row;
        for (int64_t j = 0; j < plan->context_columns; j++) {
            row[j] *= inverse;
        }
    }
    if (s->fold_values) {
        context_from_folded(plan, &u, context);
    } else {
        memcpy(context, u.context, (size_t)(s->k * s->e_row) * sizeof(tl_real));
    }
    if (saved != NULL) {
        save_sample(plan, &u, context, saved, sample);
    }
    if (s->fold_output) {
        attention_fold_output(s, &plan->w, context, plan->maps + sample * plan->sample_map);
    }
}

/* ------------------------------------------------------------------ stage 3: queries */

/* y of a tile: the queries' share, the bias and the residual. `y` has room for whole vectors. */
static void output_tile(const forward_plan *plan, const forward_tiles *t, int64_t sample,
                        int64_t rows, const tl_real *x, int64_t x_row, tl_real *y, int64_t y_row) {
    const attention_sizes *s = &plan->s;
    const tl_real *context = plan->contexts + sample * plan->sample_context;
    const tl_real *start = s->residual ? x : NULL;
    attention_queries(s, &plan->w, rows, x, x_row, t->keys, t->queries);
    if (s->fold_output) {
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->c),
                                     .inner = s->k,
                                     .a = t->queries,
                                     .a_row = 1,
                                     .a_step = TL_ATTENTION_TILE,
                                     .b = plan->maps + sample * plan->sample_map,
                                     .b_row = s->c_row,
                                     .out = y,
                                     .out_row = y_row,
                                     .start = start,
                                     .start_row = x_row,
                                     .bias = plan->w.reprojection_bias});
        return;
    }
    attention_apply_context(s, rows, t->queries, context, NULL, 0, t->values, s->v_row);
    if (s->reprojection) {
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->c),
                                     .inner = s->v,
                                     .a = t->values,
                                     .a_row = s->v_row,
                                     .a_step = 1,
                                     .b = plan->w.reprojection,
                                     .b_row = s->c_row,
                                     .out = y,
                                     .out_row = y_row,
                                     .start = start,
                                     .start_row = x_row,
                                     .bias = plan->w.reprojection_bias});
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < s->v; j++) {
            y[i * y_row + j] =
                t->values[i * s->v_row + j] + (s->residual ? x[i * x_row + j] : (tl_real)0);
        }
    }
}

static void output_unit(const forward_plan *plan, int64_t unit, const tl_real *x, tl_real *y,
                        int thread) {
    const attention_sizes *s = &plan->s;
    const attention_run run = attention_run_of(s, unit);
    const forward_tiles t = tiles_of(plan, thread);
    const bool whole = s->out % TL_LANES == 0;
    for (int64_t first = run.first; first < run.end; first += TL_ATTENTION_TILE) {
        const int64_t left = run.end - first;
        const int64_t rows = left < TL_ATTENTION_TILE ? left : TL_ATTENTION_TILE;
        const int64_t position = run.sample * s->n + first;
        int64_t x_row;
        const tl_real *tile =
            tile_whole_rows(rows, s->c, x + position * s->c, t.x, s->c_row, &x_row);
        tl_real *to = y + position * s->out;
        output_tile(plan, &t, run.sample, rows, tile, x_row, whole ? to : t.y,
                    whole ? s->out : s->out_row);
        for (int64_t i = 0; i < rows && !whole; i++) {
            memcpy(to + i * s->out, t.y + i * s->out_row, (size_t)s->out * sizeof(tl_real));
        }
    }
}

static size_t forward_scratch_bytes(const tl_attention_shape *shape, int threads) {
    return make_plan(shape, threads, NULL).bytes;
}

static void forward(const tl_attention_shape *shape, const tl_attention_parameters *parameters,
                    const tl_real *x, tl_real *y, tl_real *saved, void *scratch, int threads) {
    const forward_plan plan = make_plan(shape, threads, scratch);
    const int64_t units = plan.s.cut.units;
    const int team = tl_attention_forward_flops(shape) < TL_PARALLEL_MINIMUM ? 1 : threads;
    attention_pack(&plan.s, parameters, &plan.w);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t unit = 0; unit < units; unit++) {
            sum_unit(&plan, unit, x, thread);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t sample = 0; sample < shape->batch; sample++) {
            finish_sample(&plan, sample, saved);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t unit = 0; unit < units; unit++) {
            output_unit(&plan, unit, x, y, thread);
        }
    }
}

static size_t backward_scratch_bytes(const tl_attention_shape *shape, int threads) {
    return TL_PER_ISA(tl_efficient_attention_backward).scratch_bytes(shape, threads);
}

static void backward(const tl_attention_shape *shape, const tl_attention_parameters *parameters,
                     const tl_real *x, const tl_real *dy, const tl_real *saved,
                     const tl_attention_gradients *gradients, void *scratch, int threads) {
    TL_PER_ISA(tl_efficient_attention_backward)
        .backward(shape, parameters, x, dy, saved, gradients, scratch, threads);
}

const tl_efficient_attention_kernels TL_PER_ISA(tl_efficient_attention_kernels) = {
    .forward_scratch_bytes = forward_scratch_bytes,
    .forward = forward,
    .backward_scratch_bytes = backward_scratch_bytes,
    .backward = backward,
};
