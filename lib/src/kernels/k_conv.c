/* k_conv.c - which kernel a convolution takes, and the gradient of its bias. */
#include "kernels/kernels.h"

#include "kernels/k_conv_tiles.h"

static bool is_one_by_one(const tl_conv_shape *s) {
    for (int d = 0; d < 3; d++) {
        if (s->kernel[d] != 1 || s->stride[d] != 1 || s->padding[d] != 0) {
            return false;
        }
    }
    return s->groups == 1;
}

/* Two dimensions, 3x3, stride 1, dilation 1, whole vectors of channels; smaller maps than 3x3 would
 * waste more products on padding than the transform saves. */
static bool suits_winograd(const tl_conv_shape *s) {
    if (s->groups != 1 || s->kernel[0] != 1 || s->in[0] != 1 || s->stride[0] != 1 ||
        s->padding[0] != 0 || s->in_channels % TL_LANES != 0 || s->out_channels % TL_LANES != 0) {
        return false;
    }
    for (int d = 1; d < 3; d++) {
        if (s->kernel[d] != 3 || s->stride[d] != 1 || s->dilation[d] != 1 || s->padding[d] > 2 ||
            s->in[d] < 3 || s->out[d] < 3) {
            return false;
        }
    }
    return true;
}

static tl_conv_path path(const tl_conv_shape *shape, tl_conv_direction direction) {
    (void)direction;
    if (suits_winograd(shape)) {
        return TL_CONV_PATH_WINOGRAD;
    }
    return is_one_by_one(shape) ? TL_CONV_PATH_ROWS : TL_CONV_PATH_DIRECT;
}

static const tl_conv_map_kernels *map_kernels(const tl_conv_shape *shape,
                                              tl_conv_direction direction) {
    return path(shape, direction) == TL_CONV_PATH_WINOGRAD ? &TL_PER_ISA(tl_conv_winograd)
                                                           : &TL_PER_ISA(tl_conv_direct);
}

static const tl_conv_weight_kernels *weight_kernels(const tl_conv_shape *shape) {
    return path(shape, TL_CONV_BACKWARD_WEIGHT) == TL_CONV_PATH_WINOGRAD
               ? &TL_PER_ISA(tl_conv_winograd_weight)
               : &TL_PER_ISA(tl_conv_direct_weight);
}

static size_t scratch_bytes(const tl_conv_shape *shape, tl_conv_direction direction, int threads) {
    return direction == TL_CONV_BACKWARD_WEIGHT
               ? weight_kernels(shape)->scratch_bytes(shape, threads)
               : map_kernels(shape, direction)->scratch_bytes(shape, direction, threads);
}

static double flops(const tl_conv_shape *shape, tl_conv_direction direction) {
    if (path(shape, direction) != TL_CONV_PATH_WINOGRAD) {
        return tl_conv_direct_flops(shape);
    }
    const bool input = direction == TL_CONV_BACKWARD_INPUT;
    const double rows = (double)(((input ? shape->in[1] : shape->out[1]) + 1) / 2);
    const double columns = (double)(((input ? shape->in[2] : shape->out[2]) + 1) / 2);
    const double tiles = (double)shape->batch * rows * columns;
    const double inputs = (double)shape->in_channels;
    const double outputs = (double)shape->out_channels;
    /* 16 products; additions of the transforms: 32 on a 4x4 patch, 24 from it to 2x2, 12 back */
    if (direction == TL_CONV_BACKWARD_WEIGHT) {
        return tiles * (32.0 * inputs * outputs + 32.0 * inputs + 12.0 * outputs);
    }
    return tiles * (32.0 * inputs * outputs + 32.0 * (input ? outputs : inputs) +
                    24.0 * (input ? inputs : outputs));
}

static void forward(const tl_conv_shape *shape, const tl_real *x, const tl_real *weight,
                    const tl_real *bias, tl_real *y, bool accumulate, void *scratch, int threads) {
    map_kernels(shape, TL_CONV_FORWARD)
        ->forward(shape, x, weight, bias, y, accumulate, scratch, threads);
}

static void backward_input(const tl_conv_shape *shape, const tl_real *dy, const tl_real *weight,
                           const tl_real *bias, tl_real *dx, bool accumulate, void *scratch,
                           int threads) {
    map_kernels(shape, TL_CONV_BACKWARD_INPUT)
        ->backward_input(shape, dy, weight, bias, dx, accumulate, scratch, threads);
}

static void backward_weight(const tl_conv_shape *shape, const tl_real *x, const tl_real *dy,
                            tl_real *dweight, bool accumulate, void *scratch, int threads) {
    weight_kernels(shape)->backward_weight(shape, x, dy, dweight, accumulate, scratch, threads);
}

/* ------------------------------------------------------------------ bias */

/* Rows are cut into blocks; each block's sum is in double, the blocks are added in order. */
enum { BIAS_BLOCK_ROWS = 1024 };

static size_t bias_scratch_bytes(int64_t rows, int64_t channels) {
    return (size_t)(tl_conv_ceiling(rows, BIAS_BLOCK_ROWS) * channels) * sizeof(double);
}

static void backward_bias(int64_t rows, int64_t channels, const tl_real *dy, tl_real *dbias,
                          bool accumulate, void *scratch, int threads) {
    double *sums = scratch;
    const int64_t blocks = tl_conv_ceiling(rows, BIAS_BLOCK_ROWS);
    const int team = tl_conv_threads((double)(rows * channels), threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t b = 0; b < blocks; b++) {
        double *sum = sums + b * channels;
        const int64_t end = tl_conv_minimum(rows, (b + 1) * BIAS_BLOCK_ROWS);
        memset(sum, 0, (size_t)channels * sizeof(double));
        for (int64_t r = b * BIAS_BLOCK_ROWS; r < end; r++) {
            for (int64_t c = 0; c < channels; c++) {
                sum[c] += (double)dy[r * channels + c];
            }
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; b++) {
            sum += sums[b * channels + c];
        }
        dbias[c] = accumulate ? dbias[c] + (tl_real)sum : (tl_real)sum;
    }
}

const tl_conv_kernels TL_PER_ISA(tl_conv_kernels) = {
    .path = path,
    .scratch_bytes = scratch_bytes,
    .flops = flops,
    .forward = forward,
    .backward_input = backward_input,
    .backward_weight = backward_weight,
    .bias_scratch_bytes = bias_scratch_bytes,
    .backward_bias = backward_bias,
};
