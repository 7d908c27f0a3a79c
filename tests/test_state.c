/* Named arrays and values, and parameters going through them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "support/support.h"

static tl_context *context;
static tl_state *state;
static tl_error error;

static void set_up(void) {
    context = context_with(1, NULL);
    state = tl_state_create(context, &error);
    ck_assert_ptr_nonnull(state);
}

static void tear_down(void) {
    tl_state_free(state);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}

START_TEST(what_was_put_is_found) {
    const int32_t values[6] = {1, 2, 3, 4, 5, 6};
    const tl_state_array array = {.type = TL_INT32, .rank = 2, .shape = {2, 3}, .data = values};
    ck_assert_int_eq(tl_state_put_array(state, "a/b", &array, &error), TL_OK);
    ck_assert_int_eq(tl_state_borrow_array(state, "a/c", &array, &error), TL_OK);
    ck_assert_int_eq(tl_state_put_integer(state, "i", INT64_MIN, &error), TL_OK);
    ck_assert_int_eq(tl_state_put_number(state, "a/b/n", 0.5, &error), TL_OK);
    ck_assert_int_eq(tl_state_put_string(state, "s", "", &error), TL_OK);
    const tl_state_array *found = tl_state_find_array(state, "a/b");
    ck_assert(found->type == TL_INT32 && found->rank == 2 && found->shape[1] == 3);
    ck_assert(found->data != values && memcmp(found->data, values, sizeof values) == 0);
    ck_assert_ptr_eq(tl_state_find_array(state, "a/c")->data, values);
    int64_t integer;
    double number;
    ck_assert(tl_state_find_integer(state, "i", &integer) && integer == INT64_MIN);
    ck_assert(tl_state_find_number(state, "i", &number) && number == -0x1p63);
    ck_assert(tl_state_find_number(state, "a/b/n", &number) && number == 0.5);
    ck_assert(!tl_state_find_integer(state, "a/b/n", &integer));
    ck_assert_str_eq(tl_state_find_string(state, "s"), "");
    ck_assert_ptr_null(tl_state_find_string(state, "i"));
    ck_assert_ptr_null(tl_state_find_array(state, "s"));
    ck_assert_ptr_null(tl_state_find_array(state, "a"));
    ck_assert_int_eq(tl_state_count(state), 5);
    ck_assert_str_eq(tl_state_at(state, 2).path, "i");
    ck_assert_int_eq(tl_state_at(state, 3).kind, TL_STATE_NUMBER);
}
END_TEST

START_TEST(many_entries_are_all_found) {
    enum { MANY = 3000 };
    char path[TL_PATH_SIZE];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(path, sizeof path, "group%d/value%d", i % 7, i);
        ck_assert_int_eq(tl_state_put_integer(state, path, i, &error), TL_OK);
    }
    for (int i = 0; i < MANY; i++) {
        int64_t value;
        (void)snprintf(path, sizeof path, "group%d/value%d", i % 7, i);
        ck_assert(tl_state_find_integer(state, path, &value) && value == i);
    }
    int64_t value;
    ck_assert(!tl_state_find_integer(state, "group0/value1", &value));
}
END_TEST

START_TEST(bad_paths_and_arrays_are_refused) {
    char longest[TL_PATH_SIZE + 1];
    memset(longest, 'x', TL_PATH_SIZE);
    longest[TL_PATH_SIZE] = '\0';
    const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "a/..", "./a", longest};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        (void)tl_state_put_integer(state, bad[i], 1, &error);
        assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "a path has 1 to 255 bytes");
    }
    longest[TL_PATH_SIZE - 1] = '\0';
    ck_assert_int_eq(tl_state_put_integer(state, longest, 1, &error), TL_OK);
    ck_assert_int_eq(tl_state_put_integer(state, "..a/b.", 1, &error), TL_OK);
    (void)tl_state_put_string(state, "..a/b.", "x", &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "'..a/b.' is already there");
    const tl_state_array negative = {.type = TL_UINT8, .rank = 1, .shape = {-1}};
    (void)tl_state_put_array(state, "n", &negative, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "bad type, rank or extent");
    const tl_state_array huge = {
        .type = TL_FLOAT64, .rank = 2, .shape = {INT64_MAX / 2, INT64_MAX / 2}};
    ck_assert_int_eq(tl_state_put_array(state, "n", &huge, NULL), TL_ERROR_INVALID_ARGUMENT);
    const tl_state_array rank = {.type = TL_UINT8, .rank = TL_MAX_RANK + 1};
    ck_assert_int_eq(tl_state_put_array(state, "n", &rank, NULL), TL_ERROR_INVALID_ARGUMENT);
    const tl_state_array type = {.type = (tl_element_type)77};
    ck_assert_int_eq(tl_state_put_array(state, "n", &type, NULL), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_str_eq(tl_element_name((tl_element_type)77), "unknown type");
    const tl_state_array empty = {.type = TL_UINT8, .rank = 1, .shape = {0}};
    ck_assert_int_eq(tl_state_put_array(state, "empty", &empty, &error), TL_OK);
    ck_assert_ptr_nonnull(tl_state_find_array(state, "empty")->data);
}
END_TEST

START_TEST(what_must_be_there_is_checked) {
    const float values[4] = {0};
    const tl_state_array array = {.type = TL_FLOAT32, .rank = 2, .shape = {2, 2}, .data = values};
    int64_t integer = 77;
    double number = 77;
    const char *string = NULL;
    const tl_state_array *found = NULL;
    (void)tl_state_put_integer(state, "epoch", 5, NULL);
    (void)tl_state_put_number(state, "loss", (double)NAN, NULL);
    (void)tl_state_borrow_array(state, "history", &array, NULL);
    (void)tl_state_read_integer(state, "step", 0, 10, &integer, &error);
    assert_error(&error, TL_ERROR_FORMAT, "expected an integer 'step', found nothing of that name");
    (void)tl_state_read_integer(state, "loss", 0, 10, &integer, &error);
    assert_error(&error, TL_ERROR_FORMAT, "expected an integer 'loss', found a number");
    (void)tl_state_read_integer(state, "epoch", 6, 10, &integer, &error);
    assert_error(&error, TL_ERROR_FORMAT, "expected 'epoch' in 6 ... 10, found 5");
    (void)tl_state_read_number(state, "loss", -1, 1, &number, &error);
    assert_error(&error, TL_ERROR_FORMAT, "expected 'loss' in -1 ... 1");
    (void)tl_state_read_number(state, "history", -1, 1, &number, &error);
    assert_error(&error, TL_ERROR_FORMAT, "expected a number 'history', found an array");
    (void)tl_state_read_string(state, "epoch", &string, &error);
    assert_error(&error, TL_ERROR_FORMAT, "expected a string 'epoch', found an integer");
    const int64_t wrong[2] = {-1, 3};
    (void)tl_state_read_array(state, "history", TL_FLOAT32, 2, wrong, &found, &error);
    assert_error(&error, TL_ERROR_SHAPE, "of shape [-1, 3], found [2, 2]");
    (void)tl_state_read_array(state, "history", TL_INT64, 2, wrong, &found, &error);
    assert_error(&error, TL_ERROR_FORMAT, "of type int64, found float32");
    (void)tl_state_read_array(state, "other", TL_INT64, 2, wrong, &found, &error);
    assert_error(&error, TL_ERROR_FORMAT, "expected an array 'other'");
    ck_assert(integer == 77 && number == 77 && string == NULL && found == NULL);
    const int64_t right[2] = {-1, 2};
    ck_assert_int_eq(tl_state_read_array(state, "history", TL_FLOAT32, 2, right, &found, &error),
                     TL_OK);
    ck_assert_int_eq(tl_state_read_integer(state, "epoch", 5, 5, &integer, &error), TL_OK);
    ck_assert_int_eq(tl_state_read_number(state, "epoch", 5, 5, &number, &error), TL_OK);
    ck_assert(found->data == values && integer == 5 && number == 5);
}
END_TEST

/* ------------------------------------------------------------------ parameters */

