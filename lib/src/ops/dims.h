/* dims.h - shapes as kernels want them: broadcast and reduced dimensions, merged. */
#ifndef TL_DIMS_H
#define TL_DIMS_H

#include "core/op.h"

/* The shape of a op b by NumPy's rules; false if they do not fit. */
bool tl_broadcast_shape(const tl_tensor *a, const tl_tensor *b, int *rank,
                        int64_t shape[TL_MAX_RANK]);

/* How operands of rank and shape a and b walk while a dense result of `shape` is filled. */
tl_broadcast tl_broadcast_plan(int rank, const int64_t *shape, int a_rank, const int64_t *a_shape,
                               int b_rank, const int64_t *b_shape);

/* A sum over the dimensions marked in `is_reduced`. */
tl_reduction tl_reduction_plan(int rank, const int64_t *shape, const bool *is_reduced);

/* The sum that takes `shape` back to what was repeated to it. */
tl_reduction tl_unbroadcast_plan(int rank, const int64_t *shape, int from_rank,
                                 const int64_t *from_shape);

/* Strides of a dense array. */
void tl_dense_strides(int rank, const int64_t *shape, int64_t strides[TL_MAX_RANK]);

/* A copy between two arrays that are seen through strides. */
tl_copy tl_copy_plan(int rank, const int64_t *extents, const int64_t *x_strides,
                     const int64_t *y_strides);

/* The gradient of inputs[index], which was repeated to the result's shape (or not): scale times
 * `term`, of the result's shape, summed over the repetitions. */
void tl_node_add_term(tl_node *node, int index, const tl_real *term, double scale);

#endif
