/* optimizer_internal.h - what the update rules share: hyperparameters by name, buffers by name. */
#ifndef TL_OPTIMIZER_INTERNAL_H
#define TL_OPTIMIZER_INTERNAL_H

#include <tapeline/optimizer.h>

#include "core/tensor_internal.h"

enum { TL_OPTIMIZER_MAX_VALUES = 8, TL_OPTIMIZER_MAX_BUFFERS = 2 };

/* The first hyperparameters of every rule; its own follow. */
enum {
    TL_VALUE_LEARNING_RATE = 0,
    TL_VALUE_WEIGHT_DECAY = 1,
    TL_VALUE_DECAY_ALL = 2,
    TL_VALUE_OWN = 3,
};

typedef struct tl_hyperparameter {
    const char *name;
    double minimum;
    double maximum;
    const char *range; /* in words: "[0, 1)" */
} tl_hyperparameter;

#define TL_HYPERPARAMETERS_SHARED                                                                  \
    {"learning_rate", 0, DBL_MAX, "[0, inf)"}, {"weight_decay", 0, DBL_MAX, "[0, inf)"}, {         \
        "decay_all_parameters", 0, 1, "0 or 1"                                                     \
    }
/* The largest double below 1. */
#define TL_BELOW_ONE 0x1.fffffffffffffp-1

/* A trainable parameter and its state. */
typedef struct tl_optimizer_entry {
    const char *name;
    tl_parameter_group group;
    tl_tensor *tensor;
    int64_t steps; /* updates so far */
    tl_real *buffers[TL_OPTIMIZER_MAX_BUFFERS];
} tl_optimizer_entry;

typedef struct tl_optimizer_rule {
    const char *kind;
    int value_count;
    tl_hyperparameter values[TL_OPTIMIZER_MAX_VALUES];
    const char *buffer_names[TL_OPTIMIZER_MAX_BUFFERS];
    int (*buffer_count)(const double *values);
    /* Updates one parameter; entry->steps counts this step already, `weight_decay` is this
     * parameter's. */
    void (*update)(const tl_optimizer *optimizer, const tl_optimizer_entry *entry,
                   double weight_decay);
} tl_optimizer_rule;

struct tl_optimizer {
    tl_context *context;
    const tl_optimizer_rule *rule;
    tl_parameters *parameters;
    double values[TL_OPTIMIZER_MAX_VALUES];
    tl_optimizer_entry *entries;
    int entry_count;
    int buffer_count;
    tl_real *memory; /* of all buffers */
    size_t memory_bytes;
};

/* NULL, with the error set, if a value is out of its range or memory fails. */
tl_optimizer *tl_optimizer_create(tl_parameters *parameters, const tl_optimizer_rule *rule,
                                  const double *values, tl_error *error);

#endif
