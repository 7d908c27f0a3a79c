/* k_tiled_attention.c - tiles of TILE queries x TILE keys; see k_tiled_attention.h.
 *
 * Forward, per tile of queries: the online softmax of Milakov and Gimelshein (arXiv 1805.02867) as
 * tiled by Dao et al. (arXiv 2205.14135), with two changes. Weights are 2^(s log2 e - shift), log2
 * e being folded into the packed queries and -shift being where the sum over channels starts; and
 * the shift, at first the largest score of the first block, is raised, and what was accumulated
 * rescaled, only when a score exceeds it by more than SLACK: one maximum and one compare per
 * register block.
 *
 * Backward: dO and the row term D = <dO, O> are multiplied by the inverse sum once per tile, so
 *     P = 2^(s log2 e - shift),  dS = P (dO' V^T - D'),
 *     dV += P^T dO',  dQ += scale dS K,  dK += scale dS^T Q
 * in one pass. Rows are split into G groups and worked as a Latin square: step s pairs key group g
 * with query group (g + s) mod G. No two tasks of a step share a row, and the order of the sums is
 * fixed. G follows from n and m only, so the bits do not depend on the threads.
 *
 * Long sums are taken in two levels: registers over a tile, memory over the tiles.
 */
#include "kernels/kernels.h"

#include <omp.h>

#include "kernels/k_tiled_attention_block.h"

#define LOG2_E ((tl_real)1.4426950408889634074)
#define SLACK ((tl_real)8)
/* What a hidden key scores: below any other. */
#define HIDDEN ((tl_real)-3e38)

#define MAX_GROUPS 32
/* Tasks that keep any usual number of threads busy. */
#define ENOUGH_TASKS 64

/* The rows of one head of one sample. */
typedef struct head_rows {
    const tl_real *q, *k, *v;
    tl_real *o;
    const tl_real *d_o;
    tl_real *d_q, *d_k, *d_v;
    tl_real *row_shift, *row_inverse;
} head_rows;

/* One thread's scratch. */
typedef struct tile_scratch {
    tl_real *queries;       /* [panels][d_k][PANEL]: scaled, log2 e folded in for the softmax */
    tl_real *sums;          /* [panels][d_k or d_v, rounded up][PANEL]: dQ, or O in forward */
    tl_real *weights;       /* [panels][TILE][PANEL] (forward: one panel) */
    tl_real *d_weights;     /* the same: dS */
    tl_real *d_out;         /* [panels][d_v][PANEL]: dO' */
    tl_real *d_out_rows;    /* [TILE][d_v rounded up] */
    tl_real *query_rows;    /* [TILE][d_k rounded up], times scale */
    tl_real *keys, *values; /* [TILE][d_k or d_v, rounded up]: copies where whole_rows needs them */
    tl_real *shift;         /* [TILE] per query: the softmax shift */
    tl_real *total;         /* [TILE] per query: the sum of weights; backward: -D' */
    tl_real *factor;        /* [TILE] per query: what it is multiplied by while it is packed */
} tile_scratch;

static int64_t panel_width(int64_t channels) {
    return round_up(channels, PANEL_ROWS);
}

static int64_t channel_width(int64_t channels) {
    return round_up(channels, TL_LANES);
}

/* Cuts `memory` up, or (memory NULL) only counts; returns the number of elements. */
static int64_t lay_out(const tl_attention_problem *problem, tl_real *memory,
                       tile_scratch *scratch) {
    const int64_t d_k = problem->d_k;
    const int64_t d_v = problem->d_v;
    const int64_t widest = panel_width(d_k > d_v ? d_k : d_v);
    int64_t used = 0;
#define TAKE(field, count)                                                                         \
    scratch->field = memory == NULL ? NULL : memory + used;                                        \
    used += round_up(count, TL_ALIGNMENT / (int64_t)sizeof(tl_real))
    TAKE(queries, TILE * d_k);
    TAKE(sums, TILE * widest);
    TAKE(weights, TILE * TILE);
    TAKE(d_weights, TILE * TILE);
    TAKE(d_out, TILE * d_v);
    TAKE(d_out_rows, TILE * channel_width(d_v));
    TAKE(query_rows, TILE * channel_width(d_k));
    TAKE(keys, TILE * panel_width(d_k));
    TAKE(values, TILE * panel_width(d_v));
    TAKE(shift, TILE);
    TAKE(total, TILE);
    TAKE(factor, TILE);
#undef TAKE
    return used;
}

