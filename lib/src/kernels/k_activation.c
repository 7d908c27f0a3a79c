#include "kernels/kernels.h"
#include "kernels/pieces.h"
#include "kernels/vector_math.h"

enum { PIECE = 1 << 13 };

static const tl_real one_over_sqrt_two_pi = (tl_real)0.39894228040143267794;
static const tl_real two_sqrt_two_over_pi = (tl_real)1.59576912160573071176;
static const tl_real gelu_cubic = (tl_real)0.044715;

/* gelu_tanh(x) = x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3). */
TL_INLINE tl_v gelu_tanh_argument(tl_v x) {
    return two_sqrt_two_over_pi * (x + gelu_cubic * x * x * x);
}

/* The derivative of x sigmoid(u): s + x s (1 - s) u'. 1 - s is formed as exp(-u) s, because the
 * difference would have no digits left where s is near 1 and x u' is large. */
TL_INLINE tl_v gate_slope(tl_v x, tl_v u, tl_v du) {
    const tl_v e = tl_v_exp(-u);
    const tl_v s = 1 / (1 + e);
    return s + x * s * (e * s) * du;
}

TL_INLINE tl_v value(tl_activation_kind kind, tl_real first, tl_real second, tl_v x) {
    const tl_v zero = tl_v_zero();
    switch (kind) {
    case TL_ACTIVATION_RELU:
        return tl_v_max(zero, x);
    case TL_ACTIVATION_LEAKY_RELU:
        return tl_v_select(x > 0, x, x * first);
    case TL_ACTIVATION_GELU:
        return x * tl_v_normal_cdf(x);
    case TL_ACTIVATION_GELU_TANH:
        return x * tl_v_sigmoid(gelu_tanh_argument(x));
    case TL_ACTIVATION_SILU:
        return x * tl_v_sigmoid(x);
    case TL_ACTIVATION_SIGMOID:
        return tl_v_sigmoid(x);
    case TL_ACTIVATION_TANH:
        return tl_v_tanh(x);
    case TL_ACTIVATION_ELU:
        return tl_v_select(x > 0, x, first * tl_v_expm1(tl_v_min(zero, x)));
    default: /* softplus */
        return tl_v_select(x * first > second, x, tl_v_softplus(x * first) / first);
    }
}

/* f'(x), from s: the result where the kind saves it, else the input. */
TL_INLINE tl_v slope(tl_activation_kind kind, tl_real first, tl_real second, tl_v s) {
    const tl_v zero = tl_v_zero();
    const tl_v one = tl_v_set(1);
    switch (kind) {
    case TL_ACTIVATION_RELU:
        return tl_v_select(s > 0, one, zero);
    case TL_ACTIVATION_LEAKY_RELU:
        return tl_v_select(s > 0, one, tl_v_set(first));
    case TL_ACTIVATION_GELU:
        return tl_v_normal_cdf(s) + s * one_over_sqrt_two_pi * tl_v_exp(s * s * (tl_real)-0.5);
    case TL_ACTIVATION_GELU_TANH: {
        /* beyond +-30 the gate is 0 or 1 and the slope with it, but s^3 would get out of hand */
        const tl_v x = tl_v_max(tl_v_set(-30), tl_v_min(tl_v_set(30), s));
        return gate_slope(x, gelu_tanh_argument(x),
                          two_sqrt_two_over_pi * (1 + 3 * gelu_cubic * x * x));
    }
    case TL_ACTIVATION_SILU:
        return gate_slope(s, s, one);
    case TL_ACTIVATION_SIGMOID:
        return s * (1 - s);
    case TL_ACTIVATION_TANH:
        return 1 - s * s;
    case TL_ACTIVATION_ELU:
        return tl_v_select(s > 0, one, s + first);
    default: /* softplus */
        return tl_v_select(s * first > second, one, tl_v_sigmoid(s * first));
    }
}

TL_INLINE void forward_piece(tl_activation_kind kind, const tl_activation *f, int64_t n,
                             const tl_real *x, tl_real *y) {
    const tl_real first = f->first;
    const tl_real second = f->second;
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        tl_v_store(y + i, value(kind, first, second, tl_v_load(x + i)));
    }
    if (i < n) {
        const tl_v v = value(kind, first, second, tl_v_load_partial(x + i, n - i));
        tl_v_store_partial(y + i, v, n - i);
    }
}

