/* normalization.c - batch norm (with fused ReLU and residual) and group norm.
 *
 * Both treat x as [sets, rows, channels]: batch norm is one set of all rows, a sample of group norm
 * is a set. With mu and v over the m values of a set's group (one channel for batch norm):
 *     s = 1 / sqrt(v + epsilon),   xhat = (x - mu) s,   z = weight xhat + bias,
 *     y = z, or relu(z + residual).
 * Backward. g = dy where the ReLU let through, else 0. Per set and channel A = sum of g and
 * B = sum of g xhat over the rows; then, summed over sets,
 *     dbias = sum A,   dweight = sum B,   dresidual = g.
 * xhat depends on x also through mu and v: d mu / dx = 1/m and d v / dx = 2 (x - mu) / m give
 *     dx = s (weight g - P / m - xhat Q / m),   P = sum of weight A, Q = sum of weight B,
 * the sums over the channels of the group. With constant statistics P and Q do not appear.
 *
 * The kernels work with x - c, c being mu rounded to tl_real and r = mu - c the residue:
 *     z  = (x - c) scale + offset,      scale = weight s,  offset = bias - r scale
 *     dx = scale g + slope (x - c) + constant,
 *          slope = -s^2 Q / m,  constant = -s P / m - slope r.
 *
 * On several processes batch norm may take its statistics over the rows of all (parallel.h): then
 * m, mu, v, P and Q are those of all rows, A and B those of the process's own.
 *
 * Saved: x; mu and s per set and group (16 bytes); y where a ReLU follows a residual. Without a
 * residual y can be computed again, and is not kept for those who read it.
 */
#include <tapeline/normalization.h>

#include <math.h>
#include <string.h>

#include "ops/footprint.h"

enum { X = 0, WEIGHT = 1, BIAS = 2, RESIDUAL = 3, INPUTS = 4 };

typedef struct norm_state {
    tl_channel_norm_shape shape;
    int64_t groups;
    double *mean;              /* [sets, groups] */
    double *inverse_deviation; /* s */
    int64_t rows;              /* of the statistics: shape.rows, or those of all ranks */
    bool synchronized;         /* over the ranks */
    bool statistics;           /* gradients flow through mean and variance */
    tl_channel_norm_mask mask;
    struct norm_watch *watch; /* what was seen of the result's gradient; or NULL */
} norm_state;

static int64_t group_channels(const norm_state *state) {
    return state->shape.channels / state->groups;
}

/* Arrays [sets, channels] that the kernels read. */
typedef struct coefficients {
    tl_real *center;
    tl_real *scale;
    tl_real *offset;
    tl_real *slope;
    tl_real *constant;
} coefficients;

enum { FORWARD_COEFFICIENTS = 3, BACKWARD_COEFFICIENTS = 5 };

static coefficients forward_coefficients(tl_real *memory, int64_t count) {
    return (coefficients){.center = memory, .scale = memory + count, .offset = memory + 2 * count};
}

static coefficients backward_coefficients(tl_real *memory, int64_t count) {
    coefficients c = forward_coefficients(memory, count);
    c.slope = memory + 3 * count;
    c.constant = memory + 4 * count;
    return c;
}

/* mu - c, with c what tl_real holds of mu. */
static double residue_of(double mean) {
    return mean - (double)(tl_real)mean;
}

static void set_affine(const norm_state *state, const tl_real *weight, const tl_real *bias,
                       coefficients to) {
    const int64_t channels = state->shape.channels;
    for (int64_t i = 0; i < state->shape.sets * channels; i++) {
        const int64_t c = i % channels;
        const int64_t group = i / channels * state->groups + c / group_channels(state);
        const double mean = state->mean[group];
        const double w = weight != NULL ? (double)weight[c] : 1.0;
        const double b = bias != NULL ? (double)bias[c] : 0.0;
        const double scale = w * state->inverse_deviation[group];
        to.center[i] = (tl_real)mean;
        to.scale[i] = (tl_real)scale;
        to.offset[i] = (tl_real)(b - residue_of(mean) * scale);
    }
}

static tl_channel_affine affine_of(coefficients c) {
    return (tl_channel_affine){.center = c.center, .scale = c.scale, .offset = c.offset};
}

/* Sums of g and g (x - c), [sets, channels]; those of g xhat are s (centered - r sum). */
typedef struct gradient_sums {
    double *sum;
    double *centered;
} gradient_sums;

static double sum_normalized(const norm_state *state, gradient_sums sums, int64_t set, int64_t c) {
    const int64_t group = set * state->groups + c / group_channels(state);
    const int64_t i = set * state->shape.channels + c;
    return state->inverse_deviation[group] *
           (sums.centered[i] - residue_of(state->mean[group]) * sums.sum[i]);
}

