/* Losses.
 *
 * cross_entropy, with M rows that count, s = softmax(logits), smoothing e:
 *   loss = 1/M sum_rows [ log sum exp(x) - (1 - e) x[label] - e/C sum_c x[c] ]
 *   dx[c] = dloss/M ( s[c] - (1 - e) [c = label] - e/C )
 * Saved: the logits, and per row the maximum, 1 / sum exp(x - maximum) and the label (the two
 * apart: their combination in one number loses digits where logits are large).
 *
 * Pointwise losses, a mean over n values, d = x - t:
 *   mse          d^2                              dx = 2 d / n               dt = -dx
 *   smooth_l1    d^2 / (2 beta) or |d| - beta/2   dx = clamp(d / beta) / n   dt = -dx
 *   bce          max(x,0) - x t + log(1+e^-|x|)   dx = (sigmoid(x) - t) / n  dt = -x / n
 * Saved: x and t.
 */
#include <tapeline/loss.h>

#include <inttypes.h>
#include <math.h>

#include "core/op.h"

/* FLOPs a value, an exponential counted as one. */
enum { CROSS_ENTROPY_FORWARD_FLOPS = 4, CROSS_ENTROPY_BACKWARD_FLOPS = 4, POINTWISE_FLOPS = 3 };

typedef struct cross_entropy_state {
    int64_t rows;
    int64_t classes;
    int64_t counted; /* rows that are not ignored */
    double smoothing;
    int32_t *labels; /* -1: ignored */
    tl_real *maximum;
    tl_real *inverse_sum;
} cross_entropy_state;

static void cross_entropy_backward(tl_node *node) {
    const cross_entropy_state *s = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx == NULL) {
        return;
    }
    const double mean = s->counted > 0 ? 1.0 / (double)s->counted : 0.0;
    TL_NODE_KERNELS(node)->loss->cross_entropy_backward(
        TL_NODE_THREADS(node), s->rows, s->classes, tl_node_input(node, 0), s->labels, s->smoothing,
        s->maximum, s->inverse_sum, (double)tl_node_output_grad(node)[0] * mean, accumulate, dx);
}

/* Copies the labels, ignored ones as -1; false with the error recorded if one is out of range. */
static bool copy_labels(tl_op *op, cross_entropy_state *s, const int32_t *labels,
                        const tl_cross_entropy_config *config) {
    for (int64_t row = 0; row < s->rows; row++) {
        const int32_t label = labels[row];
        if (config->ignores_label && label == config->ignored_label) {
            s->labels[row] = -1;
            continue;
        }
        if (label < 0 || label >= s->classes) {
            (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                             "label %" PRId32 " of row %" PRId64 " is outside 0 ... %" PRId64,
                             label, row, s->classes - 1);
            return false;
        }
        s->labels[row] = label;
        s->counted++;
    }
    return true;
}

/* What does not depend on values; false with the error recorded. */
static bool cross_entropy_prepare(tl_op *op, const int32_t *labels,
                                  const tl_cross_entropy_config *config) {
    const tl_tensor *x = op->node->inputs[0];
    if (x->rank < 1) {
        (void)tl_op_fail(op, TL_ERROR_SHAPE, "logits must be [N, C] or [N, ..., C], found []");
        return false;
    }
    if (labels == NULL) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "labels is NULL");
        return false;
    }
    if (!(config->label_smoothing >= 0.0 && config->label_smoothing <= 1.0)) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "label_smoothing must be from 0 to 1, found %g", config->label_smoothing);
        return false;
    }
    cross_entropy_state *s = tl_op_state(op, sizeof *s);
    if (s == NULL) {
        return false;
    }
    s->classes = x->shape[x->rank - 1];
    s->rows = x->size / s->classes;
    s->smoothing = config->label_smoothing;
    const size_t rows = (size_t)s->rows;
    s->labels = tl_op_keep(op, rows * sizeof *s->labels);
    s->maximum = s->labels != NULL ? tl_op_keep(op, rows * sizeof *s->maximum) : NULL;
    s->inverse_sum = s->maximum != NULL ? tl_op_keep(op, rows * sizeof *s->inverse_sum) : NULL;
    return s->inverse_sum != NULL && copy_labels(op, s, labels, config);
}

tl_tensor *tl_cross_entropy(tl_tape *tape, tl_tensor *logits, const int32_t *labels,
                            const tl_cross_entropy_config *config) {
    static const tl_cross_entropy_config defaults = {0};
    tl_op op;
    if (!tl_op_begin(&op, tape, "cross_entropy", 1, &logits, 0) ||
        !cross_entropy_prepare(&op, labels, config != NULL ? config : &defaults)) {
        return NULL;
    }
    const tl_loss_kernels *kernels = TL_OP_KERNELS(&op)->loss;
    const cross_entropy_state *s = op.node->state;
    void *scratch = tl_op_scratch(&op, kernels->cross_entropy_scratch_bytes(s->rows, s->classes));
    tl_tensor *loss = scratch != NULL ? tl_op_output(&op, 0, NULL) : NULL;
    if (loss == NULL) {
        return NULL;
    }
    const double sum = kernels->cross_entropy_forward(
        TL_OP_THREADS(&op), s->rows, s->classes, logits->storage->data, s->labels, s->smoothing,
        s->maximum, s->inverse_sum, scratch);
    loss->storage->data[0] = (tl_real)(s->counted > 0 ? sum / (double)s->counted : 0.0);
    tl_op_save_input(&op, 0);
    tl_op_set_flops(&op, CROSS_ENTROPY_FORWARD_FLOPS * (double)logits->size,
                    CROSS_ENTROPY_BACKWARD_FLOPS * (double)logits->size);
    return tl_op_finish(&op, cross_entropy_backward);
}

