/* Batch, layer and group norm against the definition in double: every instruction set, odd shapes,
 * offsets, small variances, fused ReLU and residual, running statistics, errors; the same bits at
 * any number of threads. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/reference_norm.h"

typedef enum kind { BATCH, BATCH_RELU, BATCH_RELU_RESIDUAL, BATCH_EVALUATION, GROUP, LAYER } kind;

typedef struct norm_case {
    kind kind;
    int64_t samples, rows, channels, groups;
    double offset, spread; /* x is uniform in offset +- spread */
    bool affine;
} norm_case;

static const norm_case cases[] = {
    {BATCH, 7, 1, 3, 3, 0, 1, true},
    {BATCH, 2, 35, 4, 4, 0, 1, true},
    {BATCH, 1, 91, 17, 17, 0, 1, true},
    {BATCH, 5, 9, 1, 1, 0, 1, true},
    {BATCH, 4, 400, 1, 1, 0, 1, false},
    {BATCH, 3, 257, 16, 16, 0, 1, true},
    {BATCH, 2, 2100, 5, 5, 3, 2, true},
    {BATCH, 4, 25, 3, 3, 1e4, 1, true},
    {BATCH, 2, 3000, 16, 16, 1e4, 1, true},
    {BATCH, 4, 30, 2, 2, 0, 1e-3, true},
    {BATCH, 9, 3, 130, 130, 0, 1, true},
    {BATCH, 40, 200, 64, 64, 1, 1, true},
    {BATCH_RELU, 2, 35, 4, 4, 0, 1, true},
    {BATCH_RELU, 3, 61, 7, 7, 2, 1, true},
    {BATCH_RELU, 16, 64, 32, 32, 0, 1, true},
    {BATCH_RELU_RESIDUAL, 2, 35, 4, 4, 0, 1, true},
    {BATCH_RELU_RESIDUAL, 3, 61, 7, 7, 0, 1, false},
    {BATCH_RELU_RESIDUAL, 16, 300, 16, 16, 0, 1, true},
    {BATCH_EVALUATION, 1, 1, 3, 3, 0, 1, true},
    {BATCH_EVALUATION, 3, 28, 5, 5, 0, 1, true},
    {BATCH_EVALUATION, 8, 130, 16, 16, 0, 1, true},
    {GROUP, 1, 9, 4, 1, 0, 1, true},
    {GROUP, 1, 12, 6, 2, 0, 1e-3, true},
    {GROUP, 2, 30, 4, 2, 0, 1, false},
    {GROUP, 2, 35, 6, 3, 0, 1, true},
    {GROUP, 3, 21, 5, 5, 1e4, 1, true},
    {GROUP, 130, 40, 32, 4, 0, 1, true},
    {GROUP, 5, 1, 12, 3, 0, 1, true},
    {LAYER, 3, 1, 7, 1, 0, 1, true},
    {LAYER, 2, 5, 13, 1, 0, 1, true},
    {LAYER, 1, 1, 33, 1, 0, 1, false},
    {LAYER, 3, 1, 9, 1, 0, 1e-3, true},
    {LAYER, 4, 90, 64, 1, 1e4, 1, true},
    {LAYER, 2, 300, 130, 1, 0, 1, true},
    {LAYER, 2, 2, 1500, 1, 0, 1, true},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static bool is_batch(kind k) {
    return k <= BATCH_EVALUATION;
}

typedef struct norm_data {
    int64_t size;
    tl_real *x, *residual, *weight, *bias, *dy, *running_mean, *running_var;
    double *evaluation_mean, *evaluation_var;
} norm_data;

static norm_data data_of(const norm_case *c) {
    norm_data d = {.size = c->samples * c->rows * c->channels};
    d.x = random_values(d.size, 1, c->offset - c->spread, c->offset + c->spread);
    d.residual = random_values(d.size, 2, -1, 1);
    d.weight = random_values(c->channels, 3, 0.5, 1.5);
    d.bias = random_values(c->channels, 4, -1, 1);
    d.dy = random_values(d.size, 5, -1, 1);
    d.running_mean = random_values(c->channels, 6, -0.5, 0.5);
    d.running_var = random_values(c->channels, 7, 0.5, 2);
    d.evaluation_mean = malloc((size_t)c->channels * sizeof(double));
    d.evaluation_var = malloc((size_t)c->channels * sizeof(double));
    for (int64_t i = 0; i < c->channels; i++) {
        d.evaluation_mean[i] = (double)d.running_mean[i];
        d.evaluation_var[i] = (double)d.running_var[i];
    }
    return d;
}

static void free_data(norm_data *d) {
    free(d->x);
    free(d->residual);
    free(d->weight);
    free(d->bias);
    free(d->dy);
    free(d->running_mean);
    free(d->running_var);
    free(d->evaluation_mean);
    free(d->evaluation_var);
}

/* What the library computes. Arrays belong to `run`. */
typedef struct norm_run {
    tl_context *context;
    tl_tape *tape;
    tl_tensor *running_mean, *running_var;
    tl_tensor *x, *residual, *weight, *bias, *y;
} norm_run;

static tl_tensor *persistent(tl_context *context, int64_t count, const tl_real *values) {
    tl_tensor *tensor = tl_tensor_create(context, 1, &count, false, NULL);
    ck_assert_ptr_nonnull(tensor);
    memcpy(tl_tensor_data(tensor), values, (size_t)count * sizeof *values);
    return tensor;
}

static tl_tensor *forward(norm_run *r, const norm_case *c) {
    const tl_batch_norm_config config = {.momentum = 0.25, .epsilon = 1e-5};
    switch (c->kind) {
    case BATCH:
    case BATCH_EVALUATION:
        return tl_batch_norm(r->tape, r->x, r->weight, r->bias, r->running_mean, r->running_var,
                             &config);
    case BATCH_RELU:
    case BATCH_RELU_RESIDUAL:
        return tl_batch_norm_relu(r->tape, r->x, c->kind == BATCH_RELU ? NULL : r->residual,
                                  r->weight, r->bias, r->running_mean, r->running_var, &config);
    case GROUP:
        return tl_group_norm(r->tape, r->x, c->groups, r->weight, r->bias, 1e-5);
    default:
        return tl_layer_norm(r->tape, r->x, 1, r->weight, r->bias, 1e-5);
    }
}

static norm_run run_case(const norm_case *c, const norm_data *d, int threads, const char *isa) {
    norm_run r = {.context = context_with(threads, isa)};
    r.tape = tl_tape_create(r.context);
    r.running_mean = persistent(r.context, c->channels, d->running_mean);
    r.running_var = persistent(r.context, c->channels, d->running_var);
    tl_tape_set_training(r.tape, c->kind != BATCH_EVALUATION);
    const int64_t shape[3] = {c->samples, c->rows, c->channels};
    const tl_array x = array_of(3, shape, d->x);
    const tl_array residual = array_of(3, shape, d->residual);
    const tl_array weight = array_of(1, shape + 2, d->weight);
    const tl_array bias = array_of(1, shape + 2, d->bias);
    r.x = tl_input_with_grad(r.tape, &x);
    r.residual = tl_input_with_grad(r.tape, &residual);
    if (c->affine) {
        r.weight = tl_input_with_grad(r.tape, &weight);
        r.bias = tl_input_with_grad(r.tape, &bias);
    }
    r.y = forward(&r, c);
    ck_assert_msg(r.y != NULL, "%s", tl_tape_error(r.tape)->message);
    const tl_real *dy = d->dy;
    ck_assert_msg(tl_backward_from(r.tape, 1, &r.y, &dy) == TL_OK, "%s",
                  tl_tape_error(r.tape)->message);
    return r;
}

static void free_run(norm_run *r) {
    tl_tensor_free(r->running_mean);
    tl_tensor_free(r->running_var);
    tl_tape_free(r->tape);
    tl_context_free(r->context);
}

static double *doubles(int64_t count) {
    double *values = calloc((size_t)count, sizeof *values);
    ck_assert_ptr_nonnull(values);
    return values;
}

/* Layer norm has a weight per channel but statistics per row: rows become samples of one group. */
static reference_norm problem_of(const norm_case *c, const norm_data *d) {
    const bool layer = c->kind == LAYER;
    return (reference_norm){.samples = layer ? c->samples * c->rows : c->samples,
                            .rows = layer ? 1 : c->rows,
                            .channels = c->channels,
                            .groups = c->groups,
                            .over_samples = is_batch(c->kind),
                            .epsilon = 1e-5,
                            .x = d->x,
                            .weight = c->affine ? d->weight : NULL,
                            .bias = c->affine ? d->bias : NULL,
                            .residual = c->kind == BATCH_RELU_RESIDUAL ? d->residual : NULL,
                            .relu = c->kind == BATCH_RELU || c->kind == BATCH_RELU_RESIDUAL,
                            .mean = c->kind == BATCH_EVALUATION ? d->evaluation_mean : NULL,
                            .variance = c->kind == BATCH_EVALUATION ? d->evaluation_var : NULL,
                            .dy = d->dy};
}

static void compare_running(const norm_case *c, const norm_data *d, const norm_run *r,
                            const reference_norm_result *want) {
    const double m = (double)(c->samples * c->rows);
    for (int64_t i = 0; i < c->channels; i++) {
        if (c->kind != BATCH_EVALUATION) {
            d->evaluation_mean[i] = 0.75 * (double)d->running_mean[i] + 0.25 * want->batch_mean[i];
            d->evaluation_var[i] =
                0.75 * (double)d->running_var[i] + 0.25 * want->batch_variance[i] * m / (m - 1);
        }
    }
    assert_close("running_mean", c->channels, tl_tensor_data(r->running_mean), d->evaluation_mean,
                 1e-6, 1e-7);
    assert_close("running_var", c->channels, tl_tensor_data(r->running_var), d->evaluation_var,
                 1e-6, 1e-7);
}

static void check_case(const norm_case *c, const char *isa) {
    norm_data d = data_of(c);
    const reference_norm problem = problem_of(c, &d);
    const reference_norm_result want = {.y = doubles(d.size),
                                        .dx = doubles(d.size),
                                        .dweight = doubles(c->channels),
                                        .dbias = doubles(c->channels),
                                        .dresidual = doubles(d.size),
                                        .batch_mean = doubles(c->channels),
                                        .batch_variance = doubles(c->channels)};
    reference_norm_run(&problem, &want);
    norm_run r = run_case(c, &d, 2, isa);
    assert_close("y", d.size, tl_tensor_data(r.y), want.y, 2e-6, 1e-6);
    assert_close("dx", d.size, tl_tensor_grad(r.x), want.dx, 5e-6, 1e-6);
    if (c->affine) {
        assert_close("dweight", c->channels, tl_tensor_grad(r.weight), want.dweight, 2e-6, 1e-5);
        assert_close("dbias", c->channels, tl_tensor_grad(r.bias), want.dbias, 2e-6, 1e-5);
    }
    if (c->kind == BATCH_RELU_RESIDUAL) {
        assert_close("dresidual", d.size, tl_tensor_grad(r.residual), want.dresidual, 1e-6, 1e-6);
    }
    if (is_batch(c->kind)) {
        compare_running(c, &d, &r, &want);
    }
    free_run(&r);
    free_data(&d);
    free(want.y);
    free(want.dx);
    free(want.dweight);
    free(want.dbias);
    free(want.dresidual);
    free(want.batch_mean);
    free(want.batch_variance);
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
    const norm_case *c = &cases[_i];
    norm_data d = data_of(c);
    norm_run one = run_case(c, &d, 1, NULL);
    for (int threads = 2; threads <= 3; threads++) {
        norm_run r = run_case(c, &d, threads, NULL);
        assert_same_bits("y", d.size, tl_tensor_data(one.y), tl_tensor_data(r.y));
        assert_same_bits("dx", d.size, tl_tensor_grad(one.x), tl_tensor_grad(r.x));
        if (c->affine) {
            assert_same_bits("dweight", c->channels, tl_tensor_grad(one.weight),
                             tl_tensor_grad(r.weight));
            assert_same_bits("dbias", c->channels, tl_tensor_grad(one.bias),
                             tl_tensor_grad(r.bias));
        }
        assert_same_bits("running_var", c->channels, tl_tensor_data(one.running_var),
                         tl_tensor_data(r.running_var));
        free_run(&r);
    }
    free_run(&one);
    free_data(&d);
}
END_TEST

/* relu(bn(x) + x): both gradients meet in one buffer. */
START_TEST(residual_may_be_the_input) {
    norm_case c = {BATCH_RELU_RESIDUAL, 3, 20, 6, 6, 0, 1, true};
    norm_data d = data_of(&c);
    memcpy(d.residual, d.x, (size_t)d.size * sizeof *d.x);
    norm_run apart = run_case(&c, &d, 1, NULL);
    double *want = doubles(d.size);
    for (int64_t i = 0; i < d.size; i++) {
        want[i] = (double)tl_tensor_grad(apart.x)[i] + (double)tl_tensor_grad(apart.residual)[i];
    }
    tl_tape *tape = tl_tape_create(apart.context);
    const tl_array array = ARRAY(d.x, 3, 20, 6);
    tl_tensor *x = tl_input_with_grad(tape, &array);
    const tl_array weight = ARRAY(d.weight, 6);
    const tl_array bias = ARRAY(d.bias, 6);
    tl_tensor *y = tl_batch_norm_relu(tape, x, x, tl_input(tape, &weight), tl_input(tape, &bias),
                                      NULL, NULL, NULL);
    const tl_real *dy = d.dy;
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, &dy), TL_OK);
    assert_close("dx", d.size, tl_tensor_grad(x), want, 1e-6, 1e-6);
    tl_tape_free(tape);
    free(want);
    free_run(&apart);
    free_data(&d);
}
END_TEST