/* slope and constant of every channel, from the sums P and Q of its group. */
static void set_statistics_terms(const norm_state *state, const tl_real *weight, gradient_sums sums,
                                 coefficients to) {
    const int64_t width = group_channels(state);
    const double inverse_m = 1.0 / ((double)state->rows * (double)width);
    for (int64_t group = 0; group < state->shape.sets * state->groups; group++) {
        const int64_t set = group / state->groups;
        const int64_t first = group % state->groups * width;
        double p = 0.0;
        double q = 0.0;
        for (int64_t c = first; c < first + width; c++) {
            const double w = weight != NULL ? (double)weight[c] : 1.0;
            p += w * sums.sum[set * state->shape.channels + c];
            q += w * sum_normalized(state, sums, set, c);
        }
        const double s = state->inverse_deviation[group];
        const double slope = -s * s * q * inverse_m;
        const double constant = -s * p * inverse_m - slope * residue_of(state->mean[group]);
        for (int64_t i = group * width; i < (group + 1) * width; i++) {
            to.slope[i] = (tl_real)slope;
            to.constant[i] = (tl_real)constant;
        }
    }
}

/* dweight or dbias, summed over the sets. */
static void add_parameter_gradient(tl_node *node, int index, gradient_sums sums) {
    const norm_state *state = node->state;
    bool accumulate;
    tl_real *gradient = tl_node_grad(node, index, &accumulate);
    if (gradient == NULL) {
        return;
    }
    for (int64_t c = 0; c < state->shape.channels; c++) {
        double total = accumulate ? (double)gradient[c] : 0.0;
        for (int64_t set = 0; set < state->shape.sets; set++) {
            total += index == WEIGHT ? sum_normalized(state, sums, set, c)
                                     : sums.sum[set * state->shape.channels + c];
        }
        gradient[c] = (tl_real)total;
    }
}

/* The sums of all ranks take the place of this one's. */
static void sum_over_ranks(tl_node *node, gradient_sums sums, int64_t count) {
    const tl_ranks *ranks = node->tape->ranks;
    tl_error error;
    /* `centered` lies behind `sum` */
    if (ranks->sum(ranks->user, sums.sum, 2 * count, &error) != TL_OK) {
        (void)tl_tape_fail(node->tape, error.status, "%s: %s", node->operation, error.message);
    }
}

static const tl_real *saved_or_null(const tl_node *node, int index) {
    return node->inputs[index] != NULL ? tl_node_input(node, index) : NULL;
}

/* ------------------------------------------------------------------ in parts */

/* What some samples of batch norm's result, of its gradient's sums, or of the gradient of x are
 * made from. */
typedef struct norm_parts {
    const tl_channel_norm_kernels *kernels;
    tl_channel_norm_shape shape;
    int64_t sample_rows;
    coefficients coefficients;
    void *spread;
    const tl_real *x; /* for the result */
    const tl_real *residual;
    bool relu;
    tl_channel_norm_gradient gradient; /* for the gradients */
} norm_parts;

/* Parts in memory that `take` gives, tl_node_scratch or tl_node_keep, with `count` coefficients a
 * channel; NULL after an error. */
static norm_parts *new_parts(tl_node *node, void *(*take)(tl_node *node, size_t bytes), int count) {
    const norm_state *state = node->state;
    const tl_tensor *x = node->inputs[X];
    const tl_channel_norm_kernels *kernels = TL_NODE_KERNELS(node)->channel_norm;
    const int64_t channels = state->shape.channels;
    norm_parts *parts = take(node, sizeof *parts);
    tl_real *memory = take(node, (size_t)(channels * count) * sizeof *memory);
    void *spread = take(node, kernels->spread_bytes(state->shape));
    if (parts == NULL || memory == NULL || spread == NULL) {
        return NULL;
    }
    *parts = (norm_parts){.kernels = kernels,
                          .shape = state->shape,
                          .sample_rows = state->shape.rows / x->shape[0],
                          .coefficients = count == FORWARD_COEFFICIENTS
                                              ? forward_coefficients(memory, channels)
                                              : backward_coefficients(memory, channels),
                          .spread = spread};
    return parts;
}

static void make_result(const void *state, int64_t first, int64_t count, tl_real *to) {
    const norm_parts *p = state;
    p->kernels->apply_rows(p->shape, p->x, p->residual, affine_of(p->coefficients), p->relu,
                           p->spread, first * p->sample_rows, count * p->sample_rows, to);
}

