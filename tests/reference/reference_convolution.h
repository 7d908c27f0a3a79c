/* reference_convolution.h - convolution from its definition, in double. */
#ifndef REFERENCE_CONVOLUTION_H
#define REFERENCE_CONVOLUTION_H

#include <stdint.h>

#include <tapeline/real.h>

typedef struct reference_conv2d {
    int64_t batch, height, width, channels;
    int64_t outputs, kernel_height, kernel_width;
    int64_t stride[2], padding[2], dilation[2], groups;
    int64_t out_height, out_width; /* filled in by reference_conv2d_prepare */
} reference_conv2d;

void reference_conv2d_prepare(reference_conv2d *c);

/* y [N, H', W', O], and for a cotangent dy (NULL: none) dx and dweight, all in full. */
void reference_conv2d_run(const reference_conv2d *c, const tl_real *x, const tl_real *weight,
                          const tl_real *dy, double *y, double *dx, double *dweight);

#endif
