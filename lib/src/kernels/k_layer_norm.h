/* k_layer_norm.h - normalisation of whole rows: x [rows, width], each row with its own mean and
 * variance over its width values; weight and bias [width] or both NULL. */
#ifndef TL_K_LAYER_NORM_H
#define TL_K_LAYER_NORM_H

typedef struct tl_layer_norm_kernels {
    /* y = (x - mean) / sqrt(variance + epsilon) * weight + bias. y may be x. */
    void (*forward)(int64_t rows, int64_t width, const tl_real *x, const tl_real *weight,
                    const tl_real *bias, double epsilon, tl_real *y, int threads);

    size_t (*backward_scratch_bytes)(int64_t rows, int64_t width);

    /* With xhat the normalised row, a = dy weight, means over the row:
     * dx = (a - mean(a) - xhat mean(a xhat)) / sqrt(variance + epsilon)    (added if `accumulate`),
     * dweight = sum of dy xhat, dbias = sum of dy over the rows, [width] each, overwritten.
     * The row's statistics are computed again: the row is in the cache anyway. dx may be NULL, or
     * dy; dweight and dbias may both be NULL. */
    void (*backward)(int64_t rows, int64_t width, const tl_real *dy, const tl_real *x,
                     const tl_real *weight, double epsilon, tl_real *dx, bool accumulate,
                     double *dweight, double *dbias, void *scratch, int threads);
} tl_layer_norm_kernels;

TL_DECLARE_KERNELS(tl_layer_norm_kernels);

#endif
