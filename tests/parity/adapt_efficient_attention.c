#include <string.h>

#include "parity.h"

static void run_efficient_attention(parity_run *run) {
    tl_efficient_attention_config config = tl_efficient_attention_config_default();
    config.key_channels = parity_int(run, "key_channels");
    config.value_channels = parity_int(run, "value_channels");
    config.heads = parity_int(run, "heads");
    const char *normalization = parity_text(run, "normalization");
    if (normalization != NULL && strcmp(normalization, "scaling") == 0) {
        config.normalization = TL_NORMALIZATION_SCALING;
    } else if (normalization == NULL || strcmp(normalization, "softmax") != 0) {
        parity_fail(run, "unknown normalization");
    }
    const tl_efficient_attention_weights weights = {
        .query_weight = parity_param(run, "queries.weight", PARITY_AS_IS),
        .query_bias = parity_param(run, "queries.bias", PARITY_AS_IS),
        .key_weight = parity_param(run, "keys.weight", PARITY_AS_IS),
        .key_bias = parity_param(run, "keys.bias", PARITY_AS_IS),
        .value_weight = parity_param(run, "values.weight", PARITY_AS_IS),
        .value_bias = parity_param(run, "values.bias", PARITY_AS_IS),
        .reprojection_weight = parity_param(run, "reprojection.weight", PARITY_AS_IS),
        .reprojection_bias = parity_param(run, "reprojection.bias", PARITY_AS_IS),
    };
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    parity_output(run, "y", tl_efficient_attention(parity_run_tape(run), x, &weights, &config),
                  PARITY_CHANNELS);
}

const parity_adapter parity_efficient_attention[] = {
    {"efficient_attention", run_efficient_attention},
    {NULL, NULL},
};
