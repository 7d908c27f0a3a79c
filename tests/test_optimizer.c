/* Update rules against results worked out by hand and against the formulas in double; clipping;
 * frozen parameters; state. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor_internal.h"
#include "support/support.h"

/* A registry with a weight [3, 50], a bias [7] and a buffer [4], filled with values. */
typedef struct fixture {
    tl_context *context;
    tl_parameters *parameters;
    tl_tensor *weight;
    tl_tensor *bias;
    tl_tensor *buffer;
} fixture;

static fixture create_fixture(int threads, const char *isa, int64_t rows) {
    fixture f = {.context = context_with(threads, isa)};
    f.parameters = tl_parameters_create(f.context, NULL);
    f.weight = tl_parameters_add(f.parameters, "layer", "weight", TL_GROUP_WEIGHT, "out in", 2,
                                 (int64_t[]){rows, 50}, NULL);
    f.bias = tl_parameters_add(f.parameters, "layer", "bias", TL_GROUP_NO_DECAY, "out", 1,
                               (int64_t[]){7}, NULL);
    f.buffer = tl_parameters_add(f.parameters, "layer", "running_mean", TL_GROUP_BUFFER, "out", 1,
                                 (int64_t[]){4}, NULL);
    ck_assert_ptr_nonnull(f.buffer);
    fill_uniform(tl_tensor_data(f.weight), f.weight->size, 1, -1, 1);
    fill_uniform(tl_tensor_data(f.bias), f.bias->size, 2, -1, 1);
    fill_uniform(tl_tensor_data(f.buffer), f.buffer->size, 3, -1, 1);
    return f;
}

static void free_fixture(fixture *f) {
    tl_parameters_free(f->parameters);
    ck_assert_uint_eq(tl_context_memory(f->context).current, 0);
    tl_context_free(f->context);
}

/* What a backward pass would have left. */
static tl_real *give_grad(tl_tensor *tensor) {
    if (tensor->grad == NULL) {
        tensor->grad = tl_memory_allocate(tensor->context, tensor->own_storage.bytes);
        ck_assert_ptr_nonnull(tensor->grad);
    }
    tensor->has_grad = true;
    return tensor->grad;
}

static void random_grad(tl_tensor *tensor, uint64_t seed) {
    fill_uniform(give_grad(tensor), tensor->size, seed, -1, 1);
}

/* One weight of 1 and a gradient of g in every step; the values after the steps. */
static double *one_weight(tl_optimizer *(*create)(tl_parameters *), double g, int steps,
                          double *after) {
    tl_context *context = context_with(1, NULL);
    tl_parameters *parameters = tl_parameters_create(context, NULL);
    tl_tensor *w =
        tl_parameters_add(parameters, NULL, "w", TL_GROUP_WEIGHT, "one", 1, (int64_t[]){1}, NULL);
    tl_tensor_data(w)[0] = 1;
    tl_optimizer *optimizer = create(parameters);
    ck_assert_ptr_nonnull(optimizer);
    for (int i = 0; i < steps; i++) {
        give_grad(w)[0] = (tl_real)g;
        ck_assert_int_eq(tl_optimizer_step(optimizer), TL_OK);
        ck_assert_ptr_null(tl_tensor_grad(w));
        after[i] = (double)tl_tensor_data(w)[0];
    }
    tl_optimizer_free(optimizer);
    tl_parameters_free(parameters);
    tl_context_free(context);
    return after;
}

static tl_optimizer *plain_sgd(tl_parameters *p) {
    return tl_sgd_create(p, &(tl_sgd_config){.learning_rate = 0.25}, NULL);
}

static tl_optimizer *decayed_sgd(tl_parameters *p) {
    return tl_sgd_create(p, &(tl_sgd_config){.learning_rate = 0.5, .weight_decay = 0.5}, NULL);
}

static tl_optimizer *momentum_sgd(tl_parameters *p) {
    return tl_sgd_create(p, &(tl_sgd_config){.learning_rate = 0.25, .momentum = 0.5}, NULL);
}

static tl_optimizer *dampened_sgd(tl_parameters *p) {
    return tl_sgd_create(
        p, &(tl_sgd_config){.learning_rate = 0.25, .momentum = 0.5, .dampening = 0.5}, NULL);
}

static tl_optimizer *nesterov_sgd(tl_parameters *p) {
    return tl_sgd_create(
        p, &(tl_sgd_config){.learning_rate = 0.25, .momentum = 0.5, .nesterov = true}, NULL);
}

