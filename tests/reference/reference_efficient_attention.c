#include "reference/reference_efficient_attention.h"

#include <math.h>
#include <stdlib.h>

/* [n, in] -> [n, out] */
static double *project(int64_t n, int64_t in, int64_t out, const double *x, const tl_real *weight,
                       const tl_real *bias) {
    double *y = malloc((size_t)(n * out) * sizeof *y);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = (double)bias[o];
            for (int64_t c = 0; c < in; c++) {
                sum += x[i * in + c] * (double)weight[o * in + c];
            }
            y[i * out + o] = sum;
        }
    }
    return y;
}

/* Softmax of `count` values `step` apart. */
static void softmax(double *values, int64_t count, int64_t step, double temperature) {
    double maximum = values[0], sum = 0;
    for (int64_t i = 0; i < count; i++) {
        maximum = fmax(maximum, values[i * step]);
    }
    for (int64_t i = 0; i < count; i++) {
        values[i * step] = exp((values[i * step] - maximum) / temperature);
        sum += values[i * step];
    }
    for (int64_t i = 0; i < count; i++) {
        values[i * step] /= sum;
    }
}

static void normalize(const reference_attention *s, double *queries, double *keys) {
    const int64_t n = s->positions, k = s->key_channels, d = k / s->heads;
    if (s->scaling) {
        for (int64_t i = 0; i < n * k; i++) {
            queries[i] /= sqrt((double)n);
            keys[i] /= sqrt((double)n);
        }
        return;
    }
    for (int64_t a = 0; a < k; a++) {
        softmax(keys + a, n, k, s->temperature);
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t head = 0; head < s->heads; head++) {
            softmax(queries + i * k + head * d, d, 1, s->temperature);
        }
    }
}

/* out[i, j] = sum over a, i' of queries[i, a] keys[i', a] values[i', j], within the head of j. */
static double *attend(const reference_attention *s, const double *queries, const double *keys,
                      const double *values) {
    const int64_t n = s->positions, k = s->key_channels, v = s->value_channels;
    const int64_t d = k / s->heads, e = v / s->heads;
    double *out = calloc((size_t)(n * v), sizeof *out);
    for (int64_t j = 0; j < v; j++) {
        for (int64_t a = j / e * d; a < (j / e + 1) * d; a++) {
            double context = 0;
            for (int64_t i = 0; i < n; i++) {
                context += keys[i * k + a] * values[i * v + j];
            }
            for (int64_t i = 0; i < n; i++) {
                out[i * v + j] += queries[i * k + a] * context;
            }
        }
    }
    return out;
}

void reference_efficient_attention(const reference_attention *s, const tl_real *x,
                                   const tl_real *const weights[8], double *y) {
    const int64_t n = s->positions, c = s->channels, k = s->key_channels, v = s->value_channels;
    const int64_t width = s->reprojection ? c : v;
    for (int64_t sample = 0; sample < s->batch; sample++) {
        double *rows = malloc((size_t)(n * c) * sizeof *rows);
        for (int64_t i = 0; i < n * c; i++) {
            rows[i] = (double)x[sample * n * c + i];
        }
        double *queries = project(n, c, k, rows, weights[0], weights[1]);
        double *keys = project(n, c, k, rows, weights[2], weights[3]);
        double *values = project(n, c, v, rows, weights[4], weights[5]);
        normalize(s, queries, keys);
        double *out = attend(s, queries, keys, values);
        if (s->reprojection) {
            double *projected = project(n, v, c, out, weights[6], weights[7]);
            free(out);
            out = projected;
        }
        for (int64_t i = 0; i < n * width; i++) {
            y[sample * n * width + i] = out[i] + (s->residual ? rows[i] : 0);
        }
        free(rows);
        free(queries);
        free(keys);
        free(values);
        free(out);
    }
}
