#include <tapeline/initialize.h>
#include <tapeline/matmul.h>

#include <math.h>

#include "core/error_internal.h"

tl_status tl_linear_layer_init(tl_linear_layer *layer, tl_parameters *parameters,
                               const char *prefix, const tl_linear_layer_config *config,
                               tl_random *random, tl_error *error) {
    tl_error local;
    error = error != NULL ? error : &local;
    const double bound = 1.0 / sqrt((double)config->in_features);
    *layer = (tl_linear_layer){0};
    layer->weight =
        tl_parameters_add(parameters, prefix, "weight", TL_GROUP_WEIGHT, "out in", 2,
                          (int64_t[]){config->out_features, config->in_features}, error);
    if (layer->weight == NULL) {
        return error->status;
    }
    tl_initialize_uniform(layer->weight, -bound, bound, random);
    if (config->use_bias) {
        layer->bias = tl_parameters_add(parameters, prefix, "bias", TL_GROUP_NO_DECAY, "out", 1,
                                        (int64_t[]){config->out_features}, error);
        if (layer->bias == NULL) {
            return error->status;
        }
        tl_initialize_uniform(layer->bias, -bound, bound, random);
    }
    return TL_OK;
}

tl_tensor *tl_linear_layer_forward(const tl_linear_layer *layer, tl_tape *tape, tl_tensor *x) {
    return tl_linear(tape, x, layer->weight, layer->bias);
}
