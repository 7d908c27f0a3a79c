/* Normalisation, pooling and upsampling. */
#include "parity.h"

#include <string.h>

static void run_batch_norm(parity_run *run) {
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    tl_tensor *weight = parity_param(run, "weight", PARITY_AS_IS);
    tl_tensor *bias = parity_param(run, "bias", PARITY_AS_IS);
    tl_tensor *mean = parity_buffer(run, "running_mean");
    tl_tensor *variance = parity_buffer(run, "running_var");
    const tl_batch_norm_config config = {.momentum = parity_number(run, "momentum"),
                                         .epsilon = parity_number(run, "eps")};
    tl_tape_set_training(parity_run_tape(run), parity_int(run, "training") != 0);
    parity_output(run, "y",
                  tl_batch_norm(parity_run_tape(run), x, weight, bias, mean, variance, &config),
                  PARITY_CHANNELS);
}

static void run_layer_norm(parity_run *run) {
    int64_t shape[TL_MAX_RANK];
    const int dimensions = parity_ints(run, "normalized_shape", -1, shape);
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    tl_tensor *weight = NULL;
    tl_tensor *bias = NULL;
    if (parity_int(run, "affine") != 0) {
        weight = parity_param(run, "weight", PARITY_AS_IS);
        bias = parity_param(run, "bias", PARITY_AS_IS);
    }
    parity_output(
        run, "y",
        tl_layer_norm(parity_run_tape(run), x, dimensions, weight, bias, parity_number(run, "eps")),
        PARITY_AS_IS);
}

static void run_group_norm(parity_run *run) {
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    tl_tensor *weight = NULL;
    tl_tensor *bias = NULL;
    if (parity_int(run, "affine") != 0) {
        weight = parity_param(run, "weight", PARITY_AS_IS);
        bias = parity_param(run, "bias", PARITY_AS_IS);
    }
    parity_output(run, "y",
                  tl_group_norm(parity_run_tape(run), x, parity_int(run, "groups"), weight, bias,
                                parity_number(run, "eps")),
                  PARITY_CHANNELS);
}

static tl_pool_config pool_config(parity_run *run) {
    tl_pool_config config = {.exclude_padding = false};
    (void)parity_ints(run, "kernel", 2, config.kernel_size);
    (void)parity_ints(run, "stride", 2, config.stride);
    (void)parity_ints(run, "padding", 2, config.padding);
    return config;
}

static void run_max_pool2d(parity_run *run) {
    const tl_pool_config config = pool_config(run);
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    parity_output(run, "y", tl_max_pool2d(parity_run_tape(run), x, &config), PARITY_CHANNELS);
}

static void run_avg_pool2d(parity_run *run) {
    tl_pool_config config = pool_config(run);
    config.exclude_padding = parity_int(run, "count_include_pad") == 0;
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    parity_output(run, "y", tl_avg_pool2d(parity_run_tape(run), x, &config), PARITY_CHANNELS);
}

/* y [N, C] is expected as [N, C, 1, 1]: the same values in the same order. */
static void run_adaptive_avg_pool2d(parity_run *run) {
    int64_t size[2] = {0};
    (void)parity_ints(run, "output_size", 2, size);
    if (size[0] != 1 || size[1] != 1) {
        parity_fail(run, "output_size must be [1, 1]");
        return;
    }
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    parity_output(run, "y", tl_global_avg_pool(parity_run_tape(run), x), PARITY_AS_IS);
}

static void run_upsample(parity_run *run) {
    const char *mode = parity_text(run, "mode");
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    if (parity_failed(run)) {
        return;
    }
    const bool bilinear = strcmp(mode, "bilinear") == 0;
    if (!bilinear && strcmp(mode, "nearest") != 0) {
        parity_fail(run, "unknown mode '%s'", mode);
        return;
    }
    parity_output(run, "y",
                  tl_upsample(parity_run_tape(run), x, parity_int(run, "scale"),
                              bilinear ? TL_UPSAMPLE_BILINEAR : TL_UPSAMPLE_NEAREST),
                  PARITY_CHANNELS);
}

const parity_adapter parity_norm[] = {
    {"adaptive_avg_pool2d", run_adaptive_avg_pool2d},
    {"avg_pool2d", run_avg_pool2d},
    {"batch_norm", run_batch_norm},
    {"group_norm", run_group_norm},
    {"layer_norm", run_layer_norm},
    {"max_pool2d", run_max_pool2d},
    {"upsample", run_upsample},
    {NULL, NULL},
};
