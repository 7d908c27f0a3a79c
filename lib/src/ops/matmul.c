/* matmul.c - matrix products.
 *
 *   matmul:  y = a b           da = dy bT         db = aT dy
 *   linear:  y = x wT + bias   dx = dy w          dw = dyT x      dbias = sum of dy's rows
 *
 * All are one call of the GEMM kernels each. Saved: a or x, and b (weights live anyway).
 */
#include <tapeline/matmul.h>

#include <inttypes.h>

#include "core/op.h"

/* C = alpha op(A) op(B), written or added to; false with the error recorded if memory fails. */
static bool multiply(tl_node *node, tl_gemm_problem problem) {
    const tl_gemm_kernels *k = TL_NODE_KERNELS(node)->gemm;
    const int threads = TL_NODE_THREADS(node);
    problem.alpha = 1;
    void *scratch = tl_node_scratch(node, k->scratch_bytes(&problem, threads));
    if (scratch != NULL) {
        k->multiply(&problem, scratch, threads);
    }
    return scratch != NULL;
}

/* ------------------------------------------------------------------ matmul */

typedef struct matmul_state {
    int64_t batch;
    int64_t m;
    int64_t k;
    int64_t p;
} matmul_state;

static void matmul_backward(tl_node *node) {
    const matmul_state *s = node->state;
    const tl_real *dy = tl_node_output_grad(node);
    bool accumulate;
    tl_real *da = tl_node_grad(node, 0, &accumulate);
    if (da != NULL) { /* forward: y = a b, so da += dy bT */
        (void)multiply(node, (tl_gemm_problem){.m = s->m,
                                               .n = s->k,
                                               .k = s->p,
                                               .transpose_b = true,
                                               .beta = accumulate ? 1 : 0,
                                               .a = dy,
                                               .b = tl_node_input(node, 1),
                                               .c = da,
                                               .batch = s->batch,
                                               .batch_stride_a = s->m * s->p,
                                               .batch_stride_b = s->k * s->p,
                                               .batch_stride_c = s->m * s->k});
    }
    tl_real *db = tl_node_grad(node, 1, &accumulate);
    if (db != NULL) { /* db += aT dy */
        (void)multiply(node, (tl_gemm_problem){.m = s->k,
                                               .n = s->p,
                                               .k = s->m,
                                               .transpose_a = true,
                                               .beta = accumulate ? 1 : 0,
                                               .a = tl_node_input(node, 0),
                                               .b = dy,
                                               .c = db,
                                               .batch = s->batch,
                                               .batch_stride_a = s->m * s->k,
                                               .batch_stride_b = s->m * s->p,
                                               .batch_stride_c = s->k * s->p});
    }
}

static bool matmul_shapes_fit(const tl_tensor *a, const tl_tensor *b) {
    if (a->rank != b->rank || a->rank < 2) {
        return false;
    }
    for (int d = 0; d < a->rank - 2; d++) {
        if (a->shape[d] != b->shape[d]) {
            return false;
        }
    }
    return a->shape[a->rank - 1] == b->shape[a->rank - 2];
}

tl_tensor *tl_matmul(tl_tape *tape, tl_tensor *a, tl_tensor *b) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "matmul", 2, (tl_tensor *[]){a, b}, 0)) {
        return NULL;
    }
    if (!matmul_shapes_fit(a, b)) {
        char a_text[TL_SHAPE_TEXT_SIZE];
        char b_text[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE,
                          "expected [..., M, K] and [..., K, P] with the same leading dimensions, "
                          "found %s and %s",
                          tl_shape_text(a->rank, a->shape, a_text),
                          tl_shape_text(b->rank, b->shape, b_text));
    }
    const int rank = a->rank;
    int64_t shape[TL_MAX_RANK];
    int64_t batch = 1;
    for (int d = 0; d < rank - 2; d++) {
        shape[d] = a->shape[d];
        batch *= a->shape[d];
    }
    const matmul_state sizes = {.batch = batch,
                                .m = a->shape[rank - 2],
                                .k = a->shape[rank - 1],
                                .p = b->shape[rank - 1]};
    shape[rank - 2] = sizes.m;
    shape[rank - 1] = sizes.p;
    tl_tensor *y = tl_op_output(&op, rank, shape);
    matmul_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    *state = sizes;
    if (!multiply(op.node, (tl_gemm_problem){.m = sizes.m,
                                             .n = sizes.p,
                                             .k = sizes.k,
                                             .a = a->storage->data,
                                             .b = b->storage->data,
                                             .c = y->storage->data,
                                             .batch = batch,
                                             .batch_stride_a = sizes.m * sizes.k,
                                             .batch_stride_b = sizes.k * sizes.p,
                                             .batch_stride_c = sizes.m * sizes.p})) {
        return tl_op_finish(&op, NULL);
    }
    const double flops = 2.0 * (double)y->size * (double)sizes.k;
    tl_op_set_flops(&op, flops,
                    flops * ((tl_op_wants(&op, 0) ? 1.0 : 0.0) + (tl_op_wants(&op, 1) ? 1.0 : 0.0)));
    if (tl_op_wants(&op, 1)) {
        tl_op_save_input(&op, 0);
    }
    if (tl_op_wants(&op, 0)) {
        tl_op_save_input(&op, 1);
    }
    return tl_op_finish(&op, matmul_backward);
}

