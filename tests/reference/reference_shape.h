/* reference_shape.h - broadcasting, sums and moves by one loop over all positions, in double. */
#ifndef REFERENCE_SHAPE_H
#define REFERENCE_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include <tapeline/tensor.h>

/* A position inside a shape, to be counted through in row-major order. */
int64_t reference_size(int rank, const int64_t *shape);
void reference_position(int rank, const int64_t *shape, int64_t flat, int64_t *position);

/* The flat index of a position (of a shape of `rank`) in an operand that is aligned at the last
 * dimension and repeated where its extent is 1. */
int64_t reference_broadcast_index(int rank, const int64_t *position, int operand_rank,
                                  const int64_t *operand_shape);

/* y = sums of x over the marked dimensions, in row-major order of the others. */
void reference_sum(int rank, const int64_t *shape, const bool *is_summed, const double *x,
                   double *y);

#endif
