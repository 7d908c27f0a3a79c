/* linear_attention.h - attention over sequences whose cost is linear in their length, each position
 * seeing those before it: the causal companion of efficient attention.
 *
 * It is the linear attention of Katharopoulos et al. 2020 ("Transformers are RNNs", arXiv
 * 2006.16236, eq. 8-12), not the softmax form of efficient attention: a softmax over positions has
 * no causal form that running sums could hold stably. Queries and keys go through the paper's
 * feature map phi(u) = elu(u) + 1 (u + 1 for u > 0, exp(u) else), and the weights of a position are
 * divided by their sum:
 *
 *     y_i = sum over j <= i of w_ij v_j / (sum over j <= i of w_ij + 1e-6),
 *     w_ij = phi(q_i) . phi(k_j)
 */
#ifndef TL_LINEAR_ATTENTION_H
#define TL_LINEAR_ATTENTION_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* q [N, L, heads D], k [N, L, heads D], v [N, L, heads E] -> y [N, L, heads E]; head r owns the
 * r-th slice of the channels. The three may be one tensor. heads 0: 1.
 * TL_ERROR_SHAPE if the shapes do not fit, TL_ERROR_INVALID_ARGUMENT if heads does not divide the
 * channels. 4 N L heads D E FLOPs forward. Saved for backward: q, k, v, y and one number a position
 * and head. */
TL_API tl_tensor *tl_causal_linear_attention(tl_tape *tape, tl_tensor *q, tl_tensor *k,
                                             tl_tensor *v, int64_t heads);

#ifdef __cplusplus
}
#endif

#endif
