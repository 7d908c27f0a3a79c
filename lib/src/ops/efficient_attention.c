/* Efficient attention, softmax and scaling form, as one operation. The formula is in
 * tapeline/efficient_attention.h; forward and its derivation backward, tile by tile, in
 * kernels/k_efficient_attention.c and kernels/k_efficient_attention_backward.c; which products are
 * folded, and FLOPs, in kernels/k_attention_plan.h. In short, with p for normalised queries, s for
 * normalised keys (a head):
 *
 *     G = s^T V, out = p G, Y = X + out Wr^T + br
 *     dOut = dY Wr, dG = p^T dOut, dp = dOut G^T, ds = V dG^T, dV = s dG
 *     softmax:  dlogit = p (dp - sum p dp)  over channels for queries, over positions for keys
 *     scaling:  dlogit = dp / sqrt(n)
 *     dW of a projection = dlogit^T X, dX += dlogit W (and dY, the residual)
 *
 * Saved: x, the weights, and per sample G [K, V/h], the keys' maximum and sum [K] each, and
 * H = s^T X [K, C] where values are folded. Queries, keys and values are computed again.
 */
#include "ops/efficient_attention_internal.h"

enum { INPUTS = 9 }; /* x and the weights in the order of tl_efficient_attention_weights */

typedef struct attention_state {
    tl_attention_shape shape;
    tl_real *saved;
} attention_state;

tl_footprint tl_efficient_attention_footprint(tl_footprint_machine machine,
                                              const tl_attention_shape *shape) {
    const tl_efficient_attention_kernels *kernels = machine.kernels->efficient_attention;
    const double flops = tl_attention_algorithm_flops(shape);
    return (tl_footprint){
        .forward_flops = flops,
        .backward_flops = 2 * flops,
        .forward_flops_executed = tl_attention_forward_flops(shape),
        .backward_flops_executed = tl_attention_backward_flops(shape),
        .kept_bytes = (double)shape->batch * (double)tl_attention_saved_per_sample(shape) *
                      (double)sizeof(tl_real),
        .keeps_only_recorded = true,
        .forward_scratch = (double)kernels->forward_scratch_bytes(shape, machine.threads),
        .backward_scratch = (double)kernels->backward_scratch_bytes(shape, machine.threads)};
}

static tl_attention_gradient gradient_of(tl_node *node, int index) {
    tl_attention_gradient gradient = {0};
    gradient.values = tl_node_grad(node, index, &gradient.accumulate);
    return gradient;
}

static void efficient_attention_backward(tl_node *node) {
    const attention_state *s = node->state;
    const tl_efficient_attention_kernels *kernels = TL_NODE_KERNELS(node)->efficient_attention;
    const bool reprojection = s->shape.reprojection;
    const tl_attention_parameters parameters = {
        .query_weight = tl_node_input(node, 1),
        .query_bias = tl_node_input(node, 2),
        .key_weight = tl_node_input(node, 3),
        .key_bias = tl_node_input(node, 4),
        .value_weight = tl_node_input(node, 5),
        .value_bias = tl_node_input(node, 6),
        .reprojection_weight = reprojection ? tl_node_input(node, 7) : NULL,
        .reprojection_bias = reprojection ? tl_node_input(node, 8) : NULL,
    };
    const tl_attention_gradients gradients = {
        .x = gradient_of(node, 0),
        .query_weight = gradient_of(node, 1),
        .query_bias = gradient_of(node, 2),
        .key_weight = gradient_of(node, 3),
        .key_bias = gradient_of(node, 4),
        .value_weight = gradient_of(node, 5),
        .value_bias = gradient_of(node, 6),
        .reprojection_weight = gradient_of(node, 7),
        .reprojection_bias = gradient_of(node, 8),
    };
    const int threads = TL_NODE_THREADS(node);
    void *scratch = tl_node_scratch(node, kernels->backward_scratch_bytes(&s->shape, threads));
    if (scratch != NULL) {
        kernels->backward(&s->shape, &parameters, tl_node_input(node, 0), tl_node_output_grad(node),
                          s->saved, &gradients, scratch, threads);
    }
}

