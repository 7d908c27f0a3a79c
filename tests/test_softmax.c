/* softmax and log_softmax over any dimension: values, gradients, large arguments, errors. */
#include "support/everywhere.h"

#include <math.h>
#include <stdlib.h>

typedef struct problem {
    bool logarithm;
    int64_t outer, n, inner;
    double range; /* of the arguments */
    bool twice;
    tl_real *x, *dy;
} problem;

static const problem problems[] = {
    {.outer = 1, .n = 1, .inner = 1, .range = 1},
    {.outer = 3, .n = 7, .inner = 1, .range = 3, .twice = true},
    {.outer = 1, .n = 33, .inner = 1, .range = 1000},
    {.outer = 2, .n = 16, .inner = 1, .range = 1000},
    {.outer = 5, .n = 5000, .inner = 1, .range = 8, .twice = true},
    {.outer = 700, .n = 10, .inner = 1, .range = 4},
    {.outer = 1, .n = 3, .inner = 7, .range = 3},
    {.outer = 2, .n = 5, .inner = 16, .range = 1000, .twice = true},
    {.outer = 2, .n = 130, .inner = 33, .range = 5, .twice = true},
    {.outer = 1, .n = 1000, .inner = 64, .range = 10},
    {.outer = 3, .n = 1, .inner = 4, .range = 1},
    {.outer = 1, .n = 2, .inner = 9, .range = 1e4},
};
enum { PROBLEMS = sizeof problems / sizeof problems[0] };

static void compute(tl_tape *tape, const void *user, tl_real *out) {
    const problem *p = user;
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(p->x, p->outer, p->n, p->inner));
    tl_tensor *y[2] = {NULL, NULL};
    for (int i = 0; i < (p->twice ? 2 : 1); i++) {
        y[i] = (p->logarithm ? tl_log_softmax : tl_softmax)(tape, x, 1);
        ck_assert_ptr_nonnull(y[i]);
    }
    append_values(&out, y[0]);
    ck_assert_int_eq(
        tl_backward_from(tape, p->twice ? 2 : 1, y, (const tl_real *const[]){p->dy, p->dy}), TL_OK);
    append_grad(&out, x);
}

/* One softmax of n values that lie `inner` apart. */
static void reference(const problem *p, int64_t at, double *y, double *dx) {
    double maximum = -INFINITY;
    double sum = 0.0;
    double weighted = 0.0;
    for (int64_t i = 0; i < p->n; i++) {
        maximum = fmax(maximum, (double)p->x[at + i * p->inner]);
    }
    for (int64_t i = 0; i < p->n; i++) {
        sum += exp((double)p->x[at + i * p->inner] - maximum);
    }
    for (int64_t i = 0; i < p->n; i++) {
        const int64_t k = at + i * p->inner;
        const double log_value = (double)p->x[k] - maximum - log(sum);
        y[k] = p->logarithm ? log_value : exp(log_value);
        weighted += (p->logarithm ? 1.0 : y[k]) * (double)p->dy[k];
    }
    for (int64_t i = 0; i < p->n; i++) {
        const int64_t k = at + i * p->inner;
        const double dy = (double)p->dy[k];
        dx[k] = p->logarithm ? dy - exp(y[k]) * weighted : y[k] * (dy - weighted);
        dx[k] *= p->twice ? 2.0 : 1.0;
    }
}

START_TEST(along_each_dimension) {
    for (int logarithm = 0; logarithm < 2; logarithm++) {
        problem p = problems[_i];
        p.logarithm = logarithm == 1;
        const int64_t size = p.outer * p.n * p.inner;
        p.x = random_values(size, 1, -p.range, p.range);
        p.dy = random_values(size, 2, -1, 1);
        double *y = malloc((size_t)size * sizeof *y);
        double *dx = malloc((size_t)size * sizeof *dx);
        ck_assert(y != NULL && dx != NULL);
        for (int64_t o = 0; o < p.outer; o++) {
            for (int64_t i = 0; i < p.inner; i++) {
                reference(&p, o * p.n * p.inner + i, y, dx);
            }
        }
        check_everywhere(p.logarithm ? "log_softmax" : "softmax", compute, &p, 2,
                         (expected[]){{"y", size, y}, {"dx", size, dx}}, 2e-6, 1e-7);
        free(p.x);
        free(p.dy);
        free(y);
        free(dx);
    }
}
END_TEST

START_TEST(dimensions) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[24];
    fill_uniform(values, 24, 3, -2, 2);
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(values, 2, 3, 4));
    for (int dim = 0; dim < 3; dim++) {
        tl_tensor *y = tl_softmax(tape, x, dim);
        tl_tensor *ones = tl_sum(tape, y, 1, &dim, false);
        for (int64_t i = 0; i < tl_tensor_size(ones); i++) {
            ck_assert_double_eq_tol((double)tl_tensor_data(ones)[i], 1.0, 1e-6);
        }
    }
    tl_tape_free(tape);
}
END_TEST

START_TEST(errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {0};
    ck_assert_ptr_null(tl_softmax(tape, tl_input(tape, ARRAY_POINTER(values, 2, 3)), 2));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT,
                      "softmax: dim must be from 0 to 1 for x of rank 2, found 2");
    tl_tape_reset(tape);
    const tl_array scalar = {.rank = 0, .data = values};
    ck_assert_ptr_null(tl_log_softmax(tape, tl_input(tape, &scalar), 0));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "log_softmax: dim");
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("softmax", &test_case);
    tcase_add_loop_test(test_case, along_each_dimension, 0, PROBLEMS);
    tcase_add_test(test_case, dimensions);
    tcase_add_test(test_case, errors);
    return run_suite(suite);
}
