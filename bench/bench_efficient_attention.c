/* Efficient attention, forward and backward, at the shapes of the design. FLOPs are those the
 * folded algebra needs (what the tape calls executed). */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

typedef struct attention_state {
    tl_tape *tape;
    tl_parameters *parameters;
    tl_efficient_attention_layer layer;
    tl_array x;
    tl_tensor *values, *dy; /* hold the memory of x and of the gradient that flows in */
} attention_state;

static void destroy(void *state) {
    attention_state *s = state;
    tl_tape_free(s->tape);
    tl_parameters_free(s->parameters);
    tl_tensor_free(s->values);
    tl_tensor_free(s->dy);
    free(s);
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    attention_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    const int64_t *n = c->numbers; /* batch, positions, channels, keys, values, heads */
    tl_efficient_attention_config config = tl_efficient_attention_config_default();
    config.in_channels = n[2];
    config.key_channels = n[3];
    config.value_channels = n[4];
    config.heads = n[5];
    tl_random random = tl_random_create(1, TL_RANDOM_INITIALIZE, 0);
    s->x = (tl_array){.rank = 3, .shape = {n[0], n[1], n[2]}};
    s->tape = tl_tape_create(context);
    s->parameters = tl_parameters_create(context, error);
    s->values = tl_tensor_create(context, 3, s->x.shape, false, error);
    s->dy = tl_tensor_create(context, 3, s->x.shape, false, error);
    if (s->tape == NULL || s->parameters == NULL || s->values == NULL || s->dy == NULL ||
        tl_efficient_attention_layer_init(&s->layer, s->parameters, "attention", &config, &random,
                                          error) != TL_OK) {
        destroy(s);
        return NULL;
    }
    s->x.data = tl_tensor_data(s->values);
    bench_fill(s->x.data, tl_tensor_size(s->values), 1);
    bench_fill(tl_tensor_data(s->dy), tl_tensor_size(s->dy), 2);
    return s;
}

static bool run(void *state, tl_error *error) {
    attention_state *s = state;
    tl_tensor *x = tl_input_with_grad(s->tape, &s->x);
    tl_tensor *y = tl_efficient_attention_layer_forward(&s->layer, s->tape, x);
    const tl_real *dy = tl_tensor_data(s->dy);
    (void)tl_backward_from(s->tape, 1, &y, &dy);
    *error = *tl_tape_error(s->tape);
    tl_parameters_clear_grads(s->parameters);
    tl_tape_reset(s->tape);
    return error->status == TL_OK;
}

void bench_efficient_attention_cases(bench_list *list) {
    static const int64_t shapes[][6] = {
        {1, 1024, 64, 32, 64, 1},   {1, 4096, 64, 32, 64, 1},   {1, 16384, 64, 32, 64, 1},
        {1, 65536, 64, 32, 64, 1},  {1, 262144, 64, 32, 64, 1}, {1, 4194304, 64, 32, 64, 1},
        {128, 256, 64, 32, 64, 4},  {128, 64, 64, 32, 64, 1},   {1, 16384, 63, 31, 63, 1},
        {1, 65536, 64, 1, 64, 1},   {1, 65536, 3, 1, 3, 1},     {1, 4096, 256, 128, 256, 1},
        {1, 16384, 64, 32, 64, 32}, {1, 1000003, 16, 8, 16, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int64_t *s = shapes[i];
        const double n = (double)s[1], C = (double)s[2], K = (double)s[3], V = (double)s[4];
        const double context = 18 * C * K * V / (double)s[5];
        bench_case c = {.flops = (double)s[0] * (28 * n * C * K + context),
                        .numbers = {s[0], s[1], s[2], s[3], s[4], s[5]},
                        .create = create,
                        .run = run,
                        .destroy = destroy};
        snprintf(c.name, sizeof c.name,
                 "efficient_attention/b=%lld,n=%lld,c=%lld,k=%lld,v=%lld,h=%lld", (long long)s[0],
                 (long long)s[1], (long long)s[2], (long long)s[3], (long long)s[4],
                 (long long)s[5]);
        bench_add(list, &c);
    }
}
