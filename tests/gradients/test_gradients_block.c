/* A whole residual block with efficient attention behind it: the operations' gradients fit
 * together, inputs that are used twice included. */
#include "gradients/gradient_check.h"

enum { X, W1, GAIN1, SHIFT1, W2, GAIN2, SHIFT2, QW, QB, KW, KB, VW, VB, RW, RB, INPUTS };

typedef struct block_options {
    tl_normalization normalization;
    bool composed; /* attention from elementary operations */
} block_options;

static tl_tensor *block(tl_tape *tape, tl_tensor *const *in, const void *user) {
    const tl_conv2d_config same = {.padding = {1, 1}};
    tl_efficient_attention_config config = tl_efficient_attention_config_default();
    config.in_channels = 8;
    config.key_channels = 4;
    config.value_channels = 6;
    config.heads = 2;
    tl_tensor *h = tl_conv2d(tape, in[X], in[W1], NULL, &same);
    h = tl_batch_norm_relu(tape, h, NULL, in[GAIN1], in[SHIFT1], NULL, NULL, NULL);
    h = tl_conv2d(tape, h, in[W2], NULL, &same);
    h = tl_batch_norm_relu(tape, h, in[X], in[GAIN2], in[SHIFT2], NULL, NULL, NULL);
    const tl_efficient_attention_weights weights = {.query_weight = in[QW],
                                                    .query_bias = in[QB],
                                                    .key_weight = in[KW],
                                                    .key_bias = in[KB],
                                                    .value_weight = in[VW],
                                                    .value_bias = in[VB],
                                                    .reprojection_weight = in[RW],
                                                    .reprojection_bias = in[RB]};
    const block_options *options = user;
    config.normalization = options->normalization;
    return options->composed ? tl_efficient_attention_composed(tape, h, &weights, &config)
                             : tl_efficient_attention(tape, h, &weights, &config);
}

static void check(tl_normalization normalization, bool composed) {
    const block_options options = {normalization, composed};
    gradient_problem problem = {
        .name = "residual block with attention",
        .forward = block,
        .user = &options,
        .input_count = INPUTS,
        .inputs = {[X] = {.name = "x", .rank = 4, .shape = {2, 5, 4, 8}},
                   [W1] = {.name = "conv1", .rank = 4, .shape = {8, 3, 3, 8}},
                   [GAIN1] = {.name = "gain1", .rank = 1, .shape = {8}, .low = 0.5, .high = 1.5},
                   [SHIFT1] = {.name = "shift1", .rank = 1, .shape = {8}},
                   [W2] = {.name = "conv2", .rank = 4, .shape = {8, 3, 3, 8}},
                   [GAIN2] = {.name = "gain2", .rank = 1, .shape = {8}, .low = 0.5, .high = 1.5},
                   [SHIFT2] = {.name = "shift2", .rank = 1, .shape = {8}},
                   [QW] = {.name = "queries.weight", .rank = 2, .shape = {4, 8}},
                   [QB] = {.name = "queries.bias", .rank = 1, .shape = {4}},
                   [KW] = {.name = "keys.weight", .rank = 2, .shape = {4, 8}},
                   [KB] = {.name = "keys.bias", .rank = 1, .shape = {4}},
                   [VW] = {.name = "values.weight", .rank = 2, .shape = {6, 8}},
                   [VB] = {.name = "values.bias", .rank = 1, .shape = {6}},
                   [RW] = {.name = "reprojection.weight", .rank = 2, .shape = {8, 6}},
                   [RB] = {.name = "reprojection.bias", .rank = 1, .shape = {8}}},
        .seed = 21};
    problem.inputs[KB].zero_gradient = normalization == TL_NORMALIZATION_SOFTMAX;
    check_gradients(&problem);
}

START_TEST(with_softmax) {
    check(TL_NORMALIZATION_SOFTMAX, _i == 1);
}
END_TEST

START_TEST(with_scaling) {
    check(TL_NORMALIZATION_SCALING, _i == 1);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients of a residual block", &test_case);
    tcase_add_loop_test(test_case, with_softmax, 0, 2);
    tcase_add_loop_test(test_case, with_scaling, 0, 2);
    return run_suite(suite);
}
