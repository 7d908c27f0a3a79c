/* k_conv_winograd_map.h - Winograd's forward, and backward_input as forward with flipped,
 * transposed weights. Private to k_conv_winograd.c.
 *
 * Once a call: the weights' transform U [weights][chunk][inputs][vectors of outputs]. Then, for
 * pieces of `room` tiles (image after image): the input transform V
 * [elements][room][inputs], for each of the elements M = V U in register blocks of tiles x outputs,
 * and the output transform of M [elements][room][outputs]. V and M stay in the first- or
 * second-level cache, a chunk of U is read once a piece. Odd extents are covered by tiles that
 * reach over the edge.
 */
#ifndef TL_K_CONV_WINOGRAD_MAP_H
#define TL_K_CONV_WINOGRAD_MAP_H

#include "kernels/k_conv_winograd.h"

enum { WINOGRAD_PIECE_BYTES = 64 << 10 }; /* of V and M */

typedef struct map_plan {
    tl_winograd_grid grid;
    int64_t sources;      /* channels */
    int64_t destinations; /* channels */
    int64_t room;         /* tiles in a piece */
    int64_t pieces;
    int64_t source_step, destination_step; /* from an element to the next in V and M */
    int64_t fetched;                       /* lines of the next piece, before each block */
    tl_real *transposed;                   /* weights [9][inputs][outputs], forward only */
    tl_real *weights;                      /* U */
    tl_real *work;                         /* per thread: V, M, zeros */
    int64_t work_values;
    size_t bytes;
} map_plan;

static map_plan make_map_plan(const tl_conv_shape *shape, tl_conv_direction direction, int threads,
                              char *base) {
    map_plan plan = {.grid = tl_winograd_make_grid(shape, direction)};
    const bool forward = direction == TL_CONV_FORWARD;
    plan.sources = forward ? shape->in_channels : shape->out_channels;
    plan.destinations = forward ? shape->out_channels : shape->in_channels;
    const int64_t block = tl_winograd_block(tl_conv_chunk_vectors(plan.destinations, 0));
    const int64_t tile_bytes =
        plan.grid.elements * (plan.sources + plan.destinations) * (int64_t)sizeof(tl_real);
    int64_t blocks = tl_conv_maximum(2, WINOGRAD_PIECE_BYTES / (tile_bytes * block));
    /* one image must keep several threads busy */
    blocks = tl_conv_minimum(blocks,
                             tl_conv_maximum(1, plan.grid.tiles / (block * TL_CONV_TILES_WANTED)));
    plan.room = blocks * block;
    plan.pieces = tl_conv_ceiling(plan.grid.tiles, plan.room);
    const int64_t area = plan.sources * plan.destinations;
    plan.source_step = tl_winograd_step(plan.room, plan.sources);
    plan.destination_step = tl_winograd_step(plan.room, plan.destinations);
    plan.work_values = plan.grid.elements * (plan.source_step + plan.destination_step) +
                       tl_winograd_zeros(&plan.grid, plan.sources);
    plan.fetched = tl_winograd_fetched(&plan.grid, plan.room, plan.sources, plan.destinations,
                                       blocks * tl_conv_chunks(plan.destinations));
    size_t used = 0;
    plan.transposed =
        tl_conv_take(&base, &used, forward ? (size_t)(9 * area) * sizeof(tl_real) : 0);
    plan.weights = tl_conv_take(&base, &used, (size_t)(plan.grid.weights * area) * sizeof(tl_real));
    plan.work =
        tl_conv_take(&base, &used, (size_t)threads * (size_t)plan.work_values * sizeof(tl_real));
    plan.bytes = used;
    return plan;
}

/* [outputs][9 * inputs] -> [9 * inputs][outputs], rows first ... end-1 of the result. */
static void transpose(const tl_real *from, int64_t outputs, int64_t columns, int64_t first,
                      int64_t end, tl_real *to) {
    enum { BLOCK = 16 };
    for (int64_t o = 0; o < outputs; o += BLOCK) {
        const int64_t last = tl_conv_minimum(outputs, o + BLOCK);
        for (int64_t k = first; k < end; k++) {
            for (int64_t i = o; i < last; i++) {
                to[k * outputs + i] = from[i * columns + k];
            }
        }
    }
}

