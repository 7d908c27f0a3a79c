#include "parity.h"

static void run_matmul(parity_run *run) {
    tl_tensor *a = parity_input(run, "a", PARITY_AS_IS);
    tl_tensor *b = parity_input(run, "b", PARITY_AS_IS);
    parity_output(run, "y", tl_matmul(parity_run_tape(run), a, b), PARITY_AS_IS);
}

static void run_linear(parity_run *run) {
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    tl_tensor *weight = parity_param(run, "weight", PARITY_AS_IS);
    tl_tensor *bias = parity_int(run, "bias") ? parity_param(run, "bias", PARITY_AS_IS) : NULL;
    parity_output(run, "y", tl_linear(parity_run_tape(run), x, weight, bias), PARITY_AS_IS);
}

const parity_adapter parity_matmul[] = {
    {"linear", run_linear},
    {"matmul", run_matmul},
    {NULL, NULL},
};
