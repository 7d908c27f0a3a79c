/* k_conv_winograd.h - Winograd's F(2x2, 3x3) on channels-last images: tiles and transforms.
 *
 * A 2x2 block of outputs is A^T [ (G g G^T) * (B^T d B) ] A, with * elementwise: 16 products where
 * the definition needs 36 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
 * CVPR 2016; the matrices are Winograd's). Over many tiles and channels each of the 16 elements is
 * a matrix product [tiles, inputs] x [inputs, outputs]. All transforms run over vectors of
 * channels:
 *
 *         1  0 -1  0            1   0   0
 *   B^T = 0  1  1  0      G =  1/2 1/2 1/2      A^T = 1 1  1  0
 *         0 -1  1  0           1/2 -1/2 1/2           0 1 -1 -1
 *         0  1  0 -1            0   0   1
 */
#ifndef TL_K_CONV_WINOGRAD_H
#define TL_K_CONV_WINOGRAD_H

#include "kernels/fetch_ahead.h"
#include "kernels/k_conv_blocks.h"
#include "kernels/k_gemm_micro.h"

enum { TL_WINOGRAD_ELEMENTS = 16 };

/* Rows of a register block of the products, tiles or input channels, for one or two vectors of
 * outputs. */
TL_INLINE int tl_winograd_block(int vectors) {
    return TL_VECTOR_REGISTERS == 32 ? (vectors == 2 ? 8 : 16) : (vectors == 2 ? 6 : 12);
}

/* Images cut into 2x2 blocks of the destination, numbered image by image and row by row. Block
 * (h, w) reads the source from (2 h - padding, 2 w - padding); the padding may be negative. */
typedef struct tl_winograd_grid {
    int64_t images;
    int64_t source[2]; /* height, width */
    int64_t destination[2];
    int64_t padding[2];
    int64_t blocks[2];
    int64_t tiles; /* in all */
} tl_winograd_grid;

static inline tl_winograd_grid tl_winograd_make_grid(const tl_conv_shape *s,
                                                     tl_conv_direction direction) {
    tl_winograd_grid g = {.images = s->batch * s->in[0]};
    for (int d = 0; d < 2; d++) {
        const bool back = direction == TL_CONV_BACKWARD_INPUT;
        g.source[d] = back ? s->out[d + 1] : s->in[d + 1];
        g.destination[d] = back ? s->in[d + 1] : s->out[d + 1];
        g.padding[d] = back ? 2 - s->padding[d + 1] : s->padding[d + 1];
        g.blocks[d] = (g.destination[d] + 1) / 2;
    }
    g.tiles = g.images * g.blocks[0] * g.blocks[1];
    return g;
}

/* Where a tile lies; tl_winograd_next goes to the following one. */
typedef struct tl_winograd_place {
    int64_t image;
    int64_t block[2];
} tl_winograd_place;

TL_INLINE tl_winograd_place tl_winograd_place_of(const tl_winograd_grid *g, int64_t tile) {
    const int64_t row = tile / g->blocks[1];
    return (tl_winograd_place){.image = row / g->blocks[0],
                               .block = {row % g->blocks[0], tile % g->blocks[1]}};
}

TL_INLINE void tl_winograd_next(const tl_winograd_grid *g, tl_winograd_place *place) {
    if (++place->block[1] == g->blocks[1]) {
        place->block[1] = 0;
        if (++place->block[0] == g->blocks[0]) {
            place->block[0] = 0;
            place->image++;
        }
    }
}

/* B^T d B of one vector of channels; d (i, j) at p + i row + j column, or at edge[4 i + j] + c
 * where that is given. v gets the 16 elements `step` apart. */
TL_INLINE void tl_winograd_input_vector(const tl_real *p, int64_t row, int64_t column,
                                        const tl_real *const *edge, int64_t c, tl_real *v,
                                        int64_t step) {
    tl_v t[4][4];
    TL_CONV_UNROLL
    for (int j = 0; j < 4; j++) {
        tl_v d[4];
        TL_CONV_UNROLL
        for (int i = 0; i < 4; i++) {
            d[i] = tl_v_load(edge != NULL ? edge[4 * i + j] + c : p + i * row + j * column);
        }
        t[0][j] = d[0] - d[2];
        t[1][j] = d[1] + d[2];
        t[2][j] = d[2] - d[1];
        t[3][j] = d[1] - d[3];
    }
    TL_CONV_UNROLL
    for (int i = 0; i < 4; i++) {
        tl_v_store(v + (4 * i) * step, t[i][0] - t[i][2]);
        tl_v_store(v + (4 * i + 1) * step, t[i][1] + t[i][2]);
        tl_v_store(v + (4 * i + 2) * step, t[i][2] - t[i][1]);
        tl_v_store(v + (4 * i + 3) * step, t[i][1] - t[i][3]);
    }
}

