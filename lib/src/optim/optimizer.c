#include "optim/optimizer_internal.h"

#include <math.h>
#include <string.h>

static tl_status check_values(const tl_optimizer_rule *rule, const double *values,
                              tl_error *error) {
    for (int i = 0; i < rule->value_count; i++) {
        const tl_hyperparameter *value = &rule->values[i];
        if (!(values[i] >= value->minimum && values[i] <= value->maximum)) {
            return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "%s: %s must be in %s, found %g",
                           rule->kind, value->name, value->range, values[i]);
        }
    }
    return TL_OK;
}

/* Buffers start at multiples of the alignment. */
static size_t padded_size(const tl_tensor *tensor) {
    const size_t line = TL_ALIGNMENT / sizeof(tl_real);
    return ((size_t)tensor->size + line - 1) / line * line;
}

static void fill_entries(tl_optimizer *optimizer) {
    int next = 0;
    for (int i = 0; i < tl_parameters_count(optimizer->parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(optimizer->parameters, i);
        if (parameter.group != TL_GROUP_BUFFER) {
            optimizer->entries[next++] = (tl_optimizer_entry){
                .name = parameter.name, .group = parameter.group, .tensor = parameter.tensor};
        }
    }
}

static bool allocate_buffers(tl_optimizer *optimizer) {
    size_t size = 0;
    for (int i = 0; i < optimizer->entry_count; i++) {
        size += padded_size(optimizer->entries[i].tensor) * (size_t)optimizer->buffer_count;
    }
    if (size == 0) {
        return true;
    }
    optimizer->memory = tl_memory_allocate_zeroed(optimizer->context, size, sizeof(tl_real));
    optimizer->memory_bytes = size * sizeof(tl_real);
    if (optimizer->memory == NULL) {
        return false;
    }
    tl_real *next = optimizer->memory;
    for (int i = 0; i < optimizer->entry_count; i++) {
        tl_optimizer_entry *entry = &optimizer->entries[i];
        for (int k = 0; k < optimizer->buffer_count; k++) {
            entry->buffers[k] = next;
            next += padded_size(entry->tensor);
        }
    }
    return true;
}

static int count_trainable(const tl_parameters *parameters) {
    int count = 0;
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        count += tl_parameters_at(parameters, i).group != TL_GROUP_BUFFER;
    }
    return count;
}

tl_optimizer *tl_optimizer_create(tl_parameters *parameters, const tl_optimizer_rule *rule,
                                  const double *values, tl_error *error) {
    tl_error_clear(error);
    if (check_values(rule, values, error) != TL_OK) {
        return NULL;
    }
    tl_context *context = tl_parameters_context(parameters);
    tl_optimizer *optimizer = tl_memory_allocate_zeroed(context, 1, sizeof *optimizer);
    if (optimizer == NULL) {
        (void)tl_memory_fail(context, error, rule->kind, sizeof *optimizer);
        return NULL;
    }
    optimizer->context = context;
    optimizer->rule = rule;
    optimizer->parameters = parameters;
    memcpy(optimizer->values, values, (size_t)rule->value_count * sizeof *values);
    optimizer->buffer_count = rule->buffer_count(values);
    optimizer->entry_count = count_trainable(parameters);
    optimizer->entries = tl_memory_allocate_zeroed(context, (size_t)optimizer->entry_count,
                                                   sizeof *optimizer->entries);
    if (optimizer->entries != NULL) {
        fill_entries(optimizer);
    }
    if (optimizer->entries == NULL || !allocate_buffers(optimizer)) {
        (void)tl_memory_fail(context, error, rule->kind, optimizer->memory_bytes);
        tl_optimizer_free(optimizer);
        return NULL;
    }
    return optimizer;
}

void tl_optimizer_free(tl_optimizer *optimizer) {
    if (optimizer == NULL) {
        return;
    }
    tl_context *context = optimizer->context;
    tl_memory_release(context, optimizer->memory, optimizer->memory_bytes);
    tl_memory_release(context, optimizer->entries,
                      (size_t)optimizer->entry_count * sizeof *optimizer->entries);
    tl_memory_release(context, optimizer, sizeof *optimizer);
}

const char *tl_optimizer_kind(const tl_optimizer *optimizer) {
    return optimizer->rule->kind;
}

tl_status tl_optimizer_step(tl_optimizer *optimizer) {
    TL_TRY(check_values(optimizer->rule, optimizer->values, NULL));
    for (int i = 0; i < optimizer->entry_count; i++) {
        tl_optimizer_entry *entry = &optimizer->entries[i];
        if (!entry->tensor->has_grad || !entry->tensor->requires_grad) {
            continue;
        }
        const bool decays =
            entry->group == TL_GROUP_WEIGHT || optimizer->values[TL_VALUE_DECAY_ALL] != 0;
        entry->steps++;
        optimizer->rule->update(optimizer, entry,
                                decays ? optimizer->values[TL_VALUE_WEIGHT_DECAY] : 0);
    }
    tl_parameters_clear_grads(optimizer->parameters);
    return TL_OK;
}

void tl_optimizer_set_learning_rate(tl_optimizer *optimizer, double learning_rate) {
    optimizer->values[TL_VALUE_LEARNING_RATE] = learning_rate;
}

double tl_optimizer_learning_rate(const tl_optimizer *optimizer) {
    return optimizer->values[TL_VALUE_LEARNING_RATE];
}

/* ------------------------------------------------------------------ norm of the gradient */

static bool counts(const tl_parameter *parameter) {
    return parameter->group != TL_GROUP_BUFFER && parameter->tensor->has_grad &&
           parameter->tensor->requires_grad;
}

double tl_grad_norm(const tl_parameters *parameters) {
    const tl_context *context = tl_parameters_context(parameters);
    double sum = 0;
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        if (counts(&parameter)) {
            sum += context->kernels->vector->sum_of_squares(
                context->threads, parameter.tensor->size, parameter.tensor->grad);
        }
    }
    return sqrt(sum);
}

tl_status tl_clip_grad_norm(tl_parameters *parameters, double max_norm, double *total_norm) {
    const double avoid_zero = 1e-6;
    if (!(max_norm > 0)) {
        return TL_ERROR_INVALID_ARGUMENT;
    }
    const double norm = tl_grad_norm(parameters);
    if (total_norm != NULL) {
        *total_norm = norm;
    }
    if (!isfinite(norm)) {
        return TL_ERROR_NOT_FINITE;
    }
    const double factor = max_norm / (norm + avoid_zero);
    if (factor >= 1) {
        return TL_OK;
    }
    const tl_context *context = tl_parameters_context(parameters);
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        if (counts(&parameter)) {
            context->kernels->vector->scale(context->threads, parameter.tensor->size,
                                            (tl_real)factor, parameter.tensor->grad);
        }
    }
    return TL_OK;
}
