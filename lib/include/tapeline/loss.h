/* loss.h - losses, each the mean over its terms: a scalar (rank 0) in nats or squared units.
 *
 * Sums run in double. Results belong to the tape.
 */
#ifndef TL_LOSS_H
#define TL_LOSS_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_cross_entropy_config {
    double label_smoothing; /* in [0, 1): this much of the target goes to all classes alike */
    bool ignore_negative;   /* rows whose label is negative do not count */
} tl_cross_entropy_config;

/* Softmax cross-entropy (Szegedy et al. 2016, arXiv 1512.00567, section 7 for the smoothing e).
 * logits [N, C] or [N, spatial..., C]; labels: one int32 in 0 ... C-1 for each of the rows, copied.
 * With p = log_softmax(logits) over C:
 *     loss = mean over rows of  -(1 - e) p[label] - e/C sum over c of p[c]
 * `config` NULL: no smoothing. Keeps the logits and two values a row. TL_ERROR_INVALID_ARGUMENT on
 * a label out of range, or if no row counts. */
TL_API tl_tensor *tl_cross_entropy(tl_tape *tape, tl_tensor *logits, const int32_t *labels,
                                   const tl_cross_entropy_config *config);

/* How many rows of logits [..., C] have their largest value (the first of equals) at their label;
 * 0 if logits is NULL or was released. */
TL_API int64_t tl_count_correct(const tl_tensor *logits, const int32_t *labels);

/* The target has x's shape; no gradient flows to it. With d = x - target: */

/* mean of d^2 */
TL_API tl_tensor *tl_mse_loss(tl_tape *tape, tl_tensor *x, tl_tensor *target);
/* mean of d^2 / (2 beta) if |d| < beta, else |d| - beta / 2; beta > 0 (Girshick 2015, arXiv
 * 1504.08083). */
TL_API tl_tensor *tl_smooth_l1_loss(tl_tape *tape, tl_tensor *x, tl_tensor *target, double beta);
/* mean of max(x, 0) - x target + log(1 + exp(-|x|)): binary cross-entropy on logits, targets in
 * [0, 1]. */
TL_API tl_tensor *tl_bce_with_logits(tl_tape *tape, tl_tensor *x, tl_tensor *target);

#ifdef __cplusplus
}
#endif

#endif