/* With both betas and epsilon 0 Adam moves by the learning rate times the gradient's sign. */
static tl_optimizer *sign_adam(tl_parameters *p) {
    return tl_adam_create(p, &(tl_adam_config){.learning_rate = 0.125}, NULL);
}

static tl_optimizer *sign_adamw(tl_parameters *p) {
    return tl_adamw_create(p, &(tl_adam_config){.learning_rate = 0.5, .weight_decay = 0.5}, NULL);
}

/* beta1 = 1/2: m = 1/2 g at t = 1, corrected by 1 - 1/2 to g; 3/4 by 3/4 at t = 2. */
static tl_optimizer *half_adam(tl_parameters *p) {
    return tl_adam_create(p, &(tl_adam_config){.learning_rate = 0.125, .beta1 = 0.5, .beta2 = 0.5},
                          NULL);
}

/* alpha and epsilon 0: the gradient's sign. */
static tl_optimizer *sign_rmsprop(tl_parameters *p) {
    return tl_rmsprop_create(p, &(tl_rmsprop_config){.learning_rate = 0.125}, NULL);
}

static tl_optimizer *momentum_rmsprop(tl_parameters *p) {
    return tl_rmsprop_create(p, &(tl_rmsprop_config){.learning_rate = 0.125, .momentum = 0.5},
                             NULL);
}

START_TEST(one_weight_by_hand) {
    double a[3];
    /* p = 1 - 0.25 * 2 t */
    one_weight(plain_sgd, 2, 3, a);
    ck_assert(a[0] == 0.5 && a[1] == 0 && a[2] == -0.5);
    /* g = 1 + 0.5 p: 1 - 0.75, then 0.25 - 0.5625 */
    one_weight(decayed_sgd, 1, 2, a);
    ck_assert(a[0] == 0.25 && a[1] == -0.3125);
    /* b = 2, 3, 3.5 */
    one_weight(momentum_sgd, 2, 3, a);
    ck_assert(a[0] == 0.5 && a[1] == -0.25 && a[2] == -1.125);
    /* b = 2 (no dampening at first), 1 + 1, 1 + 1 */
    one_weight(dampened_sgd, 2, 3, a);
    ck_assert(a[0] == 0.5 && a[1] == 0 && a[2] == -0.5);
    /* b = 2, 3; g + b / 2 = 3, 3.5 */
    one_weight(nesterov_sgd, 2, 2, a);
    ck_assert(a[0] == 0.25 && a[1] == -0.625);
    one_weight(sign_adam, -4, 2, a);
    ck_assert(a[0] == 1.125 && a[1] == 1.25);
    /* 1 - 1/4 - 1/2, then 1/4 - 1/16 - 1/2 */
    one_weight(sign_adamw, 4, 2, a);
    ck_assert(a[0] == 0.25 && a[1] == -0.3125);
    one_weight(half_adam, 3, 2, a);
    ck_assert(fabs(a[0] - 0.875) < 1e-6 && fabs(a[1] - 0.75) < 1e-6);
    one_weight(sign_rmsprop, 8, 2, a);
    ck_assert(a[0] == 0.875 && a[1] == 0.75);
    /* b = 1, 1.5 */
    one_weight(momentum_rmsprop, 8, 2, a);
    ck_assert(a[0] == 0.875 && a[1] == 0.6875);
}
END_TEST

/* ------------------------------------------------------------------ the formulas in double */

typedef enum rule { SGD, ADAM, ADAMW, RMSPROP } rule;

typedef struct problem {
    const char *name;
    rule rule;
    double lr, decay, momentum, dampening, beta1, beta2, epsilon, alpha;
    bool nesterov;
    bool decay_all;
} problem;

