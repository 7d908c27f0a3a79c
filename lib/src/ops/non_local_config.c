#include "ops/non_local_internal.h"

#include <inttypes.h>
#include <math.h>

#include "core/error_internal.h"

tl_non_local_config tl_non_local_config_default(void) {
    return (tl_non_local_config){.use_reprojection = true, .use_residual = true};
}

static tl_status check_options(const tl_non_local_config *c, tl_error *error) {
    if (c->pairwise < TL_PAIRWISE_EMBEDDED_GAUSSIAN || c->pairwise > TL_PAIRWISE_CONCATENATION) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "unknown pairwise form %d",
                       (int)c->pairwise);
    }
    if (c->implementation != TL_ATTENTION_TILED && c->implementation != TL_ATTENTION_MATERIALIZED) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "unknown implementation %d",
                       (int)c->implementation);
    }
    const bool heads_fit =
        c->pairwise == TL_PAIRWISE_EMBEDDED_GAUSSIAN || c->pairwise == TL_PAIRWISE_DOT_PRODUCT;
    if (c->heads != 1 && !heads_fit) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "only the embedded Gaussian and the dot product form have heads, found "
                       "%" PRId64,
                       c->heads);
    }
    if (c->use_scale &&
        (c->pairwise == TL_PAIRWISE_DOT_PRODUCT || c->pairwise == TL_PAIRWISE_CONCATENATION)) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "use_scale belongs to the forms with a softmax; the others divide by the "
                       "number of positions");
    }
    return TL_OK;
}

static tl_status check_channels(const tl_non_local_config *c, tl_error *error) {
    if (c->key_channels % c->heads != 0 || c->value_channels % c->heads != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "heads must divide key_channels and value_channels, found %" PRId64
                       " heads, %" PRId64 " key channels and %" PRId64 " value channels",
                       c->heads, c->key_channels, c->value_channels);
    }
    if (c->use_residual && !c->use_reprojection && c->value_channels != c->in_channels) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "a residual without reprojection needs value_channels = in_channels, found "
                       "%" PRId64 " and %" PRId64,
                       c->value_channels, c->in_channels);
    }
    return TL_OK;
}

tl_status tl_non_local_resolve(const tl_non_local_config *config, int64_t channels,
                               tl_non_local_config *resolved, tl_error *error) {
    tl_non_local_config c = config != NULL ? *config : tl_non_local_config_default();
    if (c.in_channels < 0 || c.key_channels < 0 || c.value_channels < 0 || c.heads < 0 ||
        c.sub_sample < 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "channels, heads and sub_sample must not be negative, found in_channels "
                       "%" PRId64 ", key_channels %" PRId64 ", value_channels %" PRId64
                       ", heads %" PRId64 ", sub_sample %" PRId64,
                       c.in_channels, c.key_channels, c.value_channels, c.heads, c.sub_sample);
    }
    c.in_channels = c.in_channels == 0 ? channels : c.in_channels;
    if (c.in_channels < 1) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "in_channels must be at least 1, found 0");
    }
    if (channels != 0 && c.in_channels != channels) {
        return tl_fail(error, TL_ERROR_SHAPE,
                       "expected x with %" PRId64 " channels, found %" PRId64, c.in_channels,
                       channels);
    }
    c.heads = c.heads == 0 ? 1 : c.heads;
    c.sub_sample = c.sub_sample == 0 ? 1 : c.sub_sample;
    c.value_channels = c.value_channels == 0 ? c.in_channels : c.value_channels;
    if (c.pairwise == TL_PAIRWISE_GAUSSIAN) {
        c.key_channels = c.in_channels;
    } else if (c.key_channels == 0) {
        c.key_channels = c.in_channels > 1 ? c.in_channels / 2 : 1;
    }
    *resolved = c;
    TL_TRY(check_options(&c, error));
    return check_channels(&c, error);
}

tl_status tl_non_local_check_layer(const tl_non_local_config *resolved, tl_error *error) {
    if (resolved->use_batch_norm && !resolved->use_reprojection) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "batch norm follows the reprojection, which is off");
    }
    return TL_OK;
}

bool tl_non_local_has_keys(const tl_non_local_config *resolved) {
    return resolved->pairwise != TL_PAIRWISE_GAUSSIAN;
}

tl_pair_attention_config tl_non_local_pair(const tl_non_local_config *resolved, int64_t m) {
    const bool softmax = resolved->pairwise == TL_PAIRWISE_EMBEDDED_GAUSSIAN ||
                         resolved->pairwise == TL_PAIRWISE_GAUSSIAN;
    const double d = (double)(resolved->key_channels / resolved->heads);
    return (tl_pair_attention_config){
        .weights = softmax                                           ? TL_PAIR_SOFTMAX
                   : resolved->pairwise == TL_PAIRWISE_CONCATENATION ? TL_PAIR_RELU
                                                                     : TL_PAIR_LINEAR,
        .scale = !softmax              ? 1 / (double)m
                 : resolved->use_scale ? 1 / sqrt(d)
                                       : 1,
        .heads = resolved->heads,
        .implementation = resolved->implementation,
    };
}

bool tl_non_local_pools(int rank, int dimension) {
    return dimension >= 1 && dimension < rank - 1 && dimension >= rank - 3;
}

tl_status tl_non_local_positions(const tl_non_local_config *resolved, int rank,
                                 const int64_t *shape, int64_t *keys, tl_error *error) {
    const int64_t factor = resolved->sub_sample;
    if (factor > 1 && (rank < 3 || rank > 5)) {
        return tl_fail(error, TL_ERROR_SHAPE,
                       "sub-sampling works on one to three spatial dimensions, found %d", rank - 2);
    }
    *keys = 1;
    int64_t window = 1;
    for (int i = 1; i < rank - 1; i++) {
        const bool pools = tl_non_local_pools(rank, i);
        window *= pools ? factor : 1;
        if (pools && shape[i] < factor) {
            char text[TL_SHAPE_TEXT_SIZE];
            return tl_fail(error, TL_ERROR_SHAPE, "sub_sample %" PRId64 " is too much for x %s",
                           factor, tl_shape_text(rank, shape, text));
        }
        *keys *= pools ? shape[i] / factor : shape[i];
    }
    if (window > TL_POOLING_MOST_WINDOW) {
        return tl_fail(error, TL_ERROR_UNSUPPORTED,
                       "sub_sample %" PRId64 " makes windows of %" PRId64
                       " positions, max pooling takes up to %d",
                       factor, window, TL_POOLING_MOST_WINDOW);
    }
    return TL_OK;
}
