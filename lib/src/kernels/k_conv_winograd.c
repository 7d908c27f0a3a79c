/* k_conv_winograd.c - convolutions by Winograd's algorithms: the three directions, each by itself
 * or both gradients at once.
 *
 * Both at once go over the batch a few samples at a time. What is made of the tensors that they
 * read (tl_parts: a normalisation, its gradient) stays in a buffer of the thread in the
 * second-level cache, where both gradients find it; neither tensor is written to memory and read
 * again.
 */
#include "kernels/k_conv_winograd_map.h"
#include "kernels/k_conv_winograd_sum.h"
#include "kernels/shares.h"

#include <omp.h>

enum {
    BACKWARD_BUFFER_BYTES = 64 << 10,  /* of samples made at a time, of x and of dy */
    BACKWARD_SAMPLE_BYTES = 128 << 10, /* larger samples do not stay in the second-level cache */
    BACKWARD_LEAST_PIECES = 12,        /* each a task for one thread */
    BACKWARD_PIECE_SAMPLES = 4,        /* at least, so that pieces are alike */
};

/* ------------------------------------------------------------------ each direction by itself */

static void correlate(const tl_conv_shape *shape, tl_conv_direction direction,
                      const tl_real *source, const tl_real *weight, const tl_real *bias,
                      tl_real *destination, bool accumulate, void *scratch, int threads) {
    const map_plan plan = make_map_plan(shape, direction, threads, scratch);
    map_prepare(shape, direction, weight, &plan, threads);
    const int64_t tiles = plan.grid.tiles;
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
    tl_shares shares = tl_shares_of(plan.pieces, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t piece; tl_shares_take(&shares, &piece);) {
        const int64_t first = piece * plan.room;
        const int64_t count = tl_conv_minimum(plan.room, tiles - first);
        const int64_t next = tl_conv_minimum(plan.room, tiles - first - count);
        map_tiles(&plan, first, count, next, source, bias, destination, accumulate,
                  omp_get_thread_num());
    }
}

