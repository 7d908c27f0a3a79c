/* k_conv_winograd.c - 3x3 convolutions of stride 1 by Winograd's F(2x2, 3x3), forward and
 * backward_input (which is forward with the kernel flipped and its channels exchanged).
 *
 * The kernel is transformed once a call to [16][chunk][source channels][vectors of destinations].
 * Then, for some 48 tiles at a time: transform the patches to [16][tile][source channels]; 16
 * products of tiles x source channels x destination channels in register blocks; transform back
 * and store the 2x2 outputs. 4 / 9 of the direct multiplications, all on contiguous channels.
 */
#include "kernels/k_conv_winograd.h"

#include <omp.h>

typedef struct winograd_plan {
    tl_winograd_map map;
    int64_t source_channels;
    int64_t destination_channels;
    tl_real *weights;
    tl_real *bias;
    tl_real *patches;  /* per thread */
    tl_real *products; /* per thread */
    int64_t *offsets;  /* of tiles: in patches, then in products; the same for all threads */
    int64_t patch_values;
    int64_t product_values;
    size_t bytes;
} winograd_plan;

static winograd_plan make_plan(const tl_conv_shape *s, tl_conv_direction direction, int threads,
                               char *base) {
    winograd_plan plan = {0};
    if (direction == TL_CONV_FORWARD) {
        plan.map = tl_winograd_make_map(s, s->in[1], s->in[2], s->out[1], s->out[2], s->padding[1],
                                        s->padding[2]);
        plan.source_channels = s->in_channels;
        plan.destination_channels = s->out_channels;
    } else {
        plan.map = tl_winograd_make_map(s, s->out[1], s->out[2], s->in[1], s->in[2],
                                        2 - s->padding[1], 2 - s->padding[2]);
        plan.source_channels = s->out_channels;
        plan.destination_channels = s->in_channels;
    }
    const int64_t tiles = plan.map.item_tiles;
    plan.patch_values = TL_WINOGRAD_POINTS * tiles * plan.source_channels;
    plan.product_values = TL_WINOGRAD_POINTS * tiles * plan.destination_channels;
    size_t used = 0;
    plan.weights = tl_conv_take(
        &base, &used,
        (size_t)(TL_WINOGRAD_POINTS * plan.source_channels * plan.destination_channels) *
            sizeof(tl_real));
    plan.patches =
        tl_conv_take(&base, &used, (size_t)(threads * plan.patch_values) * sizeof(tl_real));
    plan.products =
        tl_conv_take(&base, &used, (size_t)(threads * plan.product_values) * sizeof(tl_real));
    plan.offsets = tl_conv_take(&base, &used, (size_t)tiles * 2 * sizeof(int64_t));
    plan.bytes = used;
    if (base != NULL) {
        for (int64_t t = 0; t < tiles; t++) {
            plan.offsets[t] = t * plan.source_channels;
            plan.offsets[tiles + t] = t * plan.destination_channels;
        }
    }
    return plan;
}

/* G along one dimension. */
TL_INLINE void transform_kernel_line(const tl_v g[3], tl_v out[4]) {
    const tl_v sum = (g[0] + g[2]) * (tl_real)0.5;
    const tl_v middle = g[1] * (tl_real)0.5;
    out[0] = g[0];
    out[1] = sum + middle;
    out[2] = sum - middle;
    out[3] = g[2];
}

/* G g Gt of the kernels of output channel o for one vector of input channels. */
static void transform_kernel(const tl_real *weight, int64_t inputs, bool flipped, tl_v u[16]) {
    tl_v half[3][4];
    for (int j = 0; j < 3; j++) {
        tl_v g[3];
        for (int i = 0; i < 3; i++) {
            const int tap = flipped ? 8 - (i * 3 + j) : i * 3 + j;
            g[i] = tl_v_load(weight + tap * inputs);
        }
        transform_kernel_line(g, half[j]);
    }
    for (int i = 0; i < 4; i++) {
        const tl_v g[3] = {half[0][i], half[1][i], half[2][i]};
        transform_kernel_line(g, u + i * 4);
    }
}

/* Where (point, source channel, destination channel) stands in the packed kernels. */
static int64_t packed_index(const winograd_plan *plan, int64_t point, int64_t source,
                            int64_t destination) {
    const int64_t chunk = destination / (2 * TL_LANES);
    const int64_t width = tl_conv_chunk_vectors(plan->destination_channels, chunk) * TL_LANES;
    const int64_t first = chunk * 2 * TL_LANES;
    return (point * plan->destination_channels + first) * plan->source_channels + source * width +
           destination - first;
}

static void pack_kernels(const tl_conv_shape *s, tl_conv_direction direction, const tl_real *weight,
                         const winograd_plan *plan, int threads) {
    const int64_t inputs = s->in_channels;
    const int team = tl_conv_threads((double)(16 * inputs * s->out_channels), threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t o = 0; o < s->out_channels; o++) {
        for (int64_t c = 0; c < inputs; c += TL_LANES) {
            tl_v u[16];
            transform_kernel(weight + o * 9 * inputs + c, inputs,
                             direction == TL_CONV_BACKWARD_INPUT, u);
            for (int point = 0; point < TL_WINOGRAD_POINTS; point++) {
                if (direction == TL_CONV_BACKWARD_INPUT) {
                    tl_v_store(plan->weights + packed_index(plan, point, o, c), u[point]);
                    continue;
                }
                tl_real *to = plan->weights + packed_index(plan, point, c, o);
                const int64_t width =
                    packed_index(plan, point, c + 1, o) - packed_index(plan, point, c, o);
                for (int lane = 0; lane < TL_LANES; lane++) {
                    to[lane * width] = u[point][lane];
                }
            }
        }
    }
}

