/* add, sub, mul, div with broadcasting, and scale: values, gradients, errors. */
#include "support/everywhere.h"

#include <stdlib.h>

#include "reference/reference_shape.h"

typedef tl_tensor *(*binary_function)(tl_tape *tape, tl_tensor *a, tl_tensor *b);

typedef struct operation {
    const char *name;
    binary_function apply;
    double (*value)(double a, double b);
    double (*slope_a)(double a, double b);
    double (*slope_b)(double a, double b);
} operation;

static double one(double a, double b) {
    (void)a;
    (void)b;
    return 1.0;
}

static double minus_one(double a, double b) {
    (void)a;
    (void)b;
    return -1.0;
}

static double sum(double a, double b) {
    return a + b;
}

static double difference(double a, double b) {
    return a - b;
}

static double product(double a, double b) {
    return a * b;
}

static double quotient(double a, double b) {
    return a / b;
}

static double first(double a, double b) {
    (void)b;
    return a;
}

static double second(double a, double b) {
    (void)a;
    return b;
}

static double inverse_b(double a, double b) {
    (void)a;
    return 1.0 / b;
}

static double quotient_slope_b(double a, double b) {
    return -a / (b * b);
}

static const operation operations[] = {
    {"add", tl_add, sum, one, one},
    {"sub", tl_sub, difference, one, minus_one},
    {"mul", tl_mul, product, second, first},
    {"div", tl_div, quotient, inverse_b, quotient_slope_b},
};

typedef struct shapes {
    int a_rank, b_rank, rank;
    int64_t a[TL_MAX_RANK], b[TL_MAX_RANK], y[TL_MAX_RANK];
} shapes;

static const shapes all_shapes[] = {
    {0, 0, 0, {0}, {0}, {0}},
    {1, 0, 1, {7}, {0}, {7}},
    {0, 3, 3, {0}, {2, 1, 5}, {2, 1, 5}},
    {1, 1, 1, {1}, {1}, {1}},
    {2, 2, 2, {3, 5}, {3, 5}, {3, 5}},
    {3, 1, 3, {4, 3, 17}, {17}, {4, 3, 17}},
    {4, 3, 4, {2, 3, 4, 5}, {3, 1, 1}, {2, 3, 4, 5}},
    {4, 4, 4, {3, 1, 5, 1}, {1, 4, 1, 6}, {3, 4, 5, 6}},
    {2, 2, 2, {13, 1}, {1, 9}, {13, 9}},
    {1, 3, 3, {1}, {2, 3, 4}, {2, 3, 4}},
    {4, 2, 4, {1, 1, 3, 1}, {3, 8}, {1, 1, 3, 8}},
    {8, 8, 8, {2, 1, 3, 1, 2, 1, 2, 3}, {1, 2, 1, 3, 1, 2, 2, 1}, {2, 2, 3, 3, 2, 2, 2, 3}},
    {1, 1, 1, {70001}, {70001}, {70001}},
    {2, 1, 2, {1500, 48}, {48}, {1500, 48}},
    {2, 2, 2, {300, 1}, {1, 301}, {300, 301}},
    {3, 3, 3, {40, 50, 36}, {40, 1, 36}, {40, 50, 36}},
    {1, 0, 1, {66000}, {0}, {66000}},
    {2, 2, 2, {3, 30000}, {1, 30000}, {3, 30000}},
};

typedef struct problem {
    const operation *f;
    const shapes *s;
    tl_real *a, *b, *dy;
} problem;

static void compute(tl_tape *tape, const void *user, tl_real *out) {
    const problem *p = user;
    const tl_array array_a = array_of(p->s->a_rank, p->s->a, p->a);
    const tl_array array_b = array_of(p->s->b_rank, p->s->b, p->b);
    tl_tensor *a = tl_input_with_grad(tape, &array_a);
    tl_tensor *b = tl_input_with_grad(tape, &array_b);
    tl_tensor *y = p->f->apply(tape, a, b);
    ck_assert_ptr_nonnull(y);
    ck_assert_int_eq(tl_tensor_rank(y), p->s->rank);
    for (int d = 0; d < p->s->rank; d++) {
        ck_assert_int_eq(tl_tensor_shape(y)[d], p->s->y[d]);
    }
    append_values(&out, y);
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, (const tl_real *const[]){p->dy}), TL_OK);
    append_grad(&out, a);
    append_grad(&out, b);
}

static void check_shapes(const operation *f, const shapes *s, uint64_t seed) {
    const int64_t size_a = reference_size(s->a_rank, s->a);
    const int64_t size_b = reference_size(s->b_rank, s->b);
    const int64_t size = reference_size(s->rank, s->y);
    problem p = {.f = f,
                 .s = s,
                 .a = random_values(size_a, seed, -2, 2),
                 .b = random_values(size_b, seed + 1, 0.5, 2),
                 .dy = random_values(size, seed + 2, -1, 1)};
    double *y = calloc((size_t)size, sizeof *y);
    double *da = calloc((size_t)size_a, sizeof *da);
    double *db = calloc((size_t)size_b, sizeof *db);
    ck_assert(y != NULL && da != NULL && db != NULL);
    for (int64_t i = 0; i < size; i++) {
        int64_t position[TL_MAX_RANK];
        reference_position(s->rank, s->y, i, position);
        const int64_t at_a = reference_broadcast_index(s->rank, position, s->a_rank, s->a);
        const int64_t at_b = reference_broadcast_index(s->rank, position, s->b_rank, s->b);
        const double a = (double)p.a[at_a];
        const double b = (double)p.b[at_b];
        y[i] = f->value(a, b);
        da[at_a] += f->slope_a(a, b) * (double)p.dy[i];
        db[at_b] += f->slope_b(a, b) * (double)p.dy[i];
    }
    check_everywhere(f->name, compute, &p, 3,
                     (expected[]){{"y", size, y}, {"da", size_a, da}, {"db", size_b, db}}, 1e-6,
                     1e-6 + 1e-9 * (double)size);
    free(p.a);
    free(p.b);
    free(p.dy);
    free(y);
    free(da);
    free(db);
}

