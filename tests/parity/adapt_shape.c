/* Sums, softmax, embedding, and operations that move values. */
#include "parity.h"

#include <stdio.h>
#include <string.h>

static int dims_of(parity_run *run, const char *name, int dims[TL_MAX_RANK]) {
    int64_t values[PARITY_MAX_INTS];
    const int count = parity_ints(run, name, -1, values);
    if (count > TL_MAX_RANK) {
        parity_fail(run, "%s has more than %d entries", name, TL_MAX_RANK);
        return 0;
    }
    for (int i = 0; i < count; i++) {
        dims[i] = (int)values[i];
    }
    return count;
}

static void run_reduction(parity_run *run) {
    int dims[TL_MAX_RANK];
    const int count = dims_of(run, "dims", dims);
    const bool keep_dims = parity_int(run, "keepdim") != 0;
    const bool mean = strcmp(parity_run_case(run)->op, "mean") == 0;
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    parity_output(run, "y",
                  (mean ? tl_mean : tl_sum)(parity_run_tape(run), x, count, dims, keep_dims),
                  PARITY_AS_IS);
}

static void run_softmax(parity_run *run) {
    const bool logarithm = strcmp(parity_run_case(run)->op, "log_softmax") == 0;
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    parity_output(run, "y",
                  (logarithm ? tl_log_softmax : tl_softmax)(parity_run_tape(run), x,
                                                            (int)parity_int(run, "dim")),
                  PARITY_AS_IS);
}

static void run_reshape(parity_run *run) {
    int64_t shape[PARITY_MAX_INTS];
    const int rank = parity_ints(run, "shape", -1, shape);
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    parity_output(run, "y", tl_reshape(parity_run_tape(run), x, rank, shape), PARITY_AS_IS);
}

static void run_permute(parity_run *run) {
    int dims[TL_MAX_RANK];
    (void)dims_of(run, "dims", dims);
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    parity_output(run, "y", tl_permute(parity_run_tape(run), x, dims), PARITY_AS_IS);
}

static void run_concat(parity_run *run) {
    enum { MOST = 64 };
    tl_tensor *inputs[MOST];
    const int64_t count = parity_int(run, "count");
    if (count < 1 || count > MOST) {
        parity_fail(run, "count must be from 1 to %d", MOST);
        return;
    }
    for (int i = 0; i < count; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "x%d", i);
        inputs[i] = parity_input(run, name, PARITY_AS_IS);
    }
    parity_output(run, "y",
                  tl_concat(parity_run_tape(run), (int)count, inputs, (int)parity_int(run, "dim")),
                  PARITY_AS_IS);
}

static void run_slice(parity_run *run) {
    int64_t starts[PARITY_MAX_INTS], stops[PARITY_MAX_INTS], steps[PARITY_MAX_INTS];
    const int rank = parity_ints(run, "starts", -1, starts);
    (void)parity_ints(run, "stops", rank, stops);
    (void)parity_ints(run, "steps", rank, steps);
    tl_tensor *x = parity_input(run, "x", PARITY_AS_IS);
    parity_output(run, "y", tl_slice(parity_run_tape(run), x, starts, stops, steps), PARITY_AS_IS);
}

static void run_embedding(parity_run *run) {
    int64_t count;
    const int32_t *indices = parity_integers(run, "buffers", "indices", &count);
    const parity_tensor *shape = parity_tensor_of(run, "buffers", "indices");
    tl_tensor *weight = parity_param(run, "weight", PARITY_AS_IS);
    if (shape != NULL) {
        parity_output(
            run, "y",
            tl_embedding(parity_run_tape(run), weight, shape->rank, shape->shape, indices),
            PARITY_AS_IS);
    }
}

const parity_adapter parity_shape[] = {
    {"sum", run_reduction},       {"mean", run_reduction},
    {"softmax", run_softmax},     {"log_softmax", run_softmax},
    {"reshape", run_reshape},     {"permute", run_permute},
    {"concat", run_concat},       {"slice", run_slice},
    {"embedding", run_embedding}, {NULL, NULL},
};
