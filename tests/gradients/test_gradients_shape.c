/* Gradients of reshape, permute, concat, slice, softmax, log_softmax and embedding. */
#include "gradients/gradient_check.h"

static tl_tensor *reshape(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    tl_tensor *y = tl_reshape(tape, inputs[0], 2, (int64_t[]){4, -1});
    return tl_mul(tape, y, tl_reshape(tape, inputs[0], 2, (int64_t[]){4, 6}));
}

static tl_tensor *permute(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_permute(tape, inputs[0], user);
}

static tl_tensor *permute_twice(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_mul(tape, tl_permute(tape, inputs[0], user), tl_permute(tape, inputs[0], user));
}

static tl_tensor *concat(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_concat(tape, 3, (tl_tensor *[]){inputs[0], inputs[1], inputs[0]}, *(const int *)user);
}

static tl_tensor *slice(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    return tl_slice(tape, inputs[0], (int64_t[]){1, 0, 2}, (int64_t[]){3, 5, 7},
                    (int64_t[]){1, 3, 2});
}

static tl_tensor *slices(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    tl_tensor *y = slice(tape, inputs, user);
    tl_tensor *z = tl_slice(tape, inputs[0], (int64_t[]){0, 0, 0}, (int64_t[]){2, 2, 3}, NULL);
    return tl_mul(tape, y, z);
}

static tl_tensor *softmax(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_softmax(tape, inputs[0], *(const int *)user);
}

static tl_tensor *log_softmax(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_log_softmax(tape, inputs[0], *(const int *)user);
}

static tl_tensor *softmax_twice(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_mul(tape, softmax(tape, inputs, user), log_softmax(tape, inputs, user));
}

static tl_tensor *embedding(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    (void)user;
    const int32_t indices[6] = {4, 0, 4, 2, 1, 4};
    tl_tensor *y = tl_embedding(tape, inputs[0], 2, (int64_t[]){2, 3}, indices);
    return tl_mul(tape, y, tl_embedding(tape, inputs[0], 2, (int64_t[]){2, 3}, indices));
}

static const int order_2[] = {1, 0};
static const int order_4[] = {3, 1, 0, 2};
static const int order_5[] = {0, 4, 1, 2, 3};
static const int dims[] = {0, 1, 2};

#define X(...)                                                                                     \
    { .name = "x", __VA_ARGS__ }

static const gradient_problem problems[] = {
    {.name = "reshape",
     .forward = reshape,
     .input_count = 1,
     .inputs = {X(.rank = 3, .shape = {2, 3, 4})}},
    {.name = "permute 2-d",
     .forward = permute,
     .user = order_2,
     .input_count = 1,
     .inputs = {X(.rank = 2, .shape = {19, 33})}},
    {.name = "permute 4-d",
     .forward = permute_twice,
     .user = order_4,
     .input_count = 1,
     .inputs = {X(.rank = 4, .shape = {2, 3, 1, 5})}},
    {.name = "permute 5-d",
     .forward = permute_twice,
     .user = order_5,
     .input_count = 1,
     .inputs = {X(.rank = 5, .shape = {2, 3, 2, 2, 3})}},
    {.name = "concat 0",
     .forward = concat,
     .user = &dims[0],
     .input_count = 2,
     .inputs = {X(.rank = 2, .shape = {2, 3}), {.name = "x1", .rank = 2, .shape = {4, 3}}}},
    {.name = "concat 1",
     .forward = concat,
     .user = &dims[1],
     .input_count = 2,
     .inputs = {X(.rank = 3, .shape = {2, 3, 5}), {.name = "x1", .rank = 3, .shape = {2, 1, 5}}}},
    {.name = "concat 2",
     .forward = concat,
     .user = &dims[2],
     .input_count = 2,
     .inputs = {X(.rank = 3, .shape = {2, 3, 1}), {.name = "x1", .rank = 3, .shape = {2, 3, 9}}}},
    {.name = "slice",
     .forward = slice,
     .input_count = 1,
     .inputs = {X(.rank = 3, .shape = {3, 5, 7})}},
    {.name = "slices that overlap",
     .forward = slices,
     .input_count = 1,
     .inputs = {X(.rank = 3, .shape = {3, 5, 7})}},
    {.name = "softmax 0",
     .forward = softmax,
     .user = &dims[0],
     .input_count = 1,
     .inputs = {X(.rank = 1, .shape = {33}, .low = -2, .high = 2)}},
    {.name = "softmax 1",
     .forward = softmax_twice,
     .user = &dims[1],
     .input_count = 1,
     .inputs = {X(.rank = 3, .shape = {2, 5, 9}, .low = -2, .high = 2)}},
    {.name = "softmax 2",
     .forward = softmax_twice,
     .user = &dims[2],
     .input_count = 1,
     .inputs = {X(.rank = 3, .shape = {2, 3, 11}, .low = -2, .high = 2)}},
    {.name = "log_softmax 0",
     .forward = log_softmax,
     .user = &dims[0],
     .input_count = 1,
     .inputs = {X(.rank = 3, .shape = {7, 3, 4}, .low = -2, .high = 2)}},
    {.name = "log_softmax 2",
     .forward = log_softmax,
     .user = &dims[2],
     .input_count = 1,
     .inputs = {X(.rank = 3, .shape = {2, 3, 13}, .low = -2, .high = 2)}},
    {.name = "softmax of one value",
     .forward = softmax,
     .user = &dims[1],
     .input_count = 1,
     .inputs = {X(.rank = 2, .shape = {3, 1}, .zero_gradient = true)}},
    {.name = "embedding",
     .forward = embedding,
     .input_count = 1,
     .inputs = {{.name = "weight", .rank = 2, .shape = {6, 5}}}},
};
enum { PROBLEMS = sizeof problems / sizeof problems[0] };

START_TEST(gradients) {
    check_gradients(&problems[_i]);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("shape gradients", &test_case);
    tcase_add_loop_test(test_case, gradients, 0, PROBLEMS);
    return run_suite(suite);
}
