/* Gradients of pooling, upsampling and dropout. */
#include "gradients/gradient_check.h"

static tl_tensor *max_pool(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_max_pool(tape, inputs[0], user);
}

static tl_tensor *avg_pool(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_avg_pool(tape, inputs[0], user);
}

static tl_tensor *max_pool2d(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_max_pool2d(tape, inputs[0], user);
}

static tl_tensor *avg_pool2d(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_avg_pool2d(tape, inputs[0], user);
}

/* x is read twice: the second gradient is added to the first. */
static tl_tensor *avg_pool2d_twice(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    tl_tensor *y = tl_max_pool2d(tape, inputs[0], user);
    tl_tensor *z = tl_avg_pool2d(tape, inputs[0], user);
    return tl_batch_norm_relu(tape, y, z, NULL, NULL, NULL, NULL, NULL);
}

static tl_tensor *global_avg_pool(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_global_avg_pool(tape, inputs[0]);
}

static tl_tensor *nearest(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_upsample(tape, inputs[0], *(const int64_t *)user, TL_UPSAMPLE_NEAREST);
}

static tl_tensor *bilinear(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_upsample(tape, inputs[0], *(const int64_t *)user, TL_UPSAMPLE_BILINEAR);
}

static tl_tensor *dropout(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_dropout(tape, inputs[0], *(const double *)user);
}

#define IMAGE(n, h, w, c)                                                                          \
    {                                                                                              \
        { .name = "x", .rank = 4, .shape = {n, h, w, c}, .distinct = true }                        \
    }
#define POOL(...)                                                                                  \
    &(const tl_pool_config) {                                                                      \
        __VA_ARGS__                                                                                \
    }

static const gradient_problem problems[] = {
    {.name = "max_pool2d",
     .forward = max_pool2d,
     .user = POOL(.kernel_size = {2, 2}),
     .input_count = 1,
     .inputs = IMAGE(2, 5, 4, 3)},
    {.name = "max_pool2d, overlapping and padded",
     .forward = max_pool2d,
     .user = POOL(.kernel_size = {3, 3}, .stride = {2, 1}, .padding = {1, 2}),
     .input_count = 1,
     .inputs = IMAGE(1, 5, 6, 3)},
    {.name = "max_pool2d, windows apart",
     .forward = max_pool2d,
     .user = POOL(.kernel_size = {1, 2}, .stride = {3, 4}),
     .input_count = 1,
     .inputs = IMAGE(2, 7, 6, 1)},
    {.name = "max_pool of sequences",
     .forward = max_pool,
     .user = POOL(.kernel_size = {3}, .stride = {2}, .padding = {1}),
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 9, 4}, .distinct = true}}},
    {.name = "max_pool of video",
     .forward = max_pool,
     .user = POOL(.kernel_size = {1, 2, 2}),
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 5, .shape = {1, 3, 4, 4, 2}, .distinct = true}}},
    {.name = "avg_pool2d",
     .forward = avg_pool2d,
     .user = POOL(.kernel_size = {2, 3}, .stride = {2, 1}, .padding = {1, 1}),
     .input_count = 1,
     .inputs = IMAGE(2, 4, 5, 2)},
    {.name = "avg_pool2d, padding excluded",
     .forward = avg_pool2d,
     .user =
         POOL(.kernel_size = {3, 3}, .stride = {1, 2}, .padding = {2, 1}, .exclude_padding = true),
     .input_count = 1,
     .inputs = IMAGE(1, 4, 5, 3)},
    {.name = "avg_pool of sequences",
     .forward = avg_pool,
     .user = POOL(.kernel_size = {4}, .stride = {3}),
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 3, .shape = {2, 9, 5}}}},
    {.name = "two poolings of one tensor",
     .forward = avg_pool2d_twice,
     .user = POOL(.kernel_size = {2, 2}),
     .input_count = 1,
     .inputs = IMAGE(2, 4, 4, 3)},
    {.name = "global_avg_pool",
     .forward = global_avg_pool,
     .input_count = 1,
     .inputs = IMAGE(2, 3, 5, 3)},
    {.name = "global_avg_pool of one position",
     .forward = global_avg_pool,
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 2, .shape = {2, 5}}}},
    {.name = "upsample nearest",
     .forward = nearest,
     .user = &(const int64_t){2},
     .input_count = 1,
     .inputs = IMAGE(2, 3, 2, 3)},
    {.name = "upsample bilinear",
     .forward = bilinear,
     .user = &(const int64_t){2},
     .input_count = 1,
     .inputs = IMAGE(2, 3, 4, 3)},
    {.name = "upsample bilinear by 3",
     .forward = bilinear,
     .user = &(const int64_t){3},
     .input_count = 1,
     .inputs = IMAGE(1, 1, 4, 5)},
    {.name = "dropout",
     .forward = dropout,
     .user = &(const double){0.4},
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 2, .shape = {5, 17}}}},
    {.name = "dropout in evaluation mode",
     .forward = dropout,
     .user = &(const double){0.4},
     .evaluation = true,
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 2, .shape = {5, 7}}}},
};
enum { PROBLEMS = sizeof problems / sizeof problems[0] };

START_TEST(gradients_are_right) {
    check_gradients(&problems[_i]);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients of pooling", &test_case);
    tcase_add_loop_test(test_case, gradients_are_right, 0, PROBLEMS);
    return run_suite(suite);
}
