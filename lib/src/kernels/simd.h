/* simd.h - vectors of tl_real, as wide as the instruction set this file is compiled for.
 *
 * GCC/Clang vector extensions carry the arithmetic (+ - * / and comparisons work on tl_v
 * directly; a * b + c becomes an FMA through -ffp-contract=fast where there is one); intrinsics
 * appear only where the extensions have no word for the thing: masked loads and stores, max, min.
 * Compiled for double, every vector has half the lanes and exp comes from libm.
 */
#ifndef TL_SIMD_H
#define TL_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <tapeline/real.h>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifndef TL_VECTOR_BYTES
#if defined(__AVX512F__)
#define TL_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define TL_VECTOR_BYTES 32
#else
#define TL_VECTOR_BYTES 16
#endif
#endif

/* Intrinsics fit only where the vector is one register (not when 64-byte vectors are emulated). */
#if defined(__AVX512F__) && TL_VECTOR_BYTES == 64
#define TL_SIMD_AVX512 1
#elif defined(__AVX2__) && TL_VECTOR_BYTES == 32
#define TL_SIMD_AVX2 1
#endif

#ifdef TL_REAL_DOUBLE
typedef int64_t tl_lane_int;
#else
typedef int32_t tl_lane_int;
#endif

#define TL_LANES ((int)(TL_VECTOR_BYTES / sizeof(tl_real)))

/* How many vector registers a kernel can hold accumulators in. */
#if TL_VECTOR_BYTES == 64
#define TL_VECTOR_REGISTERS 32
#else
#define TL_VECTOR_REGISTERS 16
#endif

typedef tl_real tl_v __attribute__((vector_size(TL_VECTOR_BYTES)));
typedef tl_lane_int tl_vi __attribute__((vector_size(TL_VECTOR_BYTES)));
typedef tl_real tl_v_unaligned
    __attribute__((vector_size(TL_VECTOR_BYTES), aligned(sizeof(tl_real)), may_alias));

#define TL_INLINE static inline __attribute__((always_inline, unused))

/* Before a loop whose count is a constant where it is inlined (at most 16): unrolls it in full, so
 * that arrays indexed by its variable live in registers. */
#ifdef __clang__
#define TL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TL_UNROLL _Pragma("GCC unroll 16")
#endif

TL_INLINE tl_v tl_v_load(const tl_real *p) {
    return *(const tl_v_unaligned *)p;
}

TL_INLINE void tl_v_store(tl_real *p, tl_v v) {
    *(tl_v_unaligned *)p = v;
}

/* x in every lane. (x - 0 is x for every x, -0 included, so that compilers drop the subtraction and
 * keep a broadcast; 0 + x is not, and costs an addition each time.) */
TL_INLINE tl_v tl_v_set(tl_real x) {
    return x - (tl_v){0};
}

TL_INLINE tl_v tl_v_zero(void) {
    return (tl_v){0};
}

/* a where the mask's lane is all ones, b where it is zero (masks come from comparisons). */
TL_INLINE tl_v tl_v_select(tl_vi mask, tl_v a, tl_v b) {
    return (tl_v)(((tl_vi)a & mask) | ((tl_vi)b & ~mask));
}

/* Whether any lane of a mask is set. */
TL_INLINE int tl_v_any(tl_vi mask) {
#if defined(TL_SIMD_AVX512)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(TL_SIMD_AVX2)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
    tl_lane_int any = 0;
    for (int i = 0; i < TL_LANES; i++) {
        any |= mask[i];
    }
    return any != 0;
#endif
}

/* Lane-wise maximum; where a lane of either operand is NaN the lane is b's (as in x86's max). */
TL_INLINE tl_v tl_v_max(tl_v a, tl_v b) {
#if defined(TL_SIMD_AVX512) && !defined(TL_REAL_DOUBLE)
    return (tl_v)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(TL_SIMD_AVX512)
    return (tl_v)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(TL_SIMD_AVX2) && !defined(TL_REAL_DOUBLE)
    return (tl_v)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(TL_SIMD_AVX2)
    return (tl_v)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return tl_v_select(a > b, a, b);
#endif
}

