#include <tapeline/initialize.h>

#include <math.h>

#include "core/tensor_internal.h"

void tl_initialize_normal(tl_tensor *tensor, double mean, double deviation, tl_random *random) {
    for (int64_t i = 0; i < tensor->size; i++) {
        tensor->storage->data[i] = (tl_real)(mean + deviation * tl_random_normal(random));
    }
}

void tl_initialize_uniform(tl_tensor *tensor, double low, double high, tl_random *random) {
    for (int64_t i = 0; i < tensor->size; i++) {
        const double u = (double)tl_random_uniform(random);
        tensor->storage->data[i] = (tl_real)(low + (high - low) * u);
    }
}

void tl_initialize_constant(tl_tensor *tensor, double value) {
    for (int64_t i = 0; i < tensor->size; i++) {
        tensor->storage->data[i] = (tl_real)value;
    }
}

void tl_initialize_he_normal(tl_tensor *tensor, int64_t fan, tl_random *random) {
    tl_initialize_normal(tensor, 0.0, sqrt(2.0 / (double)fan), random);
}

void tl_initialize_he_uniform(tl_tensor *tensor, int64_t fan, tl_random *random) {
    const double bound = sqrt(6.0 / (double)fan);
    tl_initialize_uniform(tensor, -bound, bound, random);
}

void tl_initialize_xavier_normal(tl_tensor *tensor, int64_t fan_in, int64_t fan_out,
                                 tl_random *random) {
    tl_initialize_normal(tensor, 0.0, sqrt(2.0 / (double)(fan_in + fan_out)), random);
}

void tl_initialize_xavier_uniform(tl_tensor *tensor, int64_t fan_in, int64_t fan_out,
                                  tl_random *random) {
    const double bound = sqrt(6.0 / (double)(fan_in + fan_out));
    tl_initialize_uniform(tensor, -bound, bound, random);
}
