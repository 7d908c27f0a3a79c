/* k_copy.h - copies between strided arrays: permute, concat, slice and their gradients.
 *
 * The caller merges dimensions and drops those of extent 1. Where the last dimension is contiguous
 * on both sides whole rows are copied; where another dimension is contiguous in x (a transposition)
 * tiles of 16 x 16 go through a buffer, so that both sides are touched along their cache lines.
 * Reads and writes every value once.
 */
#ifndef TL_K_COPY_H
#define TL_K_COPY_H

enum { TL_COPY_RANK = 8 };

typedef struct tl_copy {
    int rank; /* at least 1 */
    int64_t extents[TL_COPY_RANK];
    int64_t x_strides[TL_COPY_RANK];
    int64_t y_strides[TL_COPY_RANK];
} tl_copy;

typedef struct tl_copy_kernels {
    /* y[...] = x[...], or y += x if `accumulate`. No value of y is met twice. */
    void (*copy)(int threads, const tl_copy *shape, const tl_real *x, bool accumulate, tl_real *y);
} tl_copy_kernels;

TL_DECLARE_KERNELS(tl_copy_kernels);

#endif