TL_INLINE tl_v tl_v_min(tl_v a, tl_v b) {
#if defined(TL_SIMD_AVX512) && !defined(TL_REAL_DOUBLE)
    return (tl_v)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(TL_SIMD_AVX512)
    return (tl_v)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(TL_SIMD_AVX2) && !defined(TL_REAL_DOUBLE)
    return (tl_v)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(TL_SIMD_AVX2)
    return (tl_v)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    return tl_v_select(a < b, a, b);
#endif
}

TL_INLINE tl_v tl_v_sqrt(tl_v a) {
#if defined(TL_SIMD_AVX512) && !defined(TL_REAL_DOUBLE)
    return (tl_v)_mm512_sqrt_ps((__m512)a);
#elif defined(TL_SIMD_AVX2) && !defined(TL_REAL_DOUBLE)
    return (tl_v)_mm256_sqrt_ps((__m256)a);
#else
    for (int i = 0; i < TL_LANES; i++) {
        a[i] = (tl_real)sqrt((double)a[i]);
    }
    return a;
#endif
}

#if defined(TL_SIMD_AVX2)
/* All ones in the first `count` lanes (0 <= count <= TL_LANES). */
TL_INLINE __m256i tl_v_mask_(int64_t count) {
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    const int64_t words = count * (int64_t)(sizeof(tl_real) / sizeof(int32_t));
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones + 8 - words));
}
#endif

/* The first `count` values at p (0 <= count <= TL_LANES), zeros behind; reads nothing beyond. */
TL_INLINE tl_v tl_v_load_partial(const tl_real *p, int64_t count) {
#if defined(TL_SIMD_AVX512) && !defined(TL_REAL_DOUBLE)
    return (tl_v)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1u), p);
#elif defined(TL_SIMD_AVX512)
    return (tl_v)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1u), p);
#elif defined(TL_SIMD_AVX2) && !defined(TL_REAL_DOUBLE)
    return (tl_v)_mm256_maskload_ps(p, tl_v_mask_(count));
#elif defined(TL_SIMD_AVX2)
    return (tl_v)_mm256_maskload_pd(p, tl_v_mask_(count));
#else
    tl_v v = {0};
    for (int i = 0; i < TL_LANES; i++) {
        if (i < count) {
            v[i] = p[i];
        }
    }
    return v;
#endif
}

/* Writes the first `count` lanes to p, and nothing beyond. */
TL_INLINE void tl_v_store_partial(tl_real *p, tl_v v, int64_t count) {
#if defined(TL_SIMD_AVX512) && !defined(TL_REAL_DOUBLE)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1u), (__m512)v);
#elif defined(TL_SIMD_AVX512)
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << count) - 1u), (__m512d)v);
#elif defined(TL_SIMD_AVX2) && !defined(TL_REAL_DOUBLE)
    _mm256_maskstore_ps(p, tl_v_mask_(count), (__m256)v);
#elif defined(TL_SIMD_AVX2)
    _mm256_maskstore_pd(p, tl_v_mask_(count), (__m256d)v);
#else
    for (int i = 0; i < TL_LANES; i++) {
        if (i < count) {
            p[i] = v[i];
        }
    }
#endif
}

/* The first `count` lanes of what lies at p, all of them (the common case) or fewer. */
TL_INLINE tl_v tl_v_load_some(const tl_real *p, int64_t count) {
    return count == TL_LANES ? tl_v_load(p) : tl_v_load_partial(p, count);
}

TL_INLINE void tl_v_store_some(tl_real *p, tl_v v, int64_t count) {
    if (count == TL_LANES) {
        tl_v_store(p, v);
    } else {
        tl_v_store_partial(p, v, count);
    }
}

/* The sum of the lanes, pairwise: lane i with lane i + LANES/2, and so on (a fixed order). */
TL_INLINE tl_real tl_v_sum(tl_v v) {
#if (defined(TL_SIMD_AVX512) || defined(TL_SIMD_AVX2)) && !defined(TL_REAL_DOUBLE)
#ifdef TL_SIMD_AVX512
    const __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
#else
    const __m256 eight = (__m256)v;
#endif
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
    tl_real lanes[TL_VECTOR_BYTES / sizeof(tl_real)];
    memcpy(lanes, &v, sizeof lanes);
    for (int half = TL_LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
#endif
}

TL_INLINE tl_real tl_v_maximum(tl_v v) {
    tl_real lanes[TL_VECTOR_BYTES / sizeof(tl_real)];
    memcpy(lanes, &v, sizeof lanes);
    for (int half = TL_LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
        }
    }
    return lanes[0];
}

