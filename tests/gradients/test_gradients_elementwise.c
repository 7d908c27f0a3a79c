/* Gradients of activations, broadcasting arithmetic, sums and means. */
#include "gradients/gradient_check.h"

/* ------------------------------------------------------------------ activations */

typedef tl_tensor *(*unary_function)(tl_tape *tape, tl_tensor *x);

static tl_tensor *leaky_relu(tl_tape *tape, tl_tensor *x) {
    return tl_leaky_relu(tape, x, 0.2);
}

static tl_tensor *leaky_relu_negative(tl_tape *tape, tl_tensor *x) {
    return tl_leaky_relu(tape, x, -0.3);
}

static tl_tensor *gelu(tl_tape *tape, tl_tensor *x) {
    return tl_gelu(tape, x, TL_GELU_EXACT);
}

static tl_tensor *gelu_tanh(tl_tape *tape, tl_tensor *x) {
    return tl_gelu(tape, x, TL_GELU_TANH);
}

static tl_tensor *elu(tl_tape *tape, tl_tensor *x) {
    return tl_elu(tape, x, 0.7);
}

static tl_tensor *softplus(tl_tape *tape, tl_tensor *x) {
    return tl_softplus(tape, x, 1.5, 20.0);
}

/* beta x > threshold from x = 1 on */
static tl_tensor *softplus_threshold(tl_tape *tape, tl_tensor *x) {
    return tl_softplus(tape, x, 2.0, 2.0);
}

static tl_tensor *scale(tl_tape *tape, tl_tensor *x) {
    return tl_scale(tape, x, -1.7);
}

typedef struct unary {
    const char *name;
    unary_function apply;
    double kink;
    bool has_kink;
} unary;

static const unary unaries[] = {
    {"relu", tl_relu, 0.0, true},
    {"leaky_relu", leaky_relu, 0.0, true},
    {"leaky_relu, negative slope", leaky_relu_negative, 0.0, true},
    {"gelu", gelu, 0.0, false},
    {"gelu_tanh", gelu_tanh, 0.0, false},
    {"silu", tl_silu, 0.0, false},
    {"sigmoid", tl_sigmoid, 0.0, false},
    {"tanh", tl_tanh, 0.0, false},
    {"elu", elu, 0.0, true},
    {"softplus", softplus, 0.0, false},
    {"softplus beyond the threshold", softplus_threshold, 1.0, true},
    {"scale", scale, 0.0, false},
};
enum { UNARIES = sizeof unaries / sizeof unaries[0] };

static tl_tensor *apply_unary(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return ((const unary *)user)->apply(tape, inputs[0]);
}

/* f(x) + f(x) f(x): gradients that are added to earlier ones. */
static tl_tensor *apply_unary_twice(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const unary *u = user;
    tl_tensor *y = u->apply(tape, inputs[0]);
    return tl_add(tape, u->apply(tape, inputs[0]), tl_mul(tape, y, u->apply(tape, inputs[0])));
}

START_TEST(activations) {
    const unary *u = &unaries[_i];
    gradient_input x = {.name = "x", .rank = 2, .shape = {5, 7}, .low = -3, .high = 3};
    if (u->has_kink) {
        x.keep_away = 1e-2;
        x.keep_away_from = u->kink;
    }
    gradient_problem problem = {
        .name = u->name, .forward = apply_unary, .user = u, .input_count = 1, .inputs = {x}};
    check_gradients(&problem);
    problem.forward = apply_unary_twice;
    check_gradients(&problem);
}
END_TEST

/* ------------------------------------------------------------------ arithmetic */

typedef tl_tensor *(*binary_function)(tl_tape *tape, tl_tensor *a, tl_tensor *b);

static const struct {
    const char *name;
    binary_function apply;
} binaries[] = {{"add", tl_add}, {"sub", tl_sub}, {"mul", tl_mul}, {"div", tl_div}};

static tl_tensor *apply_binary(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const binary_function *f = user;
    return (*f)(tape, inputs[0], inputs[1]);
}

static tl_tensor *apply_with_itself(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const binary_function *f = user;
    return tl_mul(tape, (*f)(tape, inputs[0], inputs[0]), inputs[0]);
}

/* Operands that are results: their gradient buffers may be handed over. */
static tl_tensor *apply_to_results(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const binary_function *f = user;
    tl_tensor *a = tl_scale(tape, inputs[0], 0.5);
    tl_tensor *b = tl_scale(tape, inputs[1], 1.5);
    return tl_add(tape, (*f)(tape, a, b), (*f)(tape, b, a));
}

