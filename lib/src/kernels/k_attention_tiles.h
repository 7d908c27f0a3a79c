/* k_attention_tiles.h - the small dense products of the fused attention kernels.
 *
 * Attention works on tiles of positions that live in the first-level cache. All its products have
 * one form: a left operand that is read one value at a time and broadcast, and a right operand
 * whose rows are read as vectors:
 *
 *     out[i, j] = start[i, j] + bias[j] + sum over p of a[i * a_row + p * a_step] * b[p * b_row +
 * j]
 *
 * With a_step = 1 this is rows times a matrix, with a_row = 1 it is a transposed tile times rows
 * (the sums over positions); nothing is packed. Register blocks are those of k_gemm_micro.h,
 * two vectors wide where they can be; rows are divided evenly among the blocks, so that no block is
 * so small that the latency of its FMAs shows.
 *
 * The number of columns is a multiple of TL_LANES: operands with other widths lie in scratch with
 * zeros behind. This header is private to kernel files (everything in it is static).
 */
#ifndef TL_K_ATTENTION_TILES_H
#define TL_K_ATTENTION_TILES_H

#include "kernels/fetch_ahead.h"
#include "kernels/k_gemm_micro.h"
#include "kernels/k_transpose.h"
#include "kernels/kernels.h"
#include "kernels/simd.h"

/* The row length of matrices in scratch: whole cache lines, for every instruction set the same. */
#define TL_ATTENTION_PADDED(count)                                                                 \
    (((int64_t)(count) + (int64_t)(TL_ALIGNMENT / sizeof(tl_real)) - 1) /                          \
     (int64_t)(TL_ALIGNMENT / sizeof(tl_real)) * (int64_t)(TL_ALIGNMENT / sizeof(tl_real)))

/* The columns that are worked on: whole vectors. */
TL_INLINE int64_t tile_columns(int64_t count) {
    return (count + TL_LANES - 1) / TL_LANES * TL_LANES;
}

typedef struct tile_product {
    int64_t rows, columns, inner;
    const tl_real *a;
    int64_t a_row, a_step; /* one of them is 1 */
    const tl_real *b;
    int64_t b_row;
    tl_real *out;
    int64_t out_row;
    const tl_real *start; /* NULL: zero; may be `out` */
    int64_t start_row;
    const tl_real *bias; /* NULL: zero; one value a column */
} tile_product;

TL_INLINE void tile_block(const int rows, const int vectors, const bool transposed,
                          const tile_product *t, int64_t row, int64_t column) {
    tl_v sum[TL_MICRO_ROWS][TL_MICRO_VECTORS];
    tl_micro_clear(rows, vectors, sum);
    fetch_some(t->inner / 2); /* all of the next tile before this one is done */
    const int64_t a_row = transposed ? 1 : t->a_row;
    tl_micro_multiply(rows, vectors, t->inner, t->a + row * a_row, a_row,
                      transposed ? t->a_step : 1, t->b + column, t->b_row, sum);
    /* in locals: the stores below could, for all the compiler knows, change *t */
    const int64_t start_row = t->start_row, out_row = t->out_row;
    if (t->bias != NULL) {
        const tl_real *bias = t->bias + column;
        TL_UNROLL
        for (int j = 0; j < vectors; j++) {
            const tl_v addend = tl_v_load(bias + j * TL_LANES);
            TL_UNROLL
            for (int i = 0; i < rows; i++) {
                sum[i][j] += addend;
            }
        }
    }
    if (t->start != NULL) {
        const tl_real *start = t->start + row * start_row + column;
        TL_UNROLL
        for (int i = 0; i < rows; i++) {
            TL_UNROLL
            for (int j = 0; j < vectors; j++) {
                sum[i][j] += tl_v_load(start + j * TL_LANES);
            }
            start += start_row;
        }
    }
    tl_real *out = t->out + row * out_row + column;
    TL_UNROLL
    for (int i = 0; i < rows; i++) {
        TL_UNROLL
        for (int j = 0; j < vectors; j++) {
            tl_v_store(out + j * TL_LANES, sum[i][j]);
        }
        out += out_row;
    }
}

