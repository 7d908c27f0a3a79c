/* k_efficient_attention.c - forward of efficient attention.
 *
 * Two passes over the positions of a sample, in tiles of TL_ATTENTION_TILE:
 *
 *   1. keys:    logits S = X Wk^T of the tile; running maximum and sum of exponentials per key
 *               channel; H += exp(S - maximum)^T X (or, values not folded, G += exp(..)^T values).
 *               When the maximum rises, what was summed is scaled down. It is raised only when a
 *               logit exceeds it by 8 (in log2 units), so that this is rare; exponentials stay
 *               below 2^8 and nothing can overflow.
 *      context: pieces are merged in order, H /= sum, G = H Wv^T + bv, M = G Wr^T.
 *   2. queries: X Wq^T + bq, softmax over the channels of each head with positions in the lanes,
 *               Y = X + queries M + br.
 *
 * 8 n C K FLOPs when all is folded; x is read twice, y written once, nothing else leaves the cache.
 * Logits are kept in log2 units: log2 e and 1/temperature are multiplied into the packed weights.
 */
#include "kernels/kernels.h"

#include "kernels/k_attention_constant.h"
#include "kernels/k_efficient_attention_backward.h"
#include "kernels/shares.h"

/* Sums over the positions of one unit. */
typedef struct key_sums {
    tl_real *weighted; /* H [K, c_row], or G [K, e_row] where values are not folded */
    tl_real *maximum;  /* [k_row] */
    tl_real *sum;      /* [k_row] */
} key_sums;

typedef struct tile_scratch {
    tl_real *x;         /* [tile, c_row] */
    tl_real *x_t;       /* [C, tile], with few key channels */
    tl_real *projected; /* [tile, k_row] */
    tl_real *queries;   /* [K, tile]; with few key channels keys too */
    tl_real *values;    /* [tile, v_row] */
    tl_real *y;         /* [tile, out_row] */
} tile_scratch;

/* What one sample needs between the passes. */
typedef struct sample_scratch {
    tl_real *context; /* G [K, e_row] */
    tl_real *map;     /* M [K, c_row] */
    tl_real *row;     /* constant queries: what is added to every row, over a period */
} sample_scratch;

typedef struct forward_work {
    attention_sizes size;
    attention_projections weights;
    const tl_real *x;
    tl_real *y, *saved;
    attention_arena unit_area, sample_area, thread_area;
    size_t unit_bytes, sample_bytes, thread_bytes;
} forward_work;

static int64_t weighted_row(const attention_sizes *s) {
    return s->fold_values ? s->c_row : s->e_row;
}

static key_sums take_key_sums(const attention_sizes *s, attention_arena *arena) {
    return (key_sums){
        .weighted = attention_take_matrix(arena, s->k, weighted_row(s)),
        .maximum = attention_take(arena, s->k_row),
        .sum = attention_take(arena, s->k_row),
    };
}

static sample_scratch take_sample(const attention_sizes *s, attention_arena *arena) {
    return (sample_scratch){
        .context = attention_take_matrix(arena, s->k, s->e_row),
        .map = s->fold_output ? attention_take_matrix(arena, s->k, s->c_row) : NULL,
        .row = s->constant_queries ? attention_take(arena, constant_room(s->out)) : NULL,
    };
}

static tile_scratch take_tile(const attention_sizes *s, attention_arena *arena) {
    return (tile_scratch){
        .x = attention_take(arena, TL_ATTENTION_TILE * s->c_row),
        .x_t = s->narrow ? attention_take_matrix(arena, s->c, TL_ATTENTION_TILE) : NULL,
        .projected = attention_take(arena, TL_ATTENTION_TILE * s->k_row),
        .queries = attention_take_matrix(arena, s->k, TL_ATTENTION_TILE),
        .values = attention_take(arena, TL_ATTENTION_TILE * s->v_row),
        .y = attention_take(arena, TL_ATTENTION_TILE * s->out_row),
    };
}

/* With one piece a sample is finished by the thread that began it: units and samples need room per
 * thread only. */
