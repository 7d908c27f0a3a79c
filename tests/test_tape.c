/* The tape: sticky errors, lifetimes, gradients, cost, memory. */
#include "support/failing_allocator.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ errors */

START_TEST(errors_stick) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {0};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2, 3));
    ck_assert_int_eq(tl_tape_status(tape), TL_OK);
    ck_assert_str_eq(tl_tape_error(tape)->message, "");
    ck_assert_ptr_null(tl_reshape(tape, x, 1, (int64_t[]){5}));
    assert_tape_error(tape, TL_ERROR_SHAPE, "reshape: ");
    /* the first error stays, and nothing works any more */
    ck_assert_ptr_null(tl_softmax(tape, x, 7));
    ck_assert_ptr_null(tl_relu(tape, x));
    ck_assert_ptr_null(tl_input(tape, ARRAY_POINTER(values, 6)));
    assert_tape_error(tape, TL_ERROR_SHAPE, "reshape: ");
    ck_assert_int_eq(tl_backward(tape, x), TL_ERROR_SHAPE);
    tl_tape_reset(tape);
    ck_assert_int_eq(tl_tape_status(tape), TL_OK);
    ck_assert_ptr_nonnull(tl_relu(tape, tl_input(tape, ARRAY_POINTER(values, 6))));
    tl_tape_free(tape);
}
END_TEST

START_TEST(null_passes_through) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {0};
    tl_tensor *bad = tl_reshape(tape, tl_input(tape, ARRAY_POINTER(values, 6)), 1, (int64_t[]){5});
    tl_tensor *loss = tl_sum(tape, tl_relu(tape, bad), 0, NULL, false);
    ck_assert_ptr_null(loss);
    ck_assert_int_eq(tl_backward(tape, loss), TL_ERROR_SHAPE);
    assert_tape_error(tape, TL_ERROR_SHAPE, "reshape: ");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_add(tape, tl_input(tape, ARRAY_POINTER(values, 6)), NULL));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "add: input 1 is NULL");
    ck_assert_ptr_null(tl_relu(NULL, NULL));
    ck_assert(isnan((double)tl_tensor_item(NULL)));
    tl_release(tape, NULL);
    tl_retain_grad(tape, NULL);
    tl_tape_free(tape);
    tl_tape_free(NULL);
}
END_TEST

/* x -> batch norm -> batch norm + relu -> reshape -> linear, twice: the second keeps every result.
 */
static tl_cost run_norms(tl_array x, tl_tensor *weight, bool release, tl_real *dx) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_tensor *in = tl_input_with_grad(tape, &x);
    tl_tensor *first = tl_batch_norm(tape, in, NULL, NULL, NULL, NULL, NULL);
    tl_tensor *second = tl_batch_norm_relu(tape, first, NULL, NULL, NULL, NULL, NULL, NULL);
    tl_tensor *view = tl_reshape(tape, second, 2, (int64_t[]){tl_tensor_size(in) / 6, 6});
    tl_tensor *y = tl_linear(tape, view, weight, NULL);
    tl_tensor *loss = tl_sum(tape, tl_mul(tape, y, y), 0, NULL, false);
    if (release) {
        tl_release(tape, first);
        tl_release(tape, second);
        tl_release(tape, view);
        tl_release(tape, y);
    }
    const tl_cost cost = tl_tape_cost(tape);
    ck_assert_int_eq(tl_backward(tape, loss), TL_OK);
    memcpy(dx, tl_tensor_grad(in), (size_t)tl_tensor_size(in) * sizeof *dx);
    tl_tape_free(tape);
    return cost;
}

/* Two residual blocks of linear layers; the second keeps its sum, as the first one's is made again.
 */
