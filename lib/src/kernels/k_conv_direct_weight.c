/* k_conv_direct_weight.c - the gradient of the weight for every shape.
 *
 *   forward: y[t, o] += w[o, k, c] x[t stride + k dilation - padding, c], so
 *   dw[o, k, c] = sum over t of dy[t, o] x[t stride + k dilation - padding, c]
 *
 * Positions are cut into the tiles of the forward pass (k_conv_tiles.h) and the tiles into a fixed
 * number of pieces. Within a tile a register block of rows (k, c) times outputs o is summed over
 * the tile's positions, then added to its piece's sums; the pieces are added in order at the end:
 * three short levels of summation, the same for every number of threads.
 */
#include "kernels/k_conv_tiles.h"

#include <omp.h>

enum { MOST_PIECES = 16, FEWEST_PIECES = 4 };
static const int64_t piece_memory = (int64_t)64 << 20; /* bytes that all sums may take */

typedef struct weight_plan {
    tl_conv_correlation correlation;
    int64_t rows;       /* taps times input channels of a group */
    int64_t padded;     /* output channels of a group in whole vectors */
    int64_t sum_values; /* of a piece */
    int64_t pieces;
    bool copies_dy; /* outputs that are no whole vectors are brought into a padded tile */
    tl_real *sums;
    int64_t *segments;
    int64_t *slab_segments;
    tl_real *slabs;
    tl_real *dy_tiles;
    int64_t *offsets; /* per thread: sources, dy, dy in its copy */
    int64_t slab_values;
    int64_t positions;
    size_t bytes;
} weight_plan;

static weight_plan make_plan(const tl_conv_shape *shape, int threads, char *base) {
    weight_plan plan = {.correlation = tl_conv_forward_correlation(shape)};
    const tl_conv_correlation *c = &plan.correlation;
    const int64_t outputs = shape->out_channels / shape->groups;
    plan.rows = c->segments * c->length;
    plan.padded = tl_conv_padded(outputs);
    plan.sum_values = shape->groups * plan.padded * plan.rows;
    const int64_t affordable = piece_memory / (plan.sum_values * (int64_t)sizeof(tl_real));
    plan.pieces = tl_conv_maximum(FEWEST_PIECES, tl_conv_minimum(MOST_PIECES, affordable));
    plan.pieces = tl_conv_minimum(plan.pieces, c->items);
    plan.copies_dy = outputs % TL_LANES != 0;
    const int64_t line = TL_ALIGNMENT / (int64_t)sizeof(tl_real);
    plan.slab_values = tl_conv_ceiling(c->slab_values, line) * line;
    plan.positions = tl_conv_ceiling(c->positions, 8) * 8;
    size_t used = 0;
    const size_t segment_bytes = (size_t)c->segments * sizeof(int64_t);
    plan.sums =
        tl_conv_take(&base, &used, (size_t)(plan.pieces * plan.sum_values) * sizeof(tl_real));
    plan.segments = tl_conv_take(&base, &used, segment_bytes);
    plan.slab_segments = tl_conv_take(&base, &used, segment_bytes);
    plan.slabs = tl_conv_take(&base, &used, (size_t)(threads * plan.slab_values) * sizeof(tl_real));
    plan.dy_tiles = tl_conv_take(
        &base, &used,
        plan.copies_dy ? (size_t)(threads * plan.positions * plan.padded) * sizeof(tl_real) : 0);
    plan.offsets =
        tl_conv_take(&base, &used, (size_t)(threads * plan.positions * 3) * sizeof(int64_t));
    plan.bytes = used;
    if (base != NULL) {
        tl_conv_segment_offsets(c, c->axis[1].source, c->axis[2].source, plan.segments);
        tl_conv_segment_offsets(c, c->axis[1].slab, c->axis[2].slab, plan.slab_segments);
    }
    return plan;
}

/* All rows of one segment for one chunk of outputs. */
static void sweep_rows(tl_conv_outer *outer, int64_t length, int vectors) {
    const int64_t blocks = tl_conv_blocks(length, vectors);
    const tl_real *const x = outer->x;
    tl_real *const sum = outer->sum;
    int64_t first = 0;
    for (int64_t b = 1; b <= blocks; b++) {
        const int64_t end = length * b / blocks;
        outer->x = x + first;
        outer->sum = sum + first * vectors * TL_LANES;
        if (vectors == 2) {
            switch (end - first) { TL_CONV_CASES_2(tl_conv_outer_block, outer) }
        } else {
            switch (end - first) { TL_CONV_CASES_1(tl_conv_outer_block, outer) }
        }
        first = end;
    }
}

