/* k_conv_winograd.h - Winograd's algorithms on channels-last images: tiles and their transforms.
 *
 * A tile of outputs is A^T [ (G g G^T) * (B^T d B) ] A, with * elementwise and the matrices of
 * k_conv_winograd_lines.h. F(2x2, 3x3) takes 16 products where the definition needs 36, F(4x4, 3x3)
 * 36 for 144, and with stride 2 there are 81 for 144. Over many tiles and channels each of these
 * elements is a matrix product [tiles, inputs] x [inputs, outputs]. All transforms run over vectors
 * of channels.
 */
#ifndef TL_K_CONV_WINOGRAD_H
#define TL_K_CONV_WINOGRAD_H

#include "kernels/fetch_ahead.h"
#include "kernels/k_conv_blocks.h"
#include "kernels/k_conv_winograd_choice.h"
#include "kernels/k_gemm_micro.h"

/* Most elements of a tile, and most of their weights. */
enum {
    TL_WINOGRAD_TILE_ELEMENTS = TL_WINOGRAD_ELEMENTS * TL_WINOGRAD_ELEMENTS,
    TL_WINOGRAD_TILE_WEIGHTS = TL_WINOGRAD_WEIGHTS * TL_WINOGRAD_WEIGHTS,
};

/* CALL(kind), compiled for each kind of tile as a constant. */
#define TL_WINOGRAD_FOR_KIND(kind, CALL)                                                           \
    if ((kind) == TL_WINOGRAD_2) {                                                                 \
        CALL(TL_WINOGRAD_2);                                                                       \
    } else if ((kind) == TL_WINOGRAD_4) {                                                          \
        CALL(TL_WINOGRAD_4);                                                                       \
    } else if ((kind) == TL_WINOGRAD_STRIDED) {                                                    \
        CALL(TL_WINOGRAD_STRIDED);                                                                 \
    } else {                                                                                       \
        CALL(TL_WINOGRAD_STRIDED_BACK);                                                            \
    }

/* Rows of a register block of the products, tiles or input channels, for one or two vectors of
 * outputs. */
TL_INLINE int tl_winograd_block(int vectors) {
    return TL_VECTOR_REGISTERS == 32 ? (vectors == 2 ? 8 : 16) : (vectors == 2 ? 6 : 12);
}

/* Images cut into tiles of the destination, numbered image by image and row by row. Tile (h, w)
 * reads the source from (advance h - padding, advance w - padding); the padding may be negative. */
typedef struct tl_winograd_grid {
    tl_winograd_kind kind;
    tl_winograd_line line;
    int64_t elements; /* of a tile */
    int64_t weights;
    int64_t images;
    int64_t source[2]; /* height, width */
    int64_t destination[2];
    int64_t padding[2];
    int64_t across[2];                                   /* tiles of an image */
    int64_t tiles;                                       /* in all */
    unsigned char weights_of[TL_WINOGRAD_TILE_ELEMENTS]; /* which an element is multiplied by */
} tl_winograd_grid;

