/* Pooling and upsampling against their definition in double: every instruction set, odd sizes,
 * padding, strides that leave a rest; NaN; errors; the same bits at any number of threads. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/reference_pooling.h"

typedef enum kind { MAXIMUM, AVERAGE, AVERAGE_INSIDE, GLOBAL, NEAREST, BILINEAR } kind;

typedef struct pooling_case {
    kind kind;
    int rank;
    int64_t shape[5];
    tl_pool_config config;
    int64_t scale;
} pooling_case;

#define CONFIG(...)                                                                                \
    { __VA_ARGS__, .exclude_padding = false }

static const pooling_case cases[] = {
    {MAXIMUM, 4, {1, 3, 3, 1}, CONFIG(.kernel_size = {3, 3}), 0},
    {MAXIMUM, 4, {2, 13, 17, 5}, CONFIG({3, 3}, {2, 2}, {1, 1}), 0},
    {MAXIMUM, 4, {3, 8, 6, 16}, CONFIG(.kernel_size = {2, 2}), 0},
    {MAXIMUM, 4, {2, 9, 7, 33}, CONFIG({2, 3}, {2, 1}, {1, 2}), 0},
    {MAXIMUM, 4, {1, 1, 1, 3}, CONFIG({2, 2}, {1, 1}, {1, 1}), 0},
    {MAXIMUM, 4, {2, 20, 20, 3}, CONFIG({16, 16}, {3, 5}, {8, 15}), 0},
    {MAXIMUM, 4, {8, 24, 24, 32}, CONFIG(.kernel_size = {2, 2}), 0},
    {MAXIMUM, 3, {2, 31, 7}, CONFIG({4}, {3}, {2}), 0},
    {MAXIMUM, 5, {2, 5, 6, 7, 9}, CONFIG({2, 3, 2}, {1, 2, 2}, {0, 1, 1}), 0},
    {AVERAGE, 4, {1, 3, 3, 1}, CONFIG(.kernel_size = {3, 3}), 0},
    {AVERAGE, 4, {2, 13, 17, 5}, CONFIG({3, 3}, {2, 2}, {1, 1}), 0},
    {AVERAGE, 4, {8, 24, 24, 32}, CONFIG(.kernel_size = {2, 2}), 0},
    {AVERAGE, 4, {1, 40, 40, 2}, CONFIG({25, 30}, {7, 5}, {3, 0}), 0},
    {AVERAGE_INSIDE, 4, {2, 13, 17, 5}, CONFIG({3, 3}, {2, 2}, {1, 2}), 0},
    {AVERAGE_INSIDE, 5, {2, 5, 6, 7, 3}, CONFIG({2, 3, 2}, {1, 2, 2}, {1, 1, 1}), 0},
    {GLOBAL, 4, {1, 1, 1, 1}, CONFIG({0}), 0},
    {GLOBAL, 4, {3, 1, 17, 13}, CONFIG({0}), 0},
    {GLOBAL, 4, {2, 40, 50, 37}, CONFIG({0}), 0},
    {GLOBAL, 4, {16, 8, 8, 64}, CONFIG({0}), 0},
    {GLOBAL, 5, {2, 3, 4, 5, 130}, CONFIG({0}), 0},
    {GLOBAL, 2, {4, 7}, CONFIG({0}), 0},
    {NEAREST, 4, {1, 1, 1, 1}, CONFIG({0}), 2},
    {NEAREST, 4, {2, 5, 7, 3}, CONFIG({0}), 3},
    {NEAREST, 4, {3, 16, 16, 32}, CONFIG({0}), 2},
    {BILINEAR, 4, {1, 1, 1, 1}, CONFIG({0}), 2},
    {BILINEAR, 4, {1, 1, 3, 2}, CONFIG({0}), 1},
    {BILINEAR, 4, {2, 5, 7, 3}, CONFIG({0}), 3},
    {BILINEAR, 4, {1, 13, 6, 17}, CONFIG({0}), 4},
    {BILINEAR, 4, {3, 16, 16, 32}, CONFIG({0}), 2},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static tl_tensor *forward(const pooling_case *c, tl_tape *tape, tl_tensor *x) {
    tl_pool_config config = c->config;
    config.exclude_padding = c->kind == AVERAGE_INSIDE;
    switch (c->kind) {
    case MAXIMUM:
        return c->rank == 4 ? tl_max_pool2d(tape, x, &config) : tl_max_pool(tape, x, &config);
    case AVERAGE:
    case AVERAGE_INSIDE:
        return c->rank == 4 ? tl_avg_pool2d(tape, x, &config) : tl_avg_pool(tape, x, &config);
    case GLOBAL:
        return tl_global_avg_pool(tape, x);
    default:
        return tl_upsample(tape, x, c->scale,
                           c->kind == NEAREST ? TL_UPSAMPLE_NEAREST : TL_UPSAMPLE_BILINEAR);
    }
}

/* The same problem for the reference: three spatial dimensions, the missing ones first. */
static reference_pooling problem_of(const pooling_case *c) {
    reference_pooling p = {.images = c->shape[0],
                           .channels = c->shape[c->rank - 1],
                           .maximum = c->kind == MAXIMUM,
                           .count_padding = c->kind == AVERAGE};
    for (int d = 0; d < 3; d++) {
        const int i = d - (5 - c->rank);
        const bool missing = i < 0;
        const bool global = c->kind == GLOBAL;
        p.in[d] = missing ? 1 : c->shape[1 + i];
        p.kernel[d] = missing ? 1 : global ? p.in[d] : c->config.kernel_size[i];
        p.stride[d] =
            missing || global || c->config.stride[i] == 0 ? p.kernel[d] : c->config.stride[i];
        p.padding[d] = missing || global ? 0 : c->config.padding[i];
        p.out[d] = (p.in[d] + 2 * p.padding[d] - p.kernel[d]) / p.stride[d] + 1;
    }
    return p;
}