/* The same for a tile at the image's edge, all `width` channels: outside the image lie `zeros`. */
static inline void tl_winograd_input_edge(const tl_winograd_grid *g, const tl_real *image,
                                          int64_t h, int64_t w, int64_t channels, int64_t width,
                                          const tl_real *zeros, tl_real *v, int64_t step) {
    const tl_real *at[TL_WINOGRAD_ELEMENTS];
    for (int64_t i = 0; i < 4; i++) {
        const bool row_inside = h + i >= 0 && h + i < g->source[0];
        for (int64_t j = 0; j < 4; j++) {
            const bool inside = row_inside && w + j >= 0 && w + j < g->source[1];
            at[4 * i + j] = inside ? image + ((h + i) * g->source[1] + w + j) * channels : zeros;
        }
    }
    for (int64_t c = 0; c < width; c += TL_LANES) {
        tl_winograd_input_vector(NULL, 0, 0, at, c, v + c, step);
    }
}

/* From one of the 16 elements of `room` tiles of `width` channels to the next: not a power of two,
 * so that the 16 places of one tile do not fall into one set of the cache. */
TL_INLINE int64_t tl_winograd_step(int64_t room, int64_t width) {
    return room * width + TL_LANES;
}

/* B^T d B of `count` tiles from `tile` on, channels first ... first+width-1 of `channels`:
 * v [16][room][width], tile after tile, elements `step` apart. `zeros` holds `width` zeros. */
TL_INLINE void tl_winograd_input(const tl_winograd_grid *g, const tl_real *source, int64_t tile,
                                 int64_t count, const int64_t channels, int64_t first,
                                 const int64_t width, int64_t step, const tl_real *zeros,
                                 tl_real *v) {
    const int64_t row = g->source[1] * channels;
    tl_winograd_place place = tl_winograd_place_of(g, tile);
    for (int64_t t = 0; t < count; t++, tl_winograd_next(g, &place)) {
        const int64_t h = 2 * place.block[0] - g->padding[0];
        const int64_t w = 2 * place.block[1] - g->padding[1];
        const tl_real *image = source + place.image * g->source[0] * row + first;
        tl_real *to = v + t * width;
        if (h < 0 || w < 0 || h + 4 > g->source[0] || w + 4 > g->source[1]) {
            tl_winograd_input_edge(g, image, h, w, channels, width, zeros, to, step);
            continue;
        }
        const tl_real *from = image + h * row + w * channels;
        for (int64_t c = 0; c < width; c += TL_LANES) {
            tl_winograd_input_vector(from + c, row, channels, NULL, 0, to + c, step);
        }
    }
}

/* Positions first ... end-1 of row `h` of an image, as far as they are inside, are fetched soon. */
TL_INLINE void tl_winograd_fetch_row(const tl_real *image, const int64_t extents[2],
                                     int64_t channels, int64_t h, int64_t first, int64_t end) {
    const int64_t begin = tl_conv_maximum(first, 0);
    if (h >= 0 && h < extents[0]) {
        fetch_later(image + (h * extents[1] + begin) * channels,
                    (tl_conv_minimum(end, extents[1]) - begin) * channels);
    }
}

/* The memory of tiles first ... end-1, of a later piece, is fetched soon: the two source rows that
 * tiles above them have not read, and the destination. Their transforms would have to wait for it.
 */
TL_INLINE void tl_winograd_fetch(const tl_winograd_grid *g, int64_t first, int64_t end,
                                 const tl_real *source, int64_t sources, const tl_real *destination,
                                 int64_t destinations) {
    fetch_forget();
    while (first < end) {
        const tl_winograd_place place = tl_winograd_place_of(g, first);
        const int64_t count = tl_conv_minimum(end - first, g->blocks[1] - place.block[1]);
        const tl_real *from = source + place.image * g->source[0] * g->source[1] * sources;
        const tl_real *to =
            destination + place.image * g->destination[0] * g->destination[1] * destinations;
        const int64_t w = 2 * place.block[1];
        const int64_t right = w + 2 - g->padding[1];
        for (int64_t i = 0; i < 2; i++) {
            const int64_t h = 2 * place.block[0] + i;
            tl_winograd_fetch_row(from, g->source, sources, h + 2 - g->padding[0], right,
                                  right + 2 * count);
            tl_winograd_fetch_row(to, g->destination, destinations, h, w, w + 2 * count);
        }
        first += count;
    }
}

#endif
