#include "kernels/kernels.h"
#include "kernels/pieces.h"
#include "kernels/simd.h"
#include "kernels/strided_walk.h"

/* A task is a piece of one innermost row, or a group of short rows. */
enum { PIECE = 1 << 13 };

TL_INLINE tl_v combine(tl_arithmetic operation, tl_v a, tl_v b) {
    switch (operation) {
    case TL_ADD:
        return a + b;
    case TL_SUBTRACT:
        return a - b;
    case TL_MULTIPLY:
        return a * b;
    default:
        return a / b;
    }
}

/* One row of n results; a and b walk (stride 1) or stand still (stride 0). */
TL_INLINE void row(tl_arithmetic operation, bool a_walks, bool b_walks, bool accumulate, int64_t n,
                   const tl_real *a, const tl_real *b, tl_real *y) {
    const tl_v a_still = tl_v_set(a[0]);
    const tl_v b_still = tl_v_set(b[0]);
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const tl_v va = a_walks ? tl_v_load(a + i) : a_still;
        const tl_v vb = b_walks ? tl_v_load(b + i) : b_still;
        const tl_v v = combine(operation, va, vb);
        tl_v_store(y + i, accumulate ? tl_v_load(y + i) + v : v);
    }
    if (i < n) {
        const int64_t rest = n - i;
        const tl_v va = a_walks ? tl_v_load_partial(a + i, rest) : a_still;
        const tl_v vb = b_walks ? tl_v_load_partial(b + i, rest) : b_still;
        const tl_v v = combine(operation, va, vb);
        tl_v_store_partial(y + i, accumulate ? tl_v_load_partial(y + i, rest) + v : v, rest);
    }
}

TL_INLINE void row_of(tl_arithmetic operation, bool a_walks, bool b_walks, bool accumulate,
                      int64_t n, const tl_real *a, const tl_real *b, tl_real *y) {
    if (a_walks && b_walks) {
        accumulate ? row(operation, true, true, true, n, a, b, y)
                   : row(operation, true, true, false, n, a, b, y);
    } else if (a_walks) {
        row(operation, true, false, accumulate, n, a, b, y);
    } else if (b_walks) {
        row(operation, false, true, accumulate, n, a, b, y);
    } else {
        row(operation, false, false, accumulate, n, a, b, y);
    }
}

static void any_row(tl_arithmetic operation, bool a_walks, bool b_walks, bool accumulate, int64_t n,
                    const tl_real *a, const tl_real *b, tl_real *y) {
    switch (operation) {
    case TL_ADD:
        row_of(TL_ADD, a_walks, b_walks, accumulate, n, a, b, y);
        break;
    case TL_SUBTRACT:
        row_of(TL_SUBTRACT, a_walks, b_walks, accumulate, n, a, b, y);
        break;
    case TL_MULTIPLY:
        row_of(TL_MULTIPLY, a_walks, b_walks, accumulate, n, a, b, y);
        break;
    default:
        row_of(TL_DIVIDE, a_walks, b_walks, accumulate, n, a, b, y);
        break;
    }
}

typedef struct job {
    tl_arithmetic operation;
    const tl_broadcast *shape;
    const tl_real *a;
    const tl_real *b;
    bool accumulate;
    tl_real *y;
} job;

/* The rows first ... last-1, columns start ... start+n-1 of each. */
static void run_rows(const job *j, int64_t first, int64_t last, int64_t start, int64_t n) {
    const tl_broadcast *s = j->shape;
    const int inner = s->rank - 1;
    const int64_t a_step = s->a_strides[inner];
    const int64_t b_step = s->b_strides[inner];
    tl_walk at = tl_walk_start(inner, s->extents, s->a_strides, s->b_strides, first);
    for (int64_t r = first; r < last; r++) {
        any_row(j->operation, a_step != 0, b_step != 0, j->accumulate, n,
                j->a + at.a + start * a_step, j->b + at.b + start * b_step,
                j->y + r * s->extents[inner] + start);
        tl_walk_next(&at);
    }
}

static void apply(int threads, tl_arithmetic operation, const tl_broadcast *shape, const tl_real *a,
                  const tl_real *b, bool accumulate, tl_real *y) {
    const job j = {operation, shape, a, b, accumulate, y};
    const int64_t length = shape->extents[shape->rank - 1];
    int64_t rows = 1;
    for (int d = 0; d < shape->rank - 1; d++) {
        rows *= shape->extents[d];
    }
    const int64_t row_pieces = tl_piece_count(length, PIECE);
    const int64_t group = length >= PIECE ? 1 : PIECE / length;
    const int64_t groups = tl_piece_count(rows, group);
#pragma omp parallel for num_threads(threads) schedule(static)                                     \
    collapse(2) if (rows * length > TL_PARALLEL_MINIMUM)
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t piece = 0; piece < row_pieces; piece++) {
            const int64_t first = g * group;
            run_rows(&j, first, first + tl_piece_size(g, rows, group), piece * PIECE,
                     tl_piece_size(piece, length, PIECE));
        }
    }
}

const tl_broadcast_kernels TL_PER_ISA(tl_broadcast_kernels) = {
    .apply = apply,
};
