#include "support/operation_list.h"

/* ------------------------------------------------------------------ one input, no arguments */

#define UNARY(name, call)                                                                          \
    static tl_tensor *name(tl_tape *tape, tl_tensor *const *x) {                                   \
        return call;                                                                               \
    }

UNARY(relu, tl_relu(tape, x[0]))
UNARY(leaky_relu, tl_leaky_relu(tape, x[0], 0.1))
UNARY(gelu, tl_gelu(tape, x[0], TL_GELU_EXACT))
UNARY(gelu_tanh, tl_gelu(tape, x[0], TL_GELU_TANH))
UNARY(silu, tl_silu(tape, x[0]))
UNARY(sigmoid, tl_sigmoid(tape, x[0]))
UNARY(tanh_, tl_tanh(tape, x[0]))
UNARY(elu, tl_elu(tape, x[0], 0.7))
UNARY(softplus, tl_softplus(tape, x[0], 1.5, 20))
UNARY(scale, tl_scale(tape, x[0], -1.3))
UNARY(dropout, tl_dropout(tape, x[0], 0.3))
UNARY(softmax_rows, tl_softmax(tape, x[0], 3))
UNARY(softmax_down, tl_softmax(tape, x[0], 1))
UNARY(log_softmax, tl_log_softmax(tape, x[0], 3))
UNARY(sum_all, tl_sum(tape, x[0], 0, NULL, false))
UNARY(sum_some, tl_sum(tape, x[0], 2, ((const int[]){0, 3}), true))
UNARY(mean, tl_mean(tape, x[0], 2, ((const int[]){1, 2}), false))
UNARY(global_avg_pool, tl_global_avg_pool(tape, x[0]))
UNARY(upsample_nearest, tl_upsample(tape, x[0], 2, TL_UPSAMPLE_NEAREST))
UNARY(upsample_bilinear, tl_upsample(tape, x[0], 3, TL_UPSAMPLE_BILINEAR))
UNARY(permute, tl_permute(tape, x[0], (const int[]){3, 1, 0, 2}))
UNARY(reshape, tl_scale(tape, tl_reshape(tape, x[0], 2, (const int64_t[]){3 * 31, 29 * 21}), 2))
UNARY(slice, tl_slice(tape, x[0], (const int64_t[]){0, 1, 0, 2}, (const int64_t[]){3, 30, 29, 21},
                      (const int64_t[]){2, 1, 3, 1}))

#define WINDOW                                                                                     \
    {                                                                                              \
        .kernel_size = {3, 2, 2}, .stride = {2, 1, 2}, .padding = { 1, 1, 0 }                      \
    }
static const tl_pool_config window = WINDOW;
static const tl_pool_config inside = {
    .kernel_size = {3, 3}, .stride = {1, 2}, .padding = {1, 1}, .exclude_padding = true};

UNARY(max_pool2d, tl_max_pool2d(tape, x[0], &window))
UNARY(avg_pool2d, tl_avg_pool2d(tape, x[0], &inside))
UNARY(max_pool3d, tl_max_pool(tape, x[0], &window))
UNARY(avg_pool3d, tl_avg_pool(tape, x[0], &window))

/* ------------------------------------------------------------------ several inputs */

#define OPERATION UNARY

OPERATION(add, tl_add(tape, x[0], x[1]))
OPERATION(sub, tl_sub(tape, x[0], x[1]))
OPERATION(mul, tl_mul(tape, x[0], x[1]))
OPERATION(div_, tl_div(tape, x[0], x[1]))
OPERATION(concat, tl_concat(tape, 2, x, 1))
OPERATION(matmul, tl_matmul(tape, x[0], x[1]))
OPERATION(linear, tl_linear(tape, x[0], x[1], x[2]))
OPERATION(linear_add, tl_linear_add(tape, x[0], x[1], x[2], x[3]))
OPERATION(batch_norm, tl_batch_norm(tape, x[0], x[1], x[2], NULL, NULL, NULL))
OPERATION(batch_norm_relu, tl_batch_norm_relu(tape, x[0], x[3], x[1], x[2], NULL, NULL, NULL))
OPERATION(layer_norm, tl_layer_norm(tape, x[0], 1, x[1], x[2], 1e-5))
OPERATION(group_norm, tl_group_norm(tape, x[0], 3, x[1], x[2], 1e-5))
OPERATION(mse_loss, tl_mse_loss(tape, x[0], x[1]))
OPERATION(smooth_l1_loss, tl_smooth_l1_loss(tape, x[0], x[1], 0.5))
OPERATION(bce_with_logits, tl_bce_with_logits(tape, x[0], x[1]))
OPERATION(conv1d, tl_conv1d(tape, x[0], x[1], x[2],
                            &(tl_conv1d_config){.stride = 2, .padding = 3, .dilation = 2}))