static const problem problems[] = {
    {.name = "sgd", .rule = SGD, .lr = 0.1, .decay = 0.01},
    {.name = "sgd, momentum", .rule = SGD, .lr = 0.1, .decay = 0.01, .momentum = 0.9},
    {.name = "sgd, dampening", .rule = SGD, .lr = 0.1, .momentum = 0.9, .dampening = 0.3},
    {.name = "sgd, nesterov",
     .rule = SGD,
     .lr = 0.1,
     .decay = 0.1,
     .momentum = 0.9,
     .nesterov = true,
     .decay_all = true},
    {.name = "adam",
     .rule = ADAM,
     .lr = 0.01,
     .decay = 0.1,
     .beta1 = 0.9,
     .beta2 = 0.999,
     .epsilon = 1e-8},
    {.name = "adam, all decay",
     .rule = ADAM,
     .lr = 0.01,
     .decay = 0.1,
     .beta1 = 0.8,
     .beta2 = 0.99,
     .epsilon = 1e-2,
     .decay_all = true},
    {.name = "adamw",
     .rule = ADAMW,
     .lr = 0.01,
     .decay = 0.1,
     .beta1 = 0.9,
     .beta2 = 0.999,
     .epsilon = 1e-8},
    {.name = "rmsprop", .rule = RMSPROP, .lr = 0.01, .decay = 0.1, .alpha = 0.9, .epsilon = 1e-8},
    {.name = "rmsprop, momentum",
     .rule = RMSPROP,
     .lr = 0.01,
     .alpha = 0.99,
     .epsilon = 1e-4,
     .momentum = 0.9},
};
enum { PROBLEMS = sizeof problems / sizeof problems[0], STEPS = 7 };

static tl_optimizer *create_optimizer(tl_parameters *parameters, const problem *p) {
    const tl_sgd_config sgd = {.learning_rate = p->lr,
                               .momentum = p->momentum,
                               .dampening = p->dampening,
                               .weight_decay = p->decay,
                               .nesterov = p->nesterov,
                               .decay_all_parameters = p->decay_all};
    const tl_adam_config adam = {.learning_rate = p->lr,
                                 .beta1 = p->beta1,
                                 .beta2 = p->beta2,
                                 .epsilon = p->epsilon,
                                 .weight_decay = p->decay,
                                 .decay_all_parameters = p->decay_all};
    const tl_rmsprop_config rmsprop = {.learning_rate = p->lr,
                                       .alpha = p->alpha,
                                       .epsilon = p->epsilon,
                                       .weight_decay = p->decay,
                                       .momentum = p->momentum,
                                       .decay_all_parameters = p->decay_all};
    tl_error error;
    tl_optimizer *optimizer = NULL;
    switch (p->rule) {
    case SGD:
        optimizer = tl_sgd_create(parameters, &sgd, &error);
        break;
    case ADAM:
        optimizer = tl_adam_create(parameters, &adam, &error);
        break;
    case ADAMW:
        optimizer = tl_adamw_create(parameters, &adam, &error);
        break;
    case RMSPROP:
        optimizer = tl_rmsprop_create(parameters, &rmsprop, &error);
        break;
    }
    ck_assert_msg(optimizer != NULL, "%s", error.message);
    return optimizer;
}

/* One element through one step; s[0] and s[1] are its state. */
static double reference_step(const problem *p, int t, double decay, double w, double g, double *s) {
    if (p->rule == ADAMW) {
        w -= p->lr * decay * w;
    } else {
        g += decay * w;
    }
    if (p->rule == SGD) {
        if (p->momentum == 0) {
            return w - p->lr * g;
        }
        s[0] = t == 1 ? g : p->momentum * s[0] + (1 - p->dampening) * g;
        return w - p->lr * (p->nesterov ? g + p->momentum * s[0] : s[0]);
    }
    if (p->rule == RMSPROP) {
        s[0] = p->alpha * s[0] + (1 - p->alpha) * g * g;
        s[1] = p->momentum * s[1] + g / (sqrt(s[0]) + p->epsilon);
        return w - p->lr * s[1];
    }
    s[0] = p->beta1 * s[0] + (1 - p->beta1) * g;
    s[1] = p->beta2 * s[1] + (1 - p->beta2) * g * g;
    const double m = s[0] / (1 - pow(p->beta1, t));
    const double v = s[1] / (1 - pow(p->beta2, t));
    return w - p->lr * m / (sqrt(v) + p->epsilon);
}

static void compare_with_reference(const problem *p, tl_tensor *tensor, const tl_real *start,
                                   double decay, uint64_t seed) {
    double *want = malloc((size_t)tensor->size * sizeof *want);
    double *state = calloc((size_t)tensor->size * 2, sizeof *state);
    for (int64_t i = 0; i < tensor->size; i++) {
        want[i] = (double)start[i];
    }
    for (int t = 1; t <= STEPS; t++) {
        tl_real *g = random_values(tensor->size, seed + (uint64_t)t, -1, 1);
        for (int64_t i = 0; i < tensor->size; i++) {
            want[i] = reference_step(p, t, decay, want[i], (double)g[i], state + 2 * i);
        }
        free(g);
    }
    assert_close(p->name, tensor->size, tl_tensor_data(tensor), want, 3e-6, 0);
    free(want);
    free(state);
}