static size_t scratch_bytes(const tl_attention_problem *problem, int threads) {
    tile_scratch unused;
    return (size_t)lay_out(problem, NULL, &unused) * sizeof(tl_real) * (size_t)threads;
}

static tile_scratch thread_scratch(const tl_attention_problem *problem, void *memory) {
    tile_scratch scratch;
    const int64_t elements = lay_out(problem, NULL, &scratch);
    lay_out(problem, (tl_real *)memory + elements * omp_get_thread_num(), &scratch);
    return scratch;
}

static void pack_queries(const tl_attention_problem *problem, const head_rows *head, int64_t first,
                         int64_t count, tile_scratch *scratch) {
    const tl_real factor =
        problem->weights == TL_PAIR_SOFTMAX ? problem->scale * LOG2_E : problem->scale;
    for (int64_t i = 0; i < TILE; i++) {
        scratch->factor[i] = factor;
    }
    for (int64_t lane = 0; lane < count; lane += PANEL) {
        pack_panel(scratch->queries + lane * problem->d_k,
                   head->q + (first + lane) * problem->q.row, problem->q.row,
                   smaller(PANEL, count - lane), problem->d_k, scratch->factor);
    }
}

/* Scores of PANEL_ROWS keys from j on against one panel of queries, less `shift` (NULL: none). */
TL_INLINE void score_block(block acc, tile_rows keys, int64_t j, const tl_real *queries,
                           int64_t d_k, const tl_real *shift) {
    TL_UNROLL
    for (int v = 0; v < PANEL_VECTORS; v++) {
        const tl_v start =
            shift == NULL ? tl_v_zero() : tl_v_zero() - tl_v_load(shift + v * TL_LANES);
        TL_UNROLL
        for (int r = 0; r < PANEL_ROWS; r++) {
            acc[r][v] = start;
        }
    }
    tl_micro_multiply(PANEL_ROWS, PANEL_VECTORS, d_k, keys.values + j * keys.step, keys.step, 1,
                      queries, PANEL, acc);
}

/* ------------------------------------------------------------------ forward */

/* Raises the shift of the lanes whose largest score in the block, `tops` (above the shift), exceeds
 * SLACK, or at the very first block of all lanes to it, and rescales all that was computed with the
 * old one. `tops` receives by how much: the largest weight is then 1, even if the shift is so large
 * that it is rounded. */
static __attribute__((noinline)) void raise_shift(bool first, tl_real *tops, tl_real *shift,
                                                  tl_real *total, tl_real *partial, tl_real *sums,
                                                  int64_t channels, tl_real *weights, int64_t j) {
    for (int v = 0; v < PANEL_VECTORS; v++) {
        const tl_v old = tl_v_load(shift + v * TL_LANES);
        const tl_v top = tl_v_load(tops + v * TL_LANES);
        const tl_v by = first ? top : tl_v_select(top > SLACK, top, tl_v_zero());
        const tl_v factor = tl_v_exp2(-by);
        tl_v_store(shift + v * TL_LANES, old + by);
        tl_v_store(tops + v * TL_LANES, by);
        tl_v_store(total + v * TL_LANES, tl_v_load(total + v * TL_LANES) * factor);
        tl_v_store(partial + v * TL_LANES, tl_v_load(partial + v * TL_LANES) * factor);
        for (int64_t c = 0; c < channels; c++) {
            tl_real *p = sums + c * PANEL + v * TL_LANES;
            tl_v_store(p, tl_v_load(p) * factor);
        }
        for (int64_t r = 0; r < j; r++) {
            tl_real *p = weights + r * PANEL + v * TL_LANES;
            tl_v_store(p, tl_v_load(p) * factor);
        }
    }
}

