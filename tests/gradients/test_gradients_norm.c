/* Gradients of batch, layer and group norm. */
#include "gradients/gradient_check.h"

typedef struct norm_arguments {
    int64_t groups;
    int dimensions;
    double epsilon;
} norm_arguments;

static tl_tensor *batch_norm(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_batch_norm(tape, inputs[0], inputs[1], inputs[2], NULL, NULL, NULL);
}

static tl_tensor *batch_norm_small(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_batch_norm(tape, inputs[0], inputs[1], inputs[2], NULL, NULL,
                         &(tl_batch_norm_config){.momentum = 0.1, .epsilon = 1e-3});
}

static tl_tensor *batch_norm_plain(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_batch_norm(tape, inputs[0], NULL, NULL, NULL, NULL, NULL);
}

static tl_tensor *batch_norm_relu(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_batch_norm_relu(tape, inputs[0], NULL, inputs[1], inputs[2], NULL, NULL, NULL);
}

static tl_tensor *batch_norm_relu_residual(tl_tape *tape, tl_tensor *const *inputs,
                                           const void *user) {
    (void)user;
    return tl_batch_norm_relu(tape, inputs[0], inputs[3], inputs[1], inputs[2], NULL, NULL, NULL);
}

static tl_tensor *batch_norm_relu_self(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_batch_norm_relu(tape, inputs[0], inputs[0], inputs[1], inputs[2], NULL, NULL, NULL);
}

/* x is read by two normalisations: their gradients meet. */
static tl_tensor *batch_norm_twice(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    tl_tensor *residual = tl_layer_norm(tape, inputs[0], 1, NULL, NULL, 1e-5);
    return tl_batch_norm_relu(tape, inputs[0], residual, inputs[1], inputs[2], NULL, NULL, NULL);
}

/* The running statistics of evaluation mode: mean 0.1 c, variance 0.5 + c. They live with a context
 * of their own, as long as the tests. */
static tl_context *running_context;
static tl_tensor *running[2];

static void create_running(void) {
    const int64_t channels = 5;
    running_context = context_with(1, NULL);
    for (int i = 0; i < 2; i++) {
        running[i] = tl_tensor_create(running_context, 1, &channels, false, NULL);
        ck_assert_ptr_nonnull(running[i]);
        for (int64_t c = 0; c < channels; c++) {
            tl_tensor_data(running[i])[c] = (tl_real)(i == 0 ? 0.1 * (double)c : 0.5 + (double)c);
        }
    }
}

static void free_running(void) {
    tl_tensor_free(running[0]);
    tl_tensor_free(running[1]);
    tl_context_free(running_context);
}

static tl_tensor *batch_norm_evaluation(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_batch_norm(tape, inputs[0], inputs[1], inputs[2], running[0], running[1], NULL);
}

static tl_tensor *batch_norm_relu_evaluation(tl_tape *tape, tl_tensor *const *inputs,
                                             const void *user) {
    (void)user;
    return tl_batch_norm_relu(tape, inputs[0], inputs[3], inputs[1], inputs[2], running[0],
                              running[1], NULL);
}

static tl_tensor *group_norm(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const norm_arguments *a = user;
    return tl_group_norm(tape, inputs[0], a->groups, inputs[1], inputs[2], a->epsilon);
}

static tl_tensor *group_norm_plain(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const norm_arguments *a = user;
    return tl_group_norm(tape, inputs[0], a->groups, NULL, NULL, a->epsilon);
}

static tl_tensor *layer_norm(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const norm_arguments *a = user;
    return tl_layer_norm(tape, inputs[0], a->dimensions, inputs[1], inputs[2], a->epsilon);
}

static tl_tensor *layer_norm_plain(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const norm_arguments *a = user;
    return tl_layer_norm(tape, inputs[0], a->dimensions, NULL, NULL, a->epsilon);
}

#define CHANNELS(c)                                                                                \
    {.name = "weight", .rank = 1, .shape = {c}, .low = 0.5, .high = 1.5}, {                        \
        .name = "bias", .rank = 1, .shape = { c }                                                  \
    }

