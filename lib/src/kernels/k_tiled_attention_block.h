/* k_tiled_attention_block.h - register blocks and packing of the tiled attention kernels.
 *
 * Queries lie in the lanes. A *panel* is PANEL = 3 TL_LANES queries; what belongs to a panel is
 * stored as rows of PANEL numbers, one row per channel or per key. With that, scores, their
 * gradient, the output and the gradient of the queries are products of the form
 *
 *     block[r][lane] = sum over t of  a_r[t a_step] * b[t][lane]
 *
 * where the a_r are read as scalars straight from the rows of K or V, and b is a packed panel.
 * The gradients of K and V have their channels in the lanes and read the weights as scalars.
 * Nothing is transposed but a tile of Q and dO once for many keys.
 */
#ifndef TL_K_TILED_ATTENTION_BLOCK_H
#define TL_K_TILED_ATTENTION_BLOCK_H

#include "kernels/simd.h"

#if TL_VECTOR_REGISTERS >= 32
#define PANEL_ROWS 8    /* rows of a block with queries in the lanes: 8 x 3 accumulators */
#define CHANNEL_ROWS 12 /* rows of a block with channels in the lanes: 12 x 2 */
#else
#define PANEL_ROWS 4
#define CHANNEL_ROWS 6
#endif
#define PANEL_VECTORS 3
#define CHANNEL_VECTORS 2
#define PANEL (PANEL_VECTORS * TL_LANES)
#define PANEL_ACC (PANEL_ROWS * PANEL_VECTORS)
#define CHANNEL_ACC (CHANNEL_ROWS * CHANNEL_VECTORS)

/* Queries and keys of a tile; multiples of PANEL for every vector length, and of both row counts.
 */
#define TILE 96

/* Unrolls the next loop in full, early enough for arrays of accumulators to become registers. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

TL_INLINE int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

TL_INLINE int64_t round_up(int64_t value, int64_t step) {
    return (value + step - 1) / step * step;
}

/* The zero is pinned, lest the compiler turn the loop into a memset of the stack. */
TL_INLINE void clear(int count, tl_v *acc) {
    tl_v zero = tl_v_zero();
    TL_V_PIN(zero);
    UNROLL
    for (int i = 0; i < count; i++) {
        acc[i] = zero;
    }
}

/* acc[r][v] += sum over t < depth of a[r][t * a_step] * b[t * b_step + v * TL_LANES + lane] */
TL_INLINE void multiply(int rows, int vectors, tl_v *acc, const tl_real *const *a, int64_t a_step,
                        const tl_real *b, int64_t b_step, int64_t depth) {
    for (int64_t t = 0; t < depth; t++) {
        tl_v right[PANEL_VECTORS];
        UNROLL
        for (int v = 0; v < vectors; v++) {
            right[v] = tl_v_load(b + t * b_step + v * TL_LANES);
            TL_V_PIN(right[v]);
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            const tl_v left = tl_v_set(a[r][t * a_step]);
            UNROLL
            for (int v = 0; v < vectors; v++) {
                acc[r * vectors + v] += left * right[v];
            }
        }
    }
}

/* The rows first, first + 1, ... of `base`, each beyond the last one replaced by the last. */
TL_INLINE void row_pointers(int rows, const tl_real **a, const tl_real *base, int64_t step,
                            int64_t first, int64_t last) {
    UNROLL
    for (int r = 0; r < rows; r++) {
        a[r] = base + smaller(first + r, last) * step;
    }
}

/* Replaces scores of keys that are hidden from a query or do not exist. `visible` is the number of
 * keys of the tile, counted from j, that the panel's first query sees; each next query sees one
 * more. */
static __attribute__((noinline)) void hide_in_copy(tl_v *acc, int64_t j, int64_t keys, bool causal,
                                                   int64_t visible, tl_real replacement) {
    for (int r = 0; r < PANEL_ROWS; r++) {
        for (int v = 0; v < PANEL_VECTORS; v++) {
            for (int lane = 0; lane < TL_LANES; lane++) {
                if (j + r >= keys || (causal && r >= visible + v * TL_LANES + lane)) {
                    acc[r * PANEL_VECTORS + v][lane] = replacement;
                }
            }
        }
    }
}

/* The same on registers. (Accumulators whose address is passed on would live in memory.) */
TL_INLINE void hide(tl_v *acc, int64_t j, int64_t keys, bool causal, int64_t visible,
                    tl_real replacement) {
    tl_v copy[PANEL_ACC];
    UNROLL
    for (int i = 0; i < PANEL_ACC; i++) {
        copy[i] = acc[i];
    }
    hide_in_copy(copy, j, keys, causal, visible, replacement);
    UNROLL
    for (int i = 0; i < PANEL_ACC; i++) {
        acc[i] = copy[i];
    }
}

/* panel[c][lane] = factor[lane] * rows[lane][c] for c < channels, zero in lanes >= count. */
TL_INLINE void pack_panel(tl_real *restrict panel, const tl_real *rows, int64_t row_step,
                          int64_t count, int64_t channels, const tl_real *factor) {
    for (int64_t lane = 0; lane < count; lane++) {
        for (int64_t c = 0; c < channels; c++) {
            panel[c * PANEL + lane] = rows[lane * row_step + c] * factor[lane];
        }
    }
    for (int64_t lane = count; lane < PANEL; lane++) {
        for (int64_t c = 0; c < channels; c++) {
            panel[c * PANEL + lane] = 0;
        }
    }
}

/* copy[r][c] = factor[r] * rows[r][c], zero where r >= count or c >= channels. */
TL_INLINE void pack_rows(tl_real *restrict copy, int64_t width, const tl_real *rows,
                         int64_t row_step, int64_t count, int64_t total, int64_t channels,
                         const tl_real *factor) {
    for (int64_t r = 0; r < count; r++) {
        for (int64_t c = 0; c < channels; c++) {
            copy[r * width + c] = rows[r * row_step + c] * factor[r];
        }
        for (int64_t c = channels; c < width; c++) {
            copy[r * width + c] = 0;
        }
    }
    if (total > count) {
        memset(copy + count * width, 0, (size_t)((total - count) * width) * sizeof(tl_real));
    }
}

/* A tile of keys or values with contiguous rows: where it lies if its rows are, else a copy. (At
 * large power-of-two distances the rows would share few sets of the first-level cache.) */
TL_INLINE const tl_real *contiguous_rows(tl_real *copy, const tl_real *rows, int64_t row_step,
                                         int64_t count, int64_t channels) {
    if (row_step == channels) {
        return rows;
    }
    for (int64_t r = 0; r < count; r++) {
        memcpy(copy + r * channels, rows + r * row_step, (size_t)channels * sizeof(tl_real));
    }
    return copy;
}

#endif
