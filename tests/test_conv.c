/* The convolution kernels against the definition: every path in all three directions, on every
 * instruction set, on 1, 2 and 3 threads with the same bits, writing and accumulating, in scratch
 * of exactly the size they ask for. Each case says which path it takes.
 */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "reference/reference_conv.h"

typedef struct conv_case {
    tl_conv_path path;
    int64_t batch;
    int64_t in[3];
    int64_t in_channels, out_channels, groups;
    int64_t kernel[3], stride[3], padding[3], dilation[3]; /* 0: 1 (padding: 0) */
} conv_case;

#define IMAGE(h, w)                                                                                \
    { 1, h, w }
#define WINOGRAD TL_CONV_PATH_WINOGRAD
#define DEPTHWISE TL_CONV_PATH_DEPTHWISE
#define ROWS TL_CONV_PATH_ROWS
#define DIRECT TL_CONV_PATH_DIRECT
#define K3 IMAGE(3, 3)
#define P1                                                                                         \
    { 0, 1, 1 }
#define S2 IMAGE(2, 2)

static const conv_case cases[] = {
    /* Winograd, both sizes of tiles: even and odd extents, one and several chunks of channels, all
       paddings */
    {WINOGRAD, 3, IMAGE(8, 8), 16, 16, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 2, IMAGE(7, 7), 32, 32, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 1, IMAGE(8, 8), 64, 64, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 1, IMAGE(5, 9), 48, 16, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 2, IMAGE(6, 4), 16, 80, 1, .kernel = K3, .padding = {0, 2, 1}},
    {WINOGRAD, 1, IMAGE(12, 6), 16, 48, 1, .kernel = K3},
    {WINOGRAD, 1, IMAGE(4, 5), 32, 16, 1, .kernel = K3, .padding = {0, 3, 4}},
    {WINOGRAD, 9, IMAGE(32, 32), 16, 16, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 2, {5, 6, 6}, 16, 32, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 12, IMAGE(7, 7), 16, 32, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 7, IMAGE(13, 9), 32, 16, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 8, IMAGE(11, 12), 16, 16, 1, .kernel = K3, .padding = {0, 2, 0}},
    {WINOGRAD, 5, IMAGE(9, 10), 16, 48, 1, .kernel = K3, .padding = {0, 4, 3}},
    {WINOGRAD, 40, IMAGE(4, 3), 80, 32, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 3, {4, 10, 15}, 16, 32, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 2, IMAGE(16, 16), 160, 96, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 1, IMAGE(32, 32), 16, 16, 1, .kernel = K3, .padding = P1, .dilation = {3, 1, 1}},
    {WINOGRAD, 16, IMAGE(16, 16), 32, 48, 1, .kernel = K3, .stride = S2, .padding = P1},
    {WINOGRAD, 9, IMAGE(31, 30), 32, 32, 1, .kernel = K3, .stride = S2, .padding = P1},
    {WINOGRAD, 7, IMAGE(29, 32), 32, 80, 1, .kernel = K3, .stride = S2, .padding = {0, 3, 1}},
    {WINOGRAD, 5, {3, 31, 25}, 48, 32, 1, .kernel = K3, .stride = S2, .padding = {0, 1, 3}},
    /* direct: channels and extents that do not suit Winograd, the stem, strides */
    {DIRECT, 2, IMAGE(9, 8), 3, 16, 1, .kernel = K3, .padding = P1},
    {DIRECT, 3, IMAGE(14, 14), 1, 16, 1, .kernel = K3, .padding = P1},
    {DIRECT, 1, IMAGE(1, 1), 16, 16, 1, .kernel = K3, .padding = P1},
    {DIRECT, 2, IMAGE(7, 3), 5, 7, 1, .kernel = K3, .padding = P1},
    {DIRECT, 2, IMAGE(6, 6), 17, 33, 1, .kernel = K3, .padding = P1},
    {DIRECT, 2, IMAGE(8, 8), 16, 32, 1, .kernel = K3, .stride = S2, .padding = P1},
    {DIRECT, 3, IMAGE(7, 7), 32, 64, 1, .kernel = K3, .stride = S2, .padding = P1},
    {DIRECT, 2, IMAGE(9, 11), 3, 5, 1, .kernel = K3, .stride = S2},
    {DIRECT, 2, IMAGE(8, 8), 16, 32, 1, .kernel = IMAGE(1, 1), .stride = S2},
    {DIRECT, 1, IMAGE(5, 5), 4, 6, 1, .kernel = IMAGE(1, 1), .stride = {1, 3, 3}, .padding = P1},
    {DIRECT, 2, IMAGE(11, 13), 3, 4, 1, .kernel = IMAGE(5, 5), .stride = S2, .padding = {0, 2, 2}},
    {DIRECT, 1, IMAGE(13, 17), 2, 24, 1, .kernel = IMAGE(7, 7), .stride = {1, 2, 3},
     .padding = {0, 3, 4}},
    {DIRECT, 1, IMAGE(12, 12), 8, 8, 1, .kernel = IMAGE(4, 4), .stride = {1, 4, 4}},
    {DIRECT, 1, IMAGE(17, 9), 2, 3, 1, .kernel = IMAGE(3, 5), .stride = {1, 2, 1},
     .padding = {0, 1, 2}, .dilation = {1, 1, 2}},
    {DIRECT, 2, IMAGE(11, 13), 3, 4, 1, .kernel = K3, .padding = {0, 2, 2},
     .dilation = IMAGE(2, 2)},
    {DIRECT, 1, IMAGE(15, 16), 2, 4, 1, .kernel = K3, .stride = S2, .padding = {0, 2, 2},
     .dilation = {1, 2, 4}},
    {DIRECT, 1, IMAGE(15, 16), 5, 4, 1, .kernel = K3, .stride = {1, 2, 3}, .padding = {0, 3, 2},
     .dilation = {1, 3, 2}},
    {DIRECT, 2, IMAGE(9, 9), 6, 9, 3, .kernel = K3, .stride = S2, .padding = P1},
    {DIRECT, 1, IMAGE(5, 6), 32, 64, 2, .kernel = K3, .padding = P1},
    {DIRECT, 2, IMAGE(5, 6), 4, 8, 4, .kernel = K3, .padding = P1},
    {DIRECT, 1, IMAGE(4, 4), 8, 6, 2, .kernel = IMAGE(1, 1)},
    {DIRECT, 1, IMAGE(3, 4), 2, 3, 1, .kernel = K3, .padding = {0, 5, 4}},
    {DIRECT, 1, IMAGE(1, 700), 3, 6, 1, .kernel = IMAGE(1, 5), .padding = {0, 0, 2}},
    {DIRECT, 2, {5, 6, 7}, 3, 4, 1, .kernel = {3, 3, 3}, .padding = {1, 1, 1}},
    {DIRECT, 1, {7, 5, 9}, 3, 2, 1, .kernel = {3, 2, 3}, .stride = {2, 1, 2}, .padding = {1, 0, 1}},
    {DIRECT,
     1,
     {7, 7, 6},
     6,
     3,
     3,
     .kernel = {3, 3, 3},
     .padding = {2, 2, 2},
     .dilation = {2, 2, 2}},
    {DIRECT, 1, IMAGE(3, 3), 300, 70, 1, .kernel = IMAGE(2, 2)},
    {DIRECT, 1, IMAGE(8, 6), 130, 600, 1, .kernel = K3, .stride = S2, .padding = P1},
    /* the rows */
    {ROWS, 2, IMAGE(7, 7), 16, 32, 1, .kernel = IMAGE(1, 1)},
    {ROWS, 2, IMAGE(5, 5), 33, 13, 1, .kernel = IMAGE(1, 1)},
    {ROWS, 1, IMAGE(1, 1), 1, 1, 1, .kernel = IMAGE(1, 1)},
    {ROWS, 3, {2, 3, 4}, 8, 24, 1, .kernel = IMAGE(1, 1)},
    {ROWS, 8, IMAGE(16, 16), 64, 48, 1, .kernel = IMAGE(1, 1)},
    /* depthwise */
    {DEPTHWISE, 2, IMAGE(8, 9), 7, 7, 7, .kernel = K3, .padding = P1},
    {DEPTHWISE, 2, IMAGE(9, 9), 40, 40, 40, .kernel = K3, .stride = S2, .padding = P1},
    {DEPTHWISE, 1, IMAGE(7, 5), 16, 16, 16, .kernel = IMAGE(5, 3), .stride = {1, 1, 3},
     .padding = {0, 4, 0}, .dilation = {1, 2, 1}},
    {DEPTHWISE,
     1,
     {4, 5, 6},
     9,
     9,
     9,
     .kernel = {2, 3, 3},
     .stride = {2, 1, 2},
     .padding = {1, 1, 1}},
    {DEPTHWISE, 2, IMAGE(2, 2), 2, 2, 2, .kernel = K3, .padding = {0, 3, 2}},
    {DEPTHWISE, 4, IMAGE(32, 32), 16, 16, 16, .kernel = K3, .padding = P1},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static int64_t or_one(int64_t value) {
    return value == 0 ? 1 : value;
}

static tl_conv_shape shape_of(const conv_case *c) {
    tl_conv_shape s = {.batch = c->batch,
                       .in_channels = c->in_channels,
                       .out_channels = c->out_channels,
                       .groups = c->groups};
    for (int d = 0; d < 3; d++) {
        s.in[d] = c->in[d];
        s.kernel[d] = c->kernel[d];
        s.stride[d] = or_one(c->stride[d]);
        s.padding[d] = c->padding[d];
        s.dilation[d] = or_one(c->dilation[d]);
        const int64_t span = s.dilation[d] * (s.kernel[d] - 1) + 1;
        s.out[d] = (s.in[d] + 2 * s.padding[d] - span) / s.stride[d] + 1;
    }
    return s;
}

static int64_t product(const int64_t extents[3]) {
    return extents[0] * extents[1] * extents[2];
}

typedef struct conv_data {
    tl_conv_shape shape;
    int64_t x_size, y_size, weight_size;
    tl_real *x, *y, *weight;
    double *want[3]; /* y, dx, dweight */
} conv_data;

static conv_data make_data(const conv_case *c) {
    conv_data d = {.shape = shape_of(c)};
    const tl_conv_shape *s = &d.shape;
    d.x_size = s->batch * product(s->in) * s->in_channels;
    d.y_size = s->batch * product(s->out) * s->out_channels;
    d.weight_size = s->out_channels * product(s->kernel) * (s->in_channels / s->groups);
    d.x = random_values(d.x_size, 1, -1, 1);
    d.y = random_values(d.y_size, 2, -1, 1);
    d.weight = random_values(d.weight_size, 3, -1, 1);
    d.want[0] = calloc((size_t)d.y_size, sizeof(double));
    d.want[1] = calloc((size_t)d.x_size, sizeof(double));
    d.want[2] = calloc((size_t)d.weight_size, sizeof(double));
    reference_conv_shape r = {.batch = s->batch,
                              .in_channels = s->in_channels,
                              .out_channels = s->out_channels,
                              .groups = s->groups};
    memcpy(r.in, s->in, sizeof r.in);
    memcpy(r.out, s->out, sizeof r.out);
    memcpy(r.kernel, s->kernel, sizeof r.kernel);
    memcpy(r.stride, s->stride, sizeof r.stride);
    memcpy(r.padding, s->padding, sizeof r.padding);
    memcpy(r.dilation, s->dilation, sizeof r.dilation);
    reference_conv(&r, d.x, d.weight, d.y, d.want[0], d.want[1], d.want[2]);
    return d;
}

static void free_data(conv_data *d) {
    free(d->x);
    free(d->y);
    free(d->weight);
    for (int i = 0; i < 3; i++) {
        free(d->want[i]);
    }
}

static int64_t result_size(const conv_data *d, tl_conv_direction direction) {
    return direction == TL_CONV_FORWARD          ? d->y_size
           : direction == TL_CONV_BACKWARD_INPUT ? d->x_size
                                                 : d->weight_size;
}

/* Runs one direction; the result starts as `start` (NULL: NaN, which must not matter). */
static tl_real *run(const tl_kernels *kernels, const conv_data *d, tl_conv_direction direction,
                    const tl_real *bias, const tl_real *start, int threads) {
    const tl_conv_kernels *conv = kernels->conv;
    const size_t bytes = conv->scratch_bytes(&d->shape, direction, threads);
    unsigned char *scratch = aligned_alloc(TL_ALIGNMENT, (bytes + 64 + 63) / 64 * 64);
    memset(scratch, 0xff, bytes + 64); /* NaN: must not matter */
    const int64_t size = result_size(d, direction);
    tl_real *result = malloc((size_t)size * sizeof(tl_real));
    for (int64_t i = 0; i < size; i++) {
        result[i] = start ? start[i] : (tl_real)NAN;
    }
    const bool accumulate = start != NULL;
    if (direction == TL_CONV_FORWARD) {
        conv->forward(&d->shape, d->x, d->weight, bias, result, accumulate, scratch, threads);
    } else if (direction == TL_CONV_BACKWARD_INPUT) {
        conv->backward_input(&d->shape, d->y, d->weight, bias, result, accumulate, scratch,
                             threads);
    } else {
        conv->backward_weight(&d->shape, d->x, d->y, result, accumulate, scratch, threads);
    }
    for (size_t i = 0; i < 64; i++) {
        ck_assert_msg(scratch[bytes + i] == 0xff, "scratch was written beyond its end");
    }
    free(scratch);
    return result;
}

static void check_direction(const tl_kernels *kernels, const conv_data *d,
                            tl_conv_direction direction, const char *what) {
    const int64_t size = result_size(d, direction);
    const double *want = d->want[direction];
    tl_real *plain = run(kernels, d, direction, NULL, NULL, 1);
    assert_close(what, size, plain, want, 3e-6, 1e-6);
    for (int threads = 2; threads <= 3; threads++) {
        tl_real *again = run(kernels, d, direction, NULL, NULL, threads);
        assert_same_bits(what, size, plain, again);
        free(again);
    }
    const int64_t channels = direction == TL_CONV_FORWARD          ? d->shape.out_channels
                             : direction == TL_CONV_BACKWARD_INPUT ? d->shape.in_channels
                                                                   : 1;
    tl_real *start = random_values(size, 4, -1, 1);
    tl_real *bias = random_values(channels, 5, -1, 1);
    const bool has_bias = direction != TL_CONV_BACKWARD_WEIGHT;
    double *sum = malloc((size_t)size * sizeof(double));
    for (int64_t i = 0; i < size; i++) {
        sum[i] = want[i] + start[i] + (has_bias ? bias[i % channels] : 0);
    }
    tl_real *more = run(kernels, d, direction, has_bias ? bias : NULL, start, 2);
    assert_close(what, size, more, sum, 3e-6, 1e-6);
    free(plain);
    free(start);
    free(bias);
    free(sum);
    free(more);
}

static const char *const direction_names[3] = {"forward", "backward_input", "backward_weight"};
static const char *const path_names[4] = {"winograd", "depthwise", "rows", "direct"};

START_TEST(every_path) {
    for (int i = 0; i < CASES; i++) {
        conv_data data = make_data(&cases[i]);
        for (int isa = 0; isa < 3; isa++) {
            const char *reason;
            const tl_kernels *kernels = tl_kernels_select(all_isas[isa], &reason);
            if (kernels == NULL) {
                continue;
            }
            for (tl_conv_direction way = TL_CONV_FORWARD; way <= TL_CONV_BACKWARD_WEIGHT; way++) {
                char what[100];
                snprintf(what, sizeof what, "case %d, %s, %s", i, kernels->isa,
                         direction_names[way]);
                const tl_conv_path path = kernels->conv->path(&data.shape, way);
                ck_assert_msg(path == cases[i].path, "%s takes the path %s, not %s", what,
                              path_names[path], path_names[cases[i].path]);
                ck_assert_msg(kernels->conv->flops(&data.shape, way) > 0, "%s", what);
                check_direction(kernels, &data, way, what);
            }
        }
        free_data(&data);
    }
}
END_TEST

/* ------------------------------------------------------------------ from parts */

static const conv_case fused_cases[] = {
    {WINOGRAD, 64, IMAGE(16, 16), 16, 16, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 67, IMAGE(12, 9), 16, 32, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 64, IMAGE(13, 14), 32, 16, 1, .kernel = K3, .padding = {0, 2, 0}},
    {WINOGRAD, 65, {2, 12, 8}, 16, 16, 1, .kernel = K3, .padding = P1},
    {WINOGRAD, 128, IMAGE(31, 32), 32, 32, 1, .kernel = K3, .stride = S2, .padding = P1},
};
enum { FUSED_CASES = sizeof fused_cases / sizeof fused_cases[0] };

typedef struct samples {
    const tl_real *values;
    int64_t size; /* of one */
} samples;

static void copy_samples(const void *state, int64_t first, int64_t count, tl_real *to) {
    const samples *s = state;
    memcpy(to, s->values + first * s->size, (size_t)(count * s->size) * sizeof *to);
}

static tl_parts parts_of(const samples *s, bool made) {
    if (!made) {
        return (tl_parts){.values = s->values};
    }
    return (tl_parts){.make = copy_samples, .state = s, .reads = {s->values}};
}

typedef struct gradients {
    tl_real *dx;
    tl_real *dweight;
} gradients;

/* Copies of dx as each sample was seen. */
typedef struct seen {
    const tl_real *dx;
    tl_real *copy;
    int64_t size; /* of a sample */
} seen;

static void see_samples(const void *state, int64_t first, int64_t count) {
    const seen *s = state;
    for (int64_t i = first * s->size; i < (first + count) * s->size; i++) {
        s->copy[i] += s->dx[i]; /* seen twice, it is twice as large */
    }
}

static void free_gradients(gradients g) {
    free(g.dx);
    free(g.dweight);
}

/* Both gradients, written over NaN, or added to `start`. */
static gradients run_both(const tl_kernels *kernels, const conv_data *d, bool x_made, bool dy_made,
                          const gradients *start, int threads) {
    const size_t bytes = kernels->conv->parts->backward_scratch_bytes(&d->shape, threads);
    unsigned char *scratch = aligned_alloc(TL_ALIGNMENT, (bytes + 64 + 63) / 64 * 64);
    memset(scratch, 0xff, bytes + 64);
    gradients g = {.dx = malloc((size_t)d->x_size * sizeof(tl_real)),
                   .dweight = malloc((size_t)d->weight_size * sizeof(tl_real))};
    for (int64_t i = 0; i < d->x_size; i++) {
        g.dx[i] = start != NULL ? start->dx[i] : (tl_real)NAN;
    }
    for (int64_t i = 0; i < d->weight_size; i++) {
        g.dweight[i] = start != NULL ? start->dweight[i] : (tl_real)NAN;
    }
    const samples x = {d->x, d->x_size / d->shape.batch};
    const samples dy = {d->y, d->y_size / d->shape.batch};
    const tl_parts x_parts = parts_of(&x, x_made);
    const tl_parts dy_parts = parts_of(&dy, dy_made);
    const seen watched = {g.dx, calloc((size_t)d->x_size, sizeof(tl_real)), x.size};
    const tl_watch watch = {.see = see_samples, .state = &watched};
    kernels->conv->parts->backward(&d->shape, &x_parts, &dy_parts, d->weight, g.dx, start != NULL,
                                   g.dweight, start != NULL, dy_made ? &watch : NULL, scratch,
                                   threads);
    if (dy_made) {
        assert_same_bits("dx as it was seen", d->x_size, watched.copy, g.dx);
    }
    free(watched.copy);
    for (size_t i = 0; i < 64; i++) {
        ck_assert_msg(scratch[bytes + i] == 0xff, "scratch was written beyond its end");
    }
    free(scratch);
    return g;
}

/* Forward from parts: the bits of whole tensors, a bias included. */
static void check_forward_parts(const tl_kernels *kernels, const conv_data *d, const char *what) {
    const tl_conv_parts_kernels *conv = kernels->conv->parts;
    ck_assert_msg(conv->takes_parts(&d->shape), "%s: takes no parts", what);
    const samples x = {d->x, d->x_size / d->shape.batch};
    tl_real *bias = random_values(d->shape.out_channels, 5, -1, 1);
    tl_real *start = calloc((size_t)d->y_size, sizeof(tl_real));
    for (int i = 0; i < 4; i++) {
        const tl_real *added = i & 1 ? bias : NULL;
        tl_real *want = run(kernels, d, TL_CONV_FORWARD, added, NULL, 1);
        const int threads = 1 + i;
        const size_t bytes = conv->forward_scratch_bytes(&d->shape, threads);
        unsigned char *scratch = aligned_alloc(TL_ALIGNMENT, (bytes + 64 + 63) / 64 * 64);
        memset(scratch, 0xff, bytes + 64);
        const tl_parts parts = parts_of(&x, i & 2);
        conv->forward(&d->shape, &parts, d->weight, added, start, scratch, threads);
        assert_same_bits(what, d->y_size, start, want);
        for (size_t k = 0; k < 64; k++) {
            ck_assert_msg(scratch[bytes + k] == 0xff, "scratch was written beyond its end");
        }
        free(scratch);
        free(want);
    }
    free(start);
    free(bias);
}

static void check_sum(const char *what, int64_t size, const tl_real *got, const double *want,
                      const tl_real *start) {
    double *sum = malloc((size_t)size * sizeof *sum);
    for (int64_t i = 0; i < size; i++) {
        sum[i] = want[i] + start[i];
    }
    assert_close(what, size, got, sum, 3e-6, 1e-6);
    free(sum);
}

static void check_both(const tl_kernels *kernels, const conv_data *d, const char *what) {
    const gradients plain = run_both(kernels, d, false, false, NULL, 1);
    assert_close(what, d->x_size, plain.dx, d->want[1], 3e-6, 1e-6);
    assert_close(what, d->weight_size, plain.dweight, d->want[2], 3e-6, 1e-6);
    for (int i = 0; i < 12; i++) {
        const gradients again = run_both(kernels, d, i & 1, i & 2, NULL, 1 + i / 4);
        assert_same_bits(what, d->x_size, plain.dx, again.dx);
        assert_same_bits(what, d->weight_size, plain.dweight, again.dweight);
        free_gradients(again);
    }
    const gradients start = {.dx = random_values(d->x_size, 4, -1, 1),
                             .dweight = random_values(d->weight_size, 5, -1, 1)};
    const gradients more = run_both(kernels, d, true, true, &start, 2);
    check_sum(what, d->x_size, more.dx, d->want[1], start.dx);
    check_sum(what, d->weight_size, more.dweight, d->want[2], start.dweight);
    free_gradients(start);
    free_gradients(more);
    free_gradients(plain);
}

START_TEST(from_parts) {
    for (int i = 0; i < FUSED_CASES; i++) {
        conv_data data = make_data(&fused_cases[i]);
        for (int isa = 0; isa < 3; isa++) {
            const char *reason;
            const tl_kernels *kernels = tl_kernels_select(all_isas[isa], &reason);
            if (kernels == NULL) {
                continue;
            }
            char what[100];
            snprintf(what, sizeof what, "case %d, %s, from parts", i, kernels->isa);
            ck_assert_msg(kernels->conv->parts->fuses_backward(&data.shape), "%s: has no kernel",
                          what);
            check_both(kernels, &data, what);
            check_forward_parts(kernels, &data, what);
        }
        free_data(&data);
    }
    /* too few samples, too large ones, too many channels for a sum a piece, another path */
    static const conv_case others[] = {
        {WINOGRAD, 16, IMAGE(16, 16), 16, 16, 1, .kernel = K3, .padding = P1},
        {WINOGRAD, 64, IMAGE(64, 64), 16, 16, 1, .kernel = K3, .padding = P1},
        {WINOGRAD, 64, IMAGE(8, 8), 64, 64, 1, .kernel = K3, .padding = P1},
        {DIRECT, 64, IMAGE(32, 32), 3, 16, 1, .kernel = K3, .padding = P1},
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        const tl_conv_shape shape = shape_of(&others[i]);
        const char *reason;
        ck_assert(!tl_kernels_select(NULL, &reason)->conv->parts->fuses_backward(&shape));
    }
}
END_TEST

/* Long sums: many positions for a weight, many rows for a bias. */
START_TEST(bias_sums) {
    static const int64_t sizes[][2] = {{1, 1}, {7, 5}, {129, 16}, {5000, 19}, {20001, 64}};
    for (int isa = 0; isa < 3; isa++) {
        const char *reason;
        const tl_kernels *kernels = tl_kernels_select(all_isas[isa], &reason);
        if (kernels == NULL) {
            continue;
        }
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            const int64_t rows = sizes[i][0], channels = sizes[i][1];
            tl_real *dy = random_values(rows * channels, 1, 0, 1);
            tl_real *got[3];
            double *want = calloc((size_t)channels, sizeof(double));
            for (int64_t r = 0; r < rows * channels; r++) {
                want[r % channels] += dy[r];
            }
            void *scratch = malloc(kernels->conv->bias_scratch_bytes(rows, channels));
            for (int threads = 1; threads <= 3; threads++) {
                got[threads - 1] = random_values(channels, 2, 0, 1);
                kernels->conv->backward_bias(rows, channels, dy, got[threads - 1], false, scratch,
                                             threads);
            }
            assert_close("bias", channels, got[0], want, 3e-7, 0);
            assert_same_bits("bias", channels, got[0], got[1]);
            assert_same_bits("bias", channels, got[0], got[2]);
            kernels->conv->backward_bias(rows, channels, dy, got[0], true, scratch, 1);
            for (int64_t c = 0; c < channels; c++) {
                want[c] *= 2;
            }
            assert_close("bias added", channels, got[0], want, 3e-7, 0);
            for (int k = 0; k < 3; k++) {
                free(got[k]);
            }
            free(scratch);
            free(want);
            free(dy);
        }
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("conv", &test_case);
    tcase_add_test(test_case, every_path);
    tcase_add_test(test_case, from_parts);
    tcase_add_test(test_case, bias_sums);
    return run_suite(suite);
}
