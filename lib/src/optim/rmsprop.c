#include "optim/optimizer_internal.h"

#include <float.h>

enum { ALPHA = TL_VALUE_OWN, EPSILON, MOMENTUM, VALUE_COUNT };

static int buffer_count(const double *values) {
    return values[MOMENTUM] != 0 ? 2 : 1;
}

static void update(const tl_optimizer *optimizer, const tl_optimizer_entry *entry,
                   double weight_decay) {
    const double *values = optimizer->values;
    const tl_rmsprop_coefficients coefficients = {
        .learning_rate = (tl_real)values[TL_VALUE_LEARNING_RATE],
        .alpha = (tl_real)values[ALPHA],
        .alpha_rest = (tl_real)(1 - values[ALPHA]),
        .epsilon = (tl_real)values[EPSILON],
        .weight_decay = (tl_real)weight_decay,
        .momentum = (tl_real)values[MOMENTUM],
    };
    tl_tensor *tensor = entry->tensor;
    optimizer->context->kernels->optimizer->rmsprop(optimizer->context->threads, tensor->size,
                                                    &coefficients, tensor->grad, entry->buffers[0],
                                                    entry->buffers[1], tensor->storage->data);
}

static const tl_optimizer_rule rule = {
    .kind = "rmsprop",
    .value_count = VALUE_COUNT,
    .values = {TL_HYPERPARAMETERS_SHARED,
               {"alpha", 0, 1, "[0, 1]"},
               {"epsilon", 0, DBL_MAX, "[0, inf)"},
               {"momentum", 0, 1, "[0, 1]"}},
    .buffer_names = {"mean_square", "momentum_buffer"},
    .buffer_count = buffer_count,
    .update = update,
};

tl_rmsprop_config tl_rmsprop_config_default(void) {
    return (tl_rmsprop_config){.learning_rate = 0.01, .alpha = 0.99, .epsilon = 1e-8};
}

tl_optimizer *tl_rmsprop_create(tl_parameters *parameters, const tl_rmsprop_config *config,
                                tl_error *error) {
    const tl_rmsprop_config chosen = config != NULL ? *config : tl_rmsprop_config_default();
    const double values[VALUE_COUNT] = {
        [TL_VALUE_LEARNING_RATE] = chosen.learning_rate,
        [TL_VALUE_WEIGHT_DECAY] = chosen.weight_decay,
        [TL_VALUE_DECAY_ALL] = chosen.decay_all_parameters,
        [ALPHA] = chosen.alpha,
        [EPSILON] = chosen.epsilon,
        [MOMENTUM] = chosen.momentum,
    };
    return tl_optimizer_create(parameters, &rule, values, error);
}
