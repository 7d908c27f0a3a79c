#include <tapeline/matmul.h>

#include <inttypes.h>
#include <math.h>

#include "core/error_internal.h"

tl_status tl_linear_layer_init(tl_linear_layer *layer, tl_parameters *parameters,
                               const char *prefix, const tl_linear_layer_config *config,
                               tl_random *random, tl_error *error) {
    tl_error_clear(error);
    const int64_t in = config->in_features;
    const int64_t out = config->out_features;
    if (in < 1 || out < 1) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "linear layer: in_features and out_features must be at least 1, found "
                       "%" PRId64 " and %" PRId64,
                       in, out);
    }
    if (config->initialization < TL_LINEAR_UNIFORM || config->initialization > TL_LINEAR_ZERO) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "linear layer: unknown initialization %d",
                       (int)config->initialization);
    }
    tl_error own;
    error = error ? error : &own;
    *layer = (tl_linear_layer){0};
    layer->weight = tl_parameters_add(parameters, prefix, "weight", TL_GROUP_WEIGHT, "out in", 2,
                                      (int64_t[]){out, in}, error);
    if (layer->weight == NULL) {
        return error->status;
    }
    if (config->use_bias) {
        layer->bias =
            tl_parameters_add(parameters, prefix, "bias", TL_GROUP_NO_DECAY, "out", 1, &out, error);
        if (layer->bias == NULL) {
            return error->status;
        }
    }
    if (config->initialization == TL_LINEAR_UNIFORM) {
        const double bound = 1 / sqrt((double)in);
        tl_initialize_uniform(layer->weight, -bound, bound, random);
        if (layer->bias != NULL) {
            tl_initialize_uniform(layer->bias, -bound, bound, random);
        }
    } else if (config->initialization == TL_LINEAR_HE) {
        tl_initialize_he_normal(layer->weight, in, random);
    } else if (config->initialization == TL_LINEAR_XAVIER) {
        tl_initialize_xavier_uniform(layer->weight, in, out, random);
    }
    return TL_OK;
}

tl_tensor *tl_linear_layer_forward(const tl_linear_layer *layer, tl_tape *tape, tl_tensor *x) {
    return tl_linear(tape, x, layer->weight, layer->bias);
}
