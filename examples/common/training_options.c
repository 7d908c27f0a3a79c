#include "common/training_options.h"

#include <math.h>
#include <string.h>

training_settings training_settings_default(void) {
    return (training_settings){.epochs = 15,
                               .batch_size = 128,
                               .optimizer = OPTIMIZER_SGD,
                               .learning_rate = NAN,
                               .momentum = 0.9,
                               .weight_decay = NAN,
                               .schedule = TL_SCHEDULE_ONE_CYCLE,
                               .seed = 1};
}

attention_settings attention_settings_default(void) {
    return (attention_settings){.kind = TL_ATTENTION_NONE, .key_divisor = 2, .heads = 1};
}

static size_t training_options(training_settings *s, option *options) {
    const double large = 1e9;
    const option all[] = {
        {.name = "epochs",
         .type = OPTION_INT,
         .value = &s->epochs,
         .argument = "E",
         .help = "length of the training, and of the schedule",
         .low = 1,
         .high = large,
         .keep = OPTION_MUST_AGREE},
        {.name = "stop-after",
         .type = OPTION_INT,
         .value = &s->stop_after,
         .argument = "E",
         .help = "stop when E epochs are done in all, to resume later",
         .low = 1,
         .high = large},
        {.name = "batch-size",
         .type = OPTION_INT,
         .value = &s->batch_size,
         .argument = "B",
         .help = "images of a step, of all ranks together",
         .low = 1,
         .high = 65536,
         .keep = OPTION_MUST_AGREE},
        {.name = "optimizer",
         .type = OPTION_CHOICE,
         .value = &s->optimizer,
         .choices = "sgd|adam|adamw",
         .help = "update rule; sgd has Nesterov momentum",
         .keep = OPTION_MUST_AGREE},
        {.name = "lr",
         .type = OPTION_NUMBER,
         .value = &s->learning_rate,
         .argument = "X",
         .help = "(highest) learning rate; the default depends on optimizer and network",
         .low = 0,
         .high = 1e6,
         .keep = OPTION_MUST_AGREE},
        {.name = "momentum",
         .type = OPTION_NUMBER,
         .value = &s->momentum,
         .argument = "X",
         .help = "of sgd",
         .low = 0,
         .high = 0.9999,
         .keep = OPTION_MUST_AGREE},
        {.name = "weight-decay",
         .type = OPTION_NUMBER,
         .value = &s->weight_decay,
         .argument = "X",
         .help = "on weights, not on biases and norms; default 5e-4, adamw 0.01",
         .low = 0,
         .high = 1e3,
         .keep = OPTION_MUST_AGREE},
        {.name = "schedule",
         .type = OPTION_CHOICE,
         .value = &s->schedule,
         .choices = "constant|step|multistep|cosine|one-cycle",
         .help = "of the learning rate; step and multistep divide it by 10 after 1/2 and 3/4",
         .keep = OPTION_MUST_AGREE},
        {.name = "warmup-epochs",
         .type = OPTION_NUMBER,
         .value = &s->warmup_epochs,
         .argument = "X",
         .help = "linear rise before the schedule",
         .low = 0,
         .high = 1e6,
         .keep = OPTION_MUST_AGREE},
        {.name = "clip-norm",
         .type = OPTION_NUMBER,
         .value = &s->clip_norm,
         .argument = "X",
         .help = "largest norm of the whole gradient, 0: no clipping",
         .low = 0,
         .high = 1e9,
         .keep = OPTION_MUST_AGREE},
        {.name = "seed",
         .type = OPTION_INT,
         .value = &s->seed,
         .argument = "S",
         .help = "of weights, order and augmentation",
         .low = 0,
         .high = 9e15,
         .keep = OPTION_MUST_AGREE},
        {.name = "batch-norm",
         .type = OPTION_CHOICE,
         .value = &s->batch_norm,
         .choices = "synchronized|local",
         .help = "several ranks: statistics of the whole batch, or of each rank's part",
         .keep = OPTION_MAY_DIFFER},
        {.name = "threads",
         .type = OPTION_INT,
         .value = &s->threads,
         .argument = "T",
         .help = "of each rank, 0: its share of the cores; the results do not depend on it",
         .low = 0,
         .high = 1024},
        {.name = "loader-threads",
         .type = OPTION_INT,
         .value = &s->loader_threads,
         .argument = "T",
         .help = "threads that prepare batches ahead, 0: none",
         .low = 0,
         .high = 16},
        {.name = "memory-limit",
         .type = OPTION_BYTES,
         .value = &s->memory_limit,
         .argument = "BYTES",
         .help = "fail rather than hold more than, say, 2G"},
        {.name = "checkpoint",
         .type = OPTION_TEXT,
         .value = &s->checkpoint,
         .argument = "FILE",
         .help = "save here after every epoch and on Ctrl-C (HDF5)"},
        {.name = "resume",
         .type = OPTION_TEXT,
         .value = &s->resume,
         .argument = "FILE",
         .help = "go on from this checkpoint, with its options"},
        {.name = "log",
         .type = OPTION_TEXT,
         .value = &s->log,
         .argument = "FILE.csv",
         .help = "one row per epoch"},
        {.name = "profile",
         .type = OPTION_TEXT,
         .value = &s->profile,
         .argument = "FILE.json",
         .help = "time every operation: a table, and a trace for Perfetto"},
        {.name = "evaluate",
         .type = OPTION_TEXT,
         .value = &s->evaluate,
         .argument = "FILE",
         .help = "test this checkpoint instead of training"},
    };
    _Static_assert(sizeof all / sizeof all[0] == TRAINING_OPTIONS, "TRAINING_OPTIONS is stale");
    memcpy(options, all, sizeof all);
    return TRAINING_OPTIONS;
}

