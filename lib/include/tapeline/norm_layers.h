/* norm_layers.h - normalisations with their parameters, in the form all layers have (parameters.h).
 *
 * All add "prefix.weight" (ones, or zeros with `zero_gain`) and "prefix.bias" (zeros), which get no
 * weight decay. Nothing is drawn, so init takes no random numbers. A gain that starts at zero makes
 * the branch it ends start as nothing: a residual block or a non-local block then begins as the
 * identity (Goyal et al. 2017, arXiv 1706.02677, section 5.1; Wang et al. 2018, arXiv 1711.07971,
 * section 4.1).
 */
#ifndef TL_NORM_LAYERS_H
#define TL_NORM_LAYERS_H

#include <tapeline/normalization.h>
#include <tapeline/parameters.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_batch_norm_layer_config {
    int64_t channels;
    bool zero_gain;
    tl_batch_norm_config norm; /* all zero: tl_batch_norm_config_default() */
} tl_batch_norm_layer_config;

typedef struct tl_batch_norm_layer {
    tl_tensor *weight; /* [channels], as all below */
    tl_tensor *bias;
    tl_tensor *running_mean;
    tl_tensor *running_var;
    tl_batch_norm_config config;
} tl_batch_norm_layer;

/* Adds also the buffers "prefix.running_mean" (zeros) and "prefix.running_var" (ones). */
TL_API tl_status tl_batch_norm_layer_init(tl_batch_norm_layer *layer, tl_parameters *parameters,
                                          const char *prefix,
                                          const tl_batch_norm_layer_config *config,
                                          tl_error *error);
/* tl_batch_norm. */
TL_API tl_tensor *tl_batch_norm_layer_forward(const tl_batch_norm_layer *layer, tl_tape *tape,
                                              tl_tensor *x);
/* tl_batch_norm_relu; residual may be NULL. */
TL_API tl_tensor *tl_batch_norm_layer_forward_relu(const tl_batch_norm_layer *layer, tl_tape *tape,
                                                   tl_tensor *x, tl_tensor *residual);

typedef struct tl_layer_norm_layer_config {
    int64_t channels; /* the last dimension, which is normalised */
    bool zero_gain;
    double epsilon; /* 0: 1e-5 */
} tl_layer_norm_layer_config;

typedef struct tl_layer_norm_layer {
    tl_tensor *weight; /* [channels] */
    tl_tensor *bias;
    double epsilon;
} tl_layer_norm_layer;

/* TL_ERROR_INVALID_ARGUMENT for channels below 1 or a negative epsilon. */
TL_API tl_status tl_layer_norm_layer_init(tl_layer_norm_layer *layer, tl_parameters *parameters,
                                          const char *prefix,
                                          const tl_layer_norm_layer_config *config,
                                          tl_error *error);
/* tl_layer_norm over the last dimension. */
TL_API tl_tensor *tl_layer_norm_layer_forward(const tl_layer_norm_layer *layer, tl_tape *tape,
                                              tl_tensor *x);

typedef struct tl_group_norm_layer_config {
    int64_t channels;
    int64_t groups; /* divides channels */
    bool zero_gain;
    double epsilon; /* 0: 1e-5 */
} tl_group_norm_layer_config;

typedef struct tl_group_norm_layer {
    tl_tensor *weight; /* [channels] */
    tl_tensor *bias;
    int64_t groups;
    double epsilon;
} tl_group_norm_layer;

/* TL_ERROR_INVALID_ARGUMENT for channels below 1, a negative epsilon, or groups that do not divide
 * the channels. */
TL_API tl_status tl_group_norm_layer_init(tl_group_norm_layer *layer, tl_parameters *parameters,
                                          const char *prefix,
                                          const tl_group_norm_layer_config *config,
                                          tl_error *error);
/* tl_group_norm. */
TL_API tl_tensor *tl_group_norm_layer_forward(const tl_group_norm_layer *layer, tl_tape *tape,
                                              tl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
