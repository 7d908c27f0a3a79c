/* loss.c - cross-entropy on logits, and losses between two tensors.
 *
 * Cross-entropy, for each row with label l, smoothing e and p = log_softmax(x):
 *   loss = log sum exp x - (1 - e) x_l - e/C sum x        (the same as in loss.h)
 *   dx_c = (softmax(x)_c - (1 - e) [c = l] - e/C) dloss / rows
 * Saved: the logits and, per row, their maximum and 1 / sum exp(x - maximum); the labels.
 *
 * Pointwise, with d = x - target, the mean of f(d):
 *   mse        f' = 2 d
 *   smooth L1  f' = d / beta if |d| < beta, else sign d
 *   bce        f' = sigmoid(x) - target
 * Saved: both tensors.
 */
#include <tapeline/loss.h>

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/op.h"

/* FLOPs a value, an exponential counted as one. */
enum { CROSS_ENTROPY_FLOPS = 5, POINTWISE_FLOPS = 4 };

typedef struct cross_entropy_state {
    int64_t rows;
    int64_t classes;
    int64_t counted; /* rows that count */
    double smoothing;
    const int32_t *labels;
    const tl_real *maximum;
    const tl_real *inverse_sum;
} cross_entropy_state;

static void cross_entropy_backward(tl_node *node) {
    const cross_entropy_state *s = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx == NULL) {
        return;
    }
    const double scale = (double)tl_node_output_grad(node)[0] / (double)s->counted;
    TL_NODE_KERNELS(node)->loss->cross_entropy_backward(
        TL_NODE_THREADS(node), s->rows, s->classes, tl_node_input(node, 0), s->labels, s->smoothing,
        s->maximum, s->inverse_sum, scale, accumulate, dx);
}

/* The number of rows that count; -1 with an error recorded if a label is out of range. */
static int64_t check_labels(tl_op *op, const int32_t *labels, int64_t rows, int64_t classes,
                            bool ignore_negative) {
    int64_t counted = 0;
    for (int64_t i = 0; i < rows; i++) {
        if (labels[i] < 0 && ignore_negative) {
            continue;
        }
        if (labels[i] < 0 || labels[i] >= classes) {
            (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                             "label %" PRId64 " must be from 0 to %" PRId64 ", found %" PRId32, i,
                             classes - 1, labels[i]);
            return -1;
        }
        counted++;
    }
    if (counted == 0) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "no row has a label that counts");
        return -1;
    }
    return counted;
}

tl_tensor *tl_cross_entropy(tl_tape *tape, tl_tensor *logits, const int32_t *labels,
                            const tl_cross_entropy_config *config) {
    static const tl_cross_entropy_config defaults = {0};
    tl_op op;
    if (!tl_op_begin(&op, tape, "cross_entropy", 1, &logits, 0)) {
        return NULL;
    }
    config = config != NULL ? config : &defaults;
    if (labels == NULL) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "labels are NULL");
    }
    if (!(config->label_smoothing >= 0.0 && config->label_smoothing < 1.0)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                          "label_smoothing must be in [0, 1), found %g", config->label_smoothing);
    }
    if (logits->rank < 2) {
        char text[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE, "logits must be [N, ..., C], found %s",
                          tl_shape_text(logits->rank, logits->shape, text));
    }
    const int64_t classes = logits->shape[logits->rank - 1];
    const int64_t rows = logits->size / classes;
    const int64_t counted = check_labels(&op, labels, rows, classes, config->ignore_negative);
    tl_tensor *loss = counted > 0 ? tl_op_output(&op, 0, NULL) : NULL;
    if (loss == NULL) {
        return NULL;
    }
    const tl_loss_kernels *k = TL_OP_KERNELS(&op)->loss;
    const size_t row_bytes = (size_t)rows * sizeof(tl_real);
    int32_t *copied = tl_op_keep(&op, (size_t)rows * sizeof *copied);
    tl_real *maximum = copied != NULL ? tl_op_keep(&op, row_bytes) : NULL;
    tl_real *inverse_sum = maximum != NULL ? tl_op_keep(&op, row_bytes) : NULL;
    void *scratch = inverse_sum != NULL
                        ? tl_op_scratch(&op, k->cross_entropy_scratch_bytes(rows, classes))
                        : NULL;
    cross_entropy_state *state = scratch != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    memcpy(copied, labels, (size_t)rows * sizeof *copied);
    *state = (cross_entropy_state){.rows = rows,
                                   .classes = classes,
                                   .counted = counted,
                                   .smoothing = config->label_smoothing,
                                   .labels = copied,
                                   .maximum = maximum,
                                   .inverse_sum = inverse_sum};
    const double sum =
        k->cross_entropy_forward(TL_OP_THREADS(&op), rows, classes, logits->storage->data, copied,
                                 config->label_smoothing, maximum, inverse_sum, scratch);
    loss->storage->data[0] = (tl_real)(sum / (double)counted);
    tl_op_set_flops(&op, CROSS_ENTROPY_FLOPS * (double)logits->size,
                    CROSS_ENTROPY_FLOPS * (double)logits->size);
    tl_op_save_input(&op, 0);
    return tl_op_finish(&op, cross_entropy_backward);
}

