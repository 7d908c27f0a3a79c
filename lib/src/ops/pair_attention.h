/* pair_attention.h - the operation behind tl_attention and tl_non_local: weights between all pairs
 * of positions, applied to values. The derivation is in pair_attention.c.
 */
#ifndef TL_PAIR_ATTENTION_INTERNAL_H
#define TL_PAIR_ATTENTION_INTERNAL_H

#include <tapeline/attention.h>

#include "core/op.h"
#include "kernels/k_tiled_attention.h"

typedef struct tl_pair_attention_config {
    tl_pair_weights weights;
    bool causal;
    double scale;
    int64_t heads;
    bool
        head_axis; /* axis 1 is the head: [N, heads, L, D]; else heads are slices of the channels */
    tl_attention_implementation implementation;
} tl_pair_attention_config;

/* Carries on with an operation that was begun with the inputs q, k, v:
 * q [N, positions..., heads d_k], k [N, positions..., heads d_k], v [N, positions..., heads d_v] ->
 * [N, q's positions..., heads d_v]; or with a head axis. The caller has checked the shapes. */
tl_tensor *tl_pair_attention(tl_op *op, const tl_pair_attention_config *config);

/* The kernels' view of a problem with slices of channels as heads. */
tl_attention_problem tl_pair_problem(const tl_tensor *q, const tl_tensor *k, const tl_tensor *v,
                                     const tl_pair_attention_config *config);

/* What the operation costs, as it reports it itself. `saved_bytes` is what it keeps beside q, k, v
 * and (tiled softmax only) its output. `gradients` has bit i for each of q, k, v that wants one. */
tl_cost tl_pair_attention_cost(const tl_attention_problem *problem,
                               tl_attention_implementation implementation, unsigned gradients);

/* The materialized implementation (pair_attention_map.c). */
size_t tl_pair_map_bytes(const tl_attention_problem *problem);          /* SIZE_MAX: overflow */
size_t tl_pair_map_gradient_bytes(const tl_attention_problem *problem); /* of one head at a time */
bool tl_pair_map_fits(tl_op *op, const tl_attention_problem *problem);
/* False if memory failed. `map` receives the weights [samples, heads, n, m]. */
bool tl_pair_map_forward(tl_op *op, const tl_attention_problem *problem, const tl_real *q,
                         const tl_real *k, const tl_real *v, tl_real *map, tl_real *o);
void tl_pair_map_backward(tl_node *node, const tl_attention_problem *problem, const tl_real *map);

#endif
