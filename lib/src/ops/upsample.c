/* upsample.c - nearest and bilinear enlargement by an integer factor.
 *
 * y is linear in x: y[t] = sum over i of w(t, i) x[i], w as in upsample.h (the product of one
 * factor for each of the two dimensions). So dx[i] = sum over t of w(t, i) dy[t]. Saved: nothing.
 */
#include <tapeline/upsample.h>

#include "core/op.h"

enum { MOST_SCALE = 65536 };

static void upsample_backward(tl_node *node) {
    const tl_upsample_shape *shape = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx != NULL) {
        TL_NODE_KERNELS(node)->upsample->backward(shape, tl_node_output_grad(node), dx, accumulate,
                                                  TL_NODE_THREADS(node));
    }
}

tl_tensor *tl_upsample(tl_tape *tape, tl_tensor *x, int64_t scale, tl_upsample_mode mode) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "upsample", 1, (tl_tensor *[]){x}, 0)) {
        return NULL;
    }
    if (x->rank != 4) {
        char found[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE, "x must be [N, H, W, C], found %s",
                          tl_shape_text(x->rank, x->shape, found));
    }
    if (scale < 1 || scale > MOST_SCALE) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "scale must be 1 to %d, found %lld",
                          MOST_SCALE, (long long)scale);
    }
    if (mode != TL_UPSAMPLE_NEAREST && mode != TL_UPSAMPLE_BILINEAR) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "unknown mode %d", (int)mode);
    }
    tl_tensor *y = tl_op_output(
        &op, 4, (int64_t[]){x->shape[0], scale * x->shape[1], scale * x->shape[2], x->shape[3]});
    tl_upsample_shape *shape = y != NULL ? tl_op_state(&op, sizeof *shape) : NULL;
    if (shape == NULL) {
        return NULL;
    }
    *shape = (tl_upsample_shape){.images = x->shape[0],
                                 .height = x->shape[1],
                                 .width = x->shape[2],
                                 .channels = x->shape[3],
                                 .scale = scale,
                                 .bilinear = mode == TL_UPSAMPLE_BILINEAR};
    TL_OP_KERNELS(&op)->upsample->forward(shape, x->storage->data, y->storage->data,
                                          TL_OP_THREADS(&op));
    const double flops = mode == TL_UPSAMPLE_BILINEAR ? 9.0 * (double)y->size : 0.0;
    tl_op_set_flops(&op, flops, mode == TL_UPSAMPLE_BILINEAR ? flops : (double)y->size);
    return tl_op_finish(&op, upsample_backward);
}
