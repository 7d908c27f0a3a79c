/* k_tiled_attention_block.h - register blocks and packing of the tiled attention kernels.
 *
 * Queries lie in the lanes. A *panel* is PANEL = 3 TL_LANES queries; what belongs to a panel is
 * stored as rows of PANEL numbers, one row per channel or per key. With that, scores, their
 * gradient, the output and the gradient of the queries are products of the form
 *
 *     block[r][lane] = sum over t of  a_r[t a_step] * b[t][lane]
 *
 * where the a_r are read as scalars from the rows of K or V, and b is a packed panel.
 * The gradients of K and V have their channels in the lanes and read the weights as scalars.
 * Nothing is transposed but a tile of Q and dO once for many keys.
 */
#ifndef TL_K_TILED_ATTENTION_BLOCK_H
#define TL_K_TILED_ATTENTION_BLOCK_H

#include "kernels/k_gemm_micro.h"
#include "kernels/k_gemm_pack.h"

/* Blocks with queries in the lanes, and with channels in the lanes. */
#if TL_VECTOR_REGISTERS >= 32
#define PANEL_ROWS TL_MICRO_ROWS_3
#define PANEL_VECTORS 3
#else
#define PANEL_ROWS TL_MICRO_ROWS_2
#define PANEL_VECTORS 2
#endif
#define CHANNEL_ROWS TL_MICRO_ROWS_2
#define CHANNEL_VECTORS 2
#define PANEL (PANEL_VECTORS * TL_LANES)

typedef tl_v block[TL_MICRO_ROWS][TL_MICRO_VECTORS];

/* Queries and keys of a tile; multiples of PANEL for every vector length, and of both row counts.
 */
#define TILE 96

TL_INLINE int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

TL_INLINE int64_t round_up(int64_t value, int64_t step) {
    return (value + step - 1) / step * step;
}

/* Replaces scores of keys that are hidden from a query or do not exist. `visible` is the number of
 * keys of the tile, counted from j, that the panel's first query sees; each next query sees one
 * more. */
static __attribute__((noinline)) void hide_in_copy(block acc, int64_t j, int64_t keys, bool causal,
                                                   int64_t visible, tl_real replacement) {
    for (int r = 0; r < PANEL_ROWS; r++) {
        for (int v = 0; v < PANEL_VECTORS; v++) {
            for (int lane = 0; lane < TL_LANES; lane++) {
                if (j + r >= keys || (causal && r >= visible + v * TL_LANES + lane)) {
                    acc[r][v][lane] = replacement;
                }
            }
        }
    }
}

/* The same on registers. (Accumulators whose address is passed on would live in memory.) */
TL_INLINE void hide(block acc, int64_t j, int64_t keys, bool causal, int64_t visible,
                    tl_real replacement) {
    block copy;
    TL_UNROLL
    for (int r = 0; r < PANEL_ROWS; r++) {
        TL_UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++) {
            copy[r][v] = acc[r][v];
        }
    }
    hide_in_copy(copy, j, keys, causal, visible, replacement);
    TL_UNROLL
    for (int r = 0; r < PANEL_ROWS; r++) {
        TL_UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++) {
            acc[r][v] = copy[r][v];
        }
    }
}

/* panel[c][lane] = factor[lane] * rows[lane][c] for c < channels, zero in lanes >= count. */
TL_INLINE void pack_panel(tl_real *panel, const tl_real *rows, int64_t row_step, int64_t count,
                          int64_t channels, const tl_real *factor) {
    tl_pack_transposed(panel, PANEL, rows, row_step, count, channels);
    for (int64_t c = 0; c < channels; c++) {
        TL_UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++) {
            tl_real *p = panel + c * PANEL + v * TL_LANES;
            tl_v_store(p, tl_v_load(p) * tl_v_load(factor + v * TL_LANES));
        }
    }
}

/* The way back, of `count` lanes: rows[lane][c] = factor[lane] * panel[c][lane], or that added. */
TL_INLINE void unpack_panel(tl_real *rows, int64_t row_step, const tl_real *panel, int64_t count,
                            int64_t channels, const tl_real *factor, const bool accumulate) {
    tl_v v[TL_VECTOR_BYTES / sizeof(tl_real)];
    for (int64_t lane = 0; lane < count; lane += TL_LANES) {
        const int64_t lanes = smaller(TL_LANES, count - lane);
        for (int64_t c = 0; c < channels; c += TL_LANES) {
            const int64_t length = smaller(TL_LANES, channels - c);
            TL_UNROLL
            for (int r = 0; r < TL_LANES; r++) {
                v[r] = r < length ? tl_v_load(panel + (c + r) * PANEL + lane) : tl_v_zero();
            }
            tl_v_transpose(v);
            for (int64_t r = 0; r < lanes; r++) {
                tl_real *to = rows + (lane + r) * row_step + c;
                tl_v value = v[r] * factor[lane + r];
                if (accumulate) {
                    value += tl_v_load_some(to, length);
                }
                tl_v_store_some(to, value, length);
            }
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

/* A tile of keys or values as blocks read it: whole blocks of rows and of channels, rows `step`
 * apart. */
typedef struct tile_rows {
    const tl_real *values;
    int64_t step;
    int64_t channels; /* in whole blocks */
} tile_rows;

/* Channels are cut into blocks of PANEL_ROWS, and of FEWER_ROWS where that leaves no rest. */
enum { FEWER_ROWS = 4 };

TL_INLINE int64_t rest_of_channels(int64_t channels) {
    int64_t rest = channels % PANEL_ROWS;
    while (rest % FEWER_ROWS != 0 && rest + PANEL_ROWS <= channels) {
        rest += PANEL_ROWS;
    }
    return rest;
}

/* The rows where they lie, if they are contiguous and whole blocks; else a copy with zeros behind.
 * (At large power-of-two distances rows would share few sets of the first-level cache.) */
TL_INLINE tile_rows whole_rows(tl_real *restrict copy, const tl_real *rows, int64_t row_step,
                               int64_t count, int64_t channels) {
    const bool whole = rest_of_channels(channels) % FEWER_ROWS == 0;
    if (row_step == channels && whole && count % PANEL_ROWS == 0) {
        return (tile_rows){rows, row_step, channels};
    }
    const int64_t width = whole ? channels : round_up(channels, PANEL_ROWS);
    for (int64_t r = 0; r < count; r++) {
        for (int64_t c = 0; c < channels; c++) {
            copy[r * width + c] = rows[r * row_step + c];
        }
        for (int64_t c = channels; c < width; c++) {
            copy[r * width + c] = 0;
        }
    }
    const int64_t rest = round_up(count, PANEL_ROWS) - count;
    memset(copy + count * width, 0, (size_t)(rest * width) * sizeof(tl_real));
    return (tile_rows){copy, width, width};
}

#endif