static tl_cost run_blocks(tl_array x, tl_tensor *weight, bool release, tl_real *dx) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_tensor *in = tl_input_with_grad(tape, &x);
    tl_tensor *stem = tl_linear(tape, in, weight, NULL);
    tl_tensor *inner = tl_batch_norm_relu(tape, stem, NULL, NULL, NULL, NULL, NULL, NULL);
    tl_tensor *second = tl_linear(tape, inner, weight, NULL);
    tl_tensor *sum = tl_batch_norm_relu(tape, second, stem, NULL, NULL, NULL, NULL, NULL);
    tl_tensor *third = tl_linear(tape, sum, weight, NULL);
    tl_tensor *last = tl_batch_norm_relu(tape, third, sum, NULL, NULL, NULL, NULL, NULL);
    tl_tensor *loss = tl_sum(tape, tl_mul(tape, last, last), 0, NULL, false);
    if (release) {
        tl_tensor *const results[] = {stem, inner, second, sum, third, last};
        for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
            tl_release(tape, results[i]);
        }
    }
    const tl_cost cost = tl_tape_cost(tape);
    ck_assert_msg(tl_backward(tape, loss) == TL_OK, "%s", tl_tape_error(tape)->message);
    memcpy(dx, tl_tensor_grad(in), (size_t)tl_tensor_size(in) * sizeof *dx);
    tl_tape_free(tape);
    return cost;
}

/* What is released and made again gives the same bits, for more FLOPs and two results less kept. */
static void check_made_again(tl_cost (*run)(tl_array, tl_tensor *, bool, tl_real *),
                             int64_t outputs) {
    enum { ROWS = 40, CHANNELS = 6, SIZE = ROWS * CHANNELS };
    tl_real *values = random_values(SIZE, 3, -1, 2);
    tl_real kept_dx[SIZE];
    tl_real dx[SIZE];
    tl_context *context = tl_context_create(NULL);
    tl_tensor *weight = tl_tensor_create(context, 2, (int64_t[]){outputs, CHANNELS}, true, NULL);
    fill_uniform(tl_tensor_data(weight), outputs * CHANNELS, 5, -1, 1);
    const tl_array x = array_of(2, (int64_t[]){ROWS, CHANNELS}, values);
    const tl_cost kept = run(x, weight, false, kept_dx);
    tl_real dweight[CHANNELS * CHANNELS];
    memcpy(dweight, tl_tensor_grad(weight), (size_t)(outputs * CHANNELS) * sizeof *dweight);
    tl_tensor_clear_grad(weight);
    const tl_cost made_again = run(x, weight, true, dx);
    assert_same_bits("dx", SIZE, dx, kept_dx);
    assert_same_bits("dweight", outputs * CHANNELS, tl_tensor_grad(weight), dweight);
    ck_assert_uint_eq(kept.saved_bytes - made_again.saved_bytes, 2 * SIZE * sizeof(tl_real));
    ck_assert(made_again.backward_flops_executed > kept.backward_flops_executed);
    ck_assert(made_again.backward_flops == kept.backward_flops);
    tl_tensor_free(weight);
    tl_context_free(context);
    free(values);
}

START_TEST(released_results_are_computed_again) {
    /* both normalised results: one is read by the other norm, one, through a view, by linear */
    check_made_again(run_norms, 4);
}
END_TEST

START_TEST(every_second_sum_is_computed_again) {
    check_made_again(run_blocks, 6);
}
END_TEST

START_TEST(parameters_freed_before_the_tape) {
    tl_context *context = tl_context_create(NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_real values[6] = {1, 2, 3, 4, 5, 6};
    tl_tensor *weight = tl_tensor_create(context, 2, (int64_t[]){4, 3}, true, NULL);
    fill_uniform(tl_tensor_data(weight), 12, 5, -1, 1);
    ck_assert_ptr_nonnull(
        tl_linear(tape, tl_input_with_grad(tape, ARRAY_POINTER(values, 2, 3)), weight, NULL));
    tl_tensor_free(weight);
    tl_tape_reset(tape); /* its nodes had saved the weight */
    tl_tape_free(tape);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}
END_TEST

START_TEST(bad_inputs) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {0};
    ck_assert_ptr_null(tl_input(tape, NULL));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "input: the array has no data");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_input(tape, ARRAY_POINTER(NULL, 6)));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "input: the array has no data");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_input(tape, ARRAY_POINTER(values, 6, 0)));
    assert_tape_error(tape, TL_ERROR_SHAPE, "input: a tensor needs a rank of 0 to 8");
    assert_tape_error(tape, TL_ERROR_SHAPE, "found rank 2 [6, 0]");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_input(tape, ARRAY_POINTER(values, INT64_MAX / 2, 3)));
    ck_assert_int_eq(tl_tape_status(tape), TL_ERROR_SHAPE);
    tl_tape_free(tape);
}
END_TEST

