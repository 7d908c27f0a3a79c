/* cost_volume.c - group-wise correlation over horizontal shifts.
 *
 * y is bilinear in left and right (cost_volume.h). With s = G/C and g the group of channel c:
 *     dleft[n, i, j, c]  = s sum over d <= j      of dy[n, i, j, d, g]     right[n, i, j - d, c]
 *     dright[n, i, j, c] = s sum over d < W - j   of dy[n, i, j + d, d, g] left[n, i, j + d, c].
 * Saved: both operands.
 */
#include <tapeline/cost_volume.h>

#include <string.h>

#include "core/op.h"

static void cost_volume_backward(tl_node *node) {
    const tl_cost_volume_shape *shape = node->state;
    bool add_left = false;
    bool add_right = false;
    const bool wants_left = tl_node_wants(node, 0);
    const bool wants_right = tl_node_wants(node, 1);
    tl_real *dleft = wants_left ? tl_node_grad(node, 0, &add_left) : NULL;
    tl_real *dright = wants_right ? tl_node_grad(node, 1, &add_right) : NULL;
    if ((wants_left && dleft == NULL) || (wants_right && dright == NULL)) {
        return; /* out of memory: recorded */
    }
    TL_NODE_KERNELS(node)->cost_volume->backward(
        shape, tl_node_input(node, 0), tl_node_input(node, 1), tl_node_output_grad(node), dleft,
        add_left, dright, add_right, TL_NODE_THREADS(node));
}

tl_tensor *tl_cost_volume(tl_tape *tape, tl_tensor *left, tl_tensor *right, int64_t disparities,
                          int64_t groups) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "cost_volume", 2, (tl_tensor *[]){left, right}, 0)) {
        return NULL;
    }
    if (left->rank != 4 || right->rank != 4 ||
        memcmp(left->shape, right->shape, 4 * sizeof left->shape[0]) != 0) {
        char l[TL_SHAPE_TEXT_SIZE];
        char r[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(
            &op, TL_ERROR_SHAPE, "left and right must both be [N, H, W, C], found %s and %s",
            tl_shape_text(left->rank, left->shape, l), tl_shape_text(right->rank, right->shape, r));
    }
    const int64_t width = left->shape[2];
    const int64_t channels = left->shape[3];
    if (disparities < 1 || disparities > width) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                          "disparities must be 1 to the width %lld, found %lld", (long long)width,
                          (long long)disparities);
    }
    if (groups < 1 || channels % groups != 0) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                          "groups must divide the %lld channels, found %lld", (long long)channels,
                          (long long)groups);
    }
    tl_tensor *y = tl_op_output(
        &op, 5, (int64_t[]){left->shape[0], left->shape[1], width, disparities, groups});
    tl_cost_volume_shape *shape = y != NULL ? tl_op_state(&op, sizeof *shape) : NULL;
    if (shape == NULL) {
        return NULL;
    }
    *shape = (tl_cost_volume_shape){.images = left->shape[0],
                                    .height = left->shape[1],
                                    .width = width,
                                    .channels = channels,
                                    .disparities = disparities,
                                    .groups = groups};
    TL_OP_KERNELS(&op)->cost_volume->forward(shape, left->storage->data, right->storage->data,
                                             y->storage->data, TL_OP_THREADS(&op));
    /* shifts beyond the left border cost nothing: sum over d of (W - d) */
    const double pairs = (double)(left->shape[0] * left->shape[1]) * (double)disparities *
                         ((double)width - 0.5 * (double)(disparities - 1));
    tl_op_set_flops(&op, 2.0 * pairs * (double)channels,
                    2.0 * pairs * (double)channels * (tl_op_wants(&op, 0) + tl_op_wants(&op, 1)));
    tl_op_save_input(&op, 0);
    tl_op_save_input(&op, 1);
    return tl_op_finish(&op, cost_volume_backward);
}
