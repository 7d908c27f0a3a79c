/* reference_pooling.h - pooling and upsampling in double, by their definition. */
#ifndef REFERENCE_POOLING_H
#define REFERENCE_POOLING_H

#include <stdbool.h>
#include <stdint.h>

#include <tapeline/real.h>

/* x [images, in..., channels] with three spatial dimensions, those that are missing of extent 1. */
typedef struct reference_pooling {
    int64_t images, channels;
    int64_t in[3], out[3], kernel[3], stride[3], padding[3];
    bool maximum;
    bool count_padding;
} reference_pooling;

/* y of x, and dx of dy. */
void reference_pooling_run(const reference_pooling *problem, const tl_real *x, const tl_real *dy,
                           double *y, double *dx);

/* x [images, height, width, channels] enlarged by `scale`. */
typedef struct reference_upsample {
    int64_t images, height, width, channels, scale;
    bool bilinear;
} reference_upsample;

void reference_upsample_run(const reference_upsample *problem, const tl_real *x, const tl_real *dy,
                            double *y, double *dx);

#endif