START_TEST(another_tape) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_tape *other = tl_tape_create(NULL);
    tl_real values[6] = {0};
    tl_tensor *x = tl_input_with_grad(other, ARRAY_POINTER(values, 1));
    ck_assert_ptr_null(tl_relu(tape, x));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "relu: input 0 belongs to another tape");
    tl_tape_reset(tape);
    ck_assert_int_eq(tl_backward(tape, tl_relu(other, x)), TL_ERROR_INVALID_ARGUMENT);
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "backward: the result is not of this tape");
    tl_release(tape, x);
    ck_assert_ptr_nonnull(tl_tensor_data(x));
    tl_tape_free(tape);
    tl_tape_free(other);
}
END_TEST

START_TEST(backward_at_the_wrong_time) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2] = {1, 2};
    tl_tensor *y = tl_relu(tape, tl_input_with_grad(tape, ARRAY_POINTER(values, 2)));
    ck_assert_int_eq(tl_backward(tape, y), TL_ERROR_SHAPE);
    assert_tape_error(tape, TL_ERROR_SHAPE, "backward: the loss must have one element, found [2]");
    tl_tape_reset(tape);
    ck_assert_int_eq(tl_backward(tape, NULL), TL_ERROR_INVALID_ARGUMENT);
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "backward: the result is NULL");
    tl_tape_reset(tape);
    y = tl_sum(tape, tl_input(tape, ARRAY_POINTER(values, 2)), 0, NULL, false);
    ck_assert_int_eq(tl_backward(tape, y), TL_ERROR_STATE);
    assert_tape_error(tape, TL_ERROR_STATE, "backward: nothing that the result depends on");
    tl_tape_reset(tape);
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2));
    y = tl_sum(tape, x, 0, NULL, false);
    ck_assert_int_eq(tl_backward(tape, y), TL_OK);
    ck_assert_ptr_null(tl_relu(tape, x));
    assert_tape_error(tape, TL_ERROR_STATE, "relu: the backward pass has run; reset the tape");
    tl_tape_reset(tape);
    y = tl_sum(tape, tl_input_with_grad(tape, ARRAY_POINTER(values, 2)), 0, NULL, false);
    ck_assert_int_eq(tl_backward(tape, y), TL_OK);
    ck_assert_int_eq(tl_backward(tape, y), TL_ERROR_STATE);
    assert_tape_error(tape, TL_ERROR_STATE, "backward: has run already");
    tl_tape_free(tape);
}
END_TEST

/* ------------------------------------------------------------------ lifetimes */

START_TEST(released_input) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[3] = {-1, 2, 3};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 3));
    tl_tensor *h = tl_scale(tape, x, 2.0);
    tl_tensor *y = tl_mul(tape, h, h);
    tl_release(tape, h);
    tl_release(tape, h);
    ck_assert_ptr_null(tl_tensor_data(h));
    tl_tensor *loss = tl_sum(tape, y, 0, NULL, false);
    ck_assert_int_eq(tl_backward(tape, loss), TL_OK);
    ck_assert(tl_tensor_grad(x)[0] == -8 && tl_tensor_grad(x)[2] == 24);
    tl_tape_reset(tape);
    h = tl_relu(tape, tl_input(tape, ARRAY_POINTER(values, 3)));
    tl_release(tape, h);
    ck_assert(isnan((double)tl_tensor_item(h)));
    ck_assert_ptr_null(tl_relu(tape, h));
    assert_tape_error(tape, TL_ERROR_STATE, "relu: input 0 was released before");
    tl_tape_free(tape);
}
END_TEST

