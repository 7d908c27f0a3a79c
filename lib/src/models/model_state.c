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
    tl_model *model = tl_model_create(context, class_, config, 0, error);
    if (model != NULL &&
        tl_parameters_load_state(model->parameters, state, prefix, error) != TL_OK) {
        tl_model_free(model);
        return NULL;
    }
    return model;
}
