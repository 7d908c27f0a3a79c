/* reference_conv.h - convolution straight from its definition, in double. */
#ifndef REFERENCE_CONV_H
#define REFERENCE_CONV_H

#include <stdint.h>

#include <tapeline/real.h>

/* Channels last; extents in the order depth, height, width. */
typedef struct reference_conv_shape {
    int64_t batch;
    int64_t in[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
    int64_t in_channels, out_channels, groups;
} reference_conv_shape;

/* Adds to y, dx, dweight and dbias, each given the other tensors (NULL: that result is not wanted).
 * y += conv(x, weight); dx, dweight += the gradients of <dy, conv(x, weight)>. */
void reference_conv(const reference_conv_shape *shape, const tl_real *x, const tl_real *weight,
                    const tl_real *dy, double *y, double *dx, double *dweight);

#endif
