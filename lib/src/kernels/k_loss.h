/* k_loss.h - losses: sums over rows or values in double, and their gradients.
 *
 * Cross-entropy reads the logits twice forward (maximum; exponentials) and once backward; the
 * others read each operand once. Sums are cut into pieces by the shape and added in their order.
 */
#ifndef TL_K_LOSS_H
#define TL_K_LOSS_H

typedef enum tl_pointwise_loss {
    TL_LOSS_SQUARED,    /* (x - t)^2 */
    TL_LOSS_SMOOTH_L1,  /* d = x - t: d^2 / (2 beta) if |d| < beta, else |d| - beta / 2 */
    TL_LOSS_BCE_LOGITS, /* log(1 + exp(x)) - x t */
    TL_LOSS_KINDS,
} tl_pointwise_loss;

typedef struct tl_loss_kernels {
    size_t (*cross_entropy_scratch_bytes)(int64_t rows, int64_t classes);
    /* The sum over rows with label >= 0 of
     *     log sum exp(x) - (1 - smoothing) x[label] - smoothing / classes * sum x.
     * maximum[row] and inverse_sum[row] receive what turns x into probabilities. */
    double (*cross_entropy_forward)(int threads, int64_t rows, int64_t classes, const tl_real *x,
                                    const int32_t *labels, double smoothing, tl_real *maximum,
                                    tl_real *inverse_sum, void *scratch);
    /* dx (+)= scale times the gradient of that sum; zero in rows with a negative label. */
    void (*cross_entropy_backward)(int threads, int64_t rows, int64_t classes, const tl_real *x,
                                   const int32_t *labels, double smoothing, const tl_real *maximum,
                                   const tl_real *inverse_sum, double scale, bool accumulate,
                                   tl_real *dx);

    size_t (*pointwise_scratch_bytes)(int64_t n);
    /* The sum of the loss over n values. */
    double (*pointwise_forward)(int threads, tl_pointwise_loss kind, double beta, int64_t n,
                                const tl_real *x, const tl_real *t, void *scratch);
    /* dx (+)= scale times the gradient of that sum with respect to x. */
    void (*pointwise_backward)(int threads, tl_pointwise_loss kind, double beta, int64_t n,
                               const tl_real *x, const tl_real *t, double scale, bool accumulate,
                               tl_real *dx);
} tl_loss_kernels;

TL_DECLARE_KERNELS(tl_loss_kernels);

#endif
