/* embedding.h - rows of a table by index. */
#ifndef TL_EMBEDDING_H
#define TL_EMBEDDING_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y = weight[indices]: weight [V, D], `indices` of `rank` and `shape` (copied; each 0 ... V-1)
 * -> y [shape..., D]. The gradient of a row that is used several times is the sum, added in the
 * order of the indices. Keeps the indices. An index out of range is TL_ERROR_INVALID_ARGUMENT. */
TL_API tl_tensor *tl_embedding(tl_tape *tape, tl_tensor *weight, int rank, const int64_t *shape,
                               const int32_t *indices);

#ifdef __cplusplus
}
#endif

#endif