/* ------------------------------------------------------------------ arguments */

static bool has_shape(const tl_tensor *tensor, int rank, int64_t rows, int64_t columns) {
    return tensor->rank == rank && tensor->shape[0] == rows &&
           (rank == 1 || tensor->shape[1] == columns);
}

/* False with the error recorded if a projection [rows, columns], [rows] does not fit. */
static bool projection_fits(tl_op *op, const char *name, const tl_tensor *weight,
                            const tl_tensor *bias, int64_t rows, int64_t columns) {
    if (has_shape(weight, 2, rows, columns) && has_shape(bias, 1, rows, 0)) {
        return true;
    }
    char want_weight[TL_SHAPE_TEXT_SIZE], want_bias[TL_SHAPE_TEXT_SIZE];
    char found_weight[TL_SHAPE_TEXT_SIZE], found_bias[TL_SHAPE_TEXT_SIZE];
    tl_op_fail(op, TL_ERROR_SHAPE, "expected %s weight %s and bias %s, found %s and %s", name,
               tl_shape_text(2, (int64_t[]){rows, columns}, want_weight),
               tl_shape_text(1, &rows, want_bias),
               tl_shape_text(weight->rank, weight->shape, found_weight),
               tl_shape_text(bias->rank, bias->shape, found_bias));
    return false;
}

static bool weights_fit(tl_op *op, const tl_efficient_attention_weights *w,
                        const tl_efficient_attention_config *c) {
    return projection_fits(op, "query", w->query_weight, w->query_bias, c->key_channels,
                           c->in_channels) &&
           projection_fits(op, "key", w->key_weight, w->key_bias, c->key_channels,
                           c->in_channels) &&
           projection_fits(op, "value", w->value_weight, w->value_bias, c->value_channels,
                           c->in_channels) &&
           (!c->use_reprojection ||
            projection_fits(op, "reprojection", w->reprojection_weight, w->reprojection_bias,
                            c->in_channels, c->value_channels));
}

static tl_attention_parameters parameters_of(const tl_efficient_attention_weights *w,
                                             bool reprojection) {
    return (tl_attention_parameters){
        .query_weight = w->query_weight->storage->data,
        .query_bias = w->query_bias->storage->data,
        .key_weight = w->key_weight->storage->data,
        .key_bias = w->key_bias->storage->data,
        .value_weight = w->value_weight->storage->data,
        .value_bias = w->value_bias->storage->data,
        .reprojection_weight = reprojection ? w->reprojection_weight->storage->data : NULL,
        .reprojection_bias = reprojection ? w->reprojection_bias->storage->data : NULL,
    };
}

/* Begins the operation and checks everything; false if that failed. */
static bool begin(tl_op *op, tl_tape *tape, const char *name, tl_tensor *x,
                  const tl_efficient_attention_weights *w,
                  const tl_efficient_attention_config *config, tl_attention_shape *shape) {
    const bool reprojection = config == NULL || config->use_reprojection;
    tl_tensor *inputs[INPUTS] = {x,
                                 w->query_weight,
                                 w->query_bias,
                                 w->key_weight,
                                 w->key_bias,
                                 w->value_weight,
                                 w->value_bias,
                                 reprojection ? w->reprojection_weight : NULL,
                                 reprojection ? w->reprojection_bias : NULL};
    if (!tl_op_begin(op, tape, name, INPUTS, inputs, reprojection ? 0 : 1u << 7 | 1u << 8)) {
        return false;
    }
    if (x->rank < 2) {
        char text[TL_SHAPE_TEXT_SIZE];
        tl_op_fail(op, TL_ERROR_SHAPE, "expected x [N, spatial..., C], found %s",
                   tl_shape_text(x->rank, x->shape, text));
        return false;
    }
    const int64_t channels = x->shape[x->rank - 1], batch = x->shape[0];
    tl_efficient_attention_config resolved;
    tl_error error;
    if (tl_efficient_attention_resolve(config, channels, &resolved, &error) != TL_OK) {
        tl_op_fail(op, error.status, "%s", error.message);
        return false;
    }
    if (!weights_fit(op, w, &resolved)) {
        return false;
    }
    *shape = tl_efficient_attention_shape(&resolved, batch, x->size / batch / channels);
    return true;
}

