/* Gradients of the losses. */
#include "gradients/gradient_check.h"

typedef struct classification {
    tl_cross_entropy_config config;
} classification;

static tl_tensor *cross_entropy(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const classification *c = user;
    const int32_t labels[6] = {3, 0, 2, 1, 2, 0};
    return tl_cross_entropy(tape, inputs[0], labels, &c->config);
}

/* A second loss on the same logits. */
static tl_tensor *cross_entropy_twice(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_mul(tape, cross_entropy(tape, inputs, user), cross_entropy(tape, inputs, user));
}

static tl_tensor *mse(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_mse_loss(tape, inputs[0], inputs[1]);
}

static tl_tensor *smooth_l1(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_smooth_l1_loss(tape, inputs[0], inputs[1], *(const double *)user);
}

static tl_tensor *bce(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_bce_with_logits(tape, inputs[0], inputs[1]);
}

static tl_tensor *bce_twice(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_mul(tape, tl_bce_with_logits(tape, inputs[0], inputs[1]),
                  tl_mse_loss(tape, inputs[1], inputs[0]));
}

static const classification plain = {0};
static const classification smoothed = {.config = {.label_smoothing = 0.1}};
static const classification ignoring = {
    .config = {.label_smoothing = 0.2, .ignores_label = true, .ignored_label = 2}};
static const double small = 1e-3;
static const double large = 10.0;

static const gradient_problem problems[] = {
    {.name = "cross_entropy",
     .forward = cross_entropy,
     .user = &plain,
     .input_count = 1,
     .inputs = {{.name = "logits", .rank = 2, .shape = {6, 5}, .low = -2, .high = 2}}},
    {.name = "cross_entropy with smoothing",
     .forward = cross_entropy_twice,
     .user = &smoothed,
     .input_count = 1,
     .inputs = {{.name = "logits", .rank = 4, .shape = {2, 3, 1, 11}, .low = -2, .high = 2}}},
    {.name = "cross_entropy with ignored rows",
     .forward = cross_entropy_twice,
     .user = &ignoring,
     .input_count = 1,
     .inputs = {{.name = "logits", .rank = 3, .shape = {2, 3, 4}, .low = -2, .high = 2}}},
    {.name = "mse_loss",
     .forward = mse,
     .input_count = 2,
     .inputs = {{.name = "x", .rank = 3, .shape = {3, 1, 7}},
                {.name = "target", .rank = 3, .shape = {3, 1, 7}}}},
    {.name = "mse_loss of one value",
     .forward = mse,
     .input_count = 2,
     .inputs = {{.name = "x", .rank = 0}, {.name = "target", .rank = 0}}},
    {.name = "smooth_l1_loss, linear part",
     .forward = smooth_l1,
     .user = &small,
     .input_count = 2,
     .inputs = {{.name = "x", .rank = 1, .shape = {19}, .low = 0, .high = 1},
                {.name = "target", .rank = 1, .shape = {19}, .low = 1.1, .high = 2}}},
    {.name = "smooth_l1_loss, quadratic part",
     .forward = smooth_l1,
     .user = &large,
     .input_count = 2,
     .inputs = {{.name = "x", .rank = 1, .shape = {19}},
                {.name = "target", .rank = 1, .shape = {19}}}},
    {.name = "bce_with_logits",
     .forward = bce,
     .input_count = 2,
     .inputs = {{.name = "x", .rank = 2, .shape = {4, 5}, .low = -3, .high = 3},
                {.name = "target", .rank = 2, .shape = {4, 5}, .low = 0, .high = 1}}},
    {.name = "bce_with_logits and mse_loss",
     .forward = bce_twice,
     .input_count = 2,
     .inputs = {{.name = "x", .rank = 2, .shape = {4, 5}, .low = -3, .high = 3},
                {.name = "target", .rank = 2, .shape = {4, 5}, .low = 0, .high = 1}}},
};
enum { PROBLEMS = sizeof problems / sizeof problems[0] };

START_TEST(gradients) {
    check_gradients(&problems[_i]);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("loss gradients", &test_case);
    tcase_add_loop_test(test_case, gradients, 0, PROBLEMS);
    return run_suite(suite);
}
