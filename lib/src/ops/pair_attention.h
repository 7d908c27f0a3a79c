/* pair_attention.h - the operation behind tl_attention and tl_non_local: weights between all pairs
 * of positions, applied to values. The derivation is in pair_attention.c.
 */
#ifndef TL_PAIR_ATTENTION_INTERNAL_H
#define TL_PAIR_ATTENTION_INTERNAL_H

#include <tapeline/attention.h>

#include "ops/footprint.h"

typedef struct tl_pair_attention_config {
    tl_pair_weights weights;
    bool causal;
    double scale;
    int64_t heads;
    bool
        head_axis; /* axis 1 is the head: [N, heads, L, D]; else heads are slices of the channels */
    tl_attention_implementation implementation;
} tl_pair_attention_config;

/* Checks what tl_attention is asked for and says what that is. `heads` of the inputs' own axis if
 * head_axis, else of the config; channels are those of an input's last axis. */
tl_status tl_attention_resolve(const tl_attention_config *config, bool head_axis, int64_t heads,
                               int64_t queries, int64_t keys, int64_t channels,
                               int64_t value_channels, tl_pair_attention_config *pair,
                               tl_error *error);

/* Carries on with an operation that was begun with the inputs q, k, v, and where a map is stored
 * after tl_pair_map_fits:
 * q [N, positions..., heads d_k], k [N, positions..., heads d_k], v [N, positions..., heads d_v] ->
 * [N, q's positions..., heads d_v]; or with a head axis. The caller has checked the shapes. */
tl_tensor *tl_pair_attention(tl_op *op, const tl_pair_attention_config *config);

/* The kernels' view of a problem. */
tl_attention_problem tl_pair_problem(const tl_tensor *q, const tl_tensor *k, const tl_tensor *v,
                                     const tl_pair_attention_config *config);
/* The same of tensors that need not exist; d_k and d_v are those of a head. */
tl_attention_problem tl_pair_problem_of(int64_t samples, int64_t queries, int64_t keys, int64_t d_k,
                                        int64_t d_v, const tl_pair_attention_config *config);

/* The FLOPs of the operation; `gradients` has bit i for each of q, k, v that wants one. */
tl_cost tl_pair_attention_cost(const tl_attention_problem *problem,
                               tl_attention_implementation implementation, unsigned gradients);

/* What it takes with all gradients. Saved beside what the footprint says: q, k, v, and for the
 * tiled softmax the output. `same_q_and_k`: they are one tensor. */
tl_footprint tl_pair_attention_footprint(tl_footprint_machine machine,
                                         const tl_attention_problem *problem,
                                         tl_attention_implementation implementation,
                                         bool same_q_and_k);

/* The materialized implementation (pair_attention_map.c). */
void tl_pair_map_footprint(tl_footprint_machine machine, const tl_attention_problem *problem,
                           tl_footprint *footprint);           /* fills in the memory */
size_t tl_pair_map_bytes(const tl_attention_problem *problem); /* SIZE_MAX: overflow */

/* The bytes that a step with so many queries takes of the tape's memory, as far as it is known in
 * advance. */
typedef struct tl_pair_step {
    double (*bytes)(const struct tl_pair_step *step, int64_t queries,
                    tl_attention_implementation implementation);
    const void *module; /* for the function */
    tl_footprint_machine machine;
    bool recorded; /* a backward pass will want the map's gradient */
} tl_pair_step;

/* Whether a memory budget allows the maps and, for a backward pass, their gradient. If not, the
 * operation fails before anything is allocated, and says what would fit. */
bool tl_pair_map_fits(tl_op *op, const tl_attention_problem *problem, const tl_pair_step *step);
/* tl_attention as such a module, for tl_pair_step: what its step takes (attention_cost.c). */
typedef struct tl_sequence_module {
    tl_pair_attention_config pair;
    int64_t samples, queries, keys;
    int64_t d_k, d_v; /* of a head */
} tl_sequence_module;
double tl_sequence_step_bytes(const tl_pair_step *step, int64_t queries,
                              tl_attention_implementation implementation);

/* False if memory failed. `map` receives the weights [samples, heads, n, m]. */
bool tl_pair_map_forward(tl_op *op, const tl_attention_problem *problem, const tl_real *q,
                         const tl_real *k, const tl_real *v, tl_real *map, tl_real *o);
void tl_pair_map_backward(tl_node *node, const tl_attention_problem *problem, const tl_real *map);

#endif
