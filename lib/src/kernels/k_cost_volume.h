/* k_cost_volume.h - group-wise correlation of left and right [images, height, width, channels] over
 * horizontal shifts -> y [images, height, width, disparities, groups]. */
#ifndef TL_K_COST_VOLUME_H
#define TL_K_COST_VOLUME_H

typedef struct tl_cost_volume_shape {
    int64_t images;
    int64_t height;
    int64_t width;
    int64_t channels;
    int64_t disparities;
    int64_t groups; /* divides channels */
} tl_cost_volume_shape;

typedef struct tl_cost_volume_kernels {
    /* y[n, i, j, d, g] = groups / channels sum over c in group g of left[n, i, j, c]
     * right[n, i, j - d, c]; 0 where j < d. */
    void (*forward)(const tl_cost_volume_shape *shape, const tl_real *left, const tl_real *right,
                    tl_real *y, int threads);
    /* dleft[n, i, j, c] = groups / channels sum over d <= j of dy[n, i, j, d, g] right[.., j - d,
     * c] dright[n, i, j, c] = groups / channels sum over d < width - j of dy[n, i, j + d, d, g]
     * left[.., j + d, c]; each written, or added to if its flag says so; NULL: not wanted. */
    void (*backward)(const tl_cost_volume_shape *shape, const tl_real *left, const tl_real *right,
                     const tl_real *dy, tl_real *dleft, bool add_left, tl_real *dright,
                     bool add_right, int threads);
} tl_cost_volume_kernels;

TL_DECLARE_KERNELS(tl_cost_volume_kernels);

#endif
