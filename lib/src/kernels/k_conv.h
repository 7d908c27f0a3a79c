/* k_conv.h - convolution over one to three spatial dimensions, channels-last.
 *
 * x [N, D, H, W, C], weight [O, KD, KH, KW, C/groups], y [N, D', H', W', O]; fewer dimensions are
 * the same with extents of 1 in front. Cross-correlation with zeros outside:
 *
 *   y[n, t, o] = bias[o] + sum over k, c of weight[o, k, c] x[n, t stride + k dilation - padding,
 * c]
 *
 * A transposed convolution is the same three functions with forward and backward_input exchanged.
 * No im2col buffer is ever written. Which kernel a shape takes is told by `path`:
 *
 *   winograd   3x3, stride 1 or 2, dilation 1, one group, channels multiples of the vector
 *              (k_conv_winograd_choice.h; k_conv_winograd.c with _map.h and _sum.h)
 *   depthwise  one channel a group, vectorised over the channels (k_conv_depthwise.c)
 *   rows       1x1 with stride 1: a plain matrix product on the rows of x, nothing is copied
 *   direct     everything else: products of zero-padded tiles; backward_input with a stride runs
 *              one such correlation per phase of the stride
 *              (k_conv_direct.c, k_conv_direct_weight.c; they carry out `rows` as well)
 */
#ifndef TL_K_CONV_H
#define TL_K_CONV_H

/* Extents are in the order depth, height, width; groups divides both channel counts; out follows
 * from the rest. All are at least 1 (padding: at least 0). */
typedef struct tl_conv_shape {
    int64_t batch;
    int64_t in[3];
    int64_t out[3];
    int64_t kernel[3];
    int64_t stride[3];
    int64_t padding[3];
    int64_t dilation[3];
    int64_t in_channels;
    int64_t out_channels;
    int64_t groups;
} tl_conv_shape;

typedef enum tl_conv_direction {
    TL_CONV_FORWARD,
    TL_CONV_BACKWARD_INPUT,
    TL_CONV_BACKWARD_WEIGHT,
} tl_conv_direction;

typedef enum tl_conv_path {
    TL_CONV_PATH_WINOGRAD,
    TL_CONV_PATH_DEPTHWISE,
    TL_CONV_PATH_ROWS,
    TL_CONV_PATH_DIRECT,
} tl_conv_path;

/* Kernels that read tensors in parts, and take samples through the cache. */
typedef struct tl_conv_parts_kernels {
    /* Whether the shape has a kernel for forward from parts: the same bits as from a whole x. */
    bool (*takes_parts)(const tl_conv_shape *shape);
    size_t (*forward_scratch_bytes)(const tl_conv_shape *shape, int threads);
    void (*forward)(const tl_conv_shape *shape, const tl_parts *x, const tl_real *weight,
                    const tl_real *bias, tl_real *y, void *scratch, int threads);

    /* Whether the shape has a kernel for both gradients at once. It may round dweight otherwise
     * than backward_weight. */
    bool (*fuses_backward)(const tl_conv_shape *shape);
    size_t (*backward_scratch_bytes)(const tl_conv_shape *shape, int threads);
    /* dx and dweight as below; `watch` (NULL: nobody) sees dx. `dy->make` may read what dx points
     * to, sample by sample: samples are made before they are written. */
    void (*backward)(const tl_conv_shape *shape, const tl_parts *x, const tl_parts *dy,
                     const tl_real *weight, tl_real *dx, bool accumulate_dx, tl_real *dweight,
                     bool accumulate_dweight, const tl_watch *watch, void *scratch, int threads);
} tl_conv_parts_kernels;

typedef struct tl_conv_kernels {
    tl_conv_path (*path)(const tl_conv_shape *shape, tl_conv_direction direction);

    /* Bytes of scratch that the direction's function needs with that many threads. */
    size_t (*scratch_bytes)(const tl_conv_shape *shape, tl_conv_direction direction, int threads);

    /* FLOPs that the direction's function executes; the algorithm's count is
     * 2 N D' H' W' O KD KH KW C/groups. */
    double (*flops)(const tl_conv_shape *shape, tl_conv_direction direction);

    /* y = conv(x, weight) + bias (NULL: none), added to y's content with `accumulate`. */
    void (*forward)(const tl_conv_shape *shape, const tl_real *x, const tl_real *weight,
                    const tl_real *bias, tl_real *y, bool accumulate, void *scratch, int threads);

    /* dx = the adjoint of forward with respect to x, applied to dy, + bias (of in_channels values,
     * for transposed convolutions; NULL: none), added to dx's content with `accumulate`. */
    void (*backward_input)(const tl_conv_shape *shape, const tl_real *dy, const tl_real *weight,
                           const tl_real *bias, tl_real *dx, bool accumulate, void *scratch,
                           int threads);

    /* dweight = the adjoint with respect to the weight, added to its content with `accumulate`. */
    void (*backward_weight)(const tl_conv_shape *shape, const tl_real *x, const tl_real *dy,
                            tl_real *dweight, bool accumulate, void *scratch, int threads);

    const tl_conv_parts_kernels *parts;

    /* dbias[c] = the sum of dy [rows, channels] over the rows, in double across blocks of rows.
     * Scratch: bias_scratch_bytes(rows, channels). */
    size_t (*bias_scratch_bytes)(int64_t rows, int64_t channels);
    void (*backward_bias)(int64_t rows, int64_t channels, const tl_real *dy, tl_real *dbias,
                          bool accumulate, void *scratch, int threads);
} tl_conv_kernels;

TL_DECLARE_KERNELS(tl_conv_kernels);

/* The parts that `path` chooses from: kernels that map one tensor to another (both directions), and
 * kernels for the gradient of the weight. Arguments as above. */
typedef struct tl_conv_map_kernels {
    size_t (*scratch_bytes)(const tl_conv_shape *shape, tl_conv_direction direction, int threads);
    void (*forward)(const tl_conv_shape *shape, const tl_real *x, const tl_real *weight,
                    const tl_real *bias, tl_real *y, bool accumulate, void *scratch, int threads);
    void (*backward_input)(const tl_conv_shape *shape, const tl_real *dy, const tl_real *weight,
                           const tl_real *bias, tl_real *dx, bool accumulate, void *scratch,
                           int threads);
} tl_conv_map_kernels;

typedef struct tl_conv_weight_kernels {
    size_t (*scratch_bytes)(const tl_conv_shape *shape, int threads);
    void (*backward_weight)(const tl_conv_shape *shape, const tl_real *x, const tl_real *dy,
                            tl_real *dweight, bool accumulate, void *scratch, int threads);
} tl_conv_weight_kernels;

#define TL_CONV_DECLARE_PART(type, name)                                                           \
    extern const type name##_baseline, name##_avx2, name##_avx512
TL_CONV_DECLARE_PART(tl_conv_map_kernels, tl_conv_direct);
TL_CONV_DECLARE_PART(tl_conv_map_kernels, tl_conv_depthwise);
TL_CONV_DECLARE_PART(tl_conv_map_kernels, tl_conv_winograd);
TL_CONV_DECLARE_PART(tl_conv_weight_kernels, tl_conv_direct_weight);
TL_CONV_DECLARE_PART(tl_conv_weight_kernels, tl_conv_depthwise_weight);
TL_CONV_DECLARE_PART(tl_conv_weight_kernels, tl_conv_winograd_weight);
TL_CONV_DECLARE_PART(tl_conv_parts_kernels, tl_conv_winograd_parts);

#endif
