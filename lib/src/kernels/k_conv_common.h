/* k_conv_common.h - small things that all convolution kernels share. */
#ifndef TL_K_CONV_COMMON_H
#define TL_K_CONV_COMMON_H

#include "kernels/kernels.h"
#include "kernels/simd.h"

#include <string.h>

/* At least this many pieces of work, so that one image keeps threads busy. */
enum { TL_CONV_TILES_WANTED = 16 };

TL_INLINE int64_t tl_conv_minimum(int64_t a, int64_t b) {
    return a < b ? a : b;
}

TL_INLINE int64_t tl_conv_maximum(int64_t a, int64_t b) {
    return a > b ? a : b;
}

TL_INLINE int64_t tl_conv_ceiling(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* ------------------------------------------------------------------ chunks of channels */

/* Channels are cut into chunks of two vectors; an odd vector at the end is a chunk of one. */
TL_INLINE int64_t tl_conv_vectors(int64_t channels) {
    return (channels + TL_LANES - 1) / TL_LANES;
}

TL_INLINE int64_t tl_conv_chunks(int64_t channels) {
    return (tl_conv_vectors(channels) + 1) / 2;
}

/* Vectors (1 or 2) in chunk `chunk`. */
TL_INLINE int tl_conv_chunk_vectors(int64_t channels, int64_t chunk) {
    return tl_conv_vectors(channels) - 2 * chunk >= 2 ? 2 : 1;
}

/* Channels rounded up to whole vectors: how wide packed data are. */
TL_INLINE int64_t tl_conv_padded(int64_t channels) {
    return tl_conv_vectors(channels) * TL_LANES;
}

/* ------------------------------------------------------------------ scratch */

/* Takes `bytes` from the scratch at *next, aligned. With *next starting at NULL nothing but the
 * sizes is counted: the same code lays scratch out and tells its size. */
static inline void *tl_conv_take(char **next, size_t *used, size_t bytes) {
    void *taken = *next == NULL ? NULL : *next + *used;
    *used += (bytes + TL_ALIGNMENT - 1) / TL_ALIGNMENT * TL_ALIGNMENT;
    return taken;
}

/* Threads for that many FLOPs. */
static inline int tl_conv_threads(double flops, int threads) {
    return flops < TL_PARALLEL_MINIMUM ? 1 : threads;
}

static inline double tl_conv_direct_flops(const tl_conv_shape *s) {
    double flops =
        2.0 * (double)s->batch * (double)s->out_channels * (double)(s->in_channels / s->groups);
    for (int d = 0; d < 3; d++) {
        flops *= (double)s->out[d] * (double)s->kernel[d];
    }
    return flops;
}

#endif
