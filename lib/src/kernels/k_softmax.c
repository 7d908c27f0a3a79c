#include "kernels/kernels.h"
#include "kernels/pieces.h"
#include "kernels/softmax_row.h"

/* ------------------------------------------------------------------ along contiguous rows */

TL_INLINE tl_v forward_value(bool logarithm, tl_v v, tl_real a, tl_real b) {
    return logarithm ? (v - a) - b : v * a;
}

/* With `logarithm` v - a - b, else v * a. */
TL_INLINE void forward_finish(bool logarithm, int64_t n, const tl_real *v, tl_real a, tl_real b,
                              tl_real *y) {
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        tl_v_store(y + i, forward_value(logarithm, tl_v_load(v + i), a, b));
    }
    if (i < n) {
        const tl_v rest = tl_v_load_partial(v + i, n - i);
        tl_v_store_partial(y + i, forward_value(logarithm, rest, a, b), n - i);
    }
}

static void forward_row(bool logarithm, int64_t n, const tl_real *x, tl_real *y) {
    const tl_real maximum = tl_row_maximum(n, x);
    if (logarithm) {
        const double sum = tl_row_exp_sum(n, x, maximum, NULL);
        forward_finish(true, n, x, maximum, (tl_real)log(sum), y);
    } else {
        const double sum = tl_row_exp_sum(n, x, maximum, y);
        forward_finish(false, n, y, (tl_real)(1.0 / sum), 0, y);
    }
}

/* sum of y dy, or with `logarithm` of dy. */
TL_INLINE double backward_sum(bool logarithm, int64_t n, const tl_real *y, const tl_real *dy) {
    double sum = 0;
    for (int64_t start = 0; start < n; start += TL_ROW_SEGMENT) {
        const int64_t end = n - start < TL_ROW_SEGMENT ? n : start + TL_ROW_SEGMENT;
        tl_v lanes = tl_v_zero();
        int64_t i = start;
        for (; i + TL_LANES <= end; i += TL_LANES) {
            const tl_v g = tl_v_load(dy + i);
            lanes += logarithm ? g : g * tl_v_load(y + i);
        }
        if (i < end) {
            const tl_v g = tl_v_load_partial(dy + i, end - i);
            lanes += logarithm ? g : g * tl_v_load_partial(y + i, end - i);
        }
        sum += (double)tl_v_sum(lanes);
    }
    return sum;
}

TL_INLINE tl_v backward_value(bool logarithm, tl_v y, tl_v dy, tl_v sum) {
    return logarithm ? dy - tl_v_exp(y) * sum : y * (dy - sum);
}

TL_INLINE void backward_row(bool logarithm, int64_t n, const tl_real *y, const tl_real *dy,
                            bool accumulate, tl_real *dx) {
    const tl_v sum = tl_v_set((tl_real)backward_sum(logarithm, n, y, dy));
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const tl_v g = backward_value(logarithm, tl_v_load(y + i), tl_v_load(dy + i), sum);
        tl_v_store(dx + i, accumulate ? tl_v_load(dx + i) + g : g);
    }
    if (i < n) {
        const int64_t rest = n - i;
        const tl_v g = backward_value(logarithm, tl_v_load_partial(y + i, rest),
                                      tl_v_load_partial(dy + i, rest), sum);
        tl_v_store_partial(dx + i, accumulate ? tl_v_load_partial(dx + i, rest) + g : g, rest);
    }
}

/* ------------------------------------------------------------------ down columns */

enum {
    COLUMN_VECTORS = 64 / TL_VECTOR_BYTES, /* of a task: one cache line */
    COLUMN_RUN = 64,                       /* rows added before the sum goes to double */
};
#define COLUMNS (COLUMN_VECTORS * TL_LANES)

/* The columns that vector v of a task with `width` columns holds. */
TL_INLINE int64_t lanes_used(bool whole, int64_t width, int v) {
    const int64_t left = width - (int64_t)v * TL_LANES;
    return whole || left > TL_LANES ? TL_LANES : (left < 0 ? 0 : left);
}

