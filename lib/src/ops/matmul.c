/* Matrix products.
 *
 * matmul, per batch item:  Y = A B, A [M, K], B [K, P].
 *     dL = <dY, dA B + A dB>, so  dA = dY B^T,  dB = A^T dY.
 *     Saved: A where B wants a gradient, B where A wants one.
 *
 * linear, with R rows x_r [I] (all leading dimensions of x):  Y = X W^T + 1 b^T.
 *     dX = dY W,  dW = dY^T X,  db = sum over rows of dY = 1^T dY.
 *     Saved: X where W wants a gradient, W where X wants one.
 *
 * linear_add,  Y = R + X W^T + 1 b^T:  the same, and dR = dY.
 */
#include <tapeline/matmul.h>

#include <string.h>

#include "ops/footprint.h"

static void multiply_node(tl_node *node, const tl_gemm_problem *problem) {
    const tl_gemm_kernels *gemm = TL_NODE_KERNELS(node)->gemm;
    const int threads = TL_NODE_THREADS(node);
    void *scratch = tl_node_scratch(node, gemm->scratch_bytes(problem, threads));
    if (scratch != NULL) {
        gemm->multiply(problem, scratch, threads);
    }
}

/* False if memory failed. */
static bool multiply_op(tl_op *op, const tl_gemm_problem *problem) {
    const tl_gemm_kernels *gemm = TL_OP_KERNELS(op)->gemm;
    const int threads = TL_OP_THREADS(op);
    void *scratch = tl_op_scratch(op, gemm->scratch_bytes(problem, threads));
    if (scratch == NULL) {
        return false;
    }
    gemm->multiply(problem, scratch, threads);
    return true;
}

/* Each of the first two inputs is read for the gradient of the other. */
static void save_factors(tl_op *op) {
    if (tl_op_wants(op, 0)) {
        tl_op_save_input(op, 1);
    }
    if (tl_op_wants(op, 1)) {
        tl_op_save_input(op, 0);
    }
}

/* The shape of the result: x's, with another last extent. */
static tl_tensor *output_like(tl_op *op, const tl_tensor *x, int64_t last) {
    int64_t shape[TL_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        shape[i] = x->shape[i];
    }
    shape[x->rank - 1] = last;
    return tl_op_output(op, x->rank, shape);
}

/* ------------------------------------------------------------------ matmul */

typedef struct matmul_state {
    int64_t batch, m, k, p;
} matmul_state;

