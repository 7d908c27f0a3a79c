#include <tapeline/arithmetic.h>
#include <tapeline/initialize.h>
#include <tapeline/matmul.h>
#include <tapeline/non_local.h>

#include <math.h>
#include <stdio.h>

#include "core/error_internal.h"
#include "ops/non_local_internal.h"

typedef struct layer_builder {
    tl_parameters *parameters;
    const char *prefix;
    tl_random *random;
    tl_error *error;
} layer_builder;

static tl_status nested_name(const layer_builder *b, const char *name, char path[TL_NAME_SIZE]) {
    const bool nested = b->prefix != NULL && b->prefix[0] != '\0';
    const int length =
        snprintf(path, TL_NAME_SIZE, "%s%s%s", nested ? b->prefix : "", nested ? "." : "", name);
    if (length < 0 || length >= TL_NAME_SIZE) {
        return tl_fail(b->error, TL_ERROR_INVALID_ARGUMENT,
                       "non-local layer: prefix '%.40s...' is too long", b->prefix);
    }
    return TL_OK;
}

/* "prefix.name.weight" [out, in] and "prefix.name.bias" [out], drawn or zero. */
static tl_status add_projection(const layer_builder *b, const char *name, int64_t out, int64_t in,
                                bool zero, tl_tensor **weight, tl_tensor **bias) {
    char path[TL_NAME_SIZE];
    tl_linear_layer layer;
    TL_TRY(nested_name(b, name, path));
    TL_TRY(tl_linear_layer_init(
        &layer, b->parameters, path,
        &(tl_linear_layer_config){.in_features = in,
                                  .out_features = out,
                                  .use_bias = true,
                                  .initialization = zero ? TL_LINEAR_ZERO : TL_LINEAR_UNIFORM},
        b->random, b->error));
    *weight = layer.weight;
    *bias = layer.bias;
    return TL_OK;
}

/* "prefix.pair.weight" [2 K] */
static tl_status add_pair_weight(const layer_builder *b, int64_t key_channels, tl_tensor **weight) {
    char path[TL_NAME_SIZE];
    TL_TRY(nested_name(b, "pair", path));
    *weight = tl_parameters_add(b->parameters, path, "weight", TL_GROUP_WEIGHT, "in", 1,
                                (int64_t[]){2 * key_channels}, b->error);
    if (*weight == NULL) {
        return b->error->status;
    }
    const double bound = 1 / sqrt(2 * (double)key_channels);
    tl_initialize_uniform(*weight, -bound, bound, b->random);
    return TL_OK;
}

static tl_status add_norm(const layer_builder *b, int64_t channels, tl_batch_norm_layer *norm) {
    char path[TL_NAME_SIZE];
    TL_TRY(nested_name(b, "norm", path));
    return tl_batch_norm_layer_init(
        norm, b->parameters, path,
        &(tl_batch_norm_layer_config){.channels = channels, .zero_gain = true}, b->error);
}

tl_status tl_non_local_layer_init(tl_non_local_layer *layer, tl_parameters *parameters,
                                  const char *prefix, const tl_non_local_config *config,
                                  tl_random *random, tl_error *error) {
    tl_error own;
    error = error != NULL ? error : &own;
    tl_error_clear(error);
    *layer = (tl_non_local_layer){0};
    tl_error problem;
    if (tl_non_local_resolve(config, 0, &layer->config, &problem) != TL_OK ||
        tl_non_local_check_layer(&layer->config, &problem) != TL_OK) {
        return tl_fail(error, problem.status, "non-local layer: %s", problem.message);
    }
    const tl_non_local_config *c = &layer->config;
    const layer_builder b = {parameters, prefix, random, error};
    const int64_t C = c->in_channels, K = c->key_channels, V = c->value_channels;
    tl_non_local_weights *w = &layer->weights;
    if (tl_non_local_has_keys(c)) {
        TL_TRY(add_projection(&b, "keys", K, C, false, &w->key_weight, &w->key_bias));
        TL_TRY(add_projection(&b, "queries", K, C, false, &w->query_weight, &w->query_bias));
    }
    TL_TRY(add_projection(&b, "values", V, C, false, &w->value_weight, &w->value_bias));
    if (c->pairwise == TL_PAIRWISE_CONCATENATION) {
        TL_TRY(add_pair_weight(&b, K, &w->pair_weight));
    }
    if (c->use_reprojection) {
        TL_TRY(add_projection(&b, "reprojection", C, V, c->zero_reprojection,
                              &w->reprojection_weight, &w->reprojection_bias));
    }
    if (c->use_batch_norm) {
        TL_TRY(add_norm(&b, C, &layer->norm));
    }
    return TL_OK;
}

tl_tensor *tl_non_local_layer_forward(const tl_non_local_layer *layer, tl_tape *tape,
                                      tl_tensor *x) {
    if (!layer->config.use_batch_norm) {
        return tl_non_local(tape, x, &layer->weights, &layer->config);
    }
    tl_non_local_config branch = layer->config;
    branch.use_batch_norm = false;
    branch.use_residual = false;
    tl_tensor *out = tl_non_local(tape, x, &layer->weights, &branch);
    tl_tensor *y = tl_batch_norm_layer_forward(&layer->norm, tape, out);
    tl_release(tape, out);
    if (!layer->config.use_residual) {
        return y;
    }
    tl_tensor *sum = tl_add(tape, x, y);
    tl_release(tape, y);
    return sum;
}
