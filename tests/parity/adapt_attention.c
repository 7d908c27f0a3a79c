#include "parity.h"

static void run_attention(parity_run *run) {
    tl_tensor *q = parity_input(run, "q", PARITY_AS_IS);
    tl_tensor *k = parity_input(run, "k", PARITY_AS_IS);
    tl_tensor *v = parity_input(run, "v", PARITY_AS_IS);
    const tl_attention_config config = {.causal = parity_int(run, "causal") != 0};
    parity_output(run, "y", tl_attention(parity_run_tape(run), q, k, v, &config), PARITY_AS_IS);
}

const parity_adapter parity_attention[] = {
    {"attention", run_attention},
    {NULL, NULL},
};