static size_t map_scratch_bytes(const tl_conv_shape *shape, tl_conv_direction direction,
                                int threads) {
    return make_map_plan(shape, direction, threads, NULL).bytes;
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

static size_t sum_scratch_bytes(const tl_conv_shape *shape, int threads) {
    return make_sum_plan(shape, threads, NULL).bytes;
}

static void winograd_backward_weight(const tl_conv_shape *shape, const tl_real *x,
                                     const tl_real *dy, tl_real *dweight, bool accumulate,
                                     void *scratch, int threads) {
    const sum_plan plan = make_sum_plan(shape, threads, scratch);
    const int64_t tiles = plan.grid.tiles;
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
    tl_shares shares = tl_shares_of(plan.pieces * plan.slices, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t i; tl_shares_take(&shares, &i);) {
        const int64_t piece = i / plan.slices;
        const sum_target to = sum_begin(&plan, piece, i % plan.slices, omp_get_thread_num());
        const int64_t end = tiles * (piece + 1) / plan.pieces;
        for (int64_t tile = tiles * piece / plan.pieces; tile < end; tile += plan.room) {
            const int64_t count = tl_conv_minimum(plan.room, end - tile);
            /* of several slices, each would ask for all of x */
            const int64_t next =
                plan.slices == 1 ? tl_conv_minimum(plan.room, end - tile - count) : 0;
            sum_tiles(&plan, &to, tile, count, next, x, dy);
        }
    }
    sum_finish(&plan, dweight, accumulate, team);
}

const tl_conv_map_kernels TL_PER_ISA(tl_conv_winograd) = {
    .scratch_bytes = map_scratch_bytes,
    .forward = winograd_forward,
    .backward_input = winograd_backward_input,
};

const tl_conv_weight_kernels TL_PER_ISA(tl_conv_winograd_weight) = {
    .scratch_bytes = sum_scratch_bytes,
    .backward_weight = winograd_backward_weight,
};

/* ------------------------------------------------------------------ both gradients at once */

typedef struct backward_plan {
    map_plan map; /* dy to dx */
    sum_plan sum;
    int64_t map_tiles; /* of a sample */
    int64_t sum_tiles;
    int64_t x_values;
    int64_t dy_values;
    int64_t group;    /* samples worked on at a time */
    tl_real *buffers; /* per thread: x, dy */
    size_t bytes;
} backward_plan;

static backward_plan make_backward_plan(const tl_conv_shape *shape, int threads, char *base) {
    backward_plan plan = {.map = make_map_plan(shape, TL_CONV_BACKWARD_INPUT, threads, base)};
    size_t used = plan.map.bytes;
    plan.sum = make_sum_plan(shape, threads, base != NULL ? base + used : NULL);
    used += plan.sum.bytes;
    plan.map_tiles = plan.map.grid.tiles / shape->batch;
    plan.sum_tiles = plan.sum.grid.tiles / shape->batch;
    plan.x_values = shape->in[0] * shape->in[1] * shape->in[2] * shape->in_channels;
    plan.dy_values = shape->out[0] * shape->out[1] * shape->out[2] * shape->out_channels;
    const int64_t bytes = tl_conv_maximum(plan.x_values, plan.dy_values) * (int64_t)sizeof(tl_real);
    plan.group = tl_conv_maximum(1, BACKWARD_BUFFER_BYTES / bytes);
    plan.buffers = tl_conv_take(&base, &used,
                                (size_t)(threads * plan.group * (plan.x_values + plan.dy_values)) *
                                    sizeof(tl_real));
    plan.bytes = used;
    return plan;
}

static bool fuses_backward(const tl_conv_shape *shape) {
    if (!tl_winograd_suits(shape, TL_CONV_BACKWARD_INPUT) ||
        !tl_winograd_suits(shape, TL_CONV_BACKWARD_WEIGHT)) {
        return false;
    }
    const backward_plan plan = make_backward_plan(shape, 1, NULL);
    const int64_t bytes = tl_conv_maximum(plan.x_values, plan.dy_values) * (int64_t)sizeof(tl_real);
    return plan.sum.slices == 1 && plan.sum.pieces >= BACKWARD_LEAST_PIECES &&
           shape->batch >= plan.sum.pieces * BACKWARD_PIECE_SAMPLES &&
           bytes <= BACKWARD_SAMPLE_BYTES;
}

/* Samples first ... first+count-1 of a tensor of so many values each, in `buffer` if they are made.
 */
static const tl_real *take_samples(const tl_parts *parts, int64_t first, int64_t count,
                                   int64_t values, tl_real *buffer) {
    if (parts->values != NULL) {
        return parts->values + first * values;
    }
    parts->make(parts->state, first, count, buffer);
    return buffer;
}

/* The memory of samples that are made or written later is fetched soon. */
static void fetch_samples(const tl_parts *parts, int64_t first, int64_t count, int64_t values) {
    if (parts->values != NULL) {
        fetch_later(parts->values + first * values, count * values);
        return;
    }
    for (int i = 0; i < TL_PARTS_READS && parts->reads[i] != NULL; i++) {
        fetch_later(parts->reads[i] + first * values, count * values);
    }
}

static void dx_samples(const backward_plan *plan, int64_t count, const tl_real *dy, tl_real *dx,
                       bool accumulate, int thread) {
    const int64_t end = plan->map_tiles * count;
    for (int64_t tile = 0; tile < end; tile += plan->map.room) {
        map_tiles(&plan->map, tile, tl_conv_minimum(plan->map.room, end - tile), TL_WINOGRAD_QUEUED,
                  dy, NULL, dx, accumulate, thread);
    }
}

static void add_samples(const backward_plan *plan, const sum_target *to, int64_t count,
                        const tl_real *x, const tl_real *dy) {
    const int64_t tiles = plan->sum_tiles * count;
    const int64_t pieces = tl_conv_ceiling(tiles, plan->sum.room);
    for (int64_t i = 0; i < pieces; i++) {
        const int64_t tile = tiles * i / pieces;
        sum_tiles(&plan->sum, to, tile, tiles * (i + 1) / pieces - tile, TL_WINOGRAD_QUEUED, x, dy);
    }
}

static size_t backward_scratch_bytes(const tl_conv_shape *shape, int threads) {
    return make_backward_plan(shape, threads, NULL).bytes;
}

static void winograd_backward(const tl_conv_shape *shape, const tl_parts *x, const tl_parts *dy,
                              const tl_real *weight, tl_real *dx, bool accumulate_dx,
                              tl_real *dweight, bool accumulate_dweight, const tl_watch *watch,
                              void *scratch, int threads) {
    const backward_plan plan = make_backward_plan(shape, threads, scratch);
    map_prepare(shape, TL_CONV_BACKWARD_INPUT, weight, &plan.map, threads);
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
    tl_shares shares = tl_shares_of(plan.sum.pieces, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t piece; tl_shares_take(&shares, &piece);) {
        const int thread = omp_get_thread_num();
        tl_real *x_buffer = plan.buffers + thread * plan.group * (plan.x_values + plan.dy_values);
        tl_real *dy_buffer = x_buffer + plan.group * plan.x_values;
        const sum_target to = sum_begin(&plan.sum, piece, 0, thread);
        const int64_t end = shape->batch * (piece + 1) / plan.sum.pieces;
        for (int64_t first = shape->batch * piece / plan.sum.pieces; first < end;
             first += plan.group) {
            const int64_t count = tl_conv_minimum(plan.group, end - first);
            const int64_t next = tl_conv_minimum(plan.group, end - first - count);
            const tl_real *x_part = take_samples(x, first, count, plan.x_values, x_buffer);
            const tl_real *dy_part = take_samples(dy, first, count, plan.dy_values, dy_buffer);
            fetch_forget();
            fetch_later(dx + first * plan.x_values, count * plan.x_values);
            fetch_samples(dy, first + count, next, plan.dy_values);
            fetch_samples(x, first + count, next, plan.x_values);
            dx_samples(&plan, count, dy_part, dx + first * plan.x_values, accumulate_dx, thread);
            if (watch != NULL) {
                watch->see(watch->state, first, count);
            }
            add_samples(&plan, &to, count, x_part, dy_part);
        }
    }
    sum_finish(&plan.sum, dweight, accumulate_dweight, team);
}

const tl_conv_backward_kernels TL_PER_ISA(tl_conv_winograd_backward) = {
    .fuses = fuses_backward,
    .scratch_bytes = backward_scratch_bytes,
    .backward = winograd_backward,
};
