/* k_conv_depthwise.c - one channel a group: forward, backward_input, and backward_weight.
 *
 * Every channel is on its own, so the vectors run over channels and no padding is needed: along a
 * row, kernel position k pairs outputs first ... end-1 with inputs in the image. A row of the
 * result is started (bias or zero) and then receives, for each kernel position, the products of one
 * row of the other tensor; it stays in the first-level cache meanwhile. FLOPs: 2 per product;
 * bytes: two loads and a store per product and vector, which is what bounds it.
 */
#include "kernels/k_conv_common.h"

/* Outputs [first, end) along axis d for which kernel position k lies inside the input. */
typedef struct span {
    int64_t first;
    int64_t end;
    int64_t offset; /* input = output * stride + offset */
} span;

static span valid_outputs(const tl_conv_shape *s, int d, int64_t k) {
    const int64_t offset = k * s->dilation[d] - s->padding[d];
    const int64_t stride = s->stride[d];
    span r = {.offset = offset};
    r.first = offset >= 0 ? 0 : tl_conv_ceiling(-offset, stride);
    const int64_t room = s->in[d] - 1 - offset; /* output * stride <= room */
    r.end = room < 0 ? 0 : tl_conv_minimum(room / stride + 1, s->out[d]);
    r.first = tl_conv_minimum(r.first, r.end);
    return r;
}

/* to[i] += from[i] * w, rows of channels `to_step` and `from_step` apart. */
static void add_products(int64_t count, int64_t channels, const tl_real *from, int64_t from_step,
                         const tl_real *w, tl_real *to, int64_t to_step) {
    int64_t c = 0;
    for (; c + TL_LANES <= channels; c += TL_LANES) {
        const tl_v factor = tl_v_load(w + c);
        for (int64_t i = 0; i < count; i++) {
            tl_real *t = to + i * to_step + c;
            tl_v_store(t, tl_v_load(t) + tl_v_load(from + i * from_step + c) * factor);
        }
    }
    if (c < channels) {
        const int64_t rest = channels - c;
        const tl_v factor = tl_v_load_partial(w + c, rest);
        for (int64_t i = 0; i < count; i++) {
            tl_real *t = to + i * to_step + c;
            const tl_v product = tl_v_load_partial(from + i * from_step + c, rest) * factor;
            tl_v_store_partial(t, tl_v_load_partial(t, rest) + product, rest);
        }
    }
}

/* sum += over i, from[i] * by[i] */
static void sum_products(int64_t count, int64_t channels, const tl_real *from, int64_t from_step,
                         const tl_real *by, tl_real *sum) {
    for (int64_t c = 0; c < channels; c += TL_LANES) {
        const int64_t lanes = tl_conv_minimum(TL_LANES, channels - c);
        tl_v acc = tl_v_zero();
        if (lanes == TL_LANES) {
            for (int64_t i = 0; i < count; i++) {
                acc += tl_v_load(from + i * from_step + c) * tl_v_load(by + i * channels + c);
            }
            tl_v_store(sum + c, tl_v_load(sum + c) + acc);
        } else {
            for (int64_t i = 0; i < count; i++) {
                acc += tl_v_load_partial(from + i * from_step + c, lanes) *
                       tl_v_load_partial(by + i * channels + c, lanes);
            }
            tl_v_store_partial(sum + c, tl_v_load_partial(sum + c, lanes) + acc, lanes);
        }
    }
}

static int64_t kernel_taps(const tl_conv_shape *s) {
    return s->kernel[0] * s->kernel[1] * s->kernel[2];
}

/* weight [C][taps] -> [taps][C] */
static void transpose_weight(const tl_conv_shape *s, const tl_real *weight, tl_real *by_tap) {
    const int64_t taps = kernel_taps(s);
    for (int64_t t = 0; t < taps; t++) {
        for (int64_t c = 0; c < s->in_channels; c++) {
            by_tap[t * s->in_channels + c] = weight[c * taps + t];
        }
    }
}

static void start_row(tl_real *row, int64_t width, int64_t channels, const tl_real *bias,
                      bool accumulate) {
    if (!accumulate) {
        memset(row, 0, (size_t)(width * channels) * sizeof(tl_real));
    }
    if (bias != NULL) {
        for (int64_t i = 0; i < width; i++) {
            for (int64_t c = 0; c < channels; c++) {
                row[i * channels + c] += bias[c];
            }
        }
    }
}