#define TL_TILE_CASE_(rows_)                                                                       \
    case rows_:                                                                                    \
        if (vectors == 1 || rows_ <= TL_MICRO_ROWS_2) {                                            \
            tile_block(rows_, vectors, transposed, t, row, column);                                \
        }                                                                                          \
        break;

TL_INLINE void tile_panel(const int vectors, const bool transposed, const tile_product *t,
                          int64_t column) {
    const int64_t height = vectors == 1 ? TL_MICRO_ROWS_1 : TL_MICRO_ROWS_2;
    const int64_t blocks = (t->rows + height - 1) / height;
    int64_t row = 0;
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t end = (block + 1) * t->rows / blocks;
        switch (end - row) {
            TL_TILE_CASE_(1)
            TL_TILE_CASE_(2)
            TL_TILE_CASE_(3)
            TL_TILE_CASE_(4)
            TL_TILE_CASE_(5)
            TL_TILE_CASE_(6)
            TL_TILE_CASE_(7)
            TL_TILE_CASE_(8)
            TL_TILE_CASE_(9)
            TL_TILE_CASE_(10)
            TL_TILE_CASE_(11)
            TL_TILE_CASE_(12)
        }
        row = end;
    }
}

/* One row: four sums side by side for each vector, as a single one would wait for its own FMAs. */
TL_INLINE void tile_row_panel(const int vectors, const tile_product *t, int64_t column) {
    tl_v sum[4][2];
    TL_UNROLL
    for (int i = 0; i < 4; i++) {
        TL_UNROLL
        for (int j = 0; j < vectors; j++) {
            sum[i][j] = tl_v_zero();
        }
    }
    int64_t p = 0;
    for (; p + 4 <= t->inner; p += 4) {
        TL_UNROLL
        for (int i = 0; i < 4; i++) {
            const tl_real *b = t->b + (p + i) * t->b_row + column;
            TL_UNROLL
            for (int j = 0; j < vectors; j++) {
                sum[i][j] += t->a[(p + i) * t->a_step] * tl_v_load(b + j * TL_LANES);
            }
        }
    }
    for (; p < t->inner; p++) {
        TL_UNROLL
        for (int j = 0; j < vectors; j++) {
            sum[0][j] +=
                t->a[p * t->a_step] * tl_v_load(t->b + p * t->b_row + column + j * TL_LANES);
        }
    }
    TL_UNROLL
    for (int j = 0; j < vectors; j++) {
        const int64_t at = column + j * TL_LANES;
        tl_v total = (sum[0][j] + sum[1][j]) + (sum[2][j] + sum[3][j]);
        total = t->bias == NULL ? total : total + tl_v_load(t->bias + at);
        total = t->start == NULL ? total : total + tl_v_load(t->start + at);
        tl_v_store(t->out + at, total);
    }
}

static __attribute__((noinline, unused)) void tile_multiply(const tile_product t) {
    const int64_t pairs = t.columns / (2 * TL_LANES) * (2 * TL_LANES);
    if (t.rows == 1) {
        for (int64_t column = 0; column < pairs; column += 2 * TL_LANES) {
            tile_row_panel(2, &t, column);
        }
        for (int64_t column = pairs; column < t.columns; column += TL_LANES) {
            tile_row_panel(1, &t, column);
        }
        return;
    }
    if (t.a_row == 1) {
        for (int64_t column = 0; column < pairs; column += 2 * TL_LANES) {
            tile_panel(2, true, &t, column);
        }
        for (int64_t column = pairs; column < t.columns; column += TL_LANES) {
            tile_panel(1, true, &t, column);
        }
    } else {
        for (int64_t column = 0; column < pairs; column += 2 * TL_LANES) {
            tile_panel(2, false, &t, column);
        }
        for (int64_t column = pairs; column < t.columns; column += TL_LANES) {
            tile_panel(1, false, &t, column);
        }
    }
}

