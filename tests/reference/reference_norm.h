/* reference_norm.h - normalisations in double, by their definition. */
#ifndef REFERENCE_NORM_H
#define REFERENCE_NORM_H

#include <stdbool.h>
#include <stdint.h>

#include <tapeline/real.h>

/* x [samples, rows, channels]. Statistics over the samples and rows of each channel
 * (`over_samples`, batch norm), or of each sample over its rows and groups of channels. */
typedef struct reference_norm {
    int64_t samples;
    int64_t rows;
    int64_t channels;
    int64_t groups; /* channels for batch norm */
    bool over_samples;
    double epsilon;
    const tl_real *x;
    const tl_real *weight;   /* [channels] or NULL */
    const tl_real *bias;     /* [channels] or NULL */
    const tl_real *residual; /* or NULL */
    bool relu;
    const double *mean; /* [channels], constant statistics, or NULL */
    const double *variance;
    const tl_real *dy;
} reference_norm;

/* All [samples, rows, channels] or [channels]. batch_mean and batch_variance are those of batch
 * norm. */
typedef struct reference_norm_result {
    double *y;
    double *dx;
    double *dweight;
    double *dbias;
    double *dresidual;
    double *batch_mean;
    double *batch_variance;
} reference_norm_result;

void reference_norm_run(const reference_norm *problem, const reference_norm_result *result);

#endif