/* Row (n, d, h) of y. */
static void forward_row(const tl_conv_shape *s, int64_t n, int64_t d, int64_t h, const tl_real *x,
                        const tl_real *by_tap, const tl_real *bias, tl_real *y, bool accumulate) {
    const int64_t channels = s->in_channels;
    tl_real *row = y + ((n * s->out[0] + d) * s->out[1] + h) * s->out[2] * channels;
    start_row(row, s->out[2], channels, bias, accumulate);
    for (int64_t i = 0; i < s->kernel[0]; i++) {
        const int64_t depth = d * s->stride[0] + i * s->dilation[0] - s->padding[0];
        for (int64_t j = 0; j < s->kernel[1]; j++) {
            const int64_t height = h * s->stride[1] + j * s->dilation[1] - s->padding[1];
            if (depth < 0 || depth >= s->in[0] || height < 0 || height >= s->in[1]) {
                continue;
            }
            const tl_real *line =
                x + ((n * s->in[0] + depth) * s->in[1] + height) * s->in[2] * channels;
            for (int64_t k = 0; k < s->kernel[2]; k++) {
                const span r = valid_outputs(s, 2, k);
                add_products(r.end - r.first, channels,
                             line + (r.first * s->stride[2] + r.offset) * channels,
                             s->stride[2] * channels,
                             by_tap + ((i * s->kernel[1] + j) * s->kernel[2] + k) * channels,
                             row + r.first * channels, channels);
            }
        }
    }
}

/* Row (n, d, h) of dx. */
static void backward_row(const tl_conv_shape *s, int64_t n, int64_t d, int64_t h, const tl_real *dy,
                         const tl_real *by_tap, const tl_real *bias, tl_real *dx, bool accumulate) {
    const int64_t channels = s->in_channels;
    tl_real *row = dx + ((n * s->in[0] + d) * s->in[1] + h) * s->in[2] * channels;
    start_row(row, s->in[2], channels, bias, accumulate);
    for (int64_t i = 0; i < s->kernel[0]; i++) {
        const int64_t depth = d + s->padding[0] - i * s->dilation[0]; /* output times stride */
        for (int64_t j = 0; j < s->kernel[1]; j++) {
            const int64_t height = h + s->padding[1] - j * s->dilation[1];
            if (depth < 0 || depth % s->stride[0] != 0 || depth / s->stride[0] >= s->out[0] ||
                height < 0 || height % s->stride[1] != 0 || height / s->stride[1] >= s->out[1]) {
                continue;
            }
            const tl_real *line =
                dy + ((n * s->out[0] + depth / s->stride[0]) * s->out[1] + height / s->stride[1]) *
                         s->out[2] * channels;
            for (int64_t k = 0; k < s->kernel[2]; k++) {
                const span r = valid_outputs(s, 2, k);
                add_products(r.end - r.first, channels, line + r.first * channels, channels,
                             by_tap + ((i * s->kernel[1] + j) * s->kernel[2] + k) * channels,
                             row + (r.first * s->stride[2] + r.offset) * channels,
                             s->stride[2] * channels);
            }
        }
    }
}

static size_t depthwise_scratch_bytes(const tl_conv_shape *s, tl_conv_direction direction,
                                      int threads) {
    (void)direction;
    (void)threads;
    return (size_t)(kernel_taps(s) * s->in_channels) * sizeof(tl_real);
}

static void depthwise_forward(const tl_conv_shape *s, const tl_real *x, const tl_real *weight,
                              const tl_real *bias, tl_real *y, bool accumulate, void *scratch,
                              int threads) {
    tl_real *by_tap = scratch;
    transpose_weight(s, weight, by_tap);
    const int64_t rows = s->batch * s->out[0] * s->out[1];
    const int team = tl_conv_threads(tl_conv_direct_flops(s), threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t i = 0; i < rows; i++) {
        forward_row(s, i / s->out[1] / s->out[0], i / s->out[1] % s->out[0], i % s->out[1], x,
                    by_tap, bias, y, accumulate);
    }
}