/* out [rows, columns] = left [rows, inner] right + bias, rows of left contiguous; bias NULL: none.
 */
TL_INLINE void tile_multiply_rows(int64_t rows, int64_t columns, int64_t inner, const tl_real *left,
                                  int64_t left_row, const tl_real *right, int64_t right_row,
                                  const tl_real *bias, tl_real *out, int64_t out_row) {
    tile_multiply((tile_product){.rows = rows,
                                 .columns = tile_columns(columns),
                                 .inner = inner,
                                 .a = left,
                                 .a_row = left_row,
                                 .a_step = 1,
                                 .b = right,
                                 .b_row = right_row,
                                 .out = out,
                                 .out_row = out_row,
                                 .bias = bias});
}

/* out[j, i] = in[i, j] for one block of TL_LANES by TL_LANES. */
TL_INLINE void tile_transpose_block(const tl_real *in, int64_t in_row, tl_real *out,
                                    int64_t out_row) {
    tl_v v[TL_VECTOR_BYTES / sizeof(tl_real)];
    TL_UNROLL
    for (int i = 0; i < TL_LANES; i++) {
        v[i] = tl_v_load(in + i * in_row);
    }
    tl_v_transpose(v);
    TL_UNROLL
    for (int i = 0; i < TL_LANES; i++) {
        tl_v_store(out + i * out_row, v[i]);
    }
}

/* out[j, i] = in[i, j] in whole blocks: both matrices have room up to the next multiple of
 * TL_LANES, rows included; what lies there is copied, whatever it is. */
static __attribute__((noinline, unused)) void tile_transpose(int64_t rows, int64_t columns,
                                                             const tl_real *in, int64_t in_row,
                                                             tl_real *out, int64_t out_row) {
    for (int64_t i = 0; i < rows; i += TL_LANES) {
        for (int64_t j = 0; j < columns; j += TL_LANES) {
            tile_transpose_block(in + i * in_row + j, in_row, out + j * out_row + i, out_row);
        }
    }
}

/* ---- with large n, rows come from memory, and products would have to wait for them */

/* The rows behind this tile's will be fetched while its products are worked on. `left` rows are
 * left, this tile included. */
TL_INLINE void tile_fetch_next(const tl_real *tile, int64_t left, int64_t columns) {
    const int64_t rest = left - TL_ATTENTION_TILE;
    const int64_t rows = rest < TL_ATTENTION_TILE ? rest : TL_ATTENTION_TILE;
    fetch_later(tile + TL_ATTENTION_TILE * columns, rows * columns);
}

/* ---- copies between the caller's rows and padded rows in scratch */

/* out[i, :] = in[i, :], with zeros behind the `columns` values up to `out_row`, which is whole
 * vectors. Masked loads: rows may be short, and a call of memcpy for each would cost more. */
static __attribute__((unused)) void tile_pad_rows(int64_t rows, int64_t columns, const tl_real *in,
                                                  int64_t in_row, tl_real *out, int64_t out_row) {
    const int64_t whole = columns / TL_LANES * TL_LANES;
    for (int64_t i = 0; i < rows; i++) {
        int64_t j = 0;
        for (; j < whole; j += TL_LANES) {
            tl_v_store(out + j, tl_v_load(in + j));
        }
        if (j < columns) {
            tl_v_store(out + j, tl_v_load_partial(in + j, columns - j));
            j += TL_LANES;
        }
        for (; j < out_row; j += TL_LANES) {
            tl_v_store(out + j, tl_v_zero());
        }
        in += in_row;
        out += out_row;
    }
}

/* The way back for rows shorter than a vector: they are closed up in a buffer, each row overwriting
 * what the one before has too much, and go to `out` as one string. Loads and stores of single rows
 * there would overlap, and wait for each other. */
