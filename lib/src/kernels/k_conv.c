/* k_conv.c - chooses the kernel for a shape and direction, counts FLOPs, sums bias gradients. */
#include "kernels/k_conv_common.h"
#include "kernels/k_conv_winograd_choice.h"

/* ------------------------------------------------------------------ which kernel */

static bool is_depthwise(const tl_conv_shape *s) {
    return s->groups > 1 && s->groups == s->in_channels && s->groups == s->out_channels;
}

static bool is_rows(const tl_conv_shape *s) {
    for (int d = 0; d < 3; d++) {
        if (s->kernel[d] != 1 || s->stride[d] != 1 || s->padding[d] != 0) {
            return false;
        }
    }
    return s->groups == 1;
}

static tl_conv_path conv_path(const tl_conv_shape *shape, tl_conv_direction direction) {
    if (is_depthwise(shape)) {
        return TL_CONV_PATH_DEPTHWISE;
    }
    if (tl_winograd_suits(shape, direction)) {
        return TL_CONV_PATH_WINOGRAD;
    }
    return is_rows(shape) ? TL_CONV_PATH_ROWS : TL_CONV_PATH_DIRECT;
}

static const tl_conv_map_kernels *map_kernels(const tl_conv_shape *shape,
                                              tl_conv_direction direction) {
    switch (conv_path(shape, direction)) {
    case TL_CONV_PATH_WINOGRAD:
        return &TL_PER_ISA(tl_conv_winograd);
    case TL_CONV_PATH_DEPTHWISE:
        return &TL_PER_ISA(tl_conv_depthwise);
    case TL_CONV_PATH_ROWS:
    case TL_CONV_PATH_DIRECT:
        break;
    }
    return &TL_PER_ISA(tl_conv_direct);
}

static const tl_conv_weight_kernels *weight_kernels(const tl_conv_shape *shape) {
    switch (conv_path(shape, TL_CONV_BACKWARD_WEIGHT)) {
    case TL_CONV_PATH_WINOGRAD:
        return &TL_PER_ISA(tl_conv_winograd_weight);
    case TL_CONV_PATH_DEPTHWISE:
        return &TL_PER_ISA(tl_conv_depthwise_weight);
    case TL_CONV_PATH_ROWS:
    case TL_CONV_PATH_DIRECT:
        break;
    }
    return &TL_PER_ISA(tl_conv_direct_weight);
}

/* A 1x1 convolution is one long row of positions: no image has edges, so that blocks are full. */
static tl_conv_shape normalised(const tl_conv_shape *shape) {
    tl_conv_shape s = *shape;
    if (is_rows(shape)) {
        s.batch = 1;
        s.in[2] *= shape->batch * s.in[0] * s.in[1];
        s.in[0] = s.in[1] = 1;
        for (int d = 0; d < 3; d++) {
            s.out[d] = s.in[d];
        }
    }
    return s;
}

/* ------------------------------------------------------------------ the three directions */

static size_t conv_scratch_bytes(const tl_conv_shape *shape, tl_conv_direction direction,
                                 int threads) {
    const tl_conv_shape s = normalised(shape);
    return direction == TL_CONV_BACKWARD_WEIGHT
               ? weight_kernels(&s)->scratch_bytes(&s, threads)
               : map_kernels(&s, direction)->scratch_bytes(&s, direction, threads);
}

static void conv_forward(const tl_conv_shape *shape, const tl_real *x, const tl_real *weight,
                         const tl_real *bias, tl_real *y, bool accumulate, void *scratch,
                         int threads) {
    const tl_conv_shape s = normalised(shape);
    map_kernels(&s, TL_CONV_FORWARD)->forward(&s, x, weight, bias, y, accumulate, scratch, threads);
}

static void conv_backward_input(const tl_conv_shape *shape, const tl_real *dy,
                                const tl_real *weight, const tl_real *bias, tl_real *dx,
                                bool accumulate, void *scratch, int threads) {
    const tl_conv_shape s = normalised(shape);
    map_kernels(&s, TL_CONV_BACKWARD_INPUT)
        ->backward_input(&s, dy, weight, bias, dx, accumulate, scratch, threads);
}

static void conv_backward_weight(const tl_conv_shape *shape, const tl_real *x, const tl_real *dy,
                                 tl_real *dweight, bool accumulate, void *scratch, int threads) {
    const tl_conv_shape s = normalised(shape);
    weight_kernels(&s)->backward_weight(&s, x, dy, dweight, accumulate, scratch, threads);
}

/* Winograd: the products of channels of a tile's elements and the transforms of its lines, for each
 * channel on the way in and on the way out. Otherwise what the definition says. */
