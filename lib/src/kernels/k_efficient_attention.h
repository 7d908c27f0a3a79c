/* k_efficient_attention.h - efficient attention, forward and backward, fused over tiles of
 * positions.
 *
 * For one sample X [n, C] (rows are positions), head r owning rows of the weights:
 *
 *     queries = softmax over the head's channels of (X Wq^T + bq) / temperature      [n, d]
 *     keys    = softmax over the positions      of (X Wk^T + bk) / temperature      [n, d]
 *     G       = keys^T (X Wv^T + bv)                                                [d, e]
 *     out     = queries G, the heads side by side                                   [n, V]
 *     Y       = X + out Wr^T + br          (without reprojection: Y = X + out; X if residual)
 *
 * With `scaling` both softmaxes are replaced by a division by sqrt(n).
 *
 * The work per tile and what is folded is described in k_attention_plan.h and in the .c files.
 */
#ifndef TL_K_EFFICIENT_ATTENTION_H
#define TL_K_EFFICIENT_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/k_attention_plan.h"

/* Weights are stored [out, in]. Reprojection pointers are NULL where there is none. */
typedef struct tl_attention_parameters {
    const tl_real *query_weight, *query_bias;               /* [K, C], [K] */
    const tl_real *key_weight, *key_bias;                   /* [K, C], [K] */
    const tl_real *value_weight, *value_bias;               /* [V, C], [V] */
    const tl_real *reprojection_weight, *reprojection_bias; /* [C, V], [C] */
} tl_attention_parameters;

/* A gradient to fill: NULL values if it is not wanted. */
typedef struct tl_attention_gradient {
    tl_real *values;
    bool accumulate; /* add to what is there; else it is overwritten */
} tl_attention_gradient;

typedef struct tl_attention_gradients {
    tl_attention_gradient x; /* [N, n, C] */
    tl_attention_gradient query_weight, query_bias, key_weight, key_bias;
    tl_attention_gradient value_weight, value_bias, reprojection_weight, reprojection_bias;
} tl_attention_gradients;

typedef struct tl_efficient_attention_kernels {
    size_t (*forward_scratch_bytes)(const tl_attention_shape *shape, int threads);

    /* x [N, n, C] -> y [N, n, C or V]. saved: NULL, or tl_attention_saved_per_sample values for
     * each sample. */
    void (*forward)(const tl_attention_shape *shape, const tl_attention_parameters *parameters,
                    const tl_real *x, tl_real *y, tl_real *saved, void *scratch, int threads);

    /* The normalised keys: maps [N, n, K]. Scratch as forward needs it. */
    void (*maps)(const tl_attention_shape *shape, const tl_attention_parameters *parameters,
                 const tl_real *x, tl_real *maps, void *scratch, int threads);

    size_t (*backward_scratch_bytes)(const tl_attention_shape *shape, int threads);

    /* From dy and what forward saved; x and parameters as they were then. */
    void (*backward)(const tl_attention_shape *shape, const tl_attention_parameters *parameters,
                     const tl_real *x, const tl_real *dy, const tl_real *saved,
                     const tl_attention_gradients *gradients, void *scratch, int threads);
} tl_efficient_attention_kernels;

TL_DECLARE_KERNELS(tl_efficient_attention_kernels);

#endif
