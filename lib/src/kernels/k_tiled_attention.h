/* k_tiled_attention.h - out_i = sum_j w_ij v_j over positions, without ever storing the map w.
 *
 * Queries Q [n, d_k], keys K [m, d_k], values V [m, d_v], per sample and head, with scores
 * s_ij = scale <q_i, k_j> and weights
 *
 *     softmax   w_ij = exp(s_ij) / sum_j exp(s_ij)
 *     linear    w_ij = s_ij
 *     relu      w_ij = max(s_ij, 0)
 *
 * The forward pass is 2 n m (d_k + d_v) FLOPs, the backward pass 2 n m (3 d_k + 2 d_v): the scores
 * are recomputed there. Scratch depends on d_k, d_v and the threads, not on n or m.
 */
#ifndef TL_K_TILED_ATTENTION_H
#define TL_K_TILED_ATTENTION_H

typedef enum tl_pair_weights { TL_PAIR_SOFTMAX, TL_PAIR_LINEAR, TL_PAIR_RELU } tl_pair_weights;

/* Where the rows of a sample's head lie, in elements: row i of head h of sample s starts at
 * s * sample + h * head + i * row. Rows themselves are contiguous. */
typedef struct tl_rows_layout {
    int64_t sample;
    int64_t head;
    int64_t row;
} tl_rows_layout;

typedef struct tl_attention_problem {
    tl_pair_weights weights;
    bool causal; /* query i sees the keys j <= i only; needs queries == keys */
    tl_real scale;
    int64_t samples, heads;
    int64_t queries; /* n, per sample */
    int64_t keys;    /* m, per sample */
    int64_t d_k, d_v;
    tl_rows_layout q, k, v, o; /* gradients lie as what they are gradients of */
} tl_attention_problem;

typedef struct tl_tiled_attention_kernels {
    size_t (*scratch_bytes)(const tl_attention_problem *problem, int threads);

    /* o is overwritten. For the softmax, row_shift [samples, heads, n] and row_inverse
     * [samples, heads, n] receive what the backward pass needs to recompute the weights,
     * w_ij = 2^(s_ij log2 e - row_shift_i) row_inverse_i; else they are not touched. */
    void (*forward)(const tl_attention_problem *problem, const tl_real *q, const tl_real *k,
                    const tl_real *v, tl_real *o, tl_real *row_shift, tl_real *row_inverse,
                    void *scratch, int threads);

    /* Adds to d_q, d_k, d_v (NULL: not wanted; no two may overlap). `d_o` is the gradient of o. */
    void (*backward)(const tl_attention_problem *problem, const tl_real *q, const tl_real *k,
                     const tl_real *v, const tl_real *o, const tl_real *row_shift,
                     const tl_real *row_inverse, const tl_real *d_o, tl_real *d_q, tl_real *d_k,
                     tl_real *d_v, void *scratch, int threads);
} tl_tiled_attention_kernels;
TL_DECLARE_KERNELS(tl_tiled_attention_kernels);

#endif
