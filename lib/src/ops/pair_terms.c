/* The two terms of the concatenation form. A linear map of [q_i, k_j] is <a, q_i> + <b, k_j>: two
 * numbers a position instead of 2 K channels a pair. As rows [<a, q_i>, 1] and [1, <b, k_j>] their
 * inner product is the score, and what is written for inner products serves.
 *
 *     t = <w, x>  per row, w one half of pair_weight;   dx = dt w,   dw = sum over rows of dt x.
 *
 * The gradient of the constant ones is dropped. Saved: x where w wants a gradient, w where x does.
 */
#include <inttypes.h>

#include "ops/non_local_internal.h"

typedef struct terms_state {
    int64_t rows, channels;
    bool keys; /* the second half, in the second column */
} terms_state;

/* t [rows, 1] = X w, in a column of [rows, 2]. */
static tl_gemm_problem terms_product(const terms_state *s, const tl_real *x, const tl_real *w,
                                     tl_real *terms) {
    return (tl_gemm_problem){.m = s->rows,
                             .n = 1,
                             .k = s->channels,
                             .alpha = 1,
                             .a = x,
                             .b = w,
                             .c = terms,
                             .row_stride_c = 2};
}

/* dX [rows, K] = dt [rows, 1] w [1, K] */
static tl_gemm_problem terms_dx(const terms_state *s, const tl_real *dt, const tl_real *w,
                                bool accumulate, tl_real *dx) {
    return (tl_gemm_problem){.m = s->rows,
                             .n = s->channels,
                             .k = 1,
                             .alpha = 1,
                             .beta = accumulate ? 1 : 0,
                             .a = dt,
                             .row_stride_a = 2,
                             .b = w,
                             .c = dx};
}

/* dw [1, K] += dt^T X */
static tl_gemm_problem terms_dw(const terms_state *s, const tl_real *dt, const tl_real *x,
                                tl_real *dw) {
    return (tl_gemm_problem){.m = 1,
                             .n = s->channels,
                             .k = s->rows,
                             .transpose_a = true,
                             .alpha = 1,
                             .beta = 1,
                             .a = dt,
                             .row_stride_a = 2,
                             .b = x,
                             .c = dw};
}

tl_footprint tl_pair_terms_footprint(tl_footprint_machine machine, int64_t rows, int64_t channels) {
    const terms_state s = {.rows = rows, .channels = channels};
    const tl_gemm_problem t = terms_product(&s, NULL, NULL, NULL);
    const tl_gemm_problem dx = terms_dx(&s, NULL, NULL, false, NULL);
    const tl_gemm_problem dw = terms_dw(&s, NULL, NULL, NULL);
    const double flops = 2.0 * (double)rows * (double)channels;
    return (tl_footprint){.forward_flops = flops,
                          .backward_flops = 2 * flops,
                          .forward_flops_executed = flops,
                          .backward_flops_executed = 2 * flops,
                          .forward_scratch = tl_product_scratch(machine, &t),
                          .backward_scratch =
                              tl_product_scratch(machine, &dx) + tl_product_scratch(machine, &dw)};
}

static void terms_backward(tl_node *node) {
    const terms_state *s = node->state;
    const tl_gemm_kernels *gemm = TL_NODE_KERNELS(node)->gemm;
    const int threads = TL_NODE_THREADS(node);
    const int64_t half = s->keys ? 1 : 0;
    const tl_real *dt = tl_node_output_grad(node) + half;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx != NULL) {
        const tl_real *w = tl_node_input(node, 1) + half * s->channels;
        const tl_gemm_problem product = terms_dx(s, dt, w, accumulate, dx);
        void *scratch = tl_node_scratch(node, gemm->scratch_bytes(&product, threads));
        if (scratch == NULL) {
            return;
        }
        gemm->multiply(&product, scratch, threads);
    }
    tl_real *dw = tl_node_grad_zeroed(node, 1);
    if (dw != NULL) {
        const tl_gemm_problem product =
            terms_dw(s, dt, tl_node_input(node, 0), dw + half * s->channels);
        void *scratch = tl_node_scratch(node, gemm->scratch_bytes(&product, threads));
        if (scratch != NULL) {
            gemm->multiply(&product, scratch, threads);
        }
    }
}

tl_tensor *tl_pair_terms(tl_tape *tape, tl_tensor *x, tl_tensor *pair_weight, bool keys) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "pair_terms", 2, (tl_tensor *[]){x, pair_weight}, 0)) {
        return NULL;
    }
    int64_t shape[TL_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        shape[i] = x->shape[i];
    }
    shape[x->rank - 1] = 2;
    tl_tensor *terms = tl_op_output(&op, x->rank, shape);
    terms_state *s = terms != NULL ? tl_op_state(&op, sizeof *s) : NULL;
    if (s == NULL) {
        return NULL;
    }
    s->channels = x->shape[x->rank - 1];
    s->rows = x->size / s->channels;
    s->keys = keys;
    const int64_t half = keys ? 1 : 0;
    tl_real *out = terms->storage->data;
    for (int64_t r = 0; r < s->rows; r++) {
        out[2 * r + 1 - half] = 1;
    }
    const tl_gemm_problem product = terms_product(
        s, x->storage->data, pair_weight->storage->data + half * s->channels, out + half);
    const tl_gemm_kernels *gemm = TL_OP_KERNELS(&op)->gemm;
    void *scratch = tl_op_scratch(&op, gemm->scratch_bytes(&product, TL_OP_THREADS(&op)));
    if (scratch == NULL) {
        return NULL;
    }
    gemm->multiply(&product, scratch, TL_OP_THREADS(&op));
    if (tl_op_wants(&op, 0)) {
        tl_op_save_input(&op, 1);
    }
    if (tl_op_wants(&op, 1)) {
        tl_op_save_input(&op, 0);
    }
    const double flops = 2.0 * (double)x->size;
    tl_op_set_flops(&op, flops, flops * (tl_op_wants(&op, 0) + tl_op_wants(&op, 1)));
    return tl_op_finish(&op, terms_backward);
}
