/* A model's kind, configuration and tensors, to and from a state. */
#include <stdio.h>
#include <string.h>

#include "core/state_internal.h"
#include "models/model_internal.h"

enum { FIELD_PATH_SIZE = 128, LARGEST_CONFIG = 512 };

static const char prefix[] = "model";

static const tl_model_class *const all_classes[] = {&tl_resnet_cifar_class, &tl_local_resnet_class,
                                                    &tl_stereo_net_class};
enum { CLASS_COUNT = sizeof all_classes / sizeof all_classes[0] };

static tl_status save_field(const tl_config_field *field, const void *config, tl_state *state,
                            tl_error *error) {
    char path[FIELD_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", prefix, field->name);
    const double value = tl_config_field_value(field, config);
    switch (field->type) {
    case TL_FIELD_CHOICE:
        return tl_state_put_string(state, path, field->choices[(int)value], error);
    case TL_FIELD_DOUBLE:
        return tl_state_put_number(state, path, value, error);
    default:
        return tl_state_put_integer(state, path, (int64_t)value, error);
    }
}

tl_status tl_model_save_state(const tl_model *model, tl_state *state, tl_error *error) {
    tl_error_clear(error);
    const tl_model_class *class_ = model->class_;
    TL_TRY(tl_state_put_string(state, "model/kind", class_->kind, error));
    for (int i = 0; i < class_->field_count; i++) {
        TL_TRY(save_field(&class_->fields[i], model->config, state, error));
    }
    return tl_parameters_save_state(model->parameters, state, prefix, error);
}

static tl_status load_choice(const tl_config_field *field, const char *path, const tl_state *state,
                             double *value, tl_error *error) {
    const char *name;
    TL_TRY(tl_state_read_string(state, path, &name, error));
    for (int i = 0; field->choices[i] != NULL; i++) {
        if (strcmp(field->choices[i], name) == 0) {
            *value = i;
            return TL_OK;
        }
    }
    return tl_fail(error, TL_ERROR_FORMAT, "%s: unknown value '%.60s'", path, name);
}

static tl_status load_field(const tl_config_field *field, void *config, const tl_state *state,
                            tl_error *error) {
    char path[FIELD_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", prefix, field->name);
    double low;
    double high;
    double value = 0.0;
    tl_config_field_range(field, &low, &high);
    if (field->type == TL_FIELD_CHOICE) {
        TL_TRY(load_choice(field, path, state, &value, error));
    } else if (field->may_be_absent && !tl_state_contains(state, path)) {
        value = 0.0;
    } else if (field->type == TL_FIELD_DOUBLE) {
        TL_TRY(tl_state_read_number(state, path, low, high, &value, error));
    } else {
        int64_t integer;
        TL_TRY(tl_state_read_integer(state, path, (int64_t)low, (int64_t)high, &integer, error));
        value = (double)integer;
    }
    tl_config_set_field(field, config, value);
    return TL_OK;
}

/* What a model may take whose arrays are in the state: them, and room for names and structures. */
static size_t plausible_bytes(const tl_state *state) {
    enum { PER_ENTRY = 4 << 10, PER_MODEL = 1 << 20 };
    const int count = tl_state_count(state);
    size_t total = PER_MODEL + (size_t)count * PER_ENTRY;
    for (int i = 0; i < count; i++) {
        const tl_state_entry e = tl_state_at(state, i);
        size_t bytes;
        if (e.kind == TL_STATE_ARRAY &&
            tl_state_array_bytes(e.array.type, e.array.rank, e.array.shape, &bytes)) {
            total += 2 * bytes;
        }
    }
    return total;
}

/* The configuration is not believed: no file makes us reserve more memory than it could fill. */
static tl_model *create_within(size_t bytes, tl_context *context, const tl_model_class *class_,
                               const void *config, tl_error *error) {
    const tl_memory_usage usage = tl_context_memory(context);
    const bool tighter =
        usage.limit == 0 || (usage.current < usage.limit && bytes < usage.limit - usage.current);
    if (!tighter || usage.current > SIZE_MAX - bytes) {
        return tl_model_create(context, class_, config, 0, error);
    }
    tl_error reason;
    tl_context_set_memory_limit(context, usage.current + bytes);
    tl_model *model = tl_model_create(context, class_, config, 0, &reason);
    tl_context_set_memory_limit(context, usage.limit);
    if (model == NULL && reason.status == TL_ERROR_OUT_OF_MEMORY) {
        (void)tl_fail(error, reason.status, "%.400s (enough for the arrays of this state)",
                      reason.message);
    } else if (model == NULL) {
        (void)tl_fail(error, reason.status, "%s", reason.message);
    }
    return model;
}

tl_model *tl_model_create_from_state(tl_context *context, const tl_state *state, tl_error *error) {
    tl_error_clear(error);
    const char *kind;
    if (tl_state_read_string(state, "model/kind", &kind, error) != TL_OK) {
        return NULL;
    }
    const tl_model_class *class_ = NULL;
    for (int i = 0; i < CLASS_COUNT; i++) {
        if (strcmp(all_classes[i]->kind, kind) == 0) {
            class_ = all_classes[i];
        }
    }
    if (class_ == NULL) {
        (void)tl_fail(
            error, TL_ERROR_UNSUPPORTED,
            "model/kind: expected resnet_cifar, local_resnet or stereo_net, found '%.60s'", kind);
        return NULL;
    }
    _Alignas(max_align_t) char config[LARGEST_CONFIG] = {0};
    for (int i = 0; i < class_->field_count; i++) {
        if (load_field(&class_->fields[i], config, state, error) != TL_OK) {
            return NULL;
        }
    }
    tl_model *model = create_within(plausible_bytes(state), context, class_, config, error);
    if (model != NULL &&
        tl_parameters_load_state(model->parameters, state, prefix, error) != TL_OK) {
        tl_model_free(model);
        return NULL;
    }
    return model;
}
