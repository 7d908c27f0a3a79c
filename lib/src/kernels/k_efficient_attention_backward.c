/* k_efficient_attention_backward.c - the gradient, with queries and keys computed again.
 *
 * Per sample, q and p the normalised queries and keys [n, K], with forward: y = x + q M + br,
 * M = G Wr^T, G = H Wv^T + s bv^T, H = p^T x (folded; per head where heads are split):
 *
 *   1. tiles of dy and x:      dM = q^T dy            dq = dy M^T        dbr = sum of dy
 *      unfolded output:        dU = dy Wr, dG = q^T dU, dq = dU G^T, dWr = dy^T U, with U = q G
 *      softmax over channels:  dl = q (dq - sum q dq) / temperature      scaling: dl = dq / sqrt n
 *                              dWq = dl^T x, dbq = sum of dl, dx = dy + dl Wq
 *   2. once a sample:          dG = dM Wr, dWr += dM^T G
 *                              dH = dG Wv, dWv += dG^T H, dbv += s dG,   t_a = <dH_a, H_a>
 *   3. tiles again:            dp = x dH^T            dx += p dH
 *      unfolded values:        dp = v dG^T, dv = p dG, dWv += dv^T x, dx += dv Wv, t = <dG_a, G_a>
 *      softmax over positions: dl = p (dp - t) / temperature; its sum over the positions that the
 *                              softmax needs is t, no extra pass. The key bias has no gradient.
 *      scaling:                dl = (dp + dG bv) / sqrt n, and dbk = sum of dl
 *                              dWk = dl^T x, dx += dl Wk
 *
 * Gradients of parameters are summed per group of units and the groups in order at the end, so the
 * bits do not depend on the threads. Bytes moved: x twice, dy once, dx written once, updated once.
 */
#include "kernels/k_attention_steps.h"

#include <omp.h>

/* A group's sums; rows are padded. */
typedef struct group_sums {
    tl_real *query_weight, *query_bias;               /* [K, c_row], [k_row] */
    tl_real *key_weight, *key_bias;                   /* the same */
    tl_real *value_weight, *value_bias;               /* [V, c_row], [v_row] */
    tl_real *reprojection_weight, *reprojection_bias; /* [C, v_row], [c_row] */
} group_sums;

/* Weights as stored, rows padded: for products with a gradient on their left. */
typedef struct natural_weights {
    tl_real *query, *key, *value; /* [K, c_row], [K, c_row], [V, c_row] */
    tl_real *reprojection;        /* [C, v_row] */
} natural_weights;

/* What the tiles of one sample need. */
typedef struct sample_maps {
    tl_real *context;    /* G [K, e_row], zeros behind e */
    tl_real *folded;     /* H [K, c_row] */
    tl_real *map;        /* M^T [C, k_row] folded output, else G^T [heads e, d_row] */
    tl_real *d_context;  /* dG [K, e_row] */
    tl_real *d_folded;   /* dH [K, c_row] */
    tl_real *map_rows;   /* M [K, c_row], folded output only; may be where dH will be */
    tl_real *d_key_map;  /* dH^T [C, k_row], or dG^T [heads e, d_row] */
    tl_real *maximum;    /* [k_row] */
    tl_real *inverse;    /* [k_row]: 1 / sum (softmax) */
    tl_real *sum;        /* [k_row]: sums of the keys (scaling), ones (softmax) */
    tl_real *correction; /* [k_row]: t (softmax), or what dp starts from (scaling) */
} sample_maps;

typedef struct backward_tiles {
    tl_real *x, *dy;          /* [T, c_row], [T, out_row] */
    tl_real *rows;            /* [T, k_row] */
    tl_real *gradient_rows;   /* [T, k_row] */
    tl_real *queries, *d_queries; /* [K, T] */
    tl_real *values, *d_values;   /* [T, v_row] */
    tl_real *dx;              /* [T, c_row] */
} backward_tiles;

typedef struct backward_plan {
    attention_sizes s;
    attention_projections w;
    natural_weights natural;
    int64_t d_row;          /* of G^T */
    int64_t unit_row;       /* of a unit's dM (c_row) or dG (e_row) */
    int64_t unit_columns;
    int64_t unit_values;
    tl_real *units;
    int64_t sample_values;
    tl_real *samples;
    int64_t group_values;
    tl_real *groups;
    int64_t tile_values;
    tl_real *tiles;
    size_t bytes;
} backward_plan;

