/* Operations that move values: the gradient moves the opposite way.
 *
 *   reshape   y is x under another shape            dx = dy under that of x
 *   permute   y[i] = x[i permuted]                  dx[i] = dy[i permuted back]
 *   concat    y is x0, x1, ... along a dimension    dx_k is the k-th stretch of dy
 *   slice     y[i] = x[start + i step]              dx[start + i step] = dy[i], zero elsewhere
 * Saved: nothing.
 */
#include <tapeline/shape.h>

#include <inttypes.h>

#include "ops/dims.h"

/* ------------------------------------------------------------------ reshape */

static void reshape_backward(tl_node *node) {
    tl_node_pass_grad(node, 0);
}

/* Replaces an extent of -1; false if the size does not come out. */
static bool complete_shape(int64_t size, int rank, const int64_t *shape,
                           int64_t completed[TL_MAX_RANK]) {
    int unknown = -1;
    int64_t known = 1;
    for (int i = 0; i < rank; i++) {
        completed[i] = shape[i];
        if (shape[i] == -1 && unknown < 0) {
            unknown = i;
        } else if (shape[i] < 1 || __builtin_mul_overflow(known, shape[i], &known)) {
            return false;
        }
    }
    if (unknown >= 0) {
        completed[unknown] = size / known;
        known *= completed[unknown];
    }
    return known == size;
}

tl_tensor *tl_reshape(tl_tape *tape, tl_tensor *x, int rank, const int64_t *shape) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "reshape", 1, &x, 0)) {
        return NULL;
    }
    if (rank < 0 || rank > TL_MAX_RANK) {
        return tl_op_fail(&op, TL_ERROR_SHAPE, "rank must be from 0 to %d, found %d", TL_MAX_RANK,
                          rank);
    }
    int64_t completed[TL_MAX_RANK];
    if (!complete_shape(x->size, rank, shape, completed)) {
        char from[TL_SHAPE_TEXT_SIZE];
        char to[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE, "x %s has %" PRId64 " elements, shape %s does not",
                          tl_shape_text(x->rank, x->shape, from), x->size,
                          tl_shape_text(rank, shape, to));
    }
    if (tl_op_output_view(&op, 0, rank, completed) == NULL) {
        return NULL;
    }
    return tl_op_finish(&op, reshape_backward);
}

/* ------------------------------------------------------------------ permute */

typedef struct permute_state {
    tl_copy back; /* from dy to dx */
} permute_state;

static void permute_backward(tl_node *node) {
    const permute_state *state = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx != NULL) {
        TL_NODE_KERNELS(node)->copy->copy(TL_NODE_THREADS(node), &state->back,
                                          tl_node_output_grad(node), accumulate, dx);
    }
}

static bool is_permutation(int rank, const int *dims) {
    unsigned seen = 0;
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0 || dims[i] >= rank || (seen >> dims[i] & 1u) != 0) {
            return false;
        }
        seen |= 1u << dims[i];
    }
    return true;
}

tl_tensor *tl_permute(tl_tape *tape, tl_tensor *x, const int *dims) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "permute", 1, &x, 0)) {
        return NULL;
    }
    if (!is_permutation(x->rank, dims)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                          "dims must be a permutation of 0 ... %d for x of rank %d", x->rank - 1,
                          x->rank);
    }
    int64_t shape[TL_MAX_RANK];
    int64_t x_strides[TL_MAX_RANK];
    int64_t y_strides[TL_MAX_RANK];
    int64_t from[TL_MAX_RANK]; /* strides of x in the order of y */
    int64_t back[TL_MAX_RANK]; /* strides of y in the order of x */
    for (int i = 0; i < x->rank; i++) {
        shape[i] = x->shape[dims[i]];
    }
    tl_dense_strides(x->rank, x->shape, x_strides);
    tl_dense_strides(x->rank, shape, y_strides);
    for (int i = 0; i < x->rank; i++) {
        from[i] = x_strides[dims[i]];
        back[dims[i]] = y_strides[i];
    }
    permute_state *state = tl_op_state(&op, sizeof *state);
    tl_tensor *y = state != NULL ? tl_op_output(&op, x->rank, shape) : NULL;
    if (y == NULL) {
        return NULL;
    }
    state->back = tl_copy_plan(x->rank, x->shape, back, x_strides);
    const tl_copy plan = tl_copy_plan(x->rank, shape, from, y_strides);
    TL_OP_KERNELS(&op)->copy->copy(TL_OP_THREADS(&op), &plan, x->storage->data, false,
                                   y->storage->data);
    return tl_op_finish(&op, permute_backward);
}

/* ------------------------------------------------------------------ concat */

typedef struct concat_state {
    int64_t outer; /* positions before the dimension */
    int64_t inner; /* values behind it */
    int dim;
} concat_state;

/* A stretch of `length` along the dimension, between an operand and the whole of `total`. */
static tl_copy stretch(const concat_state *s, int64_t length, int64_t from, int64_t to) {
    return tl_copy_plan(2, (int64_t[]){s->outer, length * s->inner},
                        (int64_t[]){from * s->inner, 1}, (int64_t[]){to * s->inner, 1});
}

static void concat_backward(tl_node *node) {
    const concat_state *s = node->state;
    const int64_t total = node->output->shape[s->dim];
    const tl_real *dy = tl_node_output_grad(node);
    for (int i = 0; i < node->input_count; i++) {
        const int64_t length = node->inputs[i]->shape[s->dim];
        bool accumulate;
        tl_real *dx = tl_node_grad(node, i, &accumulate);
        if (dx != NULL) {
            const tl_copy plan = stretch(s, length, total, length);
            TL_NODE_KERNELS(node)->copy->copy(TL_NODE_THREADS(node), &plan, dy, accumulate, dx);
        }
        dy += length * s->inner;
    }
}

