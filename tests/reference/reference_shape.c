#include "reference/reference_shape.h"

#include <string.h>

int64_t reference_size(int rank, const int64_t *shape) {
    int64_t size = 1;
    for (int d = 0; d < rank; d++) {
        size *= shape[d];
    }
    return size;
}

void reference_position(int rank, const int64_t *shape, int64_t flat, int64_t *position) {
    for (int d = rank - 1; d >= 0; d--) {
        position[d] = flat % shape[d];
        flat /= shape[d];
    }
}

int64_t reference_broadcast_index(int rank, const int64_t *position, int operand_rank,
                                  const int64_t *operand_shape) {
    int64_t index = 0;
    for (int d = 0; d < operand_rank; d++) {
        const int64_t at = position[d + rank - operand_rank];
        index = index * operand_shape[d] + (operand_shape[d] == 1 ? 0 : at);
    }
    return index;
}

void reference_sum(int rank, const int64_t *shape, const bool *is_summed, const double *x,
                   double *y) {
    int64_t kept[TL_MAX_RANK];
    for (int d = 0; d < rank; d++) {
        kept[d] = is_summed[d] ? 1 : shape[d];
    }
    memset(y, 0, (size_t)reference_size(rank, kept) * sizeof *y);
    for (int64_t i = 0; i < reference_size(rank, shape); i++) {
        int64_t position[TL_MAX_RANK];
        reference_position(rank, shape, i, position);
        y[reference_broadcast_index(rank, position, rank, kept)] += x[i];
    }
}
