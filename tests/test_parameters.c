/* The registry of parameters: names, groups, lookup, gradients, errors. */
#include "support/failing_allocator.h"

#include <stdio.h>
#include <string.h>

static tl_tensor *add(tl_parameters *parameters, const char *prefix, const char *name,
                      tl_error *error) {
    return tl_parameters_add(parameters, prefix, name, TL_GROUP_WEIGHT, "out in", 2,
                             (int64_t[]){2, 3}, error);
}

START_TEST(names_and_groups) {
    tl_context *context = context_with(1, NULL);
    tl_error error;
    tl_parameters *parameters = tl_parameters_create(context, &error);
    ck_assert_ptr_eq(tl_parameters_context(parameters), context);
    tl_tensor *weight = add(parameters, "stages.0", "conv.weight", &error);
    tl_tensor *bias = tl_parameters_add(parameters, "", "bias", TL_GROUP_NO_DECAY, "out", 1,
                                        (int64_t[]){5}, &error);
    tl_tensor *mean = tl_parameters_add(parameters, NULL, "running_mean", TL_GROUP_BUFFER,
                                        "channels", 1, (int64_t[]){7}, &error);
    ck_assert(weight != NULL && bias != NULL && mean != NULL);
    ck_assert_int_eq(tl_parameters_count(parameters), 3);
    const tl_parameter first = tl_parameters_at(parameters, 0);
    ck_assert_str_eq(first.name, "stages.0.conv.weight");
    ck_assert_str_eq(first.axes, "out in");
    ck_assert_int_eq(first.group, TL_GROUP_WEIGHT);
    ck_assert_ptr_eq(first.tensor, weight);
    ck_assert_str_eq(tl_parameters_at(parameters, 1).name, "bias");
    ck_assert_int_eq(tl_parameters_at(parameters, 2).group, TL_GROUP_BUFFER);
    ck_assert(tl_tensor_requires_grad(weight) && tl_tensor_requires_grad(bias));
    ck_assert(!tl_tensor_requires_grad(mean));
    ck_assert_ptr_eq(tl_parameters_find(parameters, "bias"), bias);
    ck_assert_ptr_null(tl_parameters_find(parameters, "conv.weight"));
    ck_assert_int_eq(tl_parameters_trainable_size(parameters), 6 + 5);
    ck_assert(tl_tensor_data(weight)[5] == 0);
    tl_parameters_free(parameters);
    tl_parameters_free(NULL);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}
END_TEST

START_TEST(bad_names) {
    tl_context *context = context_with(1, NULL);
    tl_error error;
    tl_parameters *parameters = tl_parameters_create(context, &error);
    ck_assert_ptr_nonnull(add(parameters, "a", "b", &error));
    ck_assert_ptr_null(add(parameters, NULL, "a.b", &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "parameters: the name 'a.b' is taken");
    ck_assert_ptr_null(add(parameters, "a", "", &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "a name has 1 to 127 characters");
    ck_assert_ptr_null(add(parameters, "a", "b/c", &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "must not have a slash, found 'a.b/c'");
    char name[TL_NAME_SIZE + 1];
    memset(name, 'n', TL_NAME_SIZE);
    name[TL_NAME_SIZE] = '\0';
    ck_assert_ptr_null(add(parameters, NULL, name, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "a name has 1 to 127 characters");
    name[TL_NAME_SIZE - 1] = '\0';
    ck_assert_ptr_nonnull(add(parameters, NULL, name, &error));
    ck_assert_int_eq(error.status, TL_OK);
    ck_assert_ptr_null(tl_parameters_add(parameters, NULL, "empty", TL_GROUP_WEIGHT, "", 1,
                                         (int64_t[]){0}, &error));
    assert_error(&error, TL_ERROR_SHAPE, "tensor: ");
    ck_assert_int_eq(tl_parameters_count(parameters), 2);
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

START_TEST(gradients_are_cleared) {
    tl_context *context = context_with(1, NULL);
    tl_parameters *parameters = tl_parameters_create(context, NULL);
    tl_tensor *a = add(parameters, NULL, "a", NULL);
    tl_tensor *b = add(parameters, NULL, "b", NULL);
    tl_tape *tape = tl_tape_create(context);
    ck_assert_int_eq(tl_backward(tape, tl_sum(tape, tl_add(tape, a, b), 0, NULL, false)), TL_OK);
    ck_assert(tl_tensor_grad(a)[0] == 1 && tl_tensor_grad(b)[5] == 1);
    tl_parameters_clear_grads(parameters);
    ck_assert(tl_tensor_grad(a) == NULL && tl_tensor_grad(b) == NULL);
    tl_tape_free(tape);
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

/* Returns how many were added before memory failed. */
static int add_many(failing_allocator *allocator, int count) {
    tl_context *context = tl_context_create(
        &(tl_context_config){.threads = 1, .allocator = failing_allocator_with(allocator)});
    tl_error error;
    tl_parameters *parameters = context != NULL ? tl_parameters_create(context, &error) : NULL;
    int added = 0;
    while (parameters != NULL && added < count) {
        char name[16];
        (void)snprintf(name, sizeof name, "p%d", added);
        if (add(parameters, NULL, name, &error) == NULL) {
            assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "out of memory");
            break;
        }
        added++;
    }
    if (parameters != NULL) {
        ck_assert_int_eq(tl_parameters_count(parameters), added);
    }
    tl_parameters_free(parameters);
    tl_context_free(context);
    return added;
}

START_TEST(many_and_failing) {
    enum { MANY = 200 };
    failing_allocator allocator = {0};
    ck_assert_int_eq(add_many(&allocator, MANY), MANY);
    const int64_t calls = allocator.calls;
    for (int64_t k = 1; k <= calls; k++) {
        allocator = (failing_allocator){.fail_at = k};
        ck_assert_int_lt(add_many(&allocator, MANY), MANY);
        ck_assert_int_eq(allocator.live, 0);
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("parameters", &test_case);
    tcase_add_test(test_case, names_and_groups);
    tcase_add_test(test_case, bad_names);
    tcase_add_test(test_case, gradients_are_cleared);
    tcase_add_test(test_case, many_and_failing);
    return run_suite(suite);
}