static void train(fixture *f, tl_optimizer *optimizer, int from, int to) {
    for (int t = from; t <= to; t++) {
        random_grad(f->weight, 100 + (uint64_t)t);
        random_grad(f->bias, 200 + (uint64_t)t);
        ck_assert_int_eq(tl_optimizer_step(optimizer), TL_OK);
    }
}

START_TEST(rules_follow_their_formulas_on_every_isa) {
    for (int i = 0; i < PROBLEMS; i++) {
        for (int k = 0; k < 3; k++) {
            if (!isa_available(all_isas[k])) {
                continue;
            }
            const problem *p = &problems[i];
            fixture f = create_fixture(1, all_isas[k], 3);
            tl_real *weight = random_values(f.weight->size, 1, -1, 1);
            tl_real *bias = random_values(f.bias->size, 2, -1, 1);
            tl_optimizer *optimizer = create_optimizer(f.parameters, p);
            train(&f, optimizer, 1, STEPS);
            compare_with_reference(p, f.weight, weight, p->decay, 100);
            compare_with_reference(p, f.bias, bias, p->decay_all ? p->decay : 0, 200);
            free(weight);
            free(bias);
            tl_optimizer_free(optimizer);
            free_fixture(&f);
        }
    }
}
END_TEST

/* Enough values that several threads take part, and a ragged end. */
START_TEST(bits_do_not_depend_on_threads) {
    for (int i = 0; i < PROBLEMS; i++) {
        for (int k = 0; k < 3; k++) {
            if (!isa_available(all_isas[k])) {
                continue;
            }
            tl_real *first = NULL;
            for (int threads = 1; threads <= 3; threads++) {
                fixture f = create_fixture(threads, all_isas[k], 2001);
                tl_optimizer *optimizer = create_optimizer(f.parameters, &problems[i]);
                train(&f, optimizer, 1, 2);
                if (first == NULL) {
                    first = malloc((size_t)f.weight->size * sizeof *first);
                    memcpy(first, tl_tensor_data(f.weight), (size_t)f.weight->size * sizeof *first);
                }
                assert_same_bits(problems[i].name, f.weight->size, first, tl_tensor_data(f.weight));
                tl_optimizer_free(optimizer);
                free_fixture(&f);
            }
            free(first);
        }
    }
}
END_TEST

START_TEST(frozen_missing_and_buffers_are_left_alone) {
    fixture f = create_fixture(1, NULL, 3);
    tl_optimizer *optimizer = tl_sgd_create(
        f.parameters, &(tl_sgd_config){.learning_rate = 1, .weight_decay = 0.5}, NULL);
    tl_real *weight = random_values(f.weight->size, 1, -1, 1);
    tl_real *bias = random_values(f.bias->size, 2, -1, 1);
    tl_real *buffer = random_values(f.buffer->size, 3, -1, 1);
    /* no gradients at all: not even decay */
    ck_assert_int_eq(tl_optimizer_step(optimizer), TL_OK);
    assert_same_bits("no gradient", f.weight->size, weight, tl_tensor_data(f.weight));
    tl_tensor_set_requires_grad(f.weight, false);
    random_grad(f.weight, 5);
    random_grad(f.bias, 6);
    const uint64_t allocations = tl_context_memory(f.context).allocations;
    ck_assert_int_eq(tl_optimizer_step(optimizer), TL_OK);
    ck_assert_uint_eq(tl_context_memory(f.context).allocations, allocations);
    assert_same_bits("frozen", f.weight->size, weight, tl_tensor_data(f.weight));
    assert_same_bits("buffer", f.buffer->size, buffer, tl_tensor_data(f.buffer));
    ck_assert(tl_tensor_data(f.bias)[0] != bias[0]);
    free(weight);
    free(bias);
    free(buffer);
    tl_optimizer_free(optimizer);
    free_fixture(&f);
}
END_TEST