/* The shape of the result; false with the error recorded if the operands do not fit. */
static bool concat_shape(tl_op *op, int dim, int64_t shape[TL_MAX_RANK]) {
    const tl_node *node = op->node;
    const tl_tensor *first = node->inputs[0];
    if (dim < 0 || dim >= first->rank) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "dim must be from 0 to %d for inputs of rank %d, found %d",
                         first->rank - 1, first->rank, dim);
        return false;
    }
    for (int d = 0; d < first->rank; d++) {
        shape[d] = first->shape[d];
    }
    for (int i = 1; i < node->input_count; i++) {
        const tl_tensor *x = node->inputs[i];
        bool fits = x->rank == first->rank;
        for (int d = 0; d < first->rank && fits; d++) {
            fits = d == dim || x->shape[d] == first->shape[d];
        }
        if (!fits) {
            char text[TL_SHAPE_TEXT_SIZE];
            char other[TL_SHAPE_TEXT_SIZE];
            (void)tl_op_fail(op, TL_ERROR_SHAPE,
                             "input %d must have the shape of input 0, %s, but in dimension %d, "
                             "found %s",
                             i, tl_shape_text(first->rank, first->shape, text), dim,
                             tl_shape_text(x->rank, x->shape, other));
            return false;
        }
        shape[dim] += x->shape[dim];
    }
    return true;
}

tl_tensor *tl_concat(tl_tape *tape, int count, tl_tensor *const *inputs, int dim) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "concat", count > 0 ? count : 0, inputs, 0)) {
        return NULL;
    }
    if (count < 1) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "count must be at least 1, found %d",
                          count);
    }
    int64_t shape[TL_MAX_RANK];
    concat_state *s = concat_shape(&op, dim, shape) ? tl_op_state(&op, sizeof *s) : NULL;
    tl_tensor *y = s != NULL ? tl_op_output(&op, inputs[0]->rank, shape) : NULL;
    if (y == NULL) {
        return NULL;
    }
    *s = (concat_state){.outer = 1, .inner = 1, .dim = dim};
    for (int d = 0; d < y->rank; d++) {
        s->outer *= d < dim ? shape[d] : 1;
        s->inner *= d > dim ? shape[d] : 1;
    }
    tl_real *to = y->storage->data;
    for (int i = 0; i < count; i++) {
        const int64_t length = inputs[i]->shape[dim];
        const tl_copy plan = stretch(s, length, length, shape[dim]);
        TL_OP_KERNELS(&op)->copy->copy(TL_OP_THREADS(&op), &plan, inputs[i]->storage->data, false,
                                       to);
        to += length * s->inner;
    }
    return tl_op_finish(&op, concat_backward);
}

/* ------------------------------------------------------------------ slice */

typedef struct slice_state {
    int64_t offset; /* of the first element in x */
    int64_t strides[TL_MAX_RANK];
} slice_state;

static void slice_backward(tl_node *node) {
    const slice_state *state = node->state;
    tl_real *dx = tl_node_grad_zeroed(node, 0);
    if (dx == NULL) {
        return;
    }
    const tl_tensor *y = node->output;
    int64_t y_strides[TL_MAX_RANK];
    tl_dense_strides(y->rank, y->shape, y_strides);
    const tl_copy plan = tl_copy_plan(y->rank, y->shape, y_strides, state->strides);
    TL_NODE_KERNELS(node)->copy->copy(TL_NODE_THREADS(node), &plan, tl_node_output_grad(node), true,
                                      dx + state->offset);
}

tl_tensor *tl_slice(tl_tape *tape, tl_tensor *x, const int64_t *starts, const int64_t *stops,
                    const int64_t *steps) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "slice", 1, &x, 0)) {
        return NULL;
    }
    slice_state *state = tl_op_state(&op, sizeof *state);
    if (state == NULL) {
        return NULL;
    }
    int64_t shape[TL_MAX_RANK];
    tl_dense_strides(x->rank, x->shape, state->strides);
    for (int d = 0; d < x->rank; d++) {
        const int64_t step = steps != NULL ? steps[d] : 1;
        if (starts[d] < 0 || starts[d] >= stops[d] || stops[d] > x->shape[d] || step < 1) {
            return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                              "dimension %d wants 0 <= start < stop <= %" PRId64
                              " and a step of at least 1, found %" PRId64 ", %" PRId64
                              " and %" PRId64,
                              d, x->shape[d], starts[d], stops[d], step);
        }
        shape[d] = (stops[d] - starts[d] - 1) / step + 1;
        state->offset += starts[d] * state->strides[d];
        state->strides[d] *= step;
    }
    tl_tensor *y = tl_op_output(&op, x->rank, shape);
    if (y == NULL) {
        return NULL;
    }
    int64_t y_strides[TL_MAX_RANK];
    tl_dense_strides(y->rank, y->shape, y_strides);
    const tl_copy plan = tl_copy_plan(y->rank, y->shape, state->strides, y_strides);
    TL_OP_KERNELS(&op)->copy->copy(TL_OP_THREADS(&op), &plan, x->storage->data + state->offset,
                                   false, y->storage->data);
    return tl_op_finish(&op, slice_backward);
}
