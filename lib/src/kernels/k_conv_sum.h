/* k_conv_sum.h - gradients of weights as sums over pieces of the batch.
 *
 * The tiles are cut into at most TL_CONV_PIECES pieces, by shape and never by the number of
 * threads. Each piece adds up its tiles, in order, in a partial gradient of its own, and each tile
 * comes from registers that started at zero: two levels of summation before the pieces are added,
 * in order. A partial gradient is laid out [group][chunk of outputs][rows][vectors][TL_LANES], a
 * row being one number of an output's kernel.
 */
#ifndef TL_K_CONV_SUM_H
#define TL_K_CONV_SUM_H

#include "kernels/k_conv_blocks.h"

enum { TL_CONV_PIECES = 16, TL_CONV_LEAST_BYTES = 1 << 20, TL_CONV_MOST_BYTES = 4 << 20 };

/* How many pieces `tiles` tiles are cut into if a partial gradient has that many values: together
 * these take no more than half of what dy takes, for a step's memory is highest where they are
 * added up in a network's last layers. */
static inline int64_t tl_conv_piece_count(const tl_conv_shape *s, int64_t tiles, int64_t values) {
    const int64_t size = (int64_t)sizeof(tl_real);
    const int64_t gradient = s->batch * s->out[0] * s->out[1] * s->out[2] * s->out_channels * size;
    const int64_t bytes =
        tl_conv_maximum(TL_CONV_LEAST_BYTES, tl_conv_minimum(gradient / 2, TL_CONV_MOST_BYTES));
    const int64_t room = bytes / (values * size);
    return tl_conv_minimum(tiles, tl_conv_maximum(1, tl_conv_minimum(room, TL_CONV_PIECES)));
}

/* Where a chunk begins in a partial gradient. */
static inline int64_t tl_conv_chunk_start(int64_t channels, int64_t rows, int64_t group,
                                          int64_t chunk) {
    return (group * tl_conv_padded(channels) + chunk * 2 * TL_LANES) * rows;
}

/* sum[r] += over the positions, x[r] * y for rows 0 ... rows-1 of one run, in balanced blocks. */
static inline void tl_conv_outer_sweep(tl_conv_outer o, int64_t rows, int vectors) {
    const int64_t blocks = tl_conv_blocks(rows, vectors);
    const tl_real *const x = o.x;
    tl_real *const sum = o.sum;
    int64_t first = 0;
    for (int64_t b = 1; b <= blocks; b++) {
        const int64_t end = rows * b / blocks;
        o.x = x + first;
        o.sum = sum + first * vectors * TL_LANES;
        if (vectors == 2) {
            switch (end - first) { TL_CONV_CASES_2(tl_conv_outer_block, &o) }
        } else {
            switch (end - first) { TL_CONV_CASES_1(tl_conv_outer_block, &o) }
        }
        first = end;
    }
}

enum { TL_CONV_SUM_ROWS = 16 }; /* rows transposed at a time */

/* The pieces' sum, rows first ... end-1 of one chunk, put in its place in out [channels][rows]. */
static inline void tl_conv_sum_rows(const tl_real *partial, int64_t pieces, int64_t piece_values,
                                    int64_t first, int64_t end, int vectors, int64_t channels,
                                    int64_t rows, tl_real *out, bool accumulate) {
    tl_real block[TL_CONV_SUM_ROWS][2 * TL_VECTOR_BYTES / sizeof(tl_real)];
    const int64_t width = vectors * TL_LANES;
    for (int64_t r = first; r < end; r++) {
        for (int64_t v = 0; v < vectors; v++) {
            const tl_real *from = partial + r * width + v * TL_LANES;
            tl_v sum = tl_v_load(from);
            for (int64_t piece = 1; piece < pieces; piece++) {
                sum += tl_v_load(from + piece * piece_values);
            }
            tl_v_store(&block[r - first][v * TL_LANES], sum);
        }
    }
    for (int64_t o = 0; o < channels; o++) {
        for (int64_t r = first; r < end; r++) {
            tl_real *to = &out[o * rows + r];
            *to = accumulate ? *to + block[r - first][o] : block[r - first][o];
        }
    }
}

/* out [groups * channels][rows] (+)= the sum of the pieces. */
static inline void tl_conv_sum_pieces(const tl_real *partial, int64_t pieces, int64_t groups,
                                      int64_t channels, int64_t rows, tl_real *out, bool accumulate,
                                      int threads) {
    const int64_t piece_values = groups * tl_conv_padded(channels) * rows;
    const int64_t chunks = tl_conv_chunks(channels);
    const int64_t blocks = tl_conv_ceiling(rows, TL_CONV_SUM_ROWS);
    const int team = pieces * piece_values < TL_PARALLEL_MINIMUM ? 1 : threads;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t i = 0; i < groups * chunks * blocks; i++) {
        const int64_t first = i % blocks * TL_CONV_SUM_ROWS;
        const int64_t chunk = i / blocks % chunks;
        const int64_t group = i / blocks / chunks;
        const int vectors = tl_conv_chunk_vectors(channels, chunk);
        const int64_t done = chunk * 2 * TL_LANES;
        tl_conv_sum_rows(partial + tl_conv_chunk_start(channels, rows, group, chunk), pieces,
                         piece_values, first, tl_conv_minimum(rows, first + TL_CONV_SUM_ROWS),
                         vectors, tl_conv_minimum(channels - done, vectors * TL_LANES), rows,
                         out + (group * channels + done) * rows, accumulate);
    }
}

#endif
