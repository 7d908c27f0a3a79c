#include <tapeline/efficient_attention.h>
#include <tapeline/initialize.h>

#include <math.h>
#include <stdio.h>

#include "core/error_internal.h"

/* "prefix.name.weight" [out, in] and "prefix.name.bias" [out]. */
static tl_status add_projection(tl_parameters *parameters, const char *prefix, const char *name,
                                int64_t out, int64_t in, tl_random *random, tl_tensor **weight,
                                tl_tensor **bias, tl_error *error) {
    char path[TL_NAME_SIZE];
    (void)snprintf(path, sizeof path, "%s.%s", prefix, name);
    *weight = tl_parameters_add(parameters, path, "weight", TL_GROUP_WEIGHT, "out in", 2,
                                (int64_t[]){out, in}, error);
    *bias = *weight != NULL ? tl_parameters_add(parameters, path, "bias", TL_GROUP_NO_DECAY, "out",
                                                1, (int64_t[]){out}, error)
                            : NULL;
    if (*bias == NULL) {
        return error->status;
    }
    const double bound = 1.0 / sqrt((double)in);
    tl_initialize_uniform(*weight, -bound, bound, random);
    return TL_OK;
}

tl_status tl_efficient_attention_layer_init(tl_efficient_attention_layer *layer,
                                            tl_parameters *parameters, const char *prefix,
                                            const tl_efficient_attention_config *config,
                                            tl_random *random, tl_error *error) {
    tl_error local;
    error = error != NULL ? error : &local;
    *layer = (tl_efficient_attention_layer){.config = *config};
    tl_efficient_attention_config *c = &layer->config;
    tl_efficient_attention_weights *w = &layer->weights;
    TL_TRY(tl_efficient_attention_config_check(c, error));
    TL_TRY(add_projection(parameters, prefix, "keys", c->key_channels, c->in_channels, random,
                          &w->keys_weight, &w->keys_bias, error));
    TL_TRY(add_projection(parameters, prefix, "queries", c->key_channels, c->in_channels, random,
                          &w->queries_weight, &w->queries_bias, error));
    TL_TRY(add_projection(parameters, prefix, "values", c->value_channels, c->in_channels, random,
                          &w->values_weight, &w->values_bias, error));
    if (!c->reprojection) {
        return TL_OK;
    }
    return add_projection(parameters, prefix, "reprojection", c->in_channels, c->value_channels,
                          random, &w->reprojection_weight, &w->reprojection_bias, error);
}

tl_tensor *tl_efficient_attention_layer_forward(const tl_efficient_attention_layer *layer,
                                                tl_tape *tape, tl_tensor *x) {
    return tl_efficient_attention(tape, x, &layer->weights, &layer->config);
}
