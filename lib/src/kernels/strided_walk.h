/* strided_walk.h - the outer dimensions of two strided operands, walked in row-major order. */
#ifndef TL_STRIDED_WALK_H
#define TL_STRIDED_WALK_H

#include <stdint.h>

enum { TL_WALK_RANK = 8 };

typedef struct tl_walk {
    int rank;
    const int64_t *extents;
    const int64_t *a_strides;
    const int64_t *b_strides;
    int64_t index[TL_WALK_RANK];
    int64_t a; /* offsets of the current position */
    int64_t b;
} tl_walk;

/* At position number `position` of the first `rank` dimensions. */
static inline tl_walk tl_walk_start(int rank, const int64_t *extents, const int64_t *a_strides,
                                    const int64_t *b_strides, int64_t position) {
    tl_walk w = {rank, extents, a_strides, b_strides, {0}, 0, 0};
    for (int d = rank - 1; d >= 0; d--) {
        w.index[d] = position % extents[d];
        position /= extents[d];
        w.a += w.index[d] * a_strides[d];
        w.b += w.index[d] * b_strides[d];
    }
    return w;
}

static inline void tl_walk_next(tl_walk *w) {
    for (int d = w->rank - 1; d >= 0; d--) {
        w->a += w->a_strides[d];
        w->b += w->b_strides[d];
        if (++w->index[d] < w->extents[d]) {
            return;
        }
        w->a -= w->index[d] * w->a_strides[d];
        w->b -= w->index[d] * w->b_strides[d];
        w->index[d] = 0;
    }
}

#endif
