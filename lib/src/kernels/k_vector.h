/* k_vector.h - passes over one or two plain arrays. Memory-bound: bytes moved are stated. */
#ifndef TL_K_VECTOR_H
#define TL_K_VECTOR_H

typedef struct tl_vector_kernels {
    /* y[i] += x[i]; x and y are the same array or apart. Reads 2 n, writes n values. */
    void (*add)(int threads, int64_t n, const tl_real *x, tl_real *y);
    /* y[i] *= factor. */
    void (*scale)(int threads, int64_t n, tl_real factor, tl_real *y);
    /* The sum of x[i]^2 in double, in a fixed order. */
    double (*sum_of_squares)(int threads, int64_t n, const tl_real *x);
    /* False if any x[i] is NaN or infinite. */
    bool (*is_finite)(int threads, int64_t n, const tl_real *x);
} tl_vector_kernels;

TL_DECLARE_KERNELS(tl_vector_kernels);

#endif
