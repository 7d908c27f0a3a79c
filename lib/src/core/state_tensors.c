/* Tensors in a state: parameters and an optimizer's buffers. */
#include "core/state_internal.h"

#include <math.h>
#include <string.h>

tl_status tl_state_borrow_reals(tl_state *state, const char *path, const tl_tensor *tensor,
                                const tl_real *values, tl_error *error) {
    tl_state_array array = {.type = TL_ELEMENT_REAL, .rank = tensor->rank, .data = values};
    memcpy(array.shape, tensor->shape, sizeof array.shape);
    return tl_state_borrow_array(state, path, &array, error);
}

static tl_real element(const tl_state_array *array, int64_t index) {
    return array->type == TL_FLOAT32 ? (tl_real)((const float *)array->data)[index]
                                     : (tl_real)((const double *)array->data)[index];
}

tl_status tl_state_check_reals(const tl_state *state, const char *path, const tl_tensor *tensor,
                               tl_error *error) {
    const tl_state_array *array = tl_state_find_array(state, path);
    const bool is_double = array != NULL && array->type == TL_FLOAT64;
    const tl_element_type type = is_double ? TL_FLOAT64 : TL_FLOAT32;
    TL_TRY(tl_state_read_array(state, path, type, tensor->rank, tensor->shape, &array, error));
    for (int64_t i = 0; i < tensor->size; i++) {
        if (!isfinite(element(array, i))) {
            return tl_fail(error, TL_ERROR_NOT_FINITE, "state: '%s' has a NaN or an infinity",
                           path);
        }
    }
    return TL_OK;
}

void tl_state_copy_reals(const tl_state *state, const char *path, tl_real *values) {
    const tl_state_array *array = tl_state_find_array(state, path);
    int64_t size = 1;
    for (int i = 0; i < array->rank; i++) {
        size *= array->shape[i];
    }
    for (int64_t i = 0; i < size; i++) {
        values[i] = element(array, i);
    }
}

tl_status tl_parameters_save_state(const tl_parameters *parameters, tl_state *state,
                                   const char *prefix, tl_error *error) {
    tl_error_clear(error);
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        char path[TL_PATH_SIZE];
        char axes_path[TL_PATH_SIZE];
        TL_TRY(tl_state_compose(path, prefix, NULL, parameter.name, error));
        TL_TRY(tl_state_borrow_reals(state, path, parameter.tensor, parameter.tensor->storage->data,
                                     error));
        TL_TRY(tl_state_compose(axes_path, path, NULL, "axes", error));
        TL_TRY(tl_state_put_string(state, axes_path, parameter.axes, error));
    }
    return TL_OK;
}

/* Every parameter's array is there and fits, and their number is that of all arrays: then there is
 * none without a parameter. The search for the stranger's name is left to the failure. */
static tl_status check_strangers(const tl_parameters *parameters, const tl_state *state,
                                 const char *prefix, tl_error *error) {
    int arrays = 0;
    for (int i = 0; i < tl_state_count(state); i++) {
        const tl_state_entry entry = tl_state_at(state, i);
        arrays += entry.kind == TL_STATE_ARRAY && tl_state_is_below(entry.path, prefix);
    }
    if (arrays == tl_parameters_count(parameters)) {
        return TL_OK;
    }
    for (int i = 0; i < tl_state_count(state); i++) {
        const tl_state_entry entry = tl_state_at(state, i);
        bool known = entry.kind != TL_STATE_ARRAY || !tl_state_is_below(entry.path, prefix);
        for (int k = 0; k < tl_parameters_count(parameters) && !known; k++) {
            char path[TL_PATH_SIZE];
            TL_TRY(
                tl_state_compose(path, prefix, NULL, tl_parameters_at(parameters, k).name, error));
            known = strcmp(path, entry.path) == 0;
        }
        if (!known) {
            return tl_fail(error, TL_ERROR_FORMAT,
                           "state: expected the %d arrays of this model, found '%s', which it does "
                           "not have",
                           tl_parameters_count(parameters), entry.path);
        }
    }
    return TL_OK;
}

tl_status tl_parameters_check_state(const tl_parameters *parameters, const tl_state *state,
                                    const char *prefix, tl_error *error) {
    tl_error_clear(error);
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        char path[TL_PATH_SIZE];
        TL_TRY(tl_state_compose(path, prefix, NULL, parameter.name, error));
        TL_TRY(tl_state_check_reals(state, path, parameter.tensor, error));
    }
    return check_strangers(parameters, state, prefix, error);
}

tl_status tl_parameters_load_state(tl_parameters *parameters, const tl_state *state,
                                   const char *prefix, tl_error *error) {
    TL_TRY(tl_parameters_check_state(parameters, state, prefix, error));
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        char path[TL_PATH_SIZE];
        TL_TRY(tl_state_compose(path, prefix, NULL, parameter.name, error));
        tl_state_copy_reals(state, path, parameter.tensor->storage->data);
    }
    return TL_OK;
}
