/* Sums and means over dimensions.
 *
 *   y = s sum x, with s = 1 (sum) or 1 / count (mean);   dx = s dy, repeated over what was summed.
 * Saved: nothing.
 */
#include <tapeline/reduce.h>

#include "ops/dims.h"

typedef struct reduce_state {
    double scale;
    int64_t kept_shape[TL_MAX_RANK]; /* of the result, with extents of 1 where x was summed */
} reduce_state;

static void reduce_backward(tl_node *node) {
    const reduce_state *state = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx == NULL) {
        return;
    }
    const tl_tensor *x = node->inputs[0];
    const tl_real factor = (tl_real)state->scale;
    const tl_broadcast plan =
        tl_broadcast_plan(x->rank, x->shape, x->rank, state->kept_shape, 0, NULL);
    TL_NODE_KERNELS(node)->broadcast->apply(TL_NODE_THREADS(node), TL_MULTIPLY, &plan,
                                            tl_node_output_grad(node), &factor, accumulate, dx);
}

/* Marks the dimensions; false with the error recorded if the list is wrong. */
static bool mark_dims(tl_op *op, int count, const int *dims, bool marks[TL_MAX_RANK]) {
    const int rank = op->node->inputs[0]->rank;
    for (int i = 0; i < rank; i++) {
        marks[i] = dims == NULL;
    }
    for (int i = 0; i < count && dims != NULL; i++) {
        if (dims[i] < 0 || dims[i] >= rank) {
            (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                             "dims must be from 0 to %d for x of rank %d, found %d", rank - 1, rank,
                             dims[i]);
            return false;
        }
        if (marks[dims[i]]) {
            (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "dims must be distinct, found %d twice",
                             dims[i]);
            return false;
        }
        marks[dims[i]] = true;
    }
    return true;
}

static tl_tensor *reduce(tl_tape *tape, const char *name, tl_tensor *x, int count, const int *dims,
                         bool keep_dims, bool mean) {
    tl_op op;
    bool marks[TL_MAX_RANK];
    if (!tl_op_begin(&op, tape, name, 1, &x, 0) || !mark_dims(&op, count, dims, marks)) {
        return NULL;
    }
    reduce_state *state = tl_op_state(&op, sizeof *state);
    if (state == NULL) {
        return NULL;
    }
    int rank = 0;
    int64_t shape[TL_MAX_RANK];
    int64_t summed = 1;
    for (int i = 0; i < x->rank; i++) {
        state->kept_shape[i] = marks[i] ? 1 : x->shape[i];
        summed *= marks[i] ? x->shape[i] : 1;
        if (!marks[i] || keep_dims) {
            shape[rank++] = state->kept_shape[i];
        }
    }
    state->scale = mean ? 1.0 / (double)summed : 1.0;
    const tl_reduction plan = tl_reduction_plan(x->rank, x->shape, marks);
    const tl_reduce_kernels *kernels = TL_OP_KERNELS(&op)->reduce;
    tl_tensor *y = tl_op_output(&op, rank, shape);
    void *scratch = y != NULL ? tl_op_scratch(&op, kernels->sum_scratch_bytes(&plan)) : NULL;
    if (scratch == NULL) {
        return NULL;
    }
    kernels->sum(TL_OP_THREADS(&op), &plan, x->storage->data, state->scale, false, y->storage->data,
                 scratch);
    tl_op_set_flops(&op, (double)x->size, (double)x->size);
    return tl_op_finish(&op, reduce_backward);
}

tl_tensor *tl_sum(tl_tape *tape, tl_tensor *x, int count, const int *dims, bool keep_dims) {
    return reduce(tape, "sum", x, count, dims, keep_dims, false);
}

tl_tensor *tl_mean(tl_tape *tape, tl_tensor *x, int count, const int *dims, bool keep_dims) {
    return reduce(tape, "mean", x, count, dims, keep_dims, true);
}
