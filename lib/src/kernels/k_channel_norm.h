/* k_channel_norm.h - normalisation with statistics per channel: batch norm and group norm.
 *
 * x is [sets, rows, channels], channels contiguous. Each set has its own statistics: batch norm is
 * one set of all rows, group norm one set a sample (whose channels are then merged into groups by
 * the caller). All passes are memory bound; they are
 *   moments          reads x                        -> mean and variance per set and channel
 *   apply            reads x (and residual)         -> y
 *   gradient_sums    reads dy, x (or dy, x, y)      -> two sums per set and channel
 *   gradient_apply   reads dy, x (or dy, x, y)      -> dx, gradient of the residual
 */
#ifndef TL_K_CHANNEL_NORM_H
#define TL_K_CHANNEL_NORM_H

typedef struct tl_channel_norm_shape {
    int64_t sets;
    int64_t rows;
    int64_t channels;
} tl_channel_norm_shape;

/* z = (x - center) * scale + offset, arrays [sets, channels]. Centering first keeps inputs with a
 * large common offset exact. */
typedef struct tl_channel_affine {
    const tl_real *center;
    const tl_real *scale;
    const tl_real *offset;
} tl_channel_affine;

/* Where backward learns which outputs a ReLU let through. */
typedef enum tl_channel_norm_mask {
    TL_CHANNEL_NORM_NO_MASK = 0,    /* no ReLU */
    TL_CHANNEL_NORM_RECOMPUTE = 1,  /* z > 0, z recomputed from x (no residual) */
    TL_CHANNEL_NORM_FROM_OUTPUT = 2 /* y > 0 */
} tl_channel_norm_mask;

/* What both backward passes read. g = dy, or 0 where the mask says so. */
typedef struct tl_channel_norm_gradient {
    const tl_real *dy;
    const tl_real *x;
    const tl_real *y; /* only with TL_CHANNEL_NORM_FROM_OUTPUT, otherwise NULL */
    tl_channel_norm_mask mask;
    tl_channel_affine affine;
} tl_channel_norm_gradient;

/* dx = scale * g + slope * (x - center) + constant, dresidual = g; added to what is there if
 * `accumulate`. An output may be NULL (not wanted) or the very array dy; slope and constant [sets,
 * channels] are both NULL where the statistics are constants. */
typedef struct tl_channel_norm_gradient_out {
    const tl_real *slope;
    const tl_real *constant;
    tl_real *dx;
    tl_real *dresidual;
    bool accumulate_dx;
    bool accumulate_dresidual;
} tl_channel_norm_gradient_out;

typedef struct tl_channel_norm_kernels {
    /* What each of the functions below needs. */
    size_t (*scratch_bytes)(tl_channel_norm_shape shape);

    /* mean and variance (divided by rows) per set and channel, in double: sums of up to 128 rows
     * in tl_real about the mean of the rows before, merged in double (Chan, Golub, LeVeque 1983),
     * so that a large common offset or a small variance loses nothing. 3 FLOPs a value. */
    void (*moments)(tl_channel_norm_shape shape, const tl_real *x, double *mean, double *variance,
                    void *scratch, int threads);

    /* y = activation(z + residual), activation = ReLU or identity; residual may be NULL, y may be
     * x or residual. */
    void (*apply)(tl_channel_norm_shape shape, const tl_real *x, const tl_real *residual,
                  tl_channel_affine affine, bool relu, tl_real *y, void *scratch, int threads);

    /* sum of g and of g * (x - center) over the rows, per set and channel. With the mask
     * TL_CHANNEL_NORM_FROM_OUTPUT g is written to `masked` (NULL: not wanted; may be dy). */
    void (*gradient_sums)(tl_channel_norm_shape shape, const tl_channel_norm_gradient *gradient,
                          double *sum, double *sum_centered, tl_real *masked, void *scratch,
                          int threads);

    void (*gradient_apply)(tl_channel_norm_shape shape, const tl_channel_norm_gradient *gradient,
                           const tl_channel_norm_gradient_out *out, void *scratch, int threads);

    /* Some rows of one set at a time, by one thread; several may work on different rows. `spread`,
     * of spread_bytes, was filled in before from the same coefficients (slope and constant may be
     * NULL); x, residual and the gradient's arrays are whole, y and dx hold the rows alone. */
    size_t (*spread_bytes)(tl_channel_norm_shape shape);
    void (*spread)(tl_channel_norm_shape shape, tl_channel_affine affine, const tl_real *slope,
                   const tl_real *constant, void *spread);
    void (*apply_rows)(tl_channel_norm_shape shape, const tl_real *x, const tl_real *residual,
                       tl_channel_affine affine, bool relu, const void *spread, int64_t first,
                       int64_t count, tl_real *y);
    /* gradient_sums of the rows: sums [2][channels], of g and of g * (x - center). `room`, of
     * row_sums_bytes, belongs to the call alone. */
    size_t (*row_sums_bytes)(tl_channel_norm_shape shape);
    void (*gradient_row_sums)(tl_channel_norm_shape shape, const tl_channel_norm_gradient *gradient,
                              const void *spread, int64_t first, int64_t count, tl_real *masked,
                              double *sums, void *room);
    void (*gradient_rows)(tl_channel_norm_shape shape, const tl_channel_norm_gradient *gradient,
                          const tl_real *slope, const tl_real *constant, const void *spread,
                          int64_t first, int64_t count, tl_real *dx);
} tl_channel_norm_kernels;

TL_DECLARE_KERNELS(tl_channel_norm_kernels);

#endif
