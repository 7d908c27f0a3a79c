/* Gradients of efficient attention, on every path: values and output folded or not, one or several
 * pieces, whole vectors or not. */
#include "gradients/gradient_check.h"

#include <kernels/k_attention_plan.h>
#include <stdio.h>

typedef struct attention_case {
    int64_t batch, positions, channels, key_channels, value_channels, heads;
    tl_normalization normalization;
    double temperature;
    bool reprojection, residual;
    bool fold_values, fold_output; /* the path that is expected */
} attention_case;

#define SOFTMAX TL_NORMALIZATION_SOFTMAX
#define SCALING TL_NORMALIZATION_SCALING

static const attention_case cases[] = {
    {2, 20, 4, 2, 4, 1, SOFTMAX, 0, true, true, true, true},
    {2, 20, 4, 2, 4, 1, SCALING, 0, true, true, true, true},
    {1, 17, 5, 6, 9, 3, SOFTMAX, 0.5, true, true, true, true},
    {3, 13, 8, 4, 8, 2, SCALING, 0, true, false, true, true},
    {1, 6, 8, 4, 4, 1, SOFTMAX, 0, true, true, true, false},
    {1, 6, 8, 4, 4, 1, SCALING, 0, true, true, true, false},
    {1, 50, 4, 32, 3, 1, SOFTMAX, 2, true, true, false, true},
    {1, 50, 4, 32, 3, 1, SCALING, 0, true, true, false, true},
    {2, 7, 5, 4, 1, 1, SOFTMAX, 0, true, true, false, false},
    {2, 7, 5, 6, 2, 2, SCALING, 0, true, true, false, false},
    {2, 9, 6, 4, 6, 2, SOFTMAX, 0, false, true, true, false},
    {2, 9, 6, 4, 6, 2, SCALING, 0, false, true, true, false},
    {1, 9, 3, 8, 2, 2, SOFTMAX, 0, false, false, false, false},
    {2, 5, 16, 16, 8, 1, SOFTMAX, 0, false, false, false, false},
    {1, 400, 2, 2, 2, 1, SOFTMAX, 0, true, true, true, true},
    {2, 400, 1, 2, 3, 1, SCALING, 0, true, true, true, true},
    {1, 400, 2, 6, 1, 1, SOFTMAX, 0, true, true, false, false},
    {1, 1, 3, 2, 3, 1, SCALING, 0, true, true, false, false},
};

static tl_efficient_attention_config config_of(const attention_case *c) {
    tl_efficient_attention_config config = tl_efficient_attention_config_default();
    config.key_channels = c->key_channels;
    config.value_channels = c->value_channels;
    config.heads = c->heads;
    config.normalization = c->normalization;
    config.temperature = c->temperature;
    config.use_reprojection = c->reprojection;
    config.use_residual = c->residual;
    return config;
}

static tl_tensor *forward(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const attention_case *c = user;
    const tl_efficient_attention_config config = config_of(c);
    const tl_efficient_attention_weights weights = {
        .query_weight = inputs[1],
        .query_bias = inputs[2],
        .key_weight = inputs[3],
        .key_bias = inputs[4],
        .value_weight = inputs[5],
        .value_bias = inputs[6],
        .reprojection_weight = c->reprojection ? inputs[7] : NULL,
        .reprojection_bias = c->reprojection ? inputs[8] : NULL,
    };
    return tl_efficient_attention(tape, inputs[0], &weights, &config);
}

START_TEST(gradients) {
    const attention_case *c = &cases[_i];
    const tl_attention_shape shape = {.batch = c->batch,
                                      .positions = c->positions,
                                      .channels = c->channels,
                                      .key_channels = c->key_channels,
                                      .value_channels = c->value_channels,
                                      .heads = c->heads,
                                      .scaling = c->normalization == SCALING,
                                      .reprojection = c->reprojection};
    ck_assert_int_eq(tl_attention_folds_values(&shape), c->fold_values);
    ck_assert_int_eq(tl_attention_folds_output(&shape), c->fold_output);
    const int64_t C = c->channels, K = c->key_channels, V = c->value_channels;
    char name[64];
    snprintf(name, sizeof name, "efficient_attention case %d", _i);
    const gradient_problem problem = {
        .name = name,
        .forward = forward,
        .user = c,
        .input_count = c->reprojection ? 9 : 7,
        .inputs = {{.name = "x", .rank = 3, .shape = {c->batch, c->positions, C}},
                   {.name = "query weight", .rank = 2, .shape = {K, C}},
                   {.name = "query bias", .rank = 1, .shape = {K}},
                   {.name = "key weight", .rank = 2, .shape = {K, C}},
                   {.name = "key bias",
                    .rank = 1,
                    .shape = {K},
                    .zero_gradient = c->normalization == SOFTMAX},
                   {.name = "value weight", .rank = 2, .shape = {V, C}},
                   {.name = "value bias", .rank = 1, .shape = {V}},
                   {.name = "reprojection weight", .rank = 2, .shape = {C, V}},
                   {.name = "reprojection bias", .rank = 1, .shape = {C}}},
        .seed = 100 + (uint64_t)_i};
    check_gradients(&problem);
}
END_TEST

/* One query channel a head: its softmax is 1 whatever the query, and no gradient reaches it. */
static const attention_case constant_cases[] = {
    {2, 11, 4, 4, 8, 4, SOFTMAX, 0, true, true, true, true},
    {1, 13, 3, 1, 3, 1, SOFTMAX, 0, true, true, true, true},
    {2, 11, 5, 1, 2, 1, SOFTMAX, 0.5, true, false, true, true},
    {2, 11, 6, 3, 6, 3, SOFTMAX, 0, false, true, true, false},
    {1, 400, 3, 2, 4, 2, SOFTMAX, 0, false, false, true, false},
    {2, 6, 2, 9, 9, 9, SOFTMAX, 0, true, true, false, true},
};

START_TEST(one_key_channel_a_head) {
    const attention_case *c = &constant_cases[_i];
    const int64_t C = c->channels, K = c->key_channels, V = c->value_channels;
    const gradient_problem problem = {
        .name = "efficient_attention heads = key_channels",
        .forward = forward,
        .user = c,
        .input_count = c->reprojection ? 9 : 7,
        .inputs = {{.name = "x", .rank = 4, .shape = {c->batch, c->positions, 1, C}},
                   {.name = "query weight", .rank = 2, .shape = {K, C}, .zero_gradient = true},
                   {.name = "query bias", .rank = 1, .shape = {K}, .zero_gradient = true},
                   {.name = "key weight", .rank = 2, .shape = {K, C}},
                   {.name = "key bias", .rank = 1, .shape = {K}, .zero_gradient = true},
                   {.name = "value weight", .rank = 2, .shape = {V, C}},
                   {.name = "value bias", .rank = 1, .shape = {V}},
                   {.name = "reprojection weight", .rank = 2, .shape = {C, V}},
                   {.name = "reprojection bias", .rank = 1, .shape = {C}}},
        .seed = 7 + (uint64_t)_i};
    check_gradients(&problem);
}
END_TEST

int main(void) {
    TCase *tests;
    Suite *suite = suite_with_case("gradients of efficient attention", &tests);
    tcase_add_loop_test(tests, gradients, 0, sizeof cases / sizeof cases[0]);
    tcase_add_loop_test(tests, one_key_channel_a_head, 0,
                        sizeof constant_cases / sizeof constant_cases[0]);
    return run_suite(suite);
}
