/* dropout.h - dropping values at random in training. Results belong to the tape. */
#ifndef TL_DROPOUT_H
#define TL_DROPOUT_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Srivastava et al. 2014. In training mode y = x / (1 - probability) where the value is kept, 0
 * where it is dropped, which happens with the given probability in [0, 1); the expectation of y is
 * x. In evaluation mode, and with probability 0, y = x without a copy.
 * The mask is a function of the tape's random seed, its position (which counts the dropouts) and
 * the place in x: the same at any number of threads, and computed again for backward instead of
 * kept. */
TL_API tl_tensor *tl_dropout(tl_tape *tape, tl_tensor *x, double probability);

#ifdef __cplusplus
}
#endif

#endif
