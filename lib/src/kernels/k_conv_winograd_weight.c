/* k_conv_winograd_weight.c - the gradient of a 3x3 kernel by Winograd's transforms.
 *
 *   dU[point, c, o] = sum over tiles of (Bt d B)[point, c] (A dY At)[point, o];  dg = Gt dU G
 *
 * Tiles are cut into a fixed number of pieces; 24 or 48 tiles at a time are summed in registers,
 * then into their piece's sums, then the pieces in order.
 */
#include "kernels/k_conv_winograd.h"

#include <omp.h>

enum { MOST_PIECES = 16, FEWEST_PIECES = 4 };
static const int64_t piece_memory = (int64_t)64 << 20; /* bytes that all sums may take */

typedef struct weight_plan {
    tl_winograd_map map;
    int64_t inputs;
    int64_t outputs;
    int64_t sum_values; /* of a piece: [16][chunk][inputs][vectors of outputs] */
    int64_t pieces;
    tl_real *sums;
    tl_real *patches;
    tl_real *gradients; /* [16][tile][outputs] */
    int64_t *offsets;
    int64_t patch_values;
    int64_t gradient_values;
    size_t bytes;
} weight_plan;

static weight_plan make_plan(const tl_conv_shape *s, int threads, char *base) {
    weight_plan plan = {.map = tl_winograd_make_map(s, s->in[1], s->in[2], s->out[1], s->out[2],
                                                    s->padding[1], s->padding[2]),
                        .inputs = s->in_channels,
                        .outputs = s->out_channels};
    const int64_t tiles = plan.map.item_tiles;
    plan.sum_values = TL_WINOGRAD_POINTS * plan.inputs * plan.outputs;
    const int64_t affordable = piece_memory / (plan.sum_values * (int64_t)sizeof(tl_real));
    plan.pieces = tl_conv_maximum(FEWEST_PIECES, tl_conv_minimum(MOST_PIECES, affordable));
    plan.pieces = tl_conv_minimum(plan.pieces, plan.map.items);
    plan.patch_values = TL_WINOGRAD_POINTS * tiles * plan.inputs;
    plan.gradient_values = TL_WINOGRAD_POINTS * tiles * plan.outputs;
    size_t used = 0;
    plan.sums =
        tl_conv_take(&base, &used, (size_t)(plan.pieces * plan.sum_values) * sizeof(tl_real));
    plan.patches =
        tl_conv_take(&base, &used, (size_t)(threads * plan.patch_values) * sizeof(tl_real));
    plan.gradients =
        tl_conv_take(&base, &used, (size_t)(threads * plan.gradient_values) * sizeof(tl_real));
    plan.offsets = tl_conv_take(&base, &used, (size_t)tiles * 2 * sizeof(int64_t));
    plan.bytes = used;
    if (base != NULL) {
        for (int64_t t = 0; t < tiles; t++) {
            plan.offsets[t] = t * plan.inputs;
            plan.offsets[tiles + t] = t * plan.outputs;
        }
    }
    return plan;
}

/* A along one dimension. */
TL_INLINE void spread_line(tl_v a, tl_v b, tl_v out[4]) {
    out[0] = a;
    out[1] = a + b;
    out[2] = a - b;
    out[3] = tl_v_zero() - b;
}

/* A dY At of tiles first ... into gradients [16][item_tiles][outputs]. */
static void transform_gradients(const weight_plan *plan, const tl_real *dy, int64_t first,
                                int64_t count, tl_real *gradients) {
    const tl_winograd_map *m = &plan->map;
    const int64_t channels = plan->outputs;
    const int64_t stride = m->item_tiles * channels;
    for (int64_t t = 0; t < count; t++) {
        const tl_winograd_place place = tl_winograd_locate(m, first + t);
        const tl_real *corner =
            dy +
            ((place.image * m->out_height + place.row) * m->out_width + place.column) * channels;
        const bool lower = place.row + 2 <= m->out_height;
        const bool right = place.column + 2 <= m->out_width;
        const int64_t down = m->out_width * channels;
        for (int64_t c = 0; c < channels; c += TL_LANES) {
            const tl_v zero = tl_v_zero();
            const tl_v y00 = tl_v_load(corner + c);
            const tl_v y01 = right ? tl_v_load(corner + channels + c) : zero;
            const tl_v y10 = lower ? tl_v_load(corner + down + c) : zero;
            const tl_v y11 = lower && right ? tl_v_load(corner + down + channels + c) : zero;
            tl_v left_half[4];
            tl_v right_half[4];
            spread_line(y00, y10, left_half);
            spread_line(y01, y11, right_half);
            for (int i = 0; i < 4; i++) {
                tl_v line[4];
                spread_line(left_half[i], right_half[i], line);
                for (int j = 0; j < 4; j++) {
                    tl_v_store(gradients + (i * 4 + j) * stride + t * channels + c, line[j]);
                }
            }
        }
    }
}

