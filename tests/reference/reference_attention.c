#include "reference/reference_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double dot(int64_t count, const double *a, const double *b) {
    double sum = 0;
    for (int64_t c = 0; c < count; c++) {
        sum += a[c] * b[c];
    }
    return sum;
}

void reference_attention_forward(const reference_attention *a, double *o, double *map) {
    for (int64_t i = 0; i < a->n; i++) {
        double *w = map + i * a->m;
        const int64_t visible = a->causal ? i + 1 : a->m;
        double maximum = -INFINITY;
        double sum = 0;
        for (int64_t j = 0; j < a->m; j++) {
            w[j] = j < visible ? a->scale * dot(a->d_k, a->q + i * a->d_k, a->k + j * a->d_k) : 0;
            if (j < visible && w[j] > maximum) {
                maximum = w[j];
            }
        }
        for (int64_t j = 0; j < visible; j++) {
            if (a->weights == REFERENCE_SOFTMAX) {
                w[j] = exp(w[j] - maximum);
                sum += w[j];
            } else if (a->weights == REFERENCE_RELU && w[j] < 0) {
                w[j] = 0;
            }
        }
        for (int64_t c = 0; c < a->d_v; c++) {
            o[i * a->d_v + c] = 0;
        }
        for (int64_t j = 0; j < visible; j++) {
            w[j] = a->weights == REFERENCE_SOFTMAX ? w[j] / sum : w[j];
            for (int64_t c = 0; c < a->d_v; c++) {
                o[i * a->d_v + c] += w[j] * a->v[j * a->d_v + c];
            }
        }
    }
}

void reference_attention_backward(const reference_attention *a, double *d_q, double *d_k,
                                  double *d_v) {
    double *map = malloc((size_t)(a->n * a->m) * sizeof *map);
    double *o = malloc((size_t)(a->n * a->d_v) * sizeof *o);
    reference_attention_forward(a, o, map);
    memset(d_q, 0, (size_t)(a->n * a->d_k) * sizeof *d_q);
    memset(d_k, 0, (size_t)(a->m * a->d_k) * sizeof *d_k);
    memset(d_v, 0, (size_t)(a->m * a->d_v) * sizeof *d_v);
    for (int64_t i = 0; i < a->n; i++) {
        const double *d_o = a->d_o + i * a->d_v;
        const double mean = dot(a->d_v, d_o, o + i * a->d_v);
        const int64_t visible = a->causal ? i + 1 : a->m;
        for (int64_t j = 0; j < visible; j++) {
            const double w = map[i * a->m + j];
            double d_s = dot(a->d_v, d_o, a->v + j * a->d_v);
            if (a->weights == REFERENCE_SOFTMAX) {
                d_s = w * (d_s - mean);
            } else if (a->weights == REFERENCE_RELU && !(w > 0)) {
                d_s = 0;
            }
            for (int64_t c = 0; c < a->d_v; c++) {
                d_v[j * a->d_v + c] += w * d_o[c];
            }
            for (int64_t c = 0; c < a->d_k; c++) {
                d_q[i * a->d_k + c] += a->scale * d_s * a->k[j * a->d_k + c];
                d_k[j * a->d_k + c] += a->scale * d_s * a->q[i * a->d_k + c];
            }
        }
    }
    free(map);
    free(o);
}
