/* Losses: values, gradients, large arguments, ignored rows, accuracy, errors. */
#include "support/everywhere.h"

#include <math.h>
#include <stdlib.h>

/* ------------------------------------------------------------------ cross-entropy */

typedef struct classification {
    int64_t rows, classes;
    double smoothing;
    bool ignores; /* every third row */
    double range;
    bool twice;
    tl_real *x;
    int32_t *labels;
} classification;

enum { IGNORED = 255 };

static const classification classifications[] = {
    {.rows = 1, .classes = 1, .range = 1},
    {.rows = 1, .classes = 3, .range = 2},
    {.rows = 7, .classes = 10, .range = 3, .twice = true},
    {.rows = 4, .classes = 33, .smoothing = 0.1, .range = 3},
    {.rows = 6, .classes = 5, .smoothing = 0.1, .range = 1000},
    {.rows = 3, .classes = 17, .range = 1000, .twice = true},
    {.rows = 2000, .classes = 10, .smoothing = 0.05, .ignores = true, .range = 4},
    {.rows = 90, .classes = 16, .smoothing = 1.0, .ignores = true, .range = 4, .twice = true},
    {.rows = 3, .classes = 9000, .smoothing = 0.2, .range = 6},
};
enum { CLASSIFICATIONS = sizeof classifications / sizeof classifications[0] };

static const tl_real loss_cotangent = (tl_real)1.5;

static void compute_classification(tl_tape *tape, const void *user, tl_real *out) {
    const classification *p = user;
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(p->x, p->rows, 1, p->classes));
    tl_tensor *loss[2] = {NULL, NULL};
    for (int i = 0; i < (p->twice ? 2 : 1); i++) {
        loss[i] = tl_cross_entropy(tape, x, p->labels,
                                   &(tl_cross_entropy_config){.label_smoothing = p->smoothing,
                                                              .ignores_label = p->ignores,
                                                              .ignored_label = IGNORED});
        ck_assert_ptr_nonnull(loss[i]);
        ck_assert_int_eq(tl_tensor_rank(loss[i]), 0);
    }
    append_values(&out, loss[0]);
    ck_assert_int_eq(tl_backward_from(tape, p->twice ? 2 : 1, loss,
                                      (const tl_real *const[]){&loss_cotangent, &loss_cotangent}),
                     TL_OK);
    append_grad(&out, x);
}

/* The loss of one row, and its gradient. */
static double classification_row(int64_t classes, const tl_real *x, int32_t label, double smoothing,
                                 double *dx) {
    double maximum = -INFINITY;
    double sum = 0.0;
    double loss = 0.0;
    for (int64_t c = 0; c < classes; c++) {
        maximum = fmax(maximum, (double)x[c]);
    }
    for (int64_t c = 0; c < classes; c++) {
        sum += exp((double)x[c] - maximum);
    }
    for (int64_t c = 0; c < classes; c++) {
        const double log_p = (double)x[c] - maximum - log(sum);
        const double target = (c == label ? 1.0 - smoothing : 0.0) + smoothing / (double)classes;
        loss -= target * log_p;
        dx[c] = exp(log_p) - target;
    }
    return loss;
}

START_TEST(cross_entropy) {
    classification p = classifications[_i];
    const int64_t size = p.rows * p.classes;
    p.x = random_values(size, 1, -p.range, p.range);
    p.labels = malloc((size_t)p.rows * sizeof *p.labels);
    double *dx = calloc((size_t)size, sizeof *dx);
    ck_assert(p.labels != NULL && dx != NULL);
    tl_random random = tl_random_create(3, 1000, 0);
    double loss = 0.0;
    int64_t counted = 0;
    for (int64_t r = 0; r < p.rows; r++) {
        p.labels[r] = (int32_t)tl_random_below(&random, (uint32_t)p.classes);
        if (p.ignores && r % 3 == 1) {
            p.labels[r] = IGNORED;
            continue;
        }
        loss += classification_row(p.classes, p.x + r * p.classes, p.labels[r], p.smoothing,
                                   dx + r * p.classes);
        counted++;
    }
    loss /= (double)counted;
    for (int64_t i = 0; i < size; i++) {
        dx[i] *= (p.twice ? 2.0 : 1.0) * (double)loss_cotangent / (double)counted;
    }
    check_everywhere("cross_entropy", compute_classification, &p, 2,
                     (expected[]){{"loss", 1, &loss}, {"dx", size, dx}}, 1e-6, 1e-7);
    free(p.x);
    free(p.labels);
    free(dx);
}
END_TEST