/* ------------------------------------------------------------------ scratch */

static group_sums take_group(const attention_sizes *s, attention_arena *arena) {
    group_sums g = {
        .query_weight = attention_take_matrix(arena, s->k, s->c_row),
        .query_bias = attention_take(arena, s->k_row),
        .key_weight = attention_take_matrix(arena, s->k, s->c_row),
        .key_bias = attention_take(arena, s->k_row),
        .value_weight = attention_take_matrix(arena, s->v, s->c_row),
        .value_bias = attention_take(arena, s->v_row),
    };
    if (s->reprojection) {
        g.reprojection_weight = attention_take_matrix(arena, s->c, s->v_row);
        g.reprojection_bias = attention_take(arena, s->c_row);
    }
    return g;
}

static sample_maps take_sample(const backward_plan *plan, attention_arena *arena) {
    const attention_sizes *s = &plan->s;
    sample_maps m = {
        .context = attention_take_matrix(arena, s->k, s->e_row),
        .d_context = attention_take_matrix(arena, s->k, s->e_row),
        .maximum = attention_take(arena, s->k_row),
        .inverse = attention_take(arena, s->k_row),
        .sum = attention_take(arena, s->k_row),
        .correction = attention_take(arena, s->k_row),
    };
    m.map = s->fold_output ? attention_take_matrix(arena, s->c, s->k_row)
                           : attention_take_matrix(arena, s->v, plan->d_row);
    if (s->fold_values) {
        m.folded = attention_take_matrix(arena, s->k, s->c_row);
        m.d_folded = attention_take_matrix(arena, s->k, s->c_row);
        m.d_key_map = attention_take_matrix(arena, s->c, s->k_row);
        m.map_rows = m.d_folded;
    } else {
        m.d_key_map = attention_take_matrix(arena, s->v, plan->d_row);
        m.map_rows = s->fold_output ? attention_take_matrix(arena, s->k, s->c_row) : NULL;
    }
    return m;
}

static backward_tiles take_tiles(const attention_sizes *s, attention_arena *arena) {
    return (backward_tiles){
        .x = attention_take_matrix(arena, TL_ATTENTION_TILE, s->c_row),
        .dy = attention_take_matrix(arena, TL_ATTENTION_TILE, s->out_row),
        .rows = attention_take_matrix(arena, TL_ATTENTION_TILE, s->k_row),
        .gradient_rows = attention_take_matrix(arena, TL_ATTENTION_TILE, s->k_row),
        .queries = attention_take_matrix(arena, s->k, TL_ATTENTION_TILE),
        .d_queries = attention_take_matrix(arena, s->k, TL_ATTENTION_TILE),
        .values = attention_take_matrix(arena, TL_ATTENTION_TILE, s->v_row),
        .d_values = attention_take_matrix(arena, TL_ATTENTION_TILE, s->v_row),
        .dx = attention_take_matrix(arena, TL_ATTENTION_TILE, s->c_row),
    };
}

static int64_t values_in(const attention_arena *arena) {
    return (int64_t)(arena->used / sizeof(tl_real));
}

static backward_plan make_plan(const tl_attention_shape *shape, int threads, char *base) {
    backward_plan plan = {.s = attention_sizes_of(shape)};
    const attention_sizes *s = &plan.s;
    attention_arena arena = {.base = base};
    plan.w = attention_take_projections(s, &arena);
    plan.natural = (natural_weights){
        .query = attention_take_matrix(&arena, s->k, s->c_row),
        .key = attention_take_matrix(&arena, s->k, s->c_row),
        .value = attention_take_matrix(&arena, s->v, s->c_row),
        .reprojection = s->reprojection ? attention_take_matrix(&arena, s->c, s->v_row) : NULL,
    };
    plan.d_row = TL_ATTENTION_PADDED(s->d);
    plan.unit_row = s->fold_output ? s->c_row : s->e_row;
    plan.unit_columns = tile_columns(s->fold_output ? s->c : s->e);
    plan.unit_values = TL_ATTENTION_PADDED(s->k) * plan.unit_row;
    plan.units = attention_take(&arena, s->cut.units * plan.unit_values);
    attention_arena counting = {0};
    (void)take_sample(&plan, &counting);
    plan.sample_values = values_in(&counting);
    plan.samples = attention_take(&arena, shape->batch * plan.sample_values);
    counting = (attention_arena){0};
    (void)take_group(s, &counting);
    plan.group_values = values_in(&counting);
    plan.groups = attention_take(&arena, s->cut.groups * plan.group_values);
    counting = (attention_arena){0};
    (void)take_tiles(s, &counting);
    plan.tile_values = values_in(&counting);
    plan.tiles = attention_take(&arena, threads * plan.tile_values);
    plan.bytes = arena.used;
    return plan;
}

