#include "kernels/kernels.h"
#include "kernels/pieces.h"
#include "kernels/softmax_row.h"
#include "kernels/vector_math.h"

enum {
    TASK_VALUES = 1 << 13, /* logits of a task */
    PIECE = 2048,          /* values of a pointwise loss that are added in vectors */
    WORK_PER_VALUE = 4,    /* FLOPs, roughly: an exponential and the passes */
};

static int64_t rows_per_task(int64_t classes) {
    return classes < TASK_VALUES ? TASK_VALUES / classes : 1;
}

static size_t cross_entropy_scratch_bytes(int64_t rows, int64_t classes) {
    return (size_t)tl_piece_count(rows, rows_per_task(classes)) * sizeof(double);
}

static double sum_in_order(int64_t n, const double *values) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += values[i];
    }
    return sum;
}

/* The sum of x[i] - maximum. */
static double centred_sum(int64_t n, const tl_real *x, tl_real maximum) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] - (double)maximum;
    }
    return sum;
}

static double cross_entropy_row(int64_t classes, const tl_real *x, int32_t label, double smoothing,
                                tl_real *maximum, tl_real *inverse_sum) {
    *maximum = tl_row_maximum(classes, x);
    const double sum = tl_row_exp_sum(classes, x, *maximum, NULL);
    *inverse_sum = (tl_real)(1.0 / sum);
    double loss = log(sum) - (1.0 - smoothing) * ((double)x[label] - (double)*maximum);
    if (smoothing != 0.0) {
        loss -= smoothing / (double)classes * centred_sum(classes, x, *maximum);
    }
    return loss;
}

static double cross_entropy_forward(int threads, int64_t rows, int64_t classes, const tl_real *x,
                                    const int32_t *labels, double smoothing, tl_real *maximum,
                                    tl_real *inverse_sum, void *scratch) {
    double *partial = scratch;
    const int64_t task_rows = rows_per_task(classes);
    const int64_t tasks = tl_piece_count(rows, task_rows);
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (rows * classes * WORK_PER_VALUE > TL_PARALLEL_MINIMUM)
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t first = task * task_rows;
        const int64_t last = first + tl_piece_size(task, rows, task_rows);
        double sum = 0;
        for (int64_t r = first; r < last; r++) {
            if (labels[r] >= 0) {
                sum += cross_entropy_row(classes, x + r * classes, labels[r], smoothing,
                                         maximum + r, inverse_sum + r);
            }
        }
        partial[task] = sum;
    }
    return sum_in_order(tasks, partial);
}

/* dx (+)= scale (p - smoothing / classes), then the label's own share. */
TL_INLINE void cross_entropy_row_backward(int64_t classes, const tl_real *x, int32_t label,
                                          double smoothing, tl_real maximum, tl_real inverse_sum,
                                          double scale, bool accumulate, tl_real *dx) {
    const tl_real factor = (tl_real)((double)inverse_sum * scale);
    const tl_real uniform = (tl_real)(smoothing / (double)classes * scale);
    int64_t i = 0;
    for (; i + TL_LANES <= classes; i += TL_LANES) {
        const tl_v g = tl_v_exp(tl_v_load(x + i) - maximum) * factor - uniform;
        tl_v_store(dx + i, accumulate ? tl_v_load(dx + i) + g : g);
    }
    if (i < classes) {
        const int64_t rest = classes - i;
        const tl_v g = tl_v_exp(tl_v_load_partial(x + i, rest) - maximum) * factor - uniform;
        tl_v_store_partial(dx + i, accumulate ? tl_v_load_partial(dx + i, rest) + g : g, rest);
    }
    dx[label] -= (tl_real)((1.0 - smoothing) * scale);
}

static void cross_entropy_backward(int threads, int64_t rows, int64_t classes, const tl_real *x,
                                   const int32_t *labels, double smoothing, const tl_real *maximum,
                                   const tl_real *inverse_sum, double scale, bool accumulate,
                                   tl_real *dx) {
    const int64_t task_rows = rows_per_task(classes);
    const int64_t tasks = tl_piece_count(rows, task_rows);
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (rows * classes * WORK_PER_VALUE > TL_PARALLEL_MINIMUM)
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t first = task * task_rows;
        const int64_t last = first + tl_piece_size(task, rows, task_rows);
        for (int64_t r = first; r < last; r++) {
            tl_real *row = dx + r * classes;
            if (labels[r] >= 0) {
                cross_entropy_row_backward(classes, x + r * classes, labels[r], smoothing,
                                           maximum[r], inverse_sum[r], scale, accumulate, row);
            } else if (!accumulate) {
                memset(row, 0, (size_t)classes * sizeof *row);
            }
        }
    }
}

/* ------------------------------------------------------------------ pointwise */

TL_INLINE tl_v loss_value(tl_pointwise_loss kind, tl_real beta, tl_v x, tl_v t) {
    const tl_v d = x - t;
    switch (kind) {
    case TL_LOSS_SQUARED:
        return d * d;
    case TL_LOSS_SMOOTH_L1: {
        const tl_v size = tl_v_absolute(d);
        return tl_v_select(size < beta, d * d / (2 * beta), size - beta / 2);
    }
    default:
        return tl_v_softplus(x) - x * t;
    }
}