static size_t lay_out(forward_work *work, void *scratch, int threads) {
    const attention_sizes *s = &work->size;
    attention_arena arena = {.base = scratch};
    work->weights = attention_take_projections(s, &arena);
    attention_arena count = {.base = NULL};
    take_key_sums(s, &count);
    work->unit_bytes = count.used;
    count.used = 0;
    take_sample(s, &count);
    work->sample_bytes = count.used;
    count.used = 0;
    take_tile(s, &count);
    work->thread_bytes = count.used;
    const bool whole = s->cut.pieces == 1;
    work->unit_area = arena;
    arena.used +=
        work->unit_bytes * (size_t)(whole || threads > s->cut.units ? threads : s->cut.units);
    work->sample_area = arena;
    arena.used += work->sample_bytes * (size_t)(whole ? threads : s->cut.units / s->cut.pieces);
    work->thread_area = arena;
    arena.used += work->thread_bytes * (size_t)threads;
    return arena.used;
}

static key_sums key_sums_of(const forward_work *work, int64_t unit) {
    attention_arena part = attention_part(work->unit_area, work->unit_bytes, unit);
    return take_key_sums(&work->size, &part);
}

static sample_scratch sample_of(const forward_work *work, int64_t sample) {
    attention_arena part = attention_part(work->sample_area, work->sample_bytes, sample);
    return take_sample(&work->size, &part);
}

static tile_scratch tile_of(const forward_work *work, int thread) {
    attention_arena part = attention_part(work->thread_area, work->thread_bytes, thread);
    return take_tile(&work->size, &part);
}

/* ------------------------------------------------------------------ pass 1 */

/* What was summed for channel a, scaled by the change of its maximum. */
static void scale_weighted(const attention_sizes *s, int64_t a, tl_real factor,
                           const key_sums *sums) {
    const int64_t row = weighted_row(s);
    tl_real *weighted = sums->weighted + a * row;
    for (int64_t j = 0; j < row; j += TL_LANES) {
        tl_v_store(weighted + j, tl_v_load(weighted + j) * factor);
    }
}

static void raise_maximum(const attention_sizes *s, int64_t column, tl_v maximum,
                          const key_sums *sums) {
    const tl_v raised = tl_v_max(tl_v_load(sums->maximum + column), maximum);
    const tl_v factor = tl_v_exp2_low(tl_v_load(sums->maximum + column) - raised);
    tl_v_store(sums->maximum + column, raised);
    tl_v_store(sums->sum + column, tl_v_load(sums->sum + column) * factor);
    for (int64_t lane = 0; lane < TL_LANES && column + lane < s->k; lane++) {
        scale_weighted(s, column + lane, factor[lane], sums);
    }
}

/* The maximum is raised when a logit exceeds it by so much. */
static const tl_real lazy = 8;

/* Logits on entry, exp(logit - maximum) on return. */
static void exponentiate_keys(const attention_sizes *s, int64_t rows, attention_keys keys,
                              const key_sums *sums) {
    for (int64_t column = 0; column < s->k; column += TL_LANES) {
        tl_real *at = keys.values + column;
        tl_v maximum = tl_v_load(at);
        for (int64_t i = 1; i < rows; i++) {
            maximum = tl_v_max(maximum, tl_v_load(at + i * s->k_row));
        }
        if (tl_v_any(maximum > tl_v_load(sums->maximum + column) + lazy)) {
            raise_maximum(s, column, maximum, sums);
        }
        maximum = tl_v_load(sums->maximum + column);
        tl_v sum = tl_v_zero();
        for (int64_t i = 0; i < rows; i++) {
            const tl_v p = tl_v_exp2_low(tl_v_load(at + i * s->k_row) - maximum);
            tl_v_store(at + i * s->k_row, p);
            sum += p;
        }
        tl_v_store(sums->sum + column, tl_v_load(sums->sum + column) + sum);
    }
}

