#include "parity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 4096 };

static void release_parameters(void *parameters) {
    tl_parameters_free(parameters);
}

static void release_optimizer(void *optimizer) {
    tl_optimizer_free(optimizer);
}

static tl_parameters *new_parameters(parity_run *run) {
    tl_error error;
    tl_parameters *parameters = tl_parameters_create(parity_run_context(run), &error);
    if (parameters == NULL) {
        parity_fail(run, "%s", error.message);
        return NULL;
    }
    parity_defer(run, release_parameters, parameters);
    return parameters;
}

/* A parameter of the case's name and values, as a column: optimizers look at no shape. */
static tl_tensor *add_parameter(parity_run *run, tl_parameters *parameters,
                                const parity_tensor *from) {
    tl_error error;
    tl_tensor *tensor = tl_parameters_add(parameters, NULL, from->name, TL_GROUP_WEIGHT, "", 2,
                                          (int64_t[]){from->size, 1}, &error);
    if (tensor == NULL) {
        parity_fail(run, "%s", error.message);
        return NULL;
    }
    parity_copy_in(run, from, -1, PARITY_AS_IS, from->size, tl_tensor_data(tensor));
    return tensor;
}

static bool is_kind(parity_run *run, const char *kind) {
    return strcmp(parity_text(run, "kind"), kind) == 0;
}

static tl_optimizer *create_optimizer(parity_run *run, tl_parameters *parameters) {
    tl_error error = {0};
    tl_optimizer *optimizer = NULL;
    const double rate = parity_number(run, "lr");
    const double decay = parity_number(run, "weight_decay");
    if (is_kind(run, "sgd")) {
        optimizer = tl_sgd_create(parameters,
                                  &(tl_sgd_config){.learning_rate = rate,
                                                   .momentum = parity_number(run, "momentum"),
                                                   .dampening = parity_number(run, "dampening"),
                                                   .weight_decay = decay,
                                                   .nesterov = parity_int(run, "nesterov") != 0,
                                                   .decay_all_parameters = true},
                                  &error);
    } else if (is_kind(run, "adam") || is_kind(run, "adamw")) {
        const tl_adam_config config = {.learning_rate = rate,
                                       .beta1 = parity_number(run, "beta1"),
                                       .beta2 = parity_number(run, "beta2"),
                                       .epsilon = parity_number(run, "eps"),
                                       .weight_decay = decay,
                                       .decay_all_parameters = true};
        optimizer =
            (is_kind(run, "adam") ? tl_adam_create : tl_adamw_create)(parameters, &config, &error);
    } else if (is_kind(run, "rmsprop")) {
        optimizer =
            tl_rmsprop_create(parameters,
                              &(tl_rmsprop_config){.learning_rate = rate,
                                                   .alpha = parity_number(run, "alpha"),
                                                   .epsilon = parity_number(run, "eps"),
                                                   .weight_decay = decay,
                                                   .momentum = parity_number(run, "momentum"),
                                                   .decay_all_parameters = true},
                              &error);
    } else {
        parity_fail(run, "the kind %s is not known here", parity_text(run, "kind"));
        return NULL;
    }
    if (optimizer == NULL) {
        parity_fail(run, "%s", error.message);
        return NULL;
    }
    parity_defer(run, release_optimizer, optimizer);
    return optimizer;
}

/* Puts the gradients that a case gives into parameters, through the public interface: they are the
 * cotangents of y = 1 x, so the gradients of x are the same bits. */
static bool set_gradients(parity_run *run, tl_parameters *parameters, const char *group,
                          const char *letter, int64_t step) {
    const int count = tl_parameters_count(parameters);
    for (int i = 0; i < count && !parity_failed(run); i++) {
        tl_tensor *tensor = tl_parameters_at(parameters, i).tensor;
        char name[32];
        snprintf(name, sizeof name, "%s%d", letter, i);
        const parity_tensor *from = parity_tensor_of(run, group, name);
        tl_real *gradient = parity_values(run, tl_tensor_size(tensor));
        if (from == NULL || gradient == NULL ||
            !parity_copy_in(run, from, step, PARITY_AS_IS, tl_tensor_size(tensor), gradient)) {
            return false;
        }
        tl_tape *tape = parity_run_tape(run);
        tl_real one = 1;
        tl_tensor *factor = tl_input(tape, &(tl_array){.rank = 2, .shape = {1, 1}, .data = &one});
        tl_tensor *y = tl_linear(tape, tensor, factor, NULL);
        const tl_real *cotangents[] = {gradient};
        if (!parity_ok(run, tl_backward_from(tape, 1, &y, cotangents), tl_tape_error(tape))) {
            return false;
        }
        tl_tape_reset(tape);
    }
    return !parity_failed(run);
}