/* A view shares its source's memory: releasing the source must not free it. */
START_TEST(released_source_of_a_view) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[4] = {1, 2, 3, 4};
    tl_tape_set_recording(tape, false);
    tl_tensor *h = tl_scale(tape, tl_input(tape, ARRAY_POINTER(values, 4)), 3.0);
    tl_tensor *v = tl_reshape(tape, h, 2, (int64_t[]){2, 2});
    tl_release(tape, h);
    tl_tensor *other = tl_scale(tape, tl_input(tape, ARRAY_POINTER(values, 4)), 0.0);
    ck_assert_ptr_ne(tl_tensor_data(other), tl_tensor_data(v));
    ck_assert(tl_tensor_data(v)[3] == 12);
    tl_tape_free(tape);
}
END_TEST

START_TEST(without_recording) {
    tl_context *context = context_with(1, NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_tape_set_recording(tape, false);
    ck_assert(!tl_tape_is_recording(tape));
    enum { N = 100000, STEPS = 20 };
    tl_real *values = random_values(N, 1, -1, 1);
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, N));
    for (int i = 0; i < STEPS; i++) {
        tl_tensor *y = tl_sigmoid(tape, x);
        tl_release(tape, x);
        x = y;
    }
    ck_assert_int_eq(tl_tape_status(tape), TL_OK);
    ck_assert(!tl_tensor_requires_grad(x));
    ck_assert_uint_eq(tl_tape_cost(tape).saved_bytes, 0);
    ck_assert(tl_tape_cost(tape).backward_flops == 0.0);
    /* two buffers suffice for any depth */
    ck_assert_uint_lt(tl_context_memory(context).peak, 4 * N * sizeof(tl_real));
    ck_assert_int_eq(tl_backward_from(tape, 1, &x, NULL), TL_ERROR_STATE);
    tl_tape_free(tape);
    free(values);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}
END_TEST

/* ------------------------------------------------------------------ gradients */

START_TEST(gradients_accumulate) {
    tl_context *context = context_with(1, NULL);
    tl_error error;
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *w = tl_tensor_create(context, 1, (int64_t[]){2}, true, &error);
    ck_assert_ptr_null(tl_tensor_grad(w));
    tl_real values[2] = {3, 4};
    for (int pass = 1; pass <= 2; pass++) {
        tl_tensor *y = tl_mul(tape, w, tl_input(tape, ARRAY_POINTER(values, 2)));
        ck_assert_int_eq(tl_backward(tape, tl_sum(tape, y, 0, NULL, false)), TL_OK);
        tl_tape_reset(tape);
        ck_assert(tl_tensor_grad(w)[0] == (tl_real)(3 * pass) &&
                  tl_tensor_grad(w)[1] == (tl_real)(4 * pass));
    }
    tl_tensor_clear_grad(w);
    ck_assert_ptr_null(tl_tensor_grad(w));
    tl_tensor *y = tl_sum(tape, w, 0, NULL, false);
    ck_assert_int_eq(tl_backward(tape, y), TL_OK);
    ck_assert(tl_tensor_grad(w)[0] == 1);
    tl_tensor_set_requires_grad(w, false);
    ck_assert(!tl_tensor_requires_grad(w));
    tl_tape_reset(tape);
    y = tl_sum(tape, w, 0, NULL, false);
    ck_assert_int_eq(tl_backward(tape, y), TL_ERROR_STATE);
    tl_tape_free(tape);
    tl_tensor_free(w);
    tl_context_free(context);
}
END_TEST

START_TEST(retained_gradients) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2] = {1, 2};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2));
    tl_tensor *h = tl_scale(tape, x, 2.0);
    tl_tensor *v = tl_reshape(tape, h, 2, (int64_t[]){2, 1});
    tl_tensor *y = tl_add(tape, v, v);
    tl_retain_grad(tape, h);
    tl_retain_grad(tape, v);
    const tl_real seed[2] = {1, 10};
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, (const tl_real *const[]){seed}), TL_OK);
    ck_assert(tl_tensor_grad(h)[0] == 2 && tl_tensor_grad(h)[1] == 20);
    ck_assert(tl_tensor_grad(v)[0] == 2 && tl_tensor_grad(v)[1] == 20);
    ck_assert(tl_tensor_grad(x)[0] == 4 && tl_tensor_grad(x)[1] == 40);
    ck_assert_ptr_null(tl_tensor_grad(y));
    tl_tape_free(tape);
}
END_TEST