/* The same with few channels. */
static void exponentiate_narrow(const attention_sizes *s, int64_t rows, attention_keys keys,
                                const key_sums *sums) {
    for (int64_t a = 0; a < s->k; a++) {
        tl_real *logits = keys.values + a * TL_ATTENTION_TILE;
        const tl_real maximum = narrow_maximum(rows, logits);
        if (maximum > sums->maximum[a] + lazy) {
            const tl_real factor = tl_v_exp2_low(tl_v_set(sums->maximum[a] - maximum))[0];
            scale_weighted(s, a, factor, sums);
            sums->sum[a] *= factor;
            sums->maximum[a] = maximum;
        }
        sums->sum[a] += narrow_exponentiate(rows, sums->maximum[a], logits);
    }
}

static void add_keys(const attention_sizes *s, int64_t rows, attention_keys keys,
                     const key_sums *sums) {
    if (!s->narrow) {
        tile_add_rows(rows, s->k, keys.values, s->k_row, sums->sum);
        return;
    }
    for (int64_t a = 0; a < s->k; a++) {
        sums->sum[a] += narrow_sum(rows, keys.values + a * TL_ATTENTION_TILE);
    }
}

/* weighted += keys^T X, or head by head keys^T values. */
static void add_weighted(const forward_work *work, const attention_rows *x, attention_keys keys,
                         const tile_scratch *tile, const key_sums *sums) {
    const attention_sizes *s = &work->size;
    if (s->fold_values) {
        tile_multiply((tile_product){.rows = s->k,
                                     .columns = tile_columns(s->c),
                                     .inner = x->count,
                                     .a = keys.values,
                                     .a_row = keys.step,
                                     .a_step = keys.row,
                                     .b = x->values,
                                     .b_row = x->row,
                                     .out = sums->weighted,
                                     .out_row = s->c_row,
                                     .start = sums->weighted,
                                     .start_row = s->c_row});
        return;
    }
    attention_values(s, &work->weights, x, tile->values);
    for (int64_t head = 0; head < s->heads; head++) {
        tl_real *weighted = sums->weighted + head * s->d * s->e_row;
        tile_multiply((tile_product){.rows = s->d,
                                     .columns = tile_columns(s->e),
                                     .inner = x->count,
                                     .a = keys.values + head * s->d,
                                     .a_row = 1,
                                     .a_step = s->k_row,
                                     .b = tile->values + head * s->e,
                                     .b_row = s->v_row,
                                     .out = weighted,
                                     .out_row = s->e_row,
                                     .start = weighted,
                                     .start_row = s->e_row});
    }
}

/* The rows of x from `first` of the run on. */
static attention_rows x_rows(const forward_work *work, attention_run run, int64_t first,
                             const tile_scratch *tile) {
    const attention_sizes *s = &work->size;
    const int64_t left = run.end - first;
    const tl_real *x = work->x + (run.sample * s->n + first) * s->c;
    fetch_forget();
    tile_fetch_next(x, left, s->c);
    return attention_rows_of(s, left < TL_ATTENTION_TILE ? left : TL_ATTENTION_TILE, s->c, x,
                             tile->x, s->c_row, tile->x_t);
}

static void keys_pass(const forward_work *work, attention_run run, const tile_scratch *tile,
                      const key_sums *sums) {
    const attention_sizes *s = &work->size;
    const attention_keys keys = attention_keys_in(s, tile->projected, tile->queries);
    memset(sums->weighted, 0, (size_t)(s->k * weighted_row(s)) * sizeof(tl_real));
    memset(sums->sum, 0, (size_t)s->k_row * sizeof(tl_real));
    for (int64_t a = 0; a < s->k_row; a++) {
        sums->maximum[a] = (tl_real)-INFINITY;
    }
    for (int64_t first = run.first; first < run.end; first += TL_ATTENTION_TILE) {
        const attention_rows x = x_rows(work, run, first, tile);
        attention_key_logits(s, &work->weights, &x, keys);
        if (s->scaling) {
            add_keys(s, x.count, keys, sums);
        } else {
            (s->narrow ? exponentiate_narrow : exponentiate_keys)(s, x.count, keys, sums);
        }
        add_weighted(work, &x, keys, tile, sums);
    }
}

