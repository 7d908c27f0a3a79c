/* Gradients of causal linear attention. */
#include "gradients/gradient_check.h"

static tl_tensor *forward(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_causal_linear_attention(tape, inputs[0], inputs[1], inputs[2],
                                      *(const int64_t *)user);
}

static tl_tensor *forward_of_one(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_causal_linear_attention(tape, inputs[0], inputs[0], inputs[0],
                                      *(const int64_t *)user);
}

static const int64_t one = 1, three = 3;

/* elu + 1 has a continuous derivative, but not a second one, at 0. */
#define KINK .keep_away_from = 0, .keep_away = 1e-3

static const gradient_problem problems[] = {
    {.name = "causal_linear_attention",
     .forward = forward,
     .user = &three,
     .input_count = 3,
     .inputs = {{.name = "q", .rank = 3, .shape = {2, 9, 6}, KINK},
                {.name = "k", .rank = 3, .shape = {2, 9, 6}, KINK},
                {.name = "v", .rank = 3, .shape = {2, 9, 12}}}},
    {.name = "causal_linear_attention in chunks",
     .forward = forward,
     .user = &one,
     .input_count = 3,
     .inputs = {{.name = "q", .rank = 3, .shape = {1, 140, 3}, KINK},
                {.name = "k", .rank = 3, .shape = {1, 140, 3}, KINK},
                {.name = "v", .rank = 3, .shape = {1, 140, 2}}}},
    {.name = "causal_linear_attention of one tensor",
     .forward = forward_of_one,
     .user = &three,
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 3, .shape = {1, 70, 9}, KINK}}},
};

START_TEST(gradients) {
    check_gradients(&problems[_i]);
}
END_TEST

int main(void) {
    TCase *tests;
    Suite *suite = suite_with_case("gradients of linear attention", &tests);
    tcase_add_loop_test(tests, gradients, 0, sizeof problems / sizeof problems[0]);
    return run_suite(suite);
}
