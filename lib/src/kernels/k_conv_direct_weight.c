/* k_conv_direct_weight.c - backward_weight for every shape.
 *
 * dweight[o, k, c] = sum over positions of dy[position, o] * x[position stride + k dilation, c]:
 * per tile (k_conv_tiles.h) and chunk of output channels, register blocks of contiguous inputs by
 * output channels sweep the tile's positions and are then added to a partial gradient
 * (k_conv_sum.h). Where the pieces are too few for many threads, because the weight is large, the
 * chunks of output channels are cut into slices as well. dy is copied with zeros behind where its
 * channels are no whole vectors.
 */
#include "kernels/k_conv_sum.h"
#include "kernels/k_conv_tiles.h"
#include "kernels/shares.h"

#include <omp.h>

typedef struct weight_plan {
    tl_conv_correlation correlation;
    int64_t rows;     /* numbers in an output's kernel */
    int64_t channels; /* outputs in a group */
    int64_t pieces;
    int64_t slices;
    int64_t piece_values;
    bool pads;            /* dy is copied */
    int64_t *segments[2]; /* offsets in the source itself, in a slab */
    tl_real *partial;
    tl_real *slabs; /* per thread */
    tl_real *padded;
    int64_t *offsets;
    int64_t slab_values;
    int64_t padded_values;
    int64_t positions;
    size_t bytes;
} weight_plan;

static weight_plan make_weight_plan(const tl_conv_shape *shape, int threads, char *base) {
    weight_plan plan = {.correlation = tl_conv_forward_correlation(shape)};
    const tl_conv_correlation *c = &plan.correlation;
    plan.rows = c->segments * c->length;
    plan.channels = shape->out_channels / shape->groups;
    const int64_t padded = tl_conv_padded(plan.channels);
    plan.piece_values = shape->groups * padded * plan.rows;
    plan.pieces = tl_conv_piece_count(shape, c->items, plan.piece_values);
    plan.slices = tl_conv_minimum(tl_conv_ceiling(TL_CONV_PIECES, plan.pieces),
                                  shape->groups * tl_conv_chunks(plan.channels));
    plan.pads = padded != plan.channels;
    const int64_t line = TL_ALIGNMENT / (int64_t)sizeof(tl_real);
    plan.slab_values = tl_conv_ceiling(c->slab_values, line) * line;
    plan.positions = tl_conv_ceiling(c->positions, 8) * 8;
    plan.padded_values = plan.pads ? plan.positions * shape->groups * padded : 0;
    size_t used = 0;
    for (int i = 0; i < 2; i++) {
        plan.segments[i] = tl_conv_take(&base, &used, (size_t)c->segments * sizeof(int64_t));
    }
    plan.partial =
        tl_conv_take(&base, &used, (size_t)(plan.pieces * plan.piece_values) * sizeof(tl_real));
    plan.slabs =
        tl_conv_take(&base, &used, (size_t)threads * (size_t)plan.slab_values * sizeof(tl_real));
    plan.padded =
        tl_conv_take(&base, &used, (size_t)threads * (size_t)plan.padded_values * sizeof(tl_real));
    plan.offsets =
        tl_conv_take(&base, &used, (size_t)threads * (size_t)plan.positions * 2 * sizeof(int64_t));
    plan.bytes = used;
    if (base != NULL) {
        tl_conv_segment_offsets(c, c->axis[1].source, c->axis[2].source, plan.segments[0]);
        tl_conv_segment_offsets(c, c->axis[1].slab, c->axis[2].slab, plan.segments[1]);
    }
    return plan;
}

/* Copies dy at the positions to rows of whole vectors per group, and points the offsets there. */
static void pad_gradient(const weight_plan *plan, const tl_real *dy, int64_t positions,
                         int64_t *offsets, tl_real *padded) {
    const int64_t groups = plan->correlation.groups;
    const int64_t width = tl_conv_padded(plan->channels);
    memset(padded, 0, (size_t)(positions * groups * width) * sizeof(tl_real));
    for (int64_t p = 0; p < positions; p++) {
        for (int64_t group = 0; group < groups; group++) {
            memcpy(padded + (p * groups + group) * width, dy + offsets[p] + group * plan->channels,
                   (size_t)plan->channels * sizeof(tl_real));
        }
        offsets[p] = p * groups * width;
    }
}