/* ------------------------------------------------------------------ between the passes */

/* Adds `from` to `to`: both are brought to their common maximum first. */
static void merge_key_sums(const attention_sizes *s, const key_sums *from, const key_sums *to) {
    const int64_t row = weighted_row(s);
    for (int64_t a = 0; a < s->k; a++) {
        tl_real keep = 1, take = 1;
        if (!s->scaling) {
            const tl_real maximum =
                from->maximum[a] > to->maximum[a] ? from->maximum[a] : to->maximum[a];
            keep = (tl_real)exp2((double)(to->maximum[a] - maximum));
            take = (tl_real)exp2((double)(from->maximum[a] - maximum));
            to->maximum[a] = maximum;
        }
        to->sum[a] = to->sum[a] * keep + from->sum[a] * take;
        for (int64_t j = 0; j < row; j++) {
            to->weighted[a * row + j] =
                to->weighted[a * row + j] * keep + from->weighted[a * row + j] * take;
        }
    }
}

/* G [K, e_row] = H Wv^T + bv (under scaling the keys do not sum to 1: + sum bv). */
static void unfold_values(const forward_work *work, const key_sums *sums, tl_real *context) {
    const attention_sizes *s = &work->size;
    for (int64_t head = 0; head < s->heads; head++) {
        tl_real *of_head = context + head * s->d * s->e_row;
        const tl_real *bias = work->weights.value_bias + head * s->e;
        tile_multiply((tile_product){.rows = s->d,
                                     .columns = tile_columns(s->e),
                                     .inner = s->c,
                                     .a = sums->weighted + head * s->d * s->c_row,
                                     .a_row = s->c_row,
                                     .a_step = 1,
                                     .b = work->weights.value + head * s->e,
                                     .b_row = s->v_row,
                                     .out = of_head,
                                     .out_row = s->e_row,
                                     .bias = s->scaling ? NULL : bias});
        for (int64_t a = 0; s->scaling && a < s->d; a++) {
            for (int64_t j = 0; j < s->e; j++) {
                of_head[a * s->e_row + j] += sums->sum[head * s->d + a] * bias[j];
            }
        }
    }
}

static void finish_context(const forward_work *work, int64_t sample, const key_sums *sums,
                           const sample_scratch *scratch) {
    const attention_sizes *s = &work->size;
    const int64_t row = weighted_row(s);
    for (int64_t a = 0; !s->scaling && a < s->k; a++) {
        const tl_real inverse = 1 / sums->sum[a];
        for (int64_t j = 0; j < row; j++) {
            sums->weighted[a * row + j] *= inverse;
        }
    }
    if (s->fold_values) {
        unfold_values(work, sums, scratch->context);
    } else {
        memcpy(scratch->context, sums->weighted, (size_t)(s->k * row) * sizeof(tl_real));
    }
    if (s->fold_output) {
        attention_fold_output(s, &work->weights, scratch->context, scratch->map);
    }
    if (s->constant_queries) {
        constant_row(s, &work->weights, scratch->context, scratch->map, scratch->row);
    }
    if (work->saved == NULL) {
        return;
    }
    const attention_saved saved = attention_saved_of(s, work->saved, sample);
    for (int64_t a = 0; a < s->k; a++) {
        if (s->fold_values) {
            memcpy(saved.folded + a * s->c, sums->weighted + a * row,
                   (size_t)s->c * sizeof(tl_real));
        }
        memcpy(saved.context + a * s->e, scratch->context + a * s->e_row,
               (size_t)s->e * sizeof(tl_real));
        saved.maximum[a] = s->scaling ? 0 : sums->maximum[a];
        saved.sum[a] = sums->sum[a];
    }
}

/* ------------------------------------------------------------------ pass 2 */