/* Cotangents of several results, one of which feeds another. */
START_TEST(several_results) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2] = {1, 2};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2));
    tl_tensor *outputs[2];
    outputs[0] = tl_scale(tape, x, 3.0);
    outputs[1] = tl_add(tape, outputs[0], x);
    const tl_real first[2] = {1, 2};
    ck_assert_int_eq(tl_backward_from(tape, 2, outputs, (const tl_real *const[]){first, NULL}),
                     TL_OK);
    /* 3 first + 3 + 1 */
    ck_assert(tl_tensor_grad(x)[0] == 7 && tl_tensor_grad(x)[1] == 10);
    tl_tape_reset(tape);
    x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2));
    outputs[0] = outputs[1] = tl_scale(tape, x, 3.0);
    ck_assert_int_eq(tl_backward_from(tape, 2, outputs, (const tl_real *const[]){first, first}),
                     TL_OK);
    ck_assert(tl_tensor_grad(x)[0] == 6 && tl_tensor_grad(x)[1] == 12);
    tl_tape_free(tape);
}
END_TEST

START_TEST(unused_branch) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2] = {1, 2};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2));
    tl_tensor *unused = tl_input_with_grad(tape, ARRAY_POINTER(values, 2));
    (void)tl_gelu(tape, unused, TL_GELU_EXACT);
    ck_assert_int_eq(tl_backward(tape, tl_sum(tape, x, 0, NULL, false)), TL_OK);
    ck_assert_ptr_null(tl_tensor_grad(unused));
    tl_tape_free(tape);
}
END_TEST

START_TEST(check_finite) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_tape_set_check_finite(tape, true);
    tl_real values[3] = {1, 0, 2};
    tl_tensor *one = tl_input(tape, ARRAY_POINTER(values, 1));
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(values, 3));
    tl_tensor *y = tl_sum(tape, tl_div(tape, one, x), 0, NULL, false);
    ck_assert_ptr_null(y);
    assert_tape_error(tape, TL_ERROR_NOT_FINITE, "div: the result has a NaN or an infinity");
    tl_tape_reset(tape);
    /* a finite value whose gradient overflows: 1e-30 / 1e-30, derivative -1 / 1e-30 times 1e30 */
    const double tiny = sizeof(tl_real) == 4 ? 1e-30 : 1e-250;
    tl_real small[1] = {(tl_real)tiny};
    tl_tensor *s = tl_input_with_grad(tape, ARRAY_POINTER(small, 1));
    y = tl_scale(tape, tl_div(tape, tl_input(tape, ARRAY_POINTER(small, 1)), s), 1.0 / tiny);
    ck_assert_ptr_nonnull(y);
    ck_assert_int_eq(tl_backward(tape, y), TL_ERROR_NOT_FINITE);
    assert_tape_error(tape, TL_ERROR_NOT_FINITE, "div: the gradient of input 1 has a NaN");
    tl_tape_free(tape);
}
END_TEST

/* ------------------------------------------------------------------ cost and memory */

START_TEST(cost_report) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {0};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 6));
    tl_tensor *y = tl_mul(tape, tl_sigmoid(tape, x), tl_sigmoid(tape, x));
    ck_assert_ptr_nonnull(y);
    int count;
    const tl_cost_entry *entries = tl_tape_cost_entries(tape, &count);
    ck_assert_int_eq(count, 2);
    ck_assert_str_eq(entries[0].operation, "sigmoid");
    ck_assert_int_eq(entries[0].calls, 2);
    ck_assert_uint_eq(entries[0].cost.saved_bytes, 12 * sizeof(tl_real));
    ck_assert_str_eq(entries[1].operation, "mul");
    ck_assert(entries[1].cost.forward_flops == 6.0);
    ck_assert(entries[1].cost.backward_flops == 24.0);
    /* what mul keeps, sigmoid keeps already */
    ck_assert_uint_eq(entries[1].cost.saved_bytes, 0);
    const tl_cost total = tl_tape_cost(tape);
    ck_assert(total.forward_flops == entries[0].cost.forward_flops + entries[1].cost.forward_flops);
    ck_assert(total.forward_flops_executed == total.forward_flops);
    ck_assert(total.backward_flops_executed == total.backward_flops);
    tl_tape_reset(tape);
    (void)tl_tape_cost_entries(tape, &count);
    ck_assert_int_eq(count, 0);
    tl_tape_free(tape);
}
END_TEST

