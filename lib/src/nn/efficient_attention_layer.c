#include <tapeline/efficient_attention.h>
#include <tapeline/initialize.h>

#include <math.h>
#include <stdio.h>

#include "core/error_internal.h"
#include "ops/efficient_attention_internal.h"

/* "prefix.name.weight" [out, in] and "prefix.name.bias" [out], drawn from `random` or zero. */
static tl_status add_projection(tl_parameters *parameters, const char *prefix, const char *name,
                                int64_t out, int64_t in, bool zero, tl_random *random,
                                tl_tensor **weight, tl_tensor **bias, tl_error *error) {
    char path[TL_NAME_SIZE];
    const bool nested = prefix != NULL && prefix[0] != '\0';
    const int length =
        snprintf(path, sizeof path, "%s%s%s", nested ? prefix : "", nested ? "." : "", name);
    if (length < 0 || (size_t)length >= sizeof path) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "efficient attention layer: prefix '%.40s...' is too long", prefix);
    }
    *weight = tl_parameters_add(parameters, path, "weight", TL_GROUP_WEIGHT, "out in", 2,
                                (int64_t[]){out, in}, error);
    if (*weight == NULL) {
        return error->status;
    }
    *bias = tl_parameters_add(parameters, path, "bias", TL_GROUP_NO_DECAY, "out", 1, &out, error);
    if (*bias == NULL) {
        return error->status;
    }
    if (!zero) {
        const double bound = 1 / sqrt((double)in);
        tl_initialize_uniform(*weight, -bound, bound, random);
        tl_initialize_uniform(*bias, -bound, bound, random);
    }
    return TL_OK;
}

tl_status tl_efficient_attention_layer_init(tl_efficient_attention_layer *layer,
                                            tl_parameters *parameters, const char *prefix,
                                            const tl_efficient_attention_config *config,
                                            tl_random *random, tl_error *error) {
    tl_error own;
    error = error != NULL ? error : &own;
    tl_error_clear(error);
    *layer = (tl_efficient_attention_layer){0};
    tl_error problem;
    if (tl_efficient_attention_resolve(config, 0, &layer->config, &problem) != TL_OK) {
        return tl_fail(error, problem.status, "efficient attention layer: %s", problem.message);
    }
    const int64_t c = layer->config.in_channels, k = layer->config.key_channels;
    const int64_t v = layer->config.value_channels;
    tl_efficient_attention_weights *w = &layer->weights;
    TL_TRY(add_projection(parameters, prefix, "keys", k, c, false, random, &w->key_weight,
                          &w->key_bias, error));
    TL_TRY(add_projection(parameters, prefix, "queries", k, c, false, random, &w->query_weight,
                          &w->query_bias, error));
    TL_TRY(add_projection(parameters, prefix, "values", v, c, false, random, &w->value_weight,
                          &w->value_bias, error));
    if (layer->config.use_reprojection) {
        TL_TRY(add_projection(parameters, prefix, "reprojection", c, v,
                              layer->config.zero_reprojection, random, &w->reprojection_weight,
                              &w->reprojection_bias, error));
    }
    return TL_OK;
}

tl_tensor *tl_efficient_attention_layer_forward(const tl_efficient_attention_layer *layer,
                                                tl_tape *tape, tl_tensor *x) {
    return tl_efficient_attention(tape, x, &layer->weights, &layer->config);
}
