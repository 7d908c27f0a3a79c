#include <tapeline/parameters.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/tensor_internal.h"

enum { AXES_SIZE = 32 };

typedef struct entry {
    char name[TL_NAME_SIZE];
    char axes[AXES_SIZE];
    tl_parameter_group group;
    tl_tensor *tensor;
} entry;

struct tl_parameters {
    tl_context *context;
    entry **entries; /* apart, so that names stay where they are */
    int count;
    int capacity;
};

tl_parameters *tl_parameters_create(tl_context *context, tl_error *error) {
    tl_error_clear(error);
    tl_parameters *parameters = tl_memory_allocate_zeroed(context, 1, sizeof *parameters);
    if (parameters == NULL) {
        (void)tl_memory_fail(context, error, "parameters", sizeof *parameters);
        return NULL;
    }
    parameters->context = context;
    return parameters;
}

void tl_parameters_free(tl_parameters *parameters) {
    if (parameters == NULL) {
        return;
    }
    tl_context *context = parameters->context;
    for (int i = 0; i < parameters->count; i++) {
        tl_tensor_free(parameters->entries[i]->tensor);
        tl_memory_release(context, parameters->entries[i], sizeof(entry));
    }
    tl_memory_release(context, parameters->entries,
                      (size_t)parameters->capacity * sizeof *parameters->entries);
    tl_memory_release(context, parameters, sizeof *parameters);
}

tl_context *tl_parameters_context(const tl_parameters *parameters) {
    return parameters->context;
}

static tl_status compose_name(const char *prefix, const char *name, char composed[TL_NAME_SIZE],
                              tl_error *error) {
    const bool has_prefix = prefix != NULL && prefix[0] != '\0';
    const int length = snprintf(composed, TL_NAME_SIZE, "%s%s%s", has_prefix ? prefix : "",
                                has_prefix ? "." : "", name);
    if (name[0] == '\0' || length < 0 || length >= TL_NAME_SIZE) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "parameters: a name has 1 to %d characters, found '%.200s'",
                       TL_NAME_SIZE - 1, composed);
    }
    if (strchr(composed, '/') != NULL) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "parameters: a name must not have a slash, found '%s'", composed);
    }
    return TL_OK;
}

static bool reserve(tl_parameters *parameters) {
    if (parameters->count < parameters->capacity) {
        return true;
    }
    const int capacity = parameters->capacity == 0 ? 64 : 2 * parameters->capacity;
    entry **grown = tl_memory_reallocate(parameters->context, parameters->entries,
                                         (size_t)parameters->capacity * sizeof *grown,
                                         (size_t)capacity * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    parameters->entries = grown;
    parameters->capacity = capacity;
    return true;
}

tl_tensor *tl_parameters_add(tl_parameters *parameters, const char *prefix, const char *name,
                             tl_parameter_group group, const char *axes, int rank,
                             const int64_t *shape, tl_error *error) {
    tl_error_clear(error);
    char composed[TL_NAME_SIZE];
    if (compose_name(prefix, name, composed, error) != TL_OK) {
        return NULL;
    }
    if (tl_parameters_find(parameters, composed) != NULL) {
        (void)tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "parameters: the name '%s' is taken",
                      composed);
        return NULL;
    }
    tl_context *context = parameters->context;
    entry *added =
        reserve(parameters) ? tl_memory_allocate_zeroed(context, 1, sizeof *added) : NULL;
    if (added == NULL) {
        (void)tl_memory_fail(context, error, composed, sizeof *added);
        return NULL;
    }
    added->tensor = tl_tensor_create(context, rank, shape, group != TL_GROUP_BUFFER, error);
    if (added->tensor == NULL) {
        tl_memory_release(context, added, sizeof *added);
        return NULL;
    }
    added->group = group;
    memcpy(added->name, composed, sizeof composed);
    (void)snprintf(added->axes, sizeof added->axes, "%s", axes);
    parameters->entries[parameters->count++] = added;
    return added->tensor;
}

int tl_parameters_count(const tl_parameters *parameters) {
    return parameters->count;
}

tl_parameter tl_parameters_at(const tl_parameters *parameters, int index) {
    const entry *e = parameters->entries[index];
    return (tl_parameter){.name = e->name, .axes = e->axes, .group = e->group, .tensor = e->tensor};
}

tl_tensor *tl_parameters_find(const tl_parameters *parameters, const char *name) {
    for (int i = 0; i < parameters->count; i++) {
        if (strcmp(parameters->entries[i]->name, name) == 0) {
            return parameters->entries[i]->tensor;
        }
    }
    return NULL;
}

int64_t tl_parameters_trainable_size(const tl_parameters *parameters) {
    int64_t size = 0;
    for (int i = 0; i < parameters->count; i++) {
        if (parameters->entries[i]->group != TL_GROUP_BUFFER) {
            size += parameters->entries[i]->tensor->size;
        }
    }
    return size;
}

void tl_parameters_clear_grads(tl_parameters *parameters) {
    for (int i = 0; i < parameters->count; i++) {
        tl_tensor_clear_grad(parameters->entries[i]->tensor);
    }
}
