/* Rows of a table by index: y[i] = weight[indices[i]];  dweight[v] = sum of dy[i] over the i with
 * indices[i] = v, added in the order of i. Saved: the indices, 4 bytes each.
 */
#include <tapeline/embedding.h>

#include <inttypes.h>
#include <string.h>

#include "core/op.h"

typedef struct embedding_state {
    int64_t count;
    int32_t *indices;
} embedding_state;

static void embedding_backward(tl_node *node) {
    const embedding_state *s = node->state;
    tl_real *dweight = tl_node_grad_zeroed(node, 0);
    if (dweight != NULL) {
        TL_NODE_KERNELS(node)->embedding->scatter_add(TL_NODE_THREADS(node), s->count,
                                                      node->inputs[0]->shape[1], s->indices,
                                                      tl_node_output_grad(node), dweight);
    }
}

/* The copy that backward reads; false with the error recorded. */
static bool keep_indices(tl_op *op, embedding_state *s, const int32_t *indices) {
    const int64_t rows = op->node->inputs[0]->shape[0];
    if (indices == NULL) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "indices is NULL");
        return false;
    }
    for (int64_t i = 0; i < s->count; i++) {
        if (indices[i] < 0 || indices[i] >= rows) {
            (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                             "index %" PRId32 " at position %" PRId64 " is outside 0 ... %" PRId64,
                             indices[i], i, rows - 1);
            return false;
        }
    }
    s->indices = tl_op_keep(op, (size_t)s->count * sizeof *s->indices);
    if (s->indices == NULL) {
        return false;
    }
    memcpy(s->indices, indices, (size_t)s->count * sizeof *s->indices);
    return true;
}

tl_tensor *tl_embedding(tl_tape *tape, tl_tensor *weight, int rank, const int64_t *shape,
                        const int32_t *indices) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "embedding", 1, &weight, 0)) {
        return NULL;
    }
    char text[TL_SHAPE_TEXT_SIZE];
    if (weight->rank != 2) {
        return tl_op_fail(&op, TL_ERROR_SHAPE, "weight must be [V, D], found %s",
                          tl_shape_text(weight->rank, weight->shape, text));
    }
    embedding_state *s = tl_op_state(&op, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    if (rank >= TL_MAX_RANK || !tl_shape_size(rank, shape, &s->count)) {
        return tl_op_fail(&op, TL_ERROR_SHAPE,
                          "indices must have a rank of 0 to %d and extents of at least 1, found "
                          "rank %d %s",
                          TL_MAX_RANK - 1, rank, tl_shape_text(rank, shape, text));
    }
    int64_t y_shape[TL_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        y_shape[i] = shape[i];
    }
    y_shape[rank] = weight->shape[1];
    tl_tensor *y = keep_indices(&op, s, indices) ? tl_op_output(&op, rank + 1, y_shape) : NULL;
    if (y == NULL) {
        return NULL;
    }
    TL_OP_KERNELS(&op)->embedding->gather(TL_OP_THREADS(&op), s->count, weight->shape[1],
                                          s->indices, weight->storage->data, y->storage->data);
    tl_op_set_flops(&op, 0.0, (double)y->size);
    return tl_op_finish(&op, embedding_backward);
}
