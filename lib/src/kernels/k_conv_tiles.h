/* k_conv_tiles.h - how a convolution is cut into tiles of output positions.
 *
 * Forward and every phase of backward_input are the same computation, a *correlation* of a source
 * with a set of taps: along each axis, output position q (of `count`) lies at
 * destination_start + q destination_step, and its tap j (of `taps`) reads the source at
 * q source_step + first + j step and the kernel at kernel_first + j kernel_step.
 *
 *   forward          destination q, source q stride + k dilation - padding, all k
 *   backward_input   input i = r + q stride for a phase r < stride; kernel position k reaches it
 *                    from output (i + padding - k dilation) / stride, for those k where that is
 *                    whole: every (stride / g)-th, g = gcd(stride, dilation), and from one to the
 *                    next the output moves by dilation / g
 *
 * A tile is a box of positions of one or several images. Its part of the source is read in place if
 * it lies inside the source, and else copied with zeros around it (the "slab") into scratch.
 */
#ifndef TL_K_CONV_TILES_H
#define TL_K_CONV_TILES_H

#include "kernels/k_conv_blocks.h"

typedef struct tl_conv_axis {
    int64_t source; /* extents */
    int64_t destination;
    int64_t count;
    int64_t source_step;
    int64_t destination_start;
    int64_t destination_step;
    int64_t taps;
    int64_t first;
    int64_t step;
    int64_t kernel_first;
    int64_t kernel_step;
    int64_t tile; /* positions in a tile */
    int64_t tiles;
    int64_t slab; /* source positions that a tile spans */
} tl_conv_axis;

typedef struct tl_conv_correlation {
    int64_t batch;
    int64_t source_channels; /* of all groups */
    int64_t destination_channels;
    int64_t groups;
    tl_conv_axis axis[3];
    int64_t images;      /* in a tile */
    int64_t items;       /* tiles in all */
    int64_t positions;   /* the most in a tile */
    int64_t slab_values; /* 0: no tile needs a copy */
    int64_t segments;    /* runs of contiguous source values that a position reads */
    int64_t length;      /* values in a run: taps of the last axis times channels, or channels */
} tl_conv_correlation;

/* Positions a tile aims at: its source and destination stay in the first-level cache at the usual
 * channel counts. */
enum { TL_CONV_TILE_POSITIONS = 96 };

/* Extent of equal pieces of `count` that do not exceed `most`. */
TL_INLINE int64_t tl_conv_balanced(int64_t count, int64_t most) {
    return tl_conv_ceiling(count, tl_conv_ceiling(count, tl_conv_maximum(most, 1)));
}

/* Chooses the tiles once the axes are known. */
static void tl_conv_cut(tl_conv_correlation *c) {
    int64_t total = c->batch;
    for (int d = 0; d < 3; d++) {
        total *= c->axis[d].count;
    }
    int64_t room = tl_conv_maximum(
        TL_CONV_BLOCK_1, tl_conv_minimum(TL_CONV_TILE_POSITIONS, total / TL_CONV_TILES_WANTED));
    c->positions = 1;
    c->items = 1;
    bool copies = false;
    int64_t slab = c->source_channels;
    for (int d = 2; d >= 0; d--) {
        tl_conv_axis *a = &c->axis[d];
        a->tile = tl_conv_balanced(a->count, room);
        a->tiles = tl_conv_ceiling(a->count, a->tile);
        a->slab = (a->tile - 1) * a->source_step + (a->taps - 1) * a->step + 1;
        room = a->tiles > 1 ? 1 : room / a->tile;
        c->positions *= a->tile;
        c->items *= a->tiles;
        slab *= a->slab;
        const int64_t end = (a->count - 1) * a->source_step + a->first + (a->taps - 1) * a->step;
        copies = copies || a->first < 0 || end >= a->source;
    }
    c->images = tl_conv_balanced(c->batch, room);
    c->items *= tl_conv_ceiling(c->batch, c->images);
    c->positions *= c->images;
    const bool taps = c->axis[0].taps > 0 && c->axis[1].taps > 0 && c->axis[2].taps > 0;
    c->slab_values = copies && taps ? slab * c->images : 0;
    const bool merged = c->groups == 1 && c->axis[2].step == 1;
    c->segments = c->axis[0].taps * c->axis[1].taps * (merged ? 1 : c->axis[2].taps);
    c->length = c->source_channels / c->groups * (merged ? c->axis[2].taps : 1);
    c->segments = taps ? c->segments : 0;
}

