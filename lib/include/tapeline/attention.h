/* attention.h - scaled dot-product attention over sequences (Vaswani et al. 2017, arXiv
 * 1706.03762, section 3.2).
 */
#ifndef TL_ATTENTION_H
#define TL_ATTENTION_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How attention between all pairs of positions is computed. The numbers agree but for rounding. */
typedef enum tl_attention_implementation {
    TL_ATTENTION_TILED = 0,        /* the map is never stored: memory grows with n */
    TL_ATTENTION_MATERIALIZED = 1, /* the n x n map of every sample and head is stored for the
                                      backward pass: memory grows with n^2 */
} tl_attention_implementation;

/* All zero: the defaults. */
typedef struct tl_attention_config {
    int64_t heads; /* of rank-3 inputs, which they split; 0: 1. Ignored at rank 4. */
    bool causal;   /* position i sees the positions j <= i only; needs L = M */
    double scale;  /* of the scores; 0: 1 / sqrt(channels of a head) */
    tl_attention_implementation implementation;
} tl_attention_config;

/* Per sample and head  y_i = sum_j p_ij v_j,  p_ij = softmax over j of scale <q_i, k_j>.
 *
 * Rank 4: q [N, heads, L, D], k [N, heads, M, D], v [N, heads, M, E] -> y [N, heads, L, E].
 * Rank 3, channels-last: q [N, L, heads D], k [N, M, heads D], v [N, M, heads E] ->
 * y [N, L, heads E]; head h owns the h-th slice of the channels. The three may be one tensor.
 *
 * FLOPs: 2 N heads L M (D + E) forward and twice that backward; the tiled form computes the scores
 * again there. Kept for backward: q, k, v and, tiled, y and two numbers a row; materialized, the
 * maps. Where a memory budget does not allow the maps, the materialized form fails before it
 * allocates and says what would fit. `config` may be NULL. */
TL_API tl_tensor *tl_attention(tl_tape *tape, tl_tensor *q, tl_tensor *k, tl_tensor *v,
                               const tl_attention_config *config);

#ifdef __cplusplus
}
#endif

#endif