/* ------------------------------------------------------------------ linear */

typedef struct linear_state {
    int64_t rows;
    int64_t in;
    int64_t out;
} linear_state;

static void linear_backward_bias(tl_node *node, const linear_state *s) {
    bool accumulate;
    tl_real *dbias = tl_node_grad(node, 2, &accumulate);
    if (dbias == NULL) {
        return;
    }
    const tl_conv_kernels *k = TL_NODE_KERNELS(node)->conv;
    void *scratch = tl_node_scratch(node, k->bias_scratch_bytes(s->rows, s->out));
    if (scratch != NULL) {
        k->backward_bias(s->rows, s->out, tl_node_output_grad(node), dbias, accumulate, scratch,
                         TL_NODE_THREADS(node));
    }
}

static void linear_backward(tl_node *node) {
    const linear_state *s = node->state;
    const tl_real *dy = tl_node_output_grad(node);
    bool accumulate;
    tl_real *dweight = tl_node_grad(node, 1, &accumulate);
    if (dweight != NULL) { /* forward: y = x wT, so dw += dyT x */
        (void)multiply(node, (tl_gemm_problem){.m = s->out,
                                               .n = s->in,
                                               .k = s->rows,
                                               .transpose_a = true,
                                               .beta = accumulate ? 1 : 0,
                                               .a = dy,
                                               .b = tl_node_input(node, 0),
                                               .c = dweight});
    }
    linear_backward_bias(node, s);
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx != NULL) { /* dx += dy w */
        (void)multiply(node, (tl_gemm_problem){.m = s->rows,
                                               .n = s->in,
                                               .k = s->out,
                                               .beta = accumulate ? 1 : 0,
                                               .a = dy,
                                               .b = tl_node_input(node, 1),
                                               .c = dx});
    }
}

tl_tensor *tl_linear(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "linear", 3, (tl_tensor *[]){x, weight, bias}, 1u << 2)) {
        return NULL;
    }
    char x_text[TL_SHAPE_TEXT_SIZE];
    char weight_text[TL_SHAPE_TEXT_SIZE];
    if (x->rank < 1 || weight->rank != 2 || x->shape[x->rank - 1] != weight->shape[1]) {
        return tl_op_fail(&op, TL_ERROR_SHAPE, "expected x [..., I] and weight [O, I], found %s "
                          "and %s",
                          tl_shape_text(x->rank, x->shape, x_text),
                          tl_shape_text(weight->rank, weight->shape, weight_text));
    }
    const int64_t out = weight->shape[0];
    const int64_t in = weight->shape[1];
    if (bias != NULL && (bias->rank != 1 || bias->shape[0] != out)) {
        return tl_op_fail(&op, TL_ERROR_SHAPE, "bias must be [%" PRId64 "], found %s", out,
                          tl_shape_text(bias->rank, bias->shape, x_text));
    }
    int64_t shape[TL_MAX_RANK];
    for (int d = 0; d < x->rank; d++) {
        shape[d] = x->shape[d];
    }
    shape[x->rank - 1] = out;
    tl_tensor *y = tl_op_output(&op, x->rank, shape);
    linear_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    *state = (linear_state){.rows = x->size / in, .in = in, .out = out};
    if (!multiply(op.node, (tl_gemm_problem){.m = state->rows,
                                             .n = out,
                                             .k = in,
                                             .transpose_b = true,
                                             .a = x->storage->data,
                                             .b = weight->storage->data,
                                             .bias = bias != NULL ? bias->storage->data : NULL,
                                             .c = y->storage->data})) {
        return tl_op_finish(&op, NULL);
    }
    const double flops = 2.0 * (double)y->size * (double)in;
    const double bias_flops = bias != NULL ? (double)y->size : 0.0;
    tl_op_set_flops(&op, flops + bias_flops,
                    flops * ((tl_op_wants(&op, 0) ? 1.0 : 0.0) +
                             (tl_op_wants(&op, 1) ? 1.0 : 0.0)) +
                        bias_flops);
    if (tl_op_wants(&op, 1)) {
        tl_op_save_input(&op, 0);
    }
    if (tl_op_wants(&op, 0)) {
        tl_op_save_input(&op, 1);
    }
    return tl_op_finish(&op, linear_backward);
}