static inline tl_conv_correlation tl_conv_forward_correlation(const tl_conv_shape *s) {
    tl_conv_correlation c = {.batch = s->batch,
                             .source_channels = s->in_channels,
                             .destination_channels = s->out_channels,
                             .groups = s->groups};
    for (int d = 0; d < 3; d++) {
        c.axis[d] = (tl_conv_axis){.source = s->in[d],
                                   .destination = s->out[d],
                                   .count = s->out[d],
                                   .source_step = s->stride[d],
                                   .destination_step = 1,
                                   .taps = s->kernel[d],
                                   .first = -s->padding[d],
                                   .step = s->dilation[d],
                                   .kernel_step = 1};
    }
    tl_conv_cut(&c);
    return c;
}

/* How many phases backward_input has along an axis: every one has at least one position. */
static inline int64_t tl_conv_phases(const tl_conv_shape *s, int d) {
    return tl_conv_minimum(s->stride[d], s->in[d]);
}

static inline int64_t tl_conv_common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static inline tl_conv_correlation tl_conv_phase_correlation(const tl_conv_shape *s,
                                                            const int64_t phase[3]) {
    tl_conv_correlation c = {.batch = s->batch,
                             .source_channels = s->out_channels,
                             .destination_channels = s->in_channels,
                             .groups = s->groups};
    for (int d = 0; d < 3; d++) {
        const int64_t stride = s->stride[d];
        const int64_t dilation = s->dilation[d];
        const int64_t divisor = tl_conv_common_divisor(stride, dilation);
        const int64_t kernel_step = stride / divisor;
        const int64_t reach = phase[d] + s->padding[d]; /* = stride t + dilation k at q = 0 */
        int64_t k = 0; /* the first kernel position of this phase */
        while (k < s->kernel[d] && k < kernel_step && (reach - dilation * k) % stride != 0) {
            k++;
        }
        const bool none = k >= s->kernel[d] || k >= kernel_step;
        const int64_t taps = none ? 0 : tl_conv_ceiling(s->kernel[d] - k, kernel_step);
        /* the last kernel position comes first: it reads the lowest output */
        const int64_t last = k + (taps - 1) * kernel_step;
        c.axis[d] = (tl_conv_axis){.source = s->out[d],
                                   .destination = s->in[d],
                                   .count = tl_conv_ceiling(s->in[d] - phase[d], stride),
                                   .source_step = 1,
                                   .destination_start = phase[d],
                                   .destination_step = stride,
                                   .taps = taps,
                                   .first = none ? 0 : (reach - dilation * last) / stride,
                                   .step = dilation / divisor,
                                   .kernel_first = none ? 0 : last,
                                   .kernel_step = -kernel_step};
    }
    tl_conv_cut(&c);
    return c;
}

/* Offsets of the runs that a position reads, relative to its own offset, if the source has row
 * pitches for `height` x `width` positions an image plane. */
static inline void tl_conv_segment_offsets(const tl_conv_correlation *c, int64_t height,
                                           int64_t width, int64_t *offsets) {
    const bool merged = c->groups == 1 && c->axis[2].step == 1;
    const int64_t across = merged ? 1 : c->axis[2].taps;
    if (c->segments == 0) {
        return;
    }
    for (int64_t i = 0; i < c->axis[0].taps; i++) {
        for (int64_t j = 0; j < c->axis[1].taps; j++) {
            for (int64_t k = 0; k < across; k++) {
                *offsets++ = ((i * c->axis[0].step * height + j * c->axis[1].step) * width +
                              k * c->axis[2].step) *
                             c->source_channels;
            }
        }
    }
}

typedef struct tl_conv_tile {
    const tl_real *source; /* offsets count from here */
    bool copied;           /* the source is the slab */
    int64_t positions;
} tl_conv_tile;

