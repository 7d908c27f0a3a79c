/* Activations and arithmetic. */
#include "parity.h"

#include <string.h>

static void run_arithmetic(parity_run *run) {
    static const struct {
        const char *op;
        tl_tensor *(*function)(tl_tape *tape, tl_tensor *a, tl_tensor *b);
    } table[] = {{"add", tl_add}, {"sub", tl_sub}, {"mul", tl_mul}, {"div", tl_div}};
    tl_tensor *a = parity_input(run, "a", PARITY_AS_IS);
    tl_tensor *b = parity_input(run, "b", PARITY_AS_IS);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(parity_run_case(run)->op, table[i].op) == 0) {
            parity_output(run, "y", table[i].function(parity_run_tape(run), a, b), PARITY_AS_IS);
        }
    }
}

static tl_tensor *gelu(tl_tape *tape, tl_tensor *x) {
    return tl_gelu(tape, x, TL_GELU_EXACT);
}

static tl_tensor *gelu_tanh(tl_tape *tape, tl_tensor *x) {
    return tl_gelu(tape, x, TL_GELU_TANH);
}

static void run_activation(parity_run *run) {
    static const struct {
        const char *op;
        tl_tensor *(*function)(tl_tape *tape, tl_tensor *x);
    } table[] = {{"relu", tl_relu}, {"gelu", gelu},          {"gelu_tanh", gelu_tanh},
                 {"silu", tl_silu}, {"sigmoid", tl_sigmoid}, {"tanh", tl_tanh}};
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(parity_run_case(run)->op, table[i].op) == 0) {
            parity_output(run, "y", table[i].function(parity_run_tape(run), x), PARITY_AS_IS);
        }
    }
}

static void run_leaky_relu(parity_run *run) {
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    parity_output(run, "y",
                  tl_leaky_relu(parity_run_tape(run), x, parity_number(run, "negative_slope")),
                  PARITY_AS_IS);
}

static void run_elu(parity_run *run) {
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    parity_output(run, "y", tl_elu(parity_run_tape(run), x, parity_number(run, "alpha")),
                  PARITY_AS_IS);
}

static void run_softplus(parity_run *run) {
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    parity_output(run, "y",
                  tl_softplus(parity_run_tape(run), x, parity_number(run, "beta"),
                              parity_number(run, "threshold")),
                  PARITY_AS_IS);
}

const parity_adapter parity_elementwise[] = {
    {"add", run_arithmetic},        {"sub", run_arithmetic},
    {"mul", run_arithmetic},        {"div", run_arithmetic},
    {"relu", run_activation},       {"gelu", run_activation},
    {"gelu_tanh", run_activation},  {"silu", run_activation},
    {"sigmoid", run_activation},    {"tanh", run_activation},
    {"leaky_relu", run_leaky_relu}, {"elu", run_elu},
    {"softplus", run_softplus},     {NULL, NULL},
};
