/* convolution.c - conv1d, conv2d, conv3d and conv_transpose2d.
 *
 *   y[n, t, o] = bias[o] + sum over k, c of w[o, k, c] x[n, t s + k d - p, c]
 *
 * With dy the gradient of y:
 *   dx[n, i, c]  = sum over o and those k, t with t s + k d - p = i of w[o, k, c] dy[n, t, o]
 *   dw[o, k, c]  = sum over n, t of dy[n, t, o] x[n, t s + k d - p, c]
 *   dbias[o]     = sum over n, t of dy[n, t, o]
 *
 * The transposed convolution is the map x -> dx above, so its forward is the kernels'
 * backward_input, its gradient with respect to x their forward, and the two tensors exchange roles
 * in the gradient of the weight. Fewer than three dimensions are three with extents of 1 in front:
 * all go through the same kernels. Saved: x, and nothing else.
 */
#include <tapeline/convolution.h>

#include <inttypes.h>

#include "core/op.h"

typedef struct conv_state {
    tl_conv_shape shape;
    bool transposed;
    bool fused; /* both gradients at once, from parts */
} conv_state;

/* What the public configs say, in three dimensions. */
typedef struct conv_config {
    int rank; /* spatial dimensions */
    int64_t stride[3];
    int64_t padding[3];
    int64_t output_padding[3];
    int64_t dilation[3];
    int64_t groups;
    bool transposed;
} conv_config;

static conv_config widen(int rank, const int64_t *stride, const int64_t *padding,
                         const int64_t *dilation, int64_t groups) {
    conv_config c = {.rank = rank,
                     .stride = {1, 1, 1},
                     .dilation = {1, 1, 1},
                     .groups = groups == 0 ? 1 : groups};
    for (int i = 0; i < rank; i++) {
        const int d = 3 - rank + i;
        c.stride[d] = stride[i] == 0 ? 1 : stride[i];
        c.dilation[d] = dilation[i] == 0 ? 1 : dilation[i];
        c.padding[d] = padding[i];
    }
    return c;
}

/* ------------------------------------------------------------------ checks */

static bool check_config(tl_op *op, const conv_config *c) {
    for (int d = 3 - c->rank; d < 3; d++) {
        if (c->stride[d] < 1 || c->dilation[d] < 1 || c->padding[d] < 0) {
            (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                             "stride and dilation must be at least 1 and padding at least 0, found "
                             "stride %" PRId64 ", dilation %" PRId64 ", padding %" PRId64,
                             c->stride[d], c->dilation[d], c->padding[d]);
            return false;
        }
        if (c->output_padding[d] < 0 ||
            (c->output_padding[d] >= c->stride[d] && c->output_padding[d] >= c->dilation[d])) {
            if (c->output_padding[d] != 0) {
                (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                                 "output_padding must be at least 0 and below stride or dilation, "
                                 "found %" PRId64,
                                 c->output_padding[d]);
                return false;
            }
        }
    }
    if (c->groups < 1) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "groups must be at least 1, found %" PRId64,
                         c->groups);
        return false;
    }
    return true;
}

static bool check_ranks(tl_op *op, const conv_config *c, const tl_tensor *x,
                        const tl_tensor *weight) {
    char x_text[TL_SHAPE_TEXT_SIZE];
    char weight_text[TL_SHAPE_TEXT_SIZE];
    if (x->rank != c->rank + 2 || weight->rank != c->rank + 2) {
        (void)tl_op_fail(op, TL_ERROR_SHAPE,
                         "x and weight must have rank %d (channels last), found x %s and weight %s",
                         c->rank + 2, tl_shape_text(x->rank, x->shape, x_text),
                         tl_shape_text(weight->rank, weight->shape, weight_text));
        return false;
    }
    return true;
}

/* Channels and groups of x, weight and bias. For a transposed convolution the first extent of
 * weight is x's channels and its last the outputs of a group. */
static bool check_channels(tl_op *op, const conv_config *c, const tl_tensor *x,
                           const tl_tensor *weight, const tl_tensor *bias) {
    char x_text[TL_SHAPE_TEXT_SIZE];
    const int64_t channels = x->shape[x->rank - 1];
    const int64_t first = weight->shape[0];
    const int64_t last = weight->shape[weight->rank - 1];
    (void)tl_shape_text(x->rank, x->shape, x_text);
    if (channels % c->groups != 0 || (!c->transposed && first % c->groups != 0)) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "groups %" PRId64 " must divide the %" PRId64 " input and %" PRId64
                         " output channels",
                         c->groups, channels, c->transposed ? last * c->groups : first);
        return false;
    }
    const int64_t wanted = c->transposed ? first : last * c->groups;
    if (wanted != channels) {
        (void)tl_op_fail(op, TL_ERROR_SHAPE,
                         "weight wants %" PRId64 " input channels, x %s has %" PRId64, wanted,
                         x_text, channels);
        return false;
    }
    const int64_t outputs = c->transposed ? last * c->groups : first;
    if (bias != NULL && (bias->rank != 1 || bias->shape[0] != outputs)) {
        char bias_text[TL_SHAPE_TEXT_SIZE];
        (void)tl_op_fail(op, TL_ERROR_SHAPE, "bias must be [%" PRId64 "], found %s", outputs,
                         tl_shape_text(bias->rank, bias->shape, bias_text));
        return false;
    }
    return true;
}

