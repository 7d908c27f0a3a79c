/* k_upsample.c - see k_upsample.h. Every written row has one writer; vectors run over channels. */
#include "kernels/kernels.h"

#include "kernels/simd.h"

/* What output t reads along one dimension: (1 - fraction) x[low] + fraction x[high]. */
typedef struct tap {
    int64_t low;
    int64_t high;
    tl_real fraction;
} tap;

static tap tap_of(const tl_upsample_shape *s, int64_t extent, int64_t t) {
    if (!s->bilinear) {
        return (tap){.low = t / s->scale, .high = t / s->scale, .fraction = 0};
    }
    /* u = numerator / (2 scale), exactly */
    const int64_t numerator = 2 * t + 1 - s->scale > 0 ? 2 * t + 1 - s->scale : 0;
    const int64_t low = numerator / (2 * s->scale);
    return (tap){.low = low,
                 .high = low + 1 < extent ? low + 1 : extent - 1,
                 .fraction = (tl_real)(numerator % (2 * s->scale)) / (tl_real)(2 * s->scale)};
}

/* The weight with which output t reads input i: 1 - |u - i|, at least 0. */
TL_INLINE tl_real weight_of(const tl_upsample_shape *s, int64_t extent, int64_t t, int64_t i,
                            tl_real unit) {
    if (!s->bilinear) {
        return 1; /* only asked for the outputs that read i */
    }
    const int64_t first = 2 * t + 1 - s->scale > 0 ? 2 * t + 1 - s->scale : 0;
    const int64_t last = 2 * s->scale * (extent - 1);
    const int64_t distance = (first < last ? first : last) - 2 * s->scale * i;
    const int64_t left = 2 * s->scale - (distance < 0 ? -distance : distance);
    return left > 0 ? (tl_real)left * unit : 0;
}

static int team_of(const tl_upsample_shape *s, int threads) {
    const int64_t out = s->images * s->height * s->width * s->channels * s->scale * s->scale;
    return out > TL_PARALLEL_MINIMUM ? threads : 1;
}

/* One row of outputs from two rows of inputs. */
static void forward_row(const tl_upsample_shape *s, const tl_real *low, const tl_real *high,
                        tl_real fraction, tl_real *y) {
    for (int64_t t = 0; t < s->width * s->scale; t++) {
        const tap a = tap_of(s, s->width, t);
        tl_real *to = y + t * s->channels;
        if (!s->bilinear) {
            memcpy(to, low + a.low * s->channels, (size_t)s->channels * sizeof(tl_real));
            continue;
        }
        for (int64_t c = 0; c < s->channels; c += TL_LANES) {
            const int64_t count = s->channels - c < TL_LANES ? s->channels - c : TL_LANES;
            const tl_real *left = low + a.low * s->channels + c;
            const tl_real *right = low + a.high * s->channels + c;
            const tl_v upper = tl_v_load_some(left, count) * (1 - a.fraction) +
                               tl_v_load_some(right, count) * a.fraction;
            const tl_v lower = tl_v_load_some(high + (left - low), count) * (1 - a.fraction) +
                               tl_v_load_some(high + (right - low), count) * a.fraction;
            tl_v_store_some(to + c, upper * (1 - fraction) + lower * fraction, count);
        }
    }
}

static void forward(const tl_upsample_shape *shape, const tl_real *x, tl_real *y, int threads) {
    const tl_upsample_shape s = *shape;
    const int64_t out_height = s.height * s.scale;
    const int64_t row_values = s.width * s.channels;
    const int team = team_of(&s, threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < s.images * out_height; row++) {
        const tl_real *image = x + row / out_height * s.height * row_values;
        const tap a = tap_of(&s, s.height, row % out_height);
        forward_row(&s, image + a.low * row_values, image + a.high * row_values, a.fraction,
                    y + row * row_values * s.scale);
    }
}

/* The outputs that may read input i lie in [begin, end). */
typedef struct range {
    int64_t begin;
    int64_t end;
} range;

static range readers_of(const tl_upsample_shape *s, int64_t extent, int64_t i) {
    const int64_t reach = s->bilinear ? 1 : 0;
    const int64_t begin = (i - reach) * s->scale;
    const int64_t end = (i + 1 + reach) * s->scale;
    return (range){.begin = begin > 0 ? begin : 0,
                   .end = end < extent * s->scale ? end : extent * s->scale};
}

/* What input (i, j) receives from all outputs that read it; `dy` is the image. */
TL_INLINE void gather(const tl_upsample_shape *s, const tl_real *dy, int64_t i, int64_t j,
                      tl_real *dx, bool accumulate) {
    const tl_real unit = (tl_real)1 / (tl_real)(2 * s->scale);
    const range rows = readers_of(s, s->height, i);
    const range columns = readers_of(s, s->width, j);
    bool add = accumulate;
    for (int64_t row = rows.begin; row < rows.end; row++) {
        const tl_real row_weight = weight_of(s, s->height, row, i, unit);
        for (int64_t column = columns.begin; column < columns.end && row_weight > 0; column++) {
            const tl_real weight = row_weight * weight_of(s, s->width, column, j, unit);
            const tl_real *from = dy + (row * s->width * s->scale + column) * s->channels;
            if (weight == 0) {
                continue;
            }
            for (int64_t c = 0; c < s->channels; c += TL_LANES) {
                const int64_t count = s->channels - c < TL_LANES ? s->channels - c : TL_LANES;
                const tl_v g = tl_v_load_some(from + c, count) * weight;
                tl_v_store_some(dx + c, add ? g + tl_v_load_some(dx + c, count) : g, count);
            }
            add = true;
        }
    }
}

static void backward(const tl_upsample_shape *shape, const tl_real *dy, tl_real *dx,
                     bool accumulate, int threads) {
    const tl_upsample_shape s = *shape;
    const int64_t image = s.height * s.width * s.channels * s.scale * s.scale;
    const int team = team_of(&s, threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < s.images * s.height; row++) {
        for (int64_t j = 0; j < s.width; j++) {
            gather(&s, dy + row / s.height * image, row % s.height, j,
                   dx + (row * s.width + j) * s.channels, accumulate);
        }
    }
}

const tl_upsample_kernels TL_PER_ISA(tl_upsample_kernels) = {
    .forward = forward,
    .backward = backward,
};
