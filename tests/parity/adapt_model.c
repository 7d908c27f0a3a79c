#include "parity.h"

#include <string.h>

static void release_model(void *model) {
    tl_model_free(model);
}

static void release_optimizer(void *optimizer) {
    tl_optimizer_free(optimizer);
}

static int choice(parity_run *run, const char *argument, const char *const *names) {
    const char *text = parity_text(run, argument);
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0) {
            return i;
        }
    }
    parity_fail(run, "the %s %s is not known here", argument, text);
    return 0;
}

static void read_attention(parity_run *run, tl_resnet_cifar_config *config) {
    static const char *const kinds[] = {"none", "efficient", "non_local", NULL};
    static const char *const normalizations[] = {"softmax", "scaling", NULL};
    config->attention = (tl_attention_kind)choice(run, "attention", kinds);
    if (config->attention == TL_ATTENTION_NONE) {
        return;
    }
    int64_t stages[TL_RESNET_CIFAR_STAGES];
    const int count = parity_ints(run, "attention_stages", -1, stages);
    for (int i = 0; i < count; i++) {
        config->attention_stages |= 1u << stages[i];
    }
    config->heads = (int)parity_int(run, "heads");
    config->key_channels_divisor = (int)parity_int(run, "key_channels_divisor");
    if (config->attention == TL_ATTENTION_EFFICIENT) {
        config->normalization = (tl_normalization)choice(run, "normalization", normalizations);
    } else {
        parity_pairwise(run, &config->pairwise, &config->use_scale);
    }
}

/* The network with the case's parameters and running statistics; NULL with a problem recorded. */
static tl_model *create_network(parity_run *run, int64_t input_channels) {
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.input_channels = (int)input_channels;
    config.depth = 6 * (int)parity_int(run, "blocks_per_stage") + 2;
    config.width = (int)parity_int(run, "width");
    config.classes = (int)parity_int(run, "classes");
    config.batch_norm_momentum = parity_number(run, "bn_momentum");
    config.batch_norm_epsilon = parity_number(run, "bn_eps");
    read_attention(run, &config);
    if (parity_failed(run)) {
        return NULL;
    }
    tl_error error;
    tl_model *model = tl_resnet_cifar_create(parity_run_context(run), &config, 0, &error);
    if (model == NULL) {
        parity_fail(run, "%s", error.message);
        return NULL;
    }
    parity_defer(run, release_model, model);
    parity_load_parameters(run, tl_model_parameters(model));
    return parity_failed(run) ? NULL : model;
}

static void run_resnet_cifar(parity_run *run) {
    tl_tape *tape = parity_run_tape(run);
    tl_tensor *x = parity_input(run, "x", PARITY_CHANNELS);
    const int32_t *labels = parity_integers(run, "buffers", "labels", NULL);
    tl_model *model = x != NULL ? create_network(run, tl_tensor_shape(x)[3]) : NULL;
    if (model == NULL) {
        return;
    }
    tl_tape_set_training(tape, parity_int(run, "training") != 0);
    tl_tensor *logits = tl_model_forward(model, tape, x);
    tl_tensor *loss = tl_cross_entropy(tape, logits, labels, NULL);
    parity_watch_parameters(run, tl_model_parameters(model));
    parity_output(run, "logits", logits, PARITY_AS_IS);
    parity_output(run, "loss", loss, PARITY_AS_IS);
}

/* ------------------------------------------------------------------ training */

typedef struct trajectory {
    tl_model *model;
    tl_optimizer *optimizer;
    const parity_tensor *images; /* [T, N, C, H, W] */
    const int32_t *labels;       /* [T, N] */
    tl_real *batch;              /* [N, H, W, C] */
} trajectory;

static void train_step(parity_run *run, const trajectory *t, int64_t step) {
    tl_tape *tape = parity_run_tape(run);
    const int64_t *s = t->images->shape;
    const tl_array array = {.rank = 4, .shape = {s[1], s[3], s[4], s[2]}, .data = t->batch};
    if (!parity_copy_in(run, t->images, step, PARITY_CHANNELS, s[1] * s[2] * s[3] * s[4],
                        t->batch)) {
        return;
    }
    tl_tape_reset(tape);
    tl_tensor *logits = tl_model_forward(t->model, tape, tl_input(tape, &array));
    tl_tensor *loss = tl_cross_entropy(tape, logits, t->labels + step * s[1], NULL);
    if (tl_backward(tape, loss) != TL_OK) {
        parity_fail(run, "%s", tl_tape_error(tape)->message);
        return;
    }
    parity_compare(run, "outputs", "loss", step, 1, tl_tensor_data(loss), PARITY_AS_IS);
    if (tl_optimizer_step(t->optimizer) != TL_OK) {
        parity_fail(run, "the optimizer failed");
    }
}

static void compare_registry(parity_run *run, const tl_parameters *parameters) {
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter p = tl_parameters_at(parameters, i);
        const char *group = p.group == TL_GROUP_BUFFER ? "buffers_after" : "params_after";
        parity_compare(run, group, p.name, -1, tl_tensor_size(p.tensor), tl_tensor_data(p.tensor),
                       PARITY_CHANNELS);
    }
}

static void run_training(parity_run *run) {
    trajectory t = {.images = parity_tensor_of(run, "batches", "x"),
                    .labels = parity_integers(run, "batches", "labels", NULL)};
    if (t.images == NULL || t.images->rank != 5) {
        parity_fail(run, "batches/x must have rank 5");
        return;
    }
    const int64_t *s = t.images->shape;
    t.model = create_network(run, s[2]);
    t.batch = parity_values(run, s[1] * s[2] * s[3] * s[4]);
    if (t.model == NULL || t.batch == NULL) {
        return;
    }
    if (strcmp(parity_text(run, "kind"), "sgd") != 0) {
        parity_fail(run, "the kind %s is not known here", parity_text(run, "kind"));
        return;
    }
    tl_error error;
    t.optimizer = tl_sgd_create(tl_model_parameters(t.model),
                                &(tl_sgd_config){.learning_rate = parity_number(run, "lr"),
                                                 .momentum = parity_number(run, "momentum"),
                                                 .weight_decay = parity_number(run, "weight_decay"),
                                                 .decay_all_parameters = true},
                                &error);
    if (t.optimizer == NULL) {
        parity_fail(run, "%s", error.message);
        return;
    }
    parity_defer(run, release_optimizer, t.optimizer);
    const int64_t steps = parity_int(run, "steps");
    for (int64_t step = 0; step < steps && !parity_failed(run); step++) {
        train_step(run, &t, step);
    }
    tl_tape_reset(parity_run_tape(run));
    compare_registry(run, tl_model_parameters(t.model));
}

const parity_adapter parity_model[] = {
    {"resnet_cifar", run_resnet_cifar}, {"training", run_training}, {NULL, NULL}};
