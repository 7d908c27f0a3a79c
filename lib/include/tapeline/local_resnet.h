/* local_resnet.h - a residual network that sees little at a time: no strides, no pooling inside.
 *
 *     x = relu(bn(conv 3x3 (x)))                            stem: input_channels -> width
 *     for block b = 0 ... blocks-1:
 *         x = relu(bn2(conv2 3x3 (relu(bn1(conv1 3x3 (x))))) + x)
 *         if b is in attention_blocks: x = module(x)
 *     classifier: logits = linear(mean over H and W of x)   [N, classes]
 *     dense:      logits = conv 1x1 (x)                     [N, H, W, classes]
 *
 * Without attention an output pixel depends on a window of 4 blocks + 3 pixels: 11 for the default
 * of two blocks. It is the baseline of tasks in which far places must be related (the long-range
 * dataset), and with attention modules it shows what they add.
 */
#ifndef TL_LOCAL_RESNET_H
#define TL_LOCAL_RESNET_H

#include <tapeline/efficient_attention.h>
#include <tapeline/model.h>
#include <tapeline/non_local.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TL_LOCAL_RESNET_MAX_BLOCKS = 32 };

typedef struct tl_local_resnet_config {
    int input_channels;
    int blocks;
    int width; /* channels throughout */
    int classes;
    bool dense; /* a class for every pixel */
    tl_attention_kind attention;
    uint32_t attention_blocks; /* bit b: a module after block b */
    int heads;
    int key_channels_divisor;
    tl_normalization normalization;
    tl_pairwise pairwise; /* of the non-local block */
    bool use_scale;       /* its softmax forms: scores over sqrt(key channels / heads) */
    tl_attention_implementation implementation;
    double batch_norm_momentum;
    double batch_norm_epsilon;
} tl_local_resnet_config;

/* Two blocks of width 32 for 3 input channels and 10 classes, no attention; else as
 * tl_resnet_cifar_config_default. */
TL_API tl_local_resnet_config tl_local_resnet_config_default(void);

/* Initial values as of tl_resnet_cifar_create; the same seed gives the same weights.
 * TL_ERROR_INVALID_ARGUMENT names the field that does not fit. */
TL_API tl_model *tl_local_resnet_create(tl_context *context, const tl_local_resnet_config *config,
                                        uint64_t seed, tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