static double conv_flops(const tl_conv_shape *s, tl_conv_direction direction) {
    if (conv_path(s, direction) != TL_CONV_PATH_WINOGRAD) {
        return tl_conv_direct_flops(s);
    }
    const bool back = direction == TL_CONV_BACKWARD_INPUT;
    const tl_winograd_kind kind = tl_winograd_choose(s, direction);
    const tl_winograd_line line = tl_winograd_line_of(kind);
    const double tiles = tl_winograd_tiles(s, back ? s->in : s->out, kind);
    const double inputs = (double)(back ? s->out_channels : s->in_channels);
    const double outputs = (double)(back ? s->in_channels : s->out_channels);
    const double last = direction == TL_CONV_BACKWARD_WEIGHT ? tl_winograd_gradient_flops(kind)
                                                             : tl_winograd_output_flops(kind);
    return tiles * (2 * line.elements * line.elements * inputs * outputs +
                    tl_winograd_input_flops(kind) * inputs + last * outputs);
}

/* ------------------------------------------------------------------ bias */

enum { BIAS_ROWS = 128, BIAS_PIECES = 16, BIAS_CHAINS = 8 };

static int64_t bias_pieces(int64_t rows) {
    return tl_conv_minimum(BIAS_PIECES, tl_conv_ceiling(rows, BIAS_ROWS));
}

/* The sum of `rows` rows of one vector each, `lanes` of them there: several chains side by side,
 * for accuracy as for speed. */
static inline tl_v sum_rows(int64_t rows, int64_t channels, int64_t lanes, const tl_real *dy) {
    tl_v chains[BIAS_CHAINS];
    for (int i = 0; i < BIAS_CHAINS; i++) {
        chains[i] = tl_v_zero();
    }
    int64_t r = 0;
    for (; r + BIAS_CHAINS <= rows; r += BIAS_CHAINS) {
        for (int i = 0; i < BIAS_CHAINS; i++) {
            const tl_real *row = dy + (r + i) * channels;
            chains[i] += lanes == TL_LANES ? tl_v_load(row) : tl_v_load_partial(row, lanes);
        }
    }
    for (; r < rows; r++) {
        chains[0] += tl_v_load_partial(dy + r * channels, lanes);
    }
    for (int half = BIAS_CHAINS / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            chains[i] += chains[i + half];
        }
    }
    return chains[0];
}

/* sum [channels] += the sum of `rows` rows, added up in tl_real. */
static void add_rows(int64_t rows, int64_t channels, const tl_real *dy, double *sum) {
    for (int64_t c = 0; c < channels; c += TL_LANES) {
        const int64_t lanes = tl_conv_minimum(TL_LANES, channels - c);
        const tl_v total = lanes == TL_LANES ? sum_rows(rows, channels, TL_LANES, dy + c)
                                             : sum_rows(rows, channels, lanes, dy + c);
        for (int64_t i = 0; i < lanes; i++) {
            sum[c + i] += (double)total[i];
        }
    }
}

static size_t conv_bias_scratch_bytes(int64_t rows, int64_t channels) {
    return (size_t)(bias_pieces(rows) * channels) * sizeof(double);
}

static void conv_backward_bias(int64_t rows, int64_t channels, const tl_real *dy, tl_real *dbias,
                               bool accumulate, void *scratch, int threads) {
    double *sums = scratch;
    const int64_t pieces = bias_pieces(rows);
    const int team = tl_conv_threads((double)(rows * channels), threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        double *sum = sums + piece * channels;
        memset(sum, 0, (size_t)channels * sizeof *sum);
        const int64_t end = rows * (piece + 1) / pieces;
        for (int64_t r = rows * piece / pieces; r < end; r += BIAS_ROWS) {
            add_rows(tl_conv_minimum(BIAS_ROWS, end - r), channels, dy + r * channels, sum);
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        double sum = accumulate ? (double)dbias[c] : 0;
        for (int64_t piece = 0; piece < pieces; piece++) {
            sum += sums[piece * channels + c];
        }
        dbias[c] = (tl_real)sum;
    }
}

const tl_conv_kernels TL_PER_ISA(tl_conv_kernels) = {
    .path = conv_path,
    .scratch_bytes = conv_scratch_bytes,
    .flops = conv_flops,
    .forward = conv_forward,
    .backward_input = conv_backward_input,
    .backward_weight = conv_backward_weight,
    .parts = &TL_PER_ISA(tl_conv_winograd_parts),
    .bias_scratch_bytes = conv_bias_scratch_bytes,
    .backward_bias = conv_backward_bias,
};
