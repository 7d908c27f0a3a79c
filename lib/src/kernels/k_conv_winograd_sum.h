/* k_conv_winograd_sum.h - Winograd's backward_weight. Private to k_conv_winograd.c.
 *
 * The adjoint of y = A^T [(G g G^T) * (B^T d B)] A with respect to g is
 *     dg = G^T [ sum over tiles of (B^T d B) * (A dy A^T) ] G:
 * for each of the elements a matrix product [inputs, tiles] x [tiles, outputs]. Pieces of the
 * tiles (k_conv_sum.h) and slices of the input channels are worked on apart; within them, `room`
 * tiles at a time are transformed, multiplied in registers and added to the partial gradient
 * [chunk of outputs][weights][inputs][vectors of outputs]. The pieces' sum is transformed back at
 * last.
 */
#ifndef TL_K_CONV_WINOGRAD_SUM_H
#define TL_K_CONV_WINOGRAD_SUM_H

#include "kernels/k_conv_sum.h"
#include "kernels/k_conv_winograd.h"

enum {
    WINOGRAD_WEIGHT_ROOM = 48,    /* tiles transformed at a time */
    WINOGRAD_SLICE_CHANNELS = 64, /* input channels worked on at a time, at most */
    REST = 2,                     /* divides what is left of any vector */
};

typedef struct sum_plan {
    tl_winograd_grid grid;
    int64_t inputs;
    int64_t outputs;
    int64_t room;
    int64_t pieces;
    int64_t slices; /* of the input channels */
    int64_t piece_values;
    int64_t gradient_step; /* from an element to the next in the gradient's transform */
    int64_t fetched;       /* lines of the next tiles, before each register block */
    tl_real *partial;
    tl_real *work; /* per thread: V, the gradient's transform, zeros */
    int64_t work_values;
    size_t bytes;
} sum_plan;

/* First channel of a slice: slices are whole vectors. */
static int64_t slice_start(const sum_plan *plan, int64_t slice) {
    return tl_conv_vectors(plan->inputs) * slice / plan->slices * TL_LANES;
}

static sum_plan make_sum_plan(const tl_conv_shape *shape, int threads, char *base) {
    sum_plan plan = {.grid = tl_winograd_make_grid(shape, TL_CONV_BACKWARD_WEIGHT),
                     .inputs = shape->in_channels,
                     .outputs = shape->out_channels};
    const int64_t tiles = plan.grid.tiles;
    plan.room = tl_conv_minimum(WINOGRAD_WEIGHT_ROOM, tiles);
    plan.piece_values = plan.grid.weights * plan.inputs * plan.outputs;
    plan.pieces =
        tl_conv_piece_count(shape, tl_conv_ceiling(tiles, WINOGRAD_WEIGHT_ROOM), plan.piece_values);
    plan.slices = tl_conv_minimum(
        tl_conv_vectors(plan.inputs),
        tl_conv_maximum(tl_conv_ceiling(plan.inputs, WINOGRAD_SLICE_CHANNELS),
                        tl_conv_minimum(TL_CONV_PIECES / plan.pieces, plan.inputs / 32)));
    plan.slices = tl_conv_maximum(plan.slices, 1);
    const int64_t width = slice_start(&plan, 1) + TL_LANES; /* no slice is wider */
    plan.gradient_step = tl_winograd_step(plan.room, plan.outputs);
    plan.work_values =
        plan.grid.elements * (tl_winograd_step(plan.room, width) + plan.gradient_step) +
        tl_winograd_zeros(&plan.grid, plan.inputs);
    const int64_t rows = tl_winograd_block(tl_conv_chunk_vectors(plan.outputs, 0));
    plan.fetched =
        tl_winograd_fetched(&plan.grid, plan.room, plan.inputs, plan.outputs,
                            tl_conv_ceiling(plan.inputs, rows) * tl_conv_chunks(plan.outputs));
    size_t used = 0;
    plan.partial =
        tl_conv_take(&base, &used, (size_t)(plan.pieces * plan.piece_values) * sizeof(tl_real));
    plan.work =
        tl_conv_take(&base, &used, (size_t)threads * (size_t)plan.work_values * sizeof(tl_real));
    plan.bytes = used;
    return plan;
}

/* A dy A^T of one vector of channels of one tile, of which `rows` x `columns` gradients lie inside
 * the image and the others are zeros: `to` gets the elements `step` apart. */