static void make_gradient(const void *state, int64_t first, int64_t count, tl_real *to) {
    const norm_parts *p = state;
    p->kernels->gradient_rows(p->shape, &p->gradient, p->coefficients.slope,
                              p->coefficients.constant, p->spread, first * p->sample_rows,
                              count * p->sample_rows, to);
}

/* The result again, in parts. */
static bool recompute_parts(tl_node *node, tl_parts *to) {
    const norm_state *state = node->state;
    norm_parts *parts = new_parts(node, tl_node_scratch, FORWARD_COEFFICIENTS);
    if (parts == NULL) {
        return false;
    }
    parts->x = tl_node_input(node, X);
    parts->residual = saved_or_null(node, RESIDUAL);
    parts->relu = state->mask != TL_CHANNEL_NORM_NO_MASK;
    set_affine(state, saved_or_null(node, WEIGHT), saved_or_null(node, BIAS), parts->coefficients);
    parts->kernels->spread(parts->shape, affine_of(parts->coefficients), NULL, NULL, parts->spread);
    *to =
        (tl_parts){.make = make_result, .state = parts, .reads = {parts->x, parts->residual, NULL}};
    return true;
}

/* Whether the convolution that computed x may make the gradient of x itself. The ReLU behind a
 * residual is then undone in place, and the residual gets the gradient that flowed in. */
static bool can_defer(tl_node *node) {
    const norm_state *state = node->state;
    return state->shape.sets == 1 && tl_node_can_defer_grad(node, X) &&
           node->inputs[RESIDUAL] != node->inputs[X] &&
           (!tl_node_wants(node, RESIDUAL) || tl_node_can_pass_grad(node, RESIDUAL)) &&
           (state->mask != TL_CHANNEL_NORM_FROM_OUTPUT || tl_node_own_output_grad(node) != NULL);
}

/* Leaves the gradient of x to the convolution. */
static void defer_gradient(tl_node *node, const tl_channel_norm_gradient *gradient,
                           norm_parts *parts) {
    tl_node_pass_grad(node, RESIDUAL);
    parts->gradient = *gradient;
    if (gradient->mask == TL_CHANNEL_NORM_FROM_OUTPUT) {
        parts->gradient.mask = TL_CHANNEL_NORM_NO_MASK;
        parts->gradient.y = NULL;
    }
    const coefficients c = parts->coefficients;
    parts->kernels->spread(parts->shape, affine_of(c), c.slope, c.constant, parts->spread);
    tl_node_defer_grad(node, X,
                       &(tl_parts){.make = make_gradient,
                                   .state = parts,
                                   .reads = {gradient->dy, gradient->x, NULL}});
}

/* ------------------------------------------------------------------ watching the gradient */

/* Sums of each sample's gradient, taken when a convolution has just written it. */
typedef struct norm_watch {
    const norm_parts *parts;
    int64_t samples;
    tl_real *masked;
    double *sums; /* [samples][2][channels] */
    char *rooms;  /* one a sample */
    size_t room_bytes;
} norm_watch;

static void see_gradient(const void *state, int64_t first, int64_t count) {
    const norm_watch *w = state;
    const norm_parts *p = w->parts;
    for (int64_t i = first; i < first + count; i++) {
        p->kernels->gradient_row_sums(
            p->shape, &p->gradient, p->spread, i * p->sample_rows, p->sample_rows, w->masked,
            w->sums + i * 2 * p->shape.channels, w->rooms + (size_t)i * w->room_bytes);
    }
}

static bool needs_sums(const tl_node *node) {
    const norm_state *state = node->state;
    return state->statistics || tl_node_wants(node, WEIGHT) || tl_node_wants(node, BIAS);
}

static tl_channel_norm_gradient gradient_of(const tl_node *node, coefficients c) {
    const norm_state *state = node->state;
    return (tl_channel_norm_gradient){
        .dy = tl_node_output_grad(node),
        .x = tl_node_input(node, X),
        .y = state->mask == TL_CHANNEL_NORM_FROM_OUTPUT ? tl_node_output(node) : NULL,
        .mask = state->mask,
        .affine = affine_of(c)};
}

/* Where the masked gradient is put if x's is deferred: a residual's ReLU is undone in place. */
static tl_real *masked_gradient(tl_node *node, bool defer) {
    const norm_state *state = node->state;
    return defer && state->mask == TL_CHANNEL_NORM_FROM_OUTPUT ? tl_node_own_output_grad(node)
                                                               : NULL;
}