static const gradient_problem problems[] = {
    {.name = "batch_norm",
     .forward = batch_norm,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 4, .shape = {2, 3, 5, 4}}, CHANNELS(4)}},
    {.name = "batch_norm of rows, one channel",
     .forward = batch_norm,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 2, .shape = {9, 1}}, CHANNELS(1)}},
    {.name = "batch_norm of video",
     .forward = batch_norm,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 5, .shape = {2, 2, 3, 1, 7}}, CHANNELS(7)}},
    {.name = "batch_norm with an offset",
     .forward = batch_norm,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 3, .shape = {3, 7, 3}, .low = 99, .high = 101}, CHANNELS(3)},
     .tolerance = 2e-5}, /* steps are relative to x: 1e-3 here */
    {.name = "batch_norm of small values",
     .forward = batch_norm_small,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 3, .shape = {3, 7, 3}, .low = -0.02, .high = 0.02},
                CHANNELS(3)}},
    {.name = "batch_norm without weight",
     .forward = batch_norm_plain,
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 5, 6}}}},
    {.name = "batch_norm_relu",
     .forward = batch_norm_relu,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 4, .shape = {2, 3, 3, 5}}, CHANNELS(5)}},
    {.name = "batch_norm_relu with a residual",
     .forward = batch_norm_relu_residual,
     .input_count = 4,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 9, 5}},
                CHANNELS(5),
                {.name = "residual", .rank = 3, .shape = {2, 9, 5}}}},
    {.name = "batch_norm_relu with itself",
     .forward = batch_norm_relu_self,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 9, 5}}, CHANNELS(5)}},
    {.name = "batch_norm_relu of a tensor used twice",
     .forward = batch_norm_twice,
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 9, 5}}, CHANNELS(5)}},
    {.name = "batch_norm in evaluation mode",
     .forward = batch_norm_evaluation,
     .input_count = 3,
     .evaluation = true,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 6, 5}}, CHANNELS(5)}},
    {.name = "batch_norm_relu in evaluation mode",
     .forward = batch_norm_relu_evaluation,
     .input_count = 4,
     .evaluation = true,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 6, 5}},
                CHANNELS(5),
                {.name = "residual", .rank = 3, .shape = {2, 6, 5}}}},
    {.name = "group_norm",
     .forward = group_norm,
     .user = &(const norm_arguments){.groups = 3, .epsilon = 1e-5},
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 4, .shape = {2, 3, 5, 6}}, CHANNELS(6)}},
    {.name = "group_norm, one group",
     .forward = group_norm,
     .user = &(const norm_arguments){.groups = 1, .epsilon = 1e-3},
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 2, .shape = {4, 7}}, CHANNELS(7)}},
    {.name = "group_norm, a group a channel",
     .forward = group_norm_plain,
     .user = &(const norm_arguments){.groups = 5, .epsilon = 1e-5},
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 3, .shape = {3, 6, 5}}}},
    {.name = "layer_norm",
     .forward = layer_norm,
     .user = &(const norm_arguments){.dimensions = 1, .epsilon = 1e-5},
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 3, 13}}, CHANNELS(13)}},
    {.name = "layer_norm over two dimensions",
     .forward = layer_norm,
     .user = &(const norm_arguments){.dimensions = 2, .epsilon = 1e-5},
     .input_count = 3,
     .inputs = {{.name = "x", .rank = 3, .shape = {3, 4, 3}},
                {.name = "weight", .rank = 2, .shape = {4, 3}},
                {.name = "bias", .rank = 2, .shape = {4, 3}}}},
    {.name = "layer_norm of all without weight",
     .forward = layer_norm_plain,
     .user = &(const norm_arguments){.dimensions = 2, .epsilon = 1e-5},
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 2, .shape = {3, 5}}}},
};
enum { PROBLEMS = sizeof problems / sizeof problems[0] };

START_TEST(gradients_are_right) {
    check_gradients(&problems[_i]);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients of normalisation", &test_case);
    tcase_add_unchecked_fixture(test_case, create_running, free_running);
    tcase_add_loop_test(test_case, gradients_are_right, 0, PROBLEMS);
    return run_suite(suite);
}
