#include <tapeline/convolution.h>
#include <tapeline/initialize.h>

#include "core/error_internal.h"

tl_status tl_conv2d_layer_init(tl_conv2d_layer *layer, tl_parameters *parameters,
                               const char *prefix, const tl_conv2d_layer_config *config,
                               tl_random *random, tl_error *error) {
    tl_error local;
    error = error != NULL ? error : &local;
    *layer = (tl_conv2d_layer){.config = {.stride = {config->stride[0], config->stride[1]},
                                          .padding = {config->padding[0], config->padding[1]},
                                          .dilation = {config->dilation[0], config->dilation[1]},
                                          .groups = config->groups}};
    const int64_t groups = config->groups > 0 ? config->groups : 1;
    if (config->in_channels % groups != 0 || config->out_channels % groups != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: groups must divide the input and output channels", prefix);
    }
    layer->weight =
        tl_parameters_add(parameters, prefix, "weight", TL_GROUP_WEIGHT, "out kh kw in", 4,
                          (int64_t[]){config->out_channels, config->kernel_size[0],
                                      config->kernel_size[1], config->in_channels / groups},
                          error);
    if (layer->weight == NULL) {
        return error->status;
    }
    tl_initialize_he_normal(
        layer->weight,
        config->kernel_size[0] * config->kernel_size[1] * config->out_channels / groups, random);
    if (config->use_bias) {
        layer->bias = tl_parameters_add(parameters, prefix, "bias", TL_GROUP_NO_DECAY, "out", 1,
                                        (int64_t[]){config->out_channels}, error);
        if (layer->bias == NULL) {
            return error->status;
        }
    }
    return TL_OK;
}

tl_tensor *tl_conv2d_layer_forward(const tl_conv2d_layer *layer, tl_tape *tape, tl_tensor *x) {
    return tl_conv2d(tape, x, layer->weight, layer->bias, &layer->config);
}