static bool watch_gradient(tl_node *node, tl_watch *watch) {
    norm_state *state = node->state;
    if (!needs_sums(node)) {
        return false;
    }
    const tl_channel_norm_kernels *kernels = TL_NODE_KERNELS(node)->channel_norm;
    const int64_t channels = state->shape.channels;
    const int64_t samples = node->inputs[X]->shape[0];
    const size_t room_bytes =
        (kernels->row_sums_bytes(state->shape) + TL_ALIGNMENT - 1) / TL_ALIGNMENT * TL_ALIGNMENT;
    norm_watch *w = tl_node_keep(node, sizeof *w);
    norm_parts *parts = new_parts(node, tl_node_keep, FORWARD_COEFFICIENTS);
    double *sums = tl_node_keep(node, (size_t)(samples * 2 * channels) * sizeof *sums);
    char *rooms = tl_node_keep(node, (size_t)samples * room_bytes);
    if (w == NULL || parts == NULL || sums == NULL || rooms == NULL) {
        return false;
    }
    set_affine(state, saved_or_null(node, WEIGHT), saved_or_null(node, BIAS), parts->coefficients);
    parts->gradient = gradient_of(node, parts->coefficients);
    kernels->spread(parts->shape, affine_of(parts->coefficients), NULL, NULL, parts->spread);
    *w = (norm_watch){.parts = parts,
                      .samples = samples,
                      .masked = masked_gradient(node, can_defer(node)),
                      .sums = sums,
                      .rooms = rooms,
                      .room_bytes = room_bytes};
    state->watch = w;
    *watch = (tl_watch){.see = see_gradient, .state = w};
    return true;
}

/* The sums of all samples. */
static void add_watched(const norm_watch *w, gradient_sums to) {
    const int64_t channels = w->parts->shape.channels;
    memset(to.sum, 0, (size_t)channels * sizeof *to.sum);
    memset(to.centered, 0, (size_t)channels * sizeof *to.centered);
    for (int64_t i = 0; i < w->samples; i++) {
        const double *sums = w->sums + i * 2 * channels;
        for (int64_t c = 0; c < channels; c++) {
            to.sum[c] += sums[c];
            to.centered[c] += sums[channels + c];
        }
    }
}

/* ------------------------------------------------------------------ backward */

static void norm_backward(tl_node *node) {
    const norm_state *state = node->state;
    const tl_channel_norm_kernels *kernels = TL_NODE_KERNELS(node)->channel_norm;
    const int threads = TL_NODE_THREADS(node);
    const int64_t count = state->shape.sets * state->shape.channels;
    const bool defer = can_defer(node);
    norm_parts *parts = defer ? new_parts(node, tl_node_scratch, BACKWARD_COEFFICIENTS) : NULL;
    tl_real *memory =
        defer ? NULL
              : tl_node_scratch(node, (size_t)count * BACKWARD_COEFFICIENTS * sizeof *memory);
    double *sum_memory = tl_node_scratch(node, (size_t)count * 2 * sizeof *sum_memory);
    void *scratch = tl_node_scratch(node, kernels->scratch_bytes(state->shape));
    if ((parts == NULL && memory == NULL) || sum_memory == NULL || scratch == NULL) {
        return;
    }
    const tl_real *weight = saved_or_null(node, WEIGHT);
    coefficients c = defer ? parts->coefficients : backward_coefficients(memory, count);
    const gradient_sums sums = {.sum = sum_memory, .centered = sum_memory + count};
    set_affine(state, weight, saved_or_null(node, BIAS), c);
    const tl_channel_norm_gradient gradient = gradient_of(node, c);
    tl_real *masked = masked_gradient(node, defer);
    if (state->watch != NULL) {
        add_watched(state->watch, sums);
    } else if (needs_sums(node) || masked != NULL) {
        kernels->gradient_sums(state->shape, &gradient, sums.sum, sums.centered, masked, scratch,
                               threads);
    }
    if (needs_sums(node)) {
        add_parameter_gradient(node, WEIGHT, sums);
        add_parameter_gradient(node, BIAS, sums);
    }
    if (state->synchronized) {
        sum_over_ranks(node, sums, count);
    }
    if (state->statistics) {
        set_statistics_terms(state, weight, sums, c);
    } else {
        c.slope = c.constant = NULL;
    }
    if (defer) {
        parts->coefficients = c;
        defer_gradient(node, &gradient, parts);
        return;
    }
    tl_channel_norm_gradient_out out = {.slope = c.slope, .constant = c.constant};
    /* dx goes where dy was if it can: the kernel reads each value before it writes it */
    out.dx = tl_node_grad_in_place(node, X, &out.accumulate_dx);
    out.dresidual = tl_node_grad(node, RESIDUAL, &out.accumulate_dresidual);
    if (out.dx != NULL || out.dresidual != NULL) {
        kernels->gradient_apply(state->shape, &gradient, &out, scratch, threads);
    }
}