static group_sums group_of(const backward_plan *plan, int64_t group) {
    attention_arena arena = {.base = (char *)(plan->groups + group * plan->group_values)};
    return take_group(&plan->s, &arena);
}

static sample_maps sample_of(const backward_plan *plan, int64_t sample) {
    attention_arena arena = {.base = (char *)(plan->samples + sample * plan->sample_values)};
    return take_sample(plan, &arena);
}

static backward_tiles tiles_of(const backward_plan *plan, int thread) {
    attention_arena arena = {.base = (char *)(plan->tiles + thread * plan->tile_values)};
    return take_tiles(&plan->s, &arena);
}

/* ------------------------------------------------------------------ what a sample needs */

/* G^T of each head: [e, d_row] one below the other. */
static void transpose_heads(const backward_plan *plan, const tl_real *context, tl_real *out) {
    const attention_sizes *s = &plan->s;
    for (int64_t head = 0; head < s->heads; head++) {
        for (int64_t j = 0; j < s->e; j++) {
            tl_real *row = out + (head * s->e + j) * plan->d_row;
            memset(row, 0, (size_t)plan->d_row * sizeof(tl_real));
            for (int64_t a = 0; a < s->d; a++) {
                row[a] = context[(head * s->d + a) * s->e_row + j];
            }
        }
    }
}

static void load_sample(const backward_plan *plan, int64_t sample, const tl_real *saved) {
    const attention_sizes *s = &plan->s;
    const sample_maps m = sample_of(plan, sample);
    const attention_saved parts = attention_saved_of(s, (tl_real *)(uintptr_t)saved, sample);
    tile_pad_rows(s->k, s->e, parts.context, s->e, m.context, s->e_row);
    tile_pad_rows(1, s->k, parts.maximum, s->k, m.maximum, s->k_row);
    tile_pad_rows(1, s->k, parts.sum, s->k, m.sum, s->k_row);
    memset(m.inverse, 0, (size_t)s->k_row * sizeof(tl_real));
    for (int64_t a = 0; a < s->k && !s->scaling; a++) {
        m.inverse[a] = (tl_real)1 / m.sum[a];
        m.sum[a] = 1;
    }
    if (s->fold_values) {
        tile_pad_rows(s->k, s->c, parts.folded, s->c, m.folded, s->c_row);
    }
    if (s->fold_output) {
        attention_fold_output(s, &plan->w, m.context, m.map_rows);
        tile_pad_transposed(s->k, s->c_row, m.map_rows, 1, m.map, s->k_row);
    } else {
        transpose_heads(plan, m.context, m.map);
    }
}

/* ------------------------------------------------------------------ stage 1: queries */

/* out += left^T right, `columns` wide: left [positions, ...] row-major, or [rows, T] if its
 * columns are positions. */
static void add_product(int64_t rows, int64_t columns, int64_t positions, const tl_real *left,
                        int64_t left_row, int64_t left_step, const tl_real *right,
                        int64_t right_row, tl_real *out, int64_t out_row) {
    tile_multiply((tile_product){.rows = rows,
                                 .columns = tile_columns(columns),
                                 .inner = positions,
                                 .a = left,
                                 .a_row = left_row,
                                 .a_step = left_step,
                                 .b = right,
                                 .b_row = right_row,
                                 .out = out,
                                 .out_row = out_row,
                                 .start = out,
                                 .start_row = out_row});
}