static void multiply(const winograd_plan *plan, const tl_real *patches, tl_real *products,
                     int64_t count) {
    const int64_t tiles = plan->map.item_tiles;
    static const int64_t no_offset = 0;
    for (int64_t chunk = 0; chunk < tl_conv_chunks(plan->destination_channels); chunk++) {
        const int64_t first = chunk * 2 * TL_LANES;
        const int vectors = tl_conv_chunk_vectors(plan->destination_channels, chunk);
        const int64_t blocks = tl_conv_blocks(count, vectors);
        for (int point = 0; point < TL_WINOGRAD_POINTS; point++) {
            const tl_conv_gather gather = {
                .x = patches + point * tiles * plan->source_channels,
                .x_offsets = plan->offsets,
                .segment_offsets = &no_offset,
                .segments = 1,
                .length = plan->source_channels,
                .weights = plan->weights +
                           (point * plan->destination_channels + first) * plan->source_channels,
                .y = products + point * tiles * plan->destination_channels + first,
                .y_offsets = plan->offsets + tiles,
                .channels = vectors * TL_LANES};
            int64_t start = 0;
            for (int64_t b = 1; b <= blocks; b++) {
                const int64_t end = count * b / blocks;
                if (vectors == 2) {
                    switch (end - start) { TL_CONV_CASES_2(tl_conv_gather_block, &gather, start) }
                } else {
                    switch (end - start) { TL_CONV_CASES_1(tl_conv_gather_block, &gather, start) }
                }
                start = end;
            }
        }
    }
}

/* At along one dimension. */
TL_INLINE void transform_back_line(const tl_v m[4], tl_v out[2]) {
    out[0] = m[0] + m[1] + m[2];
    out[1] = m[1] - m[2] - m[3];
}

static void store_outputs(const winograd_plan *plan, const tl_real *products, int64_t first,
                          int64_t count, const tl_real *bias, tl_real *destination,
                          bool accumulate) {
    const tl_winograd_map *m = &plan->map;
    const int64_t channels = plan->destination_channels;
    const int64_t stride = m->item_tiles * channels;
    for (int64_t t = 0; t < count; t++) {
        const tl_winograd_place place = tl_winograd_locate(m, first + t);
        tl_real *corner =
            destination +
            ((place.image * m->out_height + place.row) * m->out_width + place.column) * channels;
        const int rows = place.row + 2 <= m->out_height ? 2 : 1;
        const int columns = place.column + 2 <= m->out_width ? 2 : 1;
        for (int64_t c = 0; c < channels; c += TL_LANES) {
            const tl_real *from = products + t * channels + c;
            tl_v half[4][2];
            for (int j = 0; j < 4; j++) {
                tl_v column[4];
                for (int i = 0; i < 4; i++) {
                    column[i] = tl_v_load(from + (i * 4 + j) * stride);
                }
                transform_back_line(column, half[j]);
            }
            const tl_v start = bias != NULL ? tl_v_load(bias + c) : tl_v_zero();
            for (int i = 0; i < rows; i++) {
                const tl_v line[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
                tl_v y[2];
                transform_back_line(line, y);
                for (int j = 0; j < columns; j++) {
                    tl_real *to = corner + (i * m->out_width + j) * channels + c;
                    const tl_v value = y[j] + start;
                    tl_v_store(to, accumulate ? tl_v_load(to) + value : value);
                }
            }
        }
    }
}

static void run_item(const winograd_plan *plan, int64_t item, const tl_real *source,
                     const tl_real *bias, tl_real *destination, bool accumulate, int thread) {
    const int64_t first = item * plan->map.item_tiles;
    const int64_t count = tl_conv_minimum(plan->map.item_tiles, plan->map.tiles - first);
    tl_real *patches = plan->patches + thread * plan->patch_values;
    tl_real *products = plan->products + thread * plan->product_values;
    tl_winograd_transform_patches(&plan->map, source, plan->source_channels, first, count, patches);
    multiply(plan, patches, products, count);
    store_outputs(plan, products, first, count, bias, destination, accumulate);
}

static void correlate(const tl_conv_shape *shape, tl_conv_direction direction,
                      const tl_real *source, const tl_real *weight, const tl_real *bias,
                      tl_real *destination, bool accumulate, void *scratch, int threads) {
    const winograd_plan plan = make_plan(shape, direction, threads, scratch);
    pack_kernels(shape, direction, weight, &plan, threads);
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t item = 0; item < plan.map.items; item++) {
        run_item(&plan, item, source, bias, destination, accumulate, omp_get_thread_num());
    }
}

static size_t winograd_scratch_bytes(const tl_conv_shape *shape, tl_conv_direction direction,
                                     int threads) {
    return make_plan(shape, direction, threads, NULL).bytes;
}

static void winograd_forward(const tl_conv_shape *shape, const tl_real *x, const tl_real *weight,
                             const tl_real *bias, tl_real *y, bool accumulate, void *scratch,
                             int threads) {
    correlate(shape, TL_CONV_FORWARD, x, weight, bias, y, accumulate, scratch, threads);
}

static void winograd_backward_input(const tl_conv_shape *shape, const tl_real *dy,
                                    const tl_real *weight, const tl_real *bias, tl_real *dx,
                                    bool accumulate, void *scratch, int threads) {
    correlate(shape, TL_CONV_BACKWARD_INPUT, dy, weight, bias, dx, accumulate, scratch, threads);
}

const tl_conv_map_kernels TL_PER_ISA(tl_conv_winograd) = {
    .scratch_bytes = winograd_scratch_bytes,
    .forward = winograd_forward,
    .backward_input = winograd_backward_input,
};
