/* k_reduce.h - sums over some dimensions of a dense array.
 *
 * Two levels: short runs are added in vectors of tl_real (32 rows, or 4096 values in 4 vectors),
 * the runs in double. Where one output has a lot to add, its summands are cut into at most 64
 * pieces by the shape alone, whose sums are added in their order. Reads every value once.
 */
#ifndef TL_K_REDUCE_H
#define TL_K_REDUCE_H

enum { TL_REDUCTION_RANK = 8 };

/* Neighbouring dimensions of the same fate are merged and extents of 1 are dropped, so that
 * kept and reduced ones alternate (rank 0: a single value). */
typedef struct tl_reduction {
    int rank;
    int64_t extents[TL_REDUCTION_RANK];
    bool is_reduced[TL_REDUCTION_RANK];
} tl_reduction;

typedef struct tl_reduce_kernels {
    size_t (*sum_scratch_bytes)(const tl_reduction *shape);
    /* y = scale * sum of x over the reduced dimensions, or y += that if `accumulate`. */
    void (*sum)(int threads, const tl_reduction *shape, const tl_real *x, double scale,
                bool accumulate, tl_real *y, void *scratch);
} tl_reduce_kernels;

TL_DECLARE_KERNELS(tl_reduce_kernels);

#endif