int64_t tl_count_correct(tl_tensor *logits, const int32_t *labels) {
    if (logits == NULL || logits->storage == NULL || logits->rank < 1) {
        return -1;
    }
    const int64_t classes = logits->shape[logits->rank - 1];
    int64_t correct = 0;
    for (int64_t row = 0; row < logits->size / classes; row++) {
        const tl_real *x = logits->storage->data + row * classes;
        int64_t best = 0;
        for (int64_t c = 1; c < classes; c++) {
            best = x[c] > x[best] ? c : best;
        }
        correct += best == labels[row];
    }
    return correct;
}

/* ------------------------------------------------------------------ pointwise losses */

typedef struct pointwise_state {
    tl_pointwise_loss kind;
    double beta;
} pointwise_state;

/* The gradient of the target of mse and smooth_l1, which are symmetric, is that of x with the
 * operands exchanged; that of bce is -x / n. */
static void target_backward(tl_node *node, double scale) {
    const pointwise_state *s = node->state;
    bool accumulate;
    tl_real *dt = tl_node_grad(node, 1, &accumulate);
    if (dt == NULL) {
        return;
    }
    const int64_t n = node->inputs[1]->size;
    const tl_real *x = tl_node_input(node, 0);
    if (s->kind == TL_LOSS_BCE_LOGITS) {
        const tl_real factor = (tl_real)-scale;
        const tl_broadcast plan = {.rank = 1, .extents = {n}, .a_strides = {1}};
        TL_NODE_KERNELS(node)->broadcast->apply(TL_NODE_THREADS(node), TL_MULTIPLY, &plan, x,
                                                &factor, accumulate, dt);
        return;
    }
    TL_NODE_KERNELS(node)->loss->pointwise_backward(TL_NODE_THREADS(node), s->kind, s->beta, n,
                                                    tl_node_input(node, 1), x, scale, accumulate,
                                                    dt);
}

static void pointwise_backward(tl_node *node) {
    const pointwise_state *s = node->state;
    const int64_t n = node->inputs[0]->size;
    const double scale = (double)tl_node_output_grad(node)[0] / (double)n;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx != NULL) {
        TL_NODE_KERNELS(node)->loss->pointwise_backward(
            TL_NODE_THREADS(node), s->kind, s->beta, n, tl_node_input(node, 0),
            tl_node_input(node, 1), scale, accumulate, dx);
    }
    target_backward(node, scale);
}

static bool same_shape(const tl_tensor *a, const tl_tensor *b) {
    bool same = a->rank == b->rank;
    for (int i = 0; i < a->rank && same; i++) {
        same = a->shape[i] == b->shape[i];
    }
    return same;
}

static tl_tensor *pointwise(tl_tape *tape, const char *name, tl_tensor *x, tl_tensor *target,
                            tl_pointwise_loss kind, double beta) {
    tl_op op;
    if (!tl_op_begin(&op, tape, name, 2, (tl_tensor *[]){x, target}, 0)) {
        return NULL;
    }
    if (!same_shape(x, target)) {
        char text_x[TL_SHAPE_TEXT_SIZE];
        char text_target[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE, "target must have the shape of x, %s, found %s",
                          tl_shape_text(x->rank, x->shape, text_x),
                          tl_shape_text(target->rank, target->shape, text_target));
    }
    if (!(beta > 0.0) || !isfinite(beta)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "beta must be above 0, found %g", beta);
    }
    const tl_loss_kernels *kernels = TL_OP_KERNELS(&op)->loss;
    pointwise_state *state = tl_op_state(&op, sizeof *state);
    void *scratch =
        state != NULL ? tl_op_scratch(&op, kernels->pointwise_scratch_bytes(x->size)) : NULL;
    tl_tensor *loss = scratch != NULL ? tl_op_output(&op, 0, NULL) : NULL;
    if (loss == NULL) {
        return NULL;
    }
    *state = (pointwise_state){kind, beta};
    const double sum = kernels->pointwise_forward(TL_OP_THREADS(&op), kind, beta, x->size,
                                                  x->storage->data, target->storage->data, scratch);
    loss->storage->data[0] = (tl_real)(sum / (double)x->size);
    tl_op_save_input(&op, 0);
    tl_op_save_input(&op, 1);
    tl_op_set_flops(&op, POINTWISE_FLOPS * (double)x->size, POINTWISE_FLOPS * (double)x->size);
    return tl_op_finish(&op, pointwise_backward);
}

tl_tensor *tl_mse_loss(tl_tape *tape, tl_tensor *x, tl_tensor *target) {
    return pointwise(tape, "mse_loss", x, target, TL_LOSS_SQUARED, 1.0);
}

tl_tensor *tl_smooth_l1_loss(tl_tape *tape, tl_tensor *x, tl_tensor *target, double beta) {
    return pointwise(tape, "smooth_l1_loss", x, target, TL_LOSS_SMOOTH_L1, beta);
}

tl_tensor *tl_bce_with_logits(tl_tape *tape, tl_tensor *x, tl_tensor *target) {
    return pointwise(tape, "bce_with_logits", x, target, TL_LOSS_BCE_LOGITS, 1.0);
}
