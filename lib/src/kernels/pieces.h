/* pieces.h - cutting a range of n values into pieces by its size, never by the threads. */
#ifndef TL_PIECES_H
#define TL_PIECES_H

#include <stdint.h>

static inline int64_t tl_piece_count(int64_t n, int64_t piece) {
    return (n + piece - 1) / piece;
}

/* How much of the range piece `index` holds: `piece`, or what is left for the last one. */
static inline int64_t tl_piece_size(int64_t index, int64_t n, int64_t piece) {
    const int64_t left = n - index * piece;
    return left < piece ? left : piece;
}

#endif