/* A layer norm over several dimensions is one over their product. */
START_TEST(layer_norm_over_two_dimensions) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real *values = random_values(4 * 17 * 3, 1, -1, 1);
    tl_real *weight = random_values(17 * 3, 2, -1, 1);
    tl_real *bias = random_values(17 * 3, 3, -1, 1);
    const tl_array x = ARRAY(values, 4, 17, 3);
    const tl_array w = ARRAY(weight, 17, 3);
    const tl_array b = ARRAY(bias, 17, 3);
    tl_tensor *y =
        tl_layer_norm(tape, tl_input(tape, &x), 2, tl_input(tape, &w), tl_input(tape, &b), 1e-5);
    const tl_array flat_x = ARRAY(values, 4, 51);
    const tl_array flat_w = ARRAY(weight, 51);
    const tl_array flat_b = ARRAY(bias, 51);
    tl_tensor *flat = tl_layer_norm(tape, tl_input(tape, &flat_x), 1, tl_input(tape, &flat_w),
                                    tl_input(tape, &flat_b), 1e-5);
    assert_same_bits("y", 204, tl_tensor_data(y), tl_tensor_data(flat));
    tl_tape_free(tape);
    free(values);
    free(weight);
    free(bias);
}
END_TEST

START_TEST(saved_bytes_are_x_and_statistics) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[24] = {1, 2, 3};
    const tl_array array = ARRAY(values, 2, 3, 4);
    tl_tensor *x = tl_input_with_grad(tape, &array);
    ck_assert_ptr_nonnull(tl_batch_norm_relu(tape, x, NULL, NULL, NULL, NULL, NULL, NULL));
    ck_assert_uint_eq(tl_tape_cost(tape).saved_bytes, 24 * sizeof(tl_real) + 16 * 4);
    ck_assert(tl_tape_cost(tape).forward_flops > 0.0);
    tl_tape_free(tape);
}
END_TEST

