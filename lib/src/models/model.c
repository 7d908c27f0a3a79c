#include "models/model_internal.h"

#include <stdio.h>
#include <string.h>

const char *const tl_attention_kind_names[] = {"none", "efficient", "non_local", NULL};
const char *const tl_attention_normalization_names[] = {"softmax", "scaling", NULL};
const char *const tl_pairwise_names[] = {"embedded_gaussian", "gaussian", "dot_product",
                                         "concatenation", NULL};
const char *const tl_attention_implementation_names[] = {"tiled", "materialized", NULL};

/* ------------------------------------------------------------------ fields of configurations */

static int choice_count(const tl_config_field *field) {
    int count = 0;
    while (field->choices[count] != NULL) {
        count++;
    }
    return count;
}

double tl_config_field_value(const tl_config_field *field, const void *config) {
    const char *at = (const char *)config + field->offset;
    switch (field->type) {
    case TL_FIELD_INT:
    case TL_FIELD_CHOICE: {
        int value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    case TL_FIELD_BOOL:
        return *(const bool *)at ? 1.0 : 0.0;
    case TL_FIELD_BITS: {
        uint32_t value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    case TL_FIELD_DOUBLE: {
        double value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    }
    return 0.0;
}

void tl_config_set_field(const tl_config_field *field, void *config, double value) {
    char *at = (char *)config + field->offset;
    switch (field->type) {
    case TL_FIELD_INT:
    case TL_FIELD_CHOICE: {
        const int v = (int)value;
        memcpy(at, &v, sizeof v);
        break;
    }
    case TL_FIELD_BOOL:
        *(bool *)at = value != 0.0;
        break;
    case TL_FIELD_BITS: {
        const uint32_t v = (uint32_t)value;
        memcpy(at, &v, sizeof v);
        break;
    }
    case TL_FIELD_DOUBLE:
        memcpy(at, &value, sizeof value);
        break;
    }
}

void tl_config_field_range(const tl_config_field *field, double *low, double *high) {
    *low = field->low;
    *high = field->high;
    if (field->type == TL_FIELD_CHOICE) {
        *high = choice_count(field) - 1;
    } else if (field->type == TL_FIELD_BOOL) {
        *high = 1.0;
    }
}

static void field_text(const tl_config_field *field, double value, char *text, size_t size) {
    if (field->type == TL_FIELD_CHOICE) {
        (void)snprintf(text, size, "%s", field->choices[(int)value]);
    } else {
        (void)snprintf(text, size, "%.10g", value);
    }
}

static tl_status check_fields(const tl_model_class *class_, const void *config, tl_error *error) {
    for (int i = 0; i < class_->field_count; i++) {
        const tl_config_field *field = &class_->fields[i];
        double low;
        double high;
        tl_config_field_range(field, &low, &high);
        const double value = tl_config_field_value(field, config);
        if (!(value >= low && value <= high)) {
            return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                           "%s: %s must be from %.10g to %.10g, found %.10g", class_->kind,
                           field->name, low, high, value);
        }
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ life */

tl_model *tl_model_create(tl_context *context, const tl_model_class *class_, const void *config,
                          uint64_t seed, tl_error *error) {
    tl_error_clear(error);
    if (check_fields(class_, config, error) != TL_OK) {
        return NULL;
    }
    tl_model *model = tl_memory_allocate_zeroed(context, 1, class_->model_size);
    void *copy = tl_memory_allocate(context, class_->config_size);
    if (model == NULL || copy == NULL) {
        tl_memory_release(context, model, class_->model_size);
        tl_memory_release(context, copy, class_->config_size);
        (void)tl_memory_fail(context, error, class_->kind, class_->model_size);
        return NULL;
    }
    memcpy(copy, config, class_->config_size);
    model->class_ = class_;
    model->context = context;
    model->config = copy;
    model->parameters = tl_parameters_create(context, error);
    if (model->parameters == NULL || class_->build(model, seed, error) != TL_OK) {
        tl_model_free(model);
        return NULL;
    }
    return model;
}

void tl_model_free(tl_model *model) {
    if (model == NULL) {
        return;
    }
    const tl_model_class *class_ = model->class_;
    tl_context *context = model->context;
    if (class_->destroy != NULL) {
        class_->destroy(model);
    }
    tl_parameters_free(model->parameters);
    tl_memory_release(context, model->config, class_->config_size);
    tl_memory_release(context, model, class_->model_size);
}

tl_tensor *tl_model_forward(tl_model *model, tl_tape *tape, tl_tensor *x) {
    return model->class_->forward(model, tape, x);
}

tl_tensor *tl_model_visit_attention(tl_model *model, tl_tape *tape, tl_tensor *x,
                                    tl_attention_visitor visit, void *user) {
    model->watch = (tl_attention_watch){.visit = visit, .user = user};
    tl_tensor *y = tl_model_forward(model, tape, x);
    model->watch = (tl_attention_watch){0};
    return y;
}

tl_parameters *tl_model_parameters(const tl_model *model) {
    return model->parameters;
}

const char *tl_model_kind(const tl_model *model) {
    return model->class_->kind;
}

int64_t tl_model_config_value(const tl_model *model, const char *field) {
    for (int i = 0; i < model->class_->field_count; i++) {
        const tl_config_field *f = &model->class_->fields[i];
        if (strcmp(f->name, field) == 0 && f->type != TL_FIELD_DOUBLE) {
            return (int64_t)tl_config_field_value(f, model->config);
        }
    }
    return -1;
}

tl_status tl_model_require_same_config(const tl_model *expected, const tl_model *found,
                                       tl_error *error) {
    tl_error_clear(error);
    const tl_model_class *class_ = expected->class_;
    if (class_ != found->class_) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "model: expected %s, found %s",
                       class_->kind, found->class_->kind);
    }
    for (int i = 0; i < class_->field_count; i++) {
        const tl_config_field *field = &class_->fields[i];
        const double a = tl_config_field_value(field, expected->config);
        const double b = tl_config_field_value(field, found->config);
        if (a != b) {
            char a_text[64];
            char b_text[64];
            field_text(field, a, a_text, sizeof a_text);
            field_text(field, b, b_text, sizeof b_text);
            return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "%s: %s: expected %s, found %s",
                           class_->kind, field->name, a_text, b_text);
        }
    }
    return TL_OK;
}