static void matmul_backward(tl_node *node) {
    const matmul_state *s = node->state;
    const tl_real *dy = tl_node_output_grad(node);
    bool accumulate;
    tl_real *da = tl_node_grad(node, 0, &accumulate);
    if (da != NULL) { /* dA = dY B^T */
        multiply_node(node, &(tl_gemm_problem){.m = s->m,
                                               .n = s->k,
                                               .k = s->p,
                                               .transpose_b = true,
                                               .alpha = 1,
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
    if (db != NULL) { /* dB = A^T dY */
        multiply_node(node, &(tl_gemm_problem){.m = s->k,
                                               .n = s->p,
                                               .k = s->m,
                                               .transpose_a = true,
                                               .alpha = 1,
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
    if (a->rank < 2 || a->rank != b->rank || a->shape[a->rank - 1] != b->shape[a->rank - 2]) {
        return false;
    }
    for (int i = 0; i < a->rank - 2; i++) {
        if (a->shape[i] != b->shape[i]) {
            return false;
        }
    }
    return true;
}

tl_tensor *tl_matmul(tl_tape *tape, tl_tensor *a, tl_tensor *b) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "matmul", 2, (tl_tensor *[]){a, b}, 0)) {
        return NULL;
    }
    if (!matmul_shapes_fit(a, b)) {
        char text_a[TL_SHAPE_TEXT_SIZE], text_b[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE,
                          "expected a [..., M, K] and b [..., K, P] with equal leading "
                          "dimensions, found a %s and b %s",
                          tl_shape_text(a->rank, a->shape, text_a),
                          tl_shape_text(b->rank, b->shape, text_b));
    }
    tl_tensor *y = output_like(&op, a, b->shape[b->rank - 1]);
    if (y == NULL) {
        return NULL;
    }
    matmul_state *s = tl_op_state(&op, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->m = y->shape[y->rank - 2];
    s->p = y->shape[y->rank - 1];
    s->k = a->shape[a->rank - 1];
    s->batch = y->size / (s->m * s->p);
    if (!multiply_op(&op, &(tl_gemm_problem){.m = s->m,
                                             .n = s->p,
                                             .k = s->k,
                                             .alpha = 1,
                                             .a = a->storage->data,
                                             .b = b->storage->data,
                                             .c = y->storage->data,
                                             .batch = s->batch,
                                             .batch_stride_a = s->m * s->k,
                                             .batch_stride_b = s->k * s->p,
                                             .batch_stride_c = s->m * s->p})) {
        return NULL;
    }
    const double flops = 2.0 * (double)y->size * (double)s->k;
    tl_op_set_flops(&op, flops, flops * (tl_op_wants(&op, 0) + tl_op_wants(&op, 1)));
    save_factors(&op);
    return tl_op_finish(&op, matmul_backward);
}

/* ------------------------------------------------------------------ linear */

typedef struct linear_state {
    int64_t rows, in, out;
} linear_state;

/* The products of linear; pointers may be NULL where only the scratch is asked for. */

static tl_gemm_problem linear_product(const linear_state *s, const tl_real *x,
                                      const tl_real *weight, const tl_real *bias, bool add,
                                      tl_real *y) {
    return (tl_gemm_problem){.m = s->rows,
                             .n = s->out,
                             .k = s->in,
                             .transpose_b = true,
                             .alpha = 1,
                             .beta = add ? 1 : 0,
                             .a = x,
                             .b = weight,
                             .bias = bias,
                             .c = y};
}

/* dX = dY W */
static tl_gemm_problem linear_dx(const linear_state *s, const tl_real *dy, const tl_real *weight,
                                 bool add, tl_real *dx) {
    return (tl_gemm_problem){.m = s->rows,
                             .n = s->in,
                             .k = s->out,
                             .alpha = 1,
                             .beta = add ? 1 : 0,
                             .a = dy,
                             .b = weight,
                             .c = dx};
}

/* dW = dY^T X */
static tl_gemm_problem linear_dw(const linear_state *s, const tl_real *dy, const tl_real *x,
                                 bool add, tl_real *dw) {
    return (tl_gemm_problem){.m = s->out,
                             .n = s->in,
                             .k = s->rows,
                             .transpose_a = true,
                             .alpha = 1,
                             .beta = add ? 1 : 0,
                             .a = dy,
                             .b = x,
                             .c = dw};
}

/* db = 1^T dY: as a product with a row of ones, whose long sums have two levels and a fixed order.
 */
static tl_gemm_problem linear_db(const linear_state *s, const tl_real *ones, const tl_real *dy,
                                 bool add, tl_real *db) {
    return (tl_gemm_problem){.m = 1,
                             .n = s->out,
                             .k = s->rows,
                             .alpha = 1,
                             .beta = add ? 1 : 0,
                             .a = ones,
                             .b = dy,
                             .c = db};
}

/* `products`: how many of dX and dW are wanted. */
static void count_linear_flops(const linear_state *s, bool bias, bool residual, int products,
                               bool wants_bias, double *forward, double *backward) {
    const double y_size = (double)s->rows * (double)s->out;
    const double product = 2.0 * y_size * (double)s->in;
    *forward = product + (bias ? y_size : 0) + (residual ? y_size : 0);
    *backward = product * products + (wants_bias ? y_size : 0);
}

tl_footprint tl_linear_footprint(tl_footprint_machine machine, int64_t rows, int64_t in,
                                 int64_t out, bool residual) {
    const linear_state s = {.rows = rows, .in = in, .out = out};
    const tl_gemm_problem y = linear_product(&s, NULL, NULL, NULL, residual, NULL);
    const tl_gemm_problem dx = linear_dx(&s, NULL, NULL, false, NULL);
    const tl_gemm_problem dw = linear_dw(&s, NULL, NULL, false, NULL);
    const tl_gemm_problem db = linear_db(&s, NULL, NULL, false, NULL);
    double forward, backward;
    count_linear_flops(&s, true, residual, 2, true, &forward, &backward);
    return (tl_footprint){.forward_flops = forward,
                          .backward_flops = backward,
                          .forward_flops_executed = forward,
                          .backward_flops_executed = backward,
                          .forward_scratch = tl_product_scratch(machine, &y),
                          .backward_scratch = tl_product_scratch(machine, &dx) +
                                              tl_product_scratch(machine, &dw) +
                                              tl_product_scratch(machine, &db) +
                                              (double)rows * (double)sizeof(tl_real)};
}

static void bias_backward(tl_node *node, const linear_state *s, const tl_real *dy) {
    bool accumulate;
    tl_real *db = tl_node_grad(node, 2, &accumulate);
    if (db == NULL) {
        return;
    }
    tl_real *ones = tl_node_scratch(node, (size_t)s->rows * sizeof(tl_real));
    if (ones == NULL) {
        return;
    }
    for (int64_t r = 0; r < s->rows; r++) {
        ones[r] = 1;
    }
    const tl_gemm_problem product = linear_db(s, ones, dy, accumulate, db);
    multiply_node(node, &product);
}

static void linear_backward(tl_node *node) {
    const linear_state *s = node->state;
    const tl_real *dy = tl_node_output_grad(node);
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx != NULL) {
        const tl_gemm_problem product = linear_dx(s, dy, tl_node_input(node, 1), accumulate, dx);
        multiply_node(node, &product);
    }
    tl_real *dw = tl_node_grad(node, 1, &accumulate);
    if (dw != NULL) {
        const tl_gemm_problem product = linear_dw(s, dy, tl_node_input(node, 0), accumulate, dw);
        multiply_node(node, &product);
    }
    bias_backward(node, s, dy);
    if (node->input_count == 4) { /* dR = dY, last: the buffer may be handed over */
        tl_node_pass_grad(node, 3);
    }
}

static bool linear_shapes_fit(const tl_tensor *x, const tl_tensor *weight, const tl_tensor *bias) {
    return x->rank >= 1 && weight->rank == 2 && x->shape[x->rank - 1] == weight->shape[1] &&
           (bias == NULL || (bias->rank == 1 && bias->shape[0] == weight->shape[0]));
}

/* Whether the residual has the shape of the result. */
static bool residual_fits(const tl_tensor *residual, const tl_tensor *x, const tl_tensor *weight) {
    if (residual->rank != x->rank || residual->shape[x->rank - 1] != weight->shape[0]) {
        return false;
    }
    for (int i = 0; i < x->rank - 1; i++) {
        if (residual->shape[i] != x->shape[i]) {
            return false;
        }
    }
    return true;
}

/* Carries on with an operation begun with x, weight, bias and, for linear_add, the residual. */
static tl_tensor *linear(tl_op *op) {
    const tl_tensor *x = op->node->inputs[0];
    const tl_tensor *weight = op->node->inputs[1];
    const tl_tensor *bias = op->node->inputs[2];
    const tl_tensor *residual = op->node->input_count == 4 ? op->node->inputs[3] : NULL;
    char text_x[TL_SHAPE_TEXT_SIZE], text_w[TL_SHAPE_TEXT_SIZE], text[TL_SHAPE_TEXT_SIZE];
    (void)tl_shape_text(x->rank, x->shape, text_x);
    (void)tl_shape_text(weight->rank, weight->shape, text_w);
    if (!linear_shapes_fit(x, weight, bias)) {
        return tl_op_fail(op, TL_ERROR_SHAPE,
                          "expected x [..., I], weight [O, I] and bias [O] or none, found x %s, "
                          "weight %s and bias %s",
                          text_x, text_w,
                          bias ? tl_shape_text(bias->rank, bias->shape, text) : "none");
    }
    if (residual != NULL && !residual_fits(residual, x, weight)) {
        return tl_op_fail(op, TL_ERROR_SHAPE,
                          "expected a residual of the shape of the result, found %s for x %s and "
                          "weight %s",
                          tl_shape_text(residual->rank, residual->shape, text), text_x, text_w);
    }
    tl_tensor *y = output_like(op, x, weight->shape[0]);
    if (y == NULL) {
        return NULL;
    }
    linear_state *s = tl_op_state(op, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->in = weight->shape[1];
    s->out = weight->shape[0];
    s->rows = x->size / s->in;
    if (residual != NULL) {
        memcpy(y->storage->data, residual->storage->data, (size_t)y->size * sizeof(tl_real));
    }
    const tl_gemm_problem product =
        linear_product(s, x->storage->data, weight->storage->data,
                       bias ? bias->storage->data : NULL, residual != NULL, y->storage->data);
    if (!multiply_op(op, &product)) {
        return NULL;
    }
    double forward, backward;
    count_linear_flops(s, bias != NULL, residual != NULL, tl_op_wants(op, 0) + tl_op_wants(op, 1),
                       tl_op_wants(op, 2), &forward, &backward);
    tl_op_set_flops(op, forward, backward);
    save_factors(op);
    return tl_op_finish(op, linear_backward);
}

tl_tensor *tl_linear(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "linear", 3, (tl_tensor *[]){x, weight, bias}, 1u << 2)) {
        return NULL;
    }
    return linear(&op);
}

tl_tensor *tl_linear_add(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                         tl_tensor *residual) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "linear_add", 4, (tl_tensor *[]){x, weight, bias, residual},
                     1u << 2)) {
        return NULL;
    }
    return linear(&op);
}
