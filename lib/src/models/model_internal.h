/* model_internal.h - what a kind of model provides. */
#ifndef TL_MODEL_INTERNAL_H
#define TL_MODEL_INTERNAL_H

#include <stddef.h>

#include <tapeline/model.h>

#include "core/context_internal.h"
#include "models/attention_module.h"

typedef enum tl_field_type {
    TL_FIELD_INT,    /* int */
    TL_FIELD_BOOL,   /* bool */
    TL_FIELD_BITS,   /* uint32_t */
    TL_FIELD_CHOICE, /* an enum from 0; stored by name */
    TL_FIELD_DOUBLE, /* double */
} tl_field_type;

/* A field of a configuration struct, for saving, loading and comparing. */
typedef struct tl_config_field {
    const char *name;
    tl_field_type type;
    size_t offset;
    const char *const *choices; /* names by value, NULL-terminated */
    double low;                 /* of numbers, inclusive */
    double high;
    bool may_be_absent; /* younger than the first checkpoints: then 0 */
} tl_config_field;

#define TL_CONFIG_FIELD(struct_, name_, type_, low_, high_)                                        \
    {                                                                                              \
        .name = #name_, .type = type_, .offset = offsetof(struct_, name_), .low = low_,            \
        .high = high_                                                                              \
    }
#define TL_CONFIG_LATER_BOOL(struct_, name_)                                                       \
    {                                                                                              \
        .name = #name_, .type = TL_FIELD_BOOL, .offset = offsetof(struct_, name_),                 \
        .may_be_absent = true                                                                      \
    }
#define TL_CONFIG_CHOICE(struct_, name_, choices_)                                                 \
    {                                                                                              \
        .name = #name_, .type = TL_FIELD_CHOICE, .offset = offsetof(struct_, name_),               \
        .choices = choices_                                                                        \
    }

typedef struct tl_model_class {
    const char *kind;
    size_t model_size; /* of the struct that starts with a tl_model */
    size_t config_size;
    const tl_config_field *fields;
    int field_count;
    /* Adds parameters and layers; the model's config is filled in and its fields are in range. */
    tl_status (*build)(tl_model *model, uint64_t seed, tl_error *error);
    tl_tensor *(*forward)(tl_model *model, tl_tape *tape, tl_tensor *x);
    void (*destroy)(tl_model *model); /* what build allocated beyond the parameters; may be NULL */
} tl_model_class;

struct tl_model {
    const tl_model_class *class_;
    tl_context *context;
    tl_parameters *parameters;
    void *config;
    tl_attention_watch watch; /* during tl_model_visit_attention */
};

/* Names of tl_attention_kind, tl_normalization and so on, as in checkpoints. */
extern const char *const tl_attention_kind_names[];
extern const char *const tl_attention_normalization_names[];
extern const char *const tl_pairwise_names[];
extern const char *const tl_attention_implementation_names[];

/* Checks the fields' ranges and builds the model. `config` is copied. */
tl_model *tl_model_create(tl_context *context, const tl_model_class *class_, const void *config,
                          uint64_t seed, tl_error *error);

double tl_config_field_value(const tl_config_field *field, const void *config);
void tl_config_set_field(const tl_config_field *field, void *config, double value);
/* The inclusive range of its values. */
void tl_config_field_range(const tl_config_field *field, double *low, double *high);

/* The kinds there are. */
extern const tl_model_class tl_resnet_cifar_class;
extern const tl_model_class tl_local_resnet_class;
extern const tl_model_class tl_stereo_net_class;

#endif