/* A little network with a persistent weight: forward, backward. */
static tl_tensor *step(tl_tape *tape, tl_tensor *weight, const tl_array *array) {
    tl_tensor *x = tl_input(tape, array);
    tl_tensor *h = tl_mul(tape, x, weight);
    for (int i = 0; i < 5; i++) {
        tl_tensor *a = tl_silu(tape, h);
        tl_tensor *b =
            tl_add(tape, a, tl_permute(tape, tl_permute(tape, h, (int[]){1, 0}), (int[]){1, 0}));
        tl_release(tape, a);
        tl_release(tape, h);
        h = b;
    }
    tl_tensor *loss = tl_mse_loss(tape, h, x);
    (void)tl_backward(tape, loss);
    return loss;
}

START_TEST(second_step_allocates_nothing) {
    tl_context *context = context_with(2, NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *weight = tl_tensor_create(context, 1, (int64_t[]){100}, true, NULL);
    tl_real *values = random_values(100 * 100, 1, -1, 1);
    const tl_array array = ARRAY(values, 100, 100);
    const tl_array half = ARRAY(values, 50, 100);
    ck_assert_ptr_nonnull(step(tape, weight, &array));
    tl_tape_reset(tape);
    const tl_memory_usage before = tl_context_memory(context);
    for (int i = 0; i < 3; i++) {
        ck_assert_ptr_nonnull(step(tape, weight, &array));
        tl_tape_reset(tape);
    }
    const tl_memory_usage after = tl_context_memory(context);
    ck_assert_uint_eq(after.allocations, before.allocations);
    ck_assert_uint_eq(after.current, before.current);
    /* nor does evaluation in between, or a smaller batch */
    for (int i = 0; i < 4; i++) {
        tl_tape_set_recording(tape, false);
        (void)step(tape, weight, i % 2 == 0 ? &array : &half);
        tl_tape_reset(tape);
        tl_tape_set_recording(tape, true);
        ck_assert_ptr_nonnull(step(tape, weight, i % 2 == 0 ? &half : &array));
        tl_tape_reset(tape);
    }
    ck_assert_uint_eq(tl_context_memory(context).allocations, before.allocations);
    tl_tape_trim(tape);
    ck_assert_uint_lt(tl_context_memory(context).current, before.current);
    ck_assert_ptr_nonnull(step(tape, weight, &array));
    tl_tape_free(tape);
    tl_tensor_free(weight);
    free(values);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}
END_TEST

START_TEST(memory_limit) {
    tl_context *context = context_with(1, NULL);
    tl_tape *tape = tl_tape_create(context);
    enum { N = 1 << 20 };
    tl_real *values = random_values(N, 1, -1, 1);
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(values, N));
    const size_t limit = tl_context_memory(context).current + N * sizeof(tl_real) / 2;
    tl_context_set_memory_limit(context, limit);
    ck_assert_ptr_null(tl_relu(tape, x));
    assert_tape_error(tape, TL_ERROR_OUT_OF_MEMORY, "relu: out of memory: needs ");
    assert_tape_error(tape, TL_ERROR_OUT_OF_MEMORY, "of the limit of ");
    ck_assert_uint_le(tl_context_memory(context).current, limit);
    tl_tape_reset(tape);
    tl_context_set_memory_limit(context, 0);
    ck_assert_ptr_nonnull(tl_relu(tape, tl_input(tape, ARRAY_POINTER(values, N))));
    tl_context_reset_peak(context);
    ck_assert_uint_eq(tl_context_memory(context).peak, tl_context_memory(context).current);
    tl_tape_free(tape);
    free(values);
    tl_context_free(context);
}
END_TEST