OPERATION(conv2d_winograd,
          tl_conv2d(tape, x[0], x[1], x[2], &(tl_conv2d_config){.padding = {1, 1}}))
OPERATION(conv2d_stride, tl_conv2d(tape, x[0], x[1], x[2],
                                   &(tl_conv2d_config){.stride = {2, 1}, .padding = {1, 2}}))
OPERATION(conv2d_groups,
          tl_conv2d(tape, x[0], x[1], x[2], &(tl_conv2d_config){.padding = {1, 1}, .groups = 3}))
OPERATION(conv2d_depthwise,
          tl_conv2d(tape, x[0], x[1], x[2], &(tl_conv2d_config){.padding = {1, 1}, .groups = 21}))
OPERATION(conv3d, tl_conv3d(tape, x[0], x[1], x[2],
                            &(tl_conv3d_config){.stride = {1, 2, 1}, .padding = {1, 0, 1}}))
OPERATION(conv_transpose2d,
          tl_conv_transpose2d(tape, x[0], x[1], x[2],
                              &(tl_conv_transpose2d_config){.stride = {2, 2}, .padding = {1, 0}}))
OPERATION(cost_volume, tl_cost_volume(tape, x[0], x[1], 9, 7))
OPERATION(attention, tl_attention(tape, x[0], x[1], x[2], &(tl_attention_config){.heads = 3}))
OPERATION(attention_causal,
          tl_attention(tape, x[0], x[1], x[2], &(tl_attention_config){.heads = 3, .causal = true}))
OPERATION(attention_materialized,
          tl_attention(tape, x[0], x[1], x[2],
                       &(tl_attention_config){.heads = 3,
                                              .implementation = TL_ATTENTION_MATERIALIZED}))
OPERATION(causal_linear_attention, tl_causal_linear_attention(tape, x[0], x[1], x[2], 3))

enum { LABELS = 2048, CLASSES = 29 };

static const int32_t *labels(void) {
    static int32_t values[LABELS];
    for (int i = 0; i < LABELS; i++) {
        values[i] = i * 7 % CLASSES;
    }
    return values;
}

OPERATION(cross_entropy, tl_cross_entropy(tape, x[0], labels(),
                                          &(tl_cross_entropy_config){.label_smoothing = 0.1}))
OPERATION(embedding, tl_embedding(tape, x[0], 2, (const int64_t[]){32, 64}, labels()))

/* ------------------------------------------------------------------ attention modules */

/* x, then weight and bias of queries, keys, values, reprojection. */
static tl_efficient_attention_weights efficient_weights(tl_tensor *const *x) {
    return (tl_efficient_attention_weights){.query_weight = x[1],
                                            .query_bias = x[2],
                                            .key_weight = x[3],
                                            .key_bias = x[4],
                                            .value_weight = x[5],
                                            .value_bias = x[6],
                                            .reprojection_weight = x[7],
                                            .reprojection_bias = x[8]};
}

static tl_efficient_attention_config efficient_config(int64_t heads, bool scaling) {
    tl_efficient_attention_config config = tl_efficient_attention_config_default();
    config.heads = heads;
    config.key_channels = 12;
    config.value_channels = 24;
    config.normalization = scaling ? TL_NORMALIZATION_SCALING : TL_NORMALIZATION_SOFTMAX;
    return config;
}