/* ------------------------------------------------------------------ forward */

/* What batch norm and group norm have in common, as the caller gave it. */
typedef struct norm_call {
    const char *name;
    tl_tensor *x;
    tl_tensor *weight;
    tl_tensor *bias;
    tl_tensor *residual;
    double epsilon;
    bool relu;
} norm_call;

static bool begin(tl_op *op, tl_tape *tape, const norm_call *call) {
    return tl_op_begin(op, tape, call->name, INPUTS,
                       (tl_tensor *[INPUTS]){call->x, call->weight, call->bias, call->residual},
                       1u << WEIGHT | 1u << BIAS | 1u << RESIDUAL);
}

/* True if `tensor` (which may be NULL) has one value per channel; fails the operation if not. */
static bool has_channels(tl_op *op, const char *what, const tl_tensor *tensor, const tl_tensor *x) {
    const int64_t channels = x->shape[x->rank - 1];
    if (tensor == NULL || (tensor->rank == 1 && tensor->size == channels)) {
        return true;
    }
    char found[TL_SHAPE_TEXT_SIZE];
    char shape[TL_SHAPE_TEXT_SIZE];
    (void)tl_op_fail(op, TL_ERROR_SHAPE, "%s must have the shape [%lld] for x %s, found %s", what,
                     (long long)channels, tl_shape_text(x->rank, x->shape, shape),
                     tl_shape_text(tensor->rank, tensor->shape, found));
    return false;
}

static bool check_residual(tl_op *op, const norm_call *call) {
    const tl_tensor *x = call->x;
    if (call->residual == NULL ||
        (call->residual->rank == x->rank &&
         memcmp(call->residual->shape, x->shape, (size_t)x->rank * sizeof *x->shape) == 0)) {
        return true;
    }
    char found[TL_SHAPE_TEXT_SIZE];
    char shape[TL_SHAPE_TEXT_SIZE];
    (void)tl_op_fail(op, TL_ERROR_SHAPE, "residual must have the shape of x %s, found %s",
                     tl_shape_text(x->rank, x->shape, shape),
                     tl_shape_text(call->residual->rank, call->residual->shape, found));
    return false;
}

static bool check_common(tl_op *op, const norm_call *call) {
    const tl_tensor *x = call->x;
    if (x->rank < 2) {
        char found[TL_SHAPE_TEXT_SIZE];
        (void)tl_op_fail(op, TL_ERROR_SHAPE, "x must be [N, spatial..., C], found %s",
                         tl_shape_text(x->rank, x->shape, found));
        return false;
    }
    if ((call->weight == NULL) != (call->bias == NULL)) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "weight and bias must both be given or both be NULL");
        return false;
    }
    if (!has_channels(op, "weight", call->weight, x) || !has_channels(op, "bias", call->bias, x) ||
        !check_residual(op, call)) {
        return false;
    }
    if (!(call->epsilon > 0.0 && isfinite(call->epsilon))) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "epsilon must be positive, found %g",
                         call->epsilon);
        return false;
    }
    return true;
}

/* The state with room for the statistics; NULL after an error. */
static norm_state *new_state(tl_op *op, tl_channel_norm_shape shape, int64_t groups) {
    norm_state *state = tl_op_state(op, sizeof *state);
    if (state == NULL) {
        return NULL;
    }
    const int64_t count = shape.sets * groups;
    double *memory = tl_op_keep(op, (size_t)count * 2 * sizeof *memory);
    if (memory == NULL) {
        return NULL;
    }
    *state = (norm_state){.shape = shape,
                          .groups = groups,
                          .rows = shape.rows,
                          .mean = memory,
                          .inverse_deviation = memory + count};
    return state;
}

static const tl_real *values_or_null(const tl_tensor *tensor) {
    return tensor != NULL ? tensor->storage->data : NULL;
}

/* The result again, from the x and the residual that were saved. */
static void recompute(tl_node *node, tl_real *y) {
    const norm_state *state = node->state;
    const tl_channel_norm_kernels *kernels = TL_NODE_KERNELS(node)->channel_norm;
    const int64_t count = state->shape.sets * state->shape.channels;
    tl_real *memory = tl_node_scratch(node, (size_t)count * FORWARD_COEFFICIENTS * sizeof *memory);
    void *scratch = tl_node_scratch(node, kernels->scratch_bytes(state->shape));
    if (memory == NULL || scratch == NULL) {
        return;
    }
    const coefficients c = forward_coefficients(memory, count);
    set_affine(state, saved_or_null(node, WEIGHT), saved_or_null(node, BIAS), c);
    kernels->apply(state->shape, tl_node_input(node, X), saved_or_null(node, RESIDUAL),
                   affine_of(c), state->mask != TL_CHANNEL_NORM_NO_MASK, y, scratch,
                   TL_NODE_THREADS(node));
}

