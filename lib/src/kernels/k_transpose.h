/* k_transpose.h - square blocks transposed in registers. Private to kernel files. */
#ifndef TL_K_TRANSPOSE_H
#define TL_K_TRANSPOSE_H

#include "kernels/simd.h"

/* Step s of a butterfly transpose exchanges lane l of row r with lane l ^ s of row r ^ s. These are
 * the lanes of the new rows r (bit s clear) and r ^ s, from the concatenation of the two old. */
#define TL_LOW_(l, s, lanes) (((l) & (s)) ? (lanes) + ((l) ^ (s)) : (l))
#define TL_HIGH_(l, s, lanes) (((l) & (s)) ? (lanes) + (l) : ((l) ^ (s)))
#define TL_LIST2_(f, o, s, n) f(o, s, n), f((o) + 1, s, n)
#define TL_LIST4_(f, o, s, n) TL_LIST2_(f, o, s, n), TL_LIST2_(f, (o) + 2, s, n)
#define TL_LIST8_(f, o, s, n) TL_LIST4_(f, o, s, n), TL_LIST4_(f, (o) + 4, s, n)
#define TL_LIST16_(f, o, s, n) TL_LIST8_(f, o, s, n), TL_LIST8_(f, (o) + 8, s, n)

#ifdef TL_REAL_DOUBLE
#define TL_REAL_BYTES_ 8
#else
#define TL_REAL_BYTES_ 4
#endif
#if TL_VECTOR_BYTES / TL_REAL_BYTES_ == 2
#define TL_LANE_LIST_(f, s) TL_LIST2_(f, 0, s, 2)
#elif TL_VECTOR_BYTES / TL_REAL_BYTES_ == 4
#define TL_LANE_LIST_(f, s) TL_LIST4_(f, 0, s, 4)
#elif TL_VECTOR_BYTES / TL_REAL_BYTES_ == 8
#define TL_LANE_LIST_(f, s) TL_LIST8_(f, 0, s, 8)
#else
#define TL_LANE_LIST_(f, s) TL_LIST16_(f, 0, s, 16)
#endif

#define TL_TRANSPOSE_STEP_(v, s)                                                                   \
    TL_UNROLL for (int r_ = 0; r_ < TL_LANES; r_++) {                                              \
        if ((r_ & (s)) == 0) {                                                                     \
            const tl_v x_ = v[r_], y_ = v[r_ | (s)];                                               \
            v[r_] = __builtin_shufflevector(x_, y_, TL_LANE_LIST_(TL_LOW_, s));                    \
            v[r_ | (s)] = __builtin_shufflevector(x_, y_, TL_LANE_LIST_(TL_HIGH_, s));             \
        }                                                                                          \
    }

/* Transposes the LANES x LANES block v in registers. */
TL_INLINE void tl_v_transpose(tl_v v[TL_VECTOR_BYTES / sizeof(tl_real)]) {
    TL_TRANSPOSE_STEP_(v, 1)
#if TL_VECTOR_BYTES / TL_REAL_BYTES_ > 2
    TL_TRANSPOSE_STEP_(v, 2)
#endif
#if TL_VECTOR_BYTES / TL_REAL_BYTES_ > 4
    TL_TRANSPOSE_STEP_(v, 4)
#endif
#if TL_VECTOR_BYTES / TL_REAL_BYTES_ > 8
    TL_TRANSPOSE_STEP_(v, 8)
#endif
}

#endif
