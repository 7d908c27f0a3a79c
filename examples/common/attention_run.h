/* attention_run.h - one attention module by itself: built, run, timed and its memory measured. */
#ifndef EXAMPLE_ATTENTION_RUN_H
#define EXAMPLE_ATTENTION_RUN_H

#include <tapeline/tapeline.h>

/* The modules that are compared. */
typedef enum attention_variant {
    VARIANT_EFFICIENT,
    VARIANT_TILED,
    VARIANT_MATERIALIZED,
    VARIANT_COMPOSED, /* efficient attention from elementary operations; there is no estimate */
    VARIANT_COUNT,
} attention_variant;

/* "efficient", "non-local tiled", ... */
const char *attention_variant_name(attention_variant variant);

/* The module's sizes; what is 0 has the library's default. */
typedef struct attention_setup {
    int rank;
    int64_t shape[TL_MAX_RANK]; /* x [N, spatial..., C] */
    tl_efficient_attention_config efficient;
    tl_non_local_config non_local; /* its implementation follows from the variant */
    int threads;
    uint64_t memory_limit; /* bytes; 0: none */
} attention_setup;

/* TL_ERROR_UNSUPPORTED for VARIANT_COMPOSED. */
tl_status attention_estimate(const attention_setup *setup, attention_variant variant,
                             tl_attention_estimate *estimate, tl_error *error);

/* 0: did not get so far. */
typedef struct attention_measurement {
    double forward_seconds;  /* not recorded, as in inference */
    double training_seconds; /* forward and backward */
    double peak_bytes;       /* of training, x included */
    double inference_peak_bytes;
    double system_peak_bytes; /* how much more the process came to hold; attention_measure leaves
                                 it to its caller, who knows what else the process did */
    int steps;                /* of training that were timed; times are medians */
} attention_measurement;

/* Runs the module on random values: once to warm up, then for about `seconds`, at least once.
 * TL_ERROR_OUT_OF_MEMORY if it does not fit the limit. */
tl_status attention_measure(const attention_setup *setup, attention_variant variant, double seconds,
                            attention_measurement *measurement, tl_error *error);

#endif
