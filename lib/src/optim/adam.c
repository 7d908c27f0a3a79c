/* Adam and AdamW: they differ in where the weight decay goes. */
#include "optim/optimizer_internal.h"

#include <float.h>
#include <math.h>

enum { BETA1 = TL_VALUE_OWN, BETA2, EPSILON, VALUE_COUNT };

static int buffer_count(const double *values) {
    (void)values;
    return 2;
}

static void update(const tl_optimizer *optimizer, const tl_optimizer_entry *entry,
                   double gradient_decay, double weight_decay_step) {
    const double *values = optimizer->values;
    const double t = (double)entry->steps;
    const tl_adam_coefficients coefficients = {
        .beta1 = (tl_real)values[BETA1],
        .beta2 = (tl_real)values[BETA2],
        .beta1_rest = (tl_real)(1 - values[BETA1]),
        .beta2_rest = (tl_real)(1 - values[BETA2]),
        .step_size = (tl_real)(values[TL_VALUE_LEARNING_RATE] / (1 - pow(values[BETA1], t))),
        .second_moment_root = (tl_real)(1 / sqrt(1 - pow(values[BETA2], t))),
        .epsilon = (tl_real)values[EPSILON],
        .gradient_decay = (tl_real)gradient_decay,
        .weight_decay_step = (tl_real)weight_decay_step,
    };
    tl_tensor *tensor = entry->tensor;
    optimizer->context->kernels->optimizer->adam(optimizer->context->threads, tensor->size,
                                                 &coefficients, tensor->grad, entry->buffers[0],
                                                 entry->buffers[1], tensor->storage->data);
}

static void update_adam(const tl_optimizer *optimizer, const tl_optimizer_entry *entry,
                        double weight_decay) {
    update(optimizer, entry, weight_decay, 0);
}

static void update_adamw(const tl_optimizer *optimizer, const tl_optimizer_entry *entry,
                         double weight_decay) {
    update(optimizer, entry, 0, optimizer->values[TL_VALUE_LEARNING_RATE] * weight_decay);
}

#define ADAM_RULE(kind_, update_)                                                                  \
    {                                                                                              \
        .kind = kind_, .value_count = VALUE_COUNT,                                                 \
        .values = {TL_HYPERPARAMETERS_SHARED,                                                      \
                   {"beta1", 0, TL_BELOW_ONE, "[0, 1)"},                                           \
                   {"beta2", 0, TL_BELOW_ONE, "[0, 1)"},                                           \
                   {"epsilon", 0, DBL_MAX, "[0, inf)"}},                                           \
        .buffer_names = {"first_moment", "second_moment"}, .buffer_count = buffer_count,           \
        .update = update_,                                                                         \
    }

static const tl_optimizer_rule rule_adam = ADAM_RULE("adam", update_adam);
static const tl_optimizer_rule rule_adamw = ADAM_RULE("adamw", update_adamw);

tl_adam_config tl_adam_config_default(void) {
    return (tl_adam_config){
        .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0};
}

tl_adam_config tl_adamw_config_default(void) {
    tl_adam_config config = tl_adam_config_default();
    config.weight_decay = 0.01;
    return config;
}

static tl_optimizer *create(tl_parameters *parameters, const tl_optimizer_rule *rule,
                            const tl_adam_config *config, tl_error *error) {
    const double values[VALUE_COUNT] = {
        [TL_VALUE_LEARNING_RATE] = config->learning_rate,
        [TL_VALUE_WEIGHT_DECAY] = config->weight_decay,
        [TL_VALUE_DECAY_ALL] = config->decay_all_parameters,
        [BETA1] = config->beta1,
        [BETA2] = config->beta2,
        [EPSILON] = config->epsilon,
    };
    return tl_optimizer_create(parameters, rule, values, error);
}

tl_optimizer *tl_adam_create(tl_parameters *parameters, const tl_adam_config *config,
                             tl_error *error) {
    const tl_adam_config defaults = tl_adam_config_default();
    return create(parameters, &rule_adam, config != NULL ? config : &defaults, error);
}

tl_optimizer *tl_adamw_create(tl_parameters *parameters, const tl_adam_config *config,
                              tl_error *error) {
    const tl_adam_config defaults = tl_adamw_config_default();
    return create(parameters, &rule_adamw, config != NULL ? config : &defaults, error);
}
