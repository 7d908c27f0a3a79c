/* Efficient attention composed from elementary operations: the readable reference. It does what
 * tl_efficient_attention does, step by step, and keeps every intermediate result for backward. */
#include <tapeline/efficient_attention.h>

#include <tapeline/arithmetic.h>
#include <tapeline/matmul.h>
#include <tapeline/shape.h>
#include <tapeline/softmax.h>

#include <math.h>

#include "core/tape_internal.h"
#include "ops/efficient_attention_internal.h"

/* Hands a result on to one operation and releases it. */
#define THEN(result, operation)                                                                    \
    do {                                                                                           \
        tl_tensor *const before_ = (result);                                                       \
        (result) = (operation);                                                                    \
        tl_release(tape, before_);                                                                 \
    } while (0)

typedef struct composition {
    int64_t batch, positions, heads;
    tl_efficient_attention_config config;
} composition;

/* [N, n, C] -> [N, n, heads, channels of a head], softmax along `dim` or divided by sqrt(n). */
static tl_tensor *normalized(tl_tape *tape, const composition *c, tl_tensor *x, tl_tensor *weight,
                             tl_tensor *bias, int dim) {
    const int64_t shape[4] = {c->batch, c->positions, c->heads, c->config.key_channels / c->heads};
    tl_tensor *y = tl_linear(tape, x, weight, bias);
    THEN(y, tl_reshape(tape, y, 4, shape));
    if (c->config.normalization == TL_NORMALIZATION_SCALING) {
        THEN(y, tl_scale(tape, y, 1 / sqrt((double)c->positions)));
    } else {
        THEN(y, tl_scale(tape, y, 1 / c->config.temperature));
        THEN(y, tl_softmax(tape, y, dim));
    }
    return y;
}

/* queries (keys^T values), the heads side by side: [N, n, V]. */
static tl_tensor *attend(tl_tape *tape, const composition *c, tl_tensor *x,
                         const tl_efficient_attention_weights *w) {
    const int64_t e = c->config.value_channels / c->heads;
    tl_tensor *keys = normalized(tape, c, x, w->key_weight, w->key_bias, 1);
    THEN(keys, tl_permute(tape, keys, (int[]){0, 2, 3, 1})); /* [N, heads, d, n] */
    tl_tensor *values = tl_linear(tape, x, w->value_weight, w->value_bias);
    THEN(values, tl_reshape(tape, values, 4, (int64_t[]){c->batch, c->positions, c->heads, e}));
    THEN(values, tl_permute(tape, values, (int[]){0, 2, 1, 3})); /* [N, heads, n, e] */
    tl_tensor *context = tl_matmul(tape, keys, values);          /* [N, heads, d, e] */
    tl_release(tape, keys);
    tl_release(tape, values);
    tl_tensor *queries = normalized(tape, c, x, w->query_weight, w->query_bias, 3);
    THEN(queries, tl_permute(tape, queries, (int[]){0, 2, 1, 3})); /* [N, heads, n, d] */
    tl_tensor *out = tl_matmul(tape, queries, context);            /* [N, heads, n, e] */
    tl_release(tape, queries);
    tl_release(tape, context);
    THEN(out, tl_permute(tape, out, (int[]){0, 2, 1, 3}));
    THEN(out, tl_reshape(tape, out, 3, (int64_t[]){c->batch, c->positions, c->heads * e}));
    return out;
}

tl_tensor *tl_efficient_attention_composed(tl_tape *tape, tl_tensor *x,
                                           const tl_efficient_attention_weights *weights,
                                           const tl_efficient_attention_config *config) {
    if (x == NULL || tl_tape_status(tape) != TL_OK) {
        return NULL;
    }
    const int rank = tl_tensor_rank(x);
    const int64_t *shape = tl_tensor_shape(x);
    composition c = {.batch = rank < 2 ? 0 : shape[0]};
    tl_error error = {0};
    if (rank < 2) {
        (void)tl_tape_fail(tape, TL_ERROR_SHAPE,
                           "efficient_attention_composed: expected x [N, spatial..., C], found "
                           "rank %d",
                           rank);
        return NULL;
    }
    if (tl_efficient_attention_resolve(config, shape[rank - 1], &c.config, &error) != TL_OK) {
        (void)tl_tape_fail(tape, error.status, "efficient_attention_composed: %s", error.message);
        return NULL;
    }
    const int64_t channels = c.config.in_channels;
    c.positions = tl_tensor_size(x) / c.batch / channels;
    c.heads = c.config.heads;
    tl_tensor *rows = tl_reshape(tape, x, 3, (int64_t[]){c.batch, c.positions, channels});
    tl_tensor *y = attend(tape, &c, rows, weights);
    tl_release(tape, rows);
    if (c.config.use_reprojection) {
        THEN(y, tl_linear(tape, y, weights->reprojection_weight, weights->reprojection_bias));
    }
    int64_t y_shape[TL_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        y_shape[i] = shape[i];
    }
    y_shape[rank - 1] = c.config.use_reprojection ? channels : c.config.value_channels;
    THEN(y, tl_reshape(tape, y, rank, y_shape));
    if (c.config.use_residual) {
        THEN(y, tl_add(tape, y, x));
    }
    return y;
}
