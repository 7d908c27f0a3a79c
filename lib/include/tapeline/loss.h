/* loss.h - losses: a mean over all values or rows, as a tensor of rank 0.
 *
 * The sum behind the mean is formed in double. Operands of unequal shape are TL_ERROR_SHAPE.
 */
#ifndef TL_LOSS_H
#define TL_LOSS_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All zero: the defaults. */
typedef struct tl_cross_entropy_config {
    double label_smoothing; /* e, 0 <= e <= 1 (Szegedy et al. 2016, arXiv 1512.00567) */
    bool ignores_label;     /* rows with `ignored_label` do not count, for dense tasks */
    int32_t ignored_label;
} tl_cross_entropy_config;

/* Softmax cross-entropy, in nats. logits [N, C] or [N, spatial..., C]: each row of C is one
 * classification; `labels` holds one label a row, 0 ... C-1, and is copied. With
 * p = log softmax(logits), over the M rows that count:
 *     loss = 1/M sum_rows [ -(1 - e) p[label] - e/C sum_c p[c] ]
 * and 0 if no row counts. Errors: TL_ERROR_INVALID_ARGUMENT on a label out of range or a smoothing
 * outside [0, 1], TL_ERROR_SHAPE on logits of rank 0. Keeps the logits and two values and a label a
 * row. `config` may be NULL. */
TL_API tl_tensor *tl_cross_entropy(tl_tape *tape, tl_tensor *logits, const int32_t *labels,
                                   const tl_cross_entropy_config *config);

/* How many rows of logits [..., C] are greatest at their label (of equal ones the first counts).
 * Labels outside 0 ... C-1 never match. -1 if logits is NULL, released or of rank 0. */
TL_API int64_t tl_count_correct(tl_tensor *logits, const int32_t *labels);

/* The mean of (x - target)^2. Both may want gradients; keeps both. */
TL_API tl_tensor *tl_mse_loss(tl_tape *tape, tl_tensor *x, tl_tensor *target);

/* With d = x - target the mean of d^2 / (2 beta) if |d| < beta, else |d| - beta/2; beta > 0
 * (Girshick 2015, arXiv 1504.08083). Both may want gradients; keeps both. */
TL_API tl_tensor *tl_smooth_l1_loss(tl_tape *tape, tl_tensor *x, tl_tensor *target, double beta);

/* Binary cross-entropy of probabilities sigmoid(x): the mean of
 * max(x, 0) - x target + log(1 + exp(-|x|)), in nats; targets lie in [0, 1] (not checked). Both
 * may want gradients; keeps both. */
TL_API tl_tensor *tl_bce_with_logits(tl_tape *tape, tl_tensor *x, tl_tensor *target);

#ifdef __cplusplus
}
#endif

#endif
