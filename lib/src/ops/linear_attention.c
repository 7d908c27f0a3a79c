/* Causal linear attention. Per sample and head, with f = elu + 1, w_ij = f(q_i) . f(k_j):
 *
 *     num_i = sum over j <= i of w_ij v_j,  sum_i = sum over j <= i of w_ij + epsilon,
 *     y_i = num_i / sum_i
 *
 *     dnum_i = dy_i / sum_i,  dsum_i = -dy_i . y_i / sum_i
 *     dw_ij = dnum_i . v_j + dsum_i        (j <= i)
 *     dv_j = sum over i >= j of w_ij dnum_i
 *     df(q_i) = sum over j <= i of dw_ij f(k_j),  df(k_j) = sum over i >= j of dw_ij f(q_i)
 *     dq = df(q) min(f(q), 1), dk = df(k) min(f(k), 1)
 *
 * Saved: q, k, v, y and sum_i. The sums over positions are running sums of f(k_j) v_j^T (forward)
 * and f(q_i) dnum_i^T (backward): kernels/k_linear_attention.c.
 */
#include <tapeline/linear_attention.h>

#include <inttypes.h>

#include "core/op.h"
#include "kernels/kernels.h"

typedef struct linear_attention_state {
    tl_linear_attention_shape shape;
    tl_real *sums;
} linear_attention_state;

static void linear_attention_backward(tl_node *node) {
    const linear_attention_state *s = node->state;
    const tl_linear_attention_kernels *kernels = TL_NODE_KERNELS(node)->linear_attention;
    const int threads = TL_NODE_THREADS(node);
    tl_linear_attention_gradients gradients = {0};
    gradients.q = tl_node_grad(node, 0, &gradients.accumulate_q);
    gradients.k = tl_node_grad(node, 1, &gradients.accumulate_k);
    gradients.v = tl_node_grad(node, 2, &gradients.accumulate_v);
    void *scratch = tl_node_scratch(node, kernels->scratch_bytes(&s->shape, threads));
    if (scratch != NULL) {
        kernels->backward(&s->shape, tl_node_input(node, 0), tl_node_input(node, 1),
                          tl_node_input(node, 2), tl_node_output(node), s->sums,
                          tl_node_output_grad(node), &gradients, scratch, threads);
    }
}

static bool shapes_fit(const tl_tensor *q, const tl_tensor *k, const tl_tensor *v) {
    return q->rank == 3 && k->rank == 3 && v->rank == 3 && q->shape[0] == k->shape[0] &&
           q->shape[0] == v->shape[0] && q->shape[1] == k->shape[1] && q->shape[1] == v->shape[1] &&
           q->shape[2] == k->shape[2];
}

/* False with the error recorded. */
static bool check(tl_op *op, const tl_tensor *q, const tl_tensor *k, const tl_tensor *v,
                  int64_t heads) {
    if (!shapes_fit(q, k, v)) {
        char text_q[TL_SHAPE_TEXT_SIZE], text_k[TL_SHAPE_TEXT_SIZE], text_v[TL_SHAPE_TEXT_SIZE];
        tl_op_fail(op, TL_ERROR_SHAPE,
                   "expected q [N, L, heads D], k [N, L, heads D] and v [N, L, heads E], found q "
                   "%s, k %s and v %s",
                   tl_shape_text(q->rank, q->shape, text_q),
                   tl_shape_text(k->rank, k->shape, text_k),
                   tl_shape_text(v->rank, v->shape, text_v));
        return false;
    }
    if (heads < 1 || q->shape[2] % heads != 0 || v->shape[2] % heads != 0) {
        tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                   "heads must be positive and divide the channels of q and v, found %" PRId64
                   " heads, %" PRId64 " and %" PRId64 " channels",
                   heads, q->shape[2], v->shape[2]);
        return false;
    }
    return true;
}

tl_tensor *tl_causal_linear_attention(tl_tape *tape, tl_tensor *q, tl_tensor *k, tl_tensor *v,
                                      int64_t heads) {
    tl_op op;
    heads = heads == 0 ? 1 : heads;
    if (!tl_op_begin(&op, tape, "causal_linear_attention", 3, (tl_tensor *[]){q, k, v}, 0) ||
        !check(&op, q, k, v, heads)) {
        return NULL;
    }
    const tl_linear_attention_shape shape = {.batch = q->shape[0],
                                             .length = q->shape[1],
                                             .heads = heads,
                                             .key_channels = q->shape[2] / heads,
                                             .value_channels = v->shape[2] / heads};
    const tl_linear_attention_kernels *kernels = TL_OP_KERNELS(&op)->linear_attention;
    const int threads = TL_OP_THREADS(&op);
    tl_tensor *y = tl_op_output(&op, 3, v->shape);
    linear_attention_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    state->shape = shape;
    const int64_t rows = shape.batch * shape.length * heads;
    state->sums = tl_op_keep(&op, (size_t)rows * sizeof(tl_real));
    void *scratch =
        state->sums != NULL ? tl_op_scratch(&op, kernels->scratch_bytes(&shape, threads)) : NULL;
    if (scratch == NULL) {
        return NULL;
    }
    kernels->forward(&shape, q->storage->data, k->storage->data, v->storage->data, y->storage->data,
                     state->sums, scratch, threads);
    const double flops =
        4.0 * (double)rows * (double)shape.key_channels * (double)shape.value_channels;
    tl_op_set_flops(&op, flops, 2 * flops);
    tl_op_set_flops_executed(&op, tl_linear_attention_flops(&shape, false),
                             tl_linear_attention_flops(&shape, true));
    for (int i = 0; i < 3; i++) {
        tl_op_save_input(&op, i);
    }
    tl_op_save_output(&op);
    return tl_op_finish(&op, linear_attention_backward);
}