/* The weights of one panel of queries and one tile of keys, the `first` or a later one; not yet
 * divided by their sum. */
TL_INLINE void forward_weights(const tl_pair_weights kind, const tl_attention_problem *problem,
                               bool first, tile_rows key_rows, int64_t keys, int64_t visible,
                               const tl_real *queries, tl_real *shift, tl_real *total,
                               tl_real *sums, tl_real *weights) {
    const bool softmax = kind == TL_PAIR_SOFTMAX;
    tl_real partial[PANEL];
    for (int lane = 0; lane < PANEL; lane++) {
        partial[lane] = 0;
    }
    for (int64_t j = 0; j < keys; j += PANEL_ROWS) {
        block acc;
        score_block(acc, key_rows, j, queries, problem->d_k, softmax ? shift : NULL);
        if (j + PANEL_ROWS > keys || (problem->causal && visible - j < PANEL_ROWS)) {
            hide(acc, j, keys, problem->causal, visible - j, softmax ? HIDDEN : 0);
        }
        if (softmax) {
            tl_v tops[PANEL_VECTORS];
            tl_v excess = tl_v_set(HIDDEN);
            TL_UNROLL
            for (int v = 0; v < PANEL_VECTORS; v++) {
                tops[v] = acc[0][v];
                TL_UNROLL
                for (int r = 1; r < PANEL_ROWS; r++) {
                    tops[v] = tl_v_max(tops[v], acc[r][v]);
                }
                excess = tl_v_max(excess, tops[v]);
            }
            if (tl_v_any(excess > SLACK) || (first && j == 0)) {
                tl_real raised[PANEL];
                TL_UNROLL
                for (int v = 0; v < PANEL_VECTORS; v++) {
                    tl_v_store(raised + v * TL_LANES, tops[v]);
                }
                raise_shift(first && j == 0, raised, shift, total, partial, sums,
                            panel_width(problem->d_v), weights, j);
                TL_UNROLL
                for (int v = 0; v < PANEL_VECTORS; v++) {
                    TL_UNROLL
                    for (int r = 0; r < PANEL_ROWS; r++) {
                        acc[r][v] -= tl_v_load(raised + v * TL_LANES);
                    }
                }
            }
        }
        TL_UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++) {
            tl_v sum = tl_v_load(partial + v * TL_LANES);
            TL_UNROLL
            for (int r = 0; r < PANEL_ROWS; r++) {
                tl_v w = acc[r][v];
                if (softmax) {
                    w = tl_v_exp2_low(w);
                    sum += w;
                } else if (kind == TL_PAIR_RELU) {
                    w = tl_v_max(tl_v_zero(), w);
                }
                tl_v_store(weights + (j + r) * PANEL + v * TL_LANES, w);
            }
            tl_v_store(partial + v * TL_LANES, sum);
        }
    }
    if (softmax) {
        for (int v = 0; v < PANEL_VECTORS; v++) {
            tl_real *p = total + v * TL_LANES;
            tl_v_store(p, tl_v_load(p) + tl_v_load(partial + v * TL_LANES));
        }
    }
}

/* `count` channels from c on of add_weighted_rows. */
TL_INLINE void add_weighted_channels(const int count, tile_rows rows, int64_t c, int64_t keys,
                                     const tl_real *weights, tl_real *sums) {
    block acc;
    tl_micro_clear(count, PANEL_VECTORS, acc);
    tl_micro_multiply(count, PANEL_VECTORS, keys, rows.values + c, 1, rows.step, weights, PANEL,
                      acc);
    TL_UNROLL
    for (int r = 0; r < count; r++) {
        TL_UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++) {
            tl_real *p = sums + (c + r) * PANEL + v * TL_LANES;
            tl_v_store(p, tl_v_load(p) + acc[r][v]);
        }
    }
}

