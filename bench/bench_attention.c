/* Attention modules, forward and backward, at the shapes of the design: efficient attention fused
 * and composed of elementary operations, the non-local block tiled and materialized.
 *
 * FLOPs are executed ones, as the tape counts them: folded, with recomputation. For the non-local
 * block only the part that grows with n^2 counts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { BATCH, POSITIONS, CHANNELS, KEYS, VALUES, HEADS, FORM };
enum { EFFICIENT, COMPOSED, TILED, MATERIALIZED, FORMS };

typedef struct attention_state {
    int form;
    tl_tape *tape;
    tl_parameters *parameters;
    tl_efficient_attention_layer efficient;
    tl_non_local_layer non_local;
    tl_array x;
    tl_tensor *values, *dy; /* hold the memory of x and of the gradient that flows in */
    double flops;
} attention_state;

static void destroy(void *state) {
    attention_state *s = state;
    tl_tape_free(s->tape);
    tl_parameters_free(s->parameters);
    tl_tensor_free(s->values);
    tl_tensor_free(s->dy);
    free(s);
}

static tl_status init_layer(attention_state *s, const int64_t *n, tl_error *error) {
    tl_random random = tl_random_create(1, TL_RANDOM_INITIALIZE, 0);
    if (s->form == EFFICIENT || s->form == COMPOSED) {
        tl_efficient_attention_config config = tl_efficient_attention_config_default();
        config.in_channels = n[CHANNELS];
        config.key_channels = n[KEYS];
        config.value_channels = n[VALUES];
        config.heads = n[HEADS];
        return tl_efficient_attention_layer_init(&s->efficient, s->parameters, "attention", &config,
                                                 &random, error);
    }
    tl_non_local_config config = tl_non_local_config_default();
    config.in_channels = n[CHANNELS];
    config.key_channels = n[KEYS];
    config.value_channels = n[VALUES];
    config.heads = n[HEADS];
    config.implementation = s->form == TILED ? TL_ATTENTION_TILED : TL_ATTENTION_MATERIALIZED;
    return tl_non_local_layer_init(&s->non_local, s->parameters, "attention", &config, &random,
                                   error);
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    attention_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    const int64_t *n = c->numbers;
    s->form = (int)n[FORM];
    s->x = (tl_array){.rank = 3, .shape = {n[BATCH], n[POSITIONS], n[CHANNELS]}};
    s->tape = tl_tape_create(context);
    s->parameters = tl_parameters_create(context, error);
    s->values = tl_tensor_create(context, 3, s->x.shape, false, error);
    s->dy = tl_tensor_create(context, 3, s->x.shape, false, error);
    if (s->tape == NULL || s->parameters == NULL || s->values == NULL || s->dy == NULL ||
        init_layer(s, n, error) != TL_OK) {
        destroy(s);
        return NULL;
    }
    s->x.data = tl_tensor_data(s->values);
    bench_fill(s->x.data, tl_tensor_size(s->values), 1);
    bench_fill(tl_tensor_data(s->dy), tl_tensor_size(s->dy), 2);
    return s;
}

static tl_tensor *forward(const attention_state *s, tl_tensor *x) {
    switch (s->form) {
    case EFFICIENT:
        return tl_efficient_attention_layer_forward(&s->efficient, s->tape, x);
    case COMPOSED:
        return tl_efficient_attention_composed(s->tape, x, &s->efficient.weights,
                                               &s->efficient.config);
    default:
        return tl_non_local_layer_forward(&s->non_local, s->tape, x);
    }
}

static double executed_flops(const attention_state *s) {
    int count;
    double flops = 0;
    const tl_cost_entry *entries = tl_tape_cost_entries(s->tape, &count);
    for (int i = 0; i < count; i++) {
        if (s->form < TILED || strcmp(entries[i].operation, "non_local") == 0) {
            flops +=
                entries[i].cost.forward_flops_executed + entries[i].cost.backward_flops_executed;
        }
    }
    return flops;
}

static bool run(void *state, tl_error *error) {
    attention_state *s = state;
    tl_tensor *y = forward(s, tl_input_with_grad(s->tape, &s->x));
    const tl_real *dy = tl_tensor_data(s->dy);
    (void)tl_backward_from(s->tape, 1, &y, &dy);
    *error = *tl_tape_error(s->tape);
    s->flops = executed_flops(s);
    tl_parameters_clear_grads(s->parameters);
    tl_tape_reset(s->tape);
    return error->status == TL_OK;
}

static bench_account account(void *state) {
    const attention_state *s = state;
    return (bench_account){.flops = s->flops};
}

void bench_attention_cases(bench_list *list) {
    static const char *const forms[FORMS] = {"efficient_attention", "efficient_attention_composed",
                                             "non_local/tiled", "non_local/materialized"};
    static const int64_t shapes[][7] = {
        {1, 1024, 64, 32, 64, 1, EFFICIENT},     {1, 4096, 64, 32, 64, 1, EFFICIENT},
        {1, 16384, 64, 32, 64, 1, EFFICIENT},    {1, 65536, 64, 32, 64, 1, EFFICIENT},
        {1, 262144, 64, 32, 64, 1, EFFICIENT},   {1, 4194304, 64, 32, 64, 1, EFFICIENT},
        {128, 256, 64, 32, 64, 4, EFFICIENT},    {128, 64, 64, 32, 64, 1, EFFICIENT},
        {1, 16384, 63, 31, 63, 1, EFFICIENT},    {1, 65536, 64, 1, 64, 1, EFFICIENT},
        {1, 65536, 3, 1, 3, 1, EFFICIENT},       {1, 4096, 256, 128, 256, 1, EFFICIENT},
        {1, 16384, 64, 32, 64, 32, EFFICIENT},   {1, 1000003, 16, 8, 16, 1, EFFICIENT},
        {1, 1024, 64, 32, 64, 1, COMPOSED},      {1, 16384, 64, 32, 64, 1, COMPOSED},
        {1, 262144, 64, 32, 64, 1, COMPOSED},    {128, 256, 64, 32, 64, 4, COMPOSED},
        {1, 1024, 64, 32, 64, 1, TILED},         {1, 4096, 64, 32, 64, 1, TILED},
        {1, 16384, 64, 32, 64, 1, TILED},        {128, 256, 32, 16, 32, 1, TILED},
        {1, 1024, 64, 32, 64, 1, MATERIALIZED},  {1, 4096, 64, 32, 64, 1, MATERIALIZED},
        {128, 256, 32, 16, 32, 1, MATERIALIZED},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int64_t *s = shapes[i];
        bench_case c = {.create = create, .run = run, .account = account, .destroy = destroy};
        memcpy(c.numbers, s, sizeof shapes[i]);
        snprintf(c.name, sizeof c.name, "%s/b=%d,n=%d,c=%d,k=%d,v=%d,h=%d", forms[s[FORM]],
                 (int)s[BATCH], (int)s[POSITIONS], (int)s[CHANNELS], (int)s[KEYS], (int)s[VALUES],
                 (int)s[HEADS]);
        bench_add(list, &c);
    }
}
