/* Losses. */
#include "parity.h"

#include <string.h>

static void run_cross_entropy(parity_run *run) {
    tl_tensor *logits = parity_input(run, "logits", PARITY_CHANNELS);
    int64_t count;
    const int32_t *labels = parity_integers(run, "buffers", "labels", &count);
    const tl_cross_entropy_config config = {.label_smoothing =
                                                parity_number(run, "label_smoothing")};
    if (strcmp(parity_text(run, "reduction"), "mean") != 0) {
        parity_fail(run, "reduction must be mean");
        return;
    }
    parity_output(run, "loss", tl_cross_entropy(parity_run_tape(run), logits, labels, &config),
                  PARITY_AS_IS);
}

static void run_pointwise(parity_run *run) {
    tl_tape *tape = parity_run_tape(run);
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    tl_tensor *target = parity_constant(run, "buffers", "target", PARITY_AS_IS);
    tl_tensor *loss;
    if (strcmp(parity_text(run, "reduction"), "mean") != 0) {
        parity_fail(run, "reduction must be mean");
        return;
    }
    if (strcmp(parity_run_case(run)->op, "mse_loss") == 0) {
        loss = tl_mse_loss(tape, x, target);
    } else if (strcmp(parity_run_case(run)->op, "smooth_l1_loss") == 0) {
        loss = tl_smooth_l1_loss(tape, x, target, parity_number(run, "beta"));
    } else {
        loss = tl_bce_with_logits(tape, x, target);
    }
    parity_output(run, "loss", loss, PARITY_AS_IS);
}

const parity_adapter parity_loss[] = {
    {"cross_entropy", run_cross_entropy},
    {"mse_loss", run_pointwise},
    {"smooth_l1_loss", run_pointwise},
    {"bce_with_logits", run_pointwise},
    {NULL, NULL},
};