static inline tl_winograd_grid tl_winograd_make_grid(const tl_conv_shape *s,
                                                     tl_conv_direction direction) {
    tl_winograd_grid g = {.kind = tl_winograd_choose(s, direction), .images = s->batch * s->in[0]};
    g.line = tl_winograd_line_of(g.kind);
    g.elements = g.line.elements * g.line.elements;
    g.weights = g.line.weights * g.line.weights;
    for (int d = 0; d < 2; d++) {
        const bool back = direction == TL_CONV_BACKWARD_INPUT;
        g.source[d] = back ? s->out[d + 1] : s->in[d + 1];
        g.destination[d] = back ? s->in[d + 1] : s->out[d + 1];
        const int64_t padding = s->padding[d + 1];
        g.padding[d] = !back
                           ? padding
                           : (g.kind == TL_WINOGRAD_STRIDED_BACK ? (1 - padding) / 2 : 2 - padding);
        g.across[d] = tl_conv_ceiling(g.destination[d], g.line.outputs);
    }
    g.tiles = g.images * g.across[0] * g.across[1];
    for (int i = 0; i < g.line.elements; i++) {
        for (int j = 0; j < g.line.elements; j++) {
            const int row = i < g.line.weights ? i : g.line.weights - 1;
            const int column = j < g.line.weights ? j : g.line.weights - 1;
            g.weights_of[i * g.line.elements + j] = (unsigned char)(row * g.line.weights + column);
        }
    }
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

/* The second half of a tile's transform: every row of t (its columns are transformed already) by
 * `line`, to `to`, whose numbers lie `step` apart. */
typedef void tl_winograd_line_function(tl_winograd_kind kind, const tl_v *from, tl_v *to);

TL_INLINE void tl_winograd_store_rows(tl_winograd_line_function *line, tl_winograd_kind kind,
                                      const int count,
                                      tl_v t[TL_WINOGRAD_ELEMENTS][TL_WINOGRAD_ELEMENTS],
                                      tl_real *to, int64_t step) {
    TL_CONV_UNROLL
    for (int i = 0; i < count; i++) {
        tl_v transformed[TL_WINOGRAD_ELEMENTS];
        line(kind, t[i], transformed);
        TL_CONV_UNROLL
        for (int j = 0; j < count; j++) {
            tl_v_store(to + (count * i + j) * step, transformed[j]);
        }
    }
}

/* B^T d B of one vector of channels; d (i, j) at rows[i] + j column, or zero where bit j of
 * `inside` is not set. v gets the elements `step` apart. */
TL_INLINE void tl_winograd_input_vector(tl_winograd_kind kind, const tl_real *const *rows,
                                        int64_t column, unsigned inside, tl_real *v, int64_t step) {
    const tl_winograd_line line = tl_winograd_line_of(kind);
    tl_v t[TL_WINOGRAD_ELEMENTS][TL_WINOGRAD_ELEMENTS]; /* columns transformed, of row i */
    TL_CONV_UNROLL
    for (int j = 0; j < line.inputs; j++) {
        tl_v d[TL_WINOGRAD_ELEMENTS];
        tl_v transformed[TL_WINOGRAD_ELEMENTS];
        if ((inside >> j & 1u) != 0) {
            TL_CONV_UNROLL
            for (int i = 0; i < line.inputs; i++) {
                d[i] = tl_v_load(rows[i] + j * column);
            }
            tl_winograd_input_line(kind, d, transformed);
        } else {
            TL_CONV_UNROLL
            for (int i = 0; i < line.elements; i++) {
                transformed[i] = tl_v_zero();
            }
        }
        TL_CONV_UNROLL
        for (int i = 0; i < line.elements; i++) {
            t[i][j] = transformed[i];
        }
    }
    tl_winograd_store_rows(tl_winograd_input_line, kind, line.elements, t, v, step);
}

/* All `width` channels of a tile that begins at row h and column w. Rows outside the image are read
 * from `zeros`, columns outside not at all. */
TL_INLINE void tl_winograd_input_tile(tl_winograd_kind kind, const tl_winograd_grid *g,
                                      const tl_real *image, int64_t h, int64_t w, int64_t channels,
                                      int64_t width, bool whole, const tl_real *zeros, tl_real *v,
                                      int64_t step) {
    const int64_t inputs = tl_winograd_line_of(kind).inputs;
    const int64_t row = g->source[1] * channels;
    const tl_real *rows[TL_WINOGRAD_ELEMENTS];
    unsigned inside = 0;
    for (int i = 0; i < inputs; i++) {
        rows[i] = whole || (h + i >= 0 && h + i < g->source[0])
                      ? image + (h + i) * row + w * channels
                      : zeros;
        inside |= (unsigned)(whole || (w + i >= 0 && w + i < g->source[1])) << i;
    }
    for (int64_t c = 0; c < width; c += TL_LANES) {
        const tl_real *at[TL_WINOGRAD_ELEMENTS];
        TL_CONV_UNROLL
        for (int i = 0; i < inputs; i++) {
            at[i] = rows[i] + c;
        }
        tl_winograd_input_vector(kind, at, channels, whole ? ~0u : inside, v + c, step);
    }
}

/* From one of the elements of `room` tiles of `width` channels to the next: not a power of two, so
 * that the places of one tile do not fall into one set of the cache. */
TL_INLINE int64_t tl_winograd_step(int64_t room, int64_t width) {
    return room * width + TL_LANES;
}

/* A row of zeros that tiles outside an image read. */
TL_INLINE int64_t tl_winograd_zeros(const tl_winograd_grid *g, int64_t channels) {
    return g->line.inputs * channels;
}

TL_INLINE void tl_winograd_input_of(tl_winograd_kind kind, const tl_winograd_grid *g,
                                    const tl_real *source, int64_t tile, int64_t count,
                                    int64_t channels, int64_t first, int64_t width, int64_t step,
                                    const tl_real *zeros, tl_real *v) {
    const tl_winograd_line line = tl_winograd_line_of(kind);
    tl_winograd_place place = tl_winograd_place_of(g, tile);
    for (int64_t t = 0; t < count; t++, tl_winograd_next(g, &place)) {
        const int64_t h = line.advance * place.at[0] - g->padding[0];
        const int64_t w = line.advance * place.at[1] - g->padding[1];
        const tl_real *image =
            source + place.image * g->source[0] * g->source[1] * channels + first;
        tl_real *to = v + t * width;
        if (h >= 0 && w >= 0 && h + line.inputs <= g->source[0] &&
            w + line.inputs <= g->source[1]) {
            tl_winograd_input_tile(kind, g, image, h, w, channels, width, true, zeros, to, step);
        } else {
            tl_winograd_input_tile(kind, g, image, h, w, channels, width, false, zeros, to, step);
        }
    }
}

/* B^T d B of `count` tiles from `tile` on, channels first ... first+width-1 of `channels`:
 * v [elements][room][width], tile after tile, elements `step` apart. `zeros` holds the zeros of
 * tl_winograd_zeros. */
typedef void tl_winograd_input_function(const tl_winograd_grid *g, const tl_real *source,
                                        int64_t tile, int64_t count, int64_t channels,
                                        int64_t first, int64_t width, int64_t step,
                                        const tl_real *zeros, tl_real *v);

/* Compiled for each kind of tile, as functions of their own: all kinds in one take a tenth longer.
 */
#define TL_WINOGRAD_INPUT(name, kind)                                                              \
    static void name(const tl_winograd_grid *g, const tl_real *source, int64_t tile,               \
                     int64_t count, int64_t channels, int64_t first, int64_t width, int64_t step,  \
                     const tl_real *zeros, tl_real *v) {                                           \
        tl_winograd_input_of(kind, g, source, tile, count, channels, first, width, step, zeros,    \
                             v);                                                                   \
    }
TL_WINOGRAD_INPUT(tl_winograd_input_2, TL_WINOGRAD_2)
TL_WINOGRAD_INPUT(tl_winograd_input_4, TL_WINOGRAD_4)
TL_WINOGRAD_INPUT(tl_winograd_input_strided, TL_WINOGRAD_STRIDED)
TL_WINOGRAD_INPUT(tl_winograd_input_strided_back, TL_WINOGRAD_STRIDED_BACK)
static tl_winograd_input_function *const tl_winograd_input[4] = {
    [TL_WINOGRAD_2] = tl_winograd_input_2,
    [TL_WINOGRAD_4] = tl_winograd_input_4,
    [TL_WINOGRAD_STRIDED] = tl_winograd_input_strided,
    [TL_WINOGRAD_STRIDED_BACK] = tl_winograd_input_strided_back,
};

/* Positions first ... end-1 of row `h` of an image, as far as they are inside, are fetched soon. */
TL_INLINE void tl_winograd_fetch_row(const tl_real *image, const int64_t extents[2],
                                     int64_t channels, int64_t h, int64_t first, int64_t end) {
    const int64_t begin = tl_conv_maximum(first, 0);
    if (h >= 0 && h < extents[0]) {
        fetch_later(image + (h * extents[1] + begin) * channels,
                    (tl_conv_minimum(end, extents[1]) - begin) * channels);
    }
}

/* In place of a number of tiles: ask for nothing but what is queued already. */
enum { TL_WINOGRAD_QUEUED = -1 };

/* The memory of tiles first ... end-1, of a later piece, is fetched soon: the source rows that
 * tiles above them have not read, and the destination. Their transforms would have to wait for it.
 */
TL_INLINE void tl_winograd_fetch(const tl_winograd_grid *g, int64_t first, int64_t end,
                                 const tl_real *source, int64_t sources, const tl_real *destination,
                                 int64_t destinations) {
    const tl_winograd_line line = g->line;
    const int64_t shared = line.inputs - line.advance;
    fetch_forget();
    while (first < end) {
        const tl_winograd_place place = tl_winograd_place_of(g, first);
        const int64_t count = tl_conv_minimum(end - first, g->across[1] - place.at[1]);
        const tl_real *from = source + place.image * g->source[0] * g->source[1] * sources;
        const tl_real *to =
            destination + place.image * g->destination[0] * g->destination[1] * destinations;
        const int64_t top = line.advance * place.at[0] + shared - g->padding[0];
        const int64_t left = line.advance * place.at[1] + shared - g->padding[1];
        for (int64_t i = 0; i < line.advance; i++) {
            tl_winograd_fetch_row(from, g->source, sources, top + i, place.at[1] == 0 ? 0 : left,
                                  left + line.advance * count);
        }
        const int64_t h = line.outputs * place.at[0];
        const int64_t w = line.outputs * place.at[1];
        for (int64_t i = 0; i < line.outputs; i++) {
            tl_winograd_fetch_row(to, g->destination, destinations, h + i, w,
                                  w + line.outputs * count);
        }
        first += count;
    }
}

/* How many lines of `tiles` tiles each of `blocks` register blocks an element must ask for so that
 * all have been asked for in the end. */
TL_INLINE int64_t tl_winograd_fetched(const tl_winograd_grid *g, int64_t tiles, int64_t sources,
                                      int64_t destinations, int64_t blocks) {
    const int64_t read = g->line.advance * g->line.advance * sources;
    const int64_t written = g->line.outputs * g->line.outputs * destinations;
    return tl_conv_ceiling(tiles * (read + written), FETCH_LINE * g->elements * blocks);
}

#endif
