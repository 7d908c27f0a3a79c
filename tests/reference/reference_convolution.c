#include "reference/reference_convolution.h"

#include <stddef.h>
#include <string.h>

void reference_conv2d_prepare(reference_conv2d *c) {
    c->out_height = (c->height + 2 * c->padding[0] - c->dilation[0] * (c->kernel_height - 1) - 1) /
                        c->stride[0] +
                    1;
    c->out_width =
        (c->width + 2 * c->padding[1] - c->dilation[1] * (c->kernel_width - 1) - 1) / c->stride[1] +
        1;
}

/* Visits every product of one output value. */
static void visit(const reference_conv2d *c, int64_t n, int64_t i, int64_t j, int64_t o,
                  const tl_real *x, const tl_real *weight, double dy, double *y, double *dx,
                  double *dweight) {
    const int64_t inputs = c->channels / c->groups;
    const int64_t group = o / (c->outputs / c->groups);
    for (int64_t p = 0; p < c->kernel_height; p++) {
        for (int64_t q = 0; q < c->kernel_width; q++) {
            const int64_t row = i * c->stride[0] + p * c->dilation[0] - c->padding[0];
            const int64_t column = j * c->stride[1] + q * c->dilation[1] - c->padding[1];
            if (row < 0 || row >= c->height || column < 0 || column >= c->width) {
                continue;
            }
            for (int64_t k = 0; k < inputs; k++) {
                const int64_t at =
                    ((n * c->height + row) * c->width + column) * c->channels + group * inputs + k;
                const int64_t w = ((o * c->kernel_height + p) * c->kernel_width + q) * inputs + k;
                *y += (double)x[at] * (double)weight[w];
                if (dx != NULL) {
                    dx[at] += dy * (double)weight[w];
                    dweight[w] += dy * (double)x[at];
                }
            }
        }
    }
}

void reference_conv2d_run(const reference_conv2d *c, const tl_real *x, const tl_real *weight,
                          const tl_real *dy, double *y, double *dx, double *dweight) {
    const int64_t x_size = c->batch * c->height * c->width * c->channels;
    const int64_t w_size =
        c->outputs * c->kernel_height * c->kernel_width * (c->channels / c->groups);
    if (dy != NULL) {
        memset(dx, 0, (size_t)x_size * sizeof *dx);
        memset(dweight, 0, (size_t)w_size * sizeof *dweight);
    }
    int64_t at = 0;
    for (int64_t n = 0; n < c->batch; n++) {
        for (int64_t i = 0; i < c->out_height; i++) {
            for (int64_t j = 0; j < c->out_width; j++) {
                for (int64_t o = 0; o < c->outputs; o++, at++) {
                    y[at] = 0;
                    visit(c, n, i, j, o, x, weight, dy != NULL ? (double)dy[at] : 0.0, &y[at],
                          dy != NULL ? dx : NULL, dweight);
                }
            }
        }
    }
}
