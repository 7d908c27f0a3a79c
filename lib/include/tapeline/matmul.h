/* matmul.h - matrix products and the fully connected layer. */
#ifndef TL_MATMUL_H
#define TL_MATMUL_H

#include <tapeline/parameters.h>
#include <tapeline/random.h>
#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* a [..., M, K], b [..., K, P] with the same leading dimensions (or none) -> y [..., M, P] = a b.
 * Keeps each operand whose partner wants a gradient. */
TL_API tl_tensor *tl_matmul(tl_tape *tape, tl_tensor *a, tl_tensor *b);

/* x [..., I], weight [O, I], bias [O] or NULL -> y [..., O] = x weightT + bias. On channels-last
 * activations this is the 1x1 convolution. Keeps x. */
TL_API tl_tensor *tl_linear(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias);

typedef struct tl_linear_layer_config {
    int64_t in_features;
    int64_t out_features;
    bool use_bias;
} tl_linear_layer_config;

typedef struct tl_linear_layer {
    tl_tensor *weight; /* [out, in] */
    tl_tensor *bias;   /* [out], or NULL */
} tl_linear_layer;

/* Adds prefix.weight and prefix.bias, both uniform in +-1 / sqrt(in_features). */
TL_API tl_status tl_linear_layer_init(tl_linear_layer *layer, tl_parameters *parameters,
                                      const char *prefix, const tl_linear_layer_config *config,
                                      tl_random *random, tl_error *error);
TL_API tl_tensor *tl_linear_layer_forward(const tl_linear_layer *layer, tl_tape *tape,
                                          tl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