/* G g G^T of one vector of channels: tap t of g at g + taps[t], u gets the weights `step` apart. */
TL_INLINE void weight_vector(tl_winograd_kind kind, const tl_real *g, const int64_t *taps,
                             tl_real *u, int64_t step) {
    const int weights = tl_winograd_line_of(kind).weights;
    tl_v t[TL_WINOGRAD_ELEMENTS][TL_WINOGRAD_ELEMENTS];
    TL_CONV_UNROLL
    for (int j = 0; j < 3; j++) {
        const tl_v column[3] = {tl_v_load(g + taps[j]), tl_v_load(g + taps[3 + j]),
                                tl_v_load(g + taps[6 + j])};
        tl_v transformed[TL_WINOGRAD_WEIGHTS];
        tl_winograd_weight_line(kind, column, transformed);
        TL_CONV_UNROLL
        for (int i = 0; i < weights; i++) {
            t[i][j] = transformed[i];
        }
    }
    tl_winograd_store_rows(tl_winograd_weight_line, kind, weights, t, u, step);
}

/* Row `source` of U: its products with all destination channels. */
static void transform_weight_row(const map_plan *plan, int64_t source, const tl_real *from,
                                 const int64_t *taps) {
    const int64_t area = plan->sources * plan->destinations;
    for (int64_t o = 0; o < plan->destinations; o += TL_LANES) {
        const int64_t chunk = o / (2 * TL_LANES);
        const int64_t width = tl_conv_chunk_vectors(plan->destinations, chunk) * TL_LANES;
        tl_real *u = plan->weights + chunk * 2 * TL_LANES * plan->sources + source * width +
                     o % (2 * TL_LANES);
#define CALL(kind) weight_vector(kind, from + o, taps, u, area)
        TL_WINOGRAD_FOR_KIND(plan->grid.kind, CALL)
#undef CALL
    }
}

static void transform_weights(const tl_conv_shape *shape, tl_conv_direction direction,
                              const tl_real *weight, const map_plan *plan, int threads) {
    const int64_t area = plan->sources * plan->destinations;
    const bool forward = direction == TL_CONV_FORWARD;
    const int64_t columns = 9 * shape->in_channels;
    const tl_real *from = forward ? plan->transposed : weight;
    int64_t taps[9];
    for (int t = 0; t < 9; t++) {
        taps[t] = forward ? t * area : (8 - t) * shape->in_channels;
    }
    const int64_t row = forward ? shape->out_channels : columns;
    const int team = tl_conv_threads((double)(plan->grid.weights * area), threads);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        if (forward) {
#pragma omp for schedule(static)
            for (int64_t k = 0; k < columns; k += 16) {
                transpose(weight, shape->out_channels, columns, k, tl_conv_minimum(columns, k + 16),
                          plan->transposed);
            }
        }
#pragma omp for schedule(static)
        for (int64_t source = 0; source < plan->sources; source++) {
            transform_weight_row(plan, source, from + source * row, taps);
        }
    }
}

/* m[p][0 ... vectors-1] = v[p] u, for rows of v and m that are `length` and `outputs` apart. */
TL_INLINE void product_block(const tl_real *v, const int64_t length, const tl_real *u, tl_real *m,
                             int64_t outputs, int64_t fetched, const int rows, const int vectors) {
    tl_v acc[TL_MICRO_ROWS][TL_MICRO_VECTORS];
    tl_micro_clear(rows, vectors, acc);
    fetch_some(fetched);
    tl_micro_multiply(rows, vectors, length, v, length, 1, u, vectors * TL_LANES, acc);
    TL_UNROLL
    for (int p = 0; p < rows; p++) {
        TL_UNROLL
        for (int j = 0; j < vectors; j++) {
            tl_v_store(m + p * outputs + j * TL_LANES, acc[p][j]);
        }
    }
}

