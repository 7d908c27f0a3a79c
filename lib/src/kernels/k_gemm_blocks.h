/* k_gemm_blocks.h - the register blocks of a matrix product, in every size, as functions.
 *
 * A block adds up its products in registers (k_gemm_micro.h) and then goes to C. Private to
 * k_gemm.c.
 */
#ifndef TL_K_GEMM_BLOCKS_H
#define TL_K_GEMM_BLOCKS_H

#include "kernels/k_gemm_micro.h"

/* What happens to a sum: c = alpha * sum + beta * c + bias, the last two only if they are there. */
typedef struct epilogue {
    tl_real alpha, beta;
    const tl_real *bias; /* from the block's first column on, or NULL */
} epilogue;

typedef void micro_function(int64_t k, const tl_real *a, int64_t a_stride, const tl_real *b,
                            int64_t b_step, tl_real *c, int64_t c_row, int64_t columns,
                            const epilogue *end);

TL_INLINE tl_v finish(tl_v sum, epilogue end, tl_v c, tl_v bias) {
    sum = sum * end.alpha + bias;
    return end.beta != 0 ? c * end.beta + sum : sum;
}

TL_INLINE void micro_store(const int rows, const int vectors,
                           tl_v acc[TL_MICRO_ROWS][TL_MICRO_VECTORS], tl_real *c, int64_t c_row,
                           int64_t columns, const epilogue *stored_end) {
    const epilogue end = *stored_end; /* C may not change it */
    TL_UNROLL
    for (int j = 0; j < vectors; j++) {
        const int64_t count = columns - j * TL_LANES;
        if (count >= TL_LANES) {
            const tl_v bias = end.bias ? tl_v_load(end.bias + j * TL_LANES) : tl_v_zero();
            TL_UNROLL
            for (int i = 0; i < rows; i++) {
                tl_real *at = c + i * c_row + j * TL_LANES;
                const tl_v old = end.beta != 0 ? tl_v_load(at) : tl_v_zero();
                tl_v_store(at, finish(acc[i][j], end, old, bias));
            }
        } else {
            const tl_v bias =
                end.bias ? tl_v_load_partial(end.bias + j * TL_LANES, count) : tl_v_zero();
            TL_UNROLL
            for (int i = 0; i < rows; i++) {
                tl_real *at = c + i * c_row + j * TL_LANES;
                const tl_v old = end.beta != 0 ? tl_v_load_partial(at, count) : tl_v_zero();
                tl_v_store_partial(at, finish(acc[i][j], end, old, bias), count);
            }
        }
    }
}

/* micro_along_rows_RxV: A runs along p, rows a_stride apart (as it lies in memory);
 * micro_along_steps_RxV: A runs along its rows, steps of p a_stride apart (packed, or stored
 * transposed). */
#define MICRO(rows_, vectors_)                                                                     \
    static void micro_along_rows_##rows_##x##vectors_(                                             \
        int64_t k, const tl_real *a, int64_t a_stride, const tl_real *b, int64_t b_step,           \
        tl_real *c, int64_t c_row, int64_t columns, const epilogue *end) {                         \
        tl_v acc[TL_MICRO_ROWS][TL_MICRO_VECTORS];                                                 \
        tl_micro_clear(rows_, vectors_, acc);                                                      \
        tl_micro_multiply(rows_, vectors_, k, a, a_stride, 1, b, b_step, acc);                     \
        micro_store(rows_, vectors_, acc, c, c_row, columns, end);                                 \
    }                                                                                              \
    static void micro_along_steps_##rows_##x##vectors_(                                            \
        int64_t k, const tl_real *a, int64_t a_stride, const tl_real *b, int64_t b_step,           \
        tl_real *c, int64_t c_row, int64_t columns, const epilogue *end) {                         \
        tl_v acc[TL_MICRO_ROWS][TL_MICRO_VECTORS];                                                 \
        tl_micro_clear(rows_, vectors_, acc);                                                      \
        tl_micro_multiply(rows_, vectors_, k, a, 1, a_stride, b, b_step, acc);                     \
        micro_store(rows_, vectors_, acc, c, c_row, columns, end);                                 \
    }