static void run_optimizer(parity_run *run) {
    tl_parameters *parameters = new_parameters(run);
    const parity_tensor *first = parity_find(parity_run_case(run), "params", "p0");
    char name[32] = "p0";
    for (int i = 0; parameters != NULL && first != NULL; i++) {
        if (add_parameter(run, parameters, first) == NULL) {
            return;
        }
        snprintf(name, sizeof name, "p%d", i + 1);
        first = parity_find(parity_run_case(run), "params", name);
    }
    tl_optimizer *optimizer = parameters ? create_optimizer(run, parameters) : NULL;
    if (optimizer == NULL) {
        return;
    }
    const int64_t steps = parity_int(run, "steps");
    for (int64_t t = 0; t < steps; t++) {
        if (!set_gradients(run, parameters, "grads_per_step", "p", t) ||
            !parity_ok(run, tl_optimizer_step(optimizer), &(tl_error){0})) {
            return;
        }
        for (int i = 0; i < tl_parameters_count(parameters); i++) {
            const tl_parameter p = tl_parameters_at(parameters, i);
            parity_compare(run, "params_per_step", p.name, t, tl_tensor_size(p.tensor),
                           tl_tensor_data(p.tensor), PARITY_AS_IS);
        }
    }
}

/* ------------------------------------------------------------------ clip_grad_norm */

static void run_clip(parity_run *run) {
    tl_parameters *parameters = new_parameters(run);
    const int64_t count = parity_int(run, "count");
    for (int64_t i = 0; i < count && !parity_failed(run); i++) {
        char name[32];
        snprintf(name, sizeof name, "g%lld", (long long)i);
        const parity_tensor *from = parity_tensor_of(run, "inputs", name);
        if (from != NULL) {
            (void)add_parameter(run, parameters, from);
        }
    }
    if (parity_failed(run) || !set_gradients(run, parameters, "inputs", "g", -1)) {
        return;
    }
    double norm;
    if (!parity_ok(run, tl_clip_grad_norm(parameters, parity_number(run, "max_norm"), &norm),
                   &(tl_error){0})) {
        return;
    }
    const tl_real norm_value = (tl_real)norm;
    parity_compare(run, "outputs", "total_norm", -1, 1, &norm_value, PARITY_AS_IS);
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter p = tl_parameters_at(parameters, i);
        parity_compare(run, "outputs", p.name, -1, tl_tensor_size(p.tensor),
                       tl_tensor_grad(p.tensor), PARITY_AS_IS);
    }
}

/* ------------------------------------------------------------------ lr_schedule */

static bool read_schedule(parity_run *run, int64_t steps, tl_schedule_config *config) {
    *config = (tl_schedule_config){.base_learning_rate = parity_number(run, "base_lr")};
    if (is_kind(run, "step")) {
        config->kind = TL_SCHEDULE_STEP;
        config->step_size = parity_int(run, "step_size");
        config->gamma = parity_number(run, "gamma");
    } else if (is_kind(run, "multistep")) {
        config->kind = TL_SCHEDULE_MULTISTEP;
        const parity_argument *milestones =
            parity_argument_find(parity_run_case(run), "milestones");
        if (milestones == NULL || milestones->count > TL_SCHEDULE_MAX_MILESTONES) {
            parity_fail(run, "milestones are missing or too many");
            return false;
        }
        config->milestone_count = parity_ints(run, "milestones", -1, config->milestones);
        config->gamma = parity_number(run, "gamma");
    } else if (is_kind(run, "cosine")) {
        config->kind = TL_SCHEDULE_COSINE;
        config->total_steps = parity_int(run, "t_max");
        config->minimum_learning_rate = parity_number(run, "eta_min");
    } else if (is_kind(run, "warmup_cosine")) {
        config->kind = TL_SCHEDULE_COSINE;
        config->warmup_steps = parity_int(run, "warmup_steps");
        config->warmup_start_factor = parity_number(run, "start_factor");
        config->total_steps = parity_int(run, "total_steps");
        config->minimum_learning_rate = parity_number(run, "eta_min");
    } else if (is_kind(run, "one_cycle")) {
        config->kind = TL_SCHEDULE_ONE_CYCLE;
        config->total_steps = parity_int(run, "total_steps");
        config->pct_start = parity_number(run, "pct_start");
        if (config->pct_start == 0) {
            config->pct_start = 1e-300; /* 0 stands for the default */
        }
        config->div_factor = parity_number(run, "div_factor");
        config->final_div_factor = parity_number(run, "final_div_factor");
    } else {
        parity_fail(run, "the kind %s is not known here", parity_text(run, "kind"));
    }
    if (steps < 1 || steps > MAX_STEPS) {
        parity_fail(run, "expected 1 to %d steps", (int)MAX_STEPS);
    }
    tl_error error;
    return !parity_failed(run) && parity_ok(run, tl_schedule_check(config, &error), &error);
}

static void run_schedule(parity_run *run) {
    const int64_t steps = parity_int(run, "steps");
    tl_schedule_config config;
    if (!read_schedule(run, steps, &config)) {
        return;
    }
    tl_real *rates = parity_values(run, steps);
    for (int64_t t = 0; rates != NULL && t < steps; t++) {
        rates[t] = (tl_real)tl_schedule_learning_rate(&config, t);
    }
    parity_compare(run, "outputs", "lr", -1, steps, rates, PARITY_AS_IS);
}

const parity_adapter parity_optimizer[] = {
    {"clip_grad_norm", run_clip},
    {"lr_schedule", run_schedule},
    {"optimizer", run_optimizer},
    {NULL, NULL},
};
