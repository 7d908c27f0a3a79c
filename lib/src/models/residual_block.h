/* residual_block.h - what residual networks are built of: convolution with batch norm, and the
 * basic block of two of them. */
#ifndef TL_RESIDUAL_BLOCK_H
#define TL_RESIDUAL_BLOCK_H

#include <tapeline/convolution.h>
#include <tapeline/norm_layers.h>
#include <tapeline/parameters.h>

typedef struct tl_conv_bn {
    tl_conv2d_layer conv;
    tl_batch_norm_layer bn;
} tl_conv_bn;

typedef struct tl_conv_bn_config {
    int in_channels;
    int out_channels;
    int kernel_size; /* odd; padding keeps the size at stride 1 */
    int stride;
    double momentum;
    double epsilon;
} tl_conv_bn_config;

/* Names "prefix.{conv_name}.weight" and "prefix.{bn_name}.*". */
tl_status tl_conv_bn_init(tl_conv_bn *pair, tl_parameters *parameters, const char *prefix,
                          const char *conv_name, const char *bn_name,
                          const tl_conv_bn_config *config, tl_random *random, tl_error *error);

/* bn(conv(x)), or relu(bn(conv(x)) + residual) where residual may be NULL. Keeps x. */
tl_tensor *tl_conv_bn_forward(const tl_conv_bn *pair, tl_tape *tape, tl_tensor *x, bool relu,
                              tl_tensor *residual);

/* relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)), the block of He et al. 2016. */
typedef struct tl_residual_block {
    tl_conv_bn first;
    tl_conv_bn second;
    tl_conv_bn shortcut;
    bool has_shortcut; /* else the identity */
} tl_residual_block;

tl_status tl_residual_block_init(tl_residual_block *block, tl_parameters *parameters,
                                 const char *prefix, const tl_conv_bn_config *config,
                                 tl_random *random, tl_error *error);

/* Releases x. */
tl_tensor *tl_residual_block_forward(const tl_residual_block *block, tl_tape *tape, tl_tensor *x);

#endif
