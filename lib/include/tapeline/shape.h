/* shape.h - operations that move values and compute nothing. None keeps values for backward. */
#ifndef TL_SHAPE_H
#define TL_SHAPE_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The same values in row-major order under another shape of the same size; one extent may be -1
 * and follows from the others. The result shares the memory of x. Another size is
 * TL_ERROR_SHAPE. */
TL_API tl_tensor *tl_reshape(tl_tape *tape, tl_tensor *x, int rank, const int64_t *shape);

/* Dimension i of the result is dimension dims[i] of x; `dims` is a permutation of 0 ... rank-1. */
TL_API tl_tensor *tl_permute(tl_tape *tape, tl_tensor *x, const int *dims);

/* Joins `count` >= 1 tensors along dimension `dim`, in their order; their other extents are equal
 * (else TL_ERROR_SHAPE). */
TL_API tl_tensor *tl_concat(tl_tape *tape, int count, tl_tensor *const *inputs, int dim);

/* Along every dimension i the elements starts[i], starts[i] + steps[i], ... below stops[i];
 * 0 <= start < stop <= extent, step >= 1. `steps` NULL: all 1. The rank is unchanged. */
TL_API tl_tensor *tl_slice(tl_tape *tape, tl_tensor *x, const int64_t *starts, const int64_t *stops,
                           const int64_t *steps);

#ifdef __cplusplus
}
#endif

#endif
