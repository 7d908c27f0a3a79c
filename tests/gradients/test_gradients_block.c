/* A whole residual block with efficient attention behind it: the operations' gradients fit
 * together, inputs that are used twice included. */
#include "gradients/gradient_check.h"

#include <stdlib.h>

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

/* A batch large enough for the convolutions to take both gradients at once and to make their inputs
 * and the gradients of their results from the batch norms around them. What is checked are factors
 * of the tensors' channels, through which all values flow. */
enum { BATCH = 64, EXTENT = 12, WIDTH = 16, FACTORS = 7 };

typedef struct large_values {
    tl_array x;
    tl_array weights[2];
    bool relu;
} large_values;

static tl_tensor *scaled(tl_tape *tape, const tl_array *values, tl_tensor *factors) {
    return tl_mul(tape, tl_input(tape, values), factors);
}

static tl_tensor *large_block(tl_tape *tape, tl_tensor *const *in, const void *user) {
    const large_values *values = user;
    const tl_conv2d_config same = {.padding = {1, 1}};
    tl_tensor *x = scaled(tape, &values->x, in[0]);
    tl_tensor *weights[2];
    for (int i = 0; i < 2; i++) {
        weights[i] = scaled(tape, &values->weights[i], in[1 + i]);
    }
    tl_tensor *first = tl_conv2d(tape, x, weights[0], NULL, &same);
    tl_tensor *h = values->relu
                       ? tl_batch_norm_relu(tape, first, NULL, in[3], in[4], NULL, NULL, NULL)
                       : tl_batch_norm(tape, first, in[3], in[4], NULL, NULL, NULL);
    tl_tensor *second = tl_conv2d(tape, h, weights[1], NULL, &same);
    tl_tensor *y = values->relu
                       ? tl_batch_norm_relu(tape, second, x, in[5], in[6], NULL, NULL, NULL)
                       : tl_batch_norm(tape, second, in[5], in[6], NULL, NULL, NULL);
    tl_release(tape, h);
    return y;
}

START_TEST(with_a_large_batch) {
    enum { X_SIZE = BATCH * EXTENT * EXTENT * WIDTH, WEIGHTS = WIDTH * 9 * WIDTH };
    tl_real *x = random_values(X_SIZE, 1, -1, 1);
    tl_real *first = random_values(WEIGHTS, 2, -1, 1);
    tl_real *second = random_values(WEIGHTS, 3, -1, 1);
    const bool relu = _i == 1;
    const large_values values = {
        ARRAY(x, BATCH, EXTENT, EXTENT, WIDTH),
        {ARRAY(first, WIDTH, 3, 3, WIDTH), ARRAY(second, WIDTH, 3, 3, WIDTH)},
        relu};
    gradient_problem problem = {.name = "residual block of a large batch",
                                .forward = large_block,
                                .user = &values,
                                .input_count = FACTORS,
                                .seed = 5,
                                /* of so many values, some pass the kink of their ReLU */
                                .tolerance = relu ? 2e-2 : 0};
    static const char *const names[FACTORS] = {"x",      "conv1", "conv2", "gain1",
                                               "shift1", "gain2", "shift2"};
    for (int i = 0; i < FACTORS; i++) {
        const bool shift = i == 4 || i == 6;
        problem.inputs[i] = (gradient_input){.name = names[i],
                                             .rank = 1,
                                             .shape = {WIDTH},
                                             .low = shift ? -1 : 0.5,
                                             .high = shift ? 1 : 1.5};
    }
    check_gradients(&problem);
    free(x);
    free(first);
    free(second);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients of a residual block", &test_case);
    tcase_add_loop_test(test_case, with_softmax, 0, 2);
    tcase_add_loop_test(test_case, with_scaling, 0, 2);
    tcase_add_loop_test(test_case, with_a_large_batch, 0, 2);
    return run_suite(suite);
}
