#include "reference/reference_cost_volume.h"

#include <string.h>

void reference_cost_volume_run(const reference_cost_volume *p, const tl_real *left,
                               const tl_real *right, const tl_real *dy, double *y, double *dleft,
                               double *dright) {
    const int64_t rows = p->images * p->height;
    const int64_t size = p->channels / p->groups;
    memset(y, 0, (size_t)(rows * p->width * p->disparities * p->groups) * sizeof *y);
    memset(dleft, 0, (size_t)(rows * p->width * p->channels) * sizeof *dleft);
    memset(dright, 0, (size_t)(rows * p->width * p->channels) * sizeof *dright);
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t j = 0; j < p->width; j++) {
            for (int64_t d = 0; d < p->disparities && j - d >= 0; d++) {
                for (int64_t c = 0; c < p->channels; c++) {
                    const int64_t a = (row * p->width + j) * p->channels + c;
                    const int64_t b = (row * p->width + j - d) * p->channels + c;
                    const int64_t to =
                        ((row * p->width + j) * p->disparities + d) * p->groups + c / size;
                    y[to] += (double)left[a] * (double)right[b] / (double)size;
                    dleft[a] += (double)dy[to] * (double)right[b] / (double)size;
                    dright[b] += (double)dy[to] * (double)left[a] / (double)size;
                }
            }
        }
    }
}
