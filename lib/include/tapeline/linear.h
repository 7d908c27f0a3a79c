/* linear.h - a fully connected layer. */
#ifndef TL_LINEAR_H
#define TL_LINEAR_H

#include <tapeline/initialize.h>
#include <tapeline/matmul.h>
#include <tapeline/parameters.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How the weight is drawn. The bias starts at zero. */
typedef enum tl_linear_initialization {
    TL_LINEAR_HE = 0,     /* normal with deviation sqrt(2 / in): before a ReLU */
    TL_LINEAR_XAVIER = 1, /* uniform in +-sqrt(6 / (in + out)) */
    TL_LINEAR_ZERO = 2,
} tl_linear_initialization;

typedef struct tl_linear_layer_config {
    int64_t in_features;  /* I, at least 1 */
    int64_t out_features; /* O, at least 1 */
    bool without_bias;
    tl_linear_initialization initialization;
} tl_linear_layer_config;

/* "prefix.weight" [O, I] and, unless without_bias, "prefix.bias" [O]. */
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
