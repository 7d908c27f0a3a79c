#include "models/residual_block.h"

#include <stdio.h>

#include "core/error_internal.h"

tl_status tl_conv_bn_init(tl_conv_bn *pair, tl_parameters *parameters, const char *prefix,
                          const char *conv_name, const char *bn_name,
                          const tl_conv_bn_config *config, tl_random *random, tl_error *error) {
    char name[TL_NAME_SIZE];
    const int padding = (config->kernel_size - 1) / 2;
    (void)snprintf(name, sizeof name, "%s.%s", prefix, conv_name);
    TL_TRY(tl_conv2d_layer_init(
        &pair->conv, parameters, name,
        &(tl_conv2d_layer_config){.in_channels = config->in_channels,
                                  .out_channels = config->out_channels,
                                  .kernel_size = {config->kernel_size, config->kernel_size},
                                  .stride = {config->stride, config->stride},
                                  .padding = {padding, padding}},
        random, error));
    (void)snprintf(name, sizeof name, "%s.%s", prefix, bn_name);
    return tl_batch_norm_layer_init(
        &pair->bn, parameters, name,
        &(tl_batch_norm_layer_config){
            .channels = config->out_channels,
            .norm = {.momentum = config->momentum, .epsilon = config->epsilon}},
        error);
}

tl_tensor *tl_conv_bn_forward(const tl_conv_bn *pair, tl_tape *tape, tl_tensor *x, bool relu,
                              tl_tensor *residual) {
    tl_tensor *h = tl_conv2d_layer_forward(&pair->conv, tape, x);
    tl_tensor *y = relu ? tl_batch_norm_layer_forward_relu(&pair->bn, tape, h, residual)
                        : tl_batch_norm_layer_forward(&pair->bn, tape, h);
    tl_release(tape, h);
    return y;
}

tl_status tl_residual_block_init(tl_residual_block *block, tl_parameters *parameters,
                                 const char *prefix, const tl_conv_bn_config *config,
                                 tl_random *random, tl_error *error) {
    TL_TRY(
        tl_conv_bn_init(&block->first, parameters, prefix, "conv1", "bn1", config, random, error));
    tl_conv_bn_config second = *config;
    second.in_channels = config->out_channels;
    second.stride = 1;
    TL_TRY(tl_conv_bn_init(&block->second, parameters, prefix, "conv2", "bn2", &second, random,
                           error));
    block->has_shortcut = config->stride != 1 || config->in_channels != config->out_channels;
    if (!block->has_shortcut) {
        return TL_OK;
    }
    tl_conv_bn_config shortcut = *config;
    shortcut.kernel_size = 1;
    char name[TL_NAME_SIZE];
    (void)snprintf(name, sizeof name, "%s.shortcut", prefix);
    return tl_conv_bn_init(&block->shortcut, parameters, name, "conv", "bn", &shortcut, random,
                           error);
}

tl_tensor *tl_residual_block_forward(const tl_residual_block *block, tl_tape *tape, tl_tensor *x) {
    tl_tensor *h = tl_conv_bn_forward(&block->first, tape, x, true, NULL);
    tl_tensor *residual =
        block->has_shortcut ? tl_conv_bn_forward(&block->shortcut, tape, x, false, NULL) : x;
    tl_tensor *y = tl_conv_bn_forward(&block->second, tape, h, true, residual);
    tl_release(tape, h);
    if (block->has_shortcut) {
        tl_release(tape, residual);
    }
    tl_release(tape, x);
    return y;
}