/* y [rows, C] = left A + br (+ x), where A has `inner` rows: M for queries, Wr^T for outputs. */
static void project_output(const forward_work *work, const attention_rows *x, tile_product product,
                           const tile_scratch *tile, tl_real *y) {
    const attention_sizes *s = &work->size;
    const bool direct = s->c % TL_LANES == 0;
    product.rows = x->count;
    product.columns = tile_columns(s->c);
    product.out = direct ? y : tile->y;
    product.out_row = direct ? s->c : s->out_row;
    product.start = s->residual ? x->values : NULL;
    product.start_row = x->row;
    product.bias = work->weights.reprojection_bias;
    tile_multiply(product);
    if (!direct) {
        tile_unpad_rows(x->count, s->c, tile->y, s->out_row, y, false);
    }
}

/* y [rows, V] = queries G (+ x). */
static void output_without_reprojection(const forward_work *work, const attention_rows *x,
                                        const tl_real *context, const tile_scratch *tile,
                                        tl_real *y) {
    const attention_sizes *s = &work->size;
    if (s->e % TL_LANES == 0) {
        attention_apply_context(s, x->count, tile->queries, context, s->residual ? x->values : NULL,
                                x->row, y, s->v);
        return;
    }
    attention_apply_context(s, x->count, tile->queries, context, NULL, 0, tile->y, s->out_row);
    for (int64_t i = 0; i < x->count; i++) {
        for (int64_t j = 0; j < s->v; j++) {
            const tl_real value = tile->y[i * s->out_row + j];
            y[i * s->v + j] = s->residual ? x->values[i * x->row + j] + value : value;
        }
    }
}

static void queries_pass(const forward_work *work, attention_run run, const tile_scratch *tile,
                         const sample_scratch *sample) {
    const attention_sizes *s = &work->size;
    if (s->constant_queries) {
        const int64_t position = run.sample * s->n + run.first;
        constant_output((run.end - run.first) * s->out, constant_period(s->out), sample->row,
                        s->residual ? work->x + position * s->c : NULL,
                        work->y + position * s->out);
        return;
    }
    for (int64_t first = run.first; first < run.end; first += TL_ATTENTION_TILE) {
        const attention_rows x = x_rows(work, run, first, tile);
        tl_real *y = work->y + (run.sample * s->n + first) * s->out;
        tile_fetch_next(y, run.end - first, s->out);
        attention_queries(s, &work->weights, &x, tile->projected, tile->queries);
        if (s->fold_output) {
            const tile_product product = {.inner = s->k,
                                          .a = tile->queries,
                                          .a_row = 1,
                                          .a_step = TL_ATTENTION_TILE,
                                          .b = sample->map,
                                          .b_row = s->c_row};
            project_output(work, &x, product, tile, y);
        } else if (s->reprojection) {
            attention_apply_context(s, x.count, tile->queries, sample->context, NULL, 0,
                                    tile->values, s->v_row);
            const tile_product product = {.inner = s->v,
                                          .a = tile->values,
                                          .a_row = s->v_row,
                                          .a_step = 1,
                                          .b = work->weights.reprojection,
                                          .b_row = s->c_row};
            project_output(work, &x, product, tile, y);
        } else {
            output_without_reprojection(work, &x, sample->context, tile, y);
        }
    }
}

/* ------------------------------------------------------------------ the whole */

/* Every sample by one thread from beginning to end, while it is in the cache. */
static void forward_whole_samples(const forward_work *work, int threads) {
    const int64_t units = work->size.cut.units;
    tl_shares shares = tl_shares_of(units, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t unit; tl_shares_take(&shares, &unit);) {
        const int thread = attention_thread();
        const tile_scratch tile = tile_of(work, thread);
        const key_sums sums = key_sums_of(work, thread);
        const sample_scratch sample = sample_of(work, thread);
        const attention_run run = attention_run_of(&work->size, unit);
        keys_pass(work, run, &tile, &sums);
        finish_context(work, run.sample, &sums, &sample);
        queries_pass(work, run, &tile, &sample);
    }
}

