/* matmul, linear and the linear layer: values, errors, cost, frozen inputs. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "reference/reference_gemm.h"

#define INPUT(create, tape, data, ...) create(tape, (tl_array[]){ARRAY(data, __VA_ARGS__)})

START_TEST(values) {
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        tl_context *context = context_with(2, all_isas[isa]);
        tl_tape *tape = tl_tape_create(context);
        tl_real *a = random_values(2 * 5 * 33, 1, -1, 1);
        tl_real *b = random_values(2 * 33 * 7, 2, -1, 1);
        tl_tensor *y =
            tl_matmul(tape, INPUT(tl_input, tape, a, 2, 5, 33), INPUT(tl_input, tape, b, 2, 33, 7));
        double want[2 * 5 * 7];
        reference_gemm(5, 7, 33, false, false, a, 33, b, 7, want);
        reference_gemm(5, 7, 33, false, false, a + 5 * 33, 33, b + 33 * 7, 7, want + 35);
        assert_close("matmul", 70, tl_tensor_data(y), want, 1e-6, 1e-6);
        ck_assert(tl_tape_cost(tape).forward_flops == 2.0 * 2 * 5 * 33 * 7);

        tl_tensor *linear =
            tl_linear(tape, INPUT(tl_input, tape, a, 2, 5, 33), INPUT(tl_input, tape, b, 14, 33),
                      INPUT(tl_input, tape, a, 14));
        double product[10 * 14];
        reference_gemm(10, 14, 33, false, true, a, 33, b, 33, product);
        for (int i = 0; i < 140; i++) {
            product[i] += a[i % 14];
        }
        assert_close("linear", 140, tl_tensor_data(linear), product, 1e-6, 1e-6);
        ck_assert_int_eq(tl_tensor_rank(linear), 3);
        ck_assert(tl_tensor_shape(linear)[2] == 14);
        ck_assert_int_eq(tl_tape_status(tape), TL_OK);
        free(a);
        free(b);
        tl_tape_free(tape);
        tl_context_free(context);
    }
}
END_TEST

START_TEST(errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real *data = random_values(64, 1, -1, 1);
    tl_tensor *x23 = INPUT(tl_input, tape, data, 2, 3);
    ck_assert_ptr_null(tl_matmul(tape, x23, x23));
    assert_tape_error(tape, TL_ERROR_SHAPE, "matmul: expected a [..., M, K]");
    assert_tape_error(tape, TL_ERROR_SHAPE, "found a [2, 3] and b [2, 3]");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_matmul(tape, INPUT(tl_input, tape, data, 2, 3, 4),
                                 INPUT(tl_input, tape, data, 3, 4, 2)));
    assert_tape_error(tape, TL_ERROR_SHAPE, "equal leading dimensions");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_linear(tape, INPUT(tl_input, tape, data, 2, 3),
                                 INPUT(tl_input, tape, data, 5, 4), NULL));
    assert_tape_error(tape, TL_ERROR_SHAPE, "linear: expected x [..., I]");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_linear(tape, INPUT(tl_input, tape, data, 2, 3),
                                 INPUT(tl_input, tape, data, 5, 3),
                                 INPUT(tl_input, tape, data, 3)));
    assert_tape_error(tape, TL_ERROR_SHAPE, "bias [3]");
    free(data);
    tl_tape_free(tape);
}
END_TEST

/* Gradients of x, weight and bias. */
static void linear_gradients(int threads, tl_real *x, tl_real *w, tl_real *bias, tl_real *out) {
    tl_context *context = context_with(threads, NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *tx = INPUT(tl_input_with_grad, tape, x, 700, 60);
    tl_tensor *tw = INPUT(tl_input_with_grad, tape, w, 50, 60);
    tl_tensor *tb = INPUT(tl_input_with_grad, tape, bias, 50);
    tl_tensor *y = tl_linear(tape, tx, tw, tb);
    tl_tensor *z = tl_linear(tape, y, INPUT(tl_input, tape, x, 20, 50), NULL);
    ck_assert_int_eq(tl_backward_from(tape, 1, &z, (const tl_real *const[]){x}), TL_OK);
    memcpy(out, tl_tensor_grad(tx), 700 * 60 * sizeof *out);
    memcpy(out + 42000, tl_tensor_grad(tw), 50 * 60 * sizeof *out);
    memcpy(out + 45000, tl_tensor_grad(tb), 50 * sizeof *out);
    tl_tape_free(tape);
    tl_context_free(context);
}

START_TEST(threads_agree) {
    tl_real *x = random_values(700 * 60, 1, -1, 1);
    tl_real *w = random_values(50 * 60, 2, -1, 1);
    tl_real *one = malloc(45050 * sizeof *one), *more = malloc(45050 * sizeof *more);
    linear_gradients(1, x, w, w, one);
    for (int threads = 2; threads <= 3; threads++) {
        linear_gradients(threads, x, w, w, more);
        assert_same_bits("linear gradients", 45050, one, more);
    }
    free(x);
    free(w);
    free(one);
    free(more);
}
END_TEST

START_TEST(layer) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_random random = tl_random_create(7, TL_RANDOM_INITIALIZE, 0);
    tl_linear_layer linear;
    ck_assert_int_eq(tl_linear_layer_init(&linear, parameters, "head",
                                          &(tl_linear_layer_config){.in_features = 6,
                                                                    .out_features = 4,
                                                                    .use_bias = true,
                                                                    .initialization = TL_LINEAR_HE},
                                          &random, &error),
                     TL_OK);
    ck_assert_ptr_eq(tl_parameters_find(parameters, "head.weight"), linear.weight);
    ck_assert_ptr_eq(tl_parameters_find(parameters, "head.bias"), linear.bias);
    ck_assert(tl_tensor_data(linear.weight)[0] != 0 && tl_tensor_data(linear.bias)[0] == 0);
    tl_linear_layer zero;
    ck_assert_int_eq(tl_linear_layer_init(
                         &zero, parameters, "zero",
                         &(tl_linear_layer_config){
                             .in_features = 4, .out_features = 3, .initialization = TL_LINEAR_ZERO},
                         &random, &error),
                     TL_OK);
    ck_assert_ptr_null(zero.bias);
    tl_tape *tape = tl_tape_create(context);
    tl_real x[12] = {1, 2, 3};
    tl_tensor *h = tl_linear_layer_forward(&linear, tape, INPUT(tl_input, tape, x, 2, 6));
    tl_tensor *y = tl_linear_layer_forward(&zero, tape, h);
    ck_assert(tl_tensor_size(y) == 6 && tl_tensor_data(y)[0] == 0);
    tl_tape_free(tape);

    ck_assert_int_eq(tl_linear_layer_init(&linear, parameters, "bad",
                                          &(tl_linear_layer_config){.in_features = 6}, &random,
                                          &error),
                     TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "found 6 and 0");
    ck_assert_int_eq(tl_linear_layer_init(&linear, parameters, "head",
                                          &(tl_linear_layer_config){.in_features = 6,
                                                                    .out_features = 4,
                                                                    .use_bias = true,
                                                                    .initialization = TL_LINEAR_HE},
                                          &random, NULL),
                     TL_ERROR_INVALID_ARGUMENT);
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("matmul", &test_case);
    tcase_add_test(test_case, values);
    tcase_add_test(test_case, errors);
    tcase_add_test(test_case, threads_agree);
    tcase_add_test(test_case, layer);
    return run_suite(suite);
}