/* d_queries -> the gradient of the queries' natural logits, in place. */
static void queries_softmax_backward(const attention_sizes *s, int64_t rows,
                                     const tl_real *queries, tl_real *d_queries) {
    for (int64_t head = 0; head < s->heads; head++) {
        for (int64_t i = 0; i < rows; i += TL_LANES) {
            const tl_real *q = queries + head * s->d * TL_ATTENTION_TILE + i;
            tl_real *g = d_queries + head * s->d * TL_ATTENTION_TILE + i;
            tl_v sum = tl_v_zero();
            for (int64_t a = 0; a < s->d; a++) {
                sum += tl_v_load(q + a * TL_ATTENTION_TILE) * tl_v_load(g + a * TL_ATTENTION_TILE);
            }
            for (int64_t a = 0; a < s->d; a++) {
                const tl_v p = tl_v_load(q + a * TL_ATTENTION_TILE);
                const tl_v d = tl_v_load(g + a * TL_ATTENTION_TILE);
                tl_v_store(g + a * TL_ATTENTION_TILE, p * (d - sum) * s->gradient_scale);
            }
        }
    }
}

static void scale_rows(int64_t rows, int64_t count, tl_real factor, tl_real *values, int64_t row) {
    for (int64_t a = 0; a < rows; a++) {
        for (int64_t i = 0; i < count; i += TL_LANES) {
            tl_v_store(values + a * row + i, tl_v_load(values + a * row + i) * factor);
        }
    }
}

/* sums[a] += the sum of the first `count` values of row a. */
static void add_row_sums(int64_t rows, int64_t count, const tl_real *values, int64_t row,
                         tl_real *sums) {
    for (int64_t a = 0; a < rows; a++) {
        tl_v sum = tl_v_zero();
        int64_t i = 0;
        for (; i + TL_LANES <= count; i += TL_LANES) {
            sum += tl_v_load(values + a * row + i);
        }
        tl_real rest = tl_v_sum(sum);
        for (; i < count; i++) {
            rest += values[a * row + i];
        }
        sums[a] += rest;
    }
}

/* A tile's share of dM or dG, and dq as rows; `t->values` holds U, `t->d_values` dU. */
static void query_gradients(const backward_plan *plan, const backward_tiles *t, int64_t rows,
                            const tl_real *dy, int64_t dy_row, const sample_maps *m,
                            const group_sums *g, tl_real *unit) {
    const attention_sizes *s = &plan->s;
    if (s->fold_output) {
        add_product(s->k, s->c, rows, t->queries, TL_ATTENTION_TILE, 1, dy, dy_row, unit, s->c_row);
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->k),
                                     .inner = s->c,
                                     .a = dy,
                                     .a_row = dy_row,
                                     .a_step = 1,
                                     .b = m->map,
                                     .b_row = s->k_row,
                                     .out = t->rows,
                                     .out_row = s->k_row});
        return;
    }
    if (s->reprojection) {
        attention_apply_context(s, rows, t->queries, m->context, NULL, 0, t->values, s->v_row);
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->v),
                                     .inner = s->c,
                                     .a = dy,
                                     .a_row = dy_row,
                                     .a_step = 1,
                                     .b = plan->natural.reprojection,
                                     .b_row = s->v_row,
                                     .out = t->d_values,
                                     .out_row = s->v_row});
        add_product(s->c, s->v, rows, dy, 1, dy_row, t->values, s->v_row, g->reprojection_weight,
                    s->v_row);
    } else {
        tile_pad_rows(rows, s->v, dy, dy_row, t->d_values, s->v_row);
    }
    for (int64_t head = 0; head < s->heads; head++) {
        add_product(s->d, s->e, rows, t->queries + head * s->d * TL_ATTENTION_TILE,
                    TL_ATTENTION_TILE, 1, t->d_values + head * s->e, s->v_row,
                    unit + head * s->d * s->e_row, s->e_row);
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->d),
                                     .inner = s->e,
                                     .a = t->d_values + head * s->e,
                                     .a_row = s->v_row,
                                     .a_step = 1,
                                     .b = m->map + head * s->e * plan->d_row,
                                     .b_row = plan->d_row,
                                     .out = t->rows + head * s->d,
                                     .out_row = s->k_row});
    }
}

