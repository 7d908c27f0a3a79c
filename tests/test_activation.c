/* Activations against libm in double: values, derivatives, accuracy, extremes, errors, cost. */
#include "support/everywhere.h"

#include <math.h>
#include <stdlib.h>

static const double pi = 3.14159265358979323846;

typedef struct activation {
    const char *name;
    tl_tensor *(*apply)(tl_tape *tape, tl_tensor *x);
    double (*value)(double x);
    double (*slope)(double x);
} activation;

static double sigmoid_value(double x) {
    return 1.0 / (1.0 + exp(-x));
}

static double sigmoid_slope(double x) {
    return sigmoid_value(x) * sigmoid_value(-x);
}

static double relu_value(double x) {
    return x > 0.0 ? x : 0.0;
}

static double relu_slope(double x) {
    return x > 0.0 ? 1.0 : 0.0;
}

static tl_tensor *leaky(tl_tape *tape, tl_tensor *x) {
    return tl_leaky_relu(tape, x, 0.125);
}

static double leaky_value(double x) {
    return x > 0.0 ? x : 0.125 * x;
}

static double leaky_slope(double x) {
    return x > 0.0 ? 1.0 : 0.125;
}

static tl_tensor *leaky_negative(tl_tape *tape, tl_tensor *x) {
    return tl_leaky_relu(tape, x, -0.5);
}

static double leaky_negative_value(double x) {
    return x > 0.0 ? x : -0.5 * x;
}

static double leaky_negative_slope(double x) {
    return x > 0.0 ? 1.0 : -0.5;
}

static tl_tensor *gelu(tl_tape *tape, tl_tensor *x) {
    return tl_gelu(tape, x, TL_GELU_EXACT);
}

static double normal_cdf(double x) {
    return 0.5 * erfc(-x / sqrt(2.0));
}

static double gelu_value(double x) {
    return x * normal_cdf(x);
}

static double gelu_slope(double x) {
    return normal_cdf(x) + x * exp(-x * x / 2.0) / sqrt(2.0 * pi);
}

static tl_tensor *gelu_tanh(tl_tape *tape, tl_tensor *x) {
    return tl_gelu(tape, x, TL_GELU_TANH);
}

static double gelu_tanh_value(double x) {
    return x / 2.0 * (1.0 + tanh(sqrt(2.0 / pi) * (x + 0.044715 * x * x * x)));
}

static double gelu_tanh_slope(double x) {
    const double t = tanh(sqrt(2.0 / pi) * (x + 0.044715 * x * x * x));
    const double du = sqrt(2.0 / pi) * (1.0 + 3.0 * 0.044715 * x * x);
    return (1.0 + t) / 2.0 + x / 2.0 * (1.0 - t * t) * du;
}

static double silu_value(double x) {
    return x * sigmoid_value(x);
}

static double silu_slope(double x) {
    return sigmoid_value(x) + x * sigmoid_slope(x);
}

static double tanh_slope(double x) {
    return 1.0 - tanh(x) * tanh(x);
}

static tl_tensor *elu(tl_tape *tape, tl_tensor *x) {
    return tl_elu(tape, x, 0.75);
}

static double elu_value(double x) {
    return x > 0.0 ? x : 0.75 * expm1(x);
}

static double elu_slope(double x) {
    return x > 0.0 ? 1.0 : 0.75 * exp(x);
}

static tl_tensor *softplus(tl_tape *tape, tl_tensor *x) {
    return tl_softplus(tape, x, 2.0, 4.0);
}

static double softplus_value(double x) {
    return 2.0 * x > 4.0 ? x : log1p(exp(2.0 * x)) / 2.0;
}

static double softplus_slope(double x) {
    return 2.0 * x > 4.0 ? 1.0 : sigmoid_value(2.0 * x);
}

