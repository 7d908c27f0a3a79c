/* k_conv_direct.c - forward and backward_input for every shape.
 *
 * The weights are packed once a call, [phase][group][chunk][taps][inputs][vectors of outputs], so
 * that the inner loop walks them in order. Then, tile by tile (see k_conv_tiles.h): bring the
 * source into a zero-padded slab where it needs one, and for each group and chunk of output
 * channels sweep the tile's positions in register blocks. A tile's source is read from the
 * first-level cache; a chunk's weights stream from the second. Every output is one sum in one
 * register, in the order of the kernel's positions and the input channels.
 */
#include "kernels/k_conv_tiles.h"
#include "kernels/shares.h"

#include <omp.h>

typedef struct tl_conv_phase {
    tl_conv_correlation correlation;
    tl_real *weights;
    int64_t *source_segments; /* segment offsets in the source itself */
    int64_t *slab_segments;   /* and in a slab */
} tl_conv_phase;

typedef struct tl_conv_direct_plan {
    tl_conv_phase *phases;
    int64_t phase_count;
    int64_t units;
    tl_real *bias;    /* padded to whole vectors, group by group */
    tl_real *slabs;   /* per thread */
    int64_t *offsets; /* per thread: of sources, then of destinations */
    int64_t slab_values;
    int64_t positions;
    size_t bytes;
} tl_conv_direct_plan;

static int64_t packed_values(const tl_conv_correlation *c) {
    return c->axis[0].taps * c->axis[1].taps * c->axis[2].taps * c->groups *
           tl_conv_padded(c->destination_channels / c->groups) * (c->source_channels / c->groups);
}

static tl_conv_correlation phase_of(const tl_conv_shape *shape, tl_conv_direction direction,
                                    int64_t index) {
    if (direction == TL_CONV_FORWARD) {
        return tl_conv_forward_correlation(shape);
    }
    int64_t phase[3];
    for (int d = 2; d >= 0; d--) {
        phase[d] = index % tl_conv_phases(shape, d);
        index /= tl_conv_phases(shape, d);
    }
    return tl_conv_phase_correlation(shape, phase);
}

/* Lays out the scratch at `base`; with NULL finds its size only. */
static tl_conv_direct_plan make_plan(const tl_conv_shape *shape, tl_conv_direction direction,
                                     int threads, char *base) {
    tl_conv_direct_plan plan = {.phase_count = 1};
    if (direction == TL_CONV_BACKWARD_INPUT) {
        plan.phase_count =
            tl_conv_phases(shape, 0) * tl_conv_phases(shape, 1) * tl_conv_phases(shape, 2);
    }
    size_t used = 0;
    plan.phases = tl_conv_take(&base, &used, (size_t)plan.phase_count * sizeof(tl_conv_phase));
    for (int64_t i = 0; i < plan.phase_count; i++) {
        tl_conv_phase phase = {.correlation = phase_of(shape, direction, i)};
        const tl_conv_correlation *c = &phase.correlation;
        plan.units = tl_conv_maximum(plan.units, c->items);
        plan.slab_values = tl_conv_maximum(plan.slab_values, c->slab_values);
        plan.positions = tl_conv_maximum(plan.positions, c->positions);
        const size_t segment_bytes = (size_t)c->segments * sizeof(int64_t);
        phase.weights = tl_conv_take(&base, &used, (size_t)packed_values(c) * sizeof(tl_real));
        phase.source_segments = tl_conv_take(&base, &used, segment_bytes);
        phase.slab_segments = tl_conv_take(&base, &used, segment_bytes);
        if (base != NULL) {
            tl_conv_segment_offsets(c, c->axis[1].source, c->axis[2].source, phase.source_segments);
            tl_conv_segment_offsets(c, c->axis[1].slab, c->axis[2].slab, phase.slab_segments);
            plan.phases[i] = phase;
        }
    }
    const int64_t channels =
        direction == TL_CONV_FORWARD ? shape->out_channels : shape->in_channels;
    plan.bias = tl_conv_take(&base, &used,
                             (size_t)(shape->groups * tl_conv_padded(channels / shape->groups)) *
                                 sizeof(tl_real));
    /* slabs of whole cache lines, so that threads do not share one */
    const int64_t line = TL_ALIGNMENT / (int64_t)sizeof(tl_real);
    plan.slab_values = tl_conv_ceiling(plan.slab_values, line) * line;
    plan.positions = tl_conv_ceiling(plan.positions, 8) * 8;
    plan.slabs =
        tl_conv_take(&base, &used, (size_t)threads * (size_t)plan.slab_values * sizeof(tl_real));
    plan.offsets =
        tl_conv_take(&base, &used, (size_t)threads * (size_t)plan.positions * 2 * sizeof(int64_t));
    plan.bytes = used;
    return plan;
}

