/* stereo_net.h - depth from a rectified stereo pair: a small network after PSMNet (Chang and Chen
 * 2018, arXiv 1803.08669), without its spatial pyramid and its hourglasses.
 *
 *     x [N, H, W, 6]: the left image's colours, then the right one's; H and W multiples of 4
 *     features, the same for both images: relu(bn(conv 3x3, stride 2)) to width / 2 channels, again
 *         to width; feature_blocks residual blocks; [module 0]; conv 3x3      [N, H/4, W/4, width]
 *     volume = cost_volume(left, right)                    [N, H/4, W/4, max_disparity/4, groups]
 *     volume: relu(bn(conv 3x3x3)) to volume_width channels; volume_blocks residual blocks of two
 *         3x3x3 convolutions; [module 1]; conv 3x3x3 to one channel
 *     scores, upsampled bilinearly to H and W; p = softmax over the max_disparity/4 levels
 *     disparity = sum over levels k of 4 k p_k              [N, H, W], soft argmin of Kendall et
 * al. 2017 (arXiv 1703.04309)
 *
 * Module 1 works on a volume: its positions are rows, columns and disparities.
 */
#ifndef TL_STEREO_NET_H
#define TL_STEREO_NET_H

#include <tapeline/efficient_attention.h>
#include <tapeline/model.h>
#include <tapeline/non_local.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Image pixels of a feature position, per side. */
enum { TL_STEREO_NET_STRIDE = 4, TL_STEREO_NET_MAX_DISPARITY = 256, TL_STEREO_NET_MAX_BLOCKS = 8 };

enum { TL_STEREO_NET_FEATURES = 0, TL_STEREO_NET_VOLUME = 1 }; /* where modules may be */

typedef struct tl_stereo_net_config {
    int max_disparity; /* a multiple of 4, at most W; nothing beyond max_disparity - 4 is found */
    int width;         /* channels of the features, even */
    int feature_blocks;
    int groups; /* of the correlation; divides width */
    int volume_width;
    int volume_blocks;
    tl_attention_kind attention;
    uint32_t attention_places; /* bit TL_STEREO_NET_FEATURES, bit TL_STEREO_NET_VOLUME */
    int heads;
    int key_channels_divisor;
    tl_normalization normalization;
    tl_pairwise pairwise; /* of the non-local block */
    bool use_scale;       /* its softmax forms: scores over sqrt(key channels / heads) */
    tl_attention_implementation implementation;
    double batch_norm_momentum;
    double batch_norm_epsilon;
} tl_stereo_net_config;

/* 36 pixels, features of width 32 with two blocks, 8 groups, a volume of width 16 with one block,
 * no attention; else as tl_resnet_cifar_config_default. */
TL_API tl_stereo_net_config tl_stereo_net_config_default(void);

/* A network with its parameters drawn from `seed`; the caller frees it. NULL with
 * TL_ERROR_INVALID_ARGUMENT if a field of the config is out of range or does not fit another. */
TL_API tl_model *tl_stereo_net_create(tl_context *context, const tl_stereo_net_config *config,
                                      uint64_t seed, tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
