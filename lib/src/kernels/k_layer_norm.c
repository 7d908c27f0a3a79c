/* k_layer_norm.c - see k_layer_norm.h.
 *
 * A row is read from memory once and then stays in the first-level cache: an approximate mean, the
 * sums of x - mean and its square, the result. Sums run in tl_real over chunks of 512 values and
 * in double over chunks. In backward the sums over rows are cut into pieces of rows by the shape;
 * a piece sums up to 128 rows in tl_real before it adds them to its sums in double.
 */
#include "kernels/kernels.h"

#include <math.h>

#include "kernels/simd.h"

enum { CHUNK = 512, ROWS_BLOCK = 128, MOST_PIECES = 64, MOST_PIECE_VALUES = 65536 };

static int64_t minimum(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* mean = center + residue, with center what tl_real can hold of it. */
typedef struct row_statistics {
    tl_real center;
    double residue;
    double inverse_deviation;
} row_statistics;

static tl_real approximate_mean(int64_t width, const tl_real *x, double share) {
    double total = 0;
    for (int64_t begin = 0; begin < width; begin += CHUNK) {
        const int64_t end = minimum(begin + CHUNK, width);
        tl_v sum = tl_v_zero();
        int64_t i = begin;
        for (; i + TL_LANES <= end; i += TL_LANES) {
            sum += tl_v_load(x + i);
        }
        total += (double)tl_v_sum(sum + tl_v_load_partial(x + i, end - i));
    }
    return (tl_real)(total * share);
}

/* `share` is 1 / width. */
static row_statistics statistics_of(int64_t width, const tl_real *x, double share, double epsilon) {
    const tl_real shift = approximate_mean(width, x, share);
    double sum = 0;
    double squares = 0;
    for (int64_t begin = 0; begin < width; begin += CHUNK) {
        const int64_t end = minimum(begin + CHUNK, width);
        tl_v chunk_sum = tl_v_zero();
        tl_v chunk_squares = tl_v_zero();
        int64_t i = begin;
        for (; i + TL_LANES <= end; i += TL_LANES) {
            const tl_v d = tl_v_load(x + i) - shift;
            chunk_sum += d;
            chunk_squares += d * d;
        }
        sum += (double)tl_v_sum(chunk_sum);
        squares += (double)tl_v_sum(chunk_squares);
        for (; i < end; i++) {
            const double d = (double)(x[i] - shift);
            sum += d;
            squares += d * d;
        }
    }
    const double residue = sum * share;
    const double variance = squares * share - residue * residue;
    return (row_statistics){.center = shift,
                            .residue = residue,
                            .inverse_deviation =
                                1.0 / sqrt((variance > 0 ? variance : 0) + epsilon)};
}

TL_INLINE void forward_row(int64_t width, const tl_real *x, const tl_real *weight,
                           const tl_real *bias, double share, double epsilon, tl_real *y,
                           bool affine) {
    const row_statistics s = statistics_of(width, x, share, epsilon);
    const tl_v center = tl_v_set(s.center);
    const tl_v scale = tl_v_set((tl_real)s.inverse_deviation);
    const tl_v offset = tl_v_set((tl_real)(-s.residue * s.inverse_deviation));
    int64_t i = 0;
    for (; i + TL_LANES <= width; i += TL_LANES) {
        tl_v v = (tl_v_load(x + i) - center) * scale + offset;
        if (affine) {
            v = v * tl_v_load(weight + i) + tl_v_load(bias + i);
        }
        tl_v_store(y + i, v);
    }
    if (i < width) {
        const int64_t count = width - i;
        tl_v v = (tl_v_load_partial(x + i, count) - center) * scale + offset;
        if (affine) {
            v = v * tl_v_load_partial(weight + i, count) + tl_v_load_partial(bias + i, count);
        }
        tl_v_store_partial(y + i, v, count);
    }
}

static void forward(int64_t rows, int64_t width, const tl_real *x, const tl_real *weight,
                    const tl_real *bias, double epsilon, tl_real *y, int threads) {
    const double share = 1.0 / (double)width;
    const int team = rows * width > TL_PARALLEL_MINIMUM ? threads : 1;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < rows; row++) {
        if (weight != NULL) {
            forward_row(width, x + row * width, weight, bias, share, epsilon, y + row * width,
                        true);
        } else {
            forward_row(width, x + row * width, NULL, NULL, share, epsilon, y + row * width, false);
        }
    }
}