/* Per value: statistics 4; subtract, scale, shift, and 1 each for the residual and the ReLU
 * (`extra`). Backward: sums 4, dx 1 or 5, and the mask. */
static void count_flops(int64_t size, bool statistics, int extra, double *forward,
                        double *backward) {
    const double more = (statistics ? 4.0 : 0.0) + (double)extra;
    *forward = (double)size * (3.0 + more);
    *backward = (double)size * (5.0 + more);
}

tl_footprint tl_batch_norm_footprint(tl_footprint_machine machine, int64_t rows, int64_t channels) {
    const tl_channel_norm_shape shape = {.sets = 1, .rows = rows, .channels = channels};
    const double scratch = (double)machine.kernels->channel_norm->scratch_bytes(shape);
    const double one = (double)channels * (double)sizeof(tl_real);
    const double two_doubles = (double)channels * 2 * (double)sizeof(double);
    tl_footprint footprint = {.kept_bytes = two_doubles,
                              .forward_scratch = scratch + FORWARD_COEFFICIENTS * one,
                              .backward_scratch =
                                  scratch + BACKWARD_COEFFICIENTS * one + two_doubles};
    count_flops(rows * channels, true, 0, &footprint.forward_flops, &footprint.backward_flops);
    footprint.forward_flops_executed = footprint.forward_flops;
    footprint.backward_flops_executed = footprint.backward_flops;
    return footprint;
}

/* Whether y can be had again for a pass over x and the residual: one that is kept for backward
 * anyway and need not be made again itself. Of a chain of residual blocks every second result is
 * then kept. */
static bool can_recompute(const norm_call *call) {
    if (call->residual == NULL) {
        return true;
    }
    const tl_storage *residual = call->residual->storage;
    return residual->counter != NULL && residual->maker == NULL;
}

/* Whether y is left to whoever reads it: a convolution then never writes it to memory. */
static bool is_left_unmade(const tl_op *op, const norm_state *state, const norm_call *call) {
    return op->recorded && state->shape.sets == 1 && call->residual == NULL &&
           call->x->storage->maker == NULL && !op->tape->check_finite;
}

/* y's values; false after an error. `scratch` is the kernels'. */
static bool compute(tl_op *op, const norm_state *state, const norm_call *call, void *scratch) {
    const int64_t count = state->shape.sets * state->shape.channels;
    tl_real *memory = tl_op_scratch(op, (size_t)count * FORWARD_COEFFICIENTS * sizeof *memory);
    if (memory == NULL) {
        return false;
    }
    const coefficients c = forward_coefficients(memory, count);
    set_affine(state, values_or_null(call->weight), values_or_null(call->bias), c);
    TL_OP_KERNELS(op)->channel_norm->apply(
        state->shape, call->x->storage->data, values_or_null(call->residual), affine_of(c),
        call->relu, op->node->output->storage->data, scratch, TL_OP_THREADS(op));
    return true;
}

/* y from the statistics in `state`. `scratch` is the kernels'. */
static tl_tensor *apply(tl_op *op, norm_state *state, const norm_call *call, void *scratch) {
    const bool unmade = is_left_unmade(op, state, call);
    tl_tensor *y = unmade ? tl_op_output_unmade(op, call->x->rank, call->x->shape)
                          : tl_op_output(op, call->x->rank, call->x->shape);
    if (y == NULL || (!unmade && !compute(op, state, call, scratch))) {
        return NULL;
    }
    tl_op_save_input(op, X);
    if (call->weight != NULL) {
        tl_op_save_input(op, WEIGHT);
        tl_op_save_input(op, BIAS);
    }
    if (call->relu && call->residual != NULL) {
        state->mask = TL_CHANNEL_NORM_FROM_OUTPUT;
        tl_op_save_output(op);
    } else if (call->relu) {
        state->mask = TL_CHANNEL_NORM_RECOMPUTE;
    }
    double forward, backward;
    count_flops(y->size, state->statistics, (call->residual != NULL) + call->relu, &forward,
                &backward);
    tl_op_set_flops(op, forward, backward);
    if (state->shape.sets == 1) {
        tl_op_set_watch_grad(op, watch_gradient);
    }
    if (can_recompute(call)) {
        if (call->residual != NULL) {
            tl_op_save_input(op, RESIDUAL);
        }
        const double again = 3.0 + (call->residual != NULL) + call->relu;
        tl_op_set_recompute(op, recompute, again * (double)y->size);
        if (state->shape.sets == 1) {
            tl_op_set_recompute_parts(op, recompute_parts);
        }
    }
    return tl_op_finish(op, norm_backward);
}