/* sums[c][lane] += sum over keys of rows[key][c] * weights[key][lane], one panel */
static void add_weighted_rows(tile_rows rows, int64_t keys, const tl_real *weights, tl_real *sums) {
    const int64_t most = rows.channels - rest_of_channels(rows.channels);
    int64_t c = 0;
    for (; c < most; c += PANEL_ROWS) {
        add_weighted_channels(PANEL_ROWS, rows, c, keys, weights, sums);
    }
    for (; c < rows.channels; c += FEWER_ROWS) {
        add_weighted_channels(FEWER_ROWS, rows, c, keys, weights, sums);
    }
}

/* Panels of `width` channels, times `factor`, go back to `count` rows, or are added to them. */
TL_INLINE void unpack_tile(tl_real *rows, int64_t row_step, const tl_real *sums, int64_t width,
                           int64_t count, int64_t channels, const tl_real *factor,
                           const bool accumulate) {
    for (int64_t lane = 0; lane < count; lane += PANEL) {
        unpack_panel(rows + lane * row_step, row_step, sums + lane * width,
                     smaller(PANEL, count - lane), channels, factor + lane, accumulate);
    }
}

TL_INLINE void forward_tile(const tl_pair_weights kind, const tl_attention_problem *problem,
                            const head_rows *head, int64_t first, tile_scratch *scratch) {
    const int64_t count = smaller(TILE, problem->queries - first);
    const int64_t width = panel_width(problem->d_v);
    const int64_t end = problem->causal ? smaller(first + count, problem->keys) : problem->keys;
    pack_queries(problem, head, first, count, scratch);
    memset(scratch->sums, 0, (size_t)(TILE * width) * sizeof(tl_real));
    for (int64_t i = 0; i < TILE; i++) {
        scratch->shift[i] = 0;
        scratch->total[i] = 0;
    }
    for (int64_t k0 = 0; k0 < end; k0 += TILE) {
        const int64_t keys = smaller(TILE, end - k0);
        const tile_rows key_rows = whole_rows(scratch->keys, head->k + k0 * problem->k.row,
                                              problem->k.row, keys, problem->d_k);
        const tile_rows value_rows = whole_rows(scratch->values, head->v + k0 * problem->v.row,
                                                problem->v.row, keys, problem->d_v);
        for (int64_t lane = 0; lane < count; lane += PANEL) {
            tl_real *sums = scratch->sums + lane * width;
            forward_weights(kind, problem, k0 == 0, key_rows, keys, first + lane + 1 - k0,
                            scratch->queries + lane * problem->d_k, scratch->shift + lane,
                            scratch->total + lane, sums, scratch->weights);
            add_weighted_rows(value_rows, keys, scratch->weights, sums);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        scratch->factor[i] = kind == TL_PAIR_SOFTMAX ? 1 / scratch->total[i] : 1;
        if (kind == TL_PAIR_SOFTMAX) {
            head->row_shift[first + i] = scratch->shift[i];
            head->row_inverse[first + i] = scratch->factor[i];
        }
    }
    unpack_tile(head->o + first * problem->o.row, problem->o.row, scratch->sums, width, count,
                problem->d_v, scratch->factor, false);
}

/* ------------------------------------------------------------------ backward */

/* P and dS of one panel of queries and one tile of keys. */
TL_INLINE void backward_weights(const tl_pair_weights kind, const tl_attention_problem *problem,
                                tile_rows key_rows, tile_rows value_rows, int64_t keys,
                                int64_t visible, const tl_real *queries, const tl_real *d_out,
                                const tl_real *shift, const tl_real *row_term, tl_real *weights,
                                tl_real *d_weights) {
    for (int64_t j = 0; j < keys; j += PANEL_ROWS) {
        block acc;
        score_block(acc, key_rows, j, queries, problem->d_k,
                    kind == TL_PAIR_SOFTMAX ? shift : NULL);
        const bool partly = j + PANEL_ROWS > keys || (problem->causal && visible - j < PANEL_ROWS);
        if (partly) {
            hide(acc, j, keys, problem->causal, visible - j, kind == TL_PAIR_SOFTMAX ? HIDDEN : 0);
        }
        tl_real *w = weights + j * PANEL;
        TL_UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++) {
            const tl_v term = tl_v_load(row_term + v * TL_LANES);
            TL_UNROLL
            for (int r = 0; r < PANEL_ROWS; r++) {
                tl_v *a = &acc[r][v];
                if (kind == TL_PAIR_SOFTMAX) {
                    /* huge scores, rounded otherwise than in forward, may exceed SLACK */
                    *a = tl_v_exp2_low(tl_v_min(tl_v_set(SLACK), *a));
                } else if (kind == TL_PAIR_RELU) {
                    *a = tl_v_max(tl_v_zero(), *a);
                }
                tl_v_store(w + r * PANEL + v * TL_LANES, *a);
                *a = term;
            }
        }
        tl_micro_multiply(PANEL_ROWS, PANEL_VECTORS, problem->d_v,
                          value_rows.values + j * value_rows.step, value_rows.step, 1, d_out, PANEL,
                          acc);
        if (partly && kind != TL_PAIR_SOFTMAX) {
            hide(acc, j, keys, problem->causal, visible - j, 0);
        }
        TL_UNROLL
        for (int r = 0; r < PANEL_ROWS; r++) {
            TL_UNROLL
            for (int v = 0; v < PANEL_VECTORS; v++) {
                const tl_v p = tl_v_load(w + r * PANEL + v * TL_LANES);
                tl_v d = acc[r][v];
                if (kind == TL_PAIR_SOFTMAX) {
                    d *= p;
                } else if (kind == TL_PAIR_RELU) {
                    d = tl_v_select(p > 0, d, tl_v_zero());
                }
                tl_v_store(d_weights + (j + r) * PANEL + v * TL_LANES, d);
            }
        }
    }
}