/* `count` tiles of one element and one chunk of outputs. Only the last piece has other than full
 * blocks. */
TL_INLINE void product_sweep(int64_t count, const tl_real *v, const int64_t length,
                             const tl_real *u, tl_real *m, int64_t outputs, int64_t fetched,
                             const int vectors) {
    const int most = tl_winograd_block(vectors);
    int64_t t = 0;
    for (; t + most <= count; t += most) {
        product_block(v + t * length, length, u, m + t * outputs, outputs, fetched, most, vectors);
    }
    for (; t + 3 <= count; t += 3) {
        product_block(v + t * length, length, u, m + t * outputs, outputs, fetched, 3, vectors);
    }
    for (; t < count; t++) {
        product_block(v + t * length, length, u, m + t * outputs, outputs, fetched, 1, vectors);
    }
}

/* M = V U for all elements and outputs. */
TL_INLINE void multiply(const map_plan *plan, int64_t count, const tl_real *v, tl_real *m,
                        const int64_t sources) {
    const int64_t destinations = plan->destinations;
    for (int64_t e = 0; e < plan->grid.elements; e++) {
        const tl_real *from = v + e * plan->source_step;
        tl_real *to = m + e * plan->destination_step;
        const tl_real *weights = plan->weights + plan->grid.weights_of[e] * destinations * sources;
        for (int64_t o = 0; o < destinations; o += 2 * TL_LANES) {
            const tl_real *u = weights + o * sources;
            if (tl_conv_chunk_vectors(destinations, o / (2 * TL_LANES)) == 2) {
                product_sweep(count, from, sources, u, to + o, destinations, plan->fetched, 2);
            } else {
                product_sweep(count, from, sources, u, to + o, destinations, plan->fetched, 1);
            }
        }
    }
}

/* The usual channel counts as constants: every address of a block is then a displacement. */
static void products(const map_plan *plan, int64_t count, const tl_real *v, tl_real *m) {
    switch (plan->sources) {
    case 16:
        multiply(plan, count, v, m, 16);
        break;
    case 32:
        multiply(plan, count, v, m, 32);
        break;
    case 64:
        multiply(plan, count, v, m, 64);
        break;
    default:
        multiply(plan, count, v, m, plan->sources);
    }
}

/* A^T t A of one vector of channels: a tile's outputs, to which the bias is added. */
TL_INLINE void output_vector(tl_winograd_kind kind, const tl_real *products, int64_t step,
                             tl_v bias, tl_v y[TL_WINOGRAD_OUTPUTS][TL_WINOGRAD_OUTPUTS]) {
    const tl_winograd_line line = tl_winograd_line_of(kind);
    tl_v t[TL_WINOGRAD_OUTPUTS][TL_WINOGRAD_ELEMENTS];
    TL_CONV_UNROLL
    for (int j = 0; j < line.elements; j++) {
        tl_v column[TL_WINOGRAD_ELEMENTS];
        tl_v transformed[TL_WINOGRAD_OUTPUTS];
        TL_CONV_UNROLL
        for (int i = 0; i < line.elements; i++) {
            column[i] = tl_v_load(products + (line.elements * i + j) * step);
        }
        tl_winograd_output_line(kind, column, transformed);
        TL_CONV_UNROLL
        for (int i = 0; i < line.outputs; i++) {
            t[i][j] = transformed[i];
        }
    }
    TL_CONV_UNROLL
    for (int i = 0; i < line.outputs; i++) {
        tl_winograd_output_line(kind, t[i], y[i]);
        TL_CONV_UNROLL
        for (int j = 0; j < line.outputs; j++) {
            y[i][j] += bias;
        }
    }
}

