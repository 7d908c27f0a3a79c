/* efficient_attention.c - the fused operation; formulas in efficient_attention.h, the derivation of
 * the gradient in k_efficient_attention_backward.c, what is folded in k_attention_plan.h.
 *
 * Saved: x, and per sample H = k^T X [K, C] (where values are folded), G [K, e], and the maximum
 * and sum of each key channel's softmax.
 */
#include <tapeline/efficient_attention.h>

#include <inttypes.h>
#include <math.h>

#include "core/op.h"

enum { X, QUERIES_W, QUERIES_B, KEYS_W, KEYS_B, VALUES_W, VALUES_B, REPROJECTION_W, REPROJECTION_B };
enum { INPUTS = REPROJECTION_B + 1 };

typedef struct attention_state {
    tl_attention_shape shape;
    tl_real *saved;
} attention_state;

tl_efficient_attention_config tl_efficient_attention_config_default(void) {
    return (tl_efficient_attention_config){.heads = 1,
                                           .normalization = TL_NORMALIZATION_SOFTMAX,
                                           .temperature = 1.0,
                                           .reprojection = true,
                                           .residual = true};
}

tl_status tl_efficient_attention_config_check(tl_efficient_attention_config *config,
                                              tl_error *error) {
    static const char name[] = "efficient_attention";
    if (config->in_channels < 1) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: in_channels must be at least 1, found %" PRId64, name,
                       config->in_channels);
    }
    if (config->key_channels == 0) {
        config->key_channels = config->in_channels > 1 ? config->in_channels / 2 : 1;
    }
    if (config->value_channels == 0) {
        config->value_channels = config->in_channels;
    }
    config->heads = config->heads == 0 ? 1 : config->heads;
    config->temperature = config->temperature == 0.0 ? 1.0 : config->temperature;
    if (config->key_channels < 1 || config->value_channels < 1 || config->heads < 1) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: key_channels, value_channels and heads must be at least 1, found "
                       "%" PRId64 ", %" PRId64 " and %" PRId64,
                       name, config->key_channels, config->value_channels, config->heads);
    }
    if (config->key_channels % config->heads != 0 || config->value_channels % config->heads != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: heads %" PRId64 " must divide the %" PRId64 " key channels and the "
                       "%" PRId64 " value channels",
                       name, config->heads, config->key_channels, config->value_channels);
    }
    if (!(config->temperature > 0.0) || !isfinite(config->temperature)) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: temperature must be above 0, found %g", name, config->temperature);
    }
    if (config->normalization != TL_NORMALIZATION_SOFTMAX &&
        config->normalization != TL_NORMALIZATION_SCALING) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "%s: unknown normalization %d", name,
                       (int)config->normalization);
    }
    if (config->residual && !config->reprojection &&
        config->value_channels != config->in_channels) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "%s: a residual without reprojection wants value_channels equal to "
                       "in_channels %" PRId64 ", found %" PRId64,
                       name, config->in_channels, config->value_channels);
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ checks */

static bool check_tensor(tl_op *op, const char *name, const tl_tensor *t, int64_t rows,
                         int64_t columns) {
    const int rank = columns > 0 ? 2 : 1;
    if (t->rank == rank && t->shape[0] == rows && (columns == 0 || t->shape[1] == columns)) {
        return true;
    }
    char found[TL_SHAPE_TEXT_SIZE];
    char expected[TL_SHAPE_TEXT_SIZE];
    (void)tl_shape_text(rank, (int64_t[]){rows, columns}, expected);
    (void)tl_op_fail(op, TL_ERROR_SHAPE, "%s must be %s, found %s", name, expected,
                     tl_shape_text(t->rank, t->shape, found));
    return false;
}

static bool check_weights(tl_op *op, const tl_efficient_attention_weights *w,
                          const tl_efficient_attention_config *c) {
    const int64_t C = c->in_channels;
    const int64_t K = c->key_channels;
    const int64_t V = c->value_channels;
    return check_tensor(op, "queries_weight", w->queries_weight, K, C) &&
           check_tensor(op, "queries_bias", w->queries_bias, K, 0) &&
           check_tensor(op, "keys_weight", w->keys_weight, K, C) &&
           check_tensor(op, "keys_bias", w->keys_bias, K, 0) &&
           check_tensor(op, "values_weight", w->values_weight, V, C) &&
           check_tensor(op, "values_bias", w->values_bias, V, 0) &&
           (!c->reprojection ||
            (check_tensor(op, "reprojection_weight", w->reprojection_weight, C, V) &&
             check_tensor(op, "reprojection_bias", w->reprojection_bias, C, 0)));
}

/* ------------------------------------------------------------------ backward */

static tl_attention_gradient gradient(tl_node *node, int index) {
    tl_attention_gradient g = {0};
    if (node->inputs[index] != NULL) {
        g.values = tl_node_grad(node, index, &g.accumulate);
    }
    return g;
}

static const tl_real *values_of(const tl_node *node, int index) {
    return node->saved_inputs[index] != NULL ? tl_node_input(node, index) : NULL;
}

