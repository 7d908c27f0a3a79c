/* k_conv_blocks.h - the register blocks that the convolution kernels are made of.
 *
 * Two products, each on a block of accumulators that stays in registers; `positions` are output
 * pixels (direct) or tiles (Winograd), a chunk is one or two vectors of channels:
 *
 *   gather  acc[p][v] += x[position p][l] * w[l][v]     forward, backward_input: sums over inputs
 *   outer   acc[r][v] += x[position p][r] * y[position p][v]   backward_weight: sums over positions
 *
 * With one vector a block has up to TL_CONV_BLOCK_1 rows, with two up to TL_CONV_BLOCK_2. AVX2's 16
 * registers hold 6 x 2 accumulators, 2 operands and a broadcast: 12 FMAs for 8 loads. With 32
 * registers 8 x 2 are enough to cover the FMA latency twice, and 8 row pointers still fit the
 * general registers. Counts of rows are balanced: 16 rows are 6 + 5 + 5, not 6 + 6 + 4.
 */
#ifndef TL_K_CONV_BLOCKS_H
#define TL_K_CONV_BLOCKS_H

#include "kernels/k_conv_common.h"

#define TL_CONV_BLOCK_1 12
#if TL_VECTOR_REGISTERS == 32
#define TL_CONV_BLOCK_2 8
#else
#define TL_CONV_BLOCK_2 6
#endif

#ifdef __clang__
#define TL_CONV_UNROLL _Pragma("unroll")
#else
#define TL_CONV_UNROLL _Pragma("GCC unroll 16")
#endif

/* ------------------------------------------------------------------ gather */

typedef struct tl_conv_gather {
    const tl_real *x;         /* source, at the first channel of the group */
    const int64_t *x_offsets; /* per position, in values */
    const int64_t *segment_offsets;
    int64_t segments;       /* runs of contiguous inputs that a position reads */
    int64_t length;         /* inputs in a run */
    const tl_real *weights; /* [segments][length][vectors][TL_LANES] */
    const tl_real *bias;    /* [vectors][TL_LANES], or NULL */
    tl_real *y;             /* destination, at the first channel of the chunk */
    const int64_t *y_offsets;
    int64_t channels; /* of the chunk: the last vector may be partial */
    bool accumulate;  /* add to y's content */
} tl_conv_gather;

/* Positions first ... first + rows - 1. */
TL_INLINE void tl_conv_gather_block(const tl_conv_gather *g, int64_t first, const int rows,
                                    const int vectors) {
    tl_v acc[TL_CONV_BLOCK_1][2];
    TL_CONV_UNROLL
    for (int v = 0; v < vectors; v++) {
        const tl_v start = g->bias ? tl_v_load(g->bias + v * TL_LANES) : tl_v_zero();
        TL_CONV_UNROLL
        for (int p = 0; p < rows; p++) {
            acc[p][v] = start;
        }
    }
    const tl_real *w = g->weights;
    const int64_t length = g->length;
    for (int64_t s = 0; s < g->segments; s++) {
        const tl_real *x[TL_CONV_BLOCK_1];
        TL_CONV_UNROLL
        for (int p = 0; p < rows; p++) {
            x[p] = g->x + g->x_offsets[first + p] + g->segment_offsets[s];
        }
        for (int64_t l = 0; l < length; l++) {
            tl_v w0 = tl_v_load(w);
            TL_V_PIN(w0);
            tl_v w1 = w0;
            if (vectors == 2) {
                w1 = tl_v_load(w + TL_LANES);
                TL_V_PIN(w1);
            }
            TL_CONV_UNROLL
            for (int p = 0; p < rows; p++) {
                const tl_v value = tl_v_set(x[p][l]);
                acc[p][0] += value * w0;
                if (vectors == 2) {
                    acc[p][1] += value * w1;
                }
            }
            w += vectors * TL_LANES;
        }
    }
    const int64_t last = g->channels - (vectors - 1) * TL_LANES; /* values in the last vector */
    TL_CONV_UNROLL
    for (int p = 0; p < rows; p++) {
        tl_real *y = g->y + g->y_offsets[first + p];
        TL_CONV_UNROLL
        for (int v = 0; v < vectors; v++, y += TL_LANES) {
            if (v == vectors - 1 && last < TL_LANES) {
                const tl_v old = g->accumulate ? tl_v_load_partial(y, last) : tl_v_zero();
                tl_v_store_partial(y, acc[p][v] + old, last);
            } else {
                tl_v_store(y, g->accumulate ? acc[p][v] + tl_v_load(y) : acc[p][v]);
            }
        }
    }
}

/* ------------------------------------------------------------------ outer */

