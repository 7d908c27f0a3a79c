/* resnet_cifar.h - the residual network for small images of He et al. 2016 (arXiv 1512.03385,
 * section 4.2), with attention modules.
 *
 *     x = relu(bn(conv 3x3 (x)))                            stem: input_channels -> width
 *     for stage s = 0, 1, 2:                                width 2^s channels
 *         for block b = 0 ... n-1:                          stride 2 if s > 0 and b = 0, else 1
 *             t = relu(bn1(conv1 3x3, stride (x)))
 *             t = bn2(conv2 3x3 (t))
 *             x = relu(t + shortcut(x))
 *             if attention_every_block and s in attention_stages: x = module(x)
 *         if s in attention_stages (and not every block): x = module(x)
 *     logits = linear(mean over H and W of x)
 *
 * The shortcut is the identity where shapes allow, else bn(conv 1x1, stride (x)). Convolutions have
 * no bias. Parameters are named stem.conv.weight, stages.{s}.blocks.{b}.conv1.weight,
 * stages.{s}.attention.keys.weight (or stages.{s}.blocks.{b}.attention.*), head.weight, ...
 * Stages and blocks count from 0. Heights and widths need not be even.
 */
#ifndef TL_RESNET_CIFAR_H
#define TL_RESNET_CIFAR_H

#include <tapeline/efficient_attention.h>
#include <tapeline/model.h>
#include <tapeline/non_local.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TL_RESNET_CIFAR_STAGES = 3 };

typedef struct tl_resnet_cifar_config {
    int input_channels;
    int depth; /* 6 n + 2, with n blocks in each of the three stages */
    int width; /* channels of stage 0 */
    int classes;
    tl_attention_kind attention;
    uint32_t attention_stages;  /* bit s: stage s has modules */
    bool attention_every_block; /* a module after every block of these stages, not just the last */
    int heads;
    int key_channels_divisor; /* key channels = the stage's channels / this; value channels = the
                                 stage's channels */
    tl_normalization normalization; /* of efficient attention */
    tl_pairwise pairwise;           /* of the non-local block */
    bool use_scale;                 /* its softmax forms: scores over sqrt(key channels / heads) */
    tl_attention_implementation implementation;
    double batch_norm_momentum;
    double batch_norm_epsilon;
} tl_resnet_cifar_config;

/* ResNet-20 for 3 input channels and 10 classes, width 16, without attention; the modules, where
 * asked for: one head, half the channels for keys, softmax normalisation, embedded Gaussian, tiled.
 * Batch norm: momentum 0.1, epsilon 1e-5. */
TL_API tl_resnet_cifar_config tl_resnet_cifar_config_default(void);

/* Convolutions and the head start as He et al. 2015 propose, batch norm with gain 1; the same seed
 * gives the same weights. TL_ERROR_INVALID_ARGUMENT names the field that does not fit. */
TL_API tl_model *tl_resnet_cifar_create(tl_context *context, const tl_resnet_cifar_config *config,
                                        uint64_t seed, tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
