/* k_activation.h - elementwise nonlinearities and their derivatives.
 *
 * One pass over the data: forward reads n values and writes n; backward reads 2 n (3 n when it
 * accumulates) and writes n. Every value is computed by the same vector code wherever it lies.
 */
#ifndef TL_K_ACTIVATION_H
#define TL_K_ACTIVATION_H

typedef enum tl_activation_kind {
    TL_ACTIVATION_RELU,
    TL_ACTIVATION_LEAKY_RELU, /* first: slope below 0 */
    TL_ACTIVATION_GELU,
    TL_ACTIVATION_GELU_TANH,
    TL_ACTIVATION_SILU,
    TL_ACTIVATION_SIGMOID,
    TL_ACTIVATION_TANH,
    TL_ACTIVATION_ELU,      /* first: alpha, 0 or more */
    TL_ACTIVATION_SOFTPLUS, /* first: beta, second: threshold */
    TL_ACTIVATION_KINDS,
} tl_activation_kind;

typedef struct tl_activation {
    tl_activation_kind kind;
    tl_real first; /* parameters of the kind, see there */
    tl_real second;
} tl_activation;

typedef struct tl_activation_kernels {
    /* y[i] = f(x[i]); y may be x. */
    void (*forward)(int threads, const tl_activation *f, int64_t n, const tl_real *x, tl_real *y);
    /* dx[i] (+)= f'(x[i]) dy[i]; added if `accumulate`. `saved` is what tl_activation_saves_output
     * says: the results or the inputs. dx may be dy. */
    void (*backward)(int threads, const tl_activation *f, int64_t n, const tl_real *saved,
                     const tl_real *dy, bool accumulate, tl_real *dx);
} tl_activation_kernels;

/* True if the derivative is computed from the result, false if from the input. */
static inline bool tl_activation_saves_output(const tl_activation *f) {
    switch (f->kind) {
    case TL_ACTIVATION_RELU:
    case TL_ACTIVATION_SIGMOID:
    case TL_ACTIVATION_TANH:
    case TL_ACTIVATION_ELU:
        return true;
    case TL_ACTIVATION_LEAKY_RELU:
        return f->first >= 0; /* the result has the input's sign */
    default:
        return false;
    }
}

TL_DECLARE_KERNELS(tl_activation_kernels);

#endif