static void attention_backward(tl_node *node) {
    const attention_state *state = node->state;
    const tl_efficient_attention_kernels *k = TL_NODE_KERNELS(node)->efficient_attention;
    const int threads = TL_NODE_THREADS(node);
    const tl_attention_gradients gradients = {
        .x = gradient(node, X),
        .query_weight = gradient(node, QUERIES_W),
        .query_bias = gradient(node, QUERIES_B),
        .key_weight = gradient(node, KEYS_W),
        .key_bias = gradient(node, KEYS_B),
        .value_weight = gradient(node, VALUES_W),
        .value_bias = gradient(node, VALUES_B),
        .reprojection_weight = gradient(node, REPROJECTION_W),
        .reprojection_bias = gradient(node, REPROJECTION_B),
    };
    void *scratch = tl_node_scratch(node, k->backward_scratch_bytes(&state->shape, threads));
    if (scratch == NULL) {
        return; /* this or an earlier error is on the tape */
    }
    const tl_attention_parameters parameters = {
        .query_weight = values_of(node, QUERIES_W),
        .query_bias = values_of(node, QUERIES_B),
        .key_weight = values_of(node, KEYS_W),
        .key_bias = values_of(node, KEYS_B),
        .value_weight = values_of(node, VALUES_W),
        .value_bias = values_of(node, VALUES_B),
        .reprojection_weight = values_of(node, REPROJECTION_W),
        .reprojection_bias = values_of(node, REPROJECTION_B),
    };
    k->backward(&state->shape, &parameters, tl_node_input(node, X), tl_node_output_grad(node),
                state->saved, &gradients, scratch, threads);
}

/* ------------------------------------------------------------------ forward */

static bool run_forward(tl_op *op, const tl_attention_shape *shape,
                        const tl_efficient_attention_weights *w, attention_state *state) {
    const tl_efficient_attention_kernels *k = TL_OP_KERNELS(op)->efficient_attention;
    const int threads = TL_OP_THREADS(op);
    state->shape = *shape;
    if (op->recorded) {
        const size_t count = (size_t)(shape->batch * tl_attention_saved_per_sample(shape));
        state->saved = tl_op_keep(op, count * sizeof(tl_real));
        if (state->saved == NULL) {
            return false;
        }
    }
    void *scratch = tl_op_scratch(op, k->forward_scratch_bytes(shape, threads));
    if (scratch == NULL) {
        return false;
    }
    const bool has_reprojection = shape->reprojection;
    const tl_attention_parameters parameters = {
        .query_weight = w->queries_weight->storage->data,
        .query_bias = w->queries_bias->storage->data,
        .key_weight = w->keys_weight->storage->data,
        .key_bias = w->keys_bias->storage->data,
        .value_weight = w->values_weight->storage->data,
        .value_bias = w->values_bias->storage->data,
        .reprojection_weight = has_reprojection ? w->reprojection_weight->storage->data : NULL,
        .reprojection_bias = has_reprojection ? w->reprojection_bias->storage->data : NULL,
    };
    k->forward(shape, &parameters, op->node->inputs[X]->storage->data,
               op->node->output->storage->data, state->saved, scratch, threads);
    return true;
}

tl_tensor *tl_efficient_attention(tl_tape *tape, tl_tensor *x,
                                  const tl_efficient_attention_weights *w,
                                  const tl_efficient_attention_config *config) {
    tl_op op;
    const unsigned optional = 1u << REPROJECTION_W | 1u << REPROJECTION_B;
    tl_tensor *const inputs[INPUTS] = {x,
                                       w->queries_weight,
                                       w->queries_bias,
                                       w->keys_weight,
                                       w->keys_bias,
                                       w->values_weight,
                                       w->values_bias,
                                       config->reprojection ? w->reprojection_weight : NULL,
                                       config->reprojection ? w->reprojection_bias : NULL};
    if (!tl_op_begin(&op, tape, "efficient_attention", INPUTS, inputs,
                     config->reprojection ? 0 : optional)) {
        return NULL;
    }
    tl_efficient_attention_config c = *config;
    tl_error error;
    if (tl_efficient_attention_config_check(&c, &error) != TL_OK) {
        (void)tl_tape_fail(tape, error.status, "%s", error.message);
        return tl_op_finish(&op, NULL);
    }
    if (x->rank < 3 || x->shape[x->rank - 1] != c.in_channels) {
        char text[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE,
                          "x must be [N, spatial..., %" PRId64 "], found %s", c.in_channels,
                          tl_shape_text(x->rank, x->shape, text));
    }
    if (!check_weights(&op, w, &c)) {
        return NULL;
    }
    const tl_attention_shape shape = {.batch = x->shape[0],
                                      .positions = x->size / x->shape[0] / c.in_channels,
                                      .channels = c.in_channels,
                                      .key_channels = c.key_channels,
                                      .value_channels = c.value_channels,
                                      .heads = c.heads,
                                      .scaling = c.normalization == TL_NORMALIZATION_SCALING,
                                      .reprojection = c.reprojection,
                                      .residual = c.residual,
                                      .temperature = c.temperature};
    int64_t y_shape[TL_MAX_RANK];
    for (int d = 0; d < x->rank; d++) {
        y_shape[d] = x->shape[d];
    }
    y_shape[x->rank - 1] = tl_attention_output_channels(&shape);
    tl_tensor *y = tl_op_output(&op, x->rank, y_shape);
    attention_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL || !run_forward(&op, &shape, w, state)) {
        return NULL;
    }
    for (int i = 0; i < INPUTS; i++) {
        if (inputs[i] != NULL) {
            tl_op_save_input(&op, i);
        }
    }
    const double algorithm = tl_attention_algorithm_flops(&shape);
    tl_op_set_flops(&op, algorithm, 2.0 * algorithm);
    tl_op_set_flops_executed(&op, tl_attention_forward_flops(&shape),
                             tl_attention_backward_flops(&shape));
    return tl_op_finish(&op, attention_backward);
}