/* out[key][c] += sum over queries of weights[key][query] * rows[query][c], for CHANNEL_ROWS keys
 * from j on and `vectors` vectors of channels, of which `columns` channels exist. */
TL_INLINE void add_to_keys(const int vectors, const tl_real *weights, int64_t j, int64_t keys,
                           const tl_real *rows, int64_t width, int64_t queries, tl_real *out,
                           int64_t out_step, int64_t columns) {
    block acc;
    tl_micro_clear(CHANNEL_ROWS, vectors, acc);
    for (int64_t lane = 0; lane < queries; lane += PANEL) {
        tl_micro_multiply(CHANNEL_ROWS, vectors, smaller(PANEL, queries - lane),
                          weights + lane * TILE + j * PANEL, PANEL, 1, rows + lane * width, width,
                          acc);
    }
    TL_UNROLL
    for (int r = 0; r < CHANNEL_ROWS; r++) {
        if (j + r < keys) {
            tl_real *p = out + (j + r) * out_step;
            TL_UNROLL
            for (int v = 0; v < vectors; v++) {
                const int64_t left = columns - v * TL_LANES;
                if (left >= TL_LANES) {
                    tl_v_store(p + v * TL_LANES, tl_v_load(p + v * TL_LANES) + acc[r][v]);
                } else {
                    const tl_v old = tl_v_load_partial(p + v * TL_LANES, left);
                    tl_v_store_partial(p + v * TL_LANES, old + acc[r][v], left);
                }
            }
        }
    }
}