/* One chunk of one group of a phase: [taps][source channels][vectors * TL_LANES]. */
static void pack_chunk(const tl_conv_shape *shape, tl_conv_direction direction,
                       const tl_conv_correlation *c, const tl_real *weight, int64_t group,
                       int64_t chunk, tl_real *packed) {
    const int64_t inputs = shape->in_channels / shape->groups;
    const int64_t outputs = shape->out_channels / shape->groups;
    const int64_t taps = shape->kernel[0] * shape->kernel[1] * shape->kernel[2];
    const int64_t sources = c->source_channels / c->groups;
    const int64_t destinations = c->destination_channels / c->groups;
    const int64_t width = tl_conv_chunk_vectors(destinations, chunk) * TL_LANES;
    const int64_t first = chunk * 2 * TL_LANES;
    const int64_t valid = tl_conv_minimum(width, destinations - first);
    const tl_conv_axis *a = c->axis;
    for (int64_t i = 0; i < a[0].taps; i++) {
        for (int64_t j = 0; j < a[1].taps; j++) {
            for (int64_t k = 0; k < a[2].taps; k++, packed += sources * width) {
                const int64_t tap = ((a[0].kernel_first + i * a[0].kernel_step) * shape->kernel[1] +
                                     a[1].kernel_first + j * a[1].kernel_step) *
                                        shape->kernel[2] +
                                    a[2].kernel_first + k * a[2].kernel_step;
                if (valid < width) {
                    memset(packed, 0, (size_t)(sources * width) * sizeof(tl_real));
                }
                if (direction == TL_CONV_FORWARD) {
                    for (int64_t o = 0; o < valid; o++) {
                        const tl_real *from =
                            weight + ((group * outputs + first + o) * taps + tap) * inputs;
                        for (int64_t s = 0; s < sources; s++) {
                            packed[s * width + o] = from[s];
                        }
                    }
                } else {
                    for (int64_t s = 0; s < sources; s++) {
                        memcpy(packed + s * width,
                               weight + ((group * outputs + s) * taps + tap) * inputs + first,
                               (size_t)valid * sizeof(tl_real));
                    }
                }
            }
        }
    }
}

/* Where chunk `chunk` of group `group` begins in a phase's packed weights. */
static int64_t chunk_start(const tl_conv_correlation *c, int64_t group, int64_t chunk) {
    const int64_t padded = tl_conv_padded(c->destination_channels / c->groups);
    return (group * padded + chunk * 2 * TL_LANES) * c->segments * c->length;
}

static void pack(const tl_conv_shape *shape, tl_conv_direction direction, const tl_real *weight,
                 const tl_conv_direct_plan *plan, int threads) {
    const int64_t channels =
        direction == TL_CONV_FORWARD ? shape->out_channels : shape->in_channels;
    const int64_t chunks = tl_conv_chunks(channels / shape->groups);
    const int64_t pieces = plan->phase_count * shape->groups * chunks;
    double values = 0;
    for (int64_t i = 0; i < plan->phase_count; i++) {
        values += (double)packed_values(&plan->phases[i].correlation);
    }
    const int team = tl_conv_threads(values, threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t i = 0; i < pieces; i++) {
        const int64_t chunk = i % chunks;
        const int64_t group = i / chunks % shape->groups;
        const tl_conv_phase *phase = &plan->phases[i / chunks / shape->groups];
        const tl_conv_correlation *c = &phase->correlation;
        pack_chunk(shape, direction, c, weight, group, chunk,
                   phase->weights + chunk_start(c, group, chunk));
    }
}

static void pack_bias(const tl_conv_correlation *c, const tl_real *bias, tl_real *packed) {
    const int64_t channels = c->destination_channels / c->groups;
    const int64_t padded = tl_conv_padded(channels);
    memset(packed, 0, (size_t)(c->groups * padded) * sizeof(tl_real));
    for (int64_t group = 0; group < c->groups; group++) {
        memcpy(packed + group * padded, bias + group * channels,
               (size_t)channels * sizeof(tl_real));
    }
}

/* All positions of a tile for one chunk of channels, in balanced blocks. */
static void sweep(const tl_conv_gather *g, int64_t positions, int vectors) {
    const int64_t blocks = tl_conv_blocks(positions, vectors);
    int64_t first = 0;
    for (int64_t b = 1; b <= blocks; b++) {
        const int64_t end = positions * b / blocks;
        if (vectors == 2) {
            switch (end - first) { TL_CONV_CASES_2(tl_conv_gather_block, g, first) }
        } else {
            switch (end - first) { TL_CONV_CASES_1(tl_conv_gather_block, g, first) }
        }
        first = end;
    }
}

