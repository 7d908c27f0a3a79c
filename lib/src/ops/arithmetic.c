/* Elementwise arithmetic with broadcasting.
 *
 * With dy the gradient of the result and "sum" over what was repeated:
 *   y = a + b   da = sum dy       db = sum dy
 *   y = a - b   da = sum dy       db = -sum dy
 *   y = a b     da = sum dy b     db = sum dy a
 *   y = a / b   da = sum dy / b   db = -sum dy a / b^2 = -sum dy y / b
 * Saved: mul the operand whose partner wants a gradient (its own size); div b and, if b wants a
 * gradient, y; add, sub and scale nothing.
 */
#include <tapeline/arithmetic.h>

#include "ops/dims.h"
#include "ops/footprint.h"

static tl_tensor *combine(tl_op *op, tl_arithmetic operation) {
    const tl_tensor *a = op->node->inputs[0];
    const tl_tensor *b = op->node->inputs[1];
    int rank;
    int64_t shape[TL_MAX_RANK];
    if (!tl_broadcast_shape(a, b, &rank, shape)) {
        char text_a[TL_SHAPE_TEXT_SIZE];
        char text_b[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(op, TL_ERROR_SHAPE,
                          "shapes %s and %s do not broadcast: aligned at the last dimension, "
                          "extents must be equal or 1",
                          tl_shape_text(a->rank, a->shape, text_a),
                          tl_shape_text(b->rank, b->shape, text_b));
    }
    tl_tensor *y = tl_op_output(op, rank, shape);
    if (y != NULL) {
        const tl_broadcast plan =
            tl_broadcast_plan(rank, shape, a->rank, a->shape, b->rank, b->shape);
        TL_OP_KERNELS(op)->broadcast->apply(TL_OP_THREADS(op), operation, &plan, a->storage->data,
                                            b->storage->data, false, y->storage->data);
    }
    return y;
}

/* How result-shaped values meet operand `index` in backward. */
static tl_broadcast plan_with_input(const tl_node *node, int index) {
    const tl_tensor *y = node->output;
    const tl_tensor *x = node->inputs[index];
    return tl_broadcast_plan(y->rank, y->shape, y->rank, y->shape, x->rank, x->shape);
}

/* The gradient of inputs[index] is dy op inputs[other], summed over the repetitions. */
static void add_product(tl_node *node, int index, tl_arithmetic operation, int other) {
    if (!tl_node_wants(node, index)) {
        return;
    }
    const tl_broadcast plan = plan_with_input(node, other);
    const tl_broadcast_kernels *kernels = TL_NODE_KERNELS(node)->broadcast;
    const int64_t size = node->output->size;
    if (node->inputs[index]->size == size) {
        bool accumulate;
        tl_real *dx = tl_node_grad(node, index, &accumulate);
        if (dx != NULL) {
            kernels->apply(TL_NODE_THREADS(node), operation, &plan, tl_node_output_grad(node),
                           tl_node_input(node, other), accumulate, dx);
        }
        return;
    }
    tl_real *term = tl_node_scratch(node, (size_t)size * sizeof *term);
    if (term != NULL) {
        kernels->apply(TL_NODE_THREADS(node), operation, &plan, tl_node_output_grad(node),
                       tl_node_input(node, other), false, term);
        tl_node_add_term(node, index, term, 1.0);
    }
}

static void add_backward(tl_node *node) {
    /* repeated operands first: handing the gradient over must come last */
    for (int i = 0; i < 2; i++) {
        if (node->inputs[i]->size != node->output->size) {
            tl_node_add_term(node, i, tl_node_output_grad(node), 1.0);
        }
    }
    for (int i = 0; i < 2; i++) {
        if (node->inputs[i]->size == node->output->size) {
            tl_node_pass_grad(node, i);
        }
    }
}

tl_footprint tl_add_footprint(int64_t size) {
    const double values = (double)size;
    return (tl_footprint){.forward_flops = values,
                          .backward_flops = 2 * values,
                          .forward_flops_executed = values,
                          .backward_flops_executed = 2 * values};
}

tl_tensor *tl_add(tl_tape *tape, tl_tensor *a, tl_tensor *b) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "add", 2, (tl_tensor *[]){a, b}, 0)) {
        return NULL;
    }
    tl_tensor *y = combine(&op, TL_ADD);
    if (y == NULL) {
        return NULL;
    }
    const tl_footprint footprint = tl_add_footprint(y->size);
    tl_op_set_flops(&op, footprint.forward_flops, footprint.backward_flops);
    return tl_op_finish(&op, add_backward);
}

