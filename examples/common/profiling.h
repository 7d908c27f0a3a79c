/* profiling.h - what --profile prints and writes: time, GFLOP/s and GB/s by kind of operation. */
#ifndef EXAMPLE_PROFILING_H
#define EXAMPLE_PROFILING_H

#include <tapeline/tapeline.h>

/* Names of the spans that a training loop marks. */
#define PROFILING_LOAD "load batch"
#define PROFILING_STEP "step"
#define PROFILING_NORM "gradient norm"
#define PROFILING_OPTIMIZER "optimizer"
#define PROFILING_EVALUATION "evaluation"
#define PROFILING_CHECKPOINT "checkpoint"

/* Prints the table to stdout, per PROFILING_STEP, and writes the trace to `path`. Prints nothing
 * if there was no step. */
tl_status profiling_report(const tl_profile *profile, const char *path, tl_error *error);

#endif