typedef struct pooling_run {
    tl_context *context;
    tl_tape *tape;
    tl_tensor *x, *y;
} pooling_run;

static int64_t size_of(const pooling_case *c) {
    int64_t size = 1;
    for (int d = 0; d < c->rank; d++) {
        size *= c->shape[d];
    }
    return size;
}

static pooling_run run_case(const pooling_case *c, tl_real *x, tl_real **dy, int threads,
                            const char *isa) {
    pooling_run r = {.context = context_with(threads, isa)};
    r.tape = tl_tape_create(r.context);
    const tl_array array = array_of(c->rank, c->shape, x);
    r.x = tl_input_with_grad(r.tape, &array);
    r.y = forward(c, r.tape, r.x);
    ck_assert_msg(r.y != NULL, "%s", tl_tape_error(r.tape)->message);
    if (*dy == NULL) {
        *dy = random_values(tl_tensor_size(r.y), 2, -1, 1);
    }
    const tl_real *cotangent = *dy;
    ck_assert_int_eq(tl_backward_from(r.tape, 1, &r.y, &cotangent), TL_OK);
    return r;
}

static void free_run(pooling_run *r) {
    tl_tape_free(r->tape);
    tl_context_free(r->context);
}

static void check_case(const pooling_case *c, const char *isa) {
    tl_real *x = random_values(size_of(c), 1, -1, 1);
    tl_real *dy = NULL;
    pooling_run r = run_case(c, x, &dy, 2, isa);
    const int64_t out = tl_tensor_size(r.y);
    double *y = malloc((size_t)out * sizeof *y);
    double *dx = malloc((size_t)size_of(c) * sizeof *dx);
    if (c->kind == NEAREST || c->kind == BILINEAR) {
        const reference_upsample problem = {c->shape[0], c->shape[1], c->shape[2],
                                            c->shape[3], c->scale,    c->kind == BILINEAR};
        ck_assert_int_eq(out, size_of(c) * c->scale * c->scale);
        reference_upsample_run(&problem, x, dy, y, dx);
    } else {
        const reference_pooling problem = problem_of(c);
        ck_assert_int_eq(out, problem.images * problem.out[0] * problem.out[1] * problem.out[2] *
                                  problem.channels);
        reference_pooling_run(&problem, x, dy, y, dx);
    }
    assert_close("y", out, tl_tensor_data(r.y), y, 1e-6, 1e-7);
    assert_close("dx", size_of(c), tl_tensor_grad(r.x), dx, 1e-6, 1e-7);
    free_run(&r);
    free(x);
    free(dy);
    free(y);
    free(dx);
}