static const activation activations[] = {
    {"relu", tl_relu, relu_value, relu_slope},
    {"leaky_relu", leaky, leaky_value, leaky_slope},
    {"leaky_relu with a negative slope", leaky_negative, leaky_negative_value,
     leaky_negative_slope},
    {"gelu", gelu, gelu_value, gelu_slope},
    {"gelu_tanh", gelu_tanh, gelu_tanh_value, gelu_tanh_slope},
    {"silu", tl_silu, silu_value, silu_slope},
    {"sigmoid", tl_sigmoid, sigmoid_value, sigmoid_slope},
    {"tanh", tl_tanh, tanh, tanh_slope},
    {"elu", elu, elu_value, elu_slope},
    {"softplus", softplus, softplus_value, softplus_slope},
};
enum { ACTIVATIONS = sizeof activations / sizeof activations[0] };

typedef struct problem {
    const activation *f;
    int64_t n;
    tl_real *x;
    tl_real *dy;
    bool twice; /* the input feeds a second operation, so that the gradient is added */
} problem;

static void compute(tl_tape *tape, const void *user, tl_real *out) {
    const problem *p = user;
    tl_tensor *x = tl_input_with_grad(tape, &(tl_array){.rank = 1, .shape = {p->n}, .data = p->x});
    tl_tensor *y = p->f->apply(tape, x);
    ck_assert_ptr_nonnull(y);
    append_values(&out, y);
    tl_tensor *second = p->twice ? p->f->apply(tape, x) : NULL;
    ck_assert_int_eq(tl_backward_from(tape, p->twice ? 2 : 1, (tl_tensor *[]){y, second},
                                      (const tl_real *const[]){p->dy, p->dy}),
                     TL_OK);
    append_grad(&out, x);
}

static void check_problem(const activation *f, int64_t n, bool twice) {
    problem p = {.f = f,
                 .n = n,
                 .x = random_values(n, 1, -6, 6),
                 .dy = random_values(n, 2, -1, 1),
                 .twice = twice};
    double *y = malloc((size_t)n * sizeof *y);
    double *dx = malloc((size_t)n * sizeof *dx);
    ck_assert(y != NULL && dx != NULL);
    for (int64_t i = 0; i < n; i++) {
        y[i] = f->value((double)p.x[i]);
        dx[i] = (twice ? 2.0 : 1.0) * f->slope((double)p.x[i]) * (double)p.dy[i];
    }
    check_everywhere(f->name, compute, &p, 2, (expected[]){{"y", n, y}, {"dx", n, dx}}, 1e-6, 5e-7);
    free(p.x);
    free(p.dy);
    free(y);
    free(dx);
}

START_TEST(values) {
    const activation *f = &activations[_i];
    const int64_t sizes[] = {1, 3, 17, 1000, 70001};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        check_problem(f, sizes[i], i % 2 == 1);
    }
}
END_TEST

START_TEST(extremes_are_finite) {
    const activation *f = &activations[_i];
    tl_real x[] = {-1e18f, -1e4f, -1000, -200, -100, -88,  -20,  -1e-30f, 0,
                   1e-30f, 20,    88,    100,  200,  1000, 1e4f, 1e18f};
    enum { N = sizeof x / sizeof x[0] };
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        tl_context *context = context_with(1, all_isas[isa]);
        tl_tape *tape = tl_tape_create(context);
        tl_tensor *input = tl_input_with_grad(tape, ARRAY_POINTER(x, N));
        tl_tensor *y = f->apply(tape, input);
        ck_assert_int_eq(tl_backward_from(tape, 1, &y, NULL), TL_OK);
        for (int i = 0; i < N; i++) {
            const double got = (double)tl_tensor_data(y)[i];
            const double slope = (double)tl_tensor_grad(input)[i];
            ck_assert_msg(isfinite(got) && isfinite(slope), "%s(%g): value %g, slope %g", f->name,
                          (double)x[i], got, slope);
            ck_assert_msg(fabs(slope) <= 1.2, "%s(%g): slope %g", f->name, (double)x[i], slope);
            if (fabs((double)x[i]) <= 1e4) {
                const double want = f->value((double)x[i]);
                ck_assert_msg(fabs(got - want) <= 1e-6 * fabs(want) + 1e-30, "%s(%g): %g, not %g",
                              f->name, (double)x[i], got, want);
            }
        }
        tl_tape_free(tape);
        tl_context_free(context);
    }
}
END_TEST