/* The kernels' shape; false with an error recorded if an output would have no extent. */
static bool fill_shape(tl_op *op, const conv_config *c, const tl_tensor *x, const tl_tensor *weight,
                       tl_conv_shape *s) {
    const int lead = 3 - c->rank;
    *s = (tl_conv_shape){.batch = x->shape[0], .groups = c->groups};
    const int64_t first = weight->shape[0];
    const int64_t last = weight->shape[weight->rank - 1];
    s->in_channels = last * c->groups;
    s->out_channels = first;
    for (int d = 0; d < 3; d++) {
        const int64_t extent = d < lead ? 1 : x->shape[1 + d - lead];
        const int64_t kernel = d < lead ? 1 : weight->shape[1 + d - lead];
        int64_t reach; /* of the dilated kernel */
        int64_t padded;
        bool fits = !__builtin_mul_overflow(c->dilation[d], kernel - 1, &reach) &&
                    !__builtin_mul_overflow(2, c->padding[d], &padded);
        int64_t other = 0;
        if (fits && !c->transposed) {
            fits = !__builtin_add_overflow(extent, padded, &other) && reach < other;
            other = fits ? (other - reach - 1) / c->stride[d] + 1 : 0;
        } else if (fits) {
            fits = !__builtin_mul_overflow(extent - 1, c->stride[d], &other) &&
                   !__builtin_add_overflow(other, reach + c->output_padding[d] + 1, &other);
            other = fits ? other - padded : 0;
        }
        if (!fits || other < 1) {
            char x_text[TL_SHAPE_TEXT_SIZE];
            char weight_text[TL_SHAPE_TEXT_SIZE];
            (void)tl_op_fail(op, TL_ERROR_SHAPE,
                             "x %s with weight %s, padding %" PRId64 " and dilation %" PRId64
                             " leaves no output along dimension %d",
                             tl_shape_text(x->rank, x->shape, x_text),
                             tl_shape_text(weight->rank, weight->shape, weight_text), c->padding[d],
                             c->dilation[d], 1 + d - lead);
            return false;
        }
        s->in[d] = c->transposed ? other : extent;
        s->out[d] = c->transposed ? extent : other;
        s->kernel[d] = kernel;
        s->stride[d] = c->stride[d];
        s->padding[d] = c->padding[d];
        s->dilation[d] = c->dilation[d];
    }
    return true;
}

/* ------------------------------------------------------------------ backward */

static int64_t positions(const int64_t extents[3], int64_t batch) {
    return batch * extents[0] * extents[1] * extents[2];
}

static void backward_x(tl_node *node, const conv_state *state) {
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx == NULL) {
        return;
    }
    const tl_conv_shape *s = &state->shape;
    const tl_conv_kernels *k = TL_NODE_KERNELS(node)->conv;
    const int threads = TL_NODE_THREADS(node);
    const tl_conv_direction direction =
        state->transposed ? TL_CONV_FORWARD : TL_CONV_BACKWARD_INPUT;
    void *scratch = tl_node_scratch(node, k->scratch_bytes(s, direction, threads));
    if (scratch == NULL) {
        return;
    }
    const tl_real *dy = tl_node_output_grad(node);
    const tl_real *weight = tl_node_input(node, 1);
    if (state->transposed) {
        k->forward(s, dy, weight, NULL, dx, accumulate, scratch, threads);
    } else {
        k->backward_input(s, dy, weight, NULL, dx, accumulate, scratch, threads);
    }
}

static void backward_weight(tl_node *node, const conv_state *state) {
    bool accumulate;
    tl_real *dweight = tl_node_grad(node, 1, &accumulate);
    if (dweight == NULL) {
        return;
    }
    const tl_conv_shape *s = &state->shape;
    const tl_conv_kernels *k = TL_NODE_KERNELS(node)->conv;
    const int threads = TL_NODE_THREADS(node);
    void *scratch = tl_node_scratch(node, k->scratch_bytes(s, TL_CONV_BACKWARD_WEIGHT, threads));
    if (scratch == NULL) {
        return;
    }
    const tl_real *x = tl_node_input(node, 0);
    const tl_real *dy = tl_node_output_grad(node);
    if (state->transposed) {
        k->backward_weight(s, dy, x, dweight, accumulate, scratch, threads);
    } else {
        k->backward_weight(s, x, dy, dweight, accumulate, scratch, threads);
    }
}