START_TEST(agrees_with_the_definition) {
    for (int i = 0; i < 3; i++) {
        if (isa_available(all_isas[i])) {
            check_case(&cases[_i], all_isas[i]);
        }
    }
}
END_TEST

START_TEST(threads_do_not_change_bits) {
    const pooling_case *c = &cases[_i];
    tl_real *x = random_values(size_of(c), 1, -1, 1);
    tl_real *dy = NULL;
    pooling_run one = run_case(c, x, &dy, 1, NULL);
    for (int threads = 2; threads <= 3; threads++) {
        pooling_run r = run_case(c, x, &dy, threads, NULL);
        assert_same_bits("y", tl_tensor_size(r.y), tl_tensor_data(one.y), tl_tensor_data(r.y));
        assert_same_bits("dx", size_of(c), tl_tensor_grad(one.x), tl_tensor_grad(r.x));
        free_run(&r);
    }
    free_run(&one);
    free(x);
    free(dy);
}
END_TEST

/* Every channel has its own NaN, -infinity or tie; the gradient must stay within the window. */
START_TEST(max_pool_survives_special_values) {
    enum { C = 20 };
    tl_real x[4 * C];
    for (int i = 0; i < 4; i++) {
        for (int c = 0; c < C; c++) {
            x[i * C + c] = c % 5 == 4 ? -(tl_real)INFINITY : c % 5 == i ? (tl_real)NAN : 1;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (!isa_available(all_isas[i])) {
            continue;
        }
        tl_context *context = context_with(1, all_isas[i]);
        tl_tape *tape = tl_tape_create(context);
        const tl_array array = ARRAY(x, 1, 2, 2, C);
        tl_tensor *input = tl_input_with_grad(tape, &array);
        tl_tensor *y = tl_max_pool2d(tape, input, &(tl_pool_config){.kernel_size = {2, 2}});
        ck_assert_int_eq(tl_backward_from(tape, 1, &y, NULL), TL_OK);
        for (int c = 0; c < C; c++) {
            const tl_real value = tl_tensor_data(y)[c];
            ck_assert(c % 5 == 4 ? isinf((double)value) : isnan((double)value));
            for (int k = 0; k < 4; k++) {
                const int place = c % 5 == 4 ? 0 : c % 5;
                ck_assert(tl_tensor_grad(input)[k * C + c] == (k == place ? 1 : 0));
            }
        }
        tl_tape_free(tape);
        tl_context_free(context);
    }
}
END_TEST

START_TEST(max_pool_keeps_a_byte_per_value) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2 * 4 * 4 * 3] = {0};
    const tl_array array = ARRAY(values, 2, 4, 4, 3);
    tl_tensor *x = tl_input_with_grad(tape, &array);
    ck_assert_ptr_nonnull(tl_max_pool2d(tape, x, &(tl_pool_config){.kernel_size = {2, 2}}));
    ck_assert_uint_eq(tl_tape_cost(tape).saved_bytes, 2 * 2 * 2 * 3);
    ck_assert_ptr_nonnull(tl_avg_pool2d(tape, x, &(tl_pool_config){.kernel_size = {2, 2}}));
    ck_assert_ptr_nonnull(tl_global_avg_pool(tape, x));
    ck_assert_ptr_nonnull(tl_upsample(tape, x, 2, TL_UPSAMPLE_BILINEAR));
    ck_assert_uint_eq(tl_tape_cost(tape).saved_bytes, 2 * 2 * 2 * 3);
    tl_tape_free(tape);
}
END_TEST

