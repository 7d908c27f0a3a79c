/* attention_kinds.h - the choices that attention modules offer, by name. */
#ifndef TL_ATTENTION_KINDS_H
#define TL_ATTENTION_KINDS_H

/* Which attention module a network contains. */
typedef enum tl_attention_kind {
    TL_ATTENTION_NONE = 0,
    TL_ATTENTION_EFFICIENT = 1, /* Shen et al., arXiv 1812.01243 */
    TL_ATTENTION_NON_LOCAL = 2, /* Wang et al., arXiv 1711.07971 */
} tl_attention_kind;

/* How efficient attention normalises queries and keys. */
typedef enum tl_attention_normalization {
    TL_NORMALIZATION_SOFTMAX = 0, /* queries over a head's channels, keys over the positions */
    TL_NORMALIZATION_SCALING = 1, /* each divided by the square root of the number of positions */
} tl_attention_normalization;

/* The pairwise weight w_ij of the non-local block (Wang et al., section 3.2). */
typedef enum tl_pairwise {
    TL_PAIRWISE_EMBEDDED_GAUSSIAN = 0, /* softmax over j of q_i . k_j */
    TL_PAIRWISE_GAUSSIAN = 1,          /* softmax over j of x_i . x_j */
    TL_PAIRWISE_DOT_PRODUCT = 2,       /* q_i . k_j / n */
    TL_PAIRWISE_CONCATENATION = 3,     /* relu(a . q_i + b . k_j) / n */
} tl_pairwise;

typedef enum tl_non_local_implementation {
    TL_NON_LOCAL_TILED = 0,        /* online softmax: memory grows with n */
    TL_NON_LOCAL_MATERIALIZED = 1, /* the n x n map is stored, as in the paper */
} tl_non_local_implementation;

#endif