TL_INLINE void gradient_vector(tl_winograd_kind kind, const tl_real *dy, int64_t row,
                               int64_t channels, int64_t rows, int64_t columns, tl_real *to,
                               int64_t step) {
    const tl_winograd_line line = tl_winograd_line_of(kind);
    tl_v t[TL_WINOGRAD_ELEMENTS][TL_WINOGRAD_ELEMENTS];
    TL_CONV_UNROLL
    for (int j = 0; j < line.outputs; j++) {
        tl_v column[TL_WINOGRAD_OUTPUTS];
        tl_v transformed[TL_WINOGRAD_ELEMENTS];
        TL_CONV_UNROLL
        for (int i = 0; i < line.outputs; i++) {
            column[i] =
                i < rows && j < columns ? tl_v_load(dy + i * row + j * channels) : tl_v_zero();
        }
        tl_winograd_gradient_line(kind, column, transformed);
        TL_CONV_UNROLL
        for (int i = 0; i < line.elements; i++) {
            t[i][j] = transformed[i];
        }
    }
    tl_winograd_store_rows(tl_winograd_gradient_line, kind, line.elements, t, to, step);
}

/* A dy A^T of `count` tiles from `tile` on: w [elements][room][outputs]. */
TL_INLINE void gradient_tiles_of(tl_winograd_kind kind, const sum_plan *plan, const tl_real *dy,
                                 int64_t tile, int64_t count, tl_real *w) {
    const tl_winograd_grid *g = &plan->grid;
    const int64_t outputs = tl_winograd_line_of(kind).outputs;
    const int64_t channels = plan->outputs;
    const int64_t step = plan->gradient_step;
    const int64_t row = g->destination[1] * channels;
    tl_winograd_place place = tl_winograd_place_of(g, tile);
    for (int64_t t = 0; t < count; t++, tl_winograd_next(g, &place)) {
        const int64_t top = outputs * place.at[0];
        const int64_t left = outputs * place.at[1];
        const int64_t rows = g->destination[0] - top;
        const int64_t columns = g->destination[1] - left;
        const tl_real *from = dy + (place.image * g->destination[0] + top) * row + left * channels;
        for (int64_t c = 0; c < channels; c += TL_LANES) {
            tl_real *to = w + t * channels + c;
            if (rows >= outputs && columns >= outputs) {
                gradient_vector(kind, from + c, row, channels, outputs, outputs, to, step);
            } else {
                gradient_vector(kind, from + c, row, channels, rows, columns, to, step);
            }
        }
    }
}

static void gradient_tiles(const sum_plan *plan, const tl_real *dy, int64_t tile, int64_t count,
                           tl_real *w) {
    if (plan->grid.kind == TL_WINOGRAD_2) {
        gradient_tiles_of(TL_WINOGRAD_2, plan, dy, tile, count, w);
    } else if (plan->grid.kind == TL_WINOGRAD_4) {
        gradient_tiles_of(TL_WINOGRAD_4, plan, dy, tile, count, w);
    } else {
        gradient_tiles_of(TL_WINOGRAD_STRIDED, plan, dy, tile, count, w);
    }
}

/* sum[r] += over the tiles, v[t][r] * w[t][0 ... vectors * TL_LANES - 1], for a block of rows. */
TL_INLINE void outer_block(int64_t count, const tl_real *v, const int64_t width, const tl_real *w,
                           int64_t outputs, int64_t fetched, tl_real *sum, const int rows,
                           const int vectors) {
    tl_v acc[TL_MICRO_ROWS][TL_MICRO_VECTORS];
    tl_micro_clear(rows, vectors, acc);
    fetch_some(fetched);
    tl_micro_multiply(rows, vectors, count, v, 1, width, w, outputs, acc);
    TL_UNROLL
    for (int r = 0; r < rows; r++) {
        TL_UNROLL
        for (int j = 0; j < vectors; j++) {
            tl_real *to = sum + (r * vectors + j) * TL_LANES;
            tl_v_store(to, tl_v_load(to) + acc[r][j]);
        }
    }
}

/* All rows of one element and one chunk: `width` is a whole number of vectors, and of blocks or
 * half blocks. */
