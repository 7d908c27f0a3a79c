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

#include "kernels/k_conv_blocks.h"

enum { TL_WINOGRAD_ELEMENTS = 16 };

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

/* B^T d B of one vector of channels: d at p, v gets the 16 elements `step` apart. */
TL_INLINE void tl_winograd_input_vector(const tl_real *p, int64_t row, int64_t column, tl_real *v,
                                        int64_t step) {
    tl_v t[4][4];
    TL_CONV_UNROLL
    for (int j = 0; j < 4; j++) {
        const tl_v d0 = tl_v_load(p + j * column);
        const tl_v d1 = tl_v_load(p + row + j * column);
        const tl_v d2 = tl_v_load(p + 2 * row + j * column);
        const tl_v d3 = tl_v_load(p + 3 * row + j * column);
        t[0][j] = d0 - d2;
        t[1][j] = d1 + d2;
        t[2][j] = d2 - d1;
        t[3][j] = d1 - d3;
    }
    TL_CONV_UNROLL
    for (int i = 0; i < 4; i++) {
        tl_v_store(v + (4 * i) * step, t[i][0] - t[i][2]);
        tl_v_store(v + (4 * i + 1) * step, t[i][1] + t[i][2]);
        tl_v_store(v + (4 * i + 2) * step, t[i][2] - t[i][1]);
        tl_v_store(v + (4 * i + 3) * step, t[i][1] - t[i][3]);
    }
}

/* Copies the 4x4 source values of a tile at the image's edge, channels first ... first+count-1, to
 * `patch` [4][4][count], zeros outside the image. */
static void tl_winograd_fill_patch(const tl_winograd_grid *g, const tl_real *image, int64_t h,
                                   int64_t w, int64_t channels, int64_t first, int64_t count,
                                   tl_real *patch) {
    for (int64_t i = 0; i < 4; i++) {
        for (int64_t j = 0; j < 4; j++, patch += count) {
            const bool inside =
                h + i >= 0 && h + i < g->source[0] && w + j >= 0 && w + j < g->source[1];
            if (inside) {
                const tl_real *from = image + ((h + i) * g->source[1] + w + j) * channels + first;
                for (int64_t c = 0; c < count; c += TL_LANES) {
                    tl_v_store(patch + c, tl_v_load(from + c));
                }
            } else {
                for (int64_t c = 0; c < count; c += TL_LANES) {
                    tl_v_store(patch + c, tl_v_zero());
                }
            }
        }
    }
}

/* B^T d B of `count` tiles from `tile` on, channels first ... first+width-1 of `channels`:
 * v [16][room][width], tile after tile. `patch` holds 16 * width values. */
TL_INLINE void tl_winograd_input(const tl_winograd_grid *g, const tl_real *source, int64_t tile,
                                 int64_t count, int64_t channels, int64_t first, int64_t width,
                                 int64_t room, tl_real *patch, tl_real *v) {
    tl_winograd_place place = tl_winograd_place_of(g, tile);
    for (int64_t t = 0; t < count; t++, tl_winograd_next(g, &place)) {
        const int64_t h = 2 * place.block[0] - g->padding[0];
        const int64_t w = 2 * place.block[1] - g->padding[1];
        const tl_real *image = source + place.image * g->source[0] * g->source[1] * channels;
        const tl_real *from = image + (h * g->source[1] + w) * channels + first;
        int64_t column = channels;
        int64_t row = g->source[1] * channels;
        if (h < 0 || w < 0 || h + 4 > g->source[0] || w + 4 > g->source[1]) {
            tl_winograd_fill_patch(g, image, h, w, channels, first, width, patch);
            from = patch;
            column = width;
            row = 4 * width;
        }
        for (int64_t c = 0; c < width; c += TL_LANES) {
            tl_winograd_input_vector(from + c, row, column, v + t * width + c, room * width);
        }
    }
}

#endif