int64_t tl_count_correct(const tl_tensor *logits, const int32_t *labels) {
    if (logits == NULL || logits->storage == NULL || logits->rank < 1) {
        return 0;
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

/* ------------------------------------------------------------------ between two tensors */

typedef struct pointwise_state {
    tl_pointwise_loss kind;
    double beta;
} pointwise_state;

static void pointwise_backward(tl_node *node) {
    const pointwise_state *s = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx == NULL) {
        return;
    }
    const int64_t size = node->inputs[0]->size;
    const double scale = (double)tl_node_output_grad(node)[0] / (double)size;
    TL_NODE_KERNELS(node)->loss->pointwise_backward(TL_NODE_THREADS(node), s->kind, s->beta, size,
                                                    tl_node_input(node, 0), tl_node_input(node, 1),
                                                    scale, accumulate, dx);
}

static tl_tensor *pointwise(tl_tape *tape, const char *name, tl_pointwise_loss kind, double beta,
                            tl_tensor *x, tl_tensor *target) {
    tl_op op;
    if (!tl_op_begin(&op, tape, name, 2, (tl_tensor *[]){x, target}, 0)) {
        return NULL;
    }
    if (!(beta > 0.0) || !isfinite(beta)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "beta must be above 0, found %g", beta);
    }
    if (x->rank != target->rank ||
        memcmp(x->shape, target->shape, (size_t)x->rank * sizeof x->shape[0]) != 0) {
        char x_text[TL_SHAPE_TEXT_SIZE];
        char target_text[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE, "target must have the shape of x, %s, found %s",
                          tl_shape_text(x->rank, x->shape, x_text),
                          tl_shape_text(target->rank, target->shape, target_text));
    }
    const tl_loss_kernels *k = TL_OP_KERNELS(&op)->loss;
    tl_tensor *loss = tl_op_output(&op, 0, NULL);
    void *scratch = loss != NULL ? tl_op_scratch(&op, k->pointwise_scratch_bytes(x->size)) : NULL;
    pointwise_state *state = scratch != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    *state = (pointwise_state){.kind = kind, .beta = beta};
    const double sum = k->pointwise_forward(TL_OP_THREADS(&op), kind, beta, x->size,
                                            x->storage->data, target->storage->data, scratch);
    loss->storage->data[0] = (tl_real)(sum / (double)x->size);
    tl_op_set_flops(&op, POINTWISE_FLOPS * (double)x->size, POINTWISE_FLOPS * (double)x->size);
    tl_op_save_input(&op, 0);
    tl_op_save_input(&op, 1);
    return tl_op_finish(&op, pointwise_backward);
}

tl_tensor *tl_mse_loss(tl_tape *tape, tl_tensor *x, tl_tensor *target) {
    return pointwise(tape, "mse_loss", TL_LOSS_SQUARED, 1.0, x, target);
}

tl_tensor *tl_smooth_l1_loss(tl_tape *tape, tl_tensor *x, tl_tensor *target, double beta) {
    return pointwise(tape, "smooth_l1_loss", TL_LOSS_SMOOTH_L1, beta, x, target);
}

tl_tensor *tl_bce_with_logits(tl_tape *tape, tl_tensor *x, tl_tensor *target) {
    return pointwise(tape, "bce_with_logits", TL_LOSS_BCE_LOGITS, 1.0, x, target);
}
