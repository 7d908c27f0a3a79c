/* The cost volume: against its definition, on every instruction set and any number of threads. */
#include <stdlib.h>

#include "reference/reference_cost_volume.h"
#include "support/support.h"

static const reference_cost_volume cases[] = {
    {1, 1, 1, 1, 1, 1},   {2, 3, 7, 6, 4, 3},    {1, 4, 5, 8, 5, 1},
    {1, 2, 9, 12, 3, 12}, {2, 16, 32, 32, 8, 8}, {1, 3, 33, 35, 17, 5},
};
enum { CASES = sizeof cases / sizeof cases[0] };

typedef struct run {
    tl_context *context;
    tl_tape *tape;
    tl_tensor *left, *right, *y;
} run;

static int64_t operand_size(const reference_cost_volume *c) {
    return c->images * c->height * c->width * c->channels;
}

static int64_t result_size(const reference_cost_volume *c) {
    return c->images * c->height * c->width * c->disparities * c->groups;
}

static run run_case(const reference_cost_volume *c, tl_real *left, tl_real *right,
                    const tl_real *dy, int threads, const char *isa) {
    run r = {.context = context_with(threads, isa)};
    r.tape = tl_tape_create(r.context);
    const tl_array a = ARRAY(left, c->images, c->height, c->width, c->channels);
    const tl_array b = ARRAY(right, c->images, c->height, c->width, c->channels);
    r.left = tl_input_with_grad(r.tape, &a);
    r.right = tl_input_with_grad(r.tape, &b);
    r.y = tl_cost_volume(r.tape, r.left, r.right, c->disparities, c->groups);
    ck_assert_msg(r.y != NULL, "%s", tl_tape_error(r.tape)->message);
    ck_assert_int_eq(tl_tensor_size(r.y), result_size(c));
    ck_assert_int_eq(tl_backward_from(r.tape, 1, &r.y, &dy), TL_OK);
    return r;
}

static void free_run(run *r) {
    tl_tape_free(r->tape);
    tl_context_free(r->context);
}

START_TEST(agrees_with_the_definition) {
    const reference_cost_volume *c = &cases[_i];
    const int64_t size = operand_size(c);
    tl_real *left = random_values(size, 1, -1, 1);
    tl_real *right = random_values(size, 2, -1, 1);
    tl_real *dy = random_values(result_size(c), 3, -1, 1);
    double *y = malloc((size_t)result_size(c) * sizeof *y);
    double *dleft = malloc((size_t)size * sizeof *dleft);
    double *dright = malloc((size_t)size * sizeof *dright);
    reference_cost_volume_run(c, left, right, dy, y, dleft, dright);
    for (int i = 0; i < 3; i++) {
        if (!isa_available(all_isas[i])) {
            continue;
        }
        run r = run_case(c, left, right, dy, 2, all_isas[i]);
        assert_close("y", result_size(c), tl_tensor_data(r.y), y, 1e-6, 1e-7);
        assert_close("dleft", size, tl_tensor_grad(r.left), dleft, 1e-6, 1e-7);
        assert_close("dright", size, tl_tensor_grad(r.right), dright, 1e-6, 1e-7);
        free_run(&r);
    }
    free(left);
    free(right);
    free(dy);
    free(y);
    free(dleft);
    free(dright);
}
END_TEST

START_TEST(threads_do_not_change_bits) {
    const reference_cost_volume *c = &cases[_i];
    const int64_t size = operand_size(c);
    tl_real *left = random_values(size, 1, -1, 1);
    tl_real *right = random_values(size, 2, -1, 1);
    tl_real *dy = random_values(result_size(c), 3, -1, 1);
    run one = run_case(c, left, right, dy, 1, NULL);
    for (int threads = 2; threads <= 3; threads++) {
        run r = run_case(c, left, right, dy, threads, NULL);
        assert_same_bits("y", result_size(c), tl_tensor_data(one.y), tl_tensor_data(r.y));
        assert_same_bits("dleft", size, tl_tensor_grad(one.left), tl_tensor_grad(r.left));
        assert_same_bits("dright", size, tl_tensor_grad(one.right), tl_tensor_grad(r.right));
        free_run(&r);
    }
    free_run(&one);
    free(left);
    free(right);
    free(dy);
}
END_TEST