static void sub_backward(tl_node *node) {
    tl_node_add_term(node, 1, tl_node_output_grad(node), -1.0);
    if (node->inputs[0]->size != node->output->size) {
        tl_node_add_term(node, 0, tl_node_output_grad(node), 1.0);
    } else {
        tl_node_pass_grad(node, 0);
    }
}

tl_tensor *tl_sub(tl_tape *tape, tl_tensor *a, tl_tensor *b) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "sub", 2, (tl_tensor *[]){a, b}, 0)) {
        return NULL;
    }
    tl_tensor *y = combine(&op, TL_SUBTRACT);
    if (y == NULL) {
        return NULL;
    }
    tl_op_set_flops(&op, (double)y->size, 2.0 * (double)y->size);
    return tl_op_finish(&op, sub_backward);
}

static void mul_backward(tl_node *node) {
    add_product(node, 0, TL_MULTIPLY, 1);
    add_product(node, 1, TL_MULTIPLY, 0);
}

tl_tensor *tl_mul(tl_tape *tape, tl_tensor *a, tl_tensor *b) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "mul", 2, (tl_tensor *[]){a, b}, 0)) {
        return NULL;
    }
    tl_tensor *y = combine(&op, TL_MULTIPLY);
    if (y == NULL) {
        return NULL;
    }
    for (int i = 0; i < 2; i++) {
        if (tl_op_wants(&op, 1 - i)) {
            tl_op_save_input(&op, i);
        }
    }
    tl_op_set_flops(&op, (double)y->size, 4.0 * (double)y->size);
    return tl_op_finish(&op, mul_backward);
}

static void div_backward(tl_node *node) {
    add_product(node, 0, TL_DIVIDE, 1);
    if (!tl_node_wants(node, 1)) {
        return;
    }
    const int threads = TL_NODE_THREADS(node);
    const int64_t size = node->output->size;
    tl_real *term = tl_node_scratch(node, (size_t)size * sizeof *term);
    if (term == NULL) {
        return;
    }
    const tl_broadcast_kernels *kernels = TL_NODE_KERNELS(node)->broadcast;
    const tl_broadcast plan = plan_with_input(node, 1);
    kernels->apply(threads, TL_DIVIDE, &plan, tl_node_output(node), tl_node_input(node, 1), false,
                   term);
    const tl_broadcast same = {.rank = 1, .extents = {size}, .a_strides = {1}, .b_strides = {1}};
    kernels->apply(threads, TL_MULTIPLY, &same, term, tl_node_output_grad(node), false, term);
    tl_node_add_term(node, 1, term, -1.0);
}

tl_tensor *tl_div(tl_tape *tape, tl_tensor *a, tl_tensor *b) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "div", 2, (tl_tensor *[]){a, b}, 0)) {
        return NULL;
    }
    tl_tensor *y = combine(&op, TL_DIVIDE);
    if (y == NULL) {
        return NULL;
    }
    tl_op_save_input(&op, 1);
    if (tl_op_wants(&op, 1)) {
        tl_op_save_output(&op);
    }
    tl_op_set_flops(&op, (double)y->size, 5.0 * (double)y->size);
    return tl_op_finish(&op, div_backward);
}

typedef struct scale_state {
    double factor;
} scale_state;

static void scale_backward(tl_node *node) {
    const scale_state *state = node->state;
    tl_node_add_term(node, 0, tl_node_output_grad(node), state->factor);
}

tl_tensor *tl_scale(tl_tape *tape, tl_tensor *x, double factor) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "scale", 1, &x, 0)) {
        return NULL;
    }
    tl_tensor *y = tl_op_output(&op, x->rank, x->shape);
    scale_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    state->factor = factor;
    const tl_real scalar = (tl_real)factor;
    const tl_broadcast plan = {.rank = 1, .extents = {x->size}, .a_strides = {1}};
    TL_OP_KERNELS(&op)->broadcast->apply(TL_OP_THREADS(&op), TL_MULTIPLY, &plan, x->storage->data,
                                         &scalar, false, y->storage->data);
    tl_op_set_flops(&op, (double)x->size, (double)x->size);
    return tl_op_finish(&op, scale_backward);
}