TL_INLINE tl_v load_lanes(bool whole, const tl_real *p, int64_t count) {
    return whole ? tl_v_load(p) : tl_v_load_partial(p, count);
}

TL_INLINE void store_lanes(bool whole, tl_real *p, tl_v v, int64_t count) {
    if (whole) {
        tl_v_store(p, v);
    } else {
        tl_v_store_partial(p, v, count);
    }
}

TL_INLINE void add_lanes(double *sums, const tl_v *run) {
    for (int v = 0; v < COLUMN_VECTORS; v++) {
        for (int lane = 0; lane < TL_LANES; lane++) {
            sums[v * TL_LANES + lane] += (double)run[v][lane];
        }
    }
}

/* n rows of `width` columns, rows `stride` apart. */
TL_INLINE void forward_columns(bool whole, bool logarithm, int64_t n, int64_t stride, int64_t width,
                               const tl_real *x, tl_real *y) {
    tl_v maximum[COLUMN_VECTORS];
    int64_t used[COLUMN_VECTORS];
    double sums[COLUMNS] = {0};
    for (int v = 0; v < COLUMN_VECTORS; v++) {
        used[v] = lanes_used(whole, width, v);
        maximum[v] = load_lanes(whole, x + v * TL_LANES, used[v]);
    }
    for (int64_t r = 1; r < n; r++) {
        for (int v = 0; v < COLUMN_VECTORS; v++) {
            const tl_v row = load_lanes(whole, x + r * stride + v * TL_LANES, used[v]);
            maximum[v] = tl_v_max(maximum[v], row);
        }
    }
    for (int64_t start = 0; start < n; start += COLUMN_RUN) {
        const int64_t end = n - start < COLUMN_RUN ? n : start + COLUMN_RUN;
        tl_v run[COLUMN_VECTORS] = {{0}};
        for (int64_t r = start; r < end; r++) {
            for (int v = 0; v < COLUMN_VECTORS; v++) {
                const int64_t at = r * stride + v * TL_LANES;
                const tl_v e = tl_v_exp(load_lanes(whole, x + at, used[v]) - maximum[v]);
                run[v] += e;
                if (!logarithm) {
                    store_lanes(whole, y + at, e, used[v]);
                }
            }
        }
        add_lanes(sums, run);
    }
    tl_v factor[COLUMN_VECTORS];
    for (int i = 0; i < COLUMNS; i++) {
        const double s = sums[i];
        factor[i / TL_LANES][i % TL_LANES] = (tl_real)(logarithm ? log(s) : 1.0 / s);
    }
    for (int64_t r = 0; r < n; r++) {
        for (int v = 0; v < COLUMN_VECTORS; v++) {
            const int64_t at = r * stride + v * TL_LANES;
            const tl_v from = load_lanes(whole, (logarithm ? x : y) + at, used[v]);
            const tl_v to = logarithm ? (from - maximum[v]) - factor[v] : from * factor[v];
            store_lanes(whole, y + at, to, used[v]);
        }
    }
}

TL_INLINE void backward_columns(bool whole, bool logarithm, int64_t n, int64_t stride,
                                int64_t width, const tl_real *y, const tl_real *dy, bool accumulate,
                                tl_real *dx) {
    int64_t used[COLUMN_VECTORS];
    double sums[COLUMNS] = {0};
    for (int v = 0; v < COLUMN_VECTORS; v++) {
        used[v] = lanes_used(whole, width, v);
    }
    for (int64_t start = 0; start < n; start += COLUMN_RUN) {
        const int64_t end = n - start < COLUMN_RUN ? n : start + COLUMN_RUN;
        tl_v run[COLUMN_VECTORS] = {{0}};
        for (int64_t r = start; r < end; r++) {
            for (int v = 0; v < COLUMN_VECTORS; v++) {
                const int64_t at = r * stride + v * TL_LANES;
                const tl_v g = load_lanes(whole, dy + at, used[v]);
                run[v] += logarithm ? g : g * load_lanes(whole, y + at, used[v]);
            }
        }
        add_lanes(sums, run);
    }
    tl_v sum[COLUMN_VECTORS];
    for (int i = 0; i < COLUMNS; i++) {
        sum[i / TL_LANES][i % TL_LANES] = (tl_real)sums[i];
    }
    for (int64_t r = 0; r < n; r++) {
        for (int v = 0; v < COLUMN_VECTORS; v++) {
            const int64_t at = r * stride + v * TL_LANES;
            const tl_v g = backward_value(logarithm, load_lanes(whole, y + at, used[v]),
                                          load_lanes(whole, dy + at, used[v]), sum[v]);
            const tl_v to = accumulate ? load_lanes(whole, dx + at, used[v]) + g : g;
            store_lanes(whole, dx + at, to, used[v]);
        }
    }
}