static void multiply(const weight_plan *plan, const tl_real *patches, const tl_real *gradients,
                     int64_t count, tl_real *sums) {
    const int64_t tiles = plan->map.item_tiles;
    for (int point = 0; point < TL_WINOGRAD_POINTS; point++) {
        for (int64_t chunk = 0; chunk < tl_conv_chunks(plan->outputs); chunk++) {
            const int64_t column = chunk * 2 * TL_LANES;
            const int vectors = tl_conv_chunk_vectors(plan->outputs, chunk);
            const int64_t blocks = tl_conv_blocks(plan->inputs, vectors);
            tl_real *sum = sums + (point * plan->outputs + column) * plan->inputs;
            int64_t first = 0;
            for (int64_t b = 1; b <= blocks; b++) {
                const int64_t end = plan->inputs * b / blocks;
                const tl_conv_outer outer = {.x = patches + point * tiles * plan->inputs + first,
                                             .x_offsets = plan->offsets,
                                             .y =
                                                 gradients + point * tiles * plan->outputs + column,
                                             .y_offsets = plan->offsets + tiles,
                                             .positions = count,
                                             .sum = sum + first * vectors * TL_LANES};
                if (vectors == 2) {
                    switch (end - first) { TL_CONV_CASES_2(tl_conv_outer_block, &outer) }
                } else {
                    switch (end - first) { TL_CONV_CASES_1(tl_conv_outer_block, &outer) }
                }
                first = end;
            }
        }
    }
}

/* Gt along one dimension. */
static void fold_line(const tl_real u[4], tl_real out[3]) {
    out[0] = u[0] + (tl_real)0.5 * (u[1] + u[2]);
    out[1] = (tl_real)0.5 * (u[1] - u[2]);
    out[2] = (tl_real)0.5 * (u[1] + u[2]) + u[3];
}

/* dg of one output channel. */
static void collect(const weight_plan *plan, int64_t o, tl_real *dweight, bool accumulate) {
    const int64_t chunk = o / (2 * TL_LANES);
    const int64_t column = chunk * 2 * TL_LANES;
    const int64_t width = tl_conv_chunk_vectors(plan->outputs, chunk) * TL_LANES;
    for (int64_t c = 0; c < plan->inputs; c++) {
        tl_real half[3][4];
        for (int j = 0; j < 4; j++) {
            tl_real u[4];
            for (int i = 0; i < 4; i++) {
                const tl_real *from = plan->sums +
                                      ((i * 4 + j) * plan->outputs + column) * plan->inputs +
                                      c * width + o - column;
                u[i] = 0;
                for (int64_t piece = 0; piece < plan->pieces; piece++) {
                    u[i] += from[piece * plan->sum_values];
                }
            }
            tl_real folded[3];
            fold_line(u, folded);
            for (int i = 0; i < 3; i++) {
                half[i][j] = folded[i];
            }
        }
        for (int i = 0; i < 3; i++) {
            tl_real line[3];
            fold_line(half[i], line);
            for (int j = 0; j < 3; j++) {
                tl_real *to = dweight + (o * 9 + i * 3 + j) * plan->inputs + c;
                *to = accumulate ? *to + line[j] : line[j];
            }
        }
    }
}

static void winograd_backward_weight(const tl_conv_shape *shape, const tl_real *x,
                                     const tl_real *dy, tl_real *dweight, bool accumulate,
                                     void *scratch, int threads) {
    const weight_plan plan = make_plan(shape, threads, scratch);
    const int64_t items = plan.map.items;
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        const int thread = omp_get_thread_num();
        tl_real *patches = plan.patches + thread * plan.patch_values;
        tl_real *gradients = plan.gradients + thread * plan.gradient_values;
#pragma omp for schedule(dynamic, 1)
        for (int64_t piece = 0; piece < plan.pieces; piece++) {
            tl_real *sums = plan.sums + piece * plan.sum_values;
            memset(sums, 0, (size_t)plan.sum_values * sizeof(tl_real));
            const int64_t end = items * (piece + 1) / plan.pieces;
            for (int64_t item = items * piece / plan.pieces; item < end; item++) {
                const int64_t first = item * plan.map.item_tiles;
                const int64_t count = tl_conv_minimum(plan.map.item_tiles, plan.map.tiles - first);
                tl_winograd_transform_patches(&plan.map, x, plan.inputs, first, count, patches);
                transform_gradients(&plan, dy, first, count, gradients);
                multiply(&plan, patches, gradients, count, sums);
            }
        }
#pragma omp for schedule(static)
        for (int64_t o = 0; o < shape->out_channels; o++) {
            collect(&plan, o, dweight, accumulate);
        }
    }
}

static size_t winograd_weight_scratch_bytes(const tl_conv_shape *shape, int threads) {
    return make_plan(shape, threads, NULL).bytes;
}

const tl_conv_weight_kernels TL_PER_ISA(tl_conv_winograd_weight) = {
    .scratch_bytes = winograd_weight_scratch_bytes,
    .backward_weight = winograd_backward_weight,
};
