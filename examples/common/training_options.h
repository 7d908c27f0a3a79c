/* training_options.h - the options that all trainers have. */
#ifndef EXAMPLE_TRAINING_OPTIONS_H
#define EXAMPLE_TRAINING_OPTIONS_H

#include <tapeline/tapeline.h>

#include "common/options.h"

enum { OPTIMIZER_SGD, OPTIMIZER_ADAM, OPTIMIZER_ADAMW };
enum { BATCH_NORM_SYNCHRONIZED, BATCH_NORM_LOCAL };

/* How to train, and what to keep of it. */
typedef struct training_settings {
    int64_t epochs;
    int64_t stop_after;
    int64_t batch_size;
    int optimizer;
    double learning_rate; /* NAN: not given */
    double momentum;
    double weight_decay; /* NAN: not given */
    int schedule;
    double warmup_epochs;
    double clip_norm;
    int64_t seed;
    int batch_norm; /* of several ranks */
    int64_t threads;
    int64_t loader_threads;
    uint64_t memory_limit;
    const char *checkpoint;
    const char *resume;
    const char *log;
    const char *profile;
    const char *evaluate;
} training_settings;

/* The attention modules of a network. */
typedef struct attention_settings {
    int kind; /* tl_attention_kind */
    int64_t key_divisor;
    int64_t heads;
    int normalization;
    int pairwise;
    bool use_scale;
    int implementation;
} attention_settings;

enum { TRAINING_OPTIONS = 20, ATTENTION_OPTIONS = 7 };

/* 15 epochs of batches of 128 by SGD with one cycle, seed 1. */
training_settings training_settings_default(void);
/* No attention; else one head, key channels half of all. */
attention_settings attention_settings_default(void);

/* Fills `options` with the program's own options, the attention modules' and those of all trainers,
 * whose entries point into the settings; returns how many there are. */
size_t trainer_options(const option *own, size_t own_count, attention_settings *attention,
                       training_settings *training, option *options);

/* A model's configuration takes over what concerns its modules; those of all models name it alike.
 */
#define ATTENTION_CONFIGURE(config, settings)                                                      \
    do {                                                                                           \
        (config)->attention = (tl_attention_kind)(settings)->kind;                                 \
        (config)->heads = (int)(settings)->heads;                                                  \
        (config)->key_channels_divisor = (int)(settings)->key_divisor;                             \
        (config)->normalization = (tl_normalization)(settings)->normalization;                     \
        (config)->pairwise = (tl_pairwise)(settings)->pairwise;                                    \
        (config)->use_scale = (settings)->use_scale;                                               \
        (config)->implementation = (tl_attention_implementation)(settings)->implementation;        \
    } while (0)

/* Fills in what was not given: a learning rate of `sgd_rate` for SGD and 0.003 for the others, and
 * the optimizer's usual weight decay. */
void training_settings_resolve(training_settings *s, double sgd_rate);

/* NULL after an error. */
tl_optimizer *training_create_optimizer(const training_settings *s, tl_parameters *parameters,
                                        tl_error *error);
tl_schedule_config training_schedule(const training_settings *s, int64_t steps_per_epoch);

#endif