/* ------------------------------------------------------------------ */

typedef struct job {
    bool logarithm;
    int64_t n;
    int64_t inner;
    const tl_real *x; /* forward: the input */
    const tl_real *dy;
    bool accumulate;
    tl_real *y; /* forward: the result; backward: the gradient of the input */
} job;

static void forward_task(const job *j, int64_t outer, int64_t chunk) {
    const int64_t at = outer * j->n * j->inner + chunk * COLUMNS;
    const int64_t width = tl_piece_size(chunk, j->inner, COLUMNS);
    if (j->inner == 1) {
        forward_row(j->logarithm, j->n, j->x + at, j->y + at);
    } else if (width == COLUMNS) {
        forward_columns(true, j->logarithm, j->n, j->inner, width, j->x + at, j->y + at);
    } else {
        forward_columns(false, j->logarithm, j->n, j->inner, width, j->x + at, j->y + at);
    }
}

static void backward_task(const job *j, int64_t outer, int64_t chunk) {
    const int64_t at = outer * j->n * j->inner + chunk * COLUMNS;
    const int64_t width = tl_piece_size(chunk, j->inner, COLUMNS);
    if (j->inner == 1 && j->logarithm) {
        backward_row(true, j->n, j->x + at, j->dy + at, j->accumulate, j->y + at);
    } else if (j->inner == 1) {
        backward_row(false, j->n, j->x + at, j->dy + at, j->accumulate, j->y + at);
    } else if (width == COLUMNS) {
        backward_columns(true, j->logarithm, j->n, j->inner, width, j->x + at, j->dy + at,
                         j->accumulate, j->y + at);
    } else {
        backward_columns(false, j->logarithm, j->n, j->inner, width, j->x + at, j->dy + at,
                         j->accumulate, j->y + at);
    }
}

/* An exponential and two or three passes are worth about this many FLOPs a value. */
enum { WORK_PER_VALUE = 8 };

static void forward(int threads, bool logarithm, int64_t outer, int64_t n, int64_t inner,
                    const tl_real *x, tl_real *y) {
    const job j = {.logarithm = logarithm, .n = n, .inner = inner, .x = x, .y = y};
    const int64_t chunks = tl_piece_count(inner, COLUMNS);
#pragma omp parallel for num_threads(threads) schedule(static)                                     \
    collapse(2) if (outer * n * inner * WORK_PER_VALUE > TL_PARALLEL_MINIMUM)
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            forward_task(&j, o, chunk);
        }
    }
}

static void backward(int threads, bool logarithm, int64_t outer, int64_t n, int64_t inner,
                     const tl_real *y, const tl_real *dy, bool accumulate, tl_real *dx) {
    const job j = {logarithm, n, inner, y, dy, accumulate, dx};
    const int64_t chunks = tl_piece_count(inner, COLUMNS);
#pragma omp parallel for num_threads(threads) schedule(static)                                     \
    collapse(2) if (outer * n * inner * WORK_PER_VALUE > TL_PARALLEL_MINIMUM)
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            backward_task(&j, o, chunk);
        }
    }
}

const tl_softmax_kernels TL_PER_ISA(tl_softmax_kernels) = {
    .forward = forward,
    .backward = backward,
};
