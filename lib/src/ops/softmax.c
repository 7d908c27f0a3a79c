/* Softmax and its logarithm over one dimension.
 *
 *   y = exp(x) / sum exp(x)    dy_i/dx_j = y_i (d_ij - y_j),  so  dx = y (dy - sum y dy)
 *   y = x - log sum exp(x)     dy_i/dx_j = d_ij - exp(y_j),   so  dx = dy - exp(y) sum dy
 * Saved: y, size values.
 */
#include <tapeline/softmax.h>

#include "core/op.h"

/* FLOPs a value, an exponential counted as one. */
enum { FORWARD_FLOPS = 5, BACKWARD_FLOPS = 4 };

typedef struct softmax_state {
    bool logarithm;
    int64_t outer;
    int64_t n;
    int64_t inner;
} softmax_state;

static void softmax_backward(tl_node *node) {
    const softmax_state *s = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx != NULL) {
        TL_NODE_KERNELS(node)->softmax->backward(TL_NODE_THREADS(node), s->logarithm, s->outer,
                                                 s->n, s->inner, tl_node_output(node),
                                                 tl_node_output_grad(node), accumulate, dx);
    }
}

static tl_tensor *softmax(tl_tape *tape, const char *name, tl_tensor *x, int dim, bool logarithm) {
    tl_op op;
    if (!tl_op_begin(&op, tape, name, 1, &x, 0)) {
        return NULL;
    }
    if (dim < 0 || dim >= x->rank) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                          "dim must be from 0 to %d for x of rank %d, found %d", x->rank - 1,
                          x->rank, dim);
    }
    softmax_state *s = tl_op_state(&op, sizeof *s);
    tl_tensor *y = s != NULL ? tl_op_output(&op, x->rank, x->shape) : NULL;
    if (y == NULL) {
        return NULL;
    }
    *s = (softmax_state){.logarithm = logarithm, .outer = 1, .n = x->shape[dim], .inner = 1};
    for (int d = 0; d < x->rank; d++) {
        s->outer *= d < dim ? x->shape[d] : 1;
        s->inner *= d > dim ? x->shape[d] : 1;
    }
    TL_OP_KERNELS(&op)->softmax->forward(TL_OP_THREADS(&op), logarithm, s->outer, s->n, s->inner,
                                         x->storage->data, y->storage->data);
    tl_op_save_output(&op);
    tl_op_set_flops(&op, FORWARD_FLOPS * (double)x->size, BACKWARD_FLOPS * (double)x->size);
    return tl_op_finish(&op, softmax_backward);
}

tl_tensor *tl_softmax(tl_tape *tape, tl_tensor *x, int dim) {
    return softmax(tape, "softmax", x, dim, false);
}

tl_tensor *tl_log_softmax(tl_tape *tape, tl_tensor *x, int dim) {
    return softmax(tape, "log_softmax", x, dim, true);
}
