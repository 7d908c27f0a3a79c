/* k_gemm_pack.h - copies matrices into panels that the innermost loop reads front to back.
 *
 * A panel holds `width` rows of A (or columns of B) interleaved: element p of row r lies at
 * panel[p * width + r]. Where the source runs along p it is transposed in registers, LANES x LANES
 * at a time; where it runs along r rows are copied.
 */
#ifndef TL_K_GEMM_PACK_H
#define TL_K_GEMM_PACK_H

#include "kernels/k_transpose.h"

/* Rows r0 ... r0 + LANES - 1 (those below `count`, zeros for the rest) of a source that runs along
 * p. Every store writes LANES values; what falls beyond `width` is overwritten by a later one. */
static inline void tl_pack_lanes_(tl_real *panel, int64_t width, const tl_real *source,
                                  int64_t row_stride, int64_t r0, int64_t count, int64_t k) {
    tl_v v[TL_VECTOR_BYTES / sizeof(tl_real)];
    for (int64_t p = 0; p < k; p += TL_LANES) {
        const int64_t length = k - p < TL_LANES ? k - p : TL_LANES;
        TL_UNROLL
        for (int r = 0; r < TL_LANES; r++) {
            const tl_real *row = source + (r0 + r) * row_stride + p;
            v[r] = r0 + r >= count      ? tl_v_zero()
                   : length == TL_LANES ? tl_v_load(row)
                                        : tl_v_load_partial(row, length);
        }
        tl_v_transpose(v);
        if (length == TL_LANES) {
            TL_UNROLL
            for (int q = 0; q < TL_LANES; q++) {
                tl_v_store(panel + (p + q) * width + r0, v[q]);
            }
        } else {
            for (int q = 0; q < length; q++) {
                tl_v_store(panel + (p + q) * width + r0, v[q]);
            }
        }
    }
}

/* The panel of `count` <= width rows, each of k values, `row_stride` apart; missing rows become
 * zeros. Writes up to LANES values beyond the panel. */
static inline void tl_pack_transposed(tl_real *panel, int64_t width, const tl_real *source,
                                      int64_t row_stride, int64_t count, int64_t k) {
    /* the last rows first: what their stores spill over belongs to the first rows */
    for (int64_t r0 = (width - 1) / TL_LANES * TL_LANES; r0 >= 0; r0 -= TL_LANES) {
        tl_pack_lanes_(panel, width, source, row_stride, r0, count, k);
    }
}

/* One step p of a panel whose source runs along the rows, `available` of them from here on; zeros
 * beyond those. Writes up to LANES values beyond `width`, so p must ascend. */
TL_INLINE void tl_pack_step(tl_real *step, int64_t width, const tl_real *source,
                            int64_t available) {
    for (int64_t r = 0; r < width; r += TL_LANES) {
        const int64_t left = available - r;
        if (left >= TL_LANES) {
            tl_v_store(step + r, tl_v_load(source + r));
        } else {
            tl_v_store(step + r, left > 0 ? tl_v_load_partial(source + r, left) : tl_v_zero());
        }
    }
}

#endif