/* dx of a tile: what it starts from, plus the queries' logits' gradient times Wq. */
static void start_dx(const backward_plan *plan, const backward_tiles *t, int64_t rows,
                     const tl_real *dy, int64_t dy_row, tl_real *dx, bool accumulate) {
    const attention_sizes *s = &plan->s;
    for (int64_t i = 0; i < rows; i++) {
        tl_real *to = t->dx + i * s->c_row;
        if (s->residual) {
            memcpy(to, dy + i * dy_row, (size_t)s->c * sizeof(tl_real));
        } else {
            memset(to, 0, (size_t)s->c * sizeof(tl_real));
        }
    }
    add_product(rows, s->c, s->k, t->d_queries, 1, TL_ATTENTION_TILE, plan->natural.query, s->c_row,
                t->dx, s->c_row);
    for (int64_t i = 0; i < rows; i++) {
        if (accumulate) {
            tile_add(s->c, t->dx + i * s->c_row, dx + i * s->c);
        } else {
            memcpy(dx + i * s->c, t->dx + i * s->c_row, (size_t)s->c * sizeof(tl_real));
        }
    }
}

static void query_unit(const backward_plan *plan, int64_t unit, const tl_real *x, const tl_real *dy,
                       const tl_attention_gradient *dx, const group_sums *g, int thread) {
    const attention_sizes *s = &plan->s;
    const attention_run run = attention_run_of(s, unit);
    const backward_tiles t = tiles_of(plan, thread);
    const sample_maps m = sample_of(plan, run.sample);
    tl_real *sums = plan->units + unit * plan->unit_values;
    memset(sums, 0, (size_t)plan->unit_values * sizeof(tl_real));
    for (int64_t first = run.first; first < run.end; first += TL_ATTENTION_TILE) {
        const int64_t left = run.end - first;
        const int64_t rows = left < TL_ATTENTION_TILE ? left : TL_ATTENTION_TILE;
        const int64_t position = run.sample * s->n + first;
        int64_t x_row;
        int64_t dy_row;
        const tl_real *x_tile =
            tile_whole_rows(rows, s->c, x + position * s->c, t.x, s->c_row, &x_row);
        const tl_real *dy_tile =
            tile_whole_rows(rows, s->out, dy + position * s->out, t.dy, s->out_row, &dy_row);
        attention_queries(s, &plan->w, rows, x_tile, x_row, t.rows, t.queries);
        query_gradients(plan, &t, rows, dy_tile, dy_row, &m, g, sums);
        tile_transpose(rows, s->k, t.rows, s->k_row, t.d_queries, TL_ATTENTION_TILE);
        if (s->scaling) {
            scale_rows(s->k, rows, s->gradient_scale, t.d_queries, TL_ATTENTION_TILE);
        } else {
            queries_softmax_backward(s, rows, t.queries, t.d_queries);
        }
        add_product(s->k, s->c, rows, t.d_queries, TL_ATTENTION_TILE, 1, x_tile, x_row,
                    g->query_weight, s->c_row);
        add_row_sums(s->k, rows, t.d_queries, TL_ATTENTION_TILE, g->query_bias);
        if (s->reprojection) {
            tile_add_rows(rows, tile_columns(s->c), dy_tile, dy_row, g->reprojection_bias);
        }
        if (dx->values != NULL) {
            start_dx(plan, &t, rows, dy_tile, dy_row, dx->values + position * s->c, dx->accumulate);
        }
    }
}

/* ------------------------------------------------------------------ stage 2: one sample */

/* From dM of all pieces: dG and the reprojection's share. */
static void context_gradient(const backward_plan *plan, const sample_maps *m, const tl_real *d_map,
                             const group_sums *g) {
    const attention_sizes *s = &plan->s;
    if (!s->fold_output) {
        memcpy(m->d_context, d_map, (size_t)(s->k * s->e_row) * sizeof(tl_real));
        return;
    }
    for (int64_t head = 0; head < s->heads; head++) {
        const tl_real *of_head = d_map + head * s->d * s->c_row;
        tile_multiply((tile_product){.rows = s->d,
                                     .columns = tile_columns(s->e),
                                     .inner = s->c,
                                     .a = of_head,
                                     .a_row = s->c_row,
                                     .a_step = 1,
                                     .b = plan->natural.reprojection + head * s->e,
                                     .b_row = s->v_row,
                                     .out = m->d_context + head * s->d * s->e_row,
                                     .out_row = s->e_row});
        /* dWr += dM^T G: G has zeros behind e, so that nothing is added to the next head */
        add_product(s->c, s->e, s->d, of_head, 1, s->c_row, m->context + head * s->d * s->e_row,
                    s->e_row, g->reprojection_weight + head * s->e, s->v_row);
    }
}

