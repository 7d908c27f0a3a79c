/* tensor.h - dense arrays of tl_real, row-major and contiguous.
 *
 * Activations are channels-last: [N, C], sequences [N, L, C], images [N, H, W, C], video
 * [N, T, H, W, C]. A tensor is either *persistent* (parameters and buffers, owned by whoever
 * created it) or a *tape tensor* (inputs and results of operations, owned by the tape until
 * tl_tape_reset; see tape.h).
 */
#ifndef TL_TENSOR_H
#define TL_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include <tapeline/context.h>
#include <tapeline/error.h>
#include <tapeline/real.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TL_MAX_RANK = 8 };

typedef struct tl_tensor tl_tensor;

/* A view of memory that somebody else owns, e.g. a batch of images from a loader. */
typedef struct tl_array {
    int rank; /* 0: a scalar */
    int64_t shape[TL_MAX_RANK];
    tl_real *data;
} tl_array;

/* A persistent tensor, filled with zeros; the caller frees it. Extents are at least 1. With
 * `requires_grad`, tl_backward accumulates into its gradient. */
TL_API tl_tensor *tl_tensor_create(tl_context *context, int rank, const int64_t *shape,
                                   bool requires_grad, tl_error *error);

/* Frees a persistent tensor (never one that belongs to a tape). NULL is fine. */
TL_API void tl_tensor_free(tl_tensor *tensor);

/* Number of dimensions, and their extents; these belong to the tensor. */
TL_API int tl_tensor_rank(const tl_tensor *tensor);
TL_API const int64_t *tl_tensor_shape(const tl_tensor *tensor);
/* The number of elements. */
TL_API int64_t tl_tensor_size(const tl_tensor *tensor);

/* The values. NULL once they were released (tl_release). A result that no operation needed as a
 * whole so far (batch norm's) is computed here; NULL, with the error on the tape, if that fails. */
TL_API tl_real *tl_tensor_data(tl_tensor *tensor);

/* The value of a tensor with one element; NaN if the tensor is NULL, was released or has more. */
TL_API tl_real tl_tensor_item(tl_tensor *tensor);

/* The accumulated gradient, of the tensor's shape, or NULL if there is none (yet). Of tape tensors
 * only inputs created with tl_input_with_grad and tensors marked by tl_retain_grad keep theirs. */
TL_API const tl_real *tl_tensor_grad(const tl_tensor *tensor);

/* Whether tl_backward computes a gradient for it. */
TL_API bool tl_tensor_requires_grad(const tl_tensor *tensor);
/* For persistent tensors, between steps: freezes or thaws a parameter. */
TL_API void tl_tensor_set_requires_grad(tl_tensor *tensor, bool requires_grad);

/* Sets the gradient to zero (without touching memory: the next contribution overwrites it). */
TL_API void tl_tensor_clear_grad(tl_tensor *tensor);

#ifdef __cplusplus
}
#endif

#endif
