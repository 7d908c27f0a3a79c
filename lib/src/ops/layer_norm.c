/* layer_norm.c - layer normalisation over the trailing dimensions.
 *
 * x is seen as [rows, D], D the product of the normalised dimensions. Per row, with its mean mu and
 * variance v:   s = 1 / sqrt(v + epsilon),   xhat = (x - mu) s,   y = weight xhat + bias.
 * Backward, with a = weight dy and means over the row:
 *     dx = s (a - mean(a) - xhat mean(a xhat)),
 * since d mu / dx = 1/D and d v / dx = 2 (x - mu) / D; over rows, dweight = sum of dy xhat and
 * dbias = sum of dy.
 * Saved: x alone; the statistics of a row are computed again while it is in the cache.
 */
#include <tapeline/normalization.h>

#include <math.h>
#include <string.h>

#include "core/op.h"

enum { X = 0, WEIGHT = 1, BIAS = 2 };

typedef struct layer_norm_state {
    int64_t rows;
    int64_t width;
    double epsilon;
} layer_norm_state;

static void add_parameter_gradient(tl_node *node, int index, const double *sums) {
    const layer_norm_state *state = node->state;
    bool accumulate;
    tl_real *gradient = tl_node_grad(node, index, &accumulate);
    for (int64_t i = 0; gradient != NULL && i < state->width; i++) {
        gradient[i] = (tl_real)((accumulate ? (double)gradient[i] : 0.0) + sums[i]);
    }
}

static void layer_norm_backward(tl_node *node) {
    const layer_norm_state *state = node->state;
    const tl_layer_norm_kernels *kernels = TL_NODE_KERNELS(node)->layer_norm;
    const bool parameters = tl_node_wants(node, WEIGHT) || tl_node_wants(node, BIAS);
    double *dweight = NULL;
    double *dbias = NULL;
    if (parameters) {
        dweight = tl_node_scratch(node, (size_t)state->width * sizeof *dweight);
        dbias = tl_node_scratch(node, (size_t)state->width * sizeof *dbias);
    }
    void *scratch =
        tl_node_scratch(node, kernels->backward_scratch_bytes(state->rows, state->width));
    if (scratch == NULL) { /* so it is if an allocation before failed */
        return;
    }
    bool accumulate = false;
    tl_real *dx = tl_node_grad_in_place(node, X, &accumulate);
    kernels->backward(state->rows, state->width, tl_node_output_grad(node), tl_node_input(node, X),
                      node->inputs[WEIGHT] != NULL ? tl_node_input(node, WEIGHT) : NULL,
                      state->epsilon, dx, accumulate, dweight, dbias, scratch,
                      TL_NODE_THREADS(node));
    if (parameters) {
        add_parameter_gradient(node, WEIGHT, dweight);
        add_parameter_gradient(node, BIAS, dbias);
    }
}

static bool has_trailing_shape(const tl_tensor *tensor, const tl_tensor *x, int dimensions) {
    return tensor->rank == dimensions && memcmp(tensor->shape, x->shape + x->rank - dimensions,
                                                (size_t)dimensions * sizeof *x->shape) == 0;
}

static bool check(tl_op *op, const tl_tensor *x, int dimensions, const tl_tensor *weight,
                  const tl_tensor *bias, double epsilon) {
    char found[TL_SHAPE_TEXT_SIZE];
    char shape[TL_SHAPE_TEXT_SIZE];
    if (dimensions < 1 || dimensions > x->rank) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "dimensions must be 1 to the rank of x %s, found %d",
                         tl_shape_text(x->rank, x->shape, shape), dimensions);
        return false;
    }
    if ((weight == NULL) != (bias == NULL)) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "weight and bias must both be given or both be NULL");
        return false;
    }
    for (int i = 0; weight != NULL && i < 2; i++) {
        const tl_tensor *parameter = i == 0 ? weight : bias;
        if (!has_trailing_shape(parameter, x, dimensions)) {
            (void)tl_op_fail(op, TL_ERROR_SHAPE,
                             "%s must have the shape %s of the last dimensions, found %s",
                             i == 0 ? "weight" : "bias",
                             tl_shape_text(dimensions, x->shape + x->rank - dimensions, shape),
                             tl_shape_text(parameter->rank, parameter->shape, found));
            return false;
        }
    }
    if (!(epsilon > 0.0 && isfinite(epsilon))) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "epsilon must be positive, found %g",
                         epsilon);
        return false;
    }
    return true;
}

tl_tensor *tl_layer_norm(tl_tape *tape, tl_tensor *x, int dimensions, tl_tensor *weight,
                         tl_tensor *bias, double epsilon) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "layer_norm", 3, (tl_tensor *[]){x, weight, bias},
                     1u << WEIGHT | 1u << BIAS) ||
        !check(&op, x, dimensions, weight, bias, epsilon)) {
        return NULL;
    }
    tl_tensor *y = tl_op_output(&op, x->rank, x->shape);
    layer_norm_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    int64_t width = 1;
    for (int d = x->rank - dimensions; d < x->rank; d++) {
        width *= x->shape[d];
    }
    *state = (layer_norm_state){.rows = x->size / width, .width = width, .epsilon = epsilon};
    TL_OP_KERNELS(&op)->layer_norm->forward(
        state->rows, width, x->storage->data, weight != NULL ? weight->storage->data : NULL,
        bias != NULL ? bias->storage->data : NULL, epsilon, y->storage->data, TL_OP_THREADS(&op));
    tl_op_save_input(&op, X);
    if (weight != NULL) {
        tl_op_save_input(&op, WEIGHT);
    }
    /* per value: statistics 4, centre and scale 2, affine 2; backward: means 4, dx 4, parameters 4;
     * executed: the statistics again */
    const double size = (double)x->size;
    const double affine = weight != NULL ? 2.0 : 0.0;
    tl_op_set_flops(&op, size * (6.0 + affine), size * (8.0 + 2.0 * affine));
    tl_op_set_flops_executed(&op, size * (6.0 + affine), size * (12.0 + 2.0 * affine));
    return tl_op_finish(&op, layer_norm_backward);
}
