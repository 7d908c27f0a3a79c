/* Whole training steps: forward, loss, backward and the optimizer, data already in memory. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

enum { BATCH = 128, SIZE = 32, CLASSES = 10, PIXELS = BATCH * SIZE * SIZE * 3 };

typedef struct step_state {
    tl_tape *tape;
    tl_model *model;
    tl_optimizer *optimizer;
    tl_real *images;
    int32_t labels[BATCH];
} step_state;

static void destroy(void *state) {
    step_state *s = state;
    tl_optimizer_free(s->optimizer);
    tl_model_free(s->model);
    tl_tape_free(s->tape);
    free(s->images);
    free(s);
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    step_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.attention = (tl_attention_kind)c->numbers[0];
    config.attention_stages = config.attention == TL_ATTENTION_NONE ? 0 : 1u << 1 | 1u << 2;
    s->tape = tl_tape_create(context);
    s->model = tl_resnet_cifar_create(context, &config, 1, error);
    s->optimizer =
        s->model != NULL
            ? tl_sgd_create(
                  tl_model_parameters(s->model),
                  &(tl_sgd_config){.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 5e-4},
                  error)
            : NULL;
    s->images = malloc(PIXELS * sizeof *s->images);
    if (s->tape == NULL || s->optimizer == NULL || s->images == NULL) {
        destroy(s);
        return NULL;
    }
    bench_fill(s->images, PIXELS, 1);
    for (int i = 0; i < BATCH; i++) {
        s->labels[i] = i % CLASSES;
    }
    return s;
}

static bool run(void *state, tl_error *error) {
    step_state *s = state;
    const tl_array images = {.rank = 4, .shape = {BATCH, SIZE, SIZE, 3}, .data = s->images};
    tl_tensor *logits = tl_model_forward(s->model, s->tape, tl_input(s->tape, &images));
    tl_tensor *loss = tl_cross_entropy(s->tape, logits, s->labels, NULL);
    const bool ok = tl_backward(s->tape, loss) == TL_OK;
    *error = *tl_tape_error(s->tape);
    tl_tape_reset(s->tape);
    return ok && tl_optimizer_step(s->optimizer) == TL_OK;
}

void bench_training_cases(bench_list *list) {
    static const char *const kinds[] = {"none", "efficient", "non_local"};
    for (int kind = 0; kind < 3; kind++) {
        bench_case c = {.numbers = {kind}, .create = create, .run = run, .destroy = destroy};
        snprintf(c.name, sizeof c.name, "resnet20_step/%s", kinds[kind]);
        bench_add(list, &c);
    }
}
