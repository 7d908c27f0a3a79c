/* k_cost_volume.c - see k_cost_volume.h. One row of one image is a piece of work and has one
 * writer. A row of y is some D times its operands' size, so the loops run in y's order and are
 * bound by writing it; the sums are short (channels / groups). */
#include "kernels/kernels.h"

static int team_of(const tl_cost_volume_shape *s, int threads) {
    const int64_t work = s->images * s->height * s->width * s->disparities * s->channels;
    return work > TL_PARALLEL_MINIMUM ? threads : 1;
}

static void forward_row(const tl_cost_volume_shape *s, const tl_real *left, const tl_real *right,
                        tl_real *y) {
    const int64_t size = s->channels / s->groups;
    const tl_real scale = (tl_real)1 / (tl_real)size;
    for (int64_t j = 0; j < s->width; j++) {
        for (int64_t d = 0; d < s->disparities; d++) {
            tl_real *to = y + (j * s->disparities + d) * s->groups;
            const tl_real *a = left + j * s->channels;
            const tl_real *b = right + (j - d) * s->channels;
            for (int64_t g = 0; g < s->groups; g++) {
                tl_real sum = 0;
                for (int64_t c = g * size; c < (g + 1) * size && d <= j; c++) {
                    sum += a[c] * b[c];
                }
                to[g] = sum * scale;
            }
        }
    }
}

static void forward(const tl_cost_volume_shape *shape, const tl_real *left, const tl_real *right,
                    tl_real *y, int threads) {
    const tl_cost_volume_shape s = *shape;
    const int team = team_of(&s, threads);
    const int64_t row_values = s.width * s.channels;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < s.images * s.height; row++) {
        forward_row(&s, left + row * row_values, right + row * row_values,
                    y + row * s.width * s.disparities * s.groups);
    }
}

/* to[c] += scale * grad[group of c] * other[c] */
static void add_product(const tl_cost_volume_shape *s, const tl_real *grad, const tl_real *other,
                        tl_real *to) {
    const int64_t size = s->channels / s->groups;
    const tl_real scale = (tl_real)1 / (tl_real)size;
    for (int64_t g = 0; g < s->groups; g++) {
        const tl_real factor = grad[g] * scale;
        for (int64_t c = g * size; c < (g + 1) * size; c++) {
            to[c] += factor * other[c];
        }
    }
}

static void clear(const tl_cost_volume_shape *s, tl_real *row, bool add) {
    for (int64_t i = 0; i < s->width * s->channels && !add; i++) {
        row[i] = 0;
    }
}

static void backward_row(const tl_cost_volume_shape *s, const tl_real *left, const tl_real *right,
                         const tl_real *dy, tl_real *dleft, tl_real *dright) {
    for (int64_t j = 0; j < s->width; j++) {
        for (int64_t d = 0; d < s->disparities && d <= j; d++) {
            const tl_real *grad = dy + (j * s->disparities + d) * s->groups;
            if (dleft != NULL) {
                add_product(s, grad, right + (j - d) * s->channels, dleft + j * s->channels);
            }
            if (dright != NULL) {
                add_product(s, grad, left + j * s->channels, dright + (j - d) * s->channels);
            }
        }
    }
}

static void backward(const tl_cost_volume_shape *shape, const tl_real *left, const tl_real *right,
                     const tl_real *dy, tl_real *dleft, bool add_left, tl_real *dright,
                     bool add_right, int threads) {
    const tl_cost_volume_shape s = *shape;
    const int team = team_of(&s, threads);
    const int64_t row_values = s.width * s.channels;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < s.images * s.height; row++) {
        tl_real *to_left = dleft != NULL ? dleft + row * row_values : NULL;
        tl_real *to_right = dright != NULL ? dright + row * row_values : NULL;
        if (to_left != NULL) {
            clear(&s, to_left, add_left);
        }
        if (to_right != NULL) {
            clear(&s, to_right, add_right);
        }
        backward_row(&s, left + row * row_values, right + row * row_values,
                     dy + row * s.width * s.disparities * s.groups, to_left, to_right);
    }
}

const tl_cost_volume_kernels TL_PER_ISA(tl_cost_volume_kernels) = {
    .forward = forward,
    .backward = backward,
};
