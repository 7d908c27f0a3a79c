/* pooling.c - max, average and global average pooling.
 *
 * Max:      y[t] = max over the window of x, first place of the maximum at p(t);
 *           dx[i] = sum of dy[t] over the windows t with p(t) = i. Saved: p(t) as its offset within
 *           the window, one byte per value of y.
 * Average:  y[t] = 1/n(t) sum over the window of x, n(t) the positions that count;
 *           dx[i] = sum of dy[t] / n(t) over the windows t that cover i. Saved: nothing.
 * Global:   y = 1/n sum over all positions; dx[i] = dy / n. Saved: nothing.
 */
#include <tapeline/pooling.h>

#include "ops/footprint.h"

enum {
    MOST_SPATIAL = 3,
    MOST_EXTENT = 0x7fffffff /* of kernel and stride: keeps sums far from overflow */
};

typedef struct pooling_state {
    tl_pooling_shape shape;
    bool maximum;
    bool count_padding;
    uint8_t *offsets;
} pooling_state;

static void pooling_backward(tl_node *node) {
    const pooling_state *state = node->state;
    const tl_pooling_kernels *kernels = TL_NODE_KERNELS(node)->pooling;
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx == NULL) {
        return;
    }
    const tl_real *dy = tl_node_output_grad(node);
    if (state->maximum) {
        kernels->max_backward(&state->shape, dy, state->offsets, dx, accumulate,
                              TL_NODE_THREADS(node));
    } else {
        kernels->average_backward(&state->shape, state->count_padding, dy, dx, accumulate,
                                  TL_NODE_THREADS(node));
    }
}

/* Checks one spatial dimension and puts it into `shape` at `d`; false after an error. */
static bool set_dimension(tl_op *op, const tl_pool_config *config, int index, int64_t in,
                          tl_pooling_shape *shape, int d) {
    const int64_t kernel = config->kernel_size[index];
    const int64_t stride = config->stride[index] == 0 ? kernel : config->stride[index];
    const int64_t padding = config->padding[index];
    if (kernel < 1 || kernel > MOST_EXTENT || stride < 1 || stride > MOST_EXTENT) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "kernel_size and stride must be at least 1, found %lld and %lld in "
                         "dimension %d",
                         (long long)kernel, (long long)stride, index);
        return false;
    }
    if (padding < 0 || padding >= kernel) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "padding must be less than kernel_size %lld, found %lld in dimension %d",
                         (long long)kernel, (long long)padding, index);
        return false;
    }
    if (kernel > in + 2 * padding) {
        (void)tl_op_fail(op, TL_ERROR_SHAPE,
                         "kernel_size %lld exceeds the padded extent %lld of x in dimension %d",
                         (long long)kernel, (long long)(in + 2 * padding), index);
        return false;
    }
    shape->in[d] = in;
    shape->kernel[d] = kernel;
    shape->stride[d] = stride;
    shape->padding[d] = padding;
    shape->out[d] = (in + 2 * padding - kernel) / stride + 1;
    return true;
}

/* Fills in the kernels' shape; false after an error. */
static bool set_shape(tl_op *op, const tl_tensor *x, const tl_pool_config *config, int wanted_rank,
                      bool maximum, tl_pooling_shape *shape) {
    const int spatial = x->rank - 2;
    if (spatial < 1 || spatial > MOST_SPATIAL || (wanted_rank != 0 && x->rank != wanted_rank)) {
        char found[TL_SHAPE_TEXT_SIZE];
        (void)tl_op_fail(op, TL_ERROR_SHAPE, "x must be %s, found %s",
                         wanted_rank == 0
                             ? "[N, spatial..., C] with one to three spatial dimensions"
                             : "[N, H, W, C]",
                         tl_shape_text(x->rank, x->shape, found));
        return false;
    }
    if (config == NULL) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "config is NULL");
        return false;
    }
    *shape = (tl_pooling_shape){.images = x->shape[0],
                                .channels = x->shape[x->rank - 1],
                                .in = {1, 1, 1},
                                .out = {1, 1, 1},
                                .kernel = {1, 1, 1},
                                .stride = {1, 1, 1}};
    double window = 1.0;
    for (int i = 0; i < spatial; i++) {
        if (!set_dimension(op, config, i, x->shape[1 + i], shape, MOST_SPATIAL - spatial + i)) {
            return false;
        }
        window *= (double)config->kernel_size[i];
    }
    if (maximum && window > TL_POOLING_MOST_WINDOW) {
        (void)tl_op_fail(op, TL_ERROR_UNSUPPORTED, "a window has at most %d positions, found %.0f",
                         TL_POOLING_MOST_WINDOW, window);
        return false;
    }
    return true;
}