tl_batch_norm_config tl_batch_norm_config_default(void) {
    return (tl_batch_norm_config){.momentum = 0.1, .epsilon = 1e-5};
}

static bool check_running(tl_op *op, const norm_call *call, const tl_tensor *running_mean,
                          const tl_tensor *running_var) {
    if (!has_channels(op, "running_mean", running_mean, call->x) ||
        !has_channels(op, "running_var", running_var, call->x)) {
        return false;
    }
    if ((running_mean == NULL) != (running_var == NULL) ||
        (running_mean == NULL && !op->tape->training)) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "running_mean and running_var must both be given, or in training mode "
                         "both be NULL");
        return false;
    }
    if (running_mean != NULL && (running_mean->tape != NULL || running_var->tape != NULL)) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "running_mean and running_var must be persistent tensors");
        return false;
    }
    return true;
}

/* True if batch norm takes its statistics over all ranks. */
static bool is_synchronized(const tl_tape *tape) {
    return tape->training && tape->synchronize_batch_norm && tape->ranks != NULL;
}

static bool check_batch_norm(tl_op *op, const norm_call *call, double momentum) {
    if (!(momentum >= 0.0 && momentum <= 1.0)) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT, "momentum must lie in [0, 1], found %g",
                         momentum);
        return false;
    }
    if (op->tape->training && !is_synchronized(op->tape) &&
        call->x->size == call->x->shape[call->x->rank - 1]) {
        char found[TL_SHAPE_TEXT_SIZE];
        (void)tl_op_fail(op, TL_ERROR_SHAPE,
                         "training needs more than one value per channel, found x %s",
                         tl_shape_text(call->x->rank, call->x->shape, found));
        return false;
    }
    return true;
}

/* running = (1 - momentum) running + momentum factor batch. */
static void move_running(tl_tensor *running, const double *batch, double momentum, double factor) {
    tl_real *values = running->storage->data;
    for (int64_t c = 0; c < running->size; c++) {
        values[c] = (tl_real)((1.0 - momentum) * (double)values[c] + momentum * factor * batch[c]);
    }
}

/* Replaces mean and variance of this rank's rows by those of all rows, from the sums of the values
 * and of their squares. In double, these lose less than the values lost by being rounded to float
 * as long as the mean is below 10^8 deviations. False after an error. */
static bool merge_ranks(tl_op *op, norm_state *state, double *variance) {
    const tl_ranks *ranks = op->tape->ranks;
    const int64_t channels = state->shape.channels;
    const int64_t length = 2 * channels + 1;
    double *sums = tl_op_scratch(op, (size_t)length * sizeof *sums);
    if (sums == NULL) {
        return false;
    }
    const double own_rows = (double)state->shape.rows;
    for (int64_t c = 0; c < channels; c++) {
        sums[c] = own_rows * state->mean[c];
        sums[channels + c] = own_rows * (variance[c] + state->mean[c] * state->mean[c]);
    }
    sums[2 * channels] = own_rows;
    tl_error error;
    if (ranks->sum(ranks->user, sums, length, &error) != TL_OK) {
        (void)tl_op_fail(op, error.status, "%s", error.message);
        return false;
    }
    const double rows = sums[2 * channels];
    for (int64_t c = 0; c < channels; c++) {
        state->mean[c] = sums[c] / rows;
        const double spread = sums[channels + c] / rows - state->mean[c] * state->mean[c];
        variance[c] = spread > 0.0 ? spread : 0.0;
    }
    state->rows = (int64_t)rows;
    state->synchronized = true;
    return true;
}