TL_INLINE tl_v loss_slope(tl_pointwise_loss kind, tl_real beta, tl_v x, tl_v t) {
    const tl_v d = x - t;
    switch (kind) {
    case TL_LOSS_SQUARED:
        return d + d;
    case TL_LOSS_SMOOTH_L1:
        return tl_v_max(tl_v_set(-1), tl_v_min(tl_v_set(1), d / beta));
    default:
        return tl_v_sigmoid(x) - t;
    }
}

TL_INLINE double loss_piece(tl_pointwise_loss kind, tl_real beta, int64_t n, const tl_real *x,
                            const tl_real *t) {
    tl_v sum = tl_v_zero();
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        sum += loss_value(kind, beta, tl_v_load(x + i), tl_v_load(t + i));
    }
    double total = (double)tl_v_sum(sum);
    if (i < n) {
        const tl_v rest = loss_value(kind, beta, tl_v_load_partial(x + i, n - i),
                                     tl_v_load_partial(t + i, n - i));
        for (int64_t lane = 0; lane < n - i; lane++) {
            total += (double)rest[lane];
        }
    }
    return total;
}

TL_INLINE void slope_piece(tl_pointwise_loss kind, tl_real beta, int64_t n, const tl_real *x,
                           const tl_real *t, tl_real scale, bool accumulate, tl_real *dx) {
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const tl_v g = scale * loss_slope(kind, beta, tl_v_load(x + i), tl_v_load(t + i));
        tl_v_store(dx + i, accumulate ? tl_v_load(dx + i) + g : g);
    }
    if (i < n) {
        const int64_t rest = n - i;
        const tl_v g = scale * loss_slope(kind, beta, tl_v_load_partial(x + i, rest),
                                          tl_v_load_partial(t + i, rest));
        tl_v_store_partial(dx + i, accumulate ? tl_v_load_partial(dx + i, rest) + g : g, rest);
    }
}

static double any_loss_piece(tl_pointwise_loss kind, tl_real beta, int64_t n, const tl_real *x,
                             const tl_real *t) {
    switch (kind) {
    case TL_LOSS_SQUARED:
        return loss_piece(TL_LOSS_SQUARED, beta, n, x, t);
    case TL_LOSS_SMOOTH_L1:
        return loss_piece(TL_LOSS_SMOOTH_L1, beta, n, x, t);
    default:
        return loss_piece(TL_LOSS_BCE_LOGITS, beta, n, x, t);
    }
}

static void any_slope_piece(tl_pointwise_loss kind, tl_real beta, int64_t n, const tl_real *x,
                            const tl_real *t, tl_real scale, bool accumulate, tl_real *dx) {
    switch (kind) {
    case TL_LOSS_SQUARED:
        slope_piece(TL_LOSS_SQUARED, beta, n, x, t, scale, accumulate, dx);
        break;
    case TL_LOSS_SMOOTH_L1:
        slope_piece(TL_LOSS_SMOOTH_L1, beta, n, x, t, scale, accumulate, dx);
        break;
    default:
        slope_piece(TL_LOSS_BCE_LOGITS, beta, n, x, t, scale, accumulate, dx);
        break;
    }
}

static size_t pointwise_scratch_bytes(int64_t n) {
    return (size_t)tl_piece_count(n, PIECE) * sizeof(double);
}

static double pointwise_forward(int threads, tl_pointwise_loss kind, double beta, int64_t n,
                                const tl_real *x, const tl_real *t, void *scratch) {
    double *partial = scratch;
    const int64_t pieces = tl_piece_count(n, PIECE);
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (n * WORK_PER_VALUE > TL_PARALLEL_MINIMUM)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        partial[piece] = any_loss_piece(kind, (tl_real)beta, tl_piece_size(piece, n, PIECE),
                                        x + start, t + start);
    }
    return sum_in_order(pieces, partial);
}

static void pointwise_backward(int threads, tl_pointwise_loss kind, double beta, int64_t n,
                               const tl_real *x, const tl_real *t, double scale, bool accumulate,
                               tl_real *dx) {
    const int64_t pieces = tl_piece_count(n, PIECE);
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (n * WORK_PER_VALUE > TL_PARALLEL_MINIMUM)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        any_slope_piece(kind, (tl_real)beta, tl_piece_size(piece, n, PIECE), x + start, t + start,
                        (tl_real)scale, accumulate, dx + start);
    }
}

const tl_loss_kernels TL_PER_ISA(tl_loss_kernels) = {
    .cross_entropy_scratch_bytes = cross_entropy_scratch_bytes,
    .cross_entropy_forward = cross_entropy_forward,
    .cross_entropy_backward = cross_entropy_backward,
    .pointwise_scratch_bytes = pointwise_scratch_bytes,
    .pointwise_forward = pointwise_forward,
    .pointwise_backward = pointwise_backward,
};
