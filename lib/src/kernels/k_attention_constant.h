/* k_attention_constant.h - queries that are constant: under softmax with one key channel a head,
 * the softmax is over a single value and every query is 1. What is left of the second pass is the
 * same row r for every position, y = x + r, and of its backward pass the sum of dY over the
 * positions. No gradient reaches the query projection.
 *
 * Rows may have any width: positions are run through as one string of values, against r repeated
 * until it fills whole vectors. Private to kernel files.
 */
#ifndef TL_K_ATTENTION_CONSTANT_H
#define TL_K_ATTENTION_CONSTANT_H

#include "kernels/k_attention_steps.h"

/* Positions whose sum is taken at a time: long sums have two levels. */
enum { CONSTANT_SUM_POSITIONS = 8 * TL_ATTENTION_TILE };

/* Values after which a row of `width` values begins at the start of a vector again. */
TL_INLINE int64_t constant_period(int64_t width) {
    int64_t period = width;
    while (period % TL_LANES != 0) {
        period *= 2;
    }
    return period;
}

/* Room for the longest period of any instruction set. */
TL_INLINE int64_t constant_room(int64_t width) {
    return width * (int64_t)(TL_ALIGNMENT / sizeof(tl_real));
}

/* r [out]: sum over heads of their row of M, and br; or the heads' rows of G side by side. Repeated
 * over `pattern`. */
TL_INLINE void constant_row(const attention_sizes *s, const attention_projections *w,
                            const tl_real *context, const tl_real *map, tl_real *pattern) {
    for (int64_t j = 0; j < s->out; j++) {
        if (!s->reprojection) {
            pattern[j] = context[j / s->e * s->e_row + j % s->e];
            continue;
        }
        tl_real sum = w->reprojection_bias[j];
        for (int64_t a = 0; a < s->k; a++) {
            sum += map[a * s->c_row + j];
        }
        pattern[j] = sum;
    }
    for (int64_t i = s->out; i < constant_period(s->out); i++) {
        pattern[i] = pattern[i - s->out];
    }
}

/* y = x + r for `count` values; x NULL: y = r. */
TL_INLINE void constant_output(int64_t count, int64_t period, const tl_real *pattern,
                               const tl_real *x, tl_real *y) {
    for (int64_t start = 0; start < count; start += period) {
        const int64_t length = count - start < period ? count - start : period;
        int64_t i = 0;
        for (; i + TL_LANES <= length; i += TL_LANES) {
            const tl_v r = tl_v_load(pattern + i);
            tl_v_store(y + start + i, x == NULL ? r : tl_v_load(x + start + i) + r);
        }
        if (i < length) {
            const tl_v r = tl_v_load(pattern + i);
            const tl_v sum = x == NULL ? r : tl_v_load_partial(x + start + i, length - i) + r;
            tl_v_store_partial(y + start + i, sum, length - i);
        }
    }
}

/* What happens to dX where dY passes it: nothing, it becomes dY, or dY is added. */
typedef enum constant_dx { CONSTANT_NO_DX, CONSTANT_SET, CONSTANT_ADD } constant_dx;

/* sums [period] += dY, folded onto the period; and dX. */
TL_INLINE void constant_block(int64_t count, int64_t period, const tl_real *dy, tl_real *sums,
                              constant_dx what, tl_real *dx) {
    for (int64_t start = 0; start < count; start += period) {
        const int64_t length = count - start < period ? count - start : period;
        for (int64_t i = 0; i < length; i += TL_LANES) {
            const int64_t lanes = length - i < TL_LANES ? length - i : TL_LANES;
            const tl_v incoming = tl_v_load_some(dy + start + i, lanes);
            tl_v_store(sums + i, tl_v_load(sums + i) + incoming);
            if (what == CONSTANT_SET) {
                tl_v_store_some(dx + start + i, incoming, lanes);
            } else if (what == CONSTANT_ADD) {
                tl_v_store_some(dx + start + i, tl_v_load_some(dx + start + i, lanes) + incoming,
                                lanes);
            }
        }
    }
}

/* total [width] = the sum of `positions` rows of dY; dX beside it. `sums` has room for a period. */
static __attribute__((unused)) void constant_sum(int64_t positions, int64_t width,
                                                 const tl_real *dy, tl_real *sums, tl_real *total,
                                                 constant_dx what, tl_real *dx) {
    const int64_t period = constant_period(width);
    memset(total, 0, (size_t)width * sizeof(tl_real));
    for (int64_t first = 0; first < positions; first += CONSTANT_SUM_POSITIONS) {
        const int64_t left = positions - first;
        const int64_t count =
            (left < CONSTANT_SUM_POSITIONS ? left : CONSTANT_SUM_POSITIONS) * width;
        memset(sums, 0, (size_t)period * sizeof(tl_real));
        constant_block(count, period, dy + first * width, sums, what,
                       dx == NULL ? NULL : dx + first * width);
        for (int64_t row = 0; row < period; row += width) {
            for (int64_t j = 0; j < width; j++) {
                total[j] += sums[row + j];
            }
        }
    }
}

#endif
