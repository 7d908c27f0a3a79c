/* k_conv_winograd.h - Winograd's F(m x m, 3x3) on channels-last images, m = 2 or 4.
 *
 * A tile of m x m outputs is A^T [ (G g G^T) * (B^T d B) ] A, with * elementwise: (m + 2)^2
 * products where the definition needs 9 m^2, that is 16 for 36 or 36 for 144. Over many tiles and
 * channels each of these elements is a matrix product [tiles, inputs] x [inputs, outputs]. All
 * transforms run over vectors of channels; those of one line are in k_conv_winograd_lines.h.
 */
#ifndef TL_K_CONV_WINOGRAD_H
#define TL_K_CONV_WINOGRAD_H

#include "kernels/fetch_ahead.h"
#include "kernels/k_conv_blocks.h"
#include "kernels/k_conv_winograd_lines.h"
#include "kernels/k_gemm_micro.h"

enum { TL_WINOGRAD_MOST_ELEMENTS = TL_WINOGRAD_LINE * TL_WINOGRAD_LINE };

/* Rows of a register block of the products, tiles or input channels, for one or two vectors of
 * outputs. */
TL_INLINE int tl_winograd_block(int vectors) {
    return TL_VECTOR_REGISTERS == 32 ? (vectors == 2 ? 8 : 16) : (vectors == 2 ? 6 : 12);
}

/* Images cut into tiles of m x m outputs of the destination, numbered image by image and row by
 * row. Tile (h, w) reads the source from (m h - padding, m w - padding); the padding may be
 * negative. */
typedef struct tl_winograd_grid {
    int m;
    int64_t elements; /* (m + 2)^2 */
    int64_t images;
    int64_t source[2]; /* height, width */
    int64_t destination[2];
    int64_t padding[2];
    int64_t across[2]; /* tiles of an image */
    int64_t tiles;     /* in all */
} tl_winograd_grid;

static inline tl_winograd_grid tl_winograd_make_grid(const tl_conv_shape *s,
                                                     tl_conv_direction direction) {
    tl_winograd_grid g = {.m = tl_winograd_size(s, direction), .images = s->batch * s->in[0]};
    g.elements = (g.m + 2) * (g.m + 2);
    for (int d = 0; d < 2; d++) {
        const bool back = direction == TL_CONV_BACKWARD_INPUT;
        g.source[d] = back ? s->out[d + 1] : s->in[d + 1];
        g.destination[d] = back ? s->in[d + 1] : s->out[d + 1];
        g.padding[d] = back ? 2 - s->padding[d + 1] : s->padding[d + 1];
        g.across[d] = tl_conv_ceiling(g.destination[d], g.m);
    }
    g.tiles = g.images * g.across[0] * g.across[1];
    return g;
}

/* Where a tile lies; tl_winograd_next goes to the following one. */
typedef struct tl_winograd_place {
    int64_t image;
    int64_t at[2]; /* row and column of tiles */
} tl_winograd_place;

TL_INLINE tl_winograd_place tl_winograd_place_of(const tl_winograd_grid *g, int64_t tile) {
    const int64_t row = tile / g->across[1];
    return (tl_winograd_place){.image = row / g->across[0],
                               .at = {row % g->across[0], tile % g->across[1]}};
}

TL_INLINE void tl_winograd_next(const tl_winograd_grid *g, tl_winograd_place *place) {
    if (++place->at[1] == g->across[1]) {
        place->at[1] = 0;
        if (++place->at[0] == g->across[0]) {
            place->at[0] = 0;
            place->image++;
        }
    }
}

/* B^T d B of one vector of channels; d (i, j) at p + i row + j column, or at edge[(m + 2) i + j] +
 * c where that is given. v gets the elements `step` apart. */
TL_INLINE void tl_winograd_input_vector(const int m, const tl_real *p, int64_t row, int64_t column,
                                        const tl_real *const *edge, int64_t c, tl_real *v,
                                        int64_t step) {
    const int n = m + 2;
    tl_v t[TL_WINOGRAD_LINE][TL_WINOGRAD_LINE]; /* columns transformed, of row i */
    TL_CONV_UNROLL
    for (int j = 0; j < n; j++) {
        tl_v d[TL_WINOGRAD_LINE];
        tl_v transformed[TL_WINOGRAD_LINE];
        TL_CONV_UNROLL
        for (int i = 0; i < n; i++) {
            d[i] = tl_v_load(edge != NULL ? edge[n * i + j] + c : p + i * row + j * column);
        }
        tl_winograd_input_line(m, d, transformed);
        TL_CONV_UNROLL
        for (int i = 0; i < n; i++) {
            t[i][j] = transformed[i];
        }
    }
    TL_CONV_UNROLL
    for (int i = 0; i < n; i++) {
        tl_v transformed[TL_WINOGRAD_LINE];
        tl_winograd_input_line(m, t[i], transformed);
        TL_CONV_UNROLL
        for (int j = 0; j < n; j++) {
            tl_v_store(v + (n * i + j) * step, transformed[j]);
        }
    }
}