#define EFFICIENT(name, function, heads, scaling)                                                  \
    static tl_tensor *name(tl_tape *tape, tl_tensor *const *x) {                                   \
        const tl_efficient_attention_weights weights = efficient_weights(x);                       \
        const tl_efficient_attention_config config = efficient_config(heads, scaling);             \
        return function(tape, x[0], &weights, &config);                                            \
    }

EFFICIENT(efficient_softmax, tl_efficient_attention, 2, false)
EFFICIENT(efficient_scaling, tl_efficient_attention, 4, true)
EFFICIENT(efficient_composed, tl_efficient_attention_composed, 2, false)

static tl_non_local_weights non_local_weights(tl_tensor *const *x) {
    return (tl_non_local_weights){.query_weight = x[1],
                                  .query_bias = x[2],
                                  .key_weight = x[3],
                                  .key_bias = x[4],
                                  .value_weight = x[5],
                                  .value_bias = x[6],
                                  .reprojection_weight = x[7],
                                  .reprojection_bias = x[8]};
}

static tl_non_local_config non_local_config(tl_pairwise pairwise,
                                            tl_attention_implementation implementation) {
    tl_non_local_config config = tl_non_local_config_default();
    config.key_channels = 12;
    config.value_channels = 24;
    config.heads = 2;
    config.pairwise = pairwise;
    config.implementation = implementation;
    return config;
}

#define NON_LOCAL(name, pairwise, implementation)                                                  \
    static tl_tensor *name(tl_tape *tape, tl_tensor *const *x) {                                   \
        const tl_non_local_weights weights = non_local_weights(x);                                 \
        const tl_non_local_config config = non_local_config(pairwise, implementation);             \
        return tl_non_local(tape, x[0], &weights, &config);                                        \
    }

NON_LOCAL(non_local_tiled, TL_PAIRWISE_EMBEDDED_GAUSSIAN, TL_ATTENTION_TILED)
NON_LOCAL(non_local_map_stored, TL_PAIRWISE_EMBEDDED_GAUSSIAN, TL_ATTENTION_MATERIALIZED)
NON_LOCAL(non_local_dot, TL_PAIRWISE_DOT_PRODUCT, TL_ATTENTION_TILED)

/* x, then weight and bias of values and reprojection. */
static tl_tensor *non_local_gaussian(tl_tape *tape, tl_tensor *const *x) {
    const tl_non_local_weights weights = {.value_weight = x[1],
                                          .value_bias = x[2],
                                          .reprojection_weight = x[3],
                                          .reprojection_bias = x[4]};
    tl_non_local_config config = non_local_config(TL_PAIRWISE_GAUSSIAN, TL_ATTENTION_TILED);
    config.heads = 1;
    return tl_non_local(tape, x[0], &weights, &config);
}

/* The pair weight takes the place of the reprojection. */
static tl_tensor *non_local_concatenation(tl_tape *tape, tl_tensor *const *x) {
    tl_non_local_weights weights = non_local_weights(x);
    weights.pair_weight = x[7];
    tl_non_local_config config = non_local_config(TL_PAIRWISE_CONCATENATION, TL_ATTENTION_TILED);
    config.heads = 1;
    config.use_reprojection = false;
    return tl_non_local(tape, x[0], &weights, &config);
}

/* ------------------------------------------------------------------ the list */

#define IMAGE                                                                                      \
    {                                                                                              \
        4, {                                                                                       \
            3, 31, 29, 21                                                                          \
        }                                                                                          \
    }
#define EVEN_IMAGE                                                                                 \
    {                                                                                              \
        4, {                                                                                       \
            2, 32, 30, 32                                                                          \
        }                                                                                          \
    }
#define VIDEO                                                                                      \
    {                                                                                              \
        5, {                                                                                       \
            2, 6, 15, 14, 21                                                                       \
        }                                                                                          \
    }
#define ROWS                                                                                       \
    {                                                                                              \
        2, {                                                                                       \
            1800, CLASSES                                                                          \
        }                                                                                          \
    }
#define CHANNELS                                                                                   \
    {                                                                                              \
        1, {                                                                                       \
            21                                                                                     \
        }                                                                                          \
    }