static void depthwise_backward_input(const tl_conv_shape *s, const tl_real *dy,
                                     const tl_real *weight, const tl_real *bias, tl_real *dx,
                                     bool accumulate, void *scratch, int threads) {
    tl_real *by_tap = scratch;
    transpose_weight(s, weight, by_tap);
    const int64_t rows = s->batch * s->in[0] * s->in[1];
    const int team = tl_conv_threads(tl_conv_direct_flops(s), threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t i = 0; i < rows; i++) {
        backward_row(s, i / s->in[1] / s->in[0], i / s->in[1] % s->in[0], i % s->in[1], dy, by_tap,
                     bias, dx, accumulate);
    }
}

/* ------------------------------------------------------------------ backward_weight */

enum { PIECES = 16 }; /* of the output's rows, each with a partial gradient [taps][C] */

static int64_t weight_pieces(const tl_conv_shape *s) {
    return tl_conv_minimum(PIECES, s->batch * s->out[0] * s->out[1]);
}

/* Adds output row (n, d, h) to a partial gradient. */
static void add_weight_row(const tl_conv_shape *s, int64_t n, int64_t d, int64_t h,
                           const tl_real *x, const tl_real *dy, tl_real *partial) {
    const int64_t channels = s->in_channels;
    const tl_real *row = dy + ((n * s->out[0] + d) * s->out[1] + h) * s->out[2] * channels;
    for (int64_t i = 0; i < s->kernel[0]; i++) {
        const int64_t depth = d * s->stride[0] + i * s->dilation[0] - s->padding[0];
        for (int64_t j = 0; j < s->kernel[1]; j++) {
            const int64_t height = h * s->stride[1] + j * s->dilation[1] - s->padding[1];
            if (depth < 0 || depth >= s->in[0] || height < 0 || height >= s->in[1]) {
                continue;
            }
            const tl_real *line =
                x + ((n * s->in[0] + depth) * s->in[1] + height) * s->in[2] * channels;
            for (int64_t k = 0; k < s->kernel[2]; k++) {
                const span r = valid_outputs(s, 2, k);
                sum_products(r.end - r.first, channels,
                             line + (r.first * s->stride[2] + r.offset) * channels,
                             s->stride[2] * channels, row + r.first * channels,
                             partial + ((i * s->kernel[1] + j) * s->kernel[2] + k) * channels);
            }
        }
    }
}

static size_t depthwise_weight_scratch_bytes(const tl_conv_shape *s, int threads) {
    (void)threads;
    return (size_t)(weight_pieces(s) * kernel_taps(s) * s->in_channels) * sizeof(tl_real);
}

static void depthwise_backward_weight(const tl_conv_shape *s, const tl_real *x, const tl_real *dy,
                                      tl_real *dweight, bool accumulate, void *scratch,
                                      int threads) {
    tl_real *partial = scratch;
    const int64_t pieces = weight_pieces(s);
    const int64_t taps = kernel_taps(s);
    const int64_t channels = s->in_channels;
    const int64_t rows = s->batch * s->out[0] * s->out[1];
    const int team = tl_conv_threads(tl_conv_direct_flops(s), threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        tl_real *own = partial + piece * taps * channels;
        memset(own, 0, (size_t)(taps * channels) * sizeof(tl_real));
        for (int64_t i = rows * piece / pieces; i < rows * (piece + 1) / pieces; i++) {
            add_weight_row(s, i / s->out[1] / s->out[0], i / s->out[1] % s->out[0], i % s->out[1],
                           x, dy, own);
        }
    }
    for (int64_t t = 0; t < taps; t++) {
        for (int64_t c = 0; c < channels; c++) {
            tl_real sum = accumulate ? dweight[c * taps + t] : 0;
            for (int64_t piece = 0; piece < pieces; piece++) {
                sum += partial[(piece * taps + t) * channels + c];
            }
            dweight[c * taps + t] = sum;
        }
    }
}

const tl_conv_map_kernels TL_PER_ISA(tl_conv_depthwise) = {
    .scratch_bytes = depthwise_scratch_bytes,
    .forward = depthwise_forward,
    .backward_input = depthwise_backward_input,
};

const tl_conv_weight_kernels TL_PER_ISA(tl_conv_depthwise_weight) = {
    .scratch_bytes = depthwise_weight_scratch_bytes,
    .backward_weight = depthwise_backward_weight,
};