static void add_transposed_product(const tl_real *weights, int64_t keys, const tl_real *rows,
                                   int64_t channels, int64_t queries, tl_real *out,
                                   int64_t out_step) {
    const int64_t width = channel_width(channels);
    for (int64_t j = 0; j < keys; j += CHANNEL_ROWS) {
        int64_t c = 0;
        for (; c + TL_LANES < channels; c += CHANNEL_VECTORS * TL_LANES) {
            add_to_keys(CHANNEL_VECTORS, weights, j, keys, rows + c, width, queries, out + c,
                        out_step, channels - c);
        }
        if (c < channels) {
            add_to_keys(1, weights, j, keys, rows + c, width, queries, out + c, out_step,
                        channels - c);
        }
    }
}

/* <dO, O> of one query, in double precision as dP - D cancels. */
TL_INLINE double row_term(const tl_real *d_o, const tl_real *o, int64_t channels) {
    double parts[4] = {0}; /* four sums, as each waits for the last addition */
    int64_t c = 0;
    for (; c + 4 <= channels; c += 4) {
        TL_UNROLL
        for (int i = 0; i < 4; i++) {
            parts[i] += (double)d_o[c + i] * (double)o[c + i];
        }
    }
    for (; c < channels; c++) {
        parts[0] += (double)d_o[c] * (double)o[c];
    }
    return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

/* Packs what the backward pass needs of a tile of queries. */
static void pack_backward(const tl_attention_problem *problem, const head_rows *head, int64_t first,
                          int64_t count, tile_scratch *scratch) {
    const bool softmax = problem->weights == TL_PAIR_SOFTMAX;
    pack_queries(problem, head, first, count, scratch);
    for (int64_t i = 0; i < TILE; i++) {
        scratch->factor[i] = problem->scale;
    }
    pack_rows(scratch->query_rows, channel_width(problem->d_k), head->q + first * problem->q.row,
              problem->q.row, count, TILE, problem->d_k, scratch->factor);
    for (int64_t i = 0; i < TILE; i++) {
        const bool exists = i < count;
        scratch->shift[i] = softmax && exists ? head->row_shift[first + i] : 0;
        scratch->factor[i] = softmax && exists ? head->row_inverse[first + i] : 1;
        const int64_t row = (first + i) * problem->o.row;
        const double term =
            softmax && exists ? row_term(head->d_o + row, head->o + row, problem->d_v) : 0;
        scratch->total[i] = (tl_real)-term * scratch->factor[i];
    }
    const tl_real *d_o = head->d_o + first * problem->o.row;
    pack_rows(scratch->d_out_rows, channel_width(problem->d_v), d_o, problem->o.row, count, TILE,
              problem->d_v, scratch->factor);
    for (int64_t lane = 0; lane < count; lane += PANEL) {
        pack_panel(scratch->d_out + lane * problem->d_v, d_o + lane * problem->o.row,
                   problem->o.row, smaller(PANEL, count - lane), problem->d_v,
                   scratch->factor + lane);
    }
}

static void add_query_gradient(const tl_attention_problem *problem, const head_rows *head,
                               int64_t first, int64_t count, tile_scratch *scratch) {
    for (int64_t i = 0; i < count; i++) {
        scratch->factor[i] = problem->scale;
    }
    unpack_tile(head->d_q + first * problem->q.row, problem->q.row, scratch->sums,
                panel_width(problem->d_k), count, problem->d_k, scratch->factor, true);
}

/* One group of queries against one group of keys. */
TL_INLINE void backward_group(const tl_pair_weights kind, const tl_attention_problem *problem,
                              const head_rows *head, int64_t q_begin, int64_t q_end,
                              int64_t k_begin, int64_t k_end, tile_scratch *scratch) {
    const int64_t d_k = problem->d_k;
    const int64_t d_v = problem->d_v;
    const int64_t width = panel_width(d_k);
    for (int64_t first = q_begin; first < q_end; first += TILE) {
        const int64_t count = smaller(TILE, q_end - first);
        const int64_t end = problem->causal ? smaller(k_end, first + count) : k_end;
        if (k_begin >= end) {
            continue;
        }
        pack_backward(problem, head, first, count, scratch);
        memset(scratch->sums, 0, (size_t)(TILE * width) * sizeof(tl_real));
        for (int64_t k0 = k_begin; k0 < end; k0 += TILE) {
            const int64_t keys = smaller(TILE, end - k0);
            const tile_rows key_rows =
                whole_rows(scratch->keys, head->k + k0 * problem->k.row, problem->k.row, keys, d_k);
            const tile_rows value_rows = whole_rows(scratch->values, head->v + k0 * problem->v.row,
                                                    problem->v.row, keys, d_v);
            for (int64_t lane = 0; lane < count; lane += PANEL) {
                tl_real *weights = scratch->weights + lane * TILE;
                tl_real *d_weights = scratch->d_weights + lane * TILE;
                backward_weights(kind, problem, key_rows, value_rows, keys, first + lane + 1 - k0,
                                 scratch->queries + lane * d_k, scratch->d_out + lane * d_v,
                                 scratch->shift + lane, scratch->total + lane, weights, d_weights);
                if (head->d_q != NULL) {
                    add_weighted_rows(key_rows, keys, d_weights, scratch->sums + lane * width);
                }
            }
            if (head->d_v != NULL) {
                add_transposed_product(scratch->weights, keys, scratch->d_out_rows, d_v, count,
                                       head->d_v + k0 * problem->v.row, problem->v.row);
            }
            if (head->d_k != NULL) {
                add_transposed_product(scratch->d_weights, keys, scratch->query_rows, d_k, count,
                                       head->d_k + k0 * problem->k.row, problem->k.row);
            }
        }
        if (head->d_q != NULL) {
            add_query_gradient(problem, head, first, count, scratch);
        }
    }
}

/* ------------------------------------------------------------------ over samples, heads, groups */

static int64_t offset_of(const tl_attention_problem *problem, tl_rows_layout layout,
                         int64_t index) {
    return index / problem->heads * layout.sample + index % problem->heads * layout.head;
}

#define AT(pointer, layout)                                                                        \
    ((pointer) == NULL ? NULL : (pointer) + offset_of(problem, layout, index))

static void forward(const tl_attention_problem *problem, const tl_real *q, const tl_real *k,
                    const tl_real *v, tl_real *o, tl_real *row_shift, tl_real *row_inverse,
                    void *scratch, int threads) {
    const int64_t tiles = (problem->queries + TILE - 1) / TILE;
    const int64_t tasks = problem->samples * problem->heads * tiles;
    const double flops = 2.0 * (double)problem->samples * (double)problem->heads *
                         (double)problem->queries * (double)problem->keys *
                         (double)(problem->d_k + problem->d_v);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (flops > TL_PARALLEL_MINIMUM)
    for (int64_t task = 0; task < tasks; task++) {
        /* causal tiles grow: the large ones first */
        const int64_t index = task / tiles;
        const int64_t first = (tiles - 1 - task % tiles) * TILE;
        const head_rows head = {
            .q = AT(q, problem->q),
            .k = AT(k, problem->k),
            .v = AT(v, problem->v),
            .o = AT(o, problem->o),
            .row_shift = row_shift == NULL ? NULL : row_shift + index * problem->queries,
            .row_inverse = row_inverse == NULL ? NULL : row_inverse + index * problem->queries,
        };
        tile_scratch mine = thread_scratch(problem, scratch);
        switch (problem->weights) {
        case TL_PAIR_SOFTMAX:
            forward_tile(TL_PAIR_SOFTMAX, problem, &head, first, &mine);
            break;
        case TL_PAIR_LINEAR:
            forward_tile(TL_PAIR_LINEAR, problem, &head, first, &mine);
            break;
        case TL_PAIR_RELU:
            forward_tile(TL_PAIR_RELU, problem, &head, first, &mine);
            break;
        }
    }
}

/* Groups of at least two tiles, and of more than 500 rows beyond four groups; as few as many
 * samples and heads allow, for a tile of queries is packed once a group of keys. */
static int64_t group_count(const tl_attention_problem *problem) {
    const int64_t rows = problem->queries < problem->keys ? problem->queries : problem->keys;
    int64_t groups = 1;
    while (groups < MAX_GROUPS && problem->samples * problem->heads * groups < ENOUGH_TASKS &&
           rows / (2 * groups) >= (groups < 4 ? TILE : 500)) {
        groups *= 2;
    }
    return groups;
}

/* Where group `group` begins: multiples of PANEL, as even as possible. */
static int64_t group_begin(int64_t rows, int64_t groups, int64_t group) {
    const int64_t panels = (rows + PANEL - 1) / PANEL;
    return smaller(rows, panels * group / groups * PANEL);
}

static void backward_task(const tl_attention_problem *problem, const head_rows *head,
                          int64_t groups, int64_t query_group, int64_t key_group, void *scratch) {
    const int64_t q_begin = group_begin(problem->queries, groups, query_group);
    const int64_t q_end = group_begin(problem->queries, groups, query_group + 1);
    const int64_t k_begin = group_begin(problem->keys, groups, key_group);
    const int64_t k_end = group_begin(problem->keys, groups, key_group + 1);
    tile_scratch mine = thread_scratch(problem, scratch);
    switch (problem->weights) {
    case TL_PAIR_SOFTMAX:
        backward_group(TL_PAIR_SOFTMAX, problem, head, q_begin, q_end, k_begin, k_end, &mine);
        break;
    case TL_PAIR_LINEAR:
        backward_group(TL_PAIR_LINEAR, problem, head, q_begin, q_end, k_begin, k_end, &mine);
        break;
    case TL_PAIR_RELU:
        backward_group(TL_PAIR_RELU, problem, head, q_begin, q_end, k_begin, k_end, &mine);
        break;
    }
}

static void backward(const tl_attention_problem *problem, const tl_real *q, const tl_real *k,
                     const tl_real *v, const tl_real *o, const tl_real *row_shift,
                     const tl_real *row_inverse, const tl_real *d_o, tl_real *d_q, tl_real *d_k,
                     tl_real *d_v, void *scratch, int threads) {
    const int64_t groups = group_count(problem);
    const int64_t tasks = problem->samples * problem->heads * groups;
    const double flops = 2.0 * (double)problem->samples * (double)problem->heads *
                         (double)problem->queries * (double)problem->keys *
                         (double)(3 * problem->d_k + 2 * problem->d_v);
#pragma omp parallel num_threads(threads) if (flops > TL_PARALLEL_MINIMUM)
    for (int64_t step = 0; step < groups; step++) {
        /* the implicit barrier at its end separates the steps */
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; task++) {
            const int64_t index = task / groups;
            const int64_t group = task % groups;
            const head_rows head = {
                .q = AT(q, problem->q),
                .k = AT(k, problem->k),
                .v = AT(v, problem->v),
                .o = AT((tl_real *)o, problem->o),
                .d_o = AT(d_o, problem->o),
                .d_q = AT(d_q, problem->q),
                .d_k = AT(d_k, problem->k),
                .d_v = AT(d_v, problem->v),
                .row_shift =
                    row_shift == NULL ? NULL : (tl_real *)row_shift + index * problem->queries,
                .row_inverse =
                    row_inverse == NULL ? NULL : (tl_real *)row_inverse + index * problem->queries,
            };
            backward_task(problem, &head, groups, (group + step) % groups, group, scratch);
        }
    }
}

const tl_tiled_attention_kernels TL_PER_ISA(tl_tiled_attention_kernels) = {
    .scratch_bytes = scratch_bytes,
    .forward = forward,
    .backward = backward,
};
