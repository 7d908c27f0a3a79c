/* pooling.h - maximum and average over windows, channels-last. Results belong to the tape. */
#ifndef TL_POOLING_H
#define TL_POOLING_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One entry for each spatial dimension of x, in their order; further entries are ignored. */
typedef struct tl_pool_config {
    int64_t kernel_size[3];
    int64_t stride[3];    /* 0: the kernel's size */
    int64_t padding[3];   /* on both sides, less than the kernel's size */
    bool exclude_padding; /* average only: divide by the number of positions inside x instead of
                             the kernel's size */
} tl_pool_config;

/* x [N, spatial..., C] with one, two or three spatial dimensions -> y [N, spatial'..., C], per
 * dimension out = (in + 2 padding - kernel_size) / stride + 1, rounded down. The maximum ignores
 * positions outside x; where a window holds a NaN the result is NaN, of equal values the first
 * receives the gradient. A window has at most 256 positions. Kept for backward: one byte per value
 * of y. */
TL_API tl_tensor *tl_max_pool(tl_tape *tape, tl_tensor *x, const tl_pool_config *config);

/* The same with the mean of the window; positions outside x count as zeros, or not at all with
 * `exclude_padding`. Nothing is kept for backward. */
TL_API tl_tensor *tl_avg_pool(tl_tape *tape, tl_tensor *x, const tl_pool_config *config);

/* The same for images x [N, H, W, C] only: any other rank is an error. */
TL_API tl_tensor *tl_max_pool2d(tl_tape *tape, tl_tensor *x, const tl_pool_config *config);
TL_API tl_tensor *tl_avg_pool2d(tl_tape *tape, tl_tensor *x, const tl_pool_config *config);

/* x [N, spatial..., C] with any number of spatial dimensions -> y [N, C], the mean over all
 * positions. Nothing is kept for backward. */
TL_API tl_tensor *tl_global_avg_pool(tl_tape *tape, tl_tensor *x);

#ifdef __cplusplus
}
#endif

#endif