/* Adds one tile to a piece's partial gradient, for the chunks first ... end-1 of all groups. */
static void add_tile(const weight_plan *plan, int64_t item, const tl_real *x, const tl_real *dy,
                     int64_t first, int64_t end, tl_real *partial, int thread) {
    const tl_conv_correlation *c = &plan->correlation;
    int64_t *x_offsets = plan->offsets + thread * plan->positions * 2;
    int64_t *y_offsets = x_offsets + plan->positions;
    const tl_conv_tile tile = tl_conv_load_tile(
        c, x, item, plan->slabs + thread * plan->slab_values, x_offsets, y_offsets);
    int64_t group_width = plan->channels;
    if (plan->pads) {
        tl_real *padded = plan->padded + thread * plan->padded_values;
        pad_gradient(plan, dy, tile.positions, y_offsets, padded);
        dy = padded;
        group_width = tl_conv_padded(plan->channels);
    }
    const int64_t *segments = plan->segments[tile.copied ? 1 : 0];
    const int64_t chunks = tl_conv_chunks(plan->channels);
    for (int64_t i = first; i < end; i++) {
        const int64_t group = i / chunks;
        const int64_t chunk = i % chunks;
        const int vectors = tl_conv_chunk_vectors(plan->channels, chunk);
        tl_real *sum = partial + tl_conv_chunk_start(plan->channels, plan->rows, group, chunk);
        for (int64_t s = 0; s < c->segments; s++) {
            const tl_conv_outer outer = {.x = tile.source + segments[s] +
                                              group * (c->source_channels / c->groups),
                                         .x_offsets = x_offsets,
                                         .y = dy + group * group_width + chunk * 2 * TL_LANES,
                                         .y_offsets = y_offsets,
                                         .positions = tile.positions,
                                         .sum = sum + s * c->length * vectors * TL_LANES};
            tl_conv_outer_sweep(outer, c->length, vectors);
        }
    }
}

static void add_piece(const weight_plan *plan, int64_t piece, int64_t slice, const tl_real *x,
                      const tl_real *dy, int thread) {
    const int64_t chunks = tl_conv_chunks(plan->channels);
    const int64_t all = plan->correlation.groups * chunks;
    const int64_t first = all * slice / plan->slices;
    const int64_t end = all * (slice + 1) / plan->slices;
    tl_real *partial = plan->partial + piece * plan->piece_values;
    for (int64_t i = first; i < end; i++) {
        const int64_t chunk = i % chunks;
        const int64_t width = tl_conv_chunk_vectors(plan->channels, chunk) * TL_LANES;
        memset(partial + tl_conv_chunk_start(plan->channels, plan->rows, i / chunks, chunk), 0,
               (size_t)(width * plan->rows) * sizeof(tl_real));
    }
    const int64_t items = plan->correlation.items;
    for (int64_t item = items * piece / plan->pieces; item < items * (piece + 1) / plan->pieces;
         item++) {
        add_tile(plan, item, x, dy, first, end, partial, thread);
    }
}

static size_t direct_weight_scratch_bytes(const tl_conv_shape *shape, int threads) {
    return make_weight_plan(shape, threads, NULL).bytes;
}

static void direct_backward_weight(const tl_conv_shape *shape, const tl_real *x, const tl_real *dy,
                                   tl_real *dweight, bool accumulate, void *scratch, int threads) {
    const weight_plan plan = make_weight_plan(shape, threads, scratch);
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
    tl_shares shares = tl_shares_of(plan.pieces * plan.slices, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t i; tl_shares_take(&shares, &i);) {
        add_piece(&plan, i / plan.slices, i % plan.slices, x, dy, omp_get_thread_num());
    }
    tl_conv_sum_pieces(plan.partial, plan.pieces, shape->groups, plan.channels, plan.rows, dweight,
                       accumulate, threads);
}

const tl_conv_weight_kernels TL_PER_ISA(tl_conv_direct_weight) = {
    .scratch_bytes = direct_weight_scratch_bytes,
    .backward_weight = direct_backward_weight,
};
