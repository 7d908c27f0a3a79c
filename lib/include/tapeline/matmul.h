/* matmul.h - matrix products and the fully connected layer. Results belong to the tape. */
#ifndef TL_MATMUL_H
#define TL_MATMUL_H

#include <tapeline/initialize.h>
#include <tapeline/parameters.h>
#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* a [..., M, K], b [..., K, P] -> [..., M, P] = a b, for each of the leading (batch) positions.
 * Both have rank 2 or more, equal rank and equal leading extents; anything else is TL_ERROR_SHAPE.
 */
TL_API tl_tensor *tl_matmul(tl_tape *tape, tl_tensor *a, tl_tensor *b);

/* x [..., I], weight [O, I], bias [O] or NULL -> y [..., O]:
 *     y[..., o] = sum_i x[..., i] weight[o, i] + bias[o]
 * x has rank 1 or more. Also a 1x1 convolution of channels-last data. */
TL_API tl_tensor *tl_linear(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias);

/* y = residual + linear(x) in one pass; residual has the shape of y [..., O]. */
TL_API tl_tensor *tl_linear_add(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                                tl_tensor *residual);

/* ---- the layer */

/* How the weight is drawn. The bias starts at zero, except with TL_LINEAR_UNIFORM. */
typedef enum tl_linear_initialization {
    TL_LINEAR_UNIFORM = 0, /* weight and bias uniform in +-1 / sqrt(in) */
    TL_LINEAR_HE = 1,      /* normal with deviation sqrt(2 / in): before a ReLU */
    TL_LINEAR_XAVIER = 2,  /* uniform in +-sqrt(6 / (in + out)) */
    TL_LINEAR_ZERO = 3,
} tl_linear_initialization;

typedef struct tl_linear_layer_config {
    int64_t in_features;  /* I, at least 1 */
    int64_t out_features; /* O, at least 1 */
    bool use_bias;
    tl_linear_initialization initialization;
} tl_linear_layer_config;

/* "prefix.weight" [O, I] and, with use_bias, "prefix.bias" [O]. */
typedef struct tl_linear_layer {
    tl_tensor *weight;
    tl_tensor *bias; /* NULL: none */
} tl_linear_layer;

/* The form of all layers: parameters.h. */
TL_API tl_status tl_linear_layer_init(tl_linear_layer *layer, tl_parameters *parameters,
                                      const char *prefix, const tl_linear_layer_config *config,
                                      tl_random *random, tl_error *error);

/* x [..., I] -> [..., O], see tl_linear. */
TL_API tl_tensor *tl_linear_layer_forward(const tl_linear_layer *layer, tl_tape *tape,
                                          tl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