START_TEST(wrong_use_is_an_error) {
    tl_context *context = context_with(1, NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_real values[24] = {0};
    const tl_array array = ARRAY(values, 2, 3, 4);
    const tl_array short_array = ARRAY(values, 3);
    const tl_array one_row = ARRAY(values, 1, 1, 4);
    tl_tensor *running = persistent(context, 4, values);
    tl_tensor *wrong = persistent(context, 5, values);
    const tl_batch_norm_config fast = {.momentum = 2.0, .epsilon = 1e-5};
    const tl_batch_norm_config flat = {.momentum = 0.1};
#define FAILS(call, status, part)                                                                  \
    do {                                                                                           \
        tl_tape_reset(tape);                                                                       \
        tl_tensor *x = tl_input(tape, &array);                                                     \
        tl_tensor *w = tl_input(tape, &short_array);                                               \
        tl_tensor *one = tl_input(tape, &one_row);                                                 \
        ck_assert_ptr_null(call);                                                                  \
        (void)x, (void)w, (void)one;                                                               \
        assert_tape_error(tape, status, part);                                                     \
    } while (0)
    FAILS(tl_batch_norm(tape, x, w, w, running, running, NULL), TL_ERROR_SHAPE,
          "batch_norm: weight must have the shape [4] for x [2, 3, 4], found [3]");
    FAILS(tl_batch_norm(tape, x, NULL, w, running, running, NULL), TL_ERROR_INVALID_ARGUMENT,
          "weight and bias must both");
    FAILS(tl_batch_norm(tape, x, NULL, NULL, running, wrong, NULL), TL_ERROR_SHAPE,
          "running_var must have the shape [4]");
    FAILS(tl_batch_norm(tape, x, NULL, NULL, running, NULL, NULL), TL_ERROR_INVALID_ARGUMENT,
          "must both be given");
    FAILS(tl_batch_norm(tape, x, NULL, NULL, running, running, &fast), TL_ERROR_INVALID_ARGUMENT,
          "momentum must lie in [0, 1], found 2");
    FAILS(tl_batch_norm(tape, x, NULL, NULL, running, running, &flat), TL_ERROR_INVALID_ARGUMENT,
          "epsilon must be positive, found 0");
    FAILS(tl_batch_norm(tape, one, NULL, NULL, running, running, NULL), TL_ERROR_SHAPE,
          "more than one value per channel, found x [1, 1, 4]");
    FAILS(tl_batch_norm(tape, w, NULL, NULL, NULL, NULL, NULL), TL_ERROR_SHAPE,
          "x must be [N, spatial..., C], found [3]");
    FAILS(tl_batch_norm_relu(tape, x, one, NULL, NULL, NULL, NULL, NULL), TL_ERROR_SHAPE,
          "batch_norm_relu: residual must have the shape of x [2, 3, 4], found [1, 1, 4]");
    tl_tape_set_training(tape, false);
    FAILS(tl_batch_norm(tape, x, NULL, NULL, NULL, NULL, NULL), TL_ERROR_INVALID_ARGUMENT,
          "must both be given");
    FAILS(tl_group_norm(tape, x, 3, NULL, NULL, 1e-5), TL_ERROR_INVALID_ARGUMENT,
          "group_norm: groups must divide the 4 channels of x, found 3");
    FAILS(tl_group_norm(tape, x, 0, NULL, NULL, 1e-5), TL_ERROR_INVALID_ARGUMENT, "found 0");
    FAILS(tl_layer_norm(tape, x, 4, NULL, NULL, 1e-5), TL_ERROR_INVALID_ARGUMENT,
          "layer_norm: dimensions must be 1 to the rank of x [2, 3, 4], found 4");
    FAILS(tl_layer_norm(tape, x, 1, w, w, 1e-5), TL_ERROR_SHAPE,
          "weight must have the shape [4] of the last dimensions, found [3]");
    FAILS(tl_layer_norm(tape, x, 1, w, NULL, 1e-5), TL_ERROR_INVALID_ARGUMENT, "weight and bias");
    FAILS(tl_layer_norm(tape, x, 1, NULL, NULL, -1.0), TL_ERROR_INVALID_ARGUMENT,
          "epsilon must be positive, found -1");
#undef FAILS
    tl_tensor_free(running);
    tl_tensor_free(wrong);
    tl_tape_free(tape);
    tl_context_free(context);
}
END_TEST

START_TEST(layers_register_their_tensors) {
    tl_context *context = context_with(1, NULL);
    tl_parameters *parameters = tl_parameters_create(context, NULL);
    tl_batch_norm_layer batch;
    tl_layer_norm_layer layer;
    tl_group_norm_layer group;
    tl_error error;
    ck_assert_int_eq(tl_batch_norm_layer_init(
                         &batch, parameters, "bn",
                         &(tl_batch_norm_layer_config){.channels = 4, .zero_gain = true}, &error),
                     TL_OK);
    ck_assert_int_eq(tl_layer_norm_layer_init(&layer, parameters, "ln",
                                              &(tl_layer_norm_layer_config){.channels = 4}, NULL),
                     TL_OK);
    ck_assert_int_eq(
        tl_group_norm_layer_init(&group, parameters, "gn",
                                 &(tl_group_norm_layer_config){.channels = 4, .groups = 2}, NULL),
        TL_OK);
    ck_assert_int_eq(tl_parameters_count(parameters), 8);
    ck_assert_int_eq(tl_parameters_at(parameters, 0).group, TL_GROUP_NO_DECAY);
    ck_assert_str_eq(tl_parameters_at(parameters, 3).name, "bn.running_var");
    ck_assert_int_eq(tl_parameters_at(parameters, 3).group, TL_GROUP_BUFFER);
    ck_assert(tl_tensor_data(batch.weight)[3] == 0 && tl_tensor_data(batch.running_var)[3] == 1);
    ck_assert(tl_tensor_data(layer.weight)[3] == 1 && batch.config.momentum == 0.1);
    tl_tape *tape = tl_tape_create(context);
    tl_real *values = random_values(24, 1, -1, 1);
    const tl_array array = ARRAY(values, 2, 3, 4);
    tl_tensor *x = tl_input(tape, &array);
    tl_tensor *y = tl_batch_norm_layer_forward(&batch, tape, x);
    y = tl_batch_norm_layer_forward_relu(&batch, tape, x, y);
    ck_assert(tl_tensor_data(y)[5] == 0); /* a zero gain lets nothing through */
    y = tl_layer_norm_layer_forward(&layer, tape, x);
    y = tl_group_norm_layer_forward(&group, tape, y);
    ck_assert_msg(y != NULL, "%s", tl_tape_error(tape)->message);
    ck_assert_int_eq(tl_batch_norm_layer_init(&batch, parameters, "bn",
                                              &(tl_batch_norm_layer_config){.channels = 4}, &error),
                     TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "the name 'bn.weight' is taken");
    ck_assert_int_eq(tl_layer_norm_layer_init(&layer, parameters, "l",
                                              &(tl_layer_norm_layer_config){.channels = 0}, &error),
                     TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "channels must be at least 1, found 0");
    ck_assert_int_eq(
        tl_group_norm_layer_init(&group, parameters, "g",
                                 &(tl_group_norm_layer_config){.channels = 4, .groups = 3}, &error),
        TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "must divide the 4 channels, found 3");
    free(values);
    tl_tape_free(tape);
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("normalization", &test_case);
    tcase_add_loop_test(test_case, agrees_with_the_definition, 0, CASES);
    tcase_add_loop_test(test_case, threads_do_not_change_bits, 0, CASES);
    tcase_add_test(test_case, residual_may_be_the_input);
    tcase_add_test(test_case, layer_norm_over_two_dimensions);
    tcase_add_test(test_case, saved_bytes_are_x_and_statistics);
    tcase_add_test(test_case, wrong_use_is_an_error);
    tcase_add_test(test_case, layers_register_their_tensors);
    return run_suite(suite);
}