#define SEQUENCE                                                                                   \
    {                                                                                              \
        3, {                                                                                       \
            2, 300, 24                                                                             \
        }                                                                                          \
    }
#define POSITIONS                                                                                  \
    {                                                                                              \
        4, {                                                                                       \
            2, 18, 17, 24                                                                          \
        }                                                                                          \
    }
#define PROJECTIONS                                                                                \
    {2, {12, 24}}, {1, {12}}, {2, {12, 24}}, {1, {12}}, {2, {24, 24}}, {                           \
        1, {                                                                                       \
            24                                                                                     \
        }                                                                                          \
    }
#define REPROJECTION                                                                               \
    {2, {24, 24}}, {                                                                               \
        1, {                                                                                       \
            24                                                                                     \
        }                                                                                          \
    }

#define CASE(function, reports, compute, ...)                                                      \
    {                                                                                              \
#function, reports, compute,                                                               \
            sizeof((operation_input[]){__VA_ARGS__}) / sizeof(operation_input), {                  \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

const operation_case operation_list[] = {
    CASE(tl_relu, "relu", relu, IMAGE),
    CASE(tl_leaky_relu, "leaky_relu", leaky_relu, IMAGE),
    CASE(tl_gelu, "gelu", gelu, IMAGE),
    CASE(tl_gelu, "gelu", gelu_tanh, IMAGE),
    CASE(tl_silu, "silu", silu, IMAGE),
    CASE(tl_sigmoid, "sigmoid", sigmoid, IMAGE),
    CASE(tl_tanh, "tanh", tanh_, IMAGE),
    CASE(tl_elu, "elu", elu, IMAGE),
    CASE(tl_softplus, "softplus", softplus, IMAGE),
    CASE(tl_scale, "scale", scale, IMAGE),
    CASE(tl_dropout, "dropout", dropout, IMAGE),
    CASE(tl_softmax, "softmax", softmax_rows, IMAGE),
    CASE(tl_softmax, "softmax", softmax_down, IMAGE),
    CASE(tl_log_softmax, "log_softmax", log_softmax, IMAGE),
    CASE(tl_sum, "sum", sum_all, IMAGE),
    CASE(tl_sum, "sum", sum_some, IMAGE),
    CASE(tl_mean, "mean", mean, IMAGE),
    CASE(tl_global_avg_pool, "global_avg_pool", global_avg_pool, IMAGE),
    CASE(tl_upsample, "upsample", upsample_nearest, IMAGE),
    CASE(tl_upsample, "upsample", upsample_bilinear, IMAGE),
    CASE(tl_permute, "permute", permute, IMAGE),
    CASE(tl_reshape, "reshape", reshape, IMAGE),
    CASE(tl_slice, "slice", slice, IMAGE),
    CASE(tl_max_pool2d, "max_pool2d", max_pool2d, IMAGE),
    CASE(tl_avg_pool2d, "avg_pool2d", avg_pool2d, IMAGE),
    CASE(tl_max_pool, "max_pool", max_pool3d, VIDEO),
    CASE(tl_avg_pool, "avg_pool", avg_pool3d, VIDEO),
    CASE(tl_add, "add", add, IMAGE, CHANNELS),
    CASE(tl_sub, "sub", sub, CHANNELS, IMAGE),
    CASE(tl_mul, "mul", mul, IMAGE, IMAGE),
    CASE(tl_div, "div", div_, IMAGE, {3, {31, 1, 21}}),
    CASE(tl_concat, "concat", concat, IMAGE, {4, {3, 40, 29, 21}}),
    CASE(tl_matmul, "matmul", matmul, {3, {2, 150, 130}}, {3, {2, 130, 170}}),
    CASE(tl_matmul, "matmul", matmul, {2, {33, 3000}}, {2, {3000, 31}}),
    CASE(tl_linear, "linear", linear, {3, {2, 700, 40}}, {2, {50, 40}}, {1, {50}}),
    CASE(tl_linear_add, "linear_add", linear_add, {3, {2, 700, 40}}, {2, {50, 40}}, {1, {50}},
         {3, {2, 700, 50}}),
    CASE(tl_batch_norm, "batch_norm", batch_norm, IMAGE, CHANNELS, CHANNELS),
    CASE(tl_batch_norm_relu, "batch_norm_relu", batch_norm_relu, IMAGE, CHANNELS, CHANNELS, IMAGE),
    CASE(tl_layer_norm, "layer_norm", layer_norm, IMAGE, CHANNELS, CHANNELS),
    CASE(tl_group_norm, "group_norm", group_norm, IMAGE, CHANNELS, CHANNELS),
    CASE(tl_mse_loss, "mse_loss", mse_loss, IMAGE, IMAGE),
    CASE(tl_smooth_l1_loss, "smooth_l1_loss", smooth_l1_loss, IMAGE, IMAGE),
    CASE(tl_bce_with_logits, "bce_with_logits", bce_with_logits, IMAGE, IMAGE),
    CASE(tl_cross_entropy, "cross_entropy", cross_entropy, ROWS),
    CASE(tl_embedding, "embedding", embedding, {2, {CLASSES, 37}}),
    CASE(tl_conv1d, "conv1d", conv1d, {3, {3, 800, 21}}, {3, {19, 5, 21}}, {1, {19}}),
    CASE(tl_conv2d, "conv2d", conv2d_winograd, EVEN_IMAGE, {4, {48, 3, 3, 32}}, {1, {48}}),
    CASE(tl_conv2d, "conv2d", conv2d_stride, IMAGE, {4, {13, 3, 5, 21}}, {1, {13}}),
    CASE(tl_conv2d, "conv2d", conv2d_groups, IMAGE, {4, {12, 3, 3, 7}}, {1, {12}}),
    CASE(tl_conv2d, "conv2d", conv2d_depthwise, IMAGE, {4, {21, 3, 3, 1}}, CHANNELS),
    CASE(tl_conv3d, "conv3d", conv3d, VIDEO, {5, {11, 3, 2, 3, 21}}, {1, {11}}),
    CASE(tl_conv_transpose2d, "conv_transpose2d", conv_transpose2d, IMAGE, {4, {21, 3, 4, 10}},
         {1, {10}}),
    CASE(tl_cost_volume, "cost_volume", cost_volume, IMAGE, IMAGE),
    CASE(tl_attention, "attention", attention, SEQUENCE, SEQUENCE, SEQUENCE),
    CASE(tl_attention, "attention", attention_causal, SEQUENCE, SEQUENCE, SEQUENCE),
    CASE(tl_attention, "attention", attention_materialized, SEQUENCE, SEQUENCE, SEQUENCE),
    CASE(tl_causal_linear_attention, "causal_linear_attention", causal_linear_attention, SEQUENCE,
         SEQUENCE, SEQUENCE),
    CASE(tl_efficient_attention, "efficient_attention", efficient_softmax, POSITIONS, PROJECTIONS,
         REPROJECTION),
    CASE(tl_efficient_attention, "efficient_attention", efficient_scaling, POSITIONS, PROJECTIONS,
         REPROJECTION),
    CASE(tl_efficient_attention_composed, "", efficient_composed, POSITIONS, PROJECTIONS,
         REPROJECTION),
    CASE(tl_non_local, "", non_local_tiled, POSITIONS, PROJECTIONS, REPROJECTION),
    CASE(tl_non_local, "", non_local_map_stored, POSITIONS, PROJECTIONS, REPROJECTION),
    CASE(tl_non_local, "", non_local_dot, POSITIONS, PROJECTIONS, REPROJECTION),
    CASE(tl_non_local, "", non_local_gaussian, POSITIONS, {2, {24, 24}}, {1, {24}}, REPROJECTION),
    CASE(tl_non_local, "", non_local_concatenation, POSITIONS, PROJECTIONS, {1, {24}}),
};
const int operation_count = sizeof operation_list / sizeof operation_list[0];

int64_t operation_input_size(const operation_case *c, int index) {
    int64_t size = 1;
    for (int d = 0; d < c->inputs[index].rank; d++) {
        size *= c->inputs[index].shape[d];
    }
    return size;
}