typedef struct tl_conv_outer {
    const tl_real *x;
    const int64_t *x_offsets;
    const tl_real *y;
    const int64_t *y_offsets;
    int64_t positions;
    tl_real *sum; /* [rows][vectors][TL_LANES]: what is added to */
} tl_conv_outer;

/* sum[r] += over the positions, x[position][r] * y[position][0 ... vectors * TL_LANES - 1] */
TL_INLINE void tl_conv_outer_block(const tl_conv_outer *o, const int rows, const int vectors) {
    tl_v acc[TL_CONV_BLOCK_1][2];
    TL_CONV_UNROLL
    for (int r = 0; r < rows; r++) {
        TL_CONV_UNROLL
        for (int v = 0; v < vectors; v++) {
            acc[r][v] = tl_v_zero();
        }
    }
    const int64_t positions = o->positions;
    const tl_real *const x_base = o->x;
    const tl_real *const y_base = o->y;
    const int64_t *const x_offsets = o->x_offsets;
    const int64_t *const y_offsets = o->y_offsets;
    for (int64_t p = 0; p < positions; p++) {
        const tl_real *x = x_base + x_offsets[p];
        const tl_real *y = y_base + y_offsets[p];
        tl_v y0 = tl_v_load(y);
        TL_V_PIN(y0);
        tl_v y1 = y0;
        if (vectors == 2) {
            y1 = tl_v_load(y + TL_LANES);
            TL_V_PIN(y1);
        }
        TL_CONV_UNROLL
        for (int r = 0; r < rows; r++) {
            const tl_v value = tl_v_set(x[r]);
            acc[r][0] += value * y0;
            if (vectors == 2) {
                acc[r][1] += value * y1;
            }
        }
    }
    TL_CONV_UNROLL
    for (int r = 0; r < rows; r++) {
        TL_CONV_UNROLL
        for (int v = 0; v < vectors; v++) {
            tl_real *sum = o->sum + (r * vectors + v) * TL_LANES;
            tl_v_store(sum, tl_v_load(sum) + acc[r][v]);
        }
    }
}

/* ------------------------------------------------------------------ every block size */

/* TL_CONV_BLOCK_CASES(F, vectors, rows, arguments before rows and vectors): calls F with `rows` as
 * a compile-time constant. */
#define TL_CONV_CASE_(rows_, vectors, F, ...)                                                      \
    case rows_:                                                                                    \
        F(__VA_ARGS__, rows_, vectors);                                                            \
        break;
#define TL_CONV_CASES_6_(vectors, F, ...)                                                          \
    TL_CONV_CASE_(1, vectors, F, __VA_ARGS__)                                                      \
    TL_CONV_CASE_(2, vectors, F, __VA_ARGS__)                                                      \
    TL_CONV_CASE_(3, vectors, F, __VA_ARGS__)                                                      \
    TL_CONV_CASE_(4, vectors, F, __VA_ARGS__)                                                      \
    TL_CONV_CASE_(5, vectors, F, __VA_ARGS__)                                                      \
    TL_CONV_CASE_(6, vectors, F, __VA_ARGS__)
#define TL_CONV_CASES_8_(vectors, F, ...)                                                          \
    TL_CONV_CASES_6_(vectors, F, __VA_ARGS__)                                                      \
    TL_CONV_CASE_(7, vectors, F, __VA_ARGS__)                                                      \
    TL_CONV_CASE_(8, vectors, F, __VA_ARGS__)
#define TL_CONV_CASES_1(F, ...)                                                                    \
    TL_CONV_CASES_8_(1, F, __VA_ARGS__)                                                            \
    TL_CONV_CASE_(9, 1, F, __VA_ARGS__)                                                            \
    TL_CONV_CASE_(10, 1, F, __VA_ARGS__)                                                           \
    TL_CONV_CASE_(11, 1, F, __VA_ARGS__)                                                           \
    TL_CONV_CASE_(12, 1, F, __VA_ARGS__)
#if TL_VECTOR_REGISTERS == 32
#define TL_CONV_CASES_2(F, ...) TL_CONV_CASES_8_(2, F, __VA_ARGS__)
#else
#define TL_CONV_CASES_2(F, ...) TL_CONV_CASES_6_(2, F, __VA_ARGS__)
#endif

/* The most rows of a block, and how many blocks `rows` rows are cut into. */
TL_INLINE int64_t tl_conv_block_rows(int vectors) {
    return vectors == 2 ? TL_CONV_BLOCK_2 : TL_CONV_BLOCK_1;
}

TL_INLINE int64_t tl_conv_blocks(int64_t rows, int vectors) {
    return tl_conv_ceiling(rows, tl_conv_block_rows(vectors));
}

#endif
