/* k_gemm_micro.h - the innermost loop of every matrix product.
 *
 * acc[i][j] += sum over p of A(i, p) * B(p, vector j), for a block of `rows` x `vectors` (a vector
 * is TL_LANES columns) whose accumulators stay in registers. Per step of p: `vectors` loads of B,
 * `rows` broadcasts of A and rows * vectors FMAs. Both counts must be compile-time constants where
 * this is inlined; TL_MICRO_ROWS_n is the largest useful number of rows for n vectors:
 *
 *   16 registers: 12x1, 6x2         (accumulators + B vectors + one broadcast <= 16)
 *   32 registers: 12x1, 12x2, 8x3   (24 to 29 of 32)
 *
 * At least eight accumulators hide the latency of the FMA; a single vector is load-bound.
 */
#ifndef TL_K_GEMM_MICRO_H
#define TL_K_GEMM_MICRO_H

#include "kernels/simd.h"

#define TL_MICRO_ROWS_1 12
#if TL_VECTOR_REGISTERS >= 32
#define TL_MICRO_ROWS_2 12
#define TL_MICRO_ROWS_3 8
#define TL_MICRO_VECTORS 3 /* most vectors of a block */
#else
#define TL_MICRO_ROWS_2 6
#define TL_MICRO_VECTORS 2
#endif
/* Most rows of a block: one vector of outputs has more of them in Winograd's products. */
#define TL_MICRO_ROWS (TL_VECTOR_REGISTERS >= 32 ? 16 : 12)

TL_INLINE void tl_micro_clear(const int rows, const int vectors,
                              tl_v acc[TL_MICRO_ROWS][TL_MICRO_VECTORS]) {
    TL_UNROLL
    for (int i = 0; i < rows; i++) {
        TL_UNROLL
        for (int j = 0; j < vectors; j++) {
            acc[i][j] = tl_v_zero();
        }
    }
}

/* A(i, p) lies at a[i * a_row + p * a_step], vector j of B's row p at b + p * b_step + j * LANES.
 */
TL_INLINE void tl_micro_multiply(const int rows, const int vectors, int64_t k, const tl_real *a,
                                 int64_t a_row, int64_t a_step, const tl_real *b, int64_t b_step,
                                 tl_v acc[TL_MICRO_ROWS][TL_MICRO_VECTORS]) {
    for (int64_t p = 0; p < k; p++) {
        tl_v bv[TL_MICRO_VECTORS];
        TL_UNROLL
        for (int j = 0; j < vectors; j++) {
            bv[j] = tl_v_load(b + p * b_step + j * TL_LANES);
            TL_V_PIN(bv[j]);
        }
        TL_UNROLL
        for (int i = 0; i < rows; i++) {
            const tl_v av = tl_v_set(a[i * a_row + p * a_step]);
            TL_UNROLL
            for (int j = 0; j < vectors; j++) {
                acc[i][j] += av * bv[j];
            }
        }
    }
}

#endif