START_TEST(nan_stays) {
    const activation *f = &activations[_i];
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        tl_context *context = context_with(1, all_isas[isa]);
        tl_tape *tape = tl_tape_create(context);
        tl_real x[9] = {(tl_real)NAN, 0, 0, 0, 0, 0, 0, 0, (tl_real)NAN};
        tl_tensor *y = f->apply(tape, tl_input(tape, ARRAY_POINTER(x, 9)));
        ck_assert_msg(isnan((double)tl_tensor_data(y)[0]) && isnan((double)tl_tensor_data(y)[8]) &&
                          isfinite((double)tl_tensor_data(y)[1]),
                      "%s on %s", f->name, all_isas[isa]);
        tl_tape_free(tape);
        tl_context_free(context);
    }
}
END_TEST

/* The relative errors that vector_math.h states. */
START_TEST(accuracy) {
    static const struct {
        const char *name;
        tl_tensor *(*apply)(tl_tape *tape, tl_tensor *x);
        double (*value)(double x);
        double low, high, bound;
    } table[] = {
        {"sigmoid", tl_sigmoid, sigmoid_value, -87, 88, 3e-7},
        {"tanh", tl_tanh, tanh, -20, 20, 4e-7},
        {"tanh near 0", tl_tanh, tanh, -1e-3, 1e-3, 4e-7},
        {"elu", elu, elu_value, -60, 0, 4e-7},
        {"elu near 0", elu, elu_value, -1e-3, 1e-3, 4e-7},
        {"softplus", softplus, softplus_value, -43, 2, 5e-7},
        {"gelu", gelu, gelu_value, -5, 5, 1e-6},
    };
    enum { N = 40000 };
    for (size_t t = 0; t < sizeof table / sizeof table[0]; t++) {
        tl_tape *tape = tl_tape_create(NULL);
        tl_real *x = random_values(N, t + 1, table[t].low, table[t].high);
        tl_tensor *y = table[t].apply(tape, tl_input(tape, ARRAY_POINTER(x, N)));
        double worst = 0.0;
        for (int i = 0; i < N; i++) {
            const double want = table[t].value((double)x[i]);
            worst =
                fmax(worst, want != 0.0 ? fabs(((double)tl_tensor_data(y)[i] - want) / want) : 0.0);
        }
        ck_assert_msg(worst <= table[t].bound, "%s: worst relative error %g", table[t].name, worst);
        free(x);
        tl_tape_free(tape);
    }
}
END_TEST

START_TEST(errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real value = 1;
    const tl_array scalar = {.rank = 0, .data = &value};
    ck_assert_ptr_null(tl_elu(tape, tl_input(tape, &scalar), -1.0));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "elu: alpha must be 0 or more, found -1");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_softplus(tape, tl_input(tape, &scalar), 0.0, 20.0));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "softplus: beta must be above 0, found 0");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_softplus(tape, tl_input(tape, &scalar), 1.0, NAN));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "softplus: threshold must be a number");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_leaky_relu(tape, tl_input(tape, &scalar), INFINITY));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "leaky_relu: negative_slope must be finite");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_relu(tape, NULL));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "relu: input 0 is NULL");
    tl_tape_free(tape);
}
END_TEST

START_TEST(saved_bytes) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real x[10] = {0};
    tl_tensor *y = tl_relu(tape, tl_input_with_grad(tape, ARRAY_POINTER(x, 10)));
    ck_assert_uint_eq(tl_tape_cost(tape).saved_bytes, 10 * sizeof(tl_real));
    /* a second operation that keeps the same values costs nothing more */
    ck_assert_ptr_nonnull(tl_gelu(tape, y, TL_GELU_EXACT));
    ck_assert_uint_eq(tl_tape_cost(tape).saved_bytes, 10 * sizeof(tl_real));
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("activation", &test_case);
    tcase_add_loop_test(test_case, values, 0, ACTIVATIONS);
    tcase_add_loop_test(test_case, extremes_are_finite, 0, ACTIVATIONS);
    tcase_add_loop_test(test_case, nan_stays, 0, ACTIVATIONS);
    tcase_add_test(test_case, accuracy);
    tcase_add_test(test_case, errors);
    tcase_add_test(test_case, saved_bytes);
    return run_suite(suite);
}