tl_footprint tl_max_pool_footprint(int64_t window, int64_t size) {
    const double values = (double)size;
    return (tl_footprint){.forward_flops = (double)window * values,
                          .backward_flops = values,
                          .forward_flops_executed = (double)window * values,
                          .backward_flops_executed = values,
                          .kept_bytes = values, /* an offset of one byte each */
                          .keeps_only_recorded = true};
}

static tl_tensor *pool(tl_tape *tape, const char *name, tl_tensor *x, const tl_pool_config *config,
                       int wanted_rank, bool maximum) {
    tl_op op;
    tl_pooling_shape shape;
    if (!tl_op_begin(&op, tape, name, 1, (tl_tensor *[]){x}, 0) ||
        !set_shape(&op, x, config, wanted_rank, maximum, &shape)) {
        return NULL;
    }
    int64_t extents[TL_MAX_RANK] = {shape.images};
    for (int i = 1; i < x->rank - 1; i++) {
        extents[i] = shape.out[MOST_SPATIAL - (x->rank - 1) + i];
    }
    extents[x->rank - 1] = shape.channels;
    tl_tensor *y = tl_op_output(&op, x->rank, extents);
    pooling_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    *state = (pooling_state){
        .shape = shape, .maximum = maximum, .count_padding = !config->exclude_padding};
    if (maximum && op.recorded) {
        state->offsets = tl_op_keep(&op, (size_t)y->size);
        if (state->offsets == NULL) {
            return NULL;
        }
    }
    const tl_pooling_kernels *kernels = TL_OP_KERNELS(&op)->pooling;
    if (maximum) {
        kernels->max_forward(&shape, x->storage->data, y->storage->data, state->offsets,
                             TL_OP_THREADS(&op));
    } else {
        kernels->average_forward(&shape, state->count_padding, x->storage->data, y->storage->data,
                                 TL_OP_THREADS(&op));
    }
    const int64_t window = shape.kernel[0] * shape.kernel[1] * shape.kernel[2];
    const tl_footprint max_pool = tl_max_pool_footprint(window, y->size);
    tl_op_set_flops(&op, max_pool.forward_flops,
                    maximum ? max_pool.backward_flops : (double)window * (double)y->size);
    return tl_op_finish(&op, pooling_backward);
}

tl_tensor *tl_max_pool(tl_tape *tape, tl_tensor *x, const tl_pool_config *config) {
    return pool(tape, "max_pool", x, config, 0, true);
}

tl_tensor *tl_avg_pool(tl_tape *tape, tl_tensor *x, const tl_pool_config *config) {
    return pool(tape, "avg_pool", x, config, 0, false);
}

tl_tensor *tl_max_pool2d(tl_tape *tape, tl_tensor *x, const tl_pool_config *config) {
    return pool(tape, "max_pool2d", x, config, 4, true);
}

tl_tensor *tl_avg_pool2d(tl_tape *tape, tl_tensor *x, const tl_pool_config *config) {
    return pool(tape, "avg_pool2d", x, config, 4, false);
}

static void global_avg_pool_backward(tl_node *node) {
    const tl_tensor *x = node->inputs[0];
    const int64_t images = x->shape[0];
    const int64_t channels = x->shape[x->rank - 1];
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx != NULL) {
        TL_NODE_KERNELS(node)->pooling->global_average_backward(
            images, x->size / images / channels, channels, tl_node_output_grad(node), dx,
            accumulate, TL_NODE_THREADS(node));
    }
}

tl_tensor *tl_global_avg_pool(tl_tape *tape, tl_tensor *x) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "global_avg_pool", 1, (tl_tensor *[]){x}, 0)) {
        return NULL;
    }
    if (x->rank < 2) {
        char found[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(&op, TL_ERROR_SHAPE, "x must be [N, spatial..., C], found %s",
                          tl_shape_text(x->rank, x->shape, found));
    }
    const int64_t images = x->shape[0];
    const int64_t channels = x->shape[x->rank - 1];
    tl_tensor *y = tl_op_output(&op, 2, (int64_t[]){images, channels});
    if (y == NULL) {
        return NULL;
    }
    TL_OP_KERNELS(&op)->pooling->global_average_forward(images, x->size / images / channels,
                                                        channels, x->storage->data,
                                                        y->storage->data, TL_OP_THREADS(&op));
    tl_op_set_flops(&op, (double)x->size, (double)y->size);
    return tl_op_finish(&op, global_avg_pool_backward);
}
