/* Convolutions against the definition, in all three directions, on every path and instruction set,
 * with 1, 2 and 3 threads; and their error messages. */
#include <stdlib.h>
#include <string.h>

#include "core/context_internal.h"
#include "reference/reference_convolution.h"
#include "support/support.h"

typedef struct conv_case {
    reference_conv2d c;
    bool winograd; /* the path it must take with 8 or fewer lanes */
} conv_case;

static const conv_case cases[] = {
    {{2, 8, 8, 16, 16, 3, 3, {1, 1}, {1, 1}, {1, 1}, 1, 0, 0}, true},
    {{3, 7, 7, 32, 16, 3, 3, {1, 1}, {1, 1}, {1, 1}, 1, 0, 0}, true},
    {{1, 5, 9, 16, 48, 3, 3, {1, 1}, {0, 2}, {1, 1}, 1, 0, 0}, true},
    {{2, 9, 7, 3, 16, 3, 3, {1, 1}, {1, 1}, {1, 1}, 1, 0, 0}, false},
    {{2, 9, 8, 16, 32, 3, 3, {2, 2}, {1, 1}, {1, 1}, 1, 0, 0}, false},
    {{2, 7, 5, 16, 32, 1, 1, {2, 2}, {0, 0}, {1, 1}, 1, 0, 0}, false},
    {{2, 5, 6, 17, 9, 1, 1, {1, 1}, {0, 0}, {1, 1}, 1, 0, 0}, false},
    {{1, 11, 13, 4, 6, 5, 3, {1, 2}, {2, 1}, {2, 1}, 2, 0, 0}, false},
    {{2, 6, 6, 8, 8, 3, 3, {1, 1}, {1, 1}, {1, 1}, 8, 0, 0}, false},
    {{1, 1, 1, 1, 1, 1, 1, {1, 1}, {0, 0}, {1, 1}, 1, 0, 0}, false},
    {{1, 4, 3, 2, 3, 3, 3, {1, 1}, {2, 2}, {1, 1}, 1, 0, 0}, false},
    {{1, 17, 3, 5, 7, 7, 1, {3, 1}, {3, 0}, {1, 1}, 1, 0, 0}, false},
};
enum { CASES = sizeof cases / sizeof cases[0] };

typedef struct outcome {
    tl_real *y, *dx, *dw;
} outcome;

static tl_real *copy_of(const tl_real *values, int64_t count) {
    ck_assert_ptr_nonnull(values);
    tl_real *copy = malloc((size_t)count * sizeof *copy);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, values, (size_t)count * sizeof *copy);
    return copy;
}

static outcome run(const reference_conv2d *c, const char *isa, int threads, tl_real *x, tl_real *w,
                   const tl_real *dy) {
    tl_context *context = context_with(threads, isa);
    tl_tape *tape = tl_tape_create(context);
    const tl_array x_array = ARRAY(x, c->batch, c->height, c->width, c->channels);
    const tl_array w_array =
        ARRAY(w, c->outputs, c->kernel_height, c->kernel_width, c->channels / c->groups);
    tl_tensor *xt = tl_input_with_grad(tape, &x_array);
    tl_tensor *wt = tl_input_with_grad(tape, &w_array);
    tl_tensor *y = tl_conv2d(tape, xt, wt, NULL,
                             &(tl_conv2d_config){.stride = {c->stride[0], c->stride[1]},
                                                 .padding = {c->padding[0], c->padding[1]},
                                                 .dilation = {c->dilation[0], c->dilation[1]},
                                                 .groups = c->groups});
    ck_assert_msg(y != NULL, "%s", tl_tape_error(tape)->message);
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, &dy), TL_OK);
    const outcome o = {copy_of(tl_tensor_data(y), tl_tensor_size(y)),
                       copy_of(tl_tensor_grad(xt), tl_tensor_size(xt)),
                       copy_of(tl_tensor_grad(wt), tl_tensor_size(wt))};
    tl_tape_free(tape);
    tl_context_free(context);
    return o;
}

static void free_outcome(outcome *o) {
    free(o->y);
    free(o->dx);
    free(o->dw);
}

START_TEST(agrees_with_the_definition) {
    reference_conv2d c = cases[_i].c;
    reference_conv2d_prepare(&c);
    const int64_t x_size = c.batch * c.height * c.width * c.channels;
    const int64_t y_size = c.batch * c.out_height * c.out_width * c.outputs;
    const int64_t w_size = c.outputs * c.kernel_height * c.kernel_width * (c.channels / c.groups);
    tl_real *x = random_values(x_size, 1, -1, 1);
    tl_real *w = random_values(w_size, 2, -1, 1);
    tl_real *dy = random_values(y_size, 3, -1, 1);
    double *want = malloc((size_t)(x_size + y_size + w_size) * sizeof *want);
    ck_assert_ptr_nonnull(want);
    double *want_dx = want + y_size;
    double *want_dw = want_dx + x_size;
    reference_conv2d_run(&c, x, w, dy, want, want_dx, want_dw);
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        outcome one = run(&c, all_isas[isa], 1, x, w, dy);
        assert_close("y", y_size, one.y, want, 3e-6, 1e-6);
        assert_close("dx", x_size, one.dx, want_dx, 3e-6, 1e-6);
        assert_close("dweight", w_size, one.dw, want_dw, 3e-6, 1e-6);
        for (int threads = 2; threads <= 3; threads++) {
            outcome more = run(&c, all_isas[isa], threads, x, w, dy);
            assert_same_bits("y", y_size, one.y, more.y);
            assert_same_bits("dx", x_size, one.dx, more.dx);
            assert_same_bits("dweight", w_size, one.dw, more.dw);
            free_outcome(&more);
        }
        free_outcome(&one);
    }
    free(x);
    free(w);
    free(dy);
    free(want);
}
END_TEST

