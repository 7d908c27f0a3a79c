/* vector_math.h - elementary functions on vectors that activations and losses need.
 *
 * For float the polynomials are minimax fits of our own, made with weighted least squares in
 * double; the errors stated are the worst over a dense sweep against libm in double (the tests in
 * tests/test_activation.c hold them to it). Compiled for double every lane comes from libm.
 * NaN gives NaN; no argument, infinities included, gives a NaN otherwise.
 */
#ifndef TL_VECTOR_MATH_H
#define TL_VECTOR_MATH_H

#include "kernels/simd.h"

TL_INLINE tl_v tl_v_absolute(tl_v x) {
    return tl_v_max(-x, x);
}

/* 1 / (1 + exp(-x)): relative error below 3e-7 for x >= -87, below that under 1e-38. */
TL_INLINE tl_v tl_v_sigmoid(tl_v x) {
    return 1 / (1 + tl_v_exp(-x));
}

#ifndef TL_REAL_DOUBLE

/* exp(x) - 1: relative error below 2.5e-7; from 88 up the largest finite power.
 * x = i ln 2 + r: exp(x) - 1 = 2^i (exp(r) - 1) + (2^i - 1), exp(r) - 1 = r + r^2 Q(r). */
TL_INLINE tl_v tl_v_expm1(tl_v x) {
    const tl_v clamped = tl_v_max(tl_v_set(-50.0f), tl_v_min(tl_v_set(88.0f), x));
    const tl_v shifted = clamped * 1.44269504f + TL_EXP_SHIFT_;
    const tl_v i = shifted - TL_EXP_SHIFT_;
    const tl_v r = (clamped - i * 0.693359375f) - i * -2.12194440e-4f;
    tl_v q = tl_v_set(1.388239558e-3f);
    q = q * r + 8.367180824e-3f;
    q = q * r + 4.166722298e-2f;
    q = q * r + 1.666653901e-1f;
    q = q * r + 4.999999702e-1f;
    const tl_v power = (tl_v)(((tl_vi)shifted << 23) + 0x3f800000);
    return power * (r + r * r * q) + (power - 1.0f);
}

/* log(1 + y) for 0 <= y <= 1: relative error below 2.5e-7. With u = y / (2 + y) it is
 * 2 atanh(u) = 2u + u^3 P(u^2). */
TL_INLINE tl_v tl_v_log1p_unit(tl_v y) {
    const tl_v u = y / (y + 2.0f);
    const tl_v s = u * u;
    tl_v p = tl_v_set(0.280244593f);
    p = p * s + 0.279991410f;
    p = p * s + 0.400216991f;
    p = p * s + 0.666664131f;
    return 2.0f * u + u * s * p;
}

/* The normal distribution function erfc(-x / sqrt 2) / 2: absolute error below 1.5e-7, relative
 * error below 1e-6 for x >= -5. With a = |x| / sqrt 2 and t = (a - 3) / (a + 3),
 * erfc(a) = exp(-a^2) P(t) / (1 + 2a). */
TL_INLINE tl_v tl_v_normal_cdf(tl_v x) {
    const tl_v a = tl_v_min(tl_v_set(15.0f), tl_v_absolute(x) * 0.707106781f);
    const tl_v t = (a - 3.0f) / (a + 3.0f);
    tl_v p = tl_v_set(-1.74019143e-4f);
    p = p * t + 2.20413761e-3f;
    p = p * t + 2.19674795e-3f;
    p = p * t - 2.40161222e-2f;
    p = p * t + 6.83687664e-2f;
    p = p * t - 1.19218213e-1f;
    p = p * t + 1.29641086e-1f;
    p = p * t - 4.75663002e-2f;
    p = p * t - 1.35621011e-1f;
    p = p * t + 1.25300810f;
    const tl_v upper = 0.5f * p * tl_v_exp(-0.5f * x * x) / (1.0f + 2.0f * a);
    return tl_v_select(x < 0.0f, upper, 1.0f - upper);
}

#else

#define TL_V_LANEWISE_(name, call)                                                                 \
    TL_INLINE tl_v name(tl_v x) {                                                                  \
        for (int i = 0; i < TL_LANES; i++) {                                                       \
            x[i] = call;                                                                           \
        }                                                                                          \
        return x;                                                                                  \
    }

TL_V_LANEWISE_(tl_v_expm1, expm1(x[i]))
TL_V_LANEWISE_(tl_v_log1p_unit, log1p(x[i]))
TL_V_LANEWISE_(tl_v_normal_cdf, 0.5 * erfc(-x[i] * 0.70710678118654752440))

#endif

/* The hyperbolic tangent: relative error below 4e-7. With z = expm1(-2|x|) it is
 * -z / (2 + z), with the sign of x. */
TL_INLINE tl_v tl_v_tanh(tl_v x) {
    const tl_v z = tl_v_expm1(-2 * tl_v_absolute(x));
    const tl_v magnitude = -z / (2 + z);
    return tl_v_select(x < 0, -magnitude, magnitude);
}

/* log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)): relative error below 4e-7 for x >= -87. */
TL_INLINE tl_v tl_v_softplus(tl_v x) {
    return tl_v_max(tl_v_zero(), x) + tl_v_log1p_unit(tl_v_exp(-tl_v_absolute(x)));
}

#endif
