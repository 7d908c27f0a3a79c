/* k_conv_winograd.h - the tiles and transforms of Winograd's F(2x2, 3x3).
 *
 * Lavin and Gray, "Fast algorithms for convolutional neural networks" (arXiv 1509.09308): a tile
 * of 2x2 outputs comes from a patch d of 4x4 inputs and the 3x3 kernel g as
 *
 *     Y = At [ (G g Gt) * (Bt d B) ] A        (* element by element: 16 products instead of 36)
 *
 *     Bt = 1  0 -1  0     G = 1    0    0      At = 1  1  1  0
 *          0  1  1  0        1/2  1/2  1/2          0  1 -1 -1
 *          0 -1  1  0        1/2 -1/2  1/2
 *          0  1  0 -1         0    0    1
 *
 * and summed over input channels each of the 16 products is a matrix product tiles x channels. The
 * gradient of the kernel is Gt [ sum over tiles (Bt d B) * (A dY At) ] G.
 * Tiles are numbered through all images, row by row. Odd heights and widths are cut off at the end.
 */
#ifndef TL_K_CONV_WINOGRAD_H
#define TL_K_CONV_WINOGRAD_H

#include "kernels/k_conv_tiles.h"

enum { TL_WINOGRAD_POINTS = 16 }; /* products of a tile */

typedef struct tl_winograd_map {
    int64_t batch;
    int64_t height; /* of the input */
    int64_t width;
    int64_t out_height;
    int64_t out_width;
    int64_t tile_rows;
    int64_t tile_columns;
    int64_t pad_height;
    int64_t pad_width;
    int64_t tiles;
    int64_t item_tiles; /* tiles worked on at once */
    int64_t items;
} tl_winograd_map;

/* 48 tiles are whole blocks of 6, 8 and 12 rows; fewer where few tiles must keep threads busy or
 * many channels would overflow the second-level cache. */
static inline tl_winograd_map tl_winograd_make_map(const tl_conv_shape *s, int64_t in_height,
                                                   int64_t in_width, int64_t out_height,
                                                   int64_t out_width, int64_t pad_height,
                                                   int64_t pad_width) {
    tl_winograd_map m = {.batch = s->batch,
                         .height = in_height,
                         .width = in_width,
                         .out_height = out_height,
                         .out_width = out_width,
                         .tile_rows = (out_height + 1) / 2,
                         .tile_columns = (out_width + 1) / 2,
                         .pad_height = pad_height,
                         .pad_width = pad_width};
    m.tiles = m.batch * m.tile_rows * m.tile_columns;
    const int64_t most = s->in_channels + s->out_channels <= 96 ? 48 : 24;
    m.item_tiles = tl_conv_minimum(most, tl_conv_maximum(8, m.tiles / TL_CONV_TILES_WANTED));
    m.items = tl_conv_ceiling(m.tiles, m.item_tiles);
    return m;
}

typedef struct tl_winograd_place {
    int64_t image;
    int64_t row; /* of the tile's first output */
    int64_t column;
} tl_winograd_place;

TL_INLINE tl_winograd_place tl_winograd_locate(const tl_winograd_map *m, int64_t tile) {
    tl_winograd_place p;
    p.column = tile % m->tile_columns * 2;
    tile /= m->tile_columns;
    p.row = tile % m->tile_rows * 2;
    p.image = tile / m->tile_rows;
    return p;
}

/* Bt along one dimension. */
TL_INLINE void tl_winograd_bt(const tl_v d[4], tl_v out[4]) {
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[1] - d[3];
}

/* One vector of channels of one patch: 16 values at out, out + stride, ... `patch` has the 16
 * source addresses, NULL where there is only padding. */
TL_INLINE void tl_winograd_transform_input(const tl_real *const patch[16], int64_t channel,
                                           tl_real *out, int64_t stride) {
    tl_v half[4][4]; /* [column][row of Bt] */
    for (int j = 0; j < 4; j++) {
        tl_v d[4];
        for (int i = 0; i < 4; i++) {
            const tl_real *at = patch[i * 4 + j];
            d[i] = at != NULL ? tl_v_load(at + channel) : tl_v_zero();
        }
        tl_winograd_bt(d, half[j]);
    }
    for (int i = 0; i < 4; i++) {
        const tl_v d[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
        tl_v v[4];
        tl_winograd_bt(d, v);
        for (int j = 0; j < 4; j++) {
            tl_v_store(out + (i * 4 + j) * stride, v[j]);
        }
    }
}

/* The same where all 16 addresses are inside: row i begins at `corner` + i * row_stride. */
TL_INLINE void tl_winograd_transform_inside(const tl_real *corner, int64_t row_stride,
                                            int64_t channels, tl_real *out, int64_t stride) {
    tl_v half[4][4];
    for (int j = 0; j < 4; j++) {
        tl_v d[4];
        for (int i = 0; i < 4; i++) {
            d[i] = tl_v_load(corner + i * row_stride + j * channels);
        }
        tl_winograd_bt(d, half[j]);
    }
    for (int i = 0; i < 4; i++) {
        const tl_v d[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
        tl_v v[4];
        tl_winograd_bt(d, v);
        for (int j = 0; j < 4; j++) {
            tl_v_store(out + (i * 4 + j) * stride, v[j]);
        }
    }
}

/* Patches of tiles first ... first + count - 1 of source [N, height, width, channels] into
 * transformed [16][item_tiles][channels]. */
static inline void tl_winograd_transform_patches(const tl_winograd_map *m, const tl_real *source,
                                                 int64_t channels, int64_t first, int64_t count,
                                                 tl_real *transformed) {
    const int64_t stride = m->item_tiles * channels;
    for (int64_t t = 0; t < count; t++) {
        const tl_winograd_place place = tl_winograd_locate(m, first + t);
        const int64_t row = place.row - m->pad_height;
        const int64_t column = place.column - m->pad_width;
        const tl_real *image = source + place.image * m->height * m->width * channels;
        tl_real *out = transformed + t * channels;
        if (row >= 0 && column >= 0 && row + 4 <= m->height && column + 4 <= m->width) {
            const tl_real *corner = image + (row * m->width + column) * channels;
            for (int64_t c = 0; c < channels; c += TL_LANES) {
                tl_winograd_transform_inside(corner + c, m->width * channels, channels, out + c,
                                             stride);
            }
            continue;
        }
        const tl_real *patch[16];
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 4; j++) {
                const bool inside =
                    row + i >= 0 && row + i < m->height && column + j >= 0 && column + j < m->width;
                patch[i * 4 + j] =
                    inside ? image + ((row + i) * m->width + column + j) * channels : NULL;
            }
        }
        for (int64_t c = 0; c < channels; c += TL_LANES) {
            tl_winograd_transform_input(patch, c, out + c, stride);
        }
    }
}

#endif