static void backward_bias(tl_node *node, const conv_state *state) {
    bool accumulate;
    tl_real *dbias = tl_node_grad(node, 2, &accumulate);
    if (dbias == NULL) {
        return;
    }
    const tl_conv_shape *s = &state->shape;
    const tl_conv_kernels *k = TL_NODE_KERNELS(node)->conv;
    const int64_t rows = positions(state->transposed ? s->in : s->out, s->batch);
    const int64_t channels = state->transposed ? s->in_channels : s->out_channels;
    void *scratch = tl_node_scratch(node, k->bias_scratch_bytes(rows, channels));
    if (scratch != NULL) {
        k->backward_bias(rows, channels, tl_node_output_grad(node), dbias, accumulate, scratch,
                         TL_NODE_THREADS(node));
    }
}

static void backward_fused(tl_node *node, const conv_state *state) {
    const tl_conv_shape *s = &state->shape;
    const tl_conv_parts_kernels *k = TL_NODE_KERNELS(node)->conv->parts;
    const int threads = TL_NODE_THREADS(node);
    bool accumulate_dx;
    bool accumulate_dweight;
    tl_real *dx = tl_node_grad(node, 0, &accumulate_dx);
    tl_real *dweight = tl_node_grad(node, 1, &accumulate_dweight);
    void *scratch = tl_node_scratch(node, k->backward_scratch_bytes(s, threads));
    tl_parts x;
    if (dx == NULL || dweight == NULL || scratch == NULL || !tl_node_input_parts(node, &x)) {
        return;
    }
    const tl_parts dy = tl_node_output_grad_parts(node);
    tl_watch watch;
    const bool watched = tl_node_input_grad_watch(node, &watch);
    if (node->tape->error.status != TL_OK) {
        return;
    }
    k->backward(s, &x, &dy, tl_node_input(node, 1), dx, accumulate_dx, dweight, accumulate_dweight,
                watched ? &watch : NULL, scratch, threads);
}

static void conv_backward(tl_node *node) {
    const conv_state *state = node->state;
    if (state->fused) {
        backward_fused(node, state);
        return;
    }
    backward_weight(node, state);
    backward_bias(node, state);
    tl_node_release_scratch(node); /* before the gradient of x is allocated */
    backward_x(node, state);
}

/* ------------------------------------------------------------------ forward */

static double direct_flops(const tl_conv_shape *s) {
    return 2.0 * (double)positions(s->out, s->batch) * (double)s->out_channels *
           (double)positions(s->kernel, s->in_channels / s->groups);
}

static void set_flops(tl_op *op, const tl_conv_shape *s, bool transposed, bool with_bias) {
    const tl_conv_kernels *k = TL_OP_KERNELS(op)->conv;
    const tl_conv_direction there = transposed ? TL_CONV_BACKWARD_INPUT : TL_CONV_FORWARD;
    const tl_conv_direction back = transposed ? TL_CONV_FORWARD : TL_CONV_BACKWARD_INPUT;
    const double direct = direct_flops(s);
    const double bias = with_bias ? (double)op->node->output->size : 0.0;
    const double dx = tl_op_wants(op, 0) ? 1.0 : 0.0;
    const double dw = tl_op_wants(op, 1) ? 1.0 : 0.0;
    tl_op_set_flops(op, direct + bias, direct * (dx + dw) + bias);
    tl_op_set_flops_executed(op, k->flops(s, there) + bias,
                             dx * k->flops(s, back) + dw * k->flops(s, TL_CONV_BACKWARD_WEIGHT) +
                                 bias);
}

static const tl_real *values_or_null(const tl_tensor *tensor) {
    return tensor != NULL ? tensor->storage->data : NULL;
}

/* The result of inputs x, weight and bias; false after an error. */
static bool forward_whole(tl_op *op, const conv_state *state) {
    const tl_conv_shape *s = &state->shape;
    const tl_conv_kernels *k = TL_OP_KERNELS(op)->conv;
    const int threads = TL_OP_THREADS(op);
    const tl_conv_direction direction =
        state->transposed ? TL_CONV_BACKWARD_INPUT : TL_CONV_FORWARD;
    void *scratch =
        tl_op_make_input(op) ? tl_op_scratch(op, k->scratch_bytes(s, direction, threads)) : NULL;
    if (scratch == NULL) {
        return false;
    }
    (state->transposed ? k->backward_input : k->forward)(
        s, values_or_null(op->node->inputs[0]), values_or_null(op->node->inputs[1]),
        values_or_null(op->node->inputs[2]), op->node->output->storage->data, false, scratch,
        threads);
    return true;
}

