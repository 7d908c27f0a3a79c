/* softmax_row.h - what softmax and cross-entropy do along one contiguous row. */
#ifndef TL_SOFTMAX_ROW_H
#define TL_SOFTMAX_ROW_H

#include "kernels/simd.h"

/* Values added in vectors before their sum goes to double. */
enum { TL_ROW_SEGMENT = 2048 };

/* The first `count` values at p, `fill` in the lanes behind. */
TL_INLINE tl_v tl_v_load_filled(const tl_real *p, int64_t count, tl_real fill) {
    tl_v v = tl_v_load_partial(p, count);
    for (int i = 0; i < TL_LANES; i++) {
        v[i] = i < count ? v[i] : fill;
    }
    return v;
}

/* The maximum of n >= 1 values; NaNs may go unnoticed (they show in the sum that follows). */
TL_INLINE tl_real tl_row_maximum(int64_t n, const tl_real *x) {
    tl_v maximum = tl_v_set(x[0]);
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        maximum = tl_v_max(maximum, tl_v_load(x + i));
    }
    if (i < n) {
        maximum = tl_v_max(maximum, tl_v_load_filled(x + i, n - i, x[0]));
    }
    return tl_v_maximum(maximum);
}

/* The sum of exp(x[i] - maximum), which also go to y unless it is NULL. */
TL_INLINE double tl_row_exp_sum(int64_t n, const tl_real *x, tl_real maximum, tl_real *y) {
    double sum = 0;
    for (int64_t start = 0; start < n; start += TL_ROW_SEGMENT) {
        const int64_t end = n - start < TL_ROW_SEGMENT ? n : start + TL_ROW_SEGMENT;
        tl_v lanes = tl_v_zero();
        int64_t i = start;
        for (; i + TL_LANES <= end; i += TL_LANES) {
            const tl_v e = tl_v_exp(tl_v_load(x + i) - maximum);
            lanes += e;
            if (y != NULL) {
                tl_v_store(y + i, e);
            }
        }
        if (i < end) {
            const tl_real nothing = -(tl_real)INFINITY;
            const tl_v e = tl_v_exp(tl_v_load_filled(x + i, end - i, nothing) - maximum);
            lanes += e;
            if (y != NULL) {
                tl_v_store_partial(y + i, e, end - i);
            }
        }
        sum += (double)tl_v_sum(lanes);
    }
    return sum;
}

#endif
