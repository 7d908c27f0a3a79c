#include "reference/reference_norm.h"

#include <math.h>
#include <stdlib.h>

/* The values that share one mean and variance: which of x's elements they are. */
typedef struct members {
    int64_t *index;
    int64_t count;
} members;

static members members_of(const reference_norm *p, int64_t sample, int64_t group) {
    const int64_t width = p->channels / p->groups;
    members m = {.index = malloc((size_t)(p->samples * p->rows * width) * sizeof *m.index)};
    for (int64_t n = 0; n < p->samples; n++) {
        if (!p->over_samples && n != sample) {
            continue;
        }
        for (int64_t row = 0; row < p->rows; row++) {
            for (int64_t c = group * width; c < (group + 1) * width; c++) {
                m.index[m.count++] = (n * p->rows + row) * p->channels + c;
            }
        }
    }
    return m;
}

static void run_members(const reference_norm *p, const reference_norm_result *r, members m,
                        int64_t group) {
    double mean = 0.0;
    double variance = 0.0;
    for (int64_t i = 0; i < m.count; i++) {
        mean += (double)p->x[m.index[i]] / (double)m.count;
    }
    for (int64_t i = 0; i < m.count; i++) {
        const double d = (double)p->x[m.index[i]] - mean;
        variance += d * d / (double)m.count;
    }
    if (p->over_samples) {
        r->batch_mean[group] = mean;
        r->batch_variance[group] = variance;
    }
    const bool constant = p->mean != NULL;
    if (constant) {
        mean = p->mean[group];
        variance = p->variance[group];
    }
    const double s = 1.0 / sqrt(variance + p->epsilon);
    double mean_a = 0.0; /* of a = weight g, and of a xhat */
    double mean_ax = 0.0;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < m.count; i++) {
            const int64_t at = m.index[i];
            const int64_t c = at % p->channels;
            const double xhat = ((double)p->x[at] - mean) * s;
            const double w = p->weight != NULL ? (double)p->weight[c] : 1.0;
            double y = xhat * w + (p->bias != NULL ? (double)p->bias[c] : 0.0);
            y += p->residual != NULL ? (double)p->residual[at] : 0.0;
            const bool off = p->relu && !(y > 0.0);
            const double g = off ? 0.0 : (double)p->dy[at];
            if (pass == 0) {
                r->y[at] = off ? 0.0 : y;
                mean_a += w * g / (double)m.count;
                mean_ax += w * g * xhat / (double)m.count;
                r->dweight[c] += g * xhat;
                r->dbias[c] += g;
                r->dresidual[at] = g;
            } else {
                r->dx[at] = s * (w * g - (constant ? 0.0 : mean_a + xhat * mean_ax));
            }
        }
    }
}

void reference_norm_run(const reference_norm *p, const reference_norm_result *r) {
    for (int64_t c = 0; c < p->channels; c++) {
        r->dweight[c] = 0.0;
        r->dbias[c] = 0.0;
    }
    for (int64_t sample = 0; sample < (p->over_samples ? 1 : p->samples); sample++) {
        for (int64_t group = 0; group < p->groups; group++) {
            const members m = members_of(p, sample, group);
            run_members(p, r, m, group);
            free(m.index);
        }
    }
}
