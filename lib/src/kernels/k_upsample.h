/* k_upsample.h - enlarging images by an integer factor: x [images, height, width, channels] ->
 * y [images, scale height, scale width, channels]. */
#ifndef TL_K_UPSAMPLE_H
#define TL_K_UPSAMPLE_H

typedef struct tl_upsample_shape {
    int64_t images;
    int64_t height; /* of the input */
    int64_t width;
    int64_t channels;
    int64_t scale;
    bool bilinear; /* or nearest */
} tl_upsample_shape;

typedef struct tl_upsample_kernels {
    /* nearest: y[i, j] = x[i / scale, j / scale]. Bilinear, along each dimension: with
     * u = max((t + 1/2) / scale - 1/2, 0), l = floor(u), f = u - l,
     * y[t] = (1 - f) x[l] + f x[min(l + 1, in - 1)]. */
    void (*forward)(const tl_upsample_shape *shape, const tl_real *x, tl_real *y, int threads);
    /* dx gathers from all outputs that read it; added to what is there if `accumulate`. */
    void (*backward)(const tl_upsample_shape *shape, const tl_real *dy, tl_real *dx,
                     bool accumulate, int threads);
} tl_upsample_kernels;

TL_DECLARE_KERNELS(tl_upsample_kernels);

#endif
