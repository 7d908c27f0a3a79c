/* upsample.h - enlarging images by an integer factor. Results belong to the tape. */
#ifndef TL_UPSAMPLE_H
#define TL_UPSAMPLE_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tl_upsample_mode {
    TL_UPSAMPLE_NEAREST = 0,
    TL_UPSAMPLE_BILINEAR = 1,
} tl_upsample_mode;

/* x [N, H, W, C] -> y [N, scale H, scale W, C], scale at least 1.
 * Nearest: y[i, j] = x[i / scale, j / scale], rounded down.
 * Bilinear (corners not aligned), along each dimension: with u = max((t + 1/2) / scale - 1/2, 0),
 * l = floor(u) and f = u - l:  y[t] = (1 - f) x[l] + f x[min(l + 1, in - 1)].
 * Nothing is kept for backward. */
TL_API tl_tensor *tl_upsample(tl_tape *tape, tl_tensor *x, int64_t scale, tl_upsample_mode mode);

#ifdef __cplusplus
}
#endif

#endif
