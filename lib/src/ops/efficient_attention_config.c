#include "ops/efficient_attention_internal.h"

#include <inttypes.h>
#include <math.h>

#include "core/error_internal.h"

tl_efficient_attention_config tl_efficient_attention_config_default(void) {
    return (tl_efficient_attention_config){.use_reprojection = true, .use_residual = true};
}

static tl_status check(const tl_efficient_attention_config *c, tl_error *error) {
    if (c->key_channels % c->heads != 0 || c->value_channels % c->heads != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "heads must divide key_channels and value_channels, found %" PRId64
                       " heads, %" PRId64 " key channels and %" PRId64 " value channels",
                       c->heads, c->key_channels, c->value_channels);
    }
    if (c->normalization != TL_NORMALIZATION_SOFTMAX &&
        c->normalization != TL_NORMALIZATION_SCALING) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "unknown normalization %d",
                       (int)c->normalization);
    }
    if (!(c->temperature > 0) || !isfinite(c->temperature)) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "temperature must be positive, found %g",
                       c->temperature);
    }
    if (c->normalization == TL_NORMALIZATION_SCALING && c->temperature != 1) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "temperature belongs to softmax, found %g with scaling", c->temperature);
    }
    if (c->use_residual && !c->use_reprojection && c->value_channels != c->in_channels) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "a residual without reprojection needs value_channels = in_channels, found "
                       "%" PRId64 " and %" PRId64,
                       c->value_channels, c->in_channels);
    }
    return TL_OK;
}

tl_status tl_efficient_attention_resolve(const tl_efficient_attention_config *config,
                                         int64_t channels, tl_efficient_attention_config *resolved,
                                         tl_error *error) {
    tl_efficient_attention_config c =
        config != NULL ? *config : tl_efficient_attention_config_default();
    if (c.in_channels < 0 || c.key_channels < 0 || c.value_channels < 0 || c.heads < 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "channels and heads must not be negative, found in_channels %" PRId64
                       ", key_channels %" PRId64 ", value_channels %" PRId64 ", heads %" PRId64,
                       c.in_channels, c.key_channels, c.value_channels, c.heads);
    }
    if (c.in_channels == 0) {
        c.in_channels = channels;
    }
    if (c.in_channels < 1) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "in_channels must be at least 1, found 0");
    }
    if (channels != 0 && c.in_channels != channels) {
        return tl_fail(error, TL_ERROR_SHAPE,
                       "expected x with %" PRId64 " channels, found %" PRId64, c.in_channels,
                       channels);
    }
    if (c.key_channels == 0) {
        c.key_channels = c.in_channels > 1 ? c.in_channels / 2 : 1;
    }
    c.value_channels = c.value_channels == 0 ? c.in_channels : c.value_channels;
    c.heads = c.heads == 0 ? 1 : c.heads;
    c.temperature = c.temperature == 0 ? 1 : c.temperature;
    *resolved = c;
    return check(&c, error);
}

tl_attention_shape tl_efficient_attention_shape(const tl_efficient_attention_config *resolved,
                                                int64_t batch, int64_t positions) {
    return (tl_attention_shape){.batch = batch,
                                .positions = positions,
                                .channels = resolved->in_channels,
                                .key_channels = resolved->key_channels,
                                .value_channels = resolved->value_channels,
                                .heads = resolved->heads,
                                .scaling = resolved->normalization == TL_NORMALIZATION_SCALING,
                                .reprojection = resolved->use_reprojection,
                                .residual = resolved->use_residual,
                                .temperature = resolved->temperature};
}