/* dH, the values' parameters, and dH^T for the tiles. */
static void folded_gradient(const backward_plan *plan, const sample_maps *m, const group_sums *g) {
    const attention_sizes *s = &plan->s;
    for (int64_t head = 0; head < s->heads; head++) {
        const tl_real *d_context = m->d_context + head * s->d * s->e_row;
        tile_multiply((tile_product){.rows = s->d,
                                     .columns = tile_columns(s->c),
                                     .inner = s->e,
                                     .a = d_context,
                                     .a_row = s->e_row,
                                     .a_step = 1,
                                     .b = plan->natural.value + head * s->e * s->c_row,
                                     .b_row = s->c_row,
                                     .out = m->d_folded + head * s->d * s->c_row,
                                     .out_row = s->c_row});
        add_product(s->e, s->c, s->d, d_context, 1, s->e_row,
                    m->folded + head * s->d * s->c_row, s->c_row,
                    g->value_weight + head * s->e * s->c_row, s->c_row);
        for (int64_t a = 0; a < s->d; a++) {
            for (int64_t j = 0; j < s->e; j++) {
                g->value_bias[head * s->e + j] +=
                    m->sum[head * s->d + a] * d_context[a * s->e_row + j];
            }
        }
    }
    tile_pad_transposed(s->k, s->c_row, m->d_folded, 1, m->d_key_map, s->k_row);
}

/* t_a = <dH_a, H_a> (softmax), or dG_a bv (scaling with folded values, else zero). */
static void key_corrections(const backward_plan *plan, const sample_maps *m) {
    const attention_sizes *s = &plan->s;
    memset(m->correction, 0, (size_t)s->k_row * sizeof(tl_real));
    for (int64_t a = 0; a < s->k; a++) {
        double sum = 0;
        if (s->scaling) {
            const tl_real *bias = plan->w.value_bias + a / s->d * s->e;
            for (int64_t j = 0; j < s->e && s->fold_values; j++) {
                sum += (double)m->d_context[a * s->e_row + j] * (double)bias[j];
            }
        } else {
            const int64_t row = s->fold_values ? s->c_row : s->e_row;
            const tl_real *value = (s->fold_values ? m->folded : m->context) + a * row;
            const tl_real *gradient = (s->fold_values ? m->d_folded : m->d_context) + a * row;
            for (int64_t j = 0; j < (s->fold_values ? s->c : s->e); j++) {
                sum += (double)value[j] * (double)gradient[j];
            }
        }
        m->correction[a] = (tl_real)sum;
    }
}

static void sample_gradients(const backward_plan *plan, int64_t sample, const group_sums *g) {
    const attention_sizes *s = &plan->s;
    const sample_maps m = sample_of(plan, sample);
    tl_real *total = plan->units + sample * s->cut.pieces * plan->unit_values;
    for (int64_t piece = 1; piece < s->cut.pieces; piece++) {
        tile_add(plan->unit_values, total + piece * plan->unit_values, total);
    }
    context_gradient(plan, &m, total, g);
    if (s->fold_values) {
        folded_gradient(plan, &m, g);
    } else {
        transpose_heads(plan, m.d_context, m.d_key_map);
    }
    key_corrections(plan, &m);
}

/* ------------------------------------------------------------------ stage 3: keys */

/* Logits -> normalised keys (scaling: they are that already). */
static void normalize_keys(const attention_sizes *s, int64_t rows, const sample_maps *m,
                           tl_real *keys) {
    for (int64_t a = 0; a < s->k; a += TL_LANES) {
        const tl_v maximum = tl_v_load(m->maximum + a);
        const tl_v inverse = tl_v_load(m->inverse + a);
        for (int64_t i = 0; i < rows; i++) {
            tl_real *at = keys + i * s->k_row + a;
            tl_v_store(at, tile_exp2(tl_v_load(at) - maximum) * inverse);
        }
    }
}

/* dp -> the gradient of the keys' natural logits, in place. */
static void key_logit_gradients(const attention_sizes *s, int64_t rows, const sample_maps *m,
                                const tl_real *keys, tl_real *gradients) {
    for (int64_t a = 0; a < s->k; a += TL_LANES) {
        const tl_v correction = tl_v_load(m->correction + a);
        for (int64_t i = 0; i < rows; i++) {
            tl_real *at = gradients + i * s->k_row + a;
            const tl_v dp = tl_v_load(at);
            const tl_v p = tl_v_load(keys + i * s->k_row + a);
            tl_v_store(at, s->scaling ? (dp + correction) * s->gradient_scale
                                      : p * (dp - correction) * s->gradient_scale);
        }
    }
}

