/* softmax.h - softmax and its logarithm over one dimension.
 *
 * x of any rank >= 1 -> y of the same shape; `dim` counts from 0. The maximum is subtracted first,
 * so that arguments of any finite size give finite results and gradients. Keeps y. A dimension
 * that does not exist is TL_ERROR_INVALID_ARGUMENT.
 */
#ifndef TL_SOFTMAX_H
#define TL_SOFTMAX_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y = exp(x) / sum exp(x), the sum running along `dim`. */
TL_API tl_tensor *tl_softmax(tl_tape *tape, tl_tensor *x, int dim);
/* y = x - log sum exp(x). */
TL_API tl_tensor *tl_log_softmax(tl_tape *tape, tl_tensor *x, int dim);

#ifdef __cplusplus
}
#endif

#endif
