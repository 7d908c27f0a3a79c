#include "optim/optimizer_internal.h"

#include <float.h>

enum { MOMENTUM = TL_VALUE_OWN, DAMPENING, NESTEROV, VALUE_COUNT };

static int buffer_count(const double *values) {
    return values[MOMENTUM] != 0 ? 1 : 0;
}

static void update(const tl_optimizer *optimizer, const tl_optimizer_entry *entry,
                   double weight_decay) {
    const double *values = optimizer->values;
    const double share = entry->steps == 1 ? 1 : 1 - values[DAMPENING];
    const tl_sgd_coefficients coefficients = {
        .learning_rate = (tl_real)values[TL_VALUE_LEARNING_RATE],
        .momentum = (tl_real)values[MOMENTUM],
        .gradient_share = (tl_real)share,
        .weight_decay = (tl_real)weight_decay,
        .nesterov = values[NESTEROV] != 0,
    };
    tl_tensor *tensor = entry->tensor;
    optimizer->context->kernels->optimizer->sgd(optimizer->context->threads, tensor->size,
                                                &coefficients, tensor->grad, entry->buffers[0],
                                                tensor->storage->data);
}

static const tl_optimizer_rule rule = {
    .kind = "sgd",
    .value_count = VALUE_COUNT,
    .values = {TL_HYPERPARAMETERS_SHARED,
               {"momentum", 0, 1, "[0, 1]"},
               {"dampening", 0, 1, "[0, 1]"},
               {"nesterov", 0, 1, "0 or 1"}},
    .buffer_names = {"momentum_buffer"},
    .buffer_count = buffer_count,
    .update = update,
};

tl_sgd_config tl_sgd_config_default(void) {
    return (tl_sgd_config){.learning_rate = 0.1, .momentum = 0.9};
}

tl_optimizer *tl_sgd_create(tl_parameters *parameters, const tl_sgd_config *config,
                            tl_error *error) {
    const tl_sgd_config chosen = config != NULL ? *config : tl_sgd_config_default();
    if (chosen.nesterov && (chosen.momentum == 0 || chosen.dampening != 0)) {
        (void)tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                      "sgd: nesterov wants a momentum and no dampening, found momentum %g and "
                      "dampening %g",
                      chosen.momentum, chosen.dampening);
        return NULL;
    }
    const double values[VALUE_COUNT] = {
        [TL_VALUE_LEARNING_RATE] = chosen.learning_rate,
        [TL_VALUE_WEIGHT_DECAY] = chosen.weight_decay,
        [TL_VALUE_DECAY_ALL] = chosen.decay_all_parameters,
        [MOMENTUM] = chosen.momentum,
        [DAMPENING] = chosen.dampening,
        [NESTEROV] = chosen.nesterov,
    };
    return tl_optimizer_create(parameters, &rule, values, error);
}