/* ------------------------------------------------------------------ backward */

typedef struct row_pieces {
    int64_t pieces;
    int64_t piece_rows;
} row_pieces;

static row_pieces pieces_of(int64_t rows, int64_t width) {
    int64_t most = minimum(minimum(MOST_PIECES, MOST_PIECE_VALUES / width), (rows + 7) / 8);
    most = most < 1 ? 1 : most;
    const int64_t piece_rows = (rows + most - 1) / most;
    return (row_pieces){.pieces = (rows + piece_rows - 1) / piece_rows, .piece_rows = piece_rows};
}

/* Per piece: sums for weight and bias in double, and those of the current block of rows. */
static size_t piece_bytes(int64_t width) {
    return 2 * (size_t)width * (sizeof(double) + sizeof(tl_real));
}

static size_t backward_scratch_bytes(int64_t rows, int64_t width) {
    return (size_t)pieces_of(rows, width).pieces * piece_bytes(width);
}

/* a = dy weight (or dy): its sum, and that of a (x - center). */
typedef struct row_sums {
    double sum;
    double centered;
} row_sums;

TL_INLINE row_sums sums_of(int64_t width, const tl_real *dy, const tl_real *x,
                           const tl_real *weight, tl_real center, bool affine) {
    row_sums total = {0, 0};
    for (int64_t begin = 0; begin < width; begin += CHUNK) {
        const int64_t end = minimum(begin + CHUNK, width);
        tl_v sum = tl_v_zero();
        tl_v centered = tl_v_zero();
        int64_t i = begin;
        for (; i + TL_LANES <= end; i += TL_LANES) {
            tl_v a = tl_v_load(dy + i);
            if (affine) {
                a *= tl_v_load(weight + i);
            }
            sum += a;
            centered += a * (tl_v_load(x + i) - center);
        }
        total.sum += (double)tl_v_sum(sum);
        total.centered += (double)tl_v_sum(centered);
        for (; i < end; i++) {
            const double a = (double)dy[i] * (affine ? (double)weight[i] : 1.0);
            total.sum += a;
            total.centered += a * (double)(x[i] - center);
        }
    }
    return total;
}

/* Adds dy xhat and dy to the block's sums; xhat = (x - center) scale + offset. */
static void add_parameter_gradients(int64_t width, const tl_real *dy, const tl_real *x,
                                    row_statistics s, tl_real *restrict weight_sums,
                                    tl_real *restrict bias_sums) {
    const tl_real scale = (tl_real)s.inverse_deviation;
    const tl_real offset = (tl_real)(-s.residue * s.inverse_deviation);
    const tl_real center = s.center;
    int64_t i = 0;
    for (; i + TL_LANES <= width; i += TL_LANES) {
        const tl_v g = tl_v_load(dy + i);
        const tl_v xhat = (tl_v_load(x + i) - center) * scale + offset;
        tl_v_store(weight_sums + i, tl_v_load(weight_sums + i) + g * xhat);
        tl_v_store(bias_sums + i, tl_v_load(bias_sums + i) + g);
    }
    for (; i < width; i++) {
        weight_sums[i] += dy[i] * ((x[i] - center) * scale + offset);
        bias_sums[i] += dy[i];
    }
}

TL_INLINE tl_v input_gradient(tl_v a, tl_v x, tl_v center, tl_v scale, tl_v slope, tl_v constant) {
    return scale * a + (slope * (x - center) + constant);
}