TL_INLINE void backward_piece(tl_activation_kind kind, const tl_activation *f, int64_t n,
                              const tl_real *saved, const tl_real *dy, bool accumulate,
                              tl_real *dx) {
    const tl_real first = f->first;
    const tl_real second = f->second;
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const tl_v g = slope(kind, first, second, tl_v_load(saved + i)) * tl_v_load(dy + i);
        tl_v_store(dx + i, accumulate ? tl_v_load(dx + i) + g : g);
    }
    if (i < n) {
        const int64_t rest = n - i;
        const tl_v g = slope(kind, first, second, tl_v_load_partial(saved + i, rest)) *
                       tl_v_load_partial(dy + i, rest);
        const tl_v sum = accumulate ? tl_v_load_partial(dx + i, rest) + g : g;
        tl_v_store_partial(dx + i, sum, rest);
    }
}

/* The kind as a compile-time constant: CALL(kind) for the kind of f. */
#define FOR_KIND(f, CALL)                                                                          \
    switch ((f)->kind) {                                                                           \
    case TL_ACTIVATION_RELU:                                                                       \
        CALL(TL_ACTIVATION_RELU);                                                                  \
        break;                                                                                     \
    case TL_ACTIVATION_LEAKY_RELU:                                                                 \
        CALL(TL_ACTIVATION_LEAKY_RELU);                                                            \
        break;                                                                                     \
    case TL_ACTIVATION_GELU:                                                                       \
        CALL(TL_ACTIVATION_GELU);                                                                  \
        break;                                                                                     \
    case TL_ACTIVATION_GELU_TANH:                                                                  \
        CALL(TL_ACTIVATION_GELU_TANH);                                                             \
        break;                                                                                     \
    case TL_ACTIVATION_SILU:                                                                       \
        CALL(TL_ACTIVATION_SILU);                                                                  \
        break;                                                                                     \
    case TL_ACTIVATION_SIGMOID:                                                                    \
        CALL(TL_ACTIVATION_SIGMOID);                                                               \
        break;                                                                                     \
    case TL_ACTIVATION_TANH:                                                                       \
        CALL(TL_ACTIVATION_TANH);                                                                  \
        break;                                                                                     \
    case TL_ACTIVATION_ELU:                                                                        \
        CALL(TL_ACTIVATION_ELU);                                                                   \
        break;                                                                                     \
    default:                                                                                       \
        CALL(TL_ACTIVATION_SOFTPLUS);                                                              \
        break;                                                                                     \
    }

static void forward_any(const tl_activation *f, int64_t n, const tl_real *x, tl_real *y) {
#define FORWARD(kind_) forward_piece(kind_, f, n, x, y)
    FOR_KIND(f, FORWARD)
#undef FORWARD
}

static void backward_any(const tl_activation *f, int64_t n, const tl_real *saved, const tl_real *dy,
                         bool accumulate, tl_real *dx) {
#define BACKWARD(kind_)                                                                            \
    if (accumulate) {                                                                              \
        backward_piece(kind_, f, n, saved, dy, true, dx);                                          \
    } else {                                                                                       \
        backward_piece(kind_, f, n, saved, dy, false, dx);                                         \
    }
    FOR_KIND(f, BACKWARD)
#undef BACKWARD
}

static void forward(int threads, const tl_activation *f, int64_t n, const tl_real *x, tl_real *y) {
    const int64_t pieces = tl_piece_count(n, PIECE);
#pragma omp parallel for num_threads(threads) schedule(static) if (n > TL_PARALLEL_MINIMUM)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        forward_any(f, tl_piece_size(piece, n, PIECE), x + start, y + start);
    }
}

static void backward(int threads, const tl_activation *f, int64_t n, const tl_real *saved,
                     const tl_real *dy, bool accumulate, tl_real *dx) {
    const int64_t pieces = tl_piece_count(n, PIECE);
#pragma omp parallel for num_threads(threads) schedule(static) if (n > TL_PARALLEL_MINIMUM)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        backward_any(f, tl_piece_size(piece, n, PIECE), saved + start, dy + start, accumulate,
                     dx + start);
    }
}

const tl_activation_kernels TL_PER_ISA(tl_activation_kernels) = {
    .forward = forward,
    .backward = backward,
};