/* dp as rows and, unfolded, all that goes through the values; adds to t->dx. */
static void key_gradients(const backward_plan *plan, const backward_tiles *t, int64_t rows,
                          const tl_real *x, int64_t x_row, const sample_maps *m,
                          const group_sums *g, bool wants_dx) {
    const attention_sizes *s = &plan->s;
    if (s->fold_values) {
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->k),
                                     .inner = s->c,
                                     .a = x,
                                     .a_row = x_row,
                                     .a_step = 1,
                                     .b = m->d_key_map,
                                     .b_row = s->k_row,
                                     .out = t->gradient_rows,
                                     .out_row = s->k_row});
        if (wants_dx) {
            add_product(rows, s->c, s->k, t->rows, s->k_row, 1, m->d_folded, s->c_row, t->dx,
                        s->c_row);
        }
        return;
    }
    attention_values(s, &plan->w, rows, x, x_row, t->values);
    for (int64_t head = 0; head < s->heads; head++) {
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->d),
                                     .inner = s->e,
                                     .a = t->values + head * s->e,
                                     .a_row = s->v_row,
                                     .a_step = 1,
                                     .b = m->d_key_map + head * s->e * plan->d_row,
                                     .b_row = plan->d_row,
                                     .out = t->gradient_rows + head * s->d,
                                     .out_row = s->k_row});
        tile_multiply((tile_product){.rows = rows,
                                     .columns = tile_columns(s->e),
                                     .inner = s->d,
                                     .a = t->rows + head * s->d,
                                     .a_row = s->k_row,
                                     .a_step = 1,
                                     .b = m->d_context + head * s->d * s->e_row,
                                     .b_row = s->e_row,
                                     .out = t->d_values + head * s->e,
                                     .out_row = s->v_row});
    }
    add_product(s->v, s->c, rows, t->d_values, 1, s->v_row, x, x_row, g->value_weight, s->c_row);
    for (int64_t i = 0; i < rows; i++) {
        tile_add(s->v, t->d_values + i * s->v_row, g->value_bias);
    }
    if (wants_dx) {
        add_product(rows, s->c, s->v, t->d_values, s->v_row, 1, plan->natural.value, s->c_row,
                    t->dx, s->c_row);
    }
}

static void key_unit(const backward_plan *plan, int64_t unit, const tl_real *x, tl_real *dx,
                     const group_sums *g, int thread) {
    const attention_sizes *s = &plan->s;
    const attention_run run = attention_run_of(s, unit);
    const backward_tiles t = tiles_of(plan, thread);
    const sample_maps m = sample_of(plan, run.sample);
    for (int64_t first = run.first; first < run.end; first += TL_ATTENTION_TILE) {
        const int64_t left = run.end - first;
        const int64_t rows = left < TL_ATTENTION_TILE ? left : TL_ATTENTION_TILE;
        const int64_t position = run.sample * s->n + first;
        int64_t x_row;
        const tl_real *tile =
            tile_whole_rows(rows, s->c, x + position * s->c, t.x, s->c_row, &x_row);
        memset(t.dx, 0, (size_t)(rows * s->c_row) * sizeof(tl_real));
        attention_key_logits(s, &plan->w, rows, tile, x_row, t.rows);
        if (!s->scaling) {
            normalize_keys(s, rows, &m, t.rows);
        }
        key_gradients(plan, &t, rows, tile, x_row, &m, g, dx != NULL);
        key_logit_gradients(s, rows, &m, t.rows, t.gradient_rows);
        add_product(s->k, s->c, rows, t.gradient_rows, 1, s->k_row, tile, x_row, g->key_weight,
                    s->c_row);
        if (s->scaling) {
            tile_add_rows(rows, tile_columns(s->k), t.gradient_rows, s->k_row, g->key_bias);
        }
        if (dx == NULL) {
            continue;
        }
        add_product(rows, s->c, s->k, t.gradient_rows, s->k_row, 1, plan->natural.key, s->c_row,
                    t.dx, s->c_row);
        for (int64_t i = 0; i < rows; i++) {
            tile_add(s->c, t.dx + i * s->c_row, dx + (position + i) * s->c);
        }
    }
}

/* ------------------------------------------------------------------ all together */

