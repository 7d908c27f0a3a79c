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
    PARTS_BUFFER_BYTES = 64 << 10,  /* of samples made at a time, of x and of dy */
    PARTS_SAMPLE_BYTES = 128 << 10, /* larger samples do not stay in the second-level cache */
    FORWARD_LEAST_GROUPS = 8,       /* each a task for one thread */
    BACKWARD_LEAST_PIECES = 12,     /* each a task for one thread */
    BACKWARD_PIECE_SAMPLES = 4,     /* at least, so that pieces are alike */
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

/* ------------------------------------------------------------------ from parts */

/* Values of a sample of x and of y. */
static int64_t x_values_of(const tl_conv_shape *s) {
    return s->in[0] * s->in[1] * s->in[2] * s->in_channels;
}

static int64_t y_values_of(const tl_conv_shape *s) {
    return s->out[0] * s->out[1] * s->out[2] * s->out_channels;
}

static int64_t sample_bytes(const tl_conv_shape *s) {
    return tl_conv_maximum(x_values_of(s), y_values_of(s)) * (int64_t)sizeof(tl_real);
}

/* Samples worked on at a time. */
static int64_t group_of(const tl_conv_shape *s) {
    return tl_conv_maximum(1, PARTS_BUFFER_BYTES / sample_bytes(s));
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

/* The memory of samples that are made later is fetched soon. */
static void fetch_samples(const tl_parts *parts, int64_t first, int64_t count, int64_t values) {
    if (parts->values != NULL) {
        fetch_later(parts->values + first * values, count * values);
        return;
    }
    for (int i = 0; i < TL_PARTS_READS && parts->reads[i] != NULL; i++) {
        fetch_later(parts->reads[i] + first * values, count * values);
    }
}

static void map_samples(const map_plan *plan, int64_t tiles, const tl_real *source,
                        const tl_real *bias, tl_real *destination, bool accumulate, int thread) {
    for (int64_t tile = 0; tile < tiles; tile += plan->room) {
        map_tiles(plan, tile, tl_conv_minimum(plan->room, tiles - tile), TL_WINOGRAD_QUEUED, source,
                  bias, destination, accumulate, thread);
    }
}

static void sum_samples(const sum_plan *plan, const sum_target *to, int64_t tiles, const tl_real *x,
                        const tl_real *dy) {
    const int64_t pieces = tl_conv_ceiling(tiles, plan->room);
    for (int64_t i = 0; i < pieces; i++) {
        const int64_t tile = tiles * i / pieces;
        sum_tiles(plan, to, tile, tiles * (i + 1) / pieces - tile, TL_WINOGRAD_QUEUED, x, dy);
    }
}

/* ------------------------------------------------------------------ forward from parts */

typedef struct forward_plan {
    map_plan map;
    int64_t group;
    int64_t groups;   /* each a task for one thread */
    tl_real *buffers; /* per thread */
    size_t bytes;
} forward_plan;

static forward_plan make_forward_plan(const tl_conv_shape *shape, int threads, char *base) {
    forward_plan plan = {.map = make_map_plan(shape, TL_CONV_FORWARD, threads, base),
                         .group = group_of(shape)};
    plan.groups = tl_conv_ceiling(shape->batch, plan.group);
    size_t used = plan.map.bytes;
    plan.buffers = tl_conv_take(
        &base, &used, (size_t)(threads * plan.group * x_values_of(shape)) * sizeof(tl_real));
    plan.bytes = used;
    return plan;
}

static bool takes_parts(const tl_conv_shape *shape) {
    return tl_winograd_suits(shape, TL_CONV_FORWARD) && sample_bytes(shape) <= PARTS_SAMPLE_BYTES &&
           tl_conv_ceiling(shape->batch, group_of(shape)) >= FORWARD_LEAST_GROUPS;
}

static size_t forward_parts_scratch_bytes(const tl_conv_shape *shape, int threads) {
    return make_forward_plan(shape, threads, NULL).bytes;
}

static void winograd_forward_parts(const tl_conv_shape *shape, const tl_parts *x,
                                   const tl_real *weight, const tl_real *bias, tl_real *y,
                                   void *scratch, int threads) {
    const forward_plan plan = make_forward_plan(shape, threads, scratch);
    map_prepare(shape, TL_CONV_FORWARD, weight, &plan.map, threads);
    const int64_t x_values = x_values_of(shape);
    const int64_t y_values = y_values_of(shape);
    const int64_t tiles = plan.map.grid.tiles / shape->batch;
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
    tl_shares shares = tl_shares_of(plan.groups, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t group; tl_shares_take(&shares, &group);) {
        const int thread = omp_get_thread_num();
        const int64_t first = group * plan.group;
        const int64_t count = tl_conv_minimum(plan.group, shape->batch - first);
        const int64_t next = tl_conv_minimum(plan.group, shape->batch - first - count);
        const tl_real *part =
            take_samples(x, first, count, x_values, plan.buffers + thread * plan.group * x_values);
        fetch_forget();
        fetch_later(y + first * y_values, count * y_values);
        fetch_samples(x, first + count, next, x_values);
        map_samples(&plan.map, tiles * count, part, bias, y + first * y_values, false, thread);
    }
}

/* ------------------------------------------------------------------ both gradients from parts */

typedef struct backward_plan {
    map_plan map; /* dy to dx */
    sum_plan sum;
    int64_t group;
    tl_real *buffers; /* per thread: x, dy */
    size_t bytes;
} backward_plan;

static backward_plan make_backward_plan(const tl_conv_shape *shape, int threads, char *base) {
    backward_plan plan = {.map = make_map_plan(shape, TL_CONV_BACKWARD_INPUT, threads, base),
                          .group = group_of(shape)};
    size_t used = plan.map.bytes;
    plan.sum = make_sum_plan(shape, threads, base != NULL ? base + used : NULL);
    used += plan.sum.bytes;
    const int64_t values = plan.group * (x_values_of(shape) + y_values_of(shape));
    plan.buffers = tl_conv_take(&base, &used, (size_t)(threads * values) * sizeof(tl_real));
    plan.bytes = used;
    return plan;
}

static bool fuses_backward(const tl_conv_shape *shape) {
    if (!tl_winograd_suits(shape, TL_CONV_BACKWARD_INPUT) ||
        !tl_winograd_suits(shape, TL_CONV_BACKWARD_WEIGHT) ||
        sample_bytes(shape) > PARTS_SAMPLE_BYTES) {
        return false;
    }
    const sum_plan sum = make_sum_plan(shape, 1, NULL);
    return sum.slices == 1 && sum.pieces >= BACKWARD_LEAST_PIECES &&
           shape->batch >= sum.pieces * BACKWARD_PIECE_SAMPLES;
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
    const int64_t x_values = x_values_of(shape);
    const int64_t dy_values = y_values_of(shape);
    const int64_t dx_tiles = plan.map.grid.tiles / shape->batch;
    const int64_t dweight_tiles = plan.sum.grid.tiles / shape->batch;
    const int team = tl_conv_threads(tl_conv_direct_flops(shape), threads);
    tl_shares shares = tl_shares_of(plan.sum.pieces, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t piece; tl_shares_take(&shares, &piece);) {
        const int thread = omp_get_thread_num();
        tl_real *x_buffer = plan.buffers + thread * plan.group * (x_values + dy_values);
        tl_real *dy_buffer = x_buffer + plan.group * x_values;
        const sum_target to = sum_begin(&plan.sum, piece, 0, thread);
        const int64_t end = shape->batch * (piece + 1) / plan.sum.pieces;
        for (int64_t first = shape->batch * piece / plan.sum.pieces; first < end;
             first += plan.group) {
            const int64_t count = tl_conv_minimum(plan.group, end - first);
            const int64_t next = tl_conv_minimum(plan.group, end - first - count);
            const tl_real *x_part = take_samples(x, first, count, x_values, x_buffer);
            const tl_real *dy_part = take_samples(dy, first, count, dy_values, dy_buffer);
            fetch_forget();
            fetch_later(dx + first * x_values, count * x_values);
            fetch_samples(dy, first + count, next, dy_values);
            fetch_samples(x, first + count, next, x_values);
            map_samples(&plan.map, dx_tiles * count, dy_part, NULL, dx + first * x_values,
                        accumulate_dx, thread);
            if (watch != NULL) {
                watch->see(watch->state, first, count);
            }
            sum_samples(&plan.sum, &to, dweight_tiles * count, x_part, dy_part);
        }
    }
    sum_finish(&plan.sum, dweight, accumulate_dweight, team);
}

const tl_conv_parts_kernels TL_PER_ISA(tl_conv_winograd_parts) = {
    .takes_parts = takes_parts,
    .forward_scratch_bytes = forward_parts_scratch_bytes,
    .forward = winograd_forward_parts,
    .fuses_backward = fuses_backward,
    .backward_scratch_bytes = backward_scratch_bytes,
    .backward = winograd_backward,
};