static void run_item(const tl_conv_direct_plan *plan, const tl_conv_phase *phase, int64_t item,
                     const tl_real *source, const tl_real *bias, tl_real *destination,
                     bool accumulate, int thread) {
    const tl_conv_correlation *c = &phase->correlation;
    int64_t *source_offsets = plan->offsets + thread * plan->positions * 2;
    int64_t *destination_offsets = source_offsets + plan->positions;
    const tl_conv_tile tile =
        tl_conv_load_tile(c, source, item, plan->slabs + thread * plan->slab_values, source_offsets,
                          destination_offsets);
    const int64_t sources = c->source_channels / c->groups;
    const int64_t channels = c->destination_channels / c->groups;
    const int64_t padded = tl_conv_padded(channels);
    for (int64_t group = 0; group < c->groups; group++) {
        for (int64_t chunk = 0; chunk < tl_conv_chunks(channels); chunk++) {
            const int64_t first = chunk * 2 * TL_LANES;
            const int vectors = tl_conv_chunk_vectors(channels, chunk);
            const tl_conv_gather gather = {
                .x = tile.source + group * sources,
                .x_offsets = source_offsets,
                .segment_offsets = tile.copied ? phase->slab_segments : phase->source_segments,
                .segments = c->segments,
                .length = c->length,
                .weights = phase->weights + chunk_start(c, group, chunk),
                .bias = bias ? bias + group * padded + first : NULL,
                .y = destination + group * channels + first,
                .y_offsets = destination_offsets,
                .channels = tl_conv_minimum(channels - first, vectors * TL_LANES),
                .accumulate = accumulate};
            sweep(&gather, tile.positions, vectors);
        }
    }
}

/* A unit is a part of every phase, about the same part of the destination: its cache lines, which
 * the phases of a stride share, are still near when the next phase comes, and units are alike. */
static void run_unit(const tl_conv_direct_plan *plan, int64_t unit, const tl_real *source,
                     const tl_real *bias, tl_real *destination, bool accumulate, int thread) {
    for (int64_t p = 0; p < plan->phase_count; p++) {
        const tl_conv_phase *phase = &plan->phases[p];
        const int64_t items = phase->correlation.items;
        const int64_t end = items * (unit + 1) / plan->units;
        for (int64_t item = items * unit / plan->units; item < end; item++) {
            run_item(plan, phase, item, source, bias, destination, accumulate, thread);
        }
    }
}

static void correlate(const tl_conv_shape *shape, tl_conv_direction direction,
                      const tl_real *source, const tl_real *weight, const tl_real *bias,
                      tl_real *destination, bool accumulate, void *scratch, int threads) {
    const tl_conv_direct_plan plan = make_plan(shape, direction, threads, scratch);
    pack(shape, direction, weight, &plan, threads);
    if (bias != NULL) {
        pack_bias(&plan.phases[0].correlation, bias, plan.bias);
    }
    const tl_real *packed_bias = bias != NULL ? plan.bias : NULL;
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
    tl_shares shares = tl_shares_of(plan.units, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t unit; tl_shares_take(&shares, &unit);) {
        run_unit(&plan, unit, source, packed_bias, destination, accumulate, omp_get_thread_num());
    }
}

static size_t direct_scratch_bytes(const tl_conv_shape *shape, tl_conv_direction direction,
                                   int threads) {
    return make_plan(shape, direction, threads, NULL).bytes;
}

static void direct_forward(const tl_conv_shape *shape, const tl_real *x, const tl_real *weight,
                           const tl_real *bias, tl_real *y, bool accumulate, void *scratch,
                           int threads) {
    correlate(shape, TL_CONV_FORWARD, x, weight, bias, y, accumulate, scratch, threads);
}

static void direct_backward_input(const tl_conv_shape *shape, const tl_real *dy,
                                  const tl_real *weight, const tl_real *bias, tl_real *dx,
                                  bool accumulate, void *scratch, int threads) {
    correlate(shape, TL_CONV_BACKWARD_INPUT, dy, weight, bias, dx, accumulate, scratch, threads);
}

const tl_conv_map_kernels TL_PER_ISA(tl_conv_direct) = {
    .scratch_bytes = direct_scratch_bytes,
    .forward = direct_forward,
    .backward_input = direct_backward_input,
};
