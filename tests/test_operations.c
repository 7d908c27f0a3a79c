/* What must hold for every operation: the same bits on any number of threads, forward and backward,
 * on each instruction set; NaN is found and the operation named; large inputs stay finite. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/everywhere.h"
#include "support/operation_list.h"

/* Inputs uniform in [-1, 1), the first of them times `scale`. */
typedef struct run {
    const operation_case *operation;
    tl_real *values[OPERATION_MAX_INPUTS];
    int64_t total; /* values of the result and of all gradients */
} run;

static run prepare(const operation_case *c, double scale) {
    run r = {.operation = c};
    for (int i = 0; i < c->input_count; i++) {
        const double range = i == 0 ? scale : 1;
        r.values[i] = random_values(operation_input_size(c, i), 10 + (uint64_t)i, -range, range);
    }
    return r;
}

static void finish(run *r) {
    for (int i = 0; i < r->operation->input_count; i++) {
        free(r->values[i]);
    }
}

static tl_tensor *compute(const run *r, tl_tape *tape, tl_tensor **x) {
    for (int i = 0; i < r->operation->input_count; i++) {
        const operation_input *input = &r->operation->inputs[i];
        const tl_array array = array_of(input->rank, input->shape, r->values[i]);
        x[i] = tl_input_with_grad(tape, &array);
    }
    tl_tape_set_random(tape, 3, 0);
    return r->operation->compute(tape, x);
}

/* The result and all gradients, from a random cotangent. */
static void forward_and_backward(tl_tape *tape, const void *user, tl_real *out) {
    const run *r = user;
    tl_tensor *x[OPERATION_MAX_INPUTS];
    tl_tensor *y = compute(r, tape, x);
    ck_assert_msg(y != NULL, "%s: %s", r->operation->function, tl_tape_error(tape)->message);
    append_values(&out, y);
    tl_real *dy = random_values(tl_tensor_size(y), 99, -1, 1);
    const tl_real *cotangent = dy;
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, &cotangent), TL_OK);
    free(dy);
    for (int i = 0; i < r->operation->input_count; i++) {
        append_grad(&out, x[i]);
    }
}

static int64_t count_values(run *r, tl_context *context) {
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *x[OPERATION_MAX_INPUTS];
    tl_tensor *y = compute(r, tape, x);
    ck_assert_msg(y != NULL, "%s: %s", r->operation->function, tl_tape_error(tape)->message);
    int64_t total = tl_tensor_size(y);
    for (int i = 0; i < r->operation->input_count; i++) {
        total += operation_input_size(r->operation, i);
    }
    tl_tape_free(tape);
    return total;
}

START_TEST(threads_do_not_change_bits) {
    const operation_case *c = &operation_list[_i];
    run r = prepare(c, 1);
    tl_context *context = context_with(1, NULL);
    const int64_t total = count_values(&r, context);
    tl_context_free(context);
    tl_real *one = malloc((size_t)total * sizeof *one);
    tl_real *more = malloc((size_t)total * sizeof *more);
    ck_assert(one != NULL && more != NULL);
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        compute_on(c->function, all_isas[isa], 1, forward_and_backward, &r, one);
        for (int threads = 2; threads <= 4; threads++) {
            char what[128];
            (void)snprintf(what, sizeof what, "%s (number %d) on %s with %d threads", c->function,
                           (int)_i, all_isas[isa], threads);
            compute_on(what, all_isas[isa], threads, forward_and_backward, &r, more);
            assert_same_bits(what, total, one, more);
        }
    }
    free(one);
    free(more);
    finish(&r);
}
END_TEST

/* Under a softmax over the positions it cancels, and the fused operation does not read it. */
static bool is_key_bias(const operation_case *c, int index) {
    return strcmp(c->function, "tl_efficient_attention") == 0 && index == 4;
}

/* NaN in any one input is reported, with the operation's name. */
START_TEST(nan_is_reported) {
    const operation_case *c = &operation_list[_i];
    tl_context *context = context_with(2, NULL);
    tl_tape *tape = tl_tape_create(context);
    for (int bad = 0; bad < c->input_count; bad++) {
        if (is_key_bias(c, bad)) {
            continue;
        }
        run r = prepare(c, 1);
        for (int64_t i = 0; i < operation_input_size(c, bad); i++) {
            r.values[bad][i] = (tl_real)NAN;
        }
        tl_tape_set_check_finite(tape, true);
        tl_tensor *x[OPERATION_MAX_INPUTS];
        tl_tensor *y = compute(&r, tape, x);
        ck_assert_msg(y == NULL, "%s: a NaN in input %d went unnoticed", c->function, bad);
        const char *message = tl_tape_error(tape)->message;
        ck_assert_msg(tl_tape_status(tape) == TL_ERROR_NOT_FINITE, "%s: %s", c->function, message);
        ck_assert_msg(strncmp(message, c->reports, strlen(c->reports)) == 0 &&
                          strstr(message, ": the result has a NaN or an infinity") != NULL,
                      "%s: %s", c->function, message);
        tl_tape_reset(tape);
        finish(&r);
    }
    tl_tape_free(tape);
    tl_context_free(context);
}
END_TEST

START_TEST(large_inputs_stay_finite) {
    const operation_case *c = &operation_list[_i];
    run r = prepare(c, 1e4);
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        tl_context *context = context_with(2, all_isas[isa]);
        const int64_t total = count_values(&r, context);
        tl_context_free(context);
        tl_real *values = malloc((size_t)total * sizeof *values);
        ck_assert_ptr_nonnull(values);
        compute_on(c->function, all_isas[isa], 2, forward_and_backward, &r, values);
        for (int64_t i = 0; i < total; i++) {
            if (!isfinite((double)values[i])) { /* an assertion each would take 20 s */
                ck_abort_msg("%s (number %d) on %s: value %lld is %g", c->function, (int)_i,
                             all_isas[isa], (long long)i, (double)values[i]);
            }
        }
        free(values);
    }
    finish(&r);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("every operation", &test_case);
    tcase_add_loop_test(test_case, threads_do_not_change_bits, 0, operation_count);
    tcase_add_loop_test(test_case, nan_is_reported, 0, operation_count);
    tcase_add_loop_test(test_case, large_inputs_stay_finite, 0, operation_count);
    return run_suite(suite);
}