START_TEST(learning_rate_and_kind) {
    fixture f = create_fixture(1, NULL, 3);
    tl_optimizer *optimizer = tl_adamw_create(f.parameters, NULL, NULL);
    ck_assert_str_eq(tl_optimizer_kind(optimizer), "adamw");
    ck_assert(tl_optimizer_learning_rate(optimizer) == 1e-3);
    tl_real *weight = random_values(f.weight->size, 1, -1, 1);
    random_grad(f.weight, 5);
    tl_optimizer_set_learning_rate(optimizer, NAN);
    ck_assert_int_eq(tl_optimizer_step(optimizer), TL_ERROR_INVALID_ARGUMENT);
    tl_optimizer_set_learning_rate(optimizer, -1);
    ck_assert_int_eq(tl_optimizer_step(optimizer), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(tl_tensor_grad(f.weight));
    assert_same_bits("bad rate", f.weight->size, weight, tl_tensor_data(f.weight));
    tl_optimizer_set_learning_rate(optimizer, 0);
    ck_assert_int_eq(tl_optimizer_step(optimizer), TL_OK);
    assert_same_bits("rate 0", f.weight->size, weight, tl_tensor_data(f.weight));
    free(weight);
    tl_optimizer_free(optimizer);
    free_fixture(&f);
}
END_TEST

START_TEST(bad_configs_are_named) {
    fixture f = create_fixture(1, NULL, 3);
    tl_error error;
    ck_assert_ptr_null(tl_sgd_create(f.parameters, &(tl_sgd_config){.learning_rate = -1}, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT,
                 "sgd: learning_rate must be in [0, inf), found -1");
    ck_assert_ptr_null(tl_sgd_create(f.parameters, &(tl_sgd_config){.momentum = 1.5}, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "sgd: momentum must be in [0, 1], found 1.5");
    ck_assert_ptr_null(tl_sgd_create(f.parameters, &(tl_sgd_config){.nesterov = true}, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "nesterov wants a momentum");
    ck_assert_ptr_null(tl_adam_create(f.parameters, &(tl_adam_config){.beta2 = 1}, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "adam: beta2 must be in [0, 1), found 1");
    ck_assert_ptr_null(tl_adamw_create(f.parameters, &(tl_adam_config){.beta1 = NAN}, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "adamw: beta1");
    ck_assert_ptr_null(
        tl_rmsprop_create(f.parameters, &(tl_rmsprop_config){.epsilon = INFINITY}, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "rmsprop: epsilon");
    tl_context_set_memory_limit(f.context, tl_context_memory(f.context).current + 64);
    ck_assert_ptr_null(tl_sgd_create(f.parameters, NULL, &error));
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "sgd: out of memory");
    tl_context_set_memory_limit(f.context, tl_context_memory(f.context).current + 600);
    ck_assert_ptr_null(tl_adam_create(f.parameters, NULL, &error));
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "adam: out of memory");
    tl_optimizer_free(NULL);
    free_fixture(&f);
}
END_TEST

/* ------------------------------------------------------------------ clipping */

START_TEST(clipping) {
    fixture f = create_fixture(1, NULL, 3);
    double norm = -1;
    ck_assert(tl_grad_norm(f.parameters) == 0);
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, 1, &norm), TL_OK);
    ck_assert(norm == 0);
    tl_real *weight = give_grad(f.weight);
    tl_real *bias = give_grad(f.bias);
    memset(weight, 0, (size_t)f.weight->size * sizeof *weight);
    memset(bias, 0, (size_t)f.bias->size * sizeof *bias);
    weight[149] = 3;
    bias[6] = -4;
    ck_assert(tl_grad_norm(f.parameters) == 5);
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, 6, &norm), TL_OK);
    ck_assert(norm == 5 && weight[149] == 3 && bias[6] == -4);
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, INFINITY, NULL), TL_OK);
    ck_assert(weight[149] == 3);
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, 0, &norm), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, NAN, &norm), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, 1, &norm), TL_OK);
    ck_assert(norm == 5);
    ck_assert(fabs((double)weight[149] - 0.6) < 1e-6 && fabs((double)bias[6] + 0.8) < 1e-6);
    /* squares beyond the range of float */
    weight[0] = (tl_real)3e30;
    bias[0] = (tl_real)4e30;
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, 1, &norm), TL_OK);
    ck_assert(fabs(norm / 5e30 - 1) < 1e-6);
    ck_assert(fabs((double)weight[0] - 0.6) < 1e-6);
    weight[1] = (tl_real)NAN;
    bias[1] = 1;
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, 1, &norm), TL_ERROR_NOT_FINITE);
    ck_assert(isnan(norm) && bias[1] == 1);
    weight[1] = (tl_real)INFINITY;
    ck_assert_int_eq(tl_clip_grad_norm(f.parameters, 1, &norm), TL_ERROR_NOT_FINITE);
    /* a frozen parameter does not count */
    tl_tensor_set_requires_grad(f.weight, false);
    ck_assert(isfinite(tl_grad_norm(f.parameters)));
    free_fixture(&f);
}
END_TEST

