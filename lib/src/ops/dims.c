#include "ops/dims.h"

bool tl_broadcast_shape(const tl_tensor *a, const tl_tensor *b, int *rank,
                        int64_t shape[TL_MAX_RANK]) {
    *rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 0; i < *rank; i++) {
        const int from_a = i - (*rank - a->rank);
        const int from_b = i - (*rank - b->rank);
        const int64_t extent_a = from_a >= 0 ? a->shape[from_a] : 1;
        const int64_t extent_b = from_b >= 0 ? b->shape[from_b] : 1;
        if (extent_a != extent_b && extent_a != 1 && extent_b != 1) {
            return false;
        }
        shape[i] = extent_a == 1 ? extent_b : extent_a;
    }
    return true;
}

/* Strides with which an operand is seen in a result of `rank`: 0 where it is repeated. */
static void broadcast_strides(int rank, int operand_rank, const int64_t *operand_shape,
                              int64_t strides[TL_MAX_RANK]) {
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        const int from = i - (rank - operand_rank);
        const int64_t extent = from >= 0 ? operand_shape[from] : 1;
        strides[i] = extent == 1 ? 0 : stride;
        stride *= extent;
    }
}

tl_broadcast tl_broadcast_plan(int rank, const int64_t *shape, int a_rank, const int64_t *a_shape,
                               int b_rank, const int64_t *b_shape) {
    int64_t a[TL_MAX_RANK];
    int64_t b[TL_MAX_RANK];
    broadcast_strides(rank, a_rank, a_shape, a);
    broadcast_strides(rank, b_rank, b_shape, b);
    tl_broadcast plan = {.rank = 0};
    for (int i = 0; i < rank; i++) {
        if (shape[i] == 1) {
            continue;
        }
        const int last = plan.rank - 1;
        if (last >= 0 && plan.a_strides[last] == a[i] * shape[i] &&
            plan.b_strides[last] == b[i] * shape[i]) {
            plan.extents[last] *= shape[i];
            plan.a_strides[last] = a[i];
            plan.b_strides[last] = b[i];
            continue;
        }
        plan.extents[plan.rank] = shape[i];
        plan.a_strides[plan.rank] = a[i];
        plan.b_strides[plan.rank] = b[i];
        plan.rank++;
    }
    if (plan.rank == 0) {
        plan.extents[plan.rank++] = 1;
    }
    return plan;
}

tl_reduction tl_reduction_plan(int rank, const int64_t *shape, const bool *is_reduced) {
    tl_reduction plan = {.rank = 0};
    for (int i = 0; i < rank; i++) {
        if (shape[i] == 1) {
            continue;
        }
        if (plan.rank > 0 && plan.is_reduced[plan.rank - 1] == is_reduced[i]) {
            plan.extents[plan.rank - 1] *= shape[i];
            continue;
        }
        plan.extents[plan.rank] = shape[i];
        plan.is_reduced[plan.rank] = is_reduced[i];
        plan.rank++;
    }
    return plan;
}

tl_reduction tl_unbroadcast_plan(int rank, const int64_t *shape, int from_rank,
                                 const int64_t *from_shape) {
    bool is_reduced[TL_MAX_RANK] = {false};
    for (int i = 0; i < rank; i++) {
        const int from = i - (rank - from_rank);
        is_reduced[i] = from < 0 || from_shape[from] == 1;
    }
    return tl_reduction_plan(rank, shape, is_reduced);
}

void tl_dense_strides(int rank, const int64_t *shape, int64_t strides[TL_MAX_RANK]) {
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= shape[i];
    }
}

tl_copy tl_copy_plan(int rank, const int64_t *extents, const int64_t *x_strides,
                     const int64_t *y_strides) {
    tl_copy plan = {.rank = 0};
    for (int i = 0; i < rank; i++) {
        if (extents[i] == 1) {
            continue;
        }
        const int last = plan.rank - 1;
        if (last >= 0 && plan.x_strides[last] == x_strides[i] * extents[i] &&
            plan.y_strides[last] == y_strides[i] * extents[i]) {
            plan.extents[last] *= extents[i];
            plan.x_strides[last] = x_strides[i];
            plan.y_strides[last] = y_strides[i];
            continue;
        }
        plan.extents[plan.rank] = extents[i];
        plan.x_strides[plan.rank] = x_strides[i];
        plan.y_strides[plan.rank] = y_strides[i];
        plan.rank++;
    }
    if (plan.rank == 0) {
        plan.extents[plan.rank++] = 1;
    }
    return plan;
}

void tl_node_add_term(tl_node *node, int index, const tl_real *term, double scale) {
    bool accumulate;
    tl_real *dx = tl_node_grad(node, index, &accumulate);
    if (dx == NULL) {
        return;
    }
    const tl_tensor *input = node->inputs[index];
    const tl_tensor *output = node->output;
    const int threads = TL_NODE_THREADS(node);
    if (input->size == output->size) {
        const tl_real factor = (tl_real)scale;
        const tl_broadcast plan = {.rank = 1, .extents = {input->size}, .a_strides = {1}};
        TL_NODE_KERNELS(node)->broadcast->apply(threads, TL_MULTIPLY, &plan, term, &factor,
                                                accumulate, dx);
        return;
    }
    const tl_reduction plan =
        tl_unbroadcast_plan(output->rank, output->shape, input->rank, input->shape);
    const tl_reduce_kernels *reduce = TL_NODE_KERNELS(node)->reduce;
    void *scratch = tl_node_scratch(node, reduce->sum_scratch_bytes(&plan));
    if (scratch != NULL) {
        reduce->sum(threads, &plan, term, scale, accumulate, dx, scratch);
    }
}
