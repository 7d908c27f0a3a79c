/* k_conv_winograd.c - forward, and backward_input as forward with flipped, transposed weights.
 *
 * Once a call: the weights' transform U [16][chunk][inputs][vectors of outputs]. Then, for pieces
 * of `room` tiles (blocks of 2x2 outputs, image after image): the input transform V
 * [16][room][inputs], for each of the 16 elements M = V U in register blocks of tiles x outputs,
 * and the output transform of M [16][room][outputs]. V and M stay in the first- or second-level
 * cache, a chunk of U is read once a piece. Odd extents are covered by tiles that reach over the
 * edge.
 */
#include "kernels/k_conv_winograd.h"

#include <omp.h>

enum { WINOGRAD_PIECE_BYTES = 64 << 10 }; /* of V and M */

typedef struct winograd_plan {
    tl_winograd_grid grid;
    int64_t sources;      /* channels */
    int64_t destinations; /* channels */
    int64_t room;         /* tiles in a piece */
    int64_t pieces;
    tl_real *transposed; /* weights [9][inputs][outputs], forward only */
    tl_real *weights;    /* U */
    tl_real *work;       /* per thread: V, M, patch */
    int64_t work_values;
    size_t bytes;
} winograd_plan;

static winograd_plan make_plan(const tl_conv_shape *shape, tl_conv_direction direction, int threads,
                               char *base) {
    winograd_plan plan = {.grid = tl_winograd_make_grid(shape, direction)};
    const bool forward = direction == TL_CONV_FORWARD;
    plan.sources = forward ? shape->in_channels : shape->out_channels;
    plan.destinations = forward ? shape->out_channels : shape->in_channels;
    const int64_t block = tl_conv_block_rows(tl_conv_chunk_vectors(plan.destinations, 0));
    const int64_t tile_bytes =
        TL_WINOGRAD_ELEMENTS * (plan.sources + plan.destinations) * (int64_t)sizeof(tl_real);
    int64_t blocks = tl_conv_maximum(2, WINOGRAD_PIECE_BYTES / (tile_bytes * block));
    /* one image must keep several threads busy */
    blocks = tl_conv_minimum(blocks,
                             tl_conv_maximum(1, plan.grid.tiles / (block * TL_CONV_TILES_WANTED)));
    plan.room = blocks * block;
    plan.pieces = tl_conv_ceiling(plan.grid.tiles, plan.room);
    const int64_t area = plan.sources * plan.destinations;
    plan.work_values =
        TL_WINOGRAD_ELEMENTS * (plan.room * (plan.sources + plan.destinations) + plan.sources);
    size_t used = 0;
    plan.transposed =
        tl_conv_take(&base, &used, forward ? (size_t)(9 * area) * sizeof(tl_real) : 0);
    plan.weights =
        tl_conv_take(&base, &used, (size_t)(TL_WINOGRAD_ELEMENTS * area) * sizeof(tl_real));
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

/* G g G^T of one vector of channels: tap t of g at g + taps[t], u gets 16 elements `step` apart. */
TL_INLINE void weight_vector(const tl_real *g, const int64_t *taps, tl_real *u, int64_t step) {
    const tl_real half = (tl_real)0.5;
    tl_v t[4][3];
    TL_CONV_UNROLL
    for (int j = 0; j < 3; j++) {
        const tl_v g0 = tl_v_load(g + taps[j]);
        const tl_v g1 = tl_v_load(g + taps[3 + j]);
        const tl_v g2 = tl_v_load(g + taps[6 + j]);
        const tl_v even = (g0 + g2) * half;
        const tl_v odd = g1 * half;
        t[0][j] = g0;
        t[1][j] = even + odd;
        t[2][j] = even - odd;
        t[3][j] = g2;
    }
    TL_CONV_UNROLL
    for (int i = 0; i < 4; i++) {
        const tl_v even = (t[i][0] + t[i][2]) * half;
        const tl_v odd = t[i][1] * half;
        tl_v_store(u + (4 * i) * step, t[i][0]);
        tl_v_store(u + (4 * i + 1) * step, even + odd);
        tl_v_store(u + (4 * i + 2) * step, even - odd);
        tl_v_store(u + (4 * i + 3) * step, t[i][2]);
    }
}

/* Row `source` of U: its products with all destination channels. */
static void transform_weight_row(const winograd_plan *plan, int64_t source, const tl_real *from,
                                 const int64_t *taps) {
    const int64_t area = plan->sources * plan->destinations;
    for (int64_t o = 0; o < plan->destinations; o += TL_LANES) {
        const int64_t chunk = o / (2 * TL_LANES);
        const int64_t width = tl_conv_chunk_vectors(plan->destinations, chunk) * TL_LANES;
        tl_real *u = plan->weights + chunk * 2 * TL_LANES * plan->sources + source * width +
                     o % (2 * TL_LANES);
        weight_vector(from + o, taps, u, area);
    }
}

static void transform_weights(const tl_conv_shape *shape, tl_conv_direction direction,
                              const tl_real *weight, const winograd_plan *plan, int threads) {
    const int64_t area = plan->sources * plan->destinations;
    const bool forward = direction == TL_CONV_FORWARD;
    const int64_t columns = 9 * shape->in_channels;
    const tl_real *from = forward ? plan->transposed : weight;
    int64_t taps[9];
    for (int t = 0; t < 9; t++) {
        taps[t] = forward ? t * area : (8 - t) * shape->in_channels;
    }
    const int64_t row = forward ? shape->out_channels : columns;
    const int team = tl_conv_threads(TL_WINOGRAD_ELEMENTS * (double)area, threads);
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
TL_INLINE void product_block(const tl_real *v, int64_t length, const tl_real *u, tl_real *m,
                             int64_t outputs, const int rows, const int vectors) {
    tl_v acc[TL_CONV_BLOCK_1][2];
    const tl_real *x[TL_CONV_BLOCK_1];
    TL_CONV_UNROLL
    for (int p = 0; p < rows; p++) {
        acc[p][0] = tl_v_zero();
        acc[p][1] = tl_v_zero();
        x[p] = v + p * length;
    }
    for (int64_t l = 0; l < length; l++, u += vectors * TL_LANES) {
        tl_v u0 = tl_v_load(u);
        TL_V_PIN(u0);
        tl_v u1 = u0;
        if (vectors == 2) {
            u1 = tl_v_load(u + TL_LANES);
            TL_V_PIN(u1);
        }
        TL_CONV_UNROLL
        for (int p = 0; p < rows; p++) {
            const tl_v value = tl_v_set(x[p][l]);
            acc[p][0] += value * u0;
            if (vectors == 2) {
                acc[p][1] += value * u1;
            }
        }
    }
    TL_CONV_UNROLL
    for (int p = 0; p < rows; p++) {
        tl_v_store(m + p * outputs, acc[p][0]);
        if (vectors == 2) {
            tl_v_store(m + p * outputs + TL_LANES, acc[p][1]);
        }
    }
}

/* `count` tiles of one element and one chunk of outputs. */
TL_INLINE void product_sweep(int64_t count, const tl_real *v, int64_t length, const tl_real *u,
                             tl_real *m, int64_t outputs, int vectors) {
    const int64_t blocks = tl_conv_blocks(count, vectors);
    int64_t first = 0;
    for (int64_t b = 1; b <= blocks; b++) {
        const int64_t end = count * b / blocks;
        const tl_real *from = v + first * length;
        tl_real *to = m + first * outputs;
        if (vectors == 2) {
            switch (end - first) { TL_CONV_CASES_2(product_block, from, length, u, to, outputs) }
        } else {
            switch (end - first) { TL_CONV_CASES_1(product_block, from, length, u, to, outputs) }
        }
        first = end;
    }
}

/* M = V U for all elements and outputs. */
TL_INLINE void products(const winograd_plan *plan, int64_t count, const tl_real *v, tl_real *m,
                        int64_t sources, int64_t destinations) {
    for (int64_t e = 0; e < TL_WINOGRAD_ELEMENTS; e++) {
        const tl_real *from = v + e * plan->room * sources;
        for (int64_t o = 0; o < destinations; o += 2 * TL_LANES) {
            product_sweep(count, from, sources, plan->weights + (e * destinations + o) * sources,
                          m + e * plan->room * destinations + o, destinations,
                          tl_conv_chunk_vectors(destinations, o / (2 * TL_LANES)));
        }
    }
}

/* A^T m A of one vector of channels: 2x2 outputs. */
TL_INLINE void output_vector(const tl_real *m, int64_t step, tl_v bias, tl_v y[2][2]) {
    tl_v s[2][4];
    TL_CONV_UNROLL
    for (int j = 0; j < 4; j++) {
        const tl_v m0 = tl_v_load(m + j * step);
        const tl_v m1 = tl_v_load(m + (4 + j) * step);
        const tl_v m2 = tl_v_load(m + (8 + j) * step);
        const tl_v m3 = tl_v_load(m + (12 + j) * step);
        s[0][j] = m0 + m1 + m2;
        s[1][j] = m1 - m2 - m3;
    }
    TL_CONV_UNROLL
    for (int i = 0; i < 2; i++) {
        y[i][0] = bias + s[i][0] + s[i][1] + s[i][2];
        y[i][1] = bias + s[i][1] - s[i][2] - s[i][3];
    }
}

/* Output transform of `count` tiles from `tile` on. */
static void output_tiles(const winograd_plan *plan, int64_t tile, int64_t count, const tl_real *m,
                         const tl_real *bias, tl_real *y, bool accumulate) {
    const tl_winograd_grid *g = &plan->grid;
    const int64_t channels = plan->destinations;
    const int64_t step = plan->room * channels;
    tl_winograd_place place = tl_winograd_place_of(g, tile);
    for (int64_t t = 0; t < count; t++, tl_winograd_next(g, &place)) {
        const int64_t h = 2 * place.block[0];
        const int64_t w = 2 * place.block[1];
        const int height = h + 1 < g->destination[0] ? 2 : 1;
        const int width = w + 1 < g->destination[1] ? 2 : 1;
        tl_real *corner =
            y + ((place.image * g->destination[0] + h) * g->destination[1] + w) * channels;
        for (int64_t c = 0; c < channels; c += TL_LANES) {
            tl_v values[2][2];
            output_vector(m + t * channels + c, step,
                          bias != NULL ? tl_v_load(bias + c) : tl_v_zero(), values);
            for (int i = 0; i < height; i++) {
                for (int j = 0; j < width; j++) {
                    tl_real *to = corner + (i * g->destination[1] + j) * channels + c;
                    const tl_v value = values[i][j];
                    tl_v_store(to, accumulate ? value + tl_v_load(to) : value);
                }
            }
        }
    }
}

static void run_piece(const winograd_plan *plan, int64_t piece, const tl_real *source,
                      const tl_real *bias, tl_real *destination, bool accumulate, int thread) {
    tl_real *v = plan->work + thread * plan->work_values;
    tl_real *m = v + TL_WINOGRAD_ELEMENTS * plan->room * plan->sources;
    tl_real *patch = m + TL_WINOGRAD_ELEMENTS * plan->room * plan->destinations;
    const int64_t first = piece * plan->room;
    const int64_t count = tl_conv_minimum(plan->room, plan->grid.tiles - first);
    tl_winograd_input(&plan->grid, source, first, count, plan->sources, 0, plan->sources,
                      plan->room, patch, v);
    products(plan, count, v, m, plan->sources, plan->destinations);
    output_tiles(plan, first, count, m, bias, destination, accumulate);
}

static void correlate(const tl_conv_shape *shape, tl_conv_direction direction,
                      const tl_real *source, const tl_real *weight, const tl_real *bias,
                      tl_real *destination, bool accumulate, void *scratch, int threads) {
    const winograd_plan plan = make_plan(shape, direction, threads, scratch);
    transform_weights(shape, direction, weight, &plan, threads);
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t piece = 0; piece < plan.pieces; piece++) {
        run_piece(&plan, piece, source, bias, destination, accumulate, omp_get_thread_num());
    }
}

static size_t winograd_scratch_bytes(const tl_conv_shape *shape, tl_conv_direction direction,
                                     int threads) {
    return make_plan(shape, direction, threads, NULL).bytes;
}

static void winograd_forward(const tl_conv_shape *shape, const tl_real *x, const tl_real *weight,
                             const tl_real *bias, tl_real *y, bool accumulate, void *scratch,
                             int threads) {
    correlate(shape, TL_CONV_FORWARD, x, weight, bias, y, accumulate, scratch, threads);
}

static void winograd_backward_input(const tl_conv_shape *shape, const tl_real *dy,
                                    const tl_real *weight, const tl_real *bias, tl_real *dx,
                                    bool accumulate, void *scratch, int threads) {
    correlate(shape, TL_CONV_BACKWARD_INPUT, dy, weight, bias, dx, accumulate, scratch, threads);
}

const tl_conv_map_kernels TL_PER_ISA(tl_conv_winograd) = {
    .scratch_bytes = winograd_scratch_bytes,
    .forward = winograd_forward,
    .backward_input = winograd_backward_input,
};
