#include "reference/reference_conv.h"

#include <stddef.h>

typedef struct term {
    int64_t x, y, weight; /* indices of what meets in one product */
} product_term;

static void add(const product_term *t, const tl_real *x, const tl_real *weight, const tl_real *dy,
                double *y, double *dx, double *dweight) {
    if (y != NULL) {
        y[t->y] += (double)x[t->x] * weight[t->weight];
    }
    if (dx != NULL) {
        dx[t->x] += (double)dy[t->y] * weight[t->weight];
    }
    if (dweight != NULL) {
        dweight[t->weight] += (double)dy[t->y] * x[t->x];
    }
}

/* All terms of one output. */
static void add_output(const reference_conv_shape *s, int64_t n, const int64_t t[3], int64_t o,
                       const tl_real *x, const tl_real *weight, const tl_real *dy, double *y,
                       double *dx, double *dweight) {
    const int64_t inputs = s->in_channels / s->groups;
    const int64_t group = o / (s->out_channels / s->groups);
    product_term term = {
        .y =
            (((n * s->out[0] + t[0]) * s->out[1] + t[1]) * s->out[2] + t[2]) * s->out_channels + o};
    for (int64_t i = 0; i < s->kernel[0]; i++) {
        for (int64_t j = 0; j < s->kernel[1]; j++) {
            for (int64_t k = 0; k < s->kernel[2]; k++) {
                const int64_t d = t[0] * s->stride[0] + i * s->dilation[0] - s->padding[0];
                const int64_t h = t[1] * s->stride[1] + j * s->dilation[1] - s->padding[1];
                const int64_t w = t[2] * s->stride[2] + k * s->dilation[2] - s->padding[2];
                if (d < 0 || d >= s->in[0] || h < 0 || h >= s->in[1] || w < 0 || w >= s->in[2]) {
                    continue;
                }
                for (int64_t c = 0; c < inputs; c++) {
                    term.x = (((n * s->in[0] + d) * s->in[1] + h) * s->in[2] + w) * s->in_channels +
                             group * inputs + c;
                    term.weight =
                        (((o * s->kernel[0] + i) * s->kernel[1] + j) * s->kernel[2] + k) * inputs +
                        c;
                    add(&term, x, weight, dy, y, dx, dweight);
                }
            }
        }
    }
}

void reference_conv(const reference_conv_shape *shape, const tl_real *x, const tl_real *weight,
                    const tl_real *dy, double *y, double *dx, double *dweight) {
    for (int64_t n = 0; n < shape->batch; n++) {
        for (int64_t d = 0; d < shape->out[0]; d++) {
            for (int64_t h = 0; h < shape->out[1]; h++) {
                for (int64_t w = 0; w < shape->out[2]; w++) {
                    for (int64_t o = 0; o < shape->out_channels; o++) {
                        add_output(shape, n, (int64_t[]){d, h, w}, o, x, weight, dy, y, dx,
                                   dweight);
                    }
                }
            }
        }
    }
}