static tl_parameters *small_model(int64_t channels, uint64_t seed) {
    tl_parameters *parameters = tl_parameters_create(context, NULL);
    tl_tensor *weight = tl_parameters_add(parameters, "stages.1.conv", "weight", TL_GROUP_WEIGHT,
                                          "out in", 2, (int64_t[]){channels, 3}, NULL);
    tl_tensor *mean = tl_parameters_add(parameters, "stages.1.bn", "running_mean", TL_GROUP_BUFFER,
                                        "channels", 1, (int64_t[]){channels}, NULL);
    fill_uniform(tl_tensor_data(weight), 3 * channels, seed, -1, 1);
    fill_uniform(tl_tensor_data(mean), channels, seed + 1, -1, 1);
    return parameters;
}

START_TEST(parameters_go_through_a_state) {
    tl_parameters *from = small_model(5, 1);
    tl_parameters *to = small_model(5, 7);
    ck_assert_int_eq(tl_parameters_save_state(from, state, "model", &error), TL_OK);
    ck_assert_str_eq(tl_state_find_string(state, "model/stages/1/conv/weight/axes"), "out in");
    ck_assert_ptr_eq(tl_state_find_array(state, "model/stages/1/conv/weight")->data,
                     tl_tensor_data(tl_parameters_at(from, 0).tensor));
    (void)tl_state_put_string(state, "model/kind", "small", NULL);
    const tl_status status = tl_parameters_load_state(to, state, "model", &error);
    ck_assert_msg(status == TL_OK, "%s", error.message);
    for (int i = 0; i < 2; i++) {
        tl_tensor *a = tl_parameters_at(from, i).tensor;
        assert_same_bits("parameter", tl_tensor_size(a), tl_tensor_data(a),
                         tl_tensor_data(tl_parameters_at(to, i).tensor));
    }
    tl_parameters_free(from);
    tl_parameters_free(to);
}
END_TEST