/* Keeps the compiler from folding a load that several FMAs use into each of them as a memory
 * operand, which would make the loop load-bound. Works for vectors that fit one register. */
#if defined(__x86_64__) && (defined(TL_SIMD_AVX512) || defined(TL_SIMD_AVX2))
#ifdef TL_SIMD_AVX512
#define TL_V_PIN(x) __asm__("" : "+v"(x))
#else
#define TL_V_PIN(x) __asm__("" : "+x"(x))
#endif
#else
#define TL_V_PIN(x) ((void)0)
#endif

/* ------------------------------------------------------------------ exponential
 *
 * 2^x for float: x = i + f with i the nearest integer and |f| <= 1/2, 2^f by a polynomial of
 * degree 6 (minimax, relative error below 2e-8), times 2^i by adding i to the exponent. Arguments
 * below -126 give 0 (no denormals), above 127.99 the largest finite power (no Inf). NaN gives NaN.
 * exp(x) = 2^(x log2 e), with the product split in two so that large |x| lose nothing.
 * Worst error of tl_v_exp against libm over [-87, 88]: about 1.3 ulp.
 */
#ifndef TL_REAL_DOUBLE
/* Unsigned: far outside the range the sum below wraps around, before it is replaced. */
typedef uint32_t tl_v_bits_ __attribute__((vector_size(TL_VECTOR_BYTES)));

TL_INLINE tl_v tl_v_exp2_reduced_(tl_v shifted, tl_v f, tl_v x) {
    tl_v p = tl_v_set(1.537063270e-4f);
    p = p * f + 1.339980917e-3f;
    p = p * f + 9.618373398e-3f;
    p = p * f + 5.550329169e-2f;
    p = p * f + 2.402264846e-1f;
    p = p * f + 6.931472055e-1f;
    p = p * f + 1.0f;
    /* the low bits of `shifted` hold the integer: move them into the exponent */
    const tl_v_bits_ scale = (tl_v_bits_)shifted << 23;
    const tl_v y = (tl_v)((tl_v_bits_)p + scale);
    return tl_v_select(x < -126.0f, tl_v_zero(), y);
}

#define TL_EXP_SHIFT_ 12582912.0f /* 1.5 * 2^23: adding it rounds to the nearest integer */

TL_INLINE tl_v tl_v_exp2(tl_v x) {
    const tl_v clamped = tl_v_max(tl_v_set(-127.0f), tl_v_min(tl_v_set(127.99f), x));
    const tl_v shifted = clamped + TL_EXP_SHIFT_;
    const tl_v f = clamped - (shifted - TL_EXP_SHIFT_);
    return tl_v_exp2_reduced_(shifted, f, clamped);
}

/* The same for x that exceed 8 by little (or NaN), which need no clamping. */
TL_INLINE tl_v tl_v_exp2_low(tl_v x) {
    const tl_v shifted = x + TL_EXP_SHIFT_;
    return tl_v_exp2_reduced_(shifted, x - (shifted - TL_EXP_SHIFT_), x);
}

TL_INLINE tl_v tl_v_exp(tl_v x) {
    const tl_v clamped = tl_v_max(tl_v_set(-88.0f), tl_v_min(tl_v_set(88.7f), x));
    const tl_v shifted = clamped * 1.44269504f + TL_EXP_SHIFT_;
    const tl_v i = shifted - TL_EXP_SHIFT_;
    /* f = (x - i ln 2) log2 e, with ln 2 in two parts */
    const tl_v r = (clamped - i * 0.693359375f) - i * -2.12194440e-4f;
    const tl_v f = r * 1.44269504f;
    return tl_v_exp2_reduced_(shifted, f, i);
}
#else
TL_INLINE tl_v tl_v_exp2(tl_v x) {
    for (int i = 0; i < TL_LANES; i++) {
        x[i] = exp2(x[i]);
    }
    return x;
}

TL_INLINE tl_v tl_v_exp2_low(tl_v x) {
    return tl_v_exp2(x);
}

TL_INLINE tl_v tl_v_exp(tl_v x) {
    for (int i = 0; i < TL_LANES; i++) {
        x[i] = exp(x[i]);
    }
    return x;
}
#endif

#endif