/* ------------------------------------------------------------------ state */

/* 3 steps, hand over to a fresh optimizer, 3 more: the same bits as 6 steps. */
START_TEST(state_continues_exactly) {
    for (int i = 0; i < PROBLEMS; i++) {
        fixture straight = create_fixture(1, NULL, 3);
        tl_optimizer *optimizer = create_optimizer(straight.parameters, &problems[i]);
        train(&straight, optimizer, 1, 6);
        tl_optimizer_free(optimizer);

        fixture f = create_fixture(1, NULL, 3);
        optimizer = create_optimizer(f.parameters, &problems[i]);
        train(&f, optimizer, 1, 3);
        tl_state *state = tl_state_create(f.context, NULL);
        tl_error error;
        ck_assert_int_eq(tl_optimizer_save_state(optimizer, state, "optimizer", &error), TL_OK);

        problem other = problems[i]; /* everything that is loaded is changed */
        other.lr = 0.7;
        other.decay = 0.9;
        other.epsilon = 0.5;
        tl_optimizer *resumed = create_optimizer(f.parameters, &other);
        const tl_status status = tl_optimizer_load_state(resumed, state, "optimizer", &error);
        ck_assert_msg(status == TL_OK, "%s", error.message);
        tl_state_free(state);
        tl_optimizer_free(optimizer);
        train(&f, resumed, 4, 6);
        assert_same_bits(problems[i].name, f.weight->size, tl_tensor_data(straight.weight),
                         tl_tensor_data(f.weight));
        assert_same_bits(problems[i].name, f.bias->size, tl_tensor_data(straight.bias),
                         tl_tensor_data(f.bias));
        tl_optimizer_free(resumed);
        free_fixture(&f);
        free_fixture(&straight);
    }
}
END_TEST

START_TEST(state_of_another_optimizer_is_refused) {
    fixture f = create_fixture(1, NULL, 3);
    fixture larger = create_fixture(1, NULL, 4);
    tl_optimizer *momentum = create_optimizer(f.parameters, &problems[1]);
    tl_optimizer *plain = create_optimizer(f.parameters, &problems[0]);
    tl_optimizer *adam = create_optimizer(f.parameters, &problems[4]);
    tl_optimizer *other = create_optimizer(larger.parameters, &problems[1]);
    tl_state *state = tl_state_create(f.context, NULL);
    tl_error error;
    ck_assert_int_eq(tl_optimizer_load_state(momentum, state, "optimizer", &error),
                     TL_ERROR_FORMAT);
    assert_error(&error, TL_ERROR_FORMAT,
                 "expected a string 'optimizer/kind', found nothing of that name");
    ck_assert_int_eq(tl_optimizer_save_state(momentum, state, "optimizer", &error), TL_OK);
    ck_assert_int_eq(tl_optimizer_load_state(adam, state, "optimizer", &error), TL_ERROR_FORMAT);
    assert_error(&error, TL_ERROR_FORMAT, "expected 'optimizer/kind' to be 'adam', found 'sgd'");
    (void)tl_optimizer_load_state(plain, state, "optimizer", &error);
    assert_error(&error, TL_ERROR_FORMAT, "without momentum, found one with it");
    (void)tl_optimizer_load_state(other, state, "optimizer", &error);
    assert_error(
        &error, TL_ERROR_SHAPE,
        "expected 'optimizer/momentum_buffer/layer/weight' of shape [4, 50], found [3, 50]");
    tl_state_free(state);
    tl_optimizer_free(momentum);
    tl_optimizer_free(plain);
    tl_optimizer_free(adam);
    tl_optimizer_free(other);
    free_fixture(&f);
    free_fixture(&larger);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("optimizer", &test_case);
    tcase_add_test(test_case, one_weight_by_hand);
    tcase_add_test(test_case, rules_follow_their_formulas_on_every_isa);
    tcase_add_test(test_case, bits_do_not_depend_on_threads);
    tcase_add_test(test_case, frozen_missing_and_buffers_are_left_alone);
    tcase_add_test(test_case, learning_rate_and_kind);
    tcase_add_test(test_case, bad_configs_are_named);
    tcase_add_test(test_case, clipping);
    tcase_add_test(test_case, state_continues_exactly);
    tcase_add_test(test_case, state_of_another_optimizer_is_refused);
    return run_suite(suite);
}
