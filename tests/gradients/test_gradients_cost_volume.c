/* Gradients of the cost volume, and of the disparities that a stereo network makes of one. */
#include "gradients/gradient_check.h"

typedef struct volume_options {
    int64_t disparities;
    int64_t groups;
} volume_options;

static tl_tensor *volume(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const volume_options *o = user;
    return tl_cost_volume(tape, inputs[0], inputs[1], o->disparities, o->groups);
}

/* One tensor as both operands: the second gradient is added to the first. */
static tl_tensor *with_itself(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const volume_options *o = user;
    return tl_cost_volume(tape, inputs[0], inputs[0], o->disparities, o->groups);
}

/* Correlation, bilinear enlargement, softmax over the levels, their mean disparity. */
static tl_tensor *soft_argmin(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    static tl_real levels[3] = {0, 4, 8};
    const volume_options *o = user;
    tl_tensor *y = tl_cost_volume(tape, inputs[0], inputs[1], o->disparities, o->groups);
    y = tl_reshape(tape, y, 4, (int64_t[]){1, 2, 5, 3});
    y = tl_softmax(tape, tl_upsample(tape, y, 2, TL_UPSAMPLE_BILINEAR), 3);
    return tl_linear(tape, y, tl_input(tape, ARRAY_POINTER(levels, 1, 3)), NULL);
}

#define OPTIONS(...)                                                                               \
    &(const volume_options) {                                                                      \
        __VA_ARGS__                                                                                \
    }
#define PAIR(n, h, w, c)                                                                           \
    {                                                                                              \
        {.name = "left", .rank = 4, .shape = {n, h, w, c}}, {                                      \
            .name = "right", .rank = 4, .shape = { n, h, w, c }                                    \
        }                                                                                          \
    }

static const gradient_problem problems[] = {
    {.name = "cost_volume, one group",
     .forward = volume,
     .user = OPTIONS(.disparities = 3, .groups = 1),
     .input_count = 2,
     .inputs = PAIR(2, 2, 5, 4)},
    {.name = "cost_volume, as many groups as channels",
     .forward = volume,
     .user = OPTIONS(.disparities = 4, .groups = 6),
     .input_count = 2,
     .inputs = PAIR(1, 3, 4, 6)},
    {.name = "cost_volume of a single column",
     .forward = volume,
     .user = OPTIONS(.disparities = 1, .groups = 2),
     .input_count = 2,
     .inputs = PAIR(1, 3, 1, 4)},
    {.name = "cost_volume of a tensor with itself",
     .forward = with_itself,
     .user = OPTIONS(.disparities = 3, .groups = 2),
     .input_count = 1,
     .inputs = {{.name = "x", .rank = 4, .shape = {1, 2, 6, 4}}}},
    {.name = "soft argmin of a cost volume",
     .forward = soft_argmin,
     .user = OPTIONS(.disparities = 3, .groups = 1),
     .input_count = 2,
     .inputs = PAIR(1, 2, 5, 4)},
};
enum { PROBLEMS = sizeof problems / sizeof problems[0] };

START_TEST(gradients_are_right) {
    check_gradients(&problems[_i]);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients of the cost volume", &test_case);
    tcase_add_loop_test(test_case, gradients_are_right, 0, PROBLEMS);
    return run_suite(suite);
}