/* out (+)= the groups' sums in order; `at` is where the sums stand in the first group. */
static void collect(const backward_plan *plan, const tl_attention_gradient *out, const tl_real *at,
                    int64_t rows, int64_t columns, int64_t row) {
    if (out->values == NULL) {
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            tl_real sum = 0;
            for (int64_t group = 0; group < plan->s.cut.groups; group++) {
                sum += at[group * plan->group_values + i * row + j];
            }
            tl_real *to = out->values + i * columns + j;
            *to = out->accumulate ? *to + sum : sum;
        }
    }
}

static void collect_all(const backward_plan *plan, const tl_attention_gradients *gradients) {
    const attention_sizes *s = &plan->s;
    const group_sums g = group_of(plan, 0);
    collect(plan, &gradients->query_weight, g.query_weight, s->k, s->c, s->c_row);
    collect(plan, &gradients->query_bias, g.query_bias, 1, s->k, s->k_row);
    collect(plan, &gradients->key_weight, g.key_weight, s->k, s->c, s->c_row);
    collect(plan, &gradients->key_bias, g.key_bias, 1, s->k, s->k_row);
    collect(plan, &gradients->value_weight, g.value_weight, s->v, s->c, s->c_row);
    collect(plan, &gradients->value_bias, g.value_bias, 1, s->v, s->v_row);
    if (s->reprojection) {
        collect(plan, &gradients->reprojection_weight, g.reprojection_weight, s->c, s->v, s->v_row);
        collect(plan, &gradients->reprojection_bias, g.reprojection_bias, 1, s->c, s->c_row);
    }
}

/* Units of a group: one, or with one piece a sample a run of them. */
static int64_t group_start(const attention_sizes *s, int64_t group) {
    return s->cut.units * group / s->cut.groups;
}

static void pack_all(const backward_plan *plan, const tl_attention_parameters *p) {
    const attention_sizes *s = &plan->s;
    attention_pack(s, p, &plan->w);
    tile_pad_rows(s->k, s->c, p->query_weight, s->c, plan->natural.query, s->c_row);
    tile_pad_rows(s->k, s->c, p->key_weight, s->c, plan->natural.key, s->c_row);
    tile_pad_rows(s->v, s->c, p->value_weight, s->c, plan->natural.value, s->c_row);
    if (s->reprojection) {
        tile_pad_rows(s->c, s->v, p->reprojection_weight, s->v, plan->natural.reprojection,
                      s->v_row);
    }
}

static void backward(const tl_attention_shape *shape, const tl_attention_parameters *parameters,
                     const tl_real *x, const tl_real *dy, const tl_real *saved,
                     const tl_attention_gradients *gradients, void *scratch, int threads) {
    const backward_plan plan = make_plan(shape, threads, scratch);
    const attention_sizes *s = &plan.s;
    const int team = tl_attention_backward_flops(shape) < TL_PARALLEL_MINIMUM ? 1 : threads;
    pack_all(&plan, parameters);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t sample = 0; sample < shape->batch; sample++) {
            load_sample(&plan, sample, saved);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < s->cut.groups; group++) {
            const group_sums g = group_of(&plan, group);
            memset(g.query_weight, 0, (size_t)plan.group_values * sizeof(tl_real));
            for (int64_t u = group_start(s, group); u < group_start(s, group + 1); u++) {
                query_unit(&plan, u, x, dy, &gradients->x, &g, thread);
            }
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < s->cut.groups; group++) {
            const group_sums g = group_of(&plan, group);
            for (int64_t u = group_start(s, group); u < group_start(s, group + 1); u++) {
                if (u % s->cut.pieces == 0) {
                    sample_gradients(&plan, u / s->cut.pieces, &g);
                }
            }
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < s->cut.groups; group++) {
            const group_sums g = group_of(&plan, group);
            for (int64_t u = group_start(s, group); u < group_start(s, group + 1); u++) {
                key_unit(&plan, u, x, gradients->x.values, &g, thread);
            }
        }
    }
    collect_all(&plan, gradients);
}

static size_t scratch_bytes(const tl_attention_shape *shape, int threads) {
    return make_plan(shape, threads, NULL).bytes;
}

const tl_efficient_attention_backward_kernels TL_PER_ISA(tl_efficient_attention_backward) = {
    .scratch_bytes = scratch_bytes,
    .backward = backward,
};
