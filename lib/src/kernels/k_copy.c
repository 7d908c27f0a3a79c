#include "kernels/kernels.h"
#include "kernels/pieces.h"
#include "kernels/simd.h"
#include "kernels/strided_walk.h"

enum {
    PIECE = 1 << 13, /* values of a task */
    TILE = 16,
    TILE_RUN = 512, /* of the last dimension, in a task of tiles */
};

/* ------------------------------------------------------------------ rows */

static void copy_row(int64_t n, const tl_real *x, int64_t x_step, bool accumulate, tl_real *y,
                     int64_t y_step) {
    if (x_step == 1 && y_step == 1 && !accumulate) {
        memcpy(y, x, (size_t)n * sizeof *y);
    } else if (x_step == 1 && y_step == 1) {
        int64_t i = 0;
        for (; i + TL_LANES <= n; i += TL_LANES) {
            tl_v_store(y + i, tl_v_load(y + i) + tl_v_load(x + i));
        }
        for (; i < n; i++) {
            y[i] += x[i];
        }
    } else if (accumulate) {
        for (int64_t i = 0; i < n; i++) {
            y[i * y_step] += x[i * x_step];
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            y[i * y_step] = x[i * x_step];
        }
    }
}

static void copy_rows(int threads, const tl_copy *s, const tl_real *x, bool accumulate,
                      tl_real *y) {
    const int inner = s->rank - 1;
    const int64_t length = s->extents[inner];
    int64_t rows = 1;
    for (int d = 0; d < inner; d++) {
        rows *= s->extents[d];
    }
    const int64_t row_pieces = tl_piece_count(length, PIECE);
    const int64_t group = length >= PIECE ? 1 : PIECE / length;
    const int64_t groups = tl_piece_count(rows, group);
#pragma omp parallel for num_threads(threads) schedule(static)                                     \
    collapse(2) if (rows * length > TL_PARALLEL_MINIMUM)
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t piece = 0; piece < row_pieces; piece++) {
            const int64_t first = g * group;
            const int64_t last = first + tl_piece_size(g, rows, group);
            const int64_t start = piece * PIECE;
            tl_walk at = tl_walk_start(inner, s->extents, s->x_strides, s->y_strides, first);
            for (int64_t r = first; r < last; r++) {
                copy_row(tl_piece_size(piece, length, PIECE),
                         x + at.a + start * s->x_strides[inner], s->x_strides[inner], accumulate,
                         y + at.b + start * s->y_strides[inner], s->y_strides[inner]);
                tl_walk_next(&at);
            }
        }
    }
}

/* ------------------------------------------------------------------ transpositions */

/* y[i][j] (+)= x[j][i] for `rows` values of i and `columns` of j, at most TILE of each. */
TL_INLINE void copy_tile(int64_t rows, int64_t columns, const tl_real *x, int64_t x_stride,
                         bool accumulate, tl_real *y, int64_t y_stride) {
    tl_real tile[TILE][TILE];
    for (int64_t j = 0; j < columns; j++) {
        for (int64_t i = 0; i < rows; i++) {
            tile[i][j] = x[j * x_stride + i];
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            tl_real *to = y + i * y_stride + j;
            *to = accumulate ? *to + tile[i][j] : tile[i][j];
        }
    }
}

/* `columns` values of j for one band of rows. */
static void copy_tiles(int64_t rows, int64_t columns, const tl_real *x, int64_t x_stride,
                       bool accumulate, tl_real *y, int64_t y_stride) {
    for (int64_t j = 0; j < columns; j += TILE) {
        const int64_t width = columns - j < TILE ? columns - j : TILE;
        if (rows == TILE && width == TILE && !accumulate) {
            copy_tile(TILE, TILE, x + j * x_stride, x_stride, false, y + j, y_stride);
        } else {
            copy_tile(rows, width, x + j * x_stride, x_stride, accumulate, y + j, y_stride);
        }
    }
}

/* Dimension `row` is contiguous in x, the last one in y. */
static void transpose(int threads, const tl_copy *s, int row, const tl_real *x, bool accumulate,
                      tl_real *y) {
    const int last = s->rank - 1;
    tl_copy outer = {.rank = 0};
    int64_t positions = 1;
    for (int d = 0; d < last; d++) {
        if (d != row) {
            outer.extents[outer.rank] = s->extents[d];
            outer.x_strides[outer.rank] = s->x_strides[d];
            outer.y_strides[outer.rank] = s->y_strides[d];
            outer.rank++;
            positions *= s->extents[d];
        }
    }
    const int64_t rows = s->extents[row];
    const int64_t columns = s->extents[last];
    const int64_t bands = tl_piece_count(rows, TILE);
    const int64_t runs = tl_piece_count(columns, TILE_RUN);
#pragma omp parallel for num_threads(threads) schedule(static)                                     \
    collapse(3) if (positions * rows * columns > TL_PARALLEL_MINIMUM)
    for (int64_t position = 0; position < positions; position++) {
        for (int64_t run = 0; run < runs; run++) {
            for (int64_t band = 0; band < bands; band++) {
                const tl_walk at = tl_walk_start(outer.rank, outer.extents, outer.x_strides,
                                                 outer.y_strides, position);
                copy_tiles(tl_piece_size(band, rows, TILE), tl_piece_size(run, columns, TILE_RUN),
                           x + at.a + band * TILE + run * TILE_RUN * s->x_strides[last],
                           s->x_strides[last], accumulate,
                           y + at.b + band * TILE * s->y_strides[row] + run * TILE_RUN,
                           s->y_strides[row]);
            }
        }
    }
}

static void copy(int threads, const tl_copy *shape, const tl_real *x, bool accumulate, tl_real *y) {
    const int last = shape->rank - 1;
    if (shape->y_strides[last] == 1 && shape->x_strides[last] != 1) {
        for (int d = last - 1; d >= 0; d--) {
            if (shape->x_strides[d] == 1) {
                transpose(threads, shape, d, x, accumulate, y);
                return;
            }
        }
    }
    copy_rows(threads, shape, x, accumulate, y);
}

const tl_copy_kernels TL_PER_ISA(tl_copy_kernels) = {
    .copy = copy,
};