static void forward_in_pieces(const forward_work *work, int threads) {
    const attention_sizes *s = &work->size;
    const int64_t units = s->cut.units, pieces = s->cut.pieces;
    tl_shares shares = tl_shares_of(units, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t unit; tl_shares_take(&shares, &unit);) {
        const tile_scratch tile = tile_of(work, attention_thread());
        const key_sums sums = key_sums_of(work, unit);
        keys_pass(work, attention_run_of(s, unit), &tile, &sums);
    }
    for (int64_t index = 0; index < units / pieces; index++) {
        const key_sums total = key_sums_of(work, index * pieces);
        for (int64_t piece = 1; piece < pieces; piece++) {
            const key_sums part = key_sums_of(work, index * pieces + piece);
            merge_key_sums(s, &part, &total);
        }
        const sample_scratch sample = sample_of(work, index);
        finish_context(work, index, &total, &sample);
    }
    tl_shares again = tl_shares_of(units, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t unit; tl_shares_take(&again, &unit);) {
        const tile_scratch tile = tile_of(work, attention_thread());
        const sample_scratch sample = sample_of(work, unit / pieces);
        queries_pass(work, attention_run_of(s, unit), &tile, &sample);
    }
}

static size_t forward_scratch_bytes(const tl_attention_shape *shape, int threads) {
    forward_work work = {.size = attention_sizes_of(shape)};
    return lay_out(&work, NULL, threads);
}

static void forward(const tl_attention_shape *shape, const tl_attention_parameters *parameters,
                    const tl_real *x, tl_real *y, tl_real *saved, void *scratch, int threads) {
    forward_work work = {.size = attention_sizes_of(shape), .x = x, .y = y, .saved = saved};
    lay_out(&work, scratch, threads);
    attention_pack(&work.size, parameters, &work.weights);
    const int used = tl_attention_forward_flops(shape) < TL_PARALLEL_MINIMUM ? 1 : threads;
    if (work.size.cut.pieces == 1) {
        forward_whole_samples(&work, used);
    } else {
        forward_in_pieces(&work, used);
    }
}

/* ------------------------------------------------------------------ maps */

/* The keys of one sample once their maximum and sum are known, written to maps [n, K]. */
static void write_maps(const forward_work *work, int64_t sample, const tile_scratch *tile,
                       const key_sums *sums, tl_real *maps) {
    const attention_sizes *s = &work->size;
    const attention_run run = {sample, 0, s->n};
    const attention_keys keys = attention_keys_in(s, tile->projected, tile->queries);
    for (int64_t first = 0; first < s->n; first += TL_ATTENTION_TILE) {
        const attention_rows x = x_rows(work, run, first, tile);
        attention_key_logits(s, &work->weights, &x, keys);
        if (!s->scaling) {
            attention_normalize_keys(s, x.count, sums->maximum, sums->sum, keys);
        }
        for (int64_t i = 0; i < x.count; i++) {
            for (int64_t a = 0; a < s->k; a++) {
                maps[(first + i) * s->k + a] = keys.values[i * keys.row + a * keys.step];
            }
        }
    }
}

static void maps(const tl_attention_shape *shape, const tl_attention_parameters *parameters,
                 const tl_real *x, tl_real *out, void *scratch, int threads) {
    forward_work work = {.size = attention_sizes_of(shape), .x = x};
    const attention_sizes *s = &work.size;
    lay_out(&work, scratch, threads);
    attention_pack(s, parameters, &work.weights);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t sample = 0; sample < shape->batch; sample++) {
        const int thread = attention_thread();
        const tile_scratch tile = tile_of(&work, thread);
        const key_sums sums = key_sums_of(&work, thread);
        keys_pass(&work, (attention_run){sample, 0, s->n}, &tile, &sums);
        for (int64_t a = 0; a < s->k_row; a++) {
            sums.sum[a] = 1 / sums.sum[a];
        }
        write_maps(&work, sample, &tile, &sums, out + sample * s->n * s->k);
    }
}

const tl_efficient_attention_kernels TL_PER_ISA(tl_efficient_attention_kernels) = {
    .forward_scratch_bytes = forward_scratch_bytes,
    .forward = forward,
    .maps = maps,
    .backward_scratch_bytes = TL_PER_ISA(tl_efficient_attention_backward_scratch_bytes),
    .backward = TL_PER_ISA(tl_efficient_attention_backward),
};