TL_INLINE void tile_unpad_short(int64_t rows, int64_t columns, const tl_real *in, int64_t in_row,
                                tl_real *out, bool add) {
    tl_real packed[(TL_ATTENTION_TILE + 1) * (TL_VECTOR_BYTES / sizeof(tl_real))];
    for (int64_t i = 0; i < rows; i++) {
        tl_v_store(packed + i * columns, tl_v_load(in + i * in_row));
    }
    const int64_t count = rows * columns;
    for (int64_t i = 0; i < count; i += TL_LANES) {
        const int64_t lanes = count - i < TL_LANES ? count - i : TL_LANES;
        const tl_v value = tl_v_load(packed + i);
        tl_v_store_some(out + i, add ? tl_v_load_some(out + i, lanes) + value : value, lanes);
    }
}

/* The way back: out[i, :] = in[i, :], or += in[i, :]. */
static __attribute__((unused)) void tile_unpad_rows(int64_t rows, int64_t columns,
                                                    const tl_real *in, int64_t in_row, tl_real *out,
                                                    bool add) {
    const int64_t whole = columns / TL_LANES * TL_LANES, rest = columns - whole;
    if (whole == 0 && rows <= TL_ATTENTION_TILE) {
        tile_unpad_short(rows, columns, in, in_row, out, add);
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < whole; j += TL_LANES) {
            const tl_v value = tl_v_load(in + j);
            tl_v_store(out + j, add ? tl_v_load(out + j) + value : value);
        }
        if (rest > 0) {
            const tl_v value = tl_v_load(in + whole);
            const tl_v sum = add ? tl_v_load_partial(out + whole, rest) + value : value;
            tl_v_store_partial(out + whole, sum, rest);
        }
        in += in_row;
        out += columns;
    }
}

/* out[j, i] = scale * in[i, j], zeros behind the `rows` values of each row up to `out_row`. */
static __attribute__((unused)) void tile_pad_transposed(int64_t rows, int64_t columns,
                                                        const tl_real *in, tl_real scale,
                                                        tl_real *out, int64_t out_row) {
    for (int64_t j = 0; j < columns; j++) {
        for (int64_t i = 0; i < rows; i++) {
            out[j * out_row + i] = scale * in[i * columns + j];
        }
        memset(out + j * out_row + rows, 0, (size_t)(out_row - rows) * sizeof(tl_real));
    }
}

/* Rows that products can read in whole vectors: the caller's own where their width allows it, else
 * a padded copy. `*row` receives the distance between rows. */
TL_INLINE const tl_real *tile_whole_rows(int64_t rows, int64_t columns, const tl_real *in,
                                         tl_real *copy, int64_t copy_row, int64_t *row) {
    if (columns % TL_LANES == 0) {
        *row = columns;
        return in;
    }
    tile_pad_rows(rows, columns, in, columns, copy, copy_row);
    *row = copy_row;
    return copy;
}

/* sum[j] += in[0, j] + ... + in[rows - 1, j] for whole vectors of columns. */
TL_INLINE void tile_add_rows(int64_t rows, int64_t columns, const tl_real *in, int64_t in_row,
                             tl_real *sum) {
    for (int64_t j = 0; j < columns; j += TL_LANES) {
        tl_v even = tl_v_zero(), odd = tl_v_zero();
        for (int64_t i = 0; i + 1 < rows; i += 2) {
            even += tl_v_load(in + i * in_row + j);
            odd += tl_v_load(in + (i + 1) * in_row + j);
        }
        if (rows % 2 != 0) {
            even += tl_v_load(in + (rows - 1) * in_row + j);
        }
        tl_v_store(sum + j, tl_v_load(sum + j) + (even + odd));
    }
}

/* out[i] += in[i], for any count. */
TL_INLINE void tile_add(int64_t count, const tl_real *in, tl_real *out) {
    int64_t i = 0;
    for (; i + TL_LANES <= count; i += TL_LANES) {
        tl_v_store(out + i, tl_v_load(out + i) + tl_v_load(in + i));
    }
    for (; i < count; i++) {
        out[i] += in[i];
    }
}

#endif