START_TEST(arithmetic) {
    static const struct {
        int a_rank, b_rank;
        int64_t a[TL_MAX_RANK], b[TL_MAX_RANK];
    } shapes[] = {
        {0, 0, {0}, {0}},
        {2, 2, {3, 5}, {3, 5}},
        {3, 1, {2, 3, 5}, {5}},
        {1, 3, {5}, {2, 3, 5}},
        {4, 4, {3, 1, 5, 1}, {1, 4, 1, 6}},
        {4, 3, {2, 3, 4, 5}, {3, 1, 1}},
        {2, 0, {4, 3}, {0}},
        {3, 2, {4, 1, 7}, {3, 1}},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        gradient_problem problem = {
            .name = binaries[_i].name,
            .forward = apply_binary,
            .user = &binaries[_i].apply,
            .input_count = 2,
            .inputs = {{.name = "a", .rank = shapes[s].a_rank, .low = -2, .high = 2},
                       {.name = "b", .rank = shapes[s].b_rank, .low = 0.5, .high = 2}},
            .seed = s};
        for (int d = 0; d < TL_MAX_RANK; d++) {
            problem.inputs[0].shape[d] = shapes[s].a[d];
            problem.inputs[1].shape[d] = shapes[s].b[d];
        }
        check_gradients(&problem);
        problem.inputs[0].low = 0.5;
        problem.forward = apply_to_results;
        if (binaries[_i].apply == tl_sub) {
            /* (a - b) + (b - a) */
            problem.inputs[0].zero_gradient = true;
            problem.inputs[1].zero_gradient = true;
        }
        check_gradients(&problem);
    }
}
END_TEST

START_TEST(one_tensor_twice) {
    gradient_problem problem = {
        .name = binaries[_i].name,
        .forward = apply_with_itself,
        .user = &binaries[_i].apply,
        .input_count = 1,
        .inputs = {{.name = "x", .rank = 2, .shape = {3, 4}, .low = 0.5, .high = 2}}};
    problem.inputs[0].zero_gradient = binaries[_i].apply == tl_sub; /* (x - x) x */
    check_gradients(&problem);
}
END_TEST

/* ------------------------------------------------------------------ sums and means */

typedef struct reduction {
    int rank;
    int64_t shape[TL_MAX_RANK];
    int count; /* -1: all */
    int dims[TL_MAX_RANK];
    bool keep_dims;
    bool mean;
} reduction;

static tl_tensor *apply_reduction(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const reduction *r = user;
    const int *dims = r->count < 0 ? NULL : r->dims;
    return r->mean ? tl_mean(tape, inputs[0], r->count, dims, r->keep_dims)
                   : tl_sum(tape, inputs[0], r->count, dims, r->keep_dims);
}

START_TEST(reductions) {
    static const reduction cases[] = {
        {0, {0}, -1, {0}, false, false},
        {1, {17}, 1, {0}, false, false},
        {2, {3, 5}, 1, {0}, false, false},
        {2, {3, 5}, 1, {1}, true, false},
        {4, {2, 3, 4, 3}, 2, {0, 2}, false, false},
        {4, {2, 3, 4, 3}, 2, {1, 3}, true, false},
        {3, {2, 1, 5}, 0, {0}, false, false},
        {3, {3, 4, 5}, -1, {0}, true, false},
    };
    for (int mean = 0; mean < 2; mean++) {
        reduction r = cases[_i];
        r.mean = mean == 1;
        gradient_problem problem = {.name = r.mean ? "mean" : "sum",
                                    .forward = apply_reduction,
                                    .user = &r,
                                    .input_count = 1,
                                    .inputs = {{.name = "x", .rank = r.rank}}};
        for (int d = 0; d < TL_MAX_RANK; d++) {
            problem.inputs[0].shape[d] = r.shape[d];
        }
        check_gradients(&problem);
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("elementwise gradients", &test_case);
    tcase_add_loop_test(test_case, activations, 0, UNARIES);
    tcase_add_loop_test(test_case, arithmetic, 0, 4);
    tcase_add_loop_test(test_case, one_tensor_twice, 0, 4);
    tcase_add_loop_test(test_case, reductions, 0, 8);
    return run_suite(suite);
}