#define MICRO_ROWS_6(each, v) each(1, v) each(2, v) each(3, v) each(4, v) each(5, v) each(6, v)
#define MICRO_ROWS_8(each, v) MICRO_ROWS_6(each, v) each(7, v) each(8, v)
#define MICRO_ROWS_12(each, v) MICRO_ROWS_8(each, v) each(9, v) each(10, v) each(11, v) each(12, v)
#if TL_VECTOR_REGISTERS >= 32
#define MICRO_ALL(each) MICRO_ROWS_12(each, 1) MICRO_ROWS_12(each, 2) MICRO_ROWS_8(each, 3)
#else
#define MICRO_ALL(each) MICRO_ROWS_12(each, 1) MICRO_ROWS_6(each, 2)
#endif

MICRO_ALL(MICRO)

#define ALONG_ROWS(rows_, vectors_) [vectors_][rows_] = micro_along_rows_##rows_##x##vectors_,
#define ALONG_STEPS(rows_, vectors_) [vectors_][rows_] = micro_along_steps_##rows_##x##vectors_,
typedef micro_function *micro_table[TL_MICRO_VECTORS + 1][TL_MICRO_ROWS + 1];
static const micro_table micro_along_rows = {MICRO_ALL(ALONG_ROWS)};
static const micro_table micro_along_steps = {MICRO_ALL(ALONG_STEPS)};

/* Rows of B that a register block asks for while it multiplies: in a burst, they would have to wait
 * for each other. Two places of a row at a time, `half` apart, go on by `step`. */
typedef struct fetching {
    const tl_real *from;
    int64_t row_stride;
    int64_t rows;
    int64_t half, step;
} fetching;

/* The blocks of A and B packed that fetch meanwhile; k >= fetch->rows > 0. */
#define MICRO_FETCHING(rows_, vectors_)                                                            \
    static void micro_fetching_##rows_##x##vectors_(int64_t k, const tl_real *a, int64_t a_stride, \
                                                    const tl_real *b, tl_real *c, int64_t c_row,   \
                                                    const epilogue *end, const fetching *fetch) {  \
        const fetching f = *fetch;                                                                 \
        tl_v acc[TL_MICRO_ROWS][TL_MICRO_VECTORS];                                                 \
        tl_micro_clear(rows_, vectors_, acc);                                                      \
        for (int64_t r = 0, p = 0; r < f.rows; r++) {                                              \
            const tl_real *line = f.from + r * f.row_stride;                                       \
            for (const int64_t last = k * (r + 1) / f.rows; p < last; p++) {                       \
                __builtin_prefetch(line, 0, 2);                                                    \
                __builtin_prefetch(line + f.half, 0, 2);                                           \
                line += f.step;                                                                    \
                tl_micro_multiply(rows_, vectors_, 1, a, 1, 0, b, 0, acc);                         \
                a += a_stride;                                                                     \
                b += vectors_ * TL_LANES;                                                          \
            }                                                                                      \
        }                                                                                          \
        micro_store(rows_, vectors_, acc, c, c_row, vectors_ *TL_LANES, end);                      \
    }

/* Of two and more vectors: one is load-bound without fetching. */
#if TL_VECTOR_REGISTERS >= 32
#define MICRO_WIDE(each) MICRO_ROWS_12(each, 2) MICRO_ROWS_8(each, 3)
#else
#define MICRO_WIDE(each) MICRO_ROWS_6(each, 2)
#endif

MICRO_WIDE(MICRO_FETCHING)

typedef void micro_fetching_function(int64_t k, const tl_real *a, int64_t a_stride,
                                     const tl_real *b, tl_real *c, int64_t c_row,
                                     const epilogue *end, const fetching *fetch);
#define FETCHING(rows_, vectors_) [vectors_][rows_] = micro_fetching_##rows_##x##vectors_,
static micro_fetching_function *const micro_fetching[TL_MICRO_VECTORS + 1][TL_MICRO_ROWS + 1] = {
    MICRO_WIDE(FETCHING)};

#endif
