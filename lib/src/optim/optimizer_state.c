/* An optimizer's state below a prefix: kind and hyperparameters as values, each buffer as an array
 * <buffer>/<parameter>, and the number of a parameter's steps as the value `steps` of its first
 * buffer. Without buffers that number has no effect and is not kept. */
#include "core/state_internal.h"
#include "optim/optimizer_internal.h"

#include <string.h>

tl_status tl_optimizer_save_state(const tl_optimizer *optimizer, tl_state *state,
                                  const char *prefix, tl_error *error) {
    tl_error_clear(error);
    const tl_optimizer_rule *rule = optimizer->rule;
    char path[TL_PATH_SIZE];
    TL_TRY(tl_state_compose(path, prefix, NULL, "kind", error));
    TL_TRY(tl_state_put_string(state, path, rule->kind, error));
    for (int i = 0; i < rule->value_count; i++) {
        TL_TRY(tl_state_compose(path, prefix, NULL, rule->values[i].name, error));
        TL_TRY(tl_state_put_number(state, path, optimizer->values[i], error));
    }
    for (int k = 0; k < optimizer->buffer_count; k++) {
        for (int i = 0; i < optimizer->entry_count; i++) {
            const tl_optimizer_entry *entry = &optimizer->entries[i];
            TL_TRY(tl_state_compose(path, prefix, rule->buffer_names[k], entry->name, error));
            TL_TRY(tl_state_borrow_reals(state, path, entry->tensor, entry->buffers[k], error));
            if (k == 0) {
                char steps_path[TL_PATH_SIZE];
                TL_TRY(tl_state_compose(steps_path, path, NULL, "steps", error));
                TL_TRY(tl_state_put_integer(state, steps_path, entry->steps, error));
            }
        }
    }
    return TL_OK;
}

static tl_status read_values(const tl_optimizer *optimizer, const tl_state *state,
                             const char *prefix, double *values, tl_error *error) {
    const tl_optimizer_rule *rule = optimizer->rule;
    char path[TL_PATH_SIZE];
    const char *kind;
    TL_TRY(tl_state_compose(path, prefix, NULL, "kind", error));
    TL_TRY(tl_state_read_string(state, path, &kind, error));
    if (strcmp(kind, rule->kind) != 0) {
        return tl_fail(error, TL_ERROR_FORMAT, "state: expected '%s' to be '%s', found '%.100s'",
                       path, rule->kind, kind);
    }
    for (int i = 0; i < rule->value_count; i++) {
        const tl_hyperparameter *value = &rule->values[i];
        TL_TRY(tl_state_compose(path, prefix, NULL, value->name, error));
        TL_TRY(
            tl_state_read_number(state, path, value->minimum, value->maximum, &values[i], error));
    }
    if (rule->buffer_count(values) != optimizer->buffer_count) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "state: expected '%.100s' to be of %s %s momentum, found one %s it", prefix,
                       rule->kind,
                       rule->buffer_count(values) < optimizer->buffer_count ? "with" : "without",
                       rule->buffer_count(values) < optimizer->buffer_count ? "without" : "with");
    }
    return TL_OK;
}

static tl_status check_buffers(const tl_optimizer *optimizer, const tl_state *state,
                               const char *prefix, tl_error *error) {
    for (int k = 0; k < optimizer->buffer_count; k++) {
        for (int i = 0; i < optimizer->entry_count; i++) {
            const tl_optimizer_entry *entry = &optimizer->entries[i];
            char path[TL_PATH_SIZE];
            TL_TRY(tl_state_compose(path, prefix, optimizer->rule->buffer_names[k], entry->name,
                                    error));
            TL_TRY(tl_state_check_reals(state, path, entry->tensor, error));
            if (k == 0) {
                char steps_path[TL_PATH_SIZE];
                int64_t steps;
                TL_TRY(tl_state_compose(steps_path, path, NULL, "steps", error));
                TL_TRY(tl_state_read_integer(state, steps_path, 0, INT64_MAX, &steps, error));
            }
        }
    }
    return TL_OK;
}

static tl_status check_count(const tl_optimizer *optimizer, const tl_state *state,
                             const char *prefix, tl_error *error) {
    int arrays = 0;
    for (int i = 0; i < tl_state_count(state); i++) {
        const tl_state_entry entry = tl_state_at(state, i);
        arrays += entry.kind == TL_STATE_ARRAY && tl_state_is_below(entry.path, prefix);
    }
    const int expected = optimizer->entry_count * optimizer->buffer_count;
    if (arrays != expected) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "state: expected %d arrays below '%.100s' for the parameters of this model, "
                       "found %d",
                       expected, prefix, arrays);
    }
    return TL_OK;
}

tl_status tl_optimizer_check_state(const tl_optimizer *optimizer, const tl_state *state,
                                   const char *prefix, tl_error *error) {
    tl_error_clear(error);
    double values[TL_OPTIMIZER_MAX_VALUES];
    TL_TRY(read_values(optimizer, state, prefix, values, error));
    TL_TRY(check_buffers(optimizer, state, prefix, error));
    return check_count(optimizer, state, prefix, error);
}

tl_status tl_optimizer_load_state(tl_optimizer *optimizer, const tl_state *state,
                                  const char *prefix, tl_error *error) {
    TL_TRY(tl_optimizer_check_state(optimizer, state, prefix, error));
    TL_TRY(read_values(optimizer, state, prefix, optimizer->values, error));
    for (int k = 0; k < optimizer->buffer_count; k++) {
        for (int i = 0; i < optimizer->entry_count; i++) {
            tl_optimizer_entry *entry = &optimizer->entries[i];
            char path[TL_PATH_SIZE];
            TL_TRY(tl_state_compose(path, prefix, optimizer->rule->buffer_names[k], entry->name,
                                    error));
            tl_state_copy_reals(state, path, entry->buffers[k]);
            if (k == 0) {
                char steps_path[TL_PATH_SIZE];
                TL_TRY(tl_state_compose(steps_path, path, NULL, "steps", error));
                (void)tl_state_find_integer(state, steps_path, &entry->steps);
            }
        }
    }
    return TL_OK;
}