START_TEST(all_rows_ignored) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {1, 2, 3, 4, 5, 6};
    const int32_t labels[2] = {-100, -100};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2, 3));
    tl_tensor *loss = tl_cross_entropy(
        tape, x, labels, &(tl_cross_entropy_config){.ignores_label = true, .ignored_label = -100});
    ck_assert(tl_tensor_item(loss) == 0);
    ck_assert_int_eq(tl_backward(tape, loss), TL_OK);
    for (int i = 0; i < 6; i++) {
        ck_assert(tl_tensor_grad(x)[i] == 0);
    }
    tl_tape_free(tape);
}
END_TEST

START_TEST(cross_entropy_defaults) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[10] = {0};
    int32_t label = 3;
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 10));
    tl_tensor *loss = tl_cross_entropy(tape, x, &label, NULL);
    ck_assert_double_eq_tol((double)tl_tensor_item(loss), log(10.0), 1e-6);
    label = 5; /* was copied */
    ck_assert_int_eq(tl_backward(tape, loss), TL_OK);
    ck_assert_double_eq_tol((double)tl_tensor_grad(x)[3], -0.9, 1e-6);
    tl_tape_free(tape);
}
END_TEST

START_TEST(cross_entropy_errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {0};
    const tl_array array = ARRAY(values, 2, 3);
    const int32_t high[2] = {0, 3};
    const int32_t low[2] = {-1, 0};
    ck_assert_ptr_null(tl_cross_entropy(tape, tl_input(tape, &array), high, NULL));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT,
                      "cross_entropy: label 3 of row 1 is outside 0 ... 2");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_cross_entropy(tape, tl_input(tape, &array), low, NULL));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "label -1 of row 0");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_cross_entropy(tape, tl_input(tape, &array), NULL, NULL));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "cross_entropy: labels is NULL");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_cross_entropy(tape, tl_input(tape, &array), low,
                                        &(tl_cross_entropy_config){.label_smoothing = 1.5}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "label_smoothing must be from 0 to 1");
    tl_tape_reset(tape);
    const tl_array scalar = {.rank = 0, .data = values};
    ck_assert_ptr_null(tl_cross_entropy(tape, tl_input(tape, &scalar), low, NULL));
    assert_tape_error(tape, TL_ERROR_SHAPE, "cross_entropy: logits must be [N, C]");
    tl_tape_free(tape);
}
END_TEST

START_TEST(count_correct) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[12] = {1, 3, 2, /**/ 5, 5, 1, /**/ 0, 0, 9, /**/ -1, -2, -3};
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(values, 2, 2, 3));
    ck_assert_int_eq(tl_count_correct(x, (int32_t[]){1, 0, 2, 0}), 4);
    ck_assert_int_eq(tl_count_correct(x, (int32_t[]){1, 1, 0, -1}), 1);
    ck_assert_int_eq(tl_count_correct(NULL, NULL), -1);
    const tl_array scalar = {.rank = 0, .data = values};
    ck_assert_int_eq(tl_count_correct(tl_input(tape, &scalar), (int32_t[]){0}), -1);
    tl_release(tape, x);
    ck_assert_int_eq(tl_count_correct(x, (int32_t[]){1, 0, 2, 0}), -1);
    tl_tape_free(tape);
}
END_TEST

/* ------------------------------------------------------------------ pointwise losses */

static tl_tensor *mse(tl_tape *tape, tl_tensor *x, tl_tensor *t) {
    return tl_mse_loss(tape, x, t);
}

static double mse_value(double x, double t, double *dx, double *dt) {
    *dx = 2.0 * (x - t);
    *dt = -*dx;
    return (x - t) * (x - t);
}

static tl_tensor *smooth_l1(tl_tape *tape, tl_tensor *x, tl_tensor *t) {
    return tl_smooth_l1_loss(tape, x, t, 0.25);
}

static double smooth_l1_value(double x, double t, double *dx, double *dt) {
    const double d = x - t;
    *dx = fabs(d) < 0.25 ? d / 0.25 : (d > 0.0 ? 1.0 : -1.0);
    *dt = -*dx;
    return fabs(d) < 0.25 ? d * d / 0.5 : fabs(d) - 0.125;
}

static tl_tensor *bce(tl_tape *tape, tl_tensor *x, tl_tensor *t) {
    return tl_bce_with_logits(tape, x, t);
}

static double bce_value(double x, double t, double *dx, double *dt) {
    *dx = 1.0 / (1.0 + exp(-x)) - t;
    *dt = -x;
    return fmax(x, 0.0) - x * t + log1p(exp(-fabs(x)));
}

