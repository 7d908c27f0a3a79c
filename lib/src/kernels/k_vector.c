#include "kernels/kernels.h"
#include "kernels/simd.h"

/* Work is cut into pieces of this many values, whatever the number of threads. */
enum { PIECE = 1 << 16 };

static int64_t piece_count(int64_t n) {
    return (n + PIECE - 1) / PIECE;
}

static int64_t piece_end(int64_t piece, int64_t n) {
    const int64_t end = (piece + 1) * PIECE;
    return end < n ? end : n;
}

static void add_range(int64_t n, const tl_real *x, tl_real *y) {
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        tl_v_store(y + i, tl_v_load(y + i) + tl_v_load(x + i));
    }
    for (; i < n; i++) {
        y[i] += x[i];
    }
}

static void add(int threads, int64_t n, const tl_real *x, tl_real *y) {
    const int64_t pieces = piece_count(n);
#pragma omp parallel for num_threads(threads) schedule(static) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        add_range(piece_end(piece, n) - start, x + start, y + start);
    }
}

static void scale_range(int64_t n, tl_real factor, tl_real *y) {
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        tl_v_store(y + i, tl_v_load(y + i) * factor);
    }
    for (; i < n; i++) {
        y[i] *= factor;
    }
}

static void scale(int threads, int64_t n, tl_real factor, tl_real *y) {
    const int64_t pieces = piece_count(n);
#pragma omp parallel for num_threads(threads) schedule(static) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        scale_range(piece_end(piece, n) - start, factor, y + start);
    }
}

enum { SQUARES_LANES = 8 };

static double sum_of_squares_range(int64_t n, const tl_real *x) {
    double lanes[SQUARES_LANES] = {0};
    int64_t i = 0;
    for (; i + SQUARES_LANES <= n; i += SQUARES_LANES) {
        for (int lane = 0; lane < SQUARES_LANES; lane++) {
            const double value = (double)x[i + lane];
            lanes[lane] += value * value;
        }
    }
    for (; i < n; i++) {
        lanes[0] += (double)x[i] * (double)x[i];
    }
    double sum = 0;
    for (int lane = 0; lane < SQUARES_LANES; lane++) {
        sum += lanes[lane];
    }
    return sum;
}

/* One after the other: the arrays are parameters, which are small, and the order is fixed. */
static double sum_of_squares(int threads, int64_t n, const tl_real *x) {
    (void)threads;
    double sum = 0;
    for (int64_t piece = 0; piece < piece_count(n); piece++) {
        const int64_t start = piece * PIECE;
        sum += sum_of_squares_range(piece_end(piece, n) - start, x + start);
    }
    return sum;
}

/* x - x is zero for numbers and NaN for NaN and infinity; the sum keeps a NaN. */
static bool is_finite_range(int64_t n, const tl_real *x) {
    tl_v sum = tl_v_zero();
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const tl_v v = tl_v_load(x + i);
        sum += v - v;
    }
    tl_real rest = tl_v_sum(sum);
    for (; i < n; i++) {
        rest += x[i] - x[i];
    }
    return rest == 0;
}

static bool is_finite(int threads, int64_t n, const tl_real *x) {
    const int64_t pieces = piece_count(n);
    int finite =
        1; /* not a reduction: clang makes a symbol for those that the library would export */
#pragma omp parallel for num_threads(threads) schedule(static) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        if (!is_finite_range(piece_end(piece, n) - start, x + start)) {
#pragma omp atomic write
            finite = 0;
        }
    }
    return finite != 0;
}

const tl_vector_kernels TL_PER_ISA(tl_vector_kernels) = {
    .add = add,
    .scale = scale,
    .sum_of_squares = sum_of_squares,
    .is_finite = is_finite,
};
