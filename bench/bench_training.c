/* Whole training steps: forward, loss, backward and the optimizer, data already in memory.
 *
 *     resnet20_step/none|efficient|non_local   batch 128 of 32x32x3, SGD; attention at the end of
 *                                              the last two stages
 *     small_cnn_step                           batch 64 of 28x28x1: conv 3x3 to 32, relu, conv 3x3
 *                                              to 32, relu, max pool 2, dropout 0.2, linear 128,
 *                                              relu, dropout 0.2, linear 10; RMSprop
 *
 * FLOPs are those of the tape's cost report by the algorithm: convolutions count directly. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

enum { CLASSES = 10, SMALL_CNN = -1 };

typedef struct small_cnn {
    tl_parameters *parameters;
    tl_conv2d_layer conv1, conv2;
    tl_linear_layer hidden, head;
} small_cnn;

typedef struct step_state {
    tl_tape *tape;
    tl_model *model; /* or */
    small_cnn cnn;
    tl_optimizer *optimizer;
    tl_array images;
    int32_t *labels;
    double flops;
} step_state;

static void destroy(void *state) {
    step_state *s = state;
    tl_optimizer_free(s->optimizer);
    tl_model_free(s->model);
    tl_tape_free(s->tape);
    tl_parameters_free(s->cnn.parameters);
    free(s->images.data);
    free(s->labels);
    free(s);
}

/* ------------------------------------------------------------------ the networks */

static bool create_resnet(step_state *s, int64_t attention, tl_context *context, tl_error *error) {
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.attention = (tl_attention_kind)attention;
    config.attention_stages = attention == TL_ATTENTION_NONE ? 0 : 1u << 1 | 1u << 2;
    s->model = tl_resnet_cifar_create(context, &config, 1, error);
    if (s->model == NULL) {
        return false;
    }
    const tl_sgd_config sgd = {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 5e-4};
    s->optimizer = tl_sgd_create(tl_model_parameters(s->model), &sgd, error);
    return s->optimizer != NULL;
}

static bool create_small_cnn(step_state *s, tl_context *context, tl_error *error) {
    small_cnn *n = &s->cnn;
    tl_random random = tl_random_create(1, TL_RANDOM_INITIALIZE, 0);
    const tl_conv2d_layer_config conv1 = {
        .in_channels = 1, .out_channels = 32, .kernel_size = {3, 3}, .use_bias = true};
    const tl_conv2d_layer_config conv2 = {
        .in_channels = 32, .out_channels = 32, .kernel_size = {3, 3}, .use_bias = true};
    const tl_linear_layer_config hidden = {.in_features = 12 * 12 * 32,
                                           .out_features = 128,
                                           .use_bias = true,
                                           .initialization = TL_LINEAR_HE};
    const tl_linear_layer_config head = {
        .in_features = 128, .out_features = CLASSES, .use_bias = true};
    n->parameters = tl_parameters_create(context, error);
    if (n->parameters == NULL ||
        tl_conv2d_layer_init(&n->conv1, n->parameters, "conv1", &conv1, &random, error) != TL_OK ||
        tl_conv2d_layer_init(&n->conv2, n->parameters, "conv2", &conv2, &random, error) != TL_OK ||
        tl_linear_layer_init(&n->hidden, n->parameters, "hidden", &hidden, &random, error) !=
            TL_OK ||
        tl_linear_layer_init(&n->head, n->parameters, "head", &head, &random, error) != TL_OK) {
        return false;
    }
    s->optimizer = tl_rmsprop_create(n->parameters, NULL, error);
    return s->optimizer != NULL;
}

/* Hands a result on to one operation and releases it. */
static tl_tensor *then(tl_tape *tape, tl_tensor *before, tl_tensor *after) {
    tl_release(tape, before);
    return after;
}

static tl_tensor *forward_small_cnn(const small_cnn *n, tl_tape *tape, tl_tensor *x) {
    tl_tensor *h = tl_conv2d_layer_forward(&n->conv1, tape, x);
    h = then(tape, h, tl_relu(tape, h));
    h = then(tape, h, tl_conv2d_layer_forward(&n->conv2, tape, h));
    h = then(tape, h, tl_relu(tape, h));
    h = then(tape, h, tl_max_pool2d(tape, h, &(tl_pool_config){.kernel_size = {2, 2}}));
    h = then(tape, h, tl_dropout(tape, h, 0.2));
    const int64_t batch = tl_tensor_shape(x)[0];
    h = then(tape, h, tl_reshape(tape, h, 2, (int64_t[]){batch, 12 * 12 * 32}));
    h = then(tape, h, tl_linear_layer_forward(&n->hidden, tape, h));
    h = then(tape, h, tl_relu(tape, h));
    h = then(tape, h, tl_dropout(tape, h, 0.2));
    return then(tape, h, tl_linear_layer_forward(&n->head, tape, h));
}

/* ------------------------------------------------------------------ a case */

static bool create_data(step_state *s, int64_t batch, int64_t size, int64_t channels) {
    const int64_t count = batch * size * size * channels;
    s->images = (tl_array){.rank = 4,
                           .shape = {batch, size, size, channels},
                           .data = malloc((size_t)count * sizeof *s->images.data)};
    s->labels = malloc((size_t)batch * sizeof *s->labels);
    if (s->images.data == NULL || s->labels == NULL) {
        return false;
    }
    bench_fill(s->images.data, count, 1);
    for (int64_t i = 0; i < batch; i++) {
        s->labels[i] = (int32_t)(i % CLASSES);
    }
    return true;
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    step_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    const bool small = c->numbers[0] == SMALL_CNN;
    s->tape = tl_tape_create(context);
    if (s->tape == NULL || !(small ? create_data(s, 64, 28, 1) : create_data(s, 128, 32, 3)) ||
        !(small ? create_small_cnn(s, context, error)
                : create_resnet(s, c->numbers[0], context, error))) {
        destroy(s);
        return NULL;
    }
    return s;
}

static bool run(void *state, tl_error *error) {
    step_state *s = state;
    tl_tensor *x = tl_input(s->tape, &s->images);
    tl_tensor *logits = s->model != NULL ? tl_model_forward(s->model, s->tape, x)
                                         : forward_small_cnn(&s->cnn, s->tape, x);
    tl_tensor *loss = tl_cross_entropy(s->tape, logits, s->labels, NULL);
    const bool ok = tl_backward(s->tape, loss) == TL_OK;
    *error = *tl_tape_error(s->tape);
    const tl_cost cost = tl_tape_cost(s->tape);
    s->flops = cost.forward_flops + cost.backward_flops;
    tl_tape_reset(s->tape);
    return ok && tl_optimizer_step(s->optimizer) == TL_OK;
}

static bench_account account(void *state) {
    const step_state *s = state;
    return (bench_account){.flops = s->flops};
}

void bench_training_cases(bench_list *list) {
    static const struct {
        const char *name;
        int64_t kind;
    } cases[] = {
        {"resnet20_step/none", TL_ATTENTION_NONE},
        {"resnet20_step/efficient", TL_ATTENTION_EFFICIENT},
        {"resnet20_step/non_local", TL_ATTENTION_NON_LOCAL},
        {"small_cnn_step", SMALL_CNN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bench_case c = {.numbers = {cases[i].kind},
                        .create = create,
                        .run = run,
                        .account = account,
                        .destroy = destroy};
        snprintf(c.name, sizeof c.name, "%s", cases[i].name);
        bench_add(list, &c);
    }
}