/* Everything from the context on, with the k-th allocation failing. True if all went well. */
static bool session(failing_allocator *allocator) {
    tl_real values[60 * 40];
    fill_uniform(values, 60 * 40, 1, -1, 1);
    tl_error error;
    tl_context *context = tl_context_create(&(tl_context_config){
        .threads = 1, .allocator = failing_allocator_with(allocator), .error = &error});
    if (context == NULL) {
        ck_assert_int_eq(error.status, TL_ERROR_OUT_OF_MEMORY);
        return false;
    }
    tl_tape *tape = tl_tape_create(context);
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_tensor *weight = NULL;
    if (parameters != NULL) {
        weight = tl_parameters_add(parameters, "layer", "weight", TL_GROUP_WEIGHT, "in", 1,
                                   (int64_t[]){40}, &error);
    }
    bool done = false;
    if (tape != NULL && weight != NULL) {
        const tl_array array = ARRAY(values, 60, 40);
        for (int i = 0; i < 2; i++) {
            (void)step(tape, weight, &array);
            done = tl_tape_status(tape) == TL_OK;
            ck_assert(done || tl_tape_status(tape) == TL_ERROR_OUT_OF_MEMORY);
            tl_tape_reset(tape);
        }
    }
    tl_tape_free(tape);
    tl_parameters_free(parameters);
    tl_context_free(context);
    return done;
}

START_TEST(failing_allocations) {
    failing_allocator allocator = {0};
    ck_assert(session(&allocator));
    ck_assert_int_eq(allocator.live, 0);
    const int64_t calls = allocator.calls;
    ck_assert_int_gt(calls, 5);
    for (int64_t k = 1; k <= calls; k++) {
        allocator = (failing_allocator){.fail_at = k};
        (void)session(&allocator);
        ck_assert_msg(allocator.live == 0 && allocator.bytes == 0,
                      "%lld blocks leak when allocation %lld fails", (long long)allocator.live,
                      (long long)k);
    }
}
END_TEST

/* A failed step leaves the tape usable. */
START_TEST(recovers_from_out_of_memory) {
    failing_allocator allocator = {0};
    tl_context *context = tl_context_create(
        &(tl_context_config){.threads = 1, .allocator = failing_allocator_with(&allocator)});
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *weight = tl_tensor_create(context, 1, (int64_t[]){40}, true, NULL);
    tl_real values[60 * 40];
    fill_uniform(values, 60 * 40, 1, -1, 1);
    const tl_array array = ARRAY(values, 60, 40);
    bool failed = false;
    for (int i = 0; i < 200; i++) {
        allocator.fail_at = allocator.calls + 1 + i % 7;
        tl_tape_trim(tape);
        (void)step(tape, weight, &array);
        failed = failed || tl_tape_status(tape) == TL_ERROR_OUT_OF_MEMORY;
        tl_tape_reset(tape);
    }
    ck_assert(failed);
    allocator.fail_at = 0;
    ck_assert_ptr_nonnull(step(tape, weight, &array));
    ck_assert_int_eq(tl_tape_status(tape), TL_OK);
    tl_tape_free(tape);
    tl_tensor_free(weight);
    tl_context_free(context);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

/* Many small results: nodes, tensors and states outgrow their first pieces. */
START_TEST(long_tape) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real value = 1;
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(&value, 1));
    tl_tensor *y = x;
    for (int i = 0; i < 3000; i++) {
        y = tl_add(tape, y, x);
    }
    ck_assert_int_eq(tl_backward(tape, y), TL_OK);
    ck_assert(tl_tensor_item(y) == 3001);
    ck_assert(tl_tensor_grad(x)[0] == 3001);
    tl_tape_free(tape);
}
END_TEST

/* ------------------------------------------------------------------ settings, context */

