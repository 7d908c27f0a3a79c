/* reference_attention.h - attention between positions by its definition, for one head. */
#ifndef REFERENCE_ATTENTION_H
#define REFERENCE_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

typedef enum reference_weights {
    REFERENCE_SOFTMAX,
    REFERENCE_LINEAR,
    REFERENCE_RELU
} reference_weights;

typedef struct reference_attention {
    reference_weights weights;
    bool causal;
    double scale;
    int64_t n, m, d_k, d_v;
    const double *q, *k, *v; /* [n, d_k], [m, d_k], [m, d_v] */
    const double *d_o;       /* [n, d_v] */
} reference_attention;

/* o [n, d_v] = w v with w_ij = softmax_j, identity or relu of scale <q_i, k_j>; map [n, m] receives
 * w. */
void reference_attention_forward(const reference_attention *a, double *o, double *map);

/* Gradients of sum_i <d_o_i, o_i>, overwriting. */
void reference_attention_backward(const reference_attention *a, double *d_q, double *d_k,
                                  double *d_v);

#endif
