#include "common/attention_run.h"

#include <stdlib.h>

#include "common/fail.h"
#include "common/interrupt.h"
#include "common/progress.h"

enum { MOST_STEPS = 101 };

const char *attention_variant_name(attention_variant variant) {
    static const char *const names[VARIANT_COUNT] = {
        "efficient", "non-local tiled", "non-local materialized", "efficient composed"};
    return names[variant];
}

static tl_non_local_config non_local_of(const attention_setup *setup, attention_variant variant) {
    tl_non_local_config config = setup->non_local;
    config.implementation =
        variant == VARIANT_MATERIALIZED ? TL_ATTENTION_MATERIALIZED : TL_ATTENTION_TILED;
    return config;
}

tl_status attention_estimate(const attention_setup *setup, attention_variant variant,
                             tl_attention_estimate *estimate, tl_error *error) {
    if (variant == VARIANT_COMPOSED) {
        return fail_with(error, TL_ERROR_UNSUPPORTED, "%s: no estimate",
                         attention_variant_name(variant));
    }
    const tl_non_local_config non_local = non_local_of(setup, variant);
    const bool efficient = variant == VARIANT_EFFICIENT;
    return tl_attention_cost(efficient ? TL_ATTENTION_EFFICIENT : TL_ATTENTION_NON_LOCAL,
                             efficient ? (const void *)&setup->efficient : &non_local, setup->rank,
                             setup->shape, setup->threads, estimate, error);
}

/* ------------------------------------------------------------------ running */

typedef struct run {
    const attention_setup *setup;
    attention_variant variant;
    tl_context *context;
    tl_tape *tape;
    tl_parameters *parameters;
    tl_efficient_attention_layer efficient;
    tl_non_local_layer non_local;
    tl_array x;
    tl_tensor *values; /* hold x's memory */
} run;

static void run_free(run *r) {
    tl_tape_free(r->tape);
    tl_parameters_free(r->parameters);
    tl_tensor_free(r->values);
    tl_context_free(r->context);
}

static tl_status run_create(run *r, tl_error *error) {
    const attention_setup *setup = r->setup;
    r->context = tl_context_create(&(tl_context_config){
        .threads = setup->threads, .memory_limit = (size_t)setup->memory_limit, .error = error});
    if (r->context == NULL) {
        return error->status;
    }
    r->tape = tl_tape_create(r->context);
    if (r->tape == NULL) {
        return fail_with(error, TL_ERROR_OUT_OF_MEMORY, "out of memory");
    }
    r->values = tl_tensor_create(r->context, setup->rank, setup->shape, false, error);
    r->parameters = r->values != NULL ? tl_parameters_create(r->context, error) : NULL;
    if (r->parameters == NULL) {
        return error->status;
    }
    tl_random random = tl_random_create(1, TL_RANDOM_INITIALIZE, 0);
    tl_initialize_uniform(r->values, -1, 1, &random);
    r->x = (tl_array){.rank = setup->rank, .data = tl_tensor_data(r->values)};
    for (int i = 0; i < setup->rank; i++) {
        r->x.shape[i] = setup->shape[i];
    }
    const int64_t channels = setup->shape[setup->rank - 1];
    if (r->variant == VARIANT_EFFICIENT || r->variant == VARIANT_COMPOSED) {
        tl_efficient_attention_config config = setup->efficient;
        config.in_channels = channels;
        return tl_efficient_attention_layer_init(&r->efficient, r->parameters, NULL, &config,
                                                 &random, error);
    }
    tl_non_local_config config = non_local_of(setup, r->variant);
    config.in_channels = channels;
    return tl_non_local_layer_init(&r->non_local, r->parameters, NULL, &config, &random, error);
}

static tl_tensor *forward(const run *r, tl_tensor *x) {
    switch (r->variant) {
    case VARIANT_EFFICIENT:
        return tl_efficient_attention_layer_forward(&r->efficient, r->tape, x);
    case VARIANT_COMPOSED:
        return tl_efficient_attention_composed(r->tape, x, &r->efficient.weights,
                                               &r->efficient.config);
    default:
        return tl_non_local_layer_forward(&r->non_local, r->tape, x);
    }
}

static tl_status step(const run *r, bool training, tl_error *error) {
    tl_tape_reset(r->tape);
    tl_tensor *x = training ? tl_input_with_grad(r->tape, &r->x) : tl_input(r->tape, &r->x);
    tl_tensor *y = forward(r, x);
    if (training) {
        (void)tl_backward_from(r->tape, 1, &y, NULL);
        tl_parameters_clear_grads(r->parameters);
    }
    *error = *tl_tape_error(r->tape);
    return error->status;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median time of the steps, and the peak of memory. */
static tl_status time_steps(const run *r, bool training, double seconds, double *median,
                            double *peak, int *steps, tl_error *error) {
    tl_tape_reset(r->tape);
    tl_tape_trim(r->tape);
    tl_tape_set_recording(r->tape, training);
    tl_tape_set_training(r->tape, training);
    tl_context_reset_peak(r->context);
    tl_status status = step(r, training, error); /* takes the memory that the others find */
    double times[MOST_STEPS];
    double total = 0;
    *steps = 0;
    while (status == TL_OK && *steps < MOST_STEPS && (total < seconds || *steps == 0) &&
           !interrupt_requested()) {
        const double start = seconds_now();
        status = step(r, training, error);
        times[*steps] = seconds_now() - start;
        total += times[(*steps)++];
    }
    if (status != TL_OK) {
        return status;
    }
    if (*steps == 0) {
        return fail_with(error, TL_ERROR_STATE, "interrupted");
    }
    qsort(times, (size_t)*steps, sizeof times[0], compare);
    *median = times[*steps / 2];
    *peak = (double)tl_context_memory(r->context).peak;
    return TL_OK;
}

tl_status attention_measure(const attention_setup *setup, attention_variant variant, double seconds,
                            attention_measurement *measurement, tl_error *error) {
    *measurement = (attention_measurement){0};
    run r = {.setup = setup, .variant = variant};
    int forward_steps;
    tl_status status = run_create(&r, error);
    if (status == TL_OK) {
        status = time_steps(&r, false, seconds / 2, &measurement->forward_seconds,
                            &measurement->inference_peak_bytes, &forward_steps, error);
    }
    if (status == TL_OK) {
        status = time_steps(&r, true, seconds, &measurement->training_seconds,
                            &measurement->peak_bytes, &measurement->steps, error);
    }
    run_free(&r);
    return status;
}
