/* non_local.h - attention between all pairs of positions (Wang et al. 2018, "Non-local Neural
 * Networks", arXiv 1711.07971): the baseline that efficient attention is measured against.
 *
 * For one sample with positions x_i (i = 1 ... n, all spatial dimensions together), C channels, K
 * key channels, V value channels and h heads, head r owning K/h rows of queries q and keys k and
 * V/h rows of values v:
 *
 *     q = Wq x + bq, k = Wk x + bk, v = Wv x + bv                    at every position
 *     out_i = sum over positions j of w_ij v_j                       per head
 *
 *     embedded Gaussian   w_ij = softmax over j of scale <q_i, k_j>
 *     Gaussian            w_ij = softmax over j of scale <x_i, x_j>;  h = 1, no queries and keys
 *     dot product         w_ij = <q_i, k_j> / m
 *     concatenation       w_ij = relu(<a, q_i> + <b, k_j>) / m;       h = 1, [a, b] = pair_weight
 *
 *     y_i = x_i + Wr out_i + br
 *
 * where m, the number of positions j, is n unless keys and values are sub-sampled. Every form has
 * two implementations: *tiled*, whose memory grows with n, and *materialized*, which stores the
 * n x m map of every sample and head, as the paper does. Both take time in n m; without a softmax
 * that is a waste: the dot product form is efficient attention with scaling, (q k^T) v = q (k^T v),
 * computed in the wrong order. It is here as the honest rival.
 */
#ifndef TL_NON_LOCAL_H
#define TL_NON_LOCAL_H

#include <tapeline/attention.h>
#include <tapeline/norm_layers.h>
#include <tapeline/parameters.h>
#include <tapeline/random.h>
#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tl_pairwise {
    TL_PAIRWISE_EMBEDDED_GAUSSIAN = 0,
    TL_PAIRWISE_GAUSSIAN = 1,
    TL_PAIRWISE_DOT_PRODUCT = 2,
    TL_PAIRWISE_CONCATENATION = 3,
} tl_pairwise;

/* Start from tl_non_local_config_default(). */
typedef struct tl_non_local_config {
    int64_t in_channels;    /* C; 0: the last extent of x (a layer must be told) */
    int64_t key_channels;   /* K, a multiple of heads; 0: C / 2, at least 1. Gaussian: not used */
    int64_t value_channels; /* V, a multiple of heads; 0: C */
    int64_t heads;          /* h; 0: 1. Embedded Gaussian and dot product only */
    tl_pairwise pairwise;
    bool use_scale;        /* the softmax forms: scale = 1 / sqrt(K / h) (or C); else 1 */
    int64_t sub_sample;    /* s: keys and values come from x after max pooling by s in the last two
                              spatial dimensions (or the only one), before they are projected, as in
                              the authors' code; 0, 1: none. Those extents must be at least s */
    bool use_reprojection; /* Wr, br; without them y has V channels */
    bool use_residual;     /* + x; without reprojection that needs V = C */
    tl_attention_implementation implementation;
    /* layers only */
    bool use_batch_norm;    /* batch norm on the reprojected output, before the residual is added,
                               with a gain that starts at zero: the block begins as the identity */
    bool zero_reprojection; /* Wr and br start at zero, to the same end without batch norm */
} tl_non_local_config;

/* Embedded Gaussian, tiled; everything 0 or off but use_reprojection and use_residual. */
TL_API tl_non_local_config tl_non_local_config_default(void);

/* The parameters; those that the config does not use are not read. */
typedef struct tl_non_local_weights {
    tl_tensor *query_weight, *query_bias;               /* [K, C], [K] */
    tl_tensor *key_weight, *key_bias;                   /* [K, C], [K] */
    tl_tensor *value_weight, *value_bias;               /* [V, C], [V] */
    tl_tensor *pair_weight;                             /* [2 K]: a, then b. Concatenation */
    tl_tensor *reprojection_weight, *reprojection_bias; /* [C, V], [C] */
} tl_non_local_weights;

/* x [N, spatial..., C] -> y [N, spatial..., C] (V channels without reprojection), for any number of
 * spatial dimensions (none: n = 1). `config` NULL: the default; use_batch_norm must be off.
 *
 * Composed of max pooling, linear, non_local (the pairwise part) and linear_add, which appear as
 * such in the cost report. Kept for backward: x, queries, keys, values and out; tiled softmax forms
 * two numbers a row and head more, the materialized form N h n m values more. Where a memory budget
 * does not allow the maps, it fails before allocating them and says what would fit.
 * TL_ERROR_SHAPE if x or a weight does not fit the config, TL_ERROR_INVALID_ARGUMENT for channel
 * counts that heads do not divide and options that do not go together. */
TL_API tl_tensor *tl_non_local(tl_tape *tape, tl_tensor *x, const tl_non_local_weights *weights,
                               const tl_non_local_config *config);

/* The weights w_ij of one query position i (0 ... n-1, spatial dimensions in row-major order):
 * [N, heads, m]. For looking at: nothing is recorded. */
TL_API tl_tensor *tl_non_local_map(tl_tape *tape, tl_tensor *x, const tl_non_local_weights *weights,
                                   const tl_non_local_config *config, int64_t position);

/* ---- the layer (the form of all layers: parameters.h)
 *
 * "prefix.keys.weight" [K, C], "prefix.keys.bias" [K], and so on for queries, values and
 * reprojection, "prefix.pair.weight" [2 K], "prefix.norm.*" with batch norm. Weights and biases
 * start uniform in +-1 / sqrt(fan in). */
typedef struct tl_non_local_layer {
    tl_non_local_config config; /* defaults filled in */
    tl_non_local_weights weights;
    tl_batch_norm_layer norm; /* with batch norm */
} tl_non_local_layer;

/* Draws the weights from `random`. Errors as of tl_non_local, at once; in_channels must be given.
 */
TL_API tl_status tl_non_local_layer_init(tl_non_local_layer *layer, tl_parameters *parameters,
                                         const char *prefix, const tl_non_local_config *config,
                                         tl_random *random, tl_error *error);

/* tl_non_local with the layer's weights, and its batch norm where it has one. */
TL_API tl_tensor *tl_non_local_layer_forward(const tl_non_local_layer *layer, tl_tape *tape,
                                             tl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
