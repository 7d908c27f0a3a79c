/* channel_rows.h - how kernels walk over [sets, rows, channels] with values per channel.
 *
 * `repeat` rows are taken together as one *wide row* of width = repeat * channels values, a
 * multiple of the vector and at least four vectors; arrays per channel are repeated likewise. So 1,
 * 3 or 16 channels run as well as 64. Rows that fill no wide row are the *tail* of their set.
 * For sums, the wide rows of a set are cut into pieces by the shape alone.
 */
#ifndef TL_CHANNEL_ROWS_H
#define TL_CHANNEL_ROWS_H

#include "kernels/kernels.h"
#include "kernels/simd.h"

typedef struct channel_rows {
    int64_t sets;
    int64_t rows;
    int64_t channels;
    int64_t repeat;
    int64_t width;      /* repeat * channels */
    int64_t wide;       /* wide rows in a set */
    int64_t tail;       /* values of a set behind its wide rows */
    int64_t piece_rows; /* wide rows in a piece (the last may have fewer) */
    int64_t pieces;     /* pieces in a set */
} channel_rows;

enum {
    CHANNEL_ROWS_BLOCK = 128,  /* wide rows summed in tl_real before going over to double */
    CHANNEL_ROWS_PIECES = 64,  /* pieces over all sets */
    CHANNEL_ROWS_WIDTH = 65536 /* values per channel in all pieces of a set, about */
};

TL_INLINE int64_t channel_rows_minimum(int64_t a, int64_t b) {
    return a < b ? a : b;
}

TL_INLINE channel_rows channel_rows_of(int64_t sets, int64_t rows, int64_t channels) {
    int64_t step = TL_LANES; /* smallest repeat that makes whole vectors */
    while (step > 1 && (step / 2) * channels % TL_LANES == 0) {
        step /= 2;
    }
    const int64_t wanted = (4 * TL_LANES + channels - 1) / channels;
    channel_rows r = {.sets = sets, .rows = rows, .channels = channels};
    r.repeat = (wanted + step - 1) / step * step;
    r.width = r.repeat * channels;
    r.wide = rows / r.repeat;
    r.tail = (rows - r.wide * r.repeat) * channels;
    int64_t most = channel_rows_minimum(CHANNEL_ROWS_PIECES / sets, CHANNEL_ROWS_WIDTH / r.width);
    most = channel_rows_minimum(most, (r.wide + CHANNEL_ROWS_BLOCK - 1) / CHANNEL_ROWS_BLOCK);
    most = most < 1 ? 1 : most;
    const int64_t per_piece = (r.wide + most - 1) / most;
    r.piece_rows = per_piece < 1 ? 1 : per_piece;
    r.pieces = (r.wide + r.piece_rows - 1) / r.piece_rows;
    return r;
}

/* The number of threads worth starting for `tasks` tasks over all values. */
TL_INLINE int channel_rows_threads(const channel_rows *r, int threads) {
    return r->sets * r->rows * r->channels > TL_PARALLEL_MINIMUM ? threads : 1;
}

/* [sets, channels] -> [sets, width] at `out`; the array itself if a wide row is a row. */
TL_INLINE const tl_real *channel_rows_repeat(const channel_rows *r, const tl_real *values,
                                             tl_real *out) {
    if (r->repeat == 1 || values == NULL) {
        return values;
    }
    for (int64_t set = 0; set < r->sets; set++) {
        for (int64_t i = 0; i < r->repeat; i++) {
            memcpy(out + set * r->width + i * r->channels, values + set * r->channels,
                   (size_t)r->channels * sizeof(tl_real));
        }
    }
    return out;
}

/* Scratch of the summing passes, per piece: two arrays of doubles, three of tl_real. */
typedef struct channel_piece {
    double *first;
    double *second;
    tl_real *block_first;
    tl_real *block_second;
    tl_real *shift;
} channel_piece;

TL_INLINE size_t channel_piece_bytes(const channel_rows *r) {
    return (size_t)r->width * (2 * sizeof(double) + 3 * sizeof(tl_real));
}

TL_INLINE channel_piece channel_piece_at(const channel_rows *r, void *scratch, int64_t task) {
    char *base = (char *)scratch + (size_t)task * channel_piece_bytes(r);
    channel_piece p;
    p.first = (double *)(void *)base;
    p.second = p.first + r->width;
    p.block_first = (tl_real *)(void *)(p.second + r->width);
    p.block_second = p.block_first + r->width;
    p.shift = p.block_second + r->width;
    return p;
}

#endif
