/* Convolutions of ResNet-20 and of a ResNet-18-like network at 64x64, each direction by itself.
 * Directions cannot be told apart through the tape, so the kernels are called as operations do. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "core/context_internal.h"

enum { BATCH, SIZE, INPUTS, OUTPUTS, KERNEL, STRIDE, DIRECTION };

typedef struct conv_state {
    tl_context *context;
    tl_conv_shape shape;
    tl_conv_direction direction;
    tl_tensor *x, *weight, *y;
    void *scratch;
    size_t scratch_bytes;
} conv_state;

static void destroy(void *state) {
    conv_state *s = state;
    tl_tensor_free(s->x);
    tl_tensor_free(s->weight);
    tl_tensor_free(s->y);
    tl_memory_release(s->context, s->scratch, s->scratch_bytes);
    free(s);
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    conv_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    const int64_t *n = c->numbers;
    const int64_t padding = (n[KERNEL] - 1) / 2;
    const int64_t out = (n[SIZE] + 2 * padding - n[KERNEL]) / n[STRIDE] + 1;
    s->context = context;
    s->direction = (tl_conv_direction)n[DIRECTION];
    s->shape = (tl_conv_shape){.batch = n[BATCH],
                               .in = {1, n[SIZE], n[SIZE]},
                               .out = {1, out, out},
                               .kernel = {1, n[KERNEL], n[KERNEL]},
                               .stride = {1, n[STRIDE], n[STRIDE]},
                               .padding = {0, padding, padding},
                               .dilation = {1, 1, 1},
                               .in_channels = n[INPUTS],
                               .out_channels = n[OUTPUTS],
                               .groups = 1};
    s->x = tl_tensor_create(context, 4, (int64_t[]){n[BATCH], n[SIZE], n[SIZE], n[INPUTS]}, false,
                            error);
    s->weight = tl_tensor_create(
        context, 4, (int64_t[]){n[OUTPUTS], n[KERNEL], n[KERNEL], n[INPUTS]}, false, error);
    s->y = tl_tensor_create(context, 4, (int64_t[]){n[BATCH], out, out, n[OUTPUTS]}, false, error);
    s->scratch_bytes =
        context->kernels->conv->scratch_bytes(&s->shape, s->direction, context->threads);
    s->scratch = tl_memory_allocate(context, s->scratch_bytes);
    if (s->x == NULL || s->weight == NULL || s->y == NULL || s->scratch == NULL) {
        destroy(s);
        return NULL;
    }
    bench_fill(tl_tensor_data(s->x), tl_tensor_size(s->x), 1);
    bench_fill(tl_tensor_data(s->weight), tl_tensor_size(s->weight), 2);
    bench_fill(tl_tensor_data(s->y), tl_tensor_size(s->y), 3);
    return s;
}

static bool run(void *state, tl_error *error) {
    conv_state *s = state;
    (void)error;
    const tl_conv_kernels *k = s->context->kernels->conv;
    tl_real *x = tl_tensor_data(s->x);
    tl_real *weight = tl_tensor_data(s->weight);
    tl_real *y = tl_tensor_data(s->y);
    switch (s->direction) {
    case TL_CONV_FORWARD:
        k->forward(&s->shape, x, weight, NULL, y, false, s->scratch, s->context->threads);
        break;
    case TL_CONV_BACKWARD_INPUT:
        k->backward_input(&s->shape, y, weight, NULL, x, false, s->scratch, s->context->threads);
        break;
    case TL_CONV_BACKWARD_WEIGHT:
        k->backward_weight(&s->shape, x, y, weight, false, s->scratch, s->context->threads);
        break;
    }
    return true;
}

void bench_convolution_cases(bench_list *list) {
    static const char *const directions[] = {"forward", "backward_input", "backward_weight"};
    static const int64_t shapes[][6] = {
        {128, 32, 3, 16, 3, 1},   {128, 32, 16, 16, 3, 1}, {128, 32, 16, 32, 3, 2},
        {128, 32, 16, 32, 1, 2},  {128, 16, 32, 32, 3, 1}, {128, 16, 32, 64, 3, 2},
        {128, 16, 32, 64, 1, 2},  {128, 8, 64, 64, 3, 1},  {16, 64, 3, 64, 3, 1},
        {16, 64, 64, 64, 3, 1},   {16, 64, 64, 128, 3, 2}, {16, 32, 128, 128, 3, 1},
        {16, 16, 256, 256, 3, 1}, {16, 8, 512, 512, 3, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int64_t *s = shapes[i];
        const double out = (double)(s[1] / s[5]);
        for (int direction = 0; direction < 3; direction++) {
            bench_case c = {.flops = 2.0 * (double)s[0] * out * out * (double)(s[2] * s[3]) *
                                     (double)(s[4] * s[4]),
                            .numbers = {s[0], s[1], s[2], s[3], s[4], s[5], direction},
                            .create = create,
                            .run = run,
                            .destroy = destroy};
            snprintf(c.name, sizeof c.name, "conv2d/%s/b=%d,hw=%d,ci=%d,co=%d,k=%d,s=%d",
                     directions[direction], (int)s[0], (int)s[1], (int)s[2], (int)s[3], (int)s[4],
                     (int)s[5]);
            bench_add(list, &c);
        }
    }
}