TL_INLINE void outer_sweep(int64_t count, const tl_real *v, const int64_t width, const tl_real *w,
                           int64_t outputs, int64_t fetched, tl_real *sum, const int vectors) {
    const int most = tl_winograd_block(vectors);
    int64_t r = 0;
    for (; r + most <= width; r += most) {
        outer_block(count, v + r, width, w, outputs, fetched, sum + r * vectors * TL_LANES, most,
                    vectors);
    }
    for (; r < width; r += REST) {
        outer_block(count, v + r, width, w, outputs, fetched, sum + r * vectors * TL_LANES, REST,
                    vectors);
    }
}

/* Adds `count` tiles' products to a partial gradient, input channels first ... first+width-1. */
TL_INLINE void add_products_of(const sum_plan *plan, int64_t count, const tl_real *v,
                               const tl_real *w, int64_t first, const int64_t width,
                               tl_real *partial) {
    const int64_t rows = plan->grid.weights * plan->inputs;
    const int64_t v_step = tl_winograd_step(plan->room, width);
    for (int64_t e = 0; e < plan->grid.elements; e++) {
        const int64_t weights = plan->grid.weights_of[e];
        for (int64_t chunk = 0; chunk < tl_conv_chunks(plan->outputs); chunk++) {
            const int vectors = tl_conv_chunk_vectors(plan->outputs, chunk);
            const tl_real *from = w + e * plan->gradient_step + chunk * 2 * TL_LANES;
            tl_real *sum = partial + tl_conv_chunk_start(plan->outputs, rows, 0, chunk) +
                           (weights * plan->inputs + first) * vectors * TL_LANES;
            if (vectors == 2) {
                outer_sweep(count, v + e * v_step, width, from, plan->outputs, plan->fetched, sum,
                            2);
            } else {
                outer_sweep(count, v + e * v_step, width, from, plan->outputs, plan->fetched, sum,
                            1);
            }
        }
    }
}

/* The usual widths as constants: every address of a block is then a displacement. */
static void add_products(const sum_plan *plan, int64_t count, const tl_real *v, const tl_real *w,
                         int64_t first, int64_t width, tl_real *partial) {
    switch (width) {
    case 16:
        add_products_of(plan, count, v, w, first, 16, partial);
        break;
    case 32:
        add_products_of(plan, count, v, w, first, 32, partial);
        break;
    case 64:
        add_products_of(plan, count, v, w, first, 64, partial);
        break;
    default:
        add_products_of(plan, count, v, w, first, width, partial);
    }
}

static void clear_slice(const sum_plan *plan, int64_t first, int64_t width, tl_real *partial) {
    const int64_t rows = plan->grid.weights * plan->inputs;
    for (int64_t chunk = 0; chunk < tl_conv_chunks(plan->outputs); chunk++) {
        const int64_t across = tl_conv_chunk_vectors(plan->outputs, chunk) * TL_LANES;
        tl_real *start = partial + tl_conv_chunk_start(plan->outputs, rows, 0, chunk);
        for (int64_t e = 0; e < plan->grid.weights; e++) {
            memset(start + (e * plan->inputs + first) * across, 0,
                   (size_t)(width * across) * sizeof(tl_real));
        }
    }
}

/* What one thread adds to: a slice of the input channels of a partial gradient. */
typedef struct sum_target {
    int64_t first; /* input channels */
    int64_t width;
    tl_real *partial;
    tl_real *v; /* the thread's work */
    tl_real *w;
    tl_real *zeros;
    int64_t v_step;
} sum_target;

static sum_target sum_begin(const sum_plan *plan, int64_t piece, int64_t slice, int thread) {
    sum_target to = {.first = slice_start(plan, slice),
                     .partial = plan->partial + piece * plan->piece_values,
                     .v = plan->work + thread * plan->work_values};
    to.width = slice_start(plan, slice + 1) - to.first;
    to.v_step = tl_winograd_step(plan->room, to.width);
    to.w = to.v + plan->grid.elements * to.v_step;
    to.zeros = to.w + plan->grid.elements * plan->gradient_step;
    memset(to.zeros, 0, (size_t)tl_winograd_zeros(&plan->grid, plan->inputs) * sizeof(tl_real));
    clear_slice(plan, to.first, to.width, to.partial);
    return to;
}

/* Adds tiles first ... first+count-1, at most `room` of them. The memory of the `next` tiles behind
 * them is asked for meanwhile, or what is queued already. */
