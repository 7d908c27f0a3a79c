#include <tapeline/norm_layers.h>

#include <tapeline/initialize.h>

#include "core/error_internal.h"

static const double default_epsilon = 1e-5;

static tl_status add(tl_tensor **tensor, tl_parameters *parameters, const char *prefix,
                     const char *name, tl_parameter_group group, int64_t channels, double value,
                     tl_error *error) {
    tl_error own;
    tl_error *reported = error != NULL ? error : &own;
    *tensor =
        tl_parameters_add(parameters, prefix, name, group, "channels", 1, &channels, reported);
    if (*tensor == NULL) {
        return reported->status;
    }
    tl_initialize_constant(*tensor, value);
    return TL_OK;
}

static tl_status check_channels(const char *layer, int64_t channels, double epsilon,
                                tl_error *error) {
    tl_error_clear(error);
    if (channels < 1) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: channels must be at least 1, found %lld", layer, (long long)channels);
    }
    if (!(epsilon >= 0.0)) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: epsilon must not be negative, found %g", layer, epsilon);
    }
    return TL_OK;
}

tl_status tl_batch_norm_layer_init(tl_batch_norm_layer *layer, tl_parameters *parameters,
                                   const char *prefix, const tl_batch_norm_layer_config *config,
                                   tl_error *error) {
    const int64_t channels = config->channels;
    const bool unset = config->norm.momentum == 0.0 && config->norm.epsilon == 0.0;
    TL_TRY(check_channels("batch_norm_layer", channels, config->norm.epsilon, error));
    *layer = (tl_batch_norm_layer){.config = unset ? tl_batch_norm_config_default() : config->norm};
    TL_TRY(add(&layer->weight, parameters, prefix, "weight", TL_GROUP_NO_DECAY, channels,
               config->zero_gain ? 0.0 : 1.0, error));
    TL_TRY(add(&layer->bias, parameters, prefix, "bias", TL_GROUP_NO_DECAY, channels, 0.0, error));
    TL_TRY(add(&layer->running_mean, parameters, prefix, "running_mean", TL_GROUP_BUFFER, channels,
               0.0, error));
    TL_TRY(add(&layer->running_var, parameters, prefix, "running_var", TL_GROUP_BUFFER, channels,
               1.0, error));
    return TL_OK;
}

tl_tensor *tl_batch_norm_layer_forward(const tl_batch_norm_layer *layer, tl_tape *tape,
                                       tl_tensor *x) {
    return tl_batch_norm(tape, x, layer->weight, layer->bias, layer->running_mean,
                         layer->running_var, &layer->config);
}

tl_tensor *tl_batch_norm_layer_forward_relu(const tl_batch_norm_layer *layer, tl_tape *tape,
                                            tl_tensor *x, tl_tensor *residual) {
    return tl_batch_norm_relu(tape, x, residual, layer->weight, layer->bias, layer->running_mean,
                              layer->running_var, &layer->config);
}

tl_status tl_layer_norm_layer_init(tl_layer_norm_layer *layer, tl_parameters *parameters,
                                   const char *prefix, const tl_layer_norm_layer_config *config,
                                   tl_error *error) {
    const int64_t channels = config->channels;
    TL_TRY(check_channels("layer_norm_layer", channels, config->epsilon, error));
    *layer = (tl_layer_norm_layer){.epsilon =
                                       config->epsilon == 0.0 ? default_epsilon : config->epsilon};
    TL_TRY(add(&layer->weight, parameters, prefix, "weight", TL_GROUP_NO_DECAY, channels,
               config->zero_gain ? 0.0 : 1.0, error));
    return add(&layer->bias, parameters, prefix, "bias", TL_GROUP_NO_DECAY, channels, 0.0, error);
}

tl_tensor *tl_layer_norm_layer_forward(const tl_layer_norm_layer *layer, tl_tape *tape,
                                       tl_tensor *x) {
    return tl_layer_norm(tape, x, 1, layer->weight, layer->bias, layer->epsilon);
}

tl_status tl_group_norm_layer_init(tl_group_norm_layer *layer, tl_parameters *parameters,
                                   const char *prefix, const tl_group_norm_layer_config *config,
                                   tl_error *error) {
    const int64_t channels = config->channels;
    TL_TRY(check_channels("group_norm_layer", channels, config->epsilon, error));
    if (config->groups < 1 || channels % config->groups != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "group_norm_layer: groups must divide the %lld channels, found %lld",
                       (long long)channels, (long long)config->groups);
    }
    *layer = (tl_group_norm_layer){.groups = config->groups,
                                   .epsilon =
                                       config->epsilon == 0.0 ? default_epsilon : config->epsilon};
    TL_TRY(add(&layer->weight, parameters, prefix, "weight", TL_GROUP_NO_DECAY, channels,
               config->zero_gain ? 0.0 : 1.0, error));
    return add(&layer->bias, parameters, prefix, "bias", TL_GROUP_NO_DECAY, channels, 0.0, error);
}

tl_tensor *tl_group_norm_layer_forward(const tl_group_norm_layer *layer, tl_tape *tape,
                                       tl_tensor *x) {
    return tl_group_norm(tape, x, layer->groups, layer->weight, layer->bias, layer->epsilon);
}