START_TEST(wrong_use_is_an_error) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[48] = {0};
    const tl_array image = ARRAY(values, 1, 4, 4, 3);
    const tl_array sequence = ARRAY(values, 1, 4, 3);
    const tl_array vector = ARRAY(values, 3);
#define FAILS(call, status, part)                                                                  \
    do {                                                                                           \
        tl_tape_reset(tape);                                                                       \
        tl_tensor *x = tl_input(tape, &image);                                                     \
        tl_tensor *s = tl_input(tape, &sequence);                                                  \
        tl_tensor *v = tl_input(tape, &vector);                                                    \
        ck_assert_ptr_null(call);                                                                  \
        (void)x, (void)s, (void)v;                                                                 \
        assert_tape_error(tape, status, part);                                                     \
    } while (0)
#define POOL(...) &(tl_pool_config){__VA_ARGS__}
    FAILS(tl_max_pool2d(tape, s, POOL(.kernel_size = {2, 2})), TL_ERROR_SHAPE,
          "max_pool2d: x must be [N, H, W, C], found [1, 4, 3]");
    FAILS(tl_max_pool(tape, v, POOL(.kernel_size = {2})), TL_ERROR_SHAPE,
          "max_pool: x must be [N, spatial..., C] with one to three spatial dimensions");
    FAILS(tl_avg_pool2d(tape, x, NULL), TL_ERROR_INVALID_ARGUMENT, "config is NULL");
    FAILS(tl_avg_pool2d(tape, x, POOL(.kernel_size = {2, 0})), TL_ERROR_INVALID_ARGUMENT,
          "kernel_size and stride must be at least 1, found 0 and 0 in dimension 1");
    FAILS(tl_avg_pool2d(tape, x, POOL(.kernel_size = {2, 2}, .stride = {-1, 1})),
          TL_ERROR_INVALID_ARGUMENT, "found 2 and -1 in dimension 0");
    FAILS(tl_max_pool2d(tape, x, POOL(.kernel_size = {2, 2}, .padding = {2, 0})),
          TL_ERROR_INVALID_ARGUMENT, "padding must be less than kernel_size 2, found 2");
    FAILS(tl_max_pool2d(tape, x, POOL(.kernel_size = {2, 5})), TL_ERROR_SHAPE,
          "kernel_size 5 exceeds the padded extent 4 of x in dimension 1");
    FAILS(tl_max_pool2d(tape, x, POOL(.kernel_size = {17, 16}, .padding = {16, 15})),
          TL_ERROR_UNSUPPORTED, "a window has at most 256 positions, found 272");
    FAILS(tl_global_avg_pool(tape, v), TL_ERROR_SHAPE, "x must be [N, spatial..., C], found [3]");
    FAILS(tl_upsample(tape, s, 2, TL_UPSAMPLE_NEAREST), TL_ERROR_SHAPE,
          "upsample: x must be [N, H, W, C], found [1, 4, 3]");
    FAILS(tl_upsample(tape, x, 0, TL_UPSAMPLE_NEAREST), TL_ERROR_INVALID_ARGUMENT,
          "scale must be 1 to 65536, found 0");
    FAILS(tl_upsample(tape, x, 2, (tl_upsample_mode)7), TL_ERROR_INVALID_ARGUMENT,
          "unknown mode 7");
#undef POOL
#undef FAILS
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("pooling", &test_case);
    tcase_add_loop_test(test_case, agrees_with_the_definition, 0, CASES);
    tcase_add_loop_test(test_case, threads_do_not_change_bits, 0, CASES);
    tcase_add_test(test_case, max_pool_survives_special_values);
    tcase_add_test(test_case, max_pool_keeps_a_byte_per_value);
    tcase_add_test(test_case, wrong_use_is_an_error);
    return run_suite(suite);
}
