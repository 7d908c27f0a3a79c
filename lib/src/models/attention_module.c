#include "models/attention_module.h"

#include <stdio.h>

#include "core/error_internal.h"

tl_status tl_attention_module_init(tl_attention_module *module, tl_parameters *parameters,
                                   const char *prefix, const tl_attention_module_config *config,
                                   tl_random *random, tl_error *error) {
    module->kind = config->kind;
    (void)snprintf(module->name, sizeof module->name, "%s", prefix);
    if (config->channels % config->key_channels_divisor != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: key_channels_divisor %d must divide the %d channels", prefix,
                       config->key_channels_divisor, config->channels);
    }
    const int key_channels = config->channels / config->key_channels_divisor;
    if (config->kind == TL_ATTENTION_EFFICIENT) {
        tl_efficient_attention_config efficient = tl_efficient_attention_config_default();
        efficient.in_channels = config->channels;
        efficient.key_channels = key_channels;
        efficient.value_channels = config->channels;
        efficient.heads = config->heads;
        efficient.normalization = config->normalization;
        return tl_efficient_attention_layer_init(&module->layer.efficient, parameters, prefix,
                                                 &efficient, random, error);
    }
    tl_non_local_config non_local = tl_non_local_config_default();
    non_local.in_channels = config->channels;
    non_local.key_channels = key_channels;
    non_local.value_channels = config->channels;
    non_local.heads = config->heads;
    non_local.pairwise = config->pairwise;
    non_local.use_scale = config->use_scale;
    non_local.implementation = config->implementation;
    return tl_non_local_layer_init(&module->layer.non_local, parameters, prefix, &non_local, random,
                                   error);
}

tl_tensor *tl_attention_module_forward(const tl_attention_module *module,
                                       const tl_attention_watch *watch, tl_tape *tape,
                                       tl_tensor *x) {
    const bool efficient = module->kind == TL_ATTENTION_EFFICIENT;
    if (watch->visit != NULL && x != NULL) {
        const tl_attention_site site = {.name = module->name,
                                        .kind = module->kind,
                                        .efficient = efficient ? &module->layer.efficient : NULL,
                                        .non_local = efficient ? NULL : &module->layer.non_local,
                                        .x = x};
        watch->visit(watch->user, tape, &site);
    }
    tl_tensor *y = efficient
                       ? tl_efficient_attention_layer_forward(&module->layer.efficient, tape, x)
                       : tl_non_local_layer_forward(&module->layer.non_local, tape, x);
    tl_release(tape, x);
    return y;
}