/* x's shape with another number of channels. */
static tl_tensor *output_like(tl_op *op, const tl_tensor *x, int64_t channels) {
    int64_t extents[TL_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        extents[i] = x->shape[i];
    }
    extents[x->rank - 1] = channels;
    return tl_op_output(op, x->rank, extents);
}

/* ------------------------------------------------------------------ forward */

tl_tensor *tl_efficient_attention(tl_tape *tape, tl_tensor *x,
                                  const tl_efficient_attention_weights *weights,
                                  const tl_efficient_attention_config *config) {
    tl_op op;
    tl_attention_shape shape;
    if (!begin(&op, tape, "efficient_attention", x, weights, config, &shape)) {
        return NULL;
    }
    const tl_efficient_attention_kernels *kernels = TL_OP_KERNELS(&op)->efficient_attention;
    const int threads = TL_OP_THREADS(&op);
    tl_tensor *y = output_like(&op, x, tl_attention_output_channels(&shape));
    attention_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    state->shape = shape;
    if (op.recorded) {
        const int64_t saved = shape.batch * tl_attention_saved_per_sample(&shape);
        state->saved = tl_op_keep(&op, (size_t)saved * sizeof(tl_real));
        if (state->saved == NULL) {
            return NULL;
        }
    }
    void *scratch = tl_op_scratch(&op, kernels->forward_scratch_bytes(&shape, threads));
    if (scratch == NULL) {
        return NULL;
    }
    const tl_attention_parameters parameters = parameters_of(weights, shape.reprojection);
    kernels->forward(&shape, &parameters, x->storage->data, y->storage->data, state->saved, scratch,
                     threads);
    const double flops = tl_attention_algorithm_flops(&shape);
    tl_op_set_flops(&op, flops, 2 * flops);
    tl_op_set_flops_executed(&op, tl_attention_forward_flops(&shape),
                             tl_attention_backward_flops(&shape));
    for (int i = 0; i < (shape.reprojection ? INPUTS : INPUTS - 2); i++) {
        tl_op_save_input(&op, i);
    }
    return tl_op_finish(&op, efficient_attention_backward);
}

/* ------------------------------------------------------------------ maps */

tl_tensor *tl_efficient_attention_maps(tl_tape *tape, tl_tensor *x,
                                       const tl_efficient_attention_weights *weights,
                                       const tl_efficient_attention_config *config) {
    const bool recording = tape != NULL && tl_tape_is_recording(tape);
    if (recording) {
        tl_tape_set_recording(tape, false); /* nothing flows back */
    }
    tl_op op;
    tl_attention_shape shape;
    tl_tensor *maps = NULL;
    if (begin(&op, tape, "efficient_attention_maps", x, weights, config, &shape)) {
        const tl_efficient_attention_kernels *kernels = TL_OP_KERNELS(&op)->efficient_attention;
        const int threads = TL_OP_THREADS(&op);
        maps = output_like(&op, x, shape.key_channels);
        void *scratch = maps == NULL
                            ? NULL
                            : tl_op_scratch(&op, kernels->forward_scratch_bytes(&shape, threads));
        if (scratch != NULL) {
            const tl_attention_parameters parameters = parameters_of(weights, shape.reprojection);
            kernels->maps(&shape, &parameters, x->storage->data, maps->storage->data, scratch,
                          threads);
            const double flops = 2.0 * (double)maps->size * (double)shape.channels;
            tl_op_set_flops(&op, flops, 0);
            maps = tl_op_finish(&op, efficient_attention_backward);
        } else {
            maps = NULL;
        }
    }
    if (recording) {
        tl_tape_set_recording(tape, true);
    }
    return maps;
}
