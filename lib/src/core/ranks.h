/* ranks.h - what operations see of a training run on several processes (parallel.h): each process,
 * a rank, works on an equal part of every batch, in the order of the ranks.
 */
#ifndef TL_RANKS_H
#define TL_RANKS_H

#include <stdint.h>

#include <tapeline/error.h>

typedef struct tl_ranks {
    int rank;
    int count;
    /* Replaces values[0 ... length-1] by their sums over all ranks, which are the same bits on
     * each. All ranks must call it, in the same order and with the same length. */
    tl_status (*sum)(void *user, double *values, int64_t length, tl_error *error);
    void *user;
} tl_ranks;

#endif
