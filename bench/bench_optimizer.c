/* Optimizer steps over the parameters of a ResNet-20, and over one large tensor. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "core/tensor_internal.h"

enum { SGD, ADAMW, RMSPROP };
enum { KIND, SIZE }; /* of a case's numbers; size 0: a ResNet-20 */

typedef struct optimizer_state {
    tl_model *model;           /* or */
    tl_parameters *parameters; /* of one tensor */
    tl_optimizer *optimizer;
} optimizer_state;

static void destroy(void *state) {
    optimizer_state *s = state;
    tl_optimizer_free(s->optimizer);
    tl_model_free(s->model);
    tl_parameters_free(s->parameters);
    free(s);
}

static tl_optimizer *create_optimizer(int64_t kind, tl_parameters *parameters, tl_error *error) {
    if (kind == SGD) {
        const tl_sgd_config config = {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 5e-4};
        return tl_sgd_create(parameters, &config, error);
    }
    return kind == ADAMW ? tl_adamw_create(parameters, NULL, error)
                         : tl_rmsprop_create(parameters, NULL, error);
}

static tl_parameters *parameters_of(const optimizer_state *s) {
    return s->model != NULL ? tl_model_parameters(s->model) : s->parameters;
}

/* Gives every trainable parameter a gradient, with memory of its own. */
static bool fill_gradients(tl_parameters *parameters, tl_context *context) {
    tl_tape *tape = tl_tape_create(context);
    bool ok = tape != NULL;
    for (int i = 0; ok && i < tl_parameters_count(parameters); i++) {
        const tl_parameter p = tl_parameters_at(parameters, i);
        if (p.group != TL_GROUP_BUFFER) {
            tl_tensor *y = tl_scale(tape, p.tensor, 1e-3);
            ok = tl_backward_from(tape, 1, &y, NULL) == TL_OK;
            tl_tape_reset(tape);
        }
    }
    tl_tape_free(tape);
    return ok;
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    optimizer_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    const int64_t size = c->numbers[SIZE];
    if (size == 0) {
        const tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
        s->model = tl_resnet_cifar_create(context, &config, 1, error);
    } else {
        s->parameters = tl_parameters_create(context, error);
        if (s->parameters != NULL &&
            tl_parameters_add(s->parameters, NULL, "weight", TL_GROUP_WEIGHT, "values", 1, &size,
                              error) == NULL) {
            destroy(s);
            return NULL;
        }
    }
    s->optimizer = parameters_of(s) != NULL
                       ? create_optimizer(c->numbers[KIND], parameters_of(s), error)
                       : NULL;
    if (s->optimizer == NULL || !fill_gradients(parameters_of(s), context)) {
        destroy(s);
        return NULL;
    }
    return s;
}

static bool run(void *state, tl_error *error) {
    optimizer_state *s = state;
    const tl_parameters *parameters = parameters_of(s);
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        tl_tensor *tensor = tl_parameters_at(parameters, i).tensor;
        tensor->has_grad = tensor->requires_grad; /* the step before cleared it */
    }
    error->status = tl_optimizer_step(s->optimizer);
    return error->status == TL_OK;
}

static bench_account account(void *state) {
    const optimizer_state *s = state;
    /* weight, gradient and each buffer are read, weight and buffers written */
    const int buffers = tl_optimizer_kind(s->optimizer)[0] == 'a' ? 2 : 1;
    const double size = (double)tl_parameters_trainable_size(parameters_of(s));
    return (bench_account){.bytes = size * (3 + 2 * buffers) * (double)sizeof(tl_real)};
}

void bench_optimizer_cases(bench_list *list) {
    static const char *const kinds[] = {"sgd", "adamw", "rmsprop"};
    static const int64_t large = 25000000;
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < 2; i++) {
            bench_case c = {.numbers = {kind, i == 0 ? 0 : large},
                            .create = create,
                            .run = run,
                            .account = account,
                            .destroy = destroy};
            snprintf(c.name, sizeof c.name, "%s/%s", kinds[kind], i == 0 ? "resnet20" : "25000000");
            bench_add(list, &c);
        }
    }
}