START_TEST(settings) {
    tl_context *context = context_with(3, "baseline");
    tl_tape *tape = tl_tape_create(context);
    ck_assert_ptr_eq(tl_tape_context(tape), context);
    ck_assert_int_eq(tl_context_threads(context), 3);
    ck_assert_str_eq(tl_context_isa(context), "baseline");
    ck_assert(tl_tape_is_recording(tape) && tl_tape_is_training(tape));
    tl_tape_set_training(tape, false);
    ck_assert(!tl_tape_is_training(tape));
    tl_tape_set_random(tape, 7, 9);
    tl_tape_reset(tape);
    ck_assert(tl_tape_random_seed(tape) == 7 && tl_tape_random_position(tape) == 9);
    tl_tape_free(tape);
    tl_context_free(context);
    tl_context_free(NULL);
}
END_TEST

START_TEST(bad_contexts) {
    tl_error error;
    ck_assert_ptr_null(tl_context_create(&(tl_context_config){.threads = -1, .error = &error}));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "context: threads must be 0 or more, found -1");
    ck_assert_ptr_null(tl_context_create(&(tl_context_config){.isa = "sse9", .error = &error}));
    assert_error(&error, TL_ERROR_UNSUPPORTED, "context: instruction set 'sse9'");
    failing_allocator allocator = {0};
    tl_allocator half = failing_allocator_with(&allocator);
    half.release = NULL;
    ck_assert_ptr_null(tl_context_create(&(tl_context_config){.allocator = half, .error = &error}));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "needs both allocate and release");
    ck_assert_str_eq(tl_status_name(TL_OK), "ok");
    ck_assert_str_eq(tl_status_name((tl_status)99), "unknown status");
}
END_TEST

START_TEST(persistent_tensors) {
    tl_context *context = context_with(1, NULL);
    tl_error error;
    ck_assert_ptr_null(tl_tensor_create(context, 2, (int64_t[]){3, 0}, false, &error));
    assert_error(&error, TL_ERROR_SHAPE, "tensor: wants a rank of 0 to 8");
    ck_assert_ptr_null(tl_tensor_create(context, 9, (int64_t[9]){1}, false, &error));
    tl_context_set_memory_limit(context, 1000);
    ck_assert_ptr_null(tl_tensor_create(context, 1, (int64_t[]){1000}, false, &error));
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "tensor: out of memory");
    tl_context_set_memory_limit(context, 0);
    tl_tensor *tensor = tl_tensor_create(context, 2, (int64_t[]){2, 3}, false, NULL);
    ck_assert_int_eq(tl_tensor_size(tensor), 6);
    for (int i = 0; i < 6; i++) {
        ck_assert(tl_tensor_data(tensor)[i] == 0);
    }
    ck_assert(isnan((double)tl_tensor_item(tensor)));
    tl_tensor_free(tensor);
    tl_tensor_free(NULL);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("tape", &test_case);
    tcase_add_test(test_case, errors_stick);
    tcase_add_test(test_case, null_passes_through);
    tcase_add_test(test_case, bad_inputs);
    tcase_add_test(test_case, another_tape);
    tcase_add_test(test_case, backward_at_the_wrong_time);
    tcase_add_test(test_case, released_input);
    tcase_add_test(test_case, released_source_of_a_view);
    tcase_add_test(test_case, without_recording);
    tcase_add_test(test_case, gradients_accumulate);
    tcase_add_test(test_case, retained_gradients);
    tcase_add_test(test_case, several_results);
    tcase_add_test(test_case, unused_branch);
    tcase_add_test(test_case, check_finite);
    tcase_add_test(test_case, cost_report);
    tcase_add_test(test_case, second_step_allocates_nothing);
    tcase_add_test(test_case, released_results_are_computed_again);
    tcase_add_test(test_case, every_second_sum_is_computed_again);
    tcase_add_test(test_case, parameters_freed_before_the_tape);
    tcase_add_test(test_case, memory_limit);
    tcase_add_test(test_case, failing_allocations);
    tcase_add_test(test_case, recovers_from_out_of_memory);
    tcase_add_test(test_case, long_tape);
    tcase_add_test(test_case, settings);
    tcase_add_test(test_case, bad_contexts);
    tcase_add_test(test_case, persistent_tensors);
    return run_suite(suite);
}