START_TEST(takes_the_expected_path) {
    tl_context *context = context_with(1, "baseline");
    reference_conv2d c = cases[_i].c;
    reference_conv2d_prepare(&c);
    const tl_conv_shape shape = {.batch = c.batch,
                                 .in = {1, c.height, c.width},
                                 .out = {1, c.out_height, c.out_width},
                                 .kernel = {1, c.kernel_height, c.kernel_width},
                                 .stride = {1, c.stride[0], c.stride[1]},
                                 .padding = {0, c.padding[0], c.padding[1]},
                                 .dilation = {1, c.dilation[0], c.dilation[1]},
                                 .in_channels = c.channels,
                                 .out_channels = c.outputs,
                                 .groups = c.groups};
    const tl_conv_path path = context->kernels->conv->path(&shape, TL_CONV_FORWARD);
    ck_assert_int_eq(path == TL_CONV_PATH_WINOGRAD, cases[_i].winograd);
    tl_context_free(context);
}
END_TEST

START_TEST(mistakes_are_explained) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[1024] = {0};
    const tl_array x = ARRAY(values, 1, 4, 4, 3);
    const tl_array w = ARRAY(values, 2, 3, 3, 4);
    ck_assert_ptr_null(tl_conv2d(tape, tl_input(tape, &x), tl_input(tape, &w), NULL, NULL));
    assert_tape_error(tape, TL_ERROR_SHAPE, "conv2d: weight wants 4 input channels");
    tl_tape_reset(tape);
    const tl_array large = ARRAY(values, 2, 5, 5, 3);
    ck_assert_ptr_null(tl_conv2d(tape, tl_input(tape, &x), tl_input(tape, &large), NULL, NULL));
    assert_tape_error(tape, TL_ERROR_SHAPE, "leaves no output along dimension 1");
    tl_tape_reset(tape);
    const tl_array right = ARRAY(values, 2, 3, 3, 3);
    ck_assert_ptr_null(tl_conv2d(tape, tl_input(tape, &x), tl_input(tape, &right), NULL,
                                 &(tl_conv2d_config){.padding = {-1, 0}}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "padding at least 0");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_conv2d(tape, tl_input(tape, &x), tl_input(tape, &right), NULL,
                                 &(tl_conv2d_config){.groups = 2}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "groups 2 must divide the 3 input");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_conv2d(tape, tl_input(tape, &x), tl_input(tape, &right), NULL,
                                 &(tl_conv2d_config){.groups = -1}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "groups must be at least 1, found -1");
    tl_tape_reset(tape);
    const tl_array three = ARRAY(values, 3);
    ck_assert_ptr_null(
        tl_conv2d(tape, tl_input(tape, &x), tl_input(tape, &right), tl_input(tape, &three), NULL));
    assert_tape_error(tape, TL_ERROR_SHAPE, "bias must be [2], found [3]");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_conv1d(tape, tl_input(tape, &x), tl_input(tape, &right), NULL, NULL));
    assert_tape_error(
        tape, TL_ERROR_SHAPE,
        "conv1d: x and weight must have rank 3 (channels last), found x [1, 4, 4, 3]");
    tl_tape_reset(tape);
    const tl_array transposed = ARRAY(values, 3, 2, 2, 5);
    ck_assert_ptr_null(
        tl_conv_transpose2d(tape, tl_input(tape, &x), tl_input(tape, &transposed), NULL,
                            &(tl_conv_transpose2d_config){.output_padding = {0, 1}}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "below stride or dilation, found 1");
    tl_tape_free(tape);
}
END_TEST

START_TEST(layer) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_random random = tl_random_create(5, TL_RANDOM_INITIALIZE, 0);
    tl_conv2d_layer made;
    tl_conv2d_layer_config config = {.in_channels = 4,
                                     .out_channels = 6,
                                     .kernel_size = {3, 3},
                                     .padding = {1, 1},
                                     .groups = 2,
                                     .use_bias = true};
    ck_assert_int_eq(tl_conv2d_layer_init(&made, parameters, "conv", &config, &random, &error),
                     TL_OK);
    ck_assert_ptr_eq(tl_parameters_find(parameters, "conv.weight"), made.weight);
    ck_assert_ptr_eq(tl_parameters_find(parameters, "conv.bias"), made.bias);
    ck_assert_int_eq(tl_tensor_shape(made.weight)[3], 2);
    tl_tape *tape = tl_tape_create(context);
    tl_real values[2 * 5 * 5 * 4];
    fill_uniform(values, 2 * 5 * 5 * 4, 1, -1, 1);
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(values, 2, 5, 5, 4));
    tl_tensor *y = tl_conv2d_layer_forward(&made, tape, x);
    tl_tensor *same = tl_conv2d(tape, x, made.weight, made.bias,
                                &(tl_conv2d_config){.padding = {1, 1}, .groups = 2});
    assert_same_bits("layer", 2 * 5 * 5 * 6, tl_tensor_data(y), tl_tensor_data(same));
    tl_tape_free(tape);

    ck_assert_int_ne(tl_conv2d_layer_init(&made, parameters, "conv", &config, &random, NULL),
                     TL_OK); /* there is one of that name */
    config.groups = 3;
    ck_assert_int_ne(tl_conv2d_layer_init(&made, parameters, "odd", &config, &random, &error),
                     TL_OK);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "odd: groups must divide");
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("convolution", &test_case);
    tcase_add_loop_test(test_case, agrees_with_the_definition, 0, CASES);
    tcase_add_loop_test(test_case, takes_the_expected_path, 0, CASES);
    tcase_add_test(test_case, mistakes_are_explained);
    tcase_add_test(test_case, layer);
    return run_suite(suite);
}
