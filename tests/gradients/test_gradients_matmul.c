/* Gradients of matmul and linear. */
#include "gradients/gradient_check.h"

static tl_tensor *matmul(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_matmul(tape, inputs[0], inputs[1]);
}

static tl_tensor *matmul_self(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_matmul(tape, inputs[0], inputs[0]);
}

static tl_tensor *linear(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_linear(tape, inputs[0], inputs[1], inputs[2]);
}

static tl_tensor *linear_without_bias(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_linear(tape, inputs[0], inputs[1], NULL);
}

static const gradient_problem problems[] = {
    {.name = "matmul",
     .forward = matmul,
     .input_count = 2,
     .inputs = {{.name = "a", .rank = 2, .shape = {7, 5}},
                {.name = "b", .rank = 2, .shape = {5, 9}}}},
    {.name = "matmul 1x1",
     .forward = matmul,
     .input_count = 2,
     .inputs = {{.name = "a", .rank = 2, .shape = {1, 1}},
                {.name = "b", .rank = 2, .shape = {1, 1}}}},
    {.name = "matmul batched",
     .forward = matmul,
     .input_count = 2,
     .inputs = {{.name = "a", .rank = 4, .shape = {2, 3, 4, 1}},
                {.name = "b", .rank = 4, .shape = {2, 3, 1, 6}}}},
    {.name = "matmul long",
     .forward = matmul,
     .input_count = 2,
     .inputs = {{.name = "a", .rank = 3, .shape = {2, 2, 33}},
                {.name = "b", .rank = 3, .shape = {2, 33, 3}}}},
    {.name = "matmul of one tensor twice",
     .forward = matmul_self,
     .input_count = 1,
     .inputs = {{.name = "a", .rank = 2, .shape = {6, 6}}}},
    {.name = "linear",
     .forward = linear,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 2, .shape = {5, 7}},
                {.name = "weight", .rank = 2, .shape = {3, 7}},
                {.name = "bias", .rank = 1, .shape = {3}}}},
    {.name = "linear of images",
     .forward = linear,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 4, .shape = {2, 3, 1, 4}},
                {.name = "weight", .rank = 2, .shape = {9, 4}},
                {.name = "bias", .rank = 1, .shape = {9}}}},
    {.name = "linear without bias",
     .forward = linear_without_bias,
     .input_count = 2,
     .inputs = {{.name = "x", .rank = 1, .shape = {13}},
                {.name = "weight", .rank = 2, .shape = {1, 13}}}},
};

START_TEST(gradients) {
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++) {
        check_gradients(&problems[i]);
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("matmul gradients", &test_case);
    tcase_add_test(test_case, gradients);
    return run_suite(suite);
}
