/* matmul.h - matrix products. */
#ifndef TL_MATMUL_H
#define TL_MATMUL_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* a [..., M, K], b [..., K, P] -> [..., M, P] = a b, for each of the leading (batch) positions.
 * Both have rank 2 or more, equal rank and equal leading extents; anything else is TL_ERROR_SHAPE.
 */
TL_API tl_tensor *tl_matmul(tl_tape *tape, tl_tensor *a, tl_tensor *b);

/* x [..., I], weight [O, I], bias [O] or NULL -> y [..., O]:
 *     y[..., o] = sum_i x[..., i] weight[o, i] + bias[o]
 * x has rank 1 or more. Also a 1x1 convolution of channels-last data. */
TL_API tl_tensor *tl_linear(tl_tape *tape, tl_tensor *x, tl_tensor *weight, tl_tensor *bias);

#ifdef __cplusplus
}
#endif

#endif