/* The same from an x that is made on the way. */
static bool forward_from_parts(tl_op *op, const tl_conv_shape *s) {
    const tl_conv_parts_kernels *k = TL_OP_KERNELS(op)->conv->parts;
    const int threads = TL_OP_THREADS(op);
    void *scratch = tl_op_scratch(op, k->forward_scratch_bytes(s, threads));
    tl_parts x;
    if (scratch == NULL || !tl_op_input_parts(op, &x)) {
        return false;
    }
    k->forward(s, &x, values_or_null(op->node->inputs[1]), values_or_null(op->node->inputs[2]),
               op->node->output->storage->data, scratch, threads);
    return true;
}

static tl_tensor *convolve(tl_tape *tape, const char *name, tl_tensor *x, tl_tensor *weight,
                           tl_tensor *bias, const conv_config *config) {
    tl_op op;
    tl_conv_shape s;
    if (!tl_op_begin_with_parts(&op, tape, name, 3, (tl_tensor *[]){x, weight, bias}, 1u << 2) ||
        !check_config(&op, config) || !check_ranks(&op, config, x, weight) ||
        !check_channels(&op, config, x, weight, bias) || !fill_shape(&op, config, x, weight, &s)) {
        return NULL;
    }
    int64_t shape[5] = {x->shape[0]};
    const int64_t *extents = config->transposed ? s.in : s.out;
    for (int d = 0; d < config->rank; d++) {
        shape[1 + d] = extents[3 - config->rank + d];
    }
    shape[1 + config->rank] = config->transposed ? s.in_channels : s.out_channels;
    tl_tensor *y = tl_op_output(&op, config->rank + 2, shape);
    const tl_conv_kernels *k = TL_OP_KERNELS(&op)->conv;
    conv_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    *state = (conv_state){.shape = s, .transposed = config->transposed};
    state->fused = !config->transposed && bias == NULL && tl_op_wants(&op, 0) &&
                   tl_op_wants(&op, 1) && k->parts->fuses_backward(&s);
    if (state->fused) {
        tl_op_set_reads_parts(&op);
    }
    const bool from_parts =
        !config->transposed && tl_op_input_is_unmade(&op) && k->parts->takes_parts(&s);
    if (!(from_parts ? forward_from_parts(&op, &s) : forward_whole(&op, state))) {
        return tl_op_finish(&op, NULL);
    }
    set_flops(&op, &s, config->transposed, bias != NULL);
    if (tl_op_wants(&op, 1)) {
        tl_op_save_input(&op, 0);
    }
    if (tl_op_wants(&op, 0)) {
        tl_op_save_input(&op, 1);
    }
    return tl_op_finish(&op, conv_backward);
}

tl_tensor *tl_conv1d(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                     const tl_conv1d_config *config) {
    static const tl_conv1d_config defaults = {0};
    const tl_conv1d_config *c = config != NULL ? config : &defaults;
    const conv_config wide = widen(1, &c->stride, &c->padding, &c->dilation, c->groups);
    return convolve(tape, "conv1d", x, weight, bias, &wide);
}

tl_tensor *tl_conv2d(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                     const tl_conv2d_config *config) {
    static const tl_conv2d_config defaults = {0};
    const tl_conv2d_config *c = config != NULL ? config : &defaults;
    const conv_config wide = widen(2, c->stride, c->padding, c->dilation, c->groups);
    return convolve(tape, "conv2d", x, weight, bias, &wide);
}

tl_tensor *tl_conv3d(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                     const tl_conv3d_config *config) {
    static const tl_conv3d_config defaults = {0};
    const tl_conv3d_config *c = config != NULL ? config : &defaults;
    const conv_config wide = widen(3, c->stride, c->padding, c->dilation, c->groups);
    return convolve(tape, "conv3d", x, weight, bias, &wide);
}

tl_tensor *tl_conv_transpose2d(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                               const tl_conv_transpose2d_config *config) {
    static const tl_conv_transpose2d_config defaults = {0};
    const tl_conv_transpose2d_config *c = config != NULL ? config : &defaults;
    conv_config wide = widen(2, c->stride, c->padding, c->dilation, c->groups);
    wide.transposed = true;
    wide.output_padding[1] = c->output_padding[0];
    wide.output_padding[2] = c->output_padding[1];
    return convolve(tape, "conv_transpose2d", x, weight, bias, &wide);
}