/* One tile: the outputs at y, or the `rows` x `columns` of them that lie inside the image. */
TL_INLINE void output_tile(tl_winograd_kind kind, const tl_real *products, int64_t step,
                           int64_t channels, const tl_real *bias, int64_t rows, int64_t columns,
                           int64_t row, tl_real *y, bool accumulate) {
    const int outputs = tl_winograd_line_of(kind).outputs;
    for (int64_t c = 0; c < channels; c += TL_LANES) {
        tl_v values[TL_WINOGRAD_OUTPUTS][TL_WINOGRAD_OUTPUTS];
        output_vector(kind, products + c, step, bias != NULL ? tl_v_load(bias + c) : tl_v_zero(),
                      values);
        TL_CONV_UNROLL
        for (int i = 0; i < outputs; i++) {
            TL_CONV_UNROLL
            for (int j = 0; j < outputs; j++) {
                if (i < rows && j < columns) {
                    tl_real *to = y + i * row + j * channels + c;
                    tl_v_store(to, accumulate ? values[i][j] + tl_v_load(to) : values[i][j]);
                }
            }
        }
    }
}

/* Output transform of `count` tiles from `tile` on. */
TL_INLINE void output_tiles_of(tl_winograd_kind kind, const map_plan *plan, int64_t tile,
                               int64_t count, const tl_real *products, const tl_real *bias,
                               tl_real *y, bool accumulate) {
    const tl_winograd_grid *g = &plan->grid;
    const int64_t outputs = tl_winograd_line_of(kind).outputs;
    const int64_t channels = plan->destinations;
    const int64_t step = plan->destination_step;
    const int64_t row = g->destination[1] * channels;
    tl_winograd_place place = tl_winograd_place_of(g, tile);
    for (int64_t t = 0; t < count; t++, tl_winograd_next(g, &place)) {
        const int64_t h = outputs * place.at[0];
        const int64_t w = outputs * place.at[1];
        const int64_t rows = g->destination[0] - h;
        const int64_t columns = g->destination[1] - w;
        const tl_real *from = products + t * channels;
        tl_real *to = y + (place.image * g->destination[0] + h) * row + w * channels;
        if (rows >= outputs && columns >= outputs && !accumulate) {
            output_tile(kind, from, step, channels, bias, outputs, outputs, row, to, false);
        } else {
            output_tile(kind, from, step, channels, bias, rows, columns, row, to, accumulate);
        }
    }
}

static void output_tiles(const map_plan *plan, int64_t tile, int64_t count, const tl_real *products,
                         const tl_real *bias, tl_real *y, bool accumulate) {
#define CALL(kind) output_tiles_of(kind, plan, tile, count, products, bias, y, accumulate)
    TL_WINOGRAD_FOR_KIND(plan->grid.kind, CALL)
#undef CALL
}

/* Tiles first ... first+count-1, at most `room` of them. The memory of the `next` tiles behind them
 * is asked for meanwhile, or what is queued already. */
static void map_tiles(const map_plan *plan, int64_t first, int64_t count, int64_t next,
                      const tl_real *source, const tl_real *bias, tl_real *destination,
                      bool accumulate, int thread) {
    tl_real *v = plan->work + thread * plan->work_values;
    tl_real *m = v + plan->grid.elements * plan->source_step;
    const tl_real *zeros = m + plan->grid.elements * plan->destination_step;
    tl_winograd_input[plan->grid.kind](&plan->grid, source, first, count, plan->sources, 0,
                                       plan->sources, plan->source_step, zeros, v);
    if (next != TL_WINOGRAD_QUEUED) {
        tl_winograd_fetch(&plan->grid, first + count, first + count + next, source, plan->sources,
                          destination, plan->destinations);
    }
    products(plan, count, v, m);
    output_tiles(plan, first, count, m, bias, destination, accumulate);
}

/* What all tiles share: the weights' transform and every thread's zeros. */
static void map_prepare(const tl_conv_shape *shape, tl_conv_direction direction,
                        const tl_real *weight, const map_plan *plan, int threads) {
    transform_weights(shape, direction, weight, plan, threads);
    const int64_t zeros = tl_winograd_zeros(&plan->grid, plan->sources);
    for (int t = 0; t < threads; t++) {
        memset(plan->work + (t + 1) * plan->work_values - zeros, 0,
               (size_t)zeros * sizeof(tl_real));
    }
}

#endif
