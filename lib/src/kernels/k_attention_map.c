/* k_attention_map.c - see k_attention_map.h. Memory-bound: a row at a time, in vectors. */
#include "kernels/kernels.h"

#include "kernels/simd.h"

/* Row sums over this many values in a float vector, then in double. */
#define PIECE 512

static tl_real row_maximum(const tl_real *row, int64_t count) {
    tl_v top = tl_v_set(row[0]);
    int64_t j = 0;
    for (; j + TL_LANES <= count; j += TL_LANES) {
        top = tl_v_max(top, tl_v_load(row + j));
    }
    tl_real maximum = tl_v_maximum(top);
    for (; j < count; j++) {
        maximum = row[j] > maximum ? row[j] : maximum;
    }
    return maximum;
}

/* row = exp(row - maximum); returns the sum. */
static double exponentials(tl_real *row, int64_t count, tl_real maximum) {
    double total = 0;
    for (int64_t begin = 0; begin < count; begin += PIECE) {
        const int64_t end = begin + PIECE < count ? begin + PIECE : count;
        tl_v sum = tl_v_zero();
        int64_t j = begin;
        for (; j + TL_LANES <= end; j += TL_LANES) {
            const tl_v e = tl_v_exp(tl_v_load(row + j) - maximum);
            tl_v_store(row + j, e);
            sum += e;
        }
        if (j < end) {
            const tl_v e = tl_v_exp(tl_v_load_partial(row + j, end - j) - maximum);
            tl_v_store_partial(row + j, e, end - j);
            for (int lane = 0; lane < end - j; lane++) {
                total += (double)row[j + lane];
            }
        }
        total += (double)tl_v_sum(sum);
    }
    return total;
}

static void scale_row(tl_real *row, int64_t count, tl_real factor) {
    int64_t j = 0;
    for (; j + TL_LANES <= count; j += TL_LANES) {
        tl_v_store(row + j, tl_v_load(row + j) * factor);
    }
    for (; j < count; j++) {
        row[j] *= factor;
    }
}

static void forward_row(tl_pair_weights weights, tl_real *row, int64_t visible, int64_t columns) {
    if (weights == TL_PAIR_SOFTMAX) {
        const double sum = exponentials(row, visible, row_maximum(row, visible));
        scale_row(row, visible, (tl_real)(1 / sum));
    } else if (weights == TL_PAIR_RELU) {
        for (int64_t j = 0; j < visible; j++) {
            row[j] = row[j] < 0 ? 0 : row[j];
        }
    }
    for (int64_t j = visible; j < columns; j++) {
        row[j] = 0;
    }
}

static double weighted_sum(const tl_real *weights, const tl_real *values, int64_t count) {
    double total = 0;
    for (int64_t begin = 0; begin < count; begin += PIECE) {
        const int64_t end = begin + PIECE < count ? begin + PIECE : count;
        tl_v sum = tl_v_zero();
        int64_t j = begin;
        for (; j + TL_LANES <= end; j += TL_LANES) {
            sum += tl_v_load(weights + j) * tl_v_load(values + j);
        }
        for (; j < end; j++) {
            total += (double)weights[j] * (double)values[j];
        }
        total += (double)tl_v_sum(sum);
    }
    return total;
}

static void backward_row(tl_pair_weights weights, const tl_real *row, tl_real *d_row,
                         int64_t visible, int64_t columns) {
    if (weights == TL_PAIR_SOFTMAX) {
        const tl_real mean = (tl_real)weighted_sum(row, d_row, visible);
        int64_t j = 0;
        for (; j + TL_LANES <= visible; j += TL_LANES) {
            tl_v_store(d_row + j, tl_v_load(row + j) * (tl_v_load(d_row + j) - mean));
        }
        for (; j < visible; j++) {
            d_row[j] = row[j] * (d_row[j] - mean);
        }
    } else if (weights == TL_PAIR_RELU) {
        for (int64_t j = 0; j < visible; j++) {
            d_row[j] = row[j] > 0 ? d_row[j] : 0;
        }
    }
    for (int64_t j = visible; j < columns; j++) {
        d_row[j] = 0;
    }
}

static int64_t visible_in(const tl_attention_maps *maps, int64_t row) {
    return maps->causal && row + 1 < maps->columns ? row + 1 : maps->columns;
}

static bool is_identity(const tl_attention_maps *maps) {
    return maps->weights == TL_PAIR_LINEAR && !maps->causal;
}

static void forward(const tl_attention_maps *maps, tl_real *map, int64_t stride, int threads) {
    const int64_t rows = maps->count * maps->rows;
    if (is_identity(maps)) {
        return;
    }
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (rows * maps->columns > TL_PARALLEL_MINIMUM)
    for (int64_t r = 0; r < rows; r++) {
        const int64_t i = r % maps->rows;
        forward_row(maps->weights, map + r / maps->rows * stride + i * maps->columns,
                    visible_in(maps, i), maps->columns);
    }
}

static void backward(const tl_attention_maps *maps, const tl_real *map, int64_t stride,
                     tl_real *d_map, int64_t d_stride, int threads) {
    const int64_t rows = maps->count * maps->rows;
    if (is_identity(maps)) {
        return;
    }
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (rows * maps->columns > TL_PARALLEL_MINIMUM)
    for (int64_t r = 0; r < rows; r++) {
        const int64_t i = r % maps->rows;
        const int64_t index = r / maps->rows;
        backward_row(maps->weights, map + index * stride + i * maps->columns,
                     d_map + index * d_stride + i * maps->columns, visible_in(maps, i),
                     maps->columns);
    }
}

const tl_attention_map_kernels TL_PER_ISA(tl_attention_map_kernels) = {
    .forward = forward,
    .backward = backward,
};