typedef struct loss {
    const char *name;
    tl_tensor *(*apply)(tl_tape *tape, tl_tensor *x, tl_tensor *t);
    double (*value)(double x, double t, double *dx, double *dt);
} loss;

static const loss losses[] = {{"mse_loss", mse, mse_value},
                              {"smooth_l1_loss", smooth_l1, smooth_l1_value},
                              {"bce_with_logits", bce, bce_value}};

typedef struct regression {
    const loss *f;
    int64_t n;
    bool twice;
    tl_real *x, *t;
} regression;

static void compute_regression(tl_tape *tape, const void *user, tl_real *out) {
    const regression *p = user;
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(p->x, p->n, 1));
    tl_tensor *t = tl_input_with_grad(tape, ARRAY_POINTER(p->t, p->n, 1));
    tl_tensor *y[2] = {NULL, NULL};
    for (int i = 0; i < (p->twice ? 2 : 1); i++) {
        y[i] = p->f->apply(tape, x, t);
        ck_assert_ptr_nonnull(y[i]);
        ck_assert_int_eq(tl_tensor_rank(y[i]), 0);
    }
    append_values(&out, y[0]);
    ck_assert_int_eq(tl_backward_from(tape, p->twice ? 2 : 1, y,
                                      (const tl_real *const[]){&loss_cotangent, &loss_cotangent}),
                     TL_OK);
    append_grad(&out, x);
    append_grad(&out, t);
}

START_TEST(pointwise) {
    const int64_t sizes[] = {1, 3, 8, 21, 5000, 70001};
    const double ranges[] = {1, 2, 1000, 3, 5, 4};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const int64_t n = sizes[s];
        regression p = {.f = &losses[_i],
                        .n = n,
                        .twice = s % 2 == 1,
                        .x = random_values(n, 1, -ranges[s], ranges[s]),
                        .t = random_values(n, 2, 0, 1)};
        double *dx = malloc((size_t)n * sizeof *dx);
        double *dt = malloc((size_t)n * sizeof *dt);
        ck_assert(dx != NULL && dt != NULL);
        const double scale = (p.twice ? 2.0 : 1.0) * (double)loss_cotangent / (double)n;
        double mean = 0.0;
        for (int64_t i = 0; i < n; i++) {
            mean += p.f->value((double)p.x[i], (double)p.t[i], dx + i, dt + i) / (double)n;
            dx[i] *= scale;
            dt[i] *= scale;
        }
        check_everywhere(p.f->name, compute_regression, &p, 3,
                         (expected[]){{"loss", 1, &mean}, {"dx", n, dx}, {"dt", n, dt}}, 1e-6,
                         1e-9);
        free(p.x);
        free(p.t);
        free(dx);
        free(dt);
    }
}
END_TEST

START_TEST(pointwise_errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {0};
    const loss *f = &losses[_i];
    ck_assert_ptr_null(f->apply(tape, tl_input(tape, ARRAY_POINTER(values, 2, 3)),
                                tl_input(tape, ARRAY_POINTER(values, 3, 2))));
    assert_tape_error(tape, TL_ERROR_SHAPE,
                      "target must have the shape of x, [2, 3], found [3, 2]");
    assert_tape_error(tape, TL_ERROR_SHAPE, f->name);
    tl_tape_reset(tape);
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(values, 6));
    ck_assert_ptr_null(tl_smooth_l1_loss(tape, x, x, 0.0));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT,
                      "smooth_l1_loss: beta must be above 0, found 0");
    tl_tape_free(tape);
}
END_TEST

/* The target usually wants no gradient. */
START_TEST(constant_target) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2] = {1, 2};
    tl_real target[2] = {0, 1};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2));
    tl_tensor *t = tl_input(tape, ARRAY_POINTER(target, 2));
    ck_assert_int_eq(tl_backward(tape, tl_mse_loss(tape, x, t)), TL_OK);
    ck_assert(tl_tensor_grad(x)[0] == 1 && tl_tensor_grad(t) == NULL);
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("loss", &test_case);
    tcase_add_loop_test(test_case, cross_entropy, 0, CLASSIFICATIONS);
    tcase_add_test(test_case, all_rows_ignored);
    tcase_add_test(test_case, cross_entropy_defaults);
    tcase_add_test(test_case, cross_entropy_errors);
    tcase_add_test(test_case, count_correct);
    tcase_add_loop_test(test_case, pointwise, 0, 3);
    tcase_add_loop_test(test_case, pointwise_errors, 0, 3);
    tcase_add_test(test_case, constant_target);
    return run_suite(suite);
}