/* A group's outputs at a tile's positions, padded with zeros to whole vectors. */
static void copy_dy(const weight_plan *plan, const tl_real *dy, const int64_t *dy_offsets,
                    int64_t outputs, int64_t positions, tl_real *tile, int64_t *tile_offsets) {
    for (int64_t p = 0; p < positions; p++) {
        tl_real *to = tile + p * plan->padded;
        memcpy(to, dy + dy_offsets[p], (size_t)outputs * sizeof(tl_real));
        memset(to + outputs, 0, (size_t)(plan->padded - outputs) * sizeof(tl_real));
        tile_offsets[p] = p * plan->padded;
    }
}

static void add_tile(const weight_plan *plan, int64_t item, const tl_real *x, const tl_real *dy,
                     tl_real *sums, int thread) {
    const tl_conv_correlation *c = &plan->correlation;
    int64_t *x_offsets = plan->offsets + thread * plan->positions * 3;
    int64_t *dy_offsets = x_offsets + plan->positions;
    int64_t *copy_offsets = dy_offsets + plan->positions;
    const tl_conv_tile tile = tl_conv_load_tile(
        c, x, item, plan->slabs + thread * plan->slab_values, x_offsets, dy_offsets);
    const int64_t *segments = tile.copied ? plan->slab_segments : plan->segments;
    const int64_t inputs = c->source_channels / c->groups;
    const int64_t outputs = c->destination_channels / c->groups;
    tl_real *dy_tile =
        plan->copies_dy ? plan->dy_tiles + thread * plan->positions * plan->padded : NULL;
    for (int64_t group = 0; group < c->groups; group++) {
        const tl_real *y = dy + group * outputs;
        if (plan->copies_dy) {
            copy_dy(plan, y, dy_offsets, outputs, tile.positions, dy_tile, copy_offsets);
            y = dy_tile;
        }
        for (int64_t chunk = 0; chunk < tl_conv_chunks(outputs); chunk++) {
            const int64_t first = chunk * 2 * TL_LANES;
            const int vectors = tl_conv_chunk_vectors(outputs, chunk);
            for (int64_t s = 0; s < c->segments; s++) {
                tl_conv_outer outer = {.x = tile.source + group * inputs + segments[s],
                                       .x_offsets = x_offsets,
                                       .y = y + first,
                                       .y_offsets = plan->copies_dy ? copy_offsets : dy_offsets,
                                       .positions = tile.positions,
                                       .sum = sums + (group * plan->padded + first) * plan->rows +
                                              s * c->length * vectors * TL_LANES};
                sweep_rows(&outer, c->length, vectors);
            }
        }
    }
}

/* dw of one output channel: the pieces' sums in order. */
static void collect(const weight_plan *plan, int64_t channel, tl_real *dweight, bool accumulate) {
    const int64_t outputs = plan->correlation.destination_channels / plan->correlation.groups;
    const int64_t group = channel / outputs;
    const int64_t chunk = channel % outputs / (2 * TL_LANES);
    const int64_t first = chunk * 2 * TL_LANES;
    const int64_t width = tl_conv_chunk_vectors(outputs, chunk) * TL_LANES;
    const tl_real *from =
        plan->sums + (group * plan->padded + first) * plan->rows + channel % outputs - first;
    tl_real *to = dweight + channel * plan->rows;
    for (int64_t r = 0; r < plan->rows; r++) {
        tl_real sum = 0;
        for (int64_t piece = 0; piece < plan->pieces; piece++) {
            sum += from[piece * plan->sum_values + r * width];
        }
        to[r] = accumulate ? to[r] + sum : sum;
    }
}

static void direct_backward_weight(const tl_conv_shape *shape, const tl_real *x, const tl_real *dy,
                                   tl_real *dweight, bool accumulate, void *scratch, int threads) {
    const weight_plan plan = make_plan(shape, threads, scratch);
    const int64_t items = plan.correlation.items;
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
#pragma omp parallel num_threads(team) if (team > 1)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t piece = 0; piece < plan.pieces; piece++) {
            tl_real *sums = plan.sums + piece * plan.sum_values;
            memset(sums, 0, (size_t)plan.sum_values * sizeof(tl_real));
            const int64_t end = items * (piece + 1) / plan.pieces;
            for (int64_t item = items * piece / plan.pieces; item < end; item++) {
                add_tile(&plan, item, x, dy, sums, omp_get_thread_num());
            }
        }
#pragma omp for schedule(static)
        for (int64_t channel = 0; channel < shape->out_channels; channel++) {
            collect(&plan, channel, dweight, accumulate);
        }
    }
}

static size_t direct_weight_scratch_bytes(const tl_conv_shape *shape, int threads) {
    return make_plan(shape, threads, NULL).bytes;
}

const tl_conv_weight_kernels TL_PER_ISA(tl_conv_direct_weight) = {
    .scratch_bytes = direct_weight_scratch_bytes,
    .backward_weight = direct_backward_weight,
};
