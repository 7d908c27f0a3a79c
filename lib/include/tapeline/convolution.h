/* convolution.h - convolutions over one, two and three spatial dimensions, channels-last.
 *
 * Cross-correlation (the kernel is not flipped) with zeros outside; per dimension
 *
 *     out = floor((in + 2 padding - dilation (kernel - 1) - 1) / stride) + 1
 *     y[n, t, o] = bias[o] + sum over kernel positions k and channels c of o's group of
 *                  weight[o, k, c] x[n, t stride + k dilation - padding, c]
 *
 * Group g of `groups` connects input channels g C/groups ... with output channels g O/groups ....
 * In configs 0 means 1 for stride, dilation and groups. Kept for backward: x. Results belong to the
 * tape.
 */
#ifndef TL_CONVOLUTION_H
#define TL_CONVOLUTION_H

#include <tapeline/parameters.h>
#include <tapeline/random.h>
#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_conv1d_config {
    int64_t stride;
    int64_t padding; /* zeros on both sides */
    int64_t dilation;
    int64_t groups;
} tl_conv1d_config;

typedef struct tl_conv2d_config {
    int64_t stride[2]; /* height, width */
    int64_t padding[2];
    int64_t dilation[2];
    int64_t groups;
} tl_conv2d_config;

typedef struct tl_conv3d_config {
    int64_t stride[3]; /* depth (time), height, width */
    int64_t padding[3];
    int64_t dilation[3];
    int64_t groups;
} tl_conv3d_config;

/* x [N, L, C], weight [O, K, C/groups], bias [O] or NULL -> y [N, L', O]. `config` NULL: stride 1,
 * no padding. TL_ERROR_SHAPE if shapes do not fit or the kernel is larger than the padded input;
 * TL_ERROR_INVALID_ARGUMENT if a config value is negative or groups divide not the channels. */
TL_API tl_tensor *tl_conv1d(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                            const tl_conv1d_config *config);

/* x [N, H, W, C], weight [O, KH, KW, C/groups] -> y [N, H', W', O]. */
TL_API tl_tensor *tl_conv2d(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                            const tl_conv2d_config *config);

/* x [N, D, H, W, C], weight [O, KD, KH, KW, C/groups] -> y [N, D', H', W', O]. */
TL_API tl_tensor *tl_conv3d(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                            const tl_conv3d_config *config);

typedef struct tl_conv_transpose2d_config {
    int64_t stride[2];
    int64_t padding[2];
    int64_t output_padding[2]; /* below stride or dilation: rows and columns added at the end */
    int64_t dilation[2];
    int64_t groups;
} tl_conv_transpose2d_config;

/* The adjoint of tl_conv2d with respect to its input, as an operation of its own (fractionally
 * strided convolution). x [N, H, W, C], weight [C, KH, KW, O/groups], bias [O] or NULL ->
 * y [N, H', W', O] with H' = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1.
 */
TL_API tl_tensor *tl_conv_transpose2d(tl_tape *tape, tl_tensor *x, tl_tensor *weight,
                                      tl_tensor *bias, const tl_conv_transpose2d_config *config);

/* ---- the layer */

typedef struct tl_conv2d_layer_config {
    int64_t in_channels;
    int64_t out_channels;
    int64_t kernel_size[2];
    int64_t stride[2];
    int64_t padding[2];
    int64_t dilation[2];
    int64_t groups;
    bool use_bias;
} tl_conv2d_layer_config;

typedef struct tl_conv2d_layer {
    tl_conv2d_config config;
    tl_tensor *weight; /* [out, kh, kw, in / groups] */
    tl_tensor *bias;   /* [out], or NULL */
} tl_conv2d_layer;

/* Adds prefix.weight, normal with deviation sqrt(2 / (KH KW out_channels / groups)) (He et al. 2015
 * in its backward form, as residual networks are trained with), and prefix.bias = 0. */
TL_API tl_status tl_conv2d_layer_init(tl_conv2d_layer *layer, tl_parameters *parameters,
                                      const char *prefix, const tl_conv2d_layer_config *config,
                                      tl_random *random, tl_error *error);
TL_API tl_tensor *tl_conv2d_layer_forward(const tl_conv2d_layer *layer, tl_tape *tape,
                                          tl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