START_TEST(broadcasting) {
    for (size_t i = 0; i < sizeof all_shapes / sizeof all_shapes[0]; i++) {
        check_shapes(&operations[_i], &all_shapes[i], 10 * i + 1);
    }
}
END_TEST

/* y = x op x, and a gradient that must be added to an earlier one. */
START_TEST(one_tensor_twice) {
    const operation *f = &operations[_i];
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[5] = {0.5, 1, 2, 3, 4};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 5));
    tl_tensor *z = tl_add(tape, f->apply(tape, x, x), x);
    ck_assert_int_eq(tl_backward_from(tape, 1, &z, NULL), TL_OK);
    for (int i = 0; i < 5; i++) {
        const double v = (double)values[i];
        const double want = f->slope_a(v, v) + f->slope_b(v, v) + 1.0;
        ck_assert_double_eq_tol((double)tl_tensor_grad(x)[i], want, 1e-5);
    }
    tl_tape_free(tape);
}
END_TEST

/* The same where a result, whose gradient buffer may be handed over, is used twice. */
START_TEST(one_result_twice) {
    const operation *f = &operations[_i];
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[5] = {0.5, 1, 2, 3, 4};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 5));
    tl_tensor *h = tl_scale(tape, x, 3.0);
    tl_tensor *z = tl_sub(tape, f->apply(tape, h, h), tl_scale(tape, h, 0.5));
    ck_assert_int_eq(tl_backward_from(tape, 1, &z, NULL), TL_OK);
    for (int i = 0; i < 5; i++) {
        const double v = 3.0 * (double)values[i];
        const double want = 3.0 * (f->slope_a(v, v) + f->slope_b(v, v) - 0.5);
        ck_assert_double_eq_tol((double)tl_tensor_grad(x)[i], want, 1e-4);
    }
    tl_tape_free(tape);
}
END_TEST

START_TEST(one_operand_without_gradient) {
    const operation *f = &operations[_i];
    for (int side = 0; side < 2; side++) {
        tl_tape *tape = tl_tape_create(NULL);
        tl_real a[6] = {1, 2, 3, 4, 5, 6};
        tl_real b[3] = {2, 4, 5};
        const tl_array array_a = ARRAY(a, 2, 3);
        const tl_array array_b = ARRAY(b, 3);
        tl_tensor *ta = side == 0 ? tl_input_with_grad(tape, &array_a) : tl_input(tape, &array_a);
        tl_tensor *tb = side == 1 ? tl_input_with_grad(tape, &array_b) : tl_input(tape, &array_b);
        tl_tensor *y = f->apply(tape, ta, tb);
        ck_assert_int_eq(tl_backward_from(tape, 1, &y, NULL), TL_OK);
        if (side == 0) {
            ck_assert_ptr_null(tl_tensor_grad(tb));
            ck_assert_double_eq_tol((double)tl_tensor_grad(ta)[4], f->slope_a(5, 4), 1e-6);
        } else {
            ck_assert_ptr_null(tl_tensor_grad(ta));
            ck_assert_double_eq_tol((double)tl_tensor_grad(tb)[1],
                                    f->slope_b(2, 4) + f->slope_b(5, 4), 1e-6);
        }
        tl_tape_free(tape);
    }
}
END_TEST

START_TEST(scale) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[3] = {1, -2, 3};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 3));
    tl_tensor *y = tl_scale(tape, x, -2.5);
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, (const tl_real *const[]){values}), TL_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert(tl_tensor_data(y)[i] == (tl_real)-2.5 * values[i]);
        ck_assert(tl_tensor_grad(x)[i] == (tl_real)-2.5 * values[i]);
    }
    tl_tape_free(tape);
}
END_TEST

START_TEST(errors) {
    const operation *f = &operations[_i];
    tl_tape *tape = tl_tape_create(NULL);
    tl_real data[12] = {0};
    ck_assert_ptr_null(f->apply(tape, tl_input(tape, ARRAY_POINTER(data, 2, 3)),
                                tl_input(tape, ARRAY_POINTER(data, 2, 4))));
    assert_tape_error(tape, TL_ERROR_SHAPE, "shapes [2, 3] and [2, 4] do not broadcast");
    assert_tape_error(tape, TL_ERROR_SHAPE, f->name);
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("arithmetic", &test_case);
    tcase_add_loop_test(test_case, broadcasting, 0, 4);
    tcase_add_loop_test(test_case, one_tensor_twice, 0, 4);
    tcase_add_loop_test(test_case, one_result_twice, 0, 4);
    tcase_add_loop_test(test_case, one_operand_without_gradient, 0, 4);
    tcase_add_test(test_case, scale);
    tcase_add_loop_test(test_case, errors, 0, 4);
    return run_suite(suite);
}
