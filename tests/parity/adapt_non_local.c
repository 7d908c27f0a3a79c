#include <string.h>

#include "parity.h"

void parity_pairwise(parity_run *run, tl_pairwise *pairwise, bool *use_scale) {
    static const struct {
        const char *name;
        tl_pairwise pairwise;
        bool use_scale;
    } forms[] = {
        {"embedded_gaussian", TL_PAIRWISE_EMBEDDED_GAUSSIAN, false},
        {"embedded_gaussian_scaled", TL_PAIRWISE_EMBEDDED_GAUSSIAN, true},
        {"dot_product", TL_PAIRWISE_DOT_PRODUCT, false},
        {"gaussian", TL_PAIRWISE_GAUSSIAN, false},
        {"concatenation", TL_PAIRWISE_CONCATENATION, false},
    };
    const char *name = parity_text(run, "pairwise");
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strcmp(name, forms[i].name) == 0) {
            *pairwise = forms[i].pairwise;
            *use_scale = forms[i].use_scale;
            return;
        }
    }
    parity_fail(run, "the pairwise form %s is not known here", name);
}

static void run_non_local(parity_run *run) {
    tl_non_local_config config = tl_non_local_config_default();
    parity_pairwise(run, &config.pairwise, &config.use_scale);
    config.key_channels = parity_int(run, "key_channels");
    config.value_channels = parity_int(run, "value_channels");
    config.heads = parity_int(run, "heads");
    tl_non_local_weights weights = {
        .value_weight = parity_param(run, "values.weight", PARITY_AS_IS),
        .value_bias = parity_param(run, "values.bias", PARITY_AS_IS),
        .reprojection_weight = parity_param(run, "reprojection.weight", PARITY_AS_IS),
        .reprojection_bias = parity_param(run, "reprojection.bias", PARITY_AS_IS),
    };
    if (config.pairwise != TL_PAIRWISE_GAUSSIAN) {
        weights.query_weight = parity_param(run, "queries.weight", PARITY_AS_IS);
        weights.query_bias = parity_param(run, "queries.bias", PARITY_AS_IS);
        weights.key_weight = parity_param(run, "keys.weight", PARITY_AS_IS);
        weights.key_bias = parity_param(run, "keys.bias", PARITY_AS_IS);
    }
    if (config.pairwise == TL_PAIRWISE_CONCATENATION) {
        weights.pair_weight = parity_param(run, "pair.weight", PARITY_AS_IS);
    }
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    parity_output(run, "y", tl_non_local(parity_run_tape(run), x, &weights, &config),
                  PARITY_CHANNELS);
}

const parity_adapter parity_non_local[] = {
    {"non_local", run_non_local},
    {NULL, NULL},
};