static void sum_tiles(const sum_plan *plan, const sum_target *to, int64_t first, int64_t count,
                      int64_t next, const tl_real *x, const tl_real *dy) {
    tl_winograd_input[plan->grid.kind](&plan->grid, x, first, count, plan->inputs, to->first,
                                       to->width, to->v_step, to->zeros, to->v);
    gradient_tiles(plan, dy, first, count, to->w);
    if (next != TL_WINOGRAD_QUEUED) {
        tl_winograd_fetch(&plan->grid, first + count, first + count + next, x, plan->inputs, dy,
                          plan->outputs);
    }
    add_products(plan, count, to->v, to->w, to->first, to->width, to->partial);
}

/* G^T u G of one vector of channels: 9 taps. */
TL_INLINE void back_transform_of(tl_winograd_kind kind, const tl_v *u, tl_v g[9]) {
    const int weights = tl_winograd_line_of(kind).weights;
    tl_v t[3][TL_WINOGRAD_WEIGHTS];
    TL_CONV_UNROLL
    for (int j = 0; j < weights; j++) {
        tl_v column[TL_WINOGRAD_WEIGHTS];
        tl_v transformed[3];
        TL_CONV_UNROLL
        for (int i = 0; i < weights; i++) {
            column[i] = u[weights * i + j];
        }
        tl_winograd_back_line(kind, column, transformed);
        TL_CONV_UNROLL
        for (int i = 0; i < 3; i++) {
            t[i][j] = transformed[i];
        }
    }
    TL_CONV_UNROLL
    for (int i = 0; i < 3; i++) {
        tl_winograd_back_line(kind, t[i], g + 3 * i);
    }
}

static void back_transform(tl_winograd_kind kind, const tl_v *u, tl_v g[9]) {
    if (kind == TL_WINOGRAD_2) {
        back_transform_of(TL_WINOGRAD_2, u, g);
    } else if (kind == TL_WINOGRAD_4) {
        back_transform_of(TL_WINOGRAD_4, u, g);
    } else {
        back_transform_of(TL_WINOGRAD_STRIDED, u, g);
    }
}

/* One vector of inputs' worth of dweight: input channels first ..., output channels of `chunk`. */
static void finish_block(const sum_plan *plan, int64_t chunk, int64_t first, tl_real *dweight,
                         bool accumulate) {
    enum { MOST = TL_VECTOR_BYTES / sizeof(tl_real) };
    tl_real block[9][MOST][2 * MOST];
    const int vectors = tl_conv_chunk_vectors(plan->outputs, chunk);
    const int64_t rows = plan->grid.weights * plan->inputs;
    const tl_real *start = plan->partial + tl_conv_chunk_start(plan->outputs, rows, 0, chunk);
    for (int64_t c = 0; c < TL_LANES; c++) {
        for (int64_t part = 0; part < vectors; part++) {
            tl_v u[TL_WINOGRAD_TILE_WEIGHTS];
            tl_v g[9];
            for (int64_t e = 0; e < plan->grid.weights; e++) {
                const tl_real *from =
                    start + ((e * plan->inputs + first + c) * vectors + part) * TL_LANES;
                u[e] = tl_v_load(from);
                for (int64_t piece = 1; piece < plan->pieces; piece++) {
                    u[e] += tl_v_load(from + piece * plan->piece_values);
                }
            }
            back_transform(plan->grid.kind, u, g);
            for (int tap = 0; tap < 9; tap++) {
                tl_v_store(&block[tap][c][part * TL_LANES], g[tap]);
            }
        }
    }
    for (int64_t o = 0; o < vectors * TL_LANES; o++) {
        for (int64_t tap = 0; tap < 9; tap++) {
            tl_real *to = dweight + ((chunk * 2 * TL_LANES + o) * 9 + tap) * plan->inputs + first;
            for (int64_t c = 0; c < TL_LANES; c++) {
                to[c] = accumulate ? to[c] + block[tap][c][o] : block[tap][c][o];
            }
        }
    }
}

/* dweight from the sums of all pieces. */
static void sum_finish(const sum_plan *plan, tl_real *dweight, bool accumulate, int team) {
    const int64_t blocks = plan->inputs / TL_LANES;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t i = 0; i < tl_conv_chunks(plan->outputs) * blocks; i++) {
        finish_block(plan, i / blocks, i % blocks * TL_LANES, dweight, accumulate);
    }
}

#endif
