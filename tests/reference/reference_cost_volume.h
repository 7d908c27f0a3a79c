/* reference_cost_volume.h - group-wise correlation in double, by its definition. */
#ifndef REFERENCE_COST_VOLUME_H
#define REFERENCE_COST_VOLUME_H

#include <stdint.h>

#include <tapeline/real.h>

typedef struct reference_cost_volume {
    int64_t images, height, width, channels, disparities, groups;
} reference_cost_volume;

/* y of left and right, and dleft and dright of dy. */
void reference_cost_volume_run(const reference_cost_volume *problem, const tl_real *left,
                               const tl_real *right, const tl_real *dy, double *y, double *dleft,
                               double *dright);

#endif
