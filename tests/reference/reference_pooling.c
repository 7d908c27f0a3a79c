#include "reference/reference_pooling.h"

#include <math.h>
#include <string.h>

static int64_t product(const int64_t extents[3]) {
    return extents[0] * extents[1] * extents[2];
}

/* The place of window position `k` of output `t`; false if it lies outside x. */
static bool place_of(const reference_pooling *p, const int64_t t[3], const int64_t k[3],
                     int64_t *place) {
    *place = 0;
    for (int d = 0; d < 3; d++) {
        const int64_t i = t[d] * p->stride[d] - p->padding[d] + k[d];
        if (i < 0 || i >= p->in[d]) {
            return false;
        }
        *place = *place * p->in[d] + i;
    }
    return true;
}

/* One output: `x` and `dx` are the image at the channel, `t` the output's place. */
static void run_window(const reference_pooling *p, const tl_real *x, double dy, const int64_t t[3],
                       double *y, double *dx) {
    double sum = 0.0;
    double best = 0.0;
    int64_t inside = 0;
    int64_t best_place = -1;
    for (int pass = 0; pass < 2; pass++) {
        const double count = (double)(p->count_padding ? product(p->kernel) : inside);
        for (int64_t i = 0; i < product(p->kernel); i++) {
            const int64_t k[3] = {i / p->kernel[2] / p->kernel[1], i / p->kernel[2] % p->kernel[1],
                                  i % p->kernel[2]};
            int64_t place;
            if (!place_of(p, t, k, &place)) {
                continue;
            }
            const double v = (double)x[place * p->channels];
            if (pass == 0) {
                if (best_place < 0 || v > best || isnan(v)) {
                    best = v;
                    best_place = place;
                }
                sum += v;
                inside++;
            } else if (p->maximum) {
                dx[place * p->channels] += place == best_place ? dy : 0.0;
            } else {
                dx[place * p->channels] += dy / count;
            }
        }
        *y = p->maximum ? best : sum / count;
    }
}

void reference_pooling_run(const reference_pooling *p, const tl_real *x, const tl_real *dy,
                           double *y, double *dx) {
    const int64_t in = product(p->in) * p->channels;
    memset(dx, 0, (size_t)(p->images * in) * sizeof *dx);
    for (int64_t n = 0; n < p->images; n++) {
        for (int64_t o = 0; o < product(p->out); o++) {
            const int64_t t[3] = {o / p->out[2] / p->out[1], o / p->out[2] % p->out[1],
                                  o % p->out[2]};
            for (int64_t c = 0; c < p->channels; c++) {
                const int64_t at = (n * product(p->out) + o) * p->channels + c;
                run_window(p, x + n * in + c, (double)dy[at], t, y + at, dx + n * in + c);
            }
        }
    }
}

/* With which weight output t reads input i. */
static double weight_of(const reference_upsample *p, int64_t extent, int64_t t, int64_t i) {
    if (!p->bilinear) {
        return t / p->scale == i ? 1.0 : 0.0;
    }
    const double u = fmax(((double)t + 0.5) / (double)p->scale - 0.5, 0.0);
    const int64_t low = (int64_t)floor(u);
    const int64_t high = low + 1 < extent ? low + 1 : extent - 1;
    const double f = u - (double)low;
    return (low == i ? 1.0 - f : 0.0) + (high == i ? f : 0.0);
}

void reference_upsample_run(const reference_upsample *p, const tl_real *x, const tl_real *dy,
                            double *y, double *dx) {
    const int64_t in = p->images * p->height * p->width * p->channels;
    memset(y, 0, (size_t)(in * p->scale * p->scale) * sizeof *y);
    memset(dx, 0, (size_t)in * sizeof *dx);
    for (int64_t n = 0; n < in; n++) {
        const int64_t c = n % p->channels;
        const int64_t j = n / p->channels % p->width;
        const int64_t i = n / p->channels / p->width % p->height;
        const int64_t image = n / p->channels / p->width / p->height;
        for (int64_t t = 0; t < p->height * p->scale; t++) {
            for (int64_t s = 0; s < p->width * p->scale; s++) {
                const double w = weight_of(p, p->height, t, i) * weight_of(p, p->width, s, j);
                const int64_t at =
                    ((image * p->height * p->scale + t) * p->width * p->scale + s) * p->channels +
                    c;
                y[at] += w * (double)x[n];
                dx[n] += w * (double)dy[at];
            }
        }
    }
}
