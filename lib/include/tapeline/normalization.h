/* normalization.h - batch, layer and group normalisation.
 *
 * All compute y = (x - mean) / sqrt(variance + epsilon) * weight + bias; they differ in what mean
 * and variance (divided by the number of values) run over. Statistics are summed in double and
 * inputs are centred before they are scaled: a common offset of 10,000 costs no accuracy.
 * weight and bias [C] may both be NULL: 1 and 0. Results belong to the tape.
 */
#ifndef TL_NORMALIZATION_H
#define TL_NORMALIZATION_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_batch_norm_config {
    double momentum; /* in [0, 1]: how far a training step moves the running statistics */
    double epsilon;  /* positive */
} tl_batch_norm_config;

/* momentum 0.1, epsilon 1e-5. */
TL_API tl_batch_norm_config tl_batch_norm_config_default(void);

/* Ioffe and Szegedy 2015, arXiv 1502.03167. x [N, spatial..., C] of rank 2 to 8 -> y of the same
 * shape; statistics per channel over the m = N spatial... values.
 * In training mode they are the batch's, gradients flow through them, m must be at least 2, and
 *     running_mean = (1 - momentum) running_mean + momentum mean
 *     running_var  = (1 - momentum) running_var  + momentum variance m / (m - 1).
 * In evaluation mode the running statistics take their place as constants.
 * running_mean and running_var [C] are persistent tensors that want no gradient; both may be NULL
 * in training mode. `config` NULL: the defaults. Kept for backward: x and 16 C bytes. */
TL_API tl_tensor *tl_batch_norm(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias,
                                tl_tensor *running_mean, tl_tensor *running_var,
                                const tl_batch_norm_config *config);

/* y = relu(batch_norm(x) + residual) in one pass; residual (of x's shape) may be NULL. Backward
 * needs no copy of the normalised values: without a residual the ReLU's mask is computed again from
 * x; with one it is the sign of y, which the next layer keeps anyway. Once y is released it is not
 * kept but made again, without a residual or with one that is kept anyway. */
TL_API tl_tensor *tl_batch_norm_relu(tl_tape *tape, tl_tensor *x, tl_tensor *residual,
                                     tl_tensor *weight, tl_tensor *bias, tl_tensor *running_mean,
                                     tl_tensor *running_var, const tl_batch_norm_config *config);

/* Ba et al. 2016, arXiv 1607.06450. Statistics over the last `dimensions` dimensions of x (1: the
 * channels of each position); weight and bias have the shape of these dimensions, or are both NULL.
 * Kept for backward: x. */
TL_API tl_tensor *tl_layer_norm(tl_tape *tape, tl_tensor *x, int dimensions, tl_tensor *weight,
                                tl_tensor *bias, double epsilon);

/* Wu and He 2018, arXiv 1803.08494. x [N, spatial..., C]: statistics per sample and group over its
 * positions and the group's C / groups consecutive channels; weight and bias [C] act per channel.
 * groups = C is instance normalisation. Kept for backward: x and 16 N groups bytes. */
TL_API tl_tensor *tl_group_norm(tl_tape *tape, tl_tensor *x, int64_t groups, tl_tensor *weight,
                                tl_tensor *bias, double epsilon);

#ifdef __cplusplus
}
#endif

#endif