/* The same for a tile at the image's edge, all `width` channels: outside the image lie `zeros`. */
TL_INLINE void tl_winograd_input_edge(const int m, const tl_winograd_grid *g, const tl_real *image,
                                      int64_t h, int64_t w, int64_t channels, int64_t width,
                                      const tl_real *zeros, tl_real *v, int64_t step) {
    const int64_t n = m + 2;
    const tl_real *at[TL_WINOGRAD_MOST_ELEMENTS];
    for (int64_t i = 0; i < n; i++) {
        const bool row_inside = h + i >= 0 && h + i < g->source[0];
        for (int64_t j = 0; j < n; j++) {
            const bool inside = row_inside && w + j >= 0 && w + j < g->source[1];
            at[n * i + j] = inside ? image + ((h + i) * g->source[1] + w + j) * channels : zeros;
        }
    }
    for (int64_t c = 0; c < width; c += TL_LANES) {
        tl_winograd_input_vector(m, NULL, 0, 0, at, c, v + c, step);
    }
}

/* From one of the elements of `room` tiles of `width` channels to the next: not a power of two, so
 * that the places of one tile do not fall into one set of the cache. */
TL_INLINE int64_t tl_winograd_step(int64_t room, int64_t width) {
    return room * width + TL_LANES;
}

TL_INLINE void tl_winograd_input_of(const int m, const tl_winograd_grid *g, const tl_real *source,
                                    int64_t tile, int64_t count, int64_t channels, int64_t first,
                                    int64_t width, int64_t step, const tl_real *zeros, tl_real *v) {
    const int64_t row = g->source[1] * channels;
    tl_winograd_place place = tl_winograd_place_of(g, tile);
    for (int64_t t = 0; t < count; t++, tl_winograd_next(g, &place)) {
        const int64_t h = m * place.at[0] - g->padding[0];
        const int64_t w = m * place.at[1] - g->padding[1];
        const tl_real *image = source + place.image * g->source[0] * row + first;
        tl_real *to = v + t * width;
        if (h < 0 || w < 0 || h + m + 2 > g->source[0] || w + m + 2 > g->source[1]) {
            tl_winograd_input_edge(m, g, image, h, w, channels, width, zeros, to, step);
            continue;
        }
        const tl_real *from = image + h * row + w * channels;
        for (int64_t c = 0; c < width; c += TL_LANES) {
            tl_winograd_input_vector(m, from + c, row, channels, NULL, 0, to + c, step);
        }
    }
}

/* B^T d B of `count` tiles from `tile` on, channels first ... first+width-1 of `channels`:
 * v [elements][room][width], tile after tile, elements `step` apart. `zeros` holds `width` zeros.
 */
static void tl_winograd_input(const tl_winograd_grid *g, const tl_real *source, int64_t tile,
                              int64_t count, int64_t channels, int64_t first, int64_t width,
                              int64_t step, const tl_real *zeros, tl_real *v) {
    if (g->m == 2) {
        tl_winograd_input_of(2, g, source, tile, count, channels, first, width, step, zeros, v);
    } else {
        tl_winograd_input_of(4, g, source, tile, count, channels, first, width, step, zeros, v);
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

/* The memory of tiles first ... end-1, of a later piece, is fetched soon: the m source rows that
 * tiles above them have not read, and the destination. Their transforms would have to wait for it.
 */
TL_INLINE void tl_winograd_fetch(const tl_winograd_grid *g, int64_t first, int64_t end,
                                 const tl_real *source, int64_t sources, const tl_real *destination,
                                 int64_t destinations) {
    fetch_forget();
    while (first < end) {
        const tl_winograd_place place = tl_winograd_place_of(g, first);
        const int64_t count = tl_conv_minimum(end - first, g->across[1] - place.at[1]);
        const tl_real *from = source + place.image * g->source[0] * g->source[1] * sources;
        const tl_real *to =
            destination + place.image * g->destination[0] * g->destination[1] * destinations;
        const int64_t h = g->m * place.at[0];
        const int64_t w = g->m * place.at[1];
        const int64_t left = w == 0 ? 0 : w + 2 - g->padding[1];
        const int64_t right = w + 2 - g->padding[1] + g->m * count;
        for (int64_t i = 0; i < g->m; i++) {
            tl_winograd_fetch_row(from, g->source, sources, h + i + 2 - g->padding[0], left, right);
        }
        for (int64_t i = 0; i < g->m; i++) {
            tl_winograd_fetch_row(to, g->destination, destinations, h + i, w, w + g->m * count);
        }
        first += count;
    }
}

/* How many lines of `tiles` tiles, of so many channels of source and destination together, each of
 * `blocks` register blocks an element must ask for so that all have been asked for in the end. */
TL_INLINE int64_t tl_winograd_fetched(const tl_winograd_grid *g, int64_t tiles, int64_t channels,
                                      int64_t blocks) {
    return tl_conv_ceiling(tiles * g->m * g->m * channels, FETCH_LINE * g->elements * blocks);
}

#endif
