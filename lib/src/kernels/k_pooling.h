/* k_pooling.h - maximum and average over windows, channels-last: x [images, in..., channels] ->
 * y [images, out..., channels] with three spatial dimensions; those a layer lacks come first, with
 * extent, kernel and stride 1 and no padding.
 *
 * Along each dimension out = (in + 2 padding - kernel) / stride + 1 and output t's window begins at
 * t stride - padding. padding < kernel, so that every window meets the input.
 */
#ifndef TL_K_POOLING_H
#define TL_K_POOLING_H

enum { TL_POOLING_MOST_WINDOW = 256 }; /* positions of a maximum's window: its offset is a byte */

typedef struct tl_pooling_shape {
    int64_t images;
    int64_t channels;
    int64_t in[3];
    int64_t out[3];
    int64_t kernel[3];
    int64_t stride[3];
    int64_t padding[3];
} tl_pooling_shape;

typedef struct tl_pooling_kernels {
    /* The window's position that held the maximum (row-major within the kernel, padding counted,
     * so the kernel has at most TL_POOLING_MOST_WINDOW positions) goes to `offsets`, of y's shape,
     * unless it is NULL. Positions outside x are ignored; a NaN in the window is its maximum, of
     * equal values the first is. */
    void (*max_forward)(const tl_pooling_shape *shape, const tl_real *x, tl_real *y,
                        uint8_t *offsets, int threads);
    /* dx gathers from every window that covers it; added to what is there if `accumulate`. */
    void (*max_backward)(const tl_pooling_shape *shape, const tl_real *dy, const uint8_t *offsets,
                         tl_real *dx, bool accumulate, int threads);

    /* The sum over the positions inside x, divided by the kernel's size if `count_padding`, else
     * by the number of positions inside. */
    void (*average_forward)(const tl_pooling_shape *shape, bool count_padding, const tl_real *x,
                            tl_real *y, int threads);
    void (*average_backward)(const tl_pooling_shape *shape, bool count_padding, const tl_real *dy,
                             tl_real *dx, bool accumulate, int threads);

    /* x [images, positions, channels] -> y [images, channels], the mean over the positions. */
    void (*global_average_forward)(int64_t images, int64_t positions, int64_t channels,
                                   const tl_real *x, tl_real *y, int threads);
    void (*global_average_backward)(int64_t images, int64_t positions, int64_t channels,
                                    const tl_real *dy, tl_real *dx, bool accumulate, int threads);
} tl_pooling_kernels;

TL_DECLARE_KERNELS(tl_pooling_kernels);

#endif