/* Copies the box [low, low + extent) of images n0 ... into the slab, zeros outside the source. */
static void tl_conv_fill_slab(const tl_conv_correlation *c, const tl_real *source, int64_t n0,
                              int64_t images, const int64_t low[3], tl_real *slab) {
    const tl_conv_axis *a = c->axis;
    const int64_t channels = c->source_channels;
    const int64_t width = a[2].slab * channels;
    const int64_t left = tl_conv_minimum(tl_conv_maximum(-low[2], 0), a[2].slab);
    const int64_t right = tl_conv_maximum(tl_conv_minimum(a[2].source - low[2], a[2].slab), left);
    for (int64_t n = 0; n < images; n++) {
        for (int64_t i = 0; i < a[0].slab; i++) {
            const int64_t depth = low[0] + i;
            for (int64_t j = 0; j < a[1].slab; j++, slab += width) {
                const int64_t row = low[1] + j;
                if (depth < 0 || depth >= a[0].source || row < 0 || row >= a[1].source ||
                    left == right) {
                    memset(slab, 0, (size_t)width * sizeof(tl_real));
                    continue;
                }
                const int64_t line = ((n0 + n) * a[0].source + depth) * a[1].source + row;
                memset(slab, 0, (size_t)(left * channels) * sizeof(tl_real));
                memcpy(slab + left * channels,
                       source + (line * a[2].source + low[2] + left) * channels,
                       (size_t)((right - left) * channels) * sizeof(tl_real));
                memset(slab + right * channels, 0,
                       (size_t)((a[2].slab - right) * channels) * sizeof(tl_real));
            }
        }
    }
}

/* Prepares tile `item`: its slab if it needs one, and where each position's source (relative to
 * the tile's) and destination lie. */
static tl_conv_tile tl_conv_load_tile(const tl_conv_correlation *c, const tl_real *source,
                                      int64_t item, tl_real *slab, int64_t *source_offsets,
                                      int64_t *destination_offsets) {
    const tl_conv_axis *a = c->axis;
    int64_t q0[3];
    int64_t low[3];
    int64_t count[3];
    bool inside = true;
    for (int d = 2; d >= 0; d--) {
        q0[d] = item % a[d].tiles * a[d].tile;
        item /= a[d].tiles;
        count[d] = tl_conv_minimum(a[d].tile, a[d].count - q0[d]);
        low[d] = q0[d] * a[d].source_step + a[d].first;
        const int64_t end =
            low[d] + (count[d] - 1) * a[d].source_step + (a[d].taps - 1) * a[d].step;
        inside = inside && low[d] >= 0 && end < a[d].source;
    }
    const int64_t n0 = item * c->images;
    const int64_t images = tl_conv_minimum(c->images, c->batch - n0);
    tl_conv_tile tile = {.copied = !inside && c->slab_values > 0};
    int64_t plane[3]; /* extents of what is read */
    for (int d = 0; d < 3; d++) {
        plane[d] = tile.copied ? a[d].slab : a[d].source;
    }
    if (tile.copied) {
        tl_conv_fill_slab(c, source, n0, images, low, slab);
        tile.source = slab;
    } else if (c->segments == 0) {
        tile.source = source;
    } else {
        tile.source =
            source + (((n0 * plane[0] + low[0]) * plane[1] + low[1]) * plane[2] + low[2]) *
                         c->source_channels;
    }
    for (int64_t n = 0; n < images; n++) {
        for (int64_t i = 0; i < count[0]; i++) {
            for (int64_t j = 0; j < count[1]; j++) {
                const int64_t row =
                    ((n * plane[0] + i * a[0].source_step) * plane[1] + j * a[1].source_step) *
                    plane[2];
                const int64_t depth = a[0].destination_start + (q0[0] + i) * a[0].destination_step;
                const int64_t height = a[1].destination_start + (q0[1] + j) * a[1].destination_step;
                const int64_t line =
                    ((n0 + n) * a[0].destination + depth) * a[1].destination + height;
                const int64_t column = a[2].destination_start + q0[2] * a[2].destination_step;
                for (int64_t k = 0; k < count[2]; k++) {
                    source_offsets[tile.positions + k] =
                        (row + k * a[2].source_step) * c->source_channels;
                    destination_offsets[tile.positions + k] =
                        (line * a[2].destination + column + k * a[2].destination_step) *
                        c->destination_channels;
                }
                tile.positions += count[2];
            }
        }
    }
    return tile;
}

#endif