/* dx = scale a + slope (x - center) + constant, from the formula in k_layer_norm.h. */
TL_INLINE void backward_row(int64_t width, const tl_real *dy, const tl_real *x,
                            const tl_real *weight, row_statistics s, double share, tl_real *dx,
                            bool accumulate, bool affine) {
    const row_sums sums = sums_of(width, dy, x, weight, s.center, affine);
    const double inverse = s.inverse_deviation;
    const double mean_xhat = (sums.centered - s.residue * sums.sum) * inverse * share;
    const double slope_value = -inverse * inverse * mean_xhat;
    const tl_v center = tl_v_set(s.center);
    const tl_v scale = tl_v_set((tl_real)inverse);
    const tl_v slope = tl_v_set((tl_real)slope_value);
    const tl_v constant =
        tl_v_set((tl_real)(-inverse * sums.sum * share - slope_value * s.residue));
    int64_t i = 0;
    for (; i + TL_LANES <= width; i += TL_LANES) {
        tl_v a = tl_v_load(dy + i);
        if (affine) {
            a *= tl_v_load(weight + i);
        }
        const tl_v v = input_gradient(a, tl_v_load(x + i), center, scale, slope, constant);
        tl_v_store(dx + i, accumulate ? v + tl_v_load(dx + i) : v);
    }
    if (i < width) {
        const int64_t count = width - i;
        tl_v a = tl_v_load_partial(dy + i, count);
        if (affine) {
            a *= tl_v_load_partial(weight + i, count);
        }
        const tl_v v =
            input_gradient(a, tl_v_load_partial(x + i, count), center, scale, slope, constant);
        tl_v_store_partial(dx + i, accumulate ? v + tl_v_load_partial(dx + i, count) : v, count);
    }
}

typedef struct backward_arrays {
    const tl_real *dy;
    const tl_real *x;
    const tl_real *weight;
    double epsilon;
    tl_real *dx;
    bool accumulate;
    bool parameters; /* sums for weight and bias are wanted */
} backward_arrays;

static void backward_piece(int64_t rows, int64_t width, backward_arrays a, void *piece) {
    double *weight_sums = piece;
    double *bias_sums = weight_sums + width;
    tl_real *block = (tl_real *)(void *)(bias_sums + width);
    if (a.parameters) {
        memset(piece, 0, piece_bytes(width));
    }
    const double share = 1.0 / (double)width;
    for (int64_t row = 0; row < rows; row++) {
        const tl_real *dy = a.dy + row * width;
        const tl_real *x = a.x + row * width;
        const row_statistics s = statistics_of(width, x, share, a.epsilon);
        if (a.parameters) {
            add_parameter_gradients(width, dy, x, s, block, block + width);
            if ((row + 1) % ROWS_BLOCK == 0 || row + 1 == rows) {
                for (int64_t i = 0; i < 2 * width; i++) {
                    weight_sums[i] += (double)block[i]; /* bias_sums lie behind */
                    block[i] = 0;
                }
            }
        }
        if (a.dx == NULL) {
            continue;
        }
        if (a.weight != NULL) {
            backward_row(width, dy, x, a.weight, s, share, a.dx + row * width, a.accumulate, true);
        } else {
            backward_row(width, dy, x, NULL, s, share, a.dx + row * width, a.accumulate, false);
        }
    }
}

static void backward(int64_t rows, int64_t width, const tl_real *dy, const tl_real *x,
                     const tl_real *weight, double epsilon, tl_real *dx, bool accumulate,
                     double *dweight, double *dbias, void *scratch, int threads) {
    const row_pieces cut = pieces_of(rows, width);
    const int team = rows * width > TL_PARALLEL_MINIMUM ? threads : 1;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t piece = 0; piece < cut.pieces; piece++) {
        const int64_t first = piece * cut.piece_rows;
        const backward_arrays a = {.dy = dy + first * width,
                                   .x = x + first * width,
                                   .weight = weight,
                                   .epsilon = epsilon,
                                   .dx = dx == NULL ? NULL : dx + first * width,
                                   .accumulate = accumulate,
                                   .parameters = dweight != NULL};
        backward_piece(minimum(cut.piece_rows, rows - first), width, a,
                       (char *)scratch + (size_t)piece * piece_bytes(width));
    }
    if (dweight == NULL) {
        return;
    }
    memset(dweight, 0, (size_t)width * sizeof(double));
    memset(dbias, 0, (size_t)width * sizeof(double));
    for (int64_t piece = 0; piece < cut.pieces; piece++) {
        const double *sums =
            (const double *)(const void *)((char *)scratch + (size_t)piece * piece_bytes(width));
        for (int64_t i = 0; i < width; i++) {
            dweight[i] += sums[i];
            dbias[i] += sums[width + i];
        }
    }
}

const tl_layer_norm_kernels TL_PER_ISA(tl_layer_norm_kernels) = {
    .forward = forward,
    .backward_scratch_bytes = backward_scratch_bytes,
    .backward = backward,
};