static size_t attention_options(attention_settings *s, option *options) {
    const option all[] = {
        {.name = "attention",
         .type = OPTION_CHOICE,
         .value = &s->kind,
         .choices = "none|efficient|non-local",
         .help = "kind of attention module",
         .keep = OPTION_MUST_AGREE},
        {.name = "key-divisor",
         .type = OPTION_INT,
         .value = &s->key_divisor,
         .argument = "D",
         .help = "key channels = channels / D",
         .low = 1,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "heads",
         .type = OPTION_INT,
         .value = &s->heads,
         .argument = "H",
         .help = "heads of a module",
         .low = 1,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "normalization",
         .type = OPTION_CHOICE,
         .value = &s->normalization,
         .choices = "softmax|scaling",
         .help = "of efficient attention",
         .keep = OPTION_MUST_AGREE},
        {.name = "pairwise",
         .type = OPTION_CHOICE,
         .value = &s->pairwise,
         .choices = "embedded-gaussian|gaussian|dot-product|concatenation",
         .help = "form of the non-local block",
         .keep = OPTION_MUST_AGREE},
        {.name = "use-scale",
         .type = OPTION_FLAG,
         .value = &s->use_scale,
         .help = "its softmax forms: scores over sqrt(key channels / heads)",
         .keep = OPTION_MUST_AGREE},
        {.name = "implementation",
         .type = OPTION_CHOICE,
         .value = &s->implementation,
         .choices = "tiled|materialized",
         .help = "of the non-local block",
         .keep = OPTION_MUST_AGREE},
    };
    _Static_assert(sizeof all / sizeof all[0] == ATTENTION_OPTIONS, "ATTENTION_OPTIONS is stale");
    memcpy(options, all, sizeof all);
    return ATTENTION_OPTIONS;
}

size_t trainer_options(const option *own, size_t own_count, attention_settings *attention,
                       training_settings *training, option *options) {
    memcpy(options, own, own_count * sizeof *own);
    size_t count = own_count;
    count += attention_options(attention, options + count);
    return count + training_options(training, options + count);
}

void training_settings_resolve(training_settings *s, double sgd_rate) {
    if (isnan(s->learning_rate)) {
        s->learning_rate = s->optimizer != OPTIMIZER_SGD ? 0.003 : sgd_rate;
    }
    if (isnan(s->weight_decay)) {
        s->weight_decay = s->optimizer == OPTIMIZER_ADAMW ? 0.01 : 5e-4;
    }
}

tl_optimizer *training_create_optimizer(const training_settings *s, tl_parameters *parameters,
                                        tl_error *error) {
    if (s->optimizer == OPTIMIZER_SGD) {
        return tl_sgd_create(parameters,
                             &(tl_sgd_config){.learning_rate = s->learning_rate,
                                              .momentum = s->momentum,
                                              .weight_decay = s->weight_decay,
                                              .nesterov = s->momentum > 0.0},
                             error);
    }
    tl_adam_config config = tl_adam_config_default();
    config.learning_rate = s->learning_rate;
    config.weight_decay = s->weight_decay;
    return s->optimizer == OPTIMIZER_ADAM ? tl_adam_create(parameters, &config, error)
                                          : tl_adamw_create(parameters, &config, error);
}

tl_schedule_config training_schedule(const training_settings *s, int64_t steps_per_epoch) {
    const int64_t total = s->epochs * steps_per_epoch;
    int64_t warmup = (int64_t)(s->warmup_epochs * (double)steps_per_epoch);
    warmup = warmup < total ? warmup : total - 1;
    tl_schedule_config schedule = {.kind = (tl_schedule_kind)s->schedule,
                                   .base_learning_rate = s->learning_rate,
                                   .warmup_steps = warmup,
                                   .total_steps = total,
                                   .step_size = (total - warmup + 1) / 2,
                                   .milestones = {total / 2, total * 3 / 4},
                                   .milestone_count = 2};
    return schedule;
}
