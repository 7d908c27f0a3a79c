/* k_softmax.h - softmax and its logarithm over one dimension.
 *
 * The array is [outer, n, inner], the softmax over n. With inner = 1 the lanes run along n; else
 * they run along inner, 64 bytes of it in a task, so that nothing is transposed. Three passes
 * forward (maximum, exponentials and their sum, scaling), two backward. Sums go to double every
 * 2048 values (inner = 1) or 64.
 */
#ifndef TL_K_SOFTMAX_H
#define TL_K_SOFTMAX_H

typedef struct tl_softmax_kernels {
    /* y = exp(x) / sum exp(x), or with `logarithm` y = x - log sum exp(x). */
    void (*forward)(int threads, bool logarithm, int64_t outer, int64_t n, int64_t inner,
                    const tl_real *x, tl_real *y);
    /* dx (+)= y (dy - sum y dy), or with `logarithm` dx (+)= dy - exp(y) sum dy. */
    void (*backward)(int threads, bool logarithm, int64_t outer, int64_t n, int64_t inner,
                     const tl_real *y, const tl_real *dy, bool accumulate, tl_real *dx);
} tl_softmax_kernels;

TL_DECLARE_KERNELS(tl_softmax_kernels);

#endif
