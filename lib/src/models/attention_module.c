#include "models/attention_module.h"

#include "core/error_internal.h"

tl_status tl_attention_module_init(tl_attention_module *module, tl_parameters *parameters,
                                   const char *prefix, const tl_attention_module_config *config,
                                   tl_random *random, tl_error *error) {
    module->kind = config->kind;
    if (config->channels % config->key_channels_divisor != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: key_channels_divisor %d must divide the %d channels", prefix,
                       config->key_channels_divisor, config->channels);
    }
    const int key_channels = config->channels / config->key_channels_divisor;
    if (config->kind != TL_ATTENTION_EFFICIENT) {
        return tl_fail(error, TL_ERROR_UNSUPPORTED,
                       "%s: the only attention that networks have so far is 'efficient'", prefix);
    }
    tl_efficient_attention_config efficient = tl_efficient_attention_config_default();
    efficient.in_channels = config->channels;
    efficient.key_channels = key_channels;
    efficient.value_channels = config->channels;
    efficient.heads = config->heads;
    efficient.normalization = config->normalization;
    return tl_efficient_attention_layer_init(&module->efficient, parameters, prefix, &efficient,
                                             random, error);
}

tl_tensor *tl_attention_module_forward(const tl_attention_module *module, tl_tape *tape,
                                       tl_tensor *x) {
    tl_tensor *y = tl_efficient_attention_layer_forward(&module->efficient, tape, x);
    tl_release(tape, x);
    return y;
}
