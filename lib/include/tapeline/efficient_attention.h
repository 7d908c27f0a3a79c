/* efficient_attention.h - attention whose time and memory grow linearly with the positions.
 *
 * Shen et al., "Efficient Attention: Attention with Linear Complexities", arXiv 1812.01243,
 * section 3. For one sample X [n, C], with rows as positions (n is the product of the spatial
 * extents) and head r owning d = key_channels / heads and e = value_channels / heads channels:
 *
 *     queries = X Wq^T + bq   keys = X Wk^T + bk   values = X Wv^T + bv
 *     softmax: q = softmax of queries over the head's channels, k = softmax of keys over positions
 *     scaling: q = queries / sqrt n, k = keys / sqrt n      (then it equals dot-product attention)
 *     G = k^T values   [d, e]      out = q G   [n, e]       the heads side by side
 *     Y = X + out Wr^T + br
 *
 * One fused operation: queries, keys and values are never stored, and are computed again in
 * backward. Kept for backward: x and at most key_channels (C + e + 2) values a sample. Memory
 * beyond that and the gradients does not grow with n.
 */
#ifndef TL_EFFICIENT_ATTENTION_H
#define TL_EFFICIENT_ATTENTION_H

#include <tapeline/attention_kinds.h>
#include <tapeline/parameters.h>
#include <tapeline/random.h>
#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Start from tl_efficient_attention_config_default(), which sets what is not a channel count. */
typedef struct tl_efficient_attention_config {
    int64_t in_channels;    /* C */
    int64_t key_channels;   /* 0: C / 2, at least 1 */
    int64_t value_channels; /* 0: C */
    int64_t heads;          /* 0: 1; divides key and value channels */
    tl_attention_normalization normalization;
    double temperature; /* 0: 1; both softmaxes are of logits / temperature */
    bool reprojection;  /* without it the result has value_channels channels */
    bool residual;      /* x is added; wants as many channels as x has */
} tl_efficient_attention_config;

/* One head, softmax, temperature 1, with reprojection and residual. */
TL_API tl_efficient_attention_config tl_efficient_attention_config_default(void);

/* Fills in defaults and checks: TL_ERROR_INVALID_ARGUMENT with a message that names the field. */
TL_API tl_status tl_efficient_attention_config_check(tl_efficient_attention_config *config,
                                                     tl_error *error);

/* Weights are [out, in], biases [out]; the reprojection's are NULL where there is none. */
typedef struct tl_efficient_attention_weights {
    tl_tensor *keys_weight, *keys_bias;                 /* [K, C], [K] */
    tl_tensor *queries_weight, *queries_bias;           /* [K, C], [K] */
    tl_tensor *values_weight, *values_bias;             /* [V, C], [V] */
    tl_tensor *reprojection_weight, *reprojection_bias; /* [C, V], [C] */
} tl_efficient_attention_weights;

/* x [N, spatial..., C] -> [N, spatial..., C], or [..., value_channels] without reprojection. The
 * gradient of the key bias is exactly zero under softmax. */
TL_API tl_tensor *tl_efficient_attention(tl_tape *tape, tl_tensor *x,
                                         const tl_efficient_attention_weights *weights,
                                         const tl_efficient_attention_config *config);

/* ---- the layer */

typedef struct tl_efficient_attention_layer {
    tl_efficient_attention_config config;
    tl_efficient_attention_weights weights;
} tl_efficient_attention_layer;

/* Adds prefix.keys.weight, prefix.keys.bias, and the same for queries, values and reprojection.
 * Weights start uniform in +-1/sqrt(inputs) as the authors' do (the default of their framework),
 * biases at zero. */
TL_API tl_status tl_efficient_attention_layer_init(tl_efficient_attention_layer *layer,
                                                   tl_parameters *parameters, const char *prefix,
                                                   const tl_efficient_attention_config *config,
                                                   tl_random *random, tl_error *error);
TL_API tl_tensor *tl_efficient_attention_layer_forward(const tl_efficient_attention_layer *layer,
                                                       tl_tape *tape, tl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