/* Loads must fail with that message and leave `to` alone. */
static void assert_refused(tl_parameters *to, tl_status status, const char *part) {
    tl_tensor *first = tl_parameters_at(to, 0).tensor;
    const tl_real before = tl_tensor_data(first)[0];
    ck_assert_int_eq(tl_parameters_load_state(to, state, "model", &error), status);
    assert_error(&error, status, part);
    ck_assert(tl_tensor_data(first)[0] == before);
}

START_TEST(parameters_that_do_not_fit_are_refused) {
    tl_parameters *from = small_model(5, 1);
    tl_parameters *same = small_model(5, 7);
    tl_parameters *wider = small_model(6, 7);
    assert_refused(same, TL_ERROR_FORMAT, "expected an array 'model/stages/1/conv/weight'");
    ck_assert_int_eq(tl_parameters_save_state(from, state, "model", &error), TL_OK);
    assert_refused(wider, TL_ERROR_SHAPE, "of shape [6, 3], found [5, 3]");
    /* the last array, so that everything before it has passed */
    tl_tensor_data(tl_parameters_at(from, 1).tensor)[4] = (tl_real)NAN;
    assert_refused(same, TL_ERROR_NOT_FINITE, "'model/stages/1/bn/running_mean' has a NaN");
    tl_tensor_data(tl_parameters_at(from, 1).tensor)[4] = 0;
    const tl_state_array stranger = {.type = TL_UINT8, .rank = 0, .data = ""};
    (void)tl_state_put_array(state, "model/head/bias", &stranger, NULL);
    assert_refused(same, TL_ERROR_FORMAT, "found 'model/head/bias', which it does not have");
    tl_parameters_free(from);
    tl_parameters_free(same);
    tl_parameters_free(wider);
}
END_TEST

START_TEST(float64_weights_are_converted) {
    tl_parameters *to = small_model(1, 7);
    const double weight[3] = {0.1, -2, 1e-3};
    const double mean[1] = {4};
    const tl_state_array first = {.type = TL_FLOAT64, .rank = 2, .shape = {1, 3}, .data = weight};
    tl_state_array second = {.type = TL_FLOAT64, .rank = 1, .shape = {1}, .data = mean};
    (void)tl_state_put_array(state, "model/stages/1/conv/weight", &first, NULL);
    (void)tl_state_put_array(state, "model/stages/1/bn/running_mean", &second, NULL);
    ck_assert_int_eq(tl_parameters_load_state(to, state, "model", &error), TL_OK);
    ck_assert(tl_tensor_data(tl_parameters_at(to, 0).tensor)[0] == (tl_real)0.1);
    tl_parameters_free(to);
}
END_TEST

#ifndef TL_REAL_DOUBLE
START_TEST(float64_beyond_float32_is_not_finite) {
    tl_parameters *to = small_model(1, 7);
    const double weight[3] = {1e300, 0, 0};
    const tl_state_array first = {.type = TL_FLOAT64, .rank = 2, .shape = {1, 3}, .data = weight};
    (void)tl_state_put_array(state, "model/stages/1/conv/weight", &first, NULL);
    assert_refused(to, TL_ERROR_NOT_FINITE, "NaN or an infinity");
    tl_parameters_free(to);
}
END_TEST
#endif

START_TEST(memory_limits_are_errors) {
    const int32_t values[1000] = {0};
    const tl_state_array array = {.type = TL_INT32, .rank = 1, .shape = {1000}, .data = values};
    tl_context_set_memory_limit(context, tl_context_memory(context).current + 10);
    ck_assert_int_eq(tl_state_put_integer(state, "a", 1, &error), TL_ERROR_OUT_OF_MEMORY);
    ck_assert_ptr_null(tl_state_create(context, &error));
    tl_context_set_memory_limit(context, tl_context_memory(context).current + 3000);
    ck_assert_int_eq(tl_state_put_array(state, "a", &array, &error), TL_ERROR_OUT_OF_MEMORY);
    ck_assert_int_eq(tl_state_count(state), 0);
    tl_context_set_memory_limit(context, 0);
    ck_assert_int_eq(tl_state_put_array(state, "a", &array, &error), TL_OK);
    tl_state_free(NULL);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("state", &test_case);
    tcase_add_checked_fixture(test_case, set_up, tear_down);
    tcase_add_test(test_case, what_was_put_is_found);
    tcase_add_test(test_case, many_entries_are_all_found);
    tcase_add_test(test_case, bad_paths_and_arrays_are_refused);
    tcase_add_test(test_case, what_must_be_there_is_checked);
    tcase_add_test(test_case, parameters_go_through_a_state);
    tcase_add_test(test_case, parameters_that_do_not_fit_are_refused);
    tcase_add_test(test_case, float64_weights_are_converted);
#ifndef TL_REAL_DOUBLE
    tcase_add_test(test_case, float64_beyond_float32_is_not_finite);
#endif
    tcase_add_test(test_case, memory_limits_are_errors);
    return run_suite(suite);
}
