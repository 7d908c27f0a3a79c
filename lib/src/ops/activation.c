/* Elementwise nonlinearities: y = f(x), dx = f'(x) dy. The formulas are in activation.h.
 *
 * f' from the result, which then is what is saved (so that x can be released):
 *   relu        1 if y > 0, else 0              sigmoid   y (1 - y)
 *   leaky_relu  1 if y > 0, else slope          tanh      1 - y^2
 *   elu         1 if y > 0, else y + alpha (alpha >= 0; d/dx alpha (e^x - 1) = alpha e^x)
 * and from the input where the result does not tell it:
 *   gelu        cdf(x) + x pdf(x), the normal distribution's
 *   gelu (tanh) s + x s (1 - s) u', s = sigmoid(u), u = 2 sqrt(2/pi) (x + 0.044715 x^3)
 *   silu        s (1 + x (1 - s)), s = sigmoid(x)
 *   softplus    sigmoid(beta x), 1 beyond the threshold
 *   leaky_relu with a negative slope, as its result has lost the sign
 * Saved: size values, y or x.
 */
#include <tapeline/activation.h>

#include <math.h>

#include "core/op.h"

/* FLOPs a value, an exponential or a quotient counted as one. */
enum { FORWARD_FLOPS = 1, BACKWARD_FLOPS = 2 };

static void activation_backward(tl_node *node) {
    const tl_activation *f = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx == NULL) {
        return;
    }
    const tl_real *saved =
        tl_activation_saves_output(f) ? tl_node_output(node) : tl_node_input(node, 0);
    TL_NODE_KERNELS(node)->activation->backward(TL_NODE_THREADS(node), f, node->output->size, saved,
                                                tl_node_output_grad(node), accumulate, dx);
}

static tl_tensor *activation_finish(tl_op *op, tl_activation f) {
    tl_tensor *x = op->node->inputs[0];
    tl_tensor *y = tl_op_output(op, x->rank, x->shape);
    tl_activation *state = y != NULL ? tl_op_state(op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    *state = f;
    TL_OP_KERNELS(op)->activation->forward(TL_OP_THREADS(op), state, x->size, x->storage->data,
                                           y->storage->data);
    if (tl_activation_saves_output(&f)) {
        tl_op_save_output(op);
    } else {
        tl_op_save_input(op, 0);
    }
    tl_op_set_flops(op, FORWARD_FLOPS * (double)x->size, BACKWARD_FLOPS * (double)x->size);
    return tl_op_finish(op, activation_backward);
}

static tl_tensor *apply(tl_tape *tape, const char *name, tl_tensor *x, tl_activation_kind kind) {
    tl_op op;
    if (!tl_op_begin(&op, tape, name, 1, &x, 0)) {
        return NULL;
    }
    return activation_finish(&op, (tl_activation){.kind = kind});
}

tl_tensor *tl_relu(tl_tape *tape, tl_tensor *x) {
    return apply(tape, "relu", x, TL_ACTIVATION_RELU);
}

tl_tensor *tl_leaky_relu(tl_tape *tape, tl_tensor *x, double negative_slope) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "leaky_relu", 1, &x, 0)) {
        return NULL;
    }
    if (!isfinite(negative_slope)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "negative_slope must be finite, found %g",
                          negative_slope);
    }
    return activation_finish(
        &op, (tl_activation){.kind = TL_ACTIVATION_LEAKY_RELU, .first = (tl_real)negative_slope});
}

tl_tensor *tl_gelu(tl_tape *tape, tl_tensor *x, tl_gelu_form form) {
    if (form == TL_GELU_EXACT) {
        return apply(tape, "gelu", x, TL_ACTIVATION_GELU);
    }
    return apply(tape, "gelu", x, TL_ACTIVATION_GELU_TANH);
}

tl_tensor *tl_silu(tl_tape *tape, tl_tensor *x) {
    return apply(tape, "silu", x, TL_ACTIVATION_SILU);
}

tl_tensor *tl_sigmoid(tl_tape *tape, tl_tensor *x) {
    return apply(tape, "sigmoid", x, TL_ACTIVATION_SIGMOID);
}

tl_tensor *tl_tanh(tl_tape *tape, tl_tensor *x) {
    return apply(tape, "tanh", x, TL_ACTIVATION_TANH);
}

tl_tensor *tl_elu(tl_tape *tape, tl_tensor *x, double alpha) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "elu", 1, &x, 0)) {
        return NULL;
    }
    if (!(alpha >= 0.0) || !isfinite(alpha)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "alpha must be 0 or more, found %g",
                          alpha);
    }
    return activation_finish(&op,
                             (tl_activation){.kind = TL_ACTIVATION_ELU, .first = (tl_real)alpha});
}

tl_tensor *tl_softplus(tl_tape *tape, tl_tensor *x, double beta, double threshold) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "softplus", 1, &x, 0)) {
        return NULL;
    }
    if (!(beta > 0.0) || !isfinite(beta)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "beta must be above 0, found %g", beta);
    }
    if (isnan(threshold)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "threshold must be a number, found %g",
                          threshold);
    }
    return activation_finish(&op, (tl_activation){.kind = TL_ACTIVATION_SOFTPLUS,
                                                  .first = (tl_real)beta,
                                                  .second = (tl_real)threshold});
}
