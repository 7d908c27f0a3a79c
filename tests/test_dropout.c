/* Dropout: the mask is the documented random numbers, whatever the instruction set and the number
 * of threads; backward uses the same one; evaluation is the identity. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 100003 };

static tl_tensor *drop(tl_tape *tape, tl_real *values, int64_t count, double probability) {
    const tl_array array = array_of(1, &count, values);
    return tl_dropout(tape, tl_input_with_grad(tape, &array), probability);
}

/* The mask of k_dropout.h, number by number. */
static bool is_kept(uint64_t seed, uint32_t position, int64_t i, double probability) {
    const tl_random random = tl_random_create(seed, TL_RANDOM_DROPOUT, position);
    uint32_t words[4];
    tl_random_block(random.seed, random.stream, (uint64_t)(i / 64 * 16 + i % 16), words);
    return (double)words[i % 64 / 16] >= floor(probability * 4294967296.0);
}

START_TEST(mask_is_the_documented_one) {
    tl_real *values = random_values(SIZE, 1, 1, 2);
    tl_real *dy = random_values(SIZE, 2, 1, 2);
    const tl_real *cotangent = dy;
    const tl_real scale = (tl_real)(1.0 / 0.7);
    for (int n = 0; n < 6; n++) {
        if (!isa_available(all_isas[n / 2])) {
            continue;
        }
        tl_context *context = context_with(1 + n % 2 * 2, all_isas[n / 2]);
        tl_tape *tape = tl_tape_create(context);
        tl_tape_set_random(tape, 0x123456789abcdefu, 41);
        const int64_t size = SIZE;
        const tl_array array = array_of(1, &size, values);
        tl_tensor *x = tl_input_with_grad(tape, &array);
        tl_tensor *y = tl_dropout(tape, x, 0.3);
        ck_assert_uint_eq(tl_tape_random_position(tape), 42);
        ck_assert_uint_eq(tl_tape_cost(tape).saved_bytes, 0);
        int64_t kept = 0;
        ck_assert_int_eq(tl_backward_from(tape, 1, &y, &cotangent), TL_OK);
        for (int64_t i = 0; i < SIZE; i++) {
            const bool keep = is_kept(0x123456789abcdefu, 41, i, 0.3);
            kept += keep;
            ck_assert(tl_tensor_data(y)[i] == (keep ? values[i] * scale : 0));
            ck_assert(tl_tensor_grad(x)[i] == (keep ? dy[i] * scale : 0));
        }
        /* 5 deviations of the binomial distribution */
        ck_assert(fabs((double)kept - 0.7 * SIZE) < 5.0 * sqrt(0.21 * SIZE));
        tl_tape_free(tape);
        tl_context_free(context);
    }
    free(values);
    free(dy);
}
END_TEST

START_TEST(every_call_has_its_own_mask) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real *values = random_values(1000, 1, 1, 2);
    tl_tensor *a = drop(tape, values, 1000, 0.5);
    tl_tensor *b = drop(tape, values, 1000, 0.5);
    int differ = 0;
    for (int i = 0; i < 1000; i++) {
        differ += (tl_tensor_data(a)[i] == 0) != (tl_tensor_data(b)[i] == 0);
    }
    ck_assert_int_gt(differ, 400);
    ck_assert_int_lt(differ, 600);
    tl_tape_free(tape);
    free(values);
}
END_TEST

START_TEST(evaluation_is_the_identity) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[3] = {1, 2, 3};
    tl_tensor *y = drop(tape, values, 3, 0.0);
    ck_assert_ptr_eq(tl_tensor_data(y), values);
    tl_tape_set_training(tape, false);
    y = drop(tape, values, 3, 0.9);
    ck_assert_ptr_eq(tl_tensor_data(y), values);
    ck_assert_uint_eq(tl_tape_random_position(tape), 0);
    tl_tape_free(tape);
}
END_TEST

START_TEST(wrong_probability_is_an_error) {
    const double wrong[] = {-0.1, 1.0, (double)NAN};
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[3] = {1, 2, 3};
    ck_assert_ptr_null(drop(tape, values, 3, wrong[_i]));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT,
                      "dropout: probability must lie in [0, 1), found ");
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("dropout", &test_case);
    tcase_add_test(test_case, mask_is_the_documented_one);
    tcase_add_test(test_case, every_call_has_its_own_mask);
    tcase_add_test(test_case, evaluation_is_the_identity);
    tcase_add_loop_test(test_case, wrong_probability_is_an_error, 0, 3);
    return run_suite(suite);
}
