/* k_attention_narrow.h - efficient attention with few key channels, at most half the lanes of a
 * vector.
 *
 * Queries, keys and their gradients are then kept as [K, tile], positions in the lanes, so that all
 * lanes work; a product with weights takes the rows of the tile transposed, [C, tile], once for all
 * that need them. Softmax over the positions runs along the lanes. Private to kernel files.
 */
#ifndef TL_K_ATTENTION_NARROW_H
#define TL_K_ATTENTION_NARROW_H

#include "kernels/k_attention_tiles.h"

/* The rows of a tile as products read them, and transposed. Rows in whole blocks of TL_LANES are
 * read where they are; others are copied, with rows of zeros behind. `*row` receives the distance
 * between rows. */
static __attribute__((unused)) const tl_real *narrow_rows(int64_t rows, int64_t columns,
                                                          const tl_real *in, tl_real *copy,
                                                          int64_t copy_row, tl_real *transposed,
                                                          int64_t *row) {
    *row = columns;
    if (columns % TL_LANES != 0 || rows % TL_LANES != 0) {
        tile_pad_rows(rows, columns, in, columns, copy, copy_row);
        memset(copy + rows * copy_row, 0,
               (size_t)((tile_columns(rows) - rows) * copy_row) * sizeof(tl_real));
        in = copy;
        *row = copy_row;
    }
    tile_transpose(rows, columns, in, *row, transposed, TL_ATTENTION_TILE);
    return in;
}

/* out [K, tile] = left [K, inner] transposed [inner, tile]. */
TL_INLINE void narrow_product(int64_t k, int64_t rows, int64_t inner, const tl_real *left,
                              int64_t left_row, const tl_real *transposed, tl_real *out) {
    tile_multiply_rows(k, rows, inner, left, left_row, transposed, TL_ATTENTION_TILE, NULL, out,
                       TL_ATTENTION_TILE);
}

TL_INLINE void narrow_add_bias(int64_t k, int64_t rows, const tl_real *bias, tl_real *values) {
    for (int64_t a = 0; a < k; a++) {
        tl_real *at = values + a * TL_ATTENTION_TILE;
        for (int64_t i = 0; i < rows; i += TL_LANES) {
            tl_v_store(at + i, tl_v_load(at + i) + bias[a]);
        }
    }
}

/* The sum of one channel's values. */
TL_INLINE tl_real narrow_sum(int64_t rows, const tl_real *values) {
    tl_v sum = tl_v_zero();
    int64_t i = 0;
    for (; i + TL_LANES <= rows; i += TL_LANES) {
        sum += tl_v_load(values + i);
    }
    return tl_v_sum(sum + tl_v_load_partial(values + i, rows - i));
}

/* The largest logit of one channel. What lies behind the rows, up to whole vectors, becomes the
 * logit of a weight of zero. */
TL_INLINE tl_real narrow_maximum(int64_t rows, tl_real *logits) {
    for (int64_t i = rows; i < tile_columns(rows); i++) {
        logits[i] = (tl_real)-INFINITY;
    }
    tl_v maximum = tl_v_load(logits);
    for (int64_t i = TL_LANES; i < rows; i += TL_LANES) {
        maximum = tl_v_max(maximum, tl_v_load(logits + i));
    }
    return tl_v_maximum(maximum);
}

/* One channel's logits become exp(logit - maximum); returns their sum. */
TL_INLINE tl_real narrow_exponentiate(int64_t rows, tl_real maximum, tl_real *logits) {
    tl_v sum = tl_v_zero();
    for (int64_t i = 0; i < rows; i += TL_LANES) {
        const tl_v p = tl_v_exp2_low(tl_v_load(logits + i) - maximum);
        tl_v_store(logits + i, p);
        sum += p;
    }
    return tl_v_sum(sum);
}

/* keys [K, tile]: logits on entry, exp(logit - maximum) / sum on return; inverse is 1 / sum. */
TL_INLINE void narrow_normalize(int64_t k, int64_t rows, const tl_real *maximum,
                                const tl_real *inverse, tl_real *keys) {
    for (int64_t a = 0; a < k; a++) {
        tl_real *at = keys + a * TL_ATTENTION_TILE;
        for (int64_t i = 0; i < rows; i += TL_LANES) {
            tl_v_store(at + i, tl_v_exp2_low(tl_v_load(at + i) - maximum[a]) * inverse[a]);
        }
    }
}

/* dkeys [K, tile]: gradients of the normalised keys on entry, of the logits on return; under
 * scaling (keys NULL) keys are linear. */
TL_INLINE void narrow_keys_gradient(int64_t k, int64_t rows, const tl_real *shift, tl_real scale,
                                    const tl_real *keys, tl_real *dkeys) {
    for (int64_t a = 0; a < k; a++) {
        tl_real *at = dkeys + a * TL_ATTENTION_TILE;
        for (int64_t i = 0; i < rows; i += TL_LANES) {
            const tl_v shifted = (tl_v_load(at + i) + shift[a]) * scale;
            tl_v_store(at + i, keys == NULL
                                   ? shifted
                                   : tl_v_load(keys + a * TL_ATTENTION_TILE + i) * shifted);
        }
    }
}

/* packed [K, row] = scale * weight [K, C]. */
TL_INLINE void narrow_pack(int64_t k, int64_t channels, const tl_real *weight, tl_real scale,
                           tl_real *packed, int64_t row) {
    for (int64_t a = 0; a < k; a++) {
        for (int64_t c = 0; c < channels; c++) {
            packed[a * row + c] = scale * weight[a * channels + c];
        }
    }
}

#endif