static tl_tensor *batch_norm(tl_tape *tape, const norm_call *call, tl_tensor *running_mean,
                             tl_tensor *running_var, double momentum) {
    tl_op op;
    if (!begin(&op, tape, call) || !check_common(&op, call) ||
        !check_running(&op, call, running_mean, running_var) ||
        !check_batch_norm(&op, call, momentum)) {
        return NULL;
    }
    const int64_t channels = call->x->shape[call->x->rank - 1];
    const int64_t rows = call->x->size / channels;
    const tl_channel_norm_shape shape = {.sets = 1, .rows = rows, .channels = channels};
    const tl_channel_norm_kernels *kernels = TL_OP_KERNELS(&op)->channel_norm;
    norm_state *state = new_state(&op, shape, channels);
    void *scratch = state != NULL ? tl_op_scratch(&op, kernels->scratch_bytes(shape)) : NULL;
    if (scratch == NULL) {
        return NULL;
    }
    double *variance = state->inverse_deviation; /* at first */
    state->statistics = tape->training;
    if (tape->training) {
        kernels->moments(shape, call->x->storage->data, state->mean, variance, scratch,
                         TL_OP_THREADS(&op));
        if (is_synchronized(tape) && !merge_ranks(&op, state, variance)) {
            return NULL;
        }
        if (running_mean != NULL) {
            if (!tl_tape_will_change(tape, call->name, running_mean) ||
                !tl_tape_will_change(tape, call->name, running_var)) {
                return tl_op_finish(&op, NULL);
            }
            const double m = (double)state->rows;
            move_running(running_mean, state->mean, momentum, 1.0);
            move_running(running_var, variance, momentum, m / (m - 1.0));
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        if (!tape->training) {
            state->mean[c] = (double)running_mean->storage->data[c];
            variance[c] = (double)running_var->storage->data[c];
        }
        state->inverse_deviation[c] = 1.0 / sqrt(variance[c] + call->epsilon);
    }
    return apply(&op, state, call, scratch);
}

tl_tensor *tl_batch_norm(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                         tl_tensor *running_mean, tl_tensor *running_var,
                         const tl_batch_norm_config *config) {
    const tl_batch_norm_config used = config != NULL ? *config : tl_batch_norm_config_default();
    const norm_call call = {
        .name = "batch_norm", .x = x, .weight = weight, .bias = bias, .epsilon = used.epsilon};
    return batch_norm(tape, &call, running_mean, running_var, used.momentum);
}

tl_tensor *tl_batch_norm_relu(tl_tape *tape, tl_tensor *x, tl_tensor *residual, tl_tensor *weight,
                              tl_tensor *bias, tl_tensor *running_mean, tl_tensor *running_var,
                              const tl_batch_norm_config *config) {
    const tl_batch_norm_config used = config != NULL ? *config : tl_batch_norm_config_default();
    const norm_call call = {.name = "batch_norm_relu",
                            .x = x,
                            .weight = weight,
                            .bias = bias,
                            .residual = residual,
                            .epsilon = used.epsilon,
                            .relu = true};
    return batch_norm(tape, &call, running_mean, running_var, used.momentum);
}

/* ------------------------------------------------------------------ group norm */

/* Statistics of groups from those of their channels: the mean of the means; the mean of the
 * variances plus the variance of the means (every channel has as many values). */
static void merge_groups(norm_state *state, const double *mean, const double *variance,
                         double epsilon) {
    const int64_t width = group_channels(state);
    for (int64_t group = 0; group < state->shape.sets * state->groups; group++) {
        const double *means = mean + group * width;
        double total = 0.0;
        for (int64_t c = 0; c < width; c++) {
            total += means[c] - means[0];
        }
        const double center = means[0] + total / (double)width;
        double spread = 0.0;
        for (int64_t c = 0; c < width; c++) {
            spread += variance[group * width + c] + (means[c] - center) * (means[c] - center);
        }
        state->mean[group] = center;
        state->inverse_deviation[group] = 1.0 / sqrt(spread / (double)width + epsilon);
    }
}

tl_tensor *tl_group_norm(tl_tape *tape, tl_tensor *x, int64_t groups, tl_tensor *weight,
                         tl_tensor *bias, double epsilon) {
    const norm_call call = {
        .name = "group_norm", .x = x, .weight = weight, .bias = bias, .epsilon = epsilon};
    tl_op op;
    if (!begin(&op, tape, &call) || !check_common(&op, &call)) {
        return NULL;
    }
    const int64_t channels = x->shape[x->rank - 1];
    if (groups < 1 || channels % groups != 0) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                          "groups must divide the %lld channels of x, found %lld",
                          (long long)channels, (long long)groups);
    }
    const int64_t samples = x->shape[0];
    const tl_channel_norm_shape shape = {
        .sets = samples, .rows = x->size / samples / channels, .channels = channels};
    const tl_channel_norm_kernels *kernels = TL_OP_KERNELS(&op)->channel_norm;
    norm_state *state = new_state(&op, shape, groups);
    void *scratch = state != NULL ? tl_op_scratch(&op, kernels->scratch_bytes(shape)) : NULL;
    const size_t moments_bytes = (size_t)(samples * channels) * 2 * sizeof(double);
    double *moments = scratch != NULL ? tl_op_scratch(&op, moments_bytes) : NULL;
    if (moments == NULL) {
        return NULL;
    }
    state->statistics = true;
    kernels->moments(shape, x->storage->data, moments, moments + samples * channels, scratch,
                     TL_OP_THREADS(&op));
    merge_groups(state, moments, moments + samples * channels, epsilon);
    return apply(&op, state, &call, scratch);
}
