/* arithmetic.h - elementwise arithmetic with broadcasting.
 *
 * Shapes broadcast as in NumPy: they are aligned at the last dimension, missing leading dimensions
 * count as 1, and an extent of 1 is repeated. Either operand, or both, may be repeated; the
 * gradient of a repeated operand is the sum over its repetitions. Shapes that do not fit are
 * TL_ERROR_SHAPE.
 */
#ifndef TL_ARITHMETIC_H
#define TL_ARITHMETIC_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y = a + b. Keeps nothing for backward. */
TL_API tl_tensor *tl_add(tl_tape *tape, tl_tensor *a, tl_tensor *b);
/* y = a - b. Keeps nothing for backward. */
TL_API tl_tensor *tl_sub(tl_tape *tape, tl_tensor *a, tl_tensor *b);
/* y = a b. Keeps each operand whose partner wants a gradient. */
TL_API tl_tensor *tl_mul(tl_tape *tape, tl_tensor *a, tl_tensor *b);
/* y = a / b. Keeps b, and y if b wants a gradient. */
TL_API tl_tensor *tl_div(tl_tape *tape, tl_tensor *a, tl_tensor *b);

/* y = factor x. Keeps nothing for backward. */
TL_API tl_tensor *tl_scale(tl_tape *tape, tl_tensor *x, double factor);

#ifdef __cplusplus
}
#endif

#endif
