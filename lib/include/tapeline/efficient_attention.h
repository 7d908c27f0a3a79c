/* efficient_attention.h - attention whose cost is linear in the number of positions (Shen et al.
 * 2021, "Efficient Attention: Attention with Linear Complexities", arXiv 1812.01243).
 *
 * Keys are normalised over the positions and read as global maps; each gathers one context vector
 * from the values, and each position mixes the contexts with its queries. For one sample with
 * positions x_i (i = 1 ... n, all spatial dimensions together), C channels, K key channels, V value
 * channels and h heads, head r owning K/h rows of queries and keys and V/h rows of values:
 *
 *     queries = Wq x + bq, keys = Wk x + bk, values = Wv x + bv      at every position
 *     softmax:  keys    <- softmax over the positions of keys / temperature, each channel by itself
 *               queries <- softmax over the head's channels of queries / temperature
 *     scaling:  keys <- keys / sqrt(n), queries <- queries / sqrt(n)
 *     context = sum over positions i of keys_i values_i^T            [K/h, V/h] a head
 *     out_i   = context^T queries_i                                  the heads side by side: [V]
 *     y_i     = x_i + Wr out_i + br
 *
 * Forward and backward are one fused operation each: memory beyond x, y and their gradients does
 * not depend on n. Heads and temperature are additions to the paper; heads = 1 is the paper.
 */
#ifndef TL_EFFICIENT_ATTENTION_H
#define TL_EFFICIENT_ATTENTION_H

#include <tapeline/parameters.h>
#include <tapeline/random.h>
#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tl_normalization {
    TL_NORMALIZATION_SOFTMAX = 0,
    TL_NORMALIZATION_SCALING = 1,
} tl_normalization;

/* Start from tl_efficient_attention_config_default(). */
typedef struct tl_efficient_attention_config {
    int64_t in_channels;    /* C; 0: the last extent of x (a layer must be told) */
    int64_t key_channels;   /* K, a multiple of heads; 0: C / 2, at least 1 */
    int64_t value_channels; /* V, a multiple of heads; 0: C */
    int64_t heads;          /* h; 0: 1 */
    tl_normalization normalization;
    double temperature;     /* divides the logits of both softmaxes; 0: 1. Only with softmax */
    bool use_reprojection;  /* Wr, br; without them y has V channels */
    bool use_residual;      /* + x; without reprojection that needs V = C */
    bool zero_reprojection; /* layers: Wr and br start at zero, so that the block starts as the
                               identity and does not disturb what surrounds it */
} tl_efficient_attention_config;

/* Everything 0 or off but use_reprojection and use_residual, which are on. */
TL_API tl_efficient_attention_config tl_efficient_attention_config_default(void);

/* The parameters; those of the reprojection are not read if it is off. */
typedef struct tl_efficient_attention_weights {
    tl_tensor *query_weight, *query_bias;               /* [K, C], [K] */
    tl_tensor *key_weight, *key_bias;                   /* [K, C], [K] */
    tl_tensor *value_weight, *value_bias;               /* [V, C], [V] */
    tl_tensor *reprojection_weight, *reprojection_bias; /* [C, V], [C] */
} tl_efficient_attention_weights;

/* x [N, spatial..., C] -> y [N, spatial..., C] (V channels without reprojection), for any number of
 * spatial dimensions (none: n = 1). `config` NULL: the default. The gradient of the key bias is
 * exactly zero under softmax, which it does not change.
 * TL_ERROR_SHAPE if x or a weight does not fit the config; TL_ERROR_INVALID_ARGUMENT for channel
 * counts that heads do not divide, a negative temperature, a temperature with scaling.
 * Saved for backward: per sample K V / h + 2 K values, and K C more where values are folded; and
 * x. */
TL_API tl_tensor *tl_efficient_attention(tl_tape *tape, tl_tensor *x,
                                         const tl_efficient_attention_weights *weights,
                                         const tl_efficient_attention_config *config);

/* The normalised keys as maps: x [N, spatial..., C] -> [N, spatial..., K], channel a being what
 * key channel a (of head a / (K/h)) attends to; under softmax each sums to 1 over the positions.
 * For looking at; no gradient flows through it. Errors as above. */
TL_API tl_tensor *tl_efficient_attention_maps(tl_tape *tape, tl_tensor *x,
                                              const tl_efficient_attention_weights *weights,
                                              const tl_efficient_attention_config *config);

/* The same from elementary operations (linear, softmax, matmul, permute, add): the readable
 * reference, for comparing and teaching. Agrees but for rounding; slower, and keeps memory for
 * every step. */
TL_API tl_tensor *tl_efficient_attention_composed(tl_tape *tape, tl_tensor *x,
                                                  const tl_efficient_attention_weights *weights,
                                                  const tl_efficient_attention_config *config);

/* ---- the layer (the form of all layers: parameters.h)
 *
 * "prefix.keys.weight" [K, C], "prefix.keys.bias" [K], and so on for queries, values and
 * reprojection. Weights and biases start uniform in +-1 / sqrt(fan in). */
typedef struct tl_efficient_attention_layer {
    tl_efficient_attention_config config; /* defaults filled in */
    tl_efficient_attention_weights weights;
} tl_efficient_attention_layer;

/* Draws the weights from `random`. Errors as of tl_efficient_attention, at once; in_channels must
 * be given. */
TL_API tl_status tl_efficient_attention_layer_init(tl_efficient_attention_layer *layer,
                                                   tl_parameters *parameters, const char *prefix,
                                                   const tl_efficient_attention_config *config,
                                                   tl_random *random, tl_error *error);

/* tl_efficient_attention with the layer's weights. */
TL_API tl_tensor *tl_efficient_attention_layer_forward(const tl_efficient_attention_layer *layer,
                                                       tl_tape *tape, tl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