/* A right image that is the left one moved by two columns matches best at disparity 2. */
START_TEST(finds_a_shift) {
    enum { W = 24, C = 8, D = 6 };
    tl_real *left = random_values(W * C, 4, -1, 1);
    tl_real right[W * C] = {0};
    for (int j = 0; j + 2 < W; j++) {
        for (int c = 0; c < C; c++) {
            right[j * C + c] = left[(j + 2) * C + c];
        }
    }
    tl_tape *tape = tl_tape_create(NULL);
    tl_tensor *y = tl_cost_volume(tape, tl_input(tape, ARRAY_POINTER(left, 1, 1, W, C)),
                                  tl_input(tape, ARRAY_POINTER(right, 1, 1, W, C)), D, 1);
    ck_assert_ptr_nonnull(y);
    double sums[D] = {0};
    for (int j = D; j < W; j++) {
        for (int d = 0; d < D; d++) {
            sums[d] += (double)tl_tensor_data(y)[j * D + d];
        }
    }
    for (int d = 0; d < D; d++) {
        ck_assert(d == 2 || sums[d] < 0.5 * sums[2]);
    }
    tl_tape_free(tape);
    free(left);
}
END_TEST

START_TEST(costs_are_counted) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2 * 3 * 5 * 4] = {0};
    const tl_array array = ARRAY(values, 2, 3, 5, 4);
    tl_tensor *left = tl_input_with_grad(tape, &array);
    (void)tl_cost_volume(tape, left, tl_input(tape, &array), 3, 2);
    const tl_cost cost = tl_tape_cost(tape);
    /* 5 + 4 + 3 pairs in each of the 6 rows, 4 channels, 2 FLOPs each; one operand wants gradients
     */
    ck_assert(cost.forward_flops == 2 * 6 * 12 * 4);
    ck_assert(cost.backward_flops == 2 * 6 * 12 * 4);
    ck_assert_uint_eq(cost.saved_bytes, 2 * sizeof values);
    tl_tape_free(tape);
}
END_TEST

START_TEST(wrong_use_is_an_error) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2 * 3 * 5 * 4] = {0};
    const struct {
        int64_t disparities, groups;
        tl_status status;
        const char *part;
    } wrong[] = {
        {0, 1, TL_ERROR_INVALID_ARGUMENT, "disparities must be 1 to the width 5, found 0"},
        {6, 1, TL_ERROR_INVALID_ARGUMENT, "found 6"},
        {3, 3, TL_ERROR_INVALID_ARGUMENT, "groups must divide the 4 channels, found 3"},
        {3, 0, TL_ERROR_INVALID_ARGUMENT, "found 0"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        tl_tape_reset(tape);
        tl_tensor *x = tl_input(tape, ARRAY_POINTER(values, 2, 3, 5, 4));
        ck_assert_ptr_null(tl_cost_volume(tape, x, x, wrong[i].disparities, wrong[i].groups));
        assert_tape_error(tape, wrong[i].status, wrong[i].part);
    }
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_cost_volume(tape, tl_input(tape, ARRAY_POINTER(values, 2, 3, 5, 4)),
                                      tl_input(tape, ARRAY_POINTER(values, 2, 3, 4, 5)), 2, 1));
    assert_tape_error(tape, TL_ERROR_SHAPE,
                      "must both be [N, H, W, C], found [2, 3, 5, 4] and [2, 3, 4, 5]");
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("cost volume", &test_case);
    tcase_add_loop_test(test_case, agrees_with_the_definition, 0, CASES);
    tcase_add_loop_test(test_case, threads_do_not_change_bits, 0, CASES);
    tcase_add_test(test_case, finds_a_shift);
    tcase_add_test(test_case, costs_are_counted);
    tcase_add_test(test_case, wrong_use_is_an_error);
    return run_suite(suite);
}
