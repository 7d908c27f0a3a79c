#include "parity.h"

/* What all convolutions have. */
typedef struct convolution {
    tl_tensor *x, *weight, *bias;
    int64_t stride[3], padding[3], dilation[3], groups;
} convolution;

static convolution read_convolution(parity_run *run, int dimensions) {
    convolution c = {.x = parity_input(run, "x", PARITY_CHANNELS),
                     .weight = parity_param(run, "weight", PARITY_CHANNELS),
                     .bias =
                         parity_int(run, "bias") ? parity_param(run, "bias", PARITY_AS_IS) : NULL,
                     .groups = parity_int(run, "groups")};
    parity_ints(run, "stride", dimensions, c.stride);
    parity_ints(run, "padding", dimensions, c.padding);
    parity_ints(run, "dilation", dimensions, c.dilation);
    return c;
}

static void run_conv1d(parity_run *run) {
    const convolution c = read_convolution(run, 1);
    const tl_conv1d_config config = {.stride = c.stride[0],
                                     .padding = c.padding[0],
                                     .dilation = c.dilation[0],
                                     .groups = c.groups};
    parity_output(run, "y", tl_conv1d(parity_run_tape(run), c.x, c.weight, c.bias, &config),
                  PARITY_CHANNELS);
}

static void run_conv2d(parity_run *run) {
    const convolution c = read_convolution(run, 2);
    const tl_conv2d_config config = {.stride = {c.stride[0], c.stride[1]},
                                     .padding = {c.padding[0], c.padding[1]},
                                     .dilation = {c.dilation[0], c.dilation[1]},
                                     .groups = c.groups};
    parity_output(run, "y", tl_conv2d(parity_run_tape(run), c.x, c.weight, c.bias, &config),
                  PARITY_CHANNELS);
}

static void run_conv3d(parity_run *run) {
    const convolution c = read_convolution(run, 3);
    const tl_conv3d_config config = {.stride = {c.stride[0], c.stride[1], c.stride[2]},
                                     .padding = {c.padding[0], c.padding[1], c.padding[2]},
                                     .dilation = {c.dilation[0], c.dilation[1], c.dilation[2]},
                                     .groups = c.groups};
    parity_output(run, "y", tl_conv3d(parity_run_tape(run), c.x, c.weight, c.bias, &config),
                  PARITY_CHANNELS);
}

static void run_conv_transpose2d(parity_run *run) {
    const convolution c = read_convolution(run, 2);
    int64_t extra[2];
    parity_ints(run, "output_padding", 2, extra);
    const tl_conv_transpose2d_config config = {.stride = {c.stride[0], c.stride[1]},
                                               .padding = {c.padding[0], c.padding[1]},
                                               .output_padding = {extra[0], extra[1]},
                                               .dilation = {c.dilation[0], c.dilation[1]},
                                               .groups = c.groups};
    parity_output(run, "y",
                  tl_conv_transpose2d(parity_run_tape(run), c.x, c.weight, c.bias, &config),
                  PARITY_CHANNELS);
}

const parity_adapter parity_convolution[] = {
    {"conv1d", run_conv1d}, {"conv2d", run_conv2d},
    {"conv3d", run_conv3d}, {"conv_transpose2d", run_conv_transpose2d},
    {NULL, NULL},
};
