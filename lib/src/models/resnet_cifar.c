#include <tapeline/resnet_cifar.h>

#include <stdio.h>
#include <tapeline/matmul.h>
#include <tapeline/pooling.h>

#include "models/model_internal.h"
#include "models/residual_block.h"

enum { STAGES = TL_RESNET_CIFAR_STAGES, MAX_DEPTH = 6 * 200 + 2 };

typedef struct block {
    tl_residual_block residual;
    tl_attention_module attention;
    bool has_attention;
} block;

typedef struct resnet_cifar {
    tl_model model;
    int blocks_per_stage;
    tl_conv_bn stem;
    block *blocks; /* stage by stage */
    tl_linear_layer head;
} resnet_cifar;

#define FIELD(name, type, low, high) TL_CONFIG_FIELD(tl_resnet_cifar_config, name, type, low, high)
#define CHOICE(name, choices) TL_CONFIG_CHOICE(tl_resnet_cifar_config, name, choices)
#define LATER_BOOL(name) TL_CONFIG_LATER_BOOL(tl_resnet_cifar_config, name)

static const tl_config_field fields[] = {
    FIELD(input_channels, TL_FIELD_INT, 1, 1024),
    FIELD(depth, TL_FIELD_INT, 8, MAX_DEPTH),
    FIELD(width, TL_FIELD_INT, 1, 4096),
    FIELD(classes, TL_FIELD_INT, 1, 1 << 20),
    CHOICE(attention, tl_attention_kind_names),
    FIELD(attention_stages, TL_FIELD_BITS, 0, (1 << STAGES) - 1),
    FIELD(attention_every_block, TL_FIELD_BOOL, 0, 1),
    FIELD(heads, TL_FIELD_INT, 1, 4096),
    FIELD(key_channels_divisor, TL_FIELD_INT, 1, 4096),
    CHOICE(normalization, tl_attention_normalization_names),
    CHOICE(pairwise, tl_pairwise_names),
    LATER_BOOL(use_scale),
    CHOICE(implementation, tl_attention_implementation_names),
    FIELD(batch_norm_momentum, TL_FIELD_DOUBLE, 1e-6, 1),
    FIELD(batch_norm_epsilon, TL_FIELD_DOUBLE, 1e-12, 1),
};

tl_resnet_cifar_config tl_resnet_cifar_config_default(void) {
    return (tl_resnet_cifar_config){.input_channels = 3,
                                    .depth = 20,
                                    .width = 16,
                                    .classes = 10,
                                    .attention = TL_ATTENTION_NONE,
                                    .heads = 1,
                                    .key_channels_divisor = 2,
                                    .normalization = TL_NORMALIZATION_SOFTMAX,
                                    .batch_norm_momentum = 0.1,
                                    .batch_norm_epsilon = 1e-5};
}

static bool wants_attention(const tl_resnet_cifar_config *config, int stage, bool last_block) {
    return config->attention != TL_ATTENTION_NONE &&
           (config->attention_stages >> stage & 1u) != 0 &&
           (last_block || config->attention_every_block);
}

static tl_status build_block(resnet_cifar *net, int stage, int index, tl_random *random,
                             tl_error *error) {
    const tl_resnet_cifar_config *config = net->model.config;
    const int channels = config->width << stage;
    const bool first = index == 0;
    const bool last = index == net->blocks_per_stage - 1;
    block *b = &net->blocks[stage * net->blocks_per_stage + index];
    char name[TL_NAME_SIZE];
    (void)snprintf(name, sizeof name, "stages.%d.blocks.%d", stage, index);
    TL_TRY(tl_residual_block_init(
        &b->residual, net->model.parameters, name,
        &(tl_conv_bn_config){.in_channels = first && stage > 0 ? channels / 2 : channels,
                             .out_channels = channels,
                             .kernel_size = 3,
                             .stride = first && stage > 0 ? 2 : 1,
                             .momentum = config->batch_norm_momentum,
                             .epsilon = config->batch_norm_epsilon},
        random, error));
    b->has_attention = wants_attention(config, stage, last);
    if (!b->has_attention) {
        return TL_OK;
    }
    if (config->attention_every_block) {
        (void)snprintf(name, sizeof name, "stages.%d.blocks.%d.attention", stage, index);
    } else {
        (void)snprintf(name, sizeof name, "stages.%d.attention", stage);
    }
    return tl_attention_module_init(
        &b->attention, net->model.parameters, name,
        &(tl_attention_module_config){.kind = config->attention,
                                      .channels = channels,
                                      .key_channels_divisor = config->key_channels_divisor,
                                      .heads = config->heads,
                                      .normalization = config->normalization,
                                      .pairwise = config->pairwise,
                                      .use_scale = config->use_scale,
                                      .implementation = config->implementation},
        random, error);
}

static tl_status build(tl_model *model, uint64_t seed, tl_error *error) {
    resnet_cifar *net = (resnet_cifar *)model;
    const tl_resnet_cifar_config *config = model->config;
    if (config->depth % 6 != 2) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "resnet_cifar: depth must be 6 n + 2 (8, 14, 20, 26, 32, ...), found %d",
                       config->depth);
    }
    net->blocks_per_stage = (config->depth - 2) / 6;
    const size_t count = (size_t)(STAGES * net->blocks_per_stage);
    net->blocks = tl_memory_allocate_zeroed(model->context, count, sizeof *net->blocks);
    if (net->blocks == NULL) {
        return tl_memory_fail(model->context, error, "resnet_cifar", count * sizeof *net->blocks);
    }
    tl_random random = tl_random_create(seed, TL_RANDOM_INITIALIZE, 0);
    TL_TRY(tl_conv_bn_init(&net->stem, model->parameters, "stem", "conv", "bn",
                           &(tl_conv_bn_config){.in_channels = config->input_channels,
                                                .out_channels = config->width,
                                                .kernel_size = 3,
                                                .stride = 1,
                                                .momentum = config->batch_norm_momentum,
                                                .epsilon = config->batch_norm_epsilon},
                           &random, error));
    for (int stage = 0; stage < STAGES; stage++) {
        for (int index = 0; index < net->blocks_per_stage; index++) {
            TL_TRY(build_block(net, stage, index, &random, error));
        }
    }
    return tl_linear_layer_init(
        &net->head, model->parameters, "head",
        &(tl_linear_layer_config){.in_features = (int64_t)config->width << (STAGES - 1),
                                  .out_features = config->classes,
                                  .use_bias = true},
        &random, error);
}

static tl_tensor *forward(tl_model *model, tl_tape *tape, tl_tensor *x) {
    const resnet_cifar *net = (const resnet_cifar *)model;
    tl_tensor *h = tl_conv_bn_forward(&net->stem, tape, x, true, NULL);
    for (int i = 0; i < STAGES * net->blocks_per_stage; i++) {
        const block *b = &net->blocks[i];
        h = tl_residual_block_forward(&b->residual, tape, h);
        if (b->has_attention) {
            h = tl_attention_module_forward(&b->attention, &model->watch, tape, h);
        }
    }
    tl_tensor *pooled = tl_global_avg_pool(tape, h);
    tl_release(tape, h);
    tl_tensor *logits = tl_linear_layer_forward(&net->head, tape, pooled);
    tl_release(tape, pooled);
    return logits;
}

static void destroy(tl_model *model) {
    resnet_cifar *net = (resnet_cifar *)model;
    tl_memory_release(model->context, net->blocks,
                      (size_t)(STAGES * net->blocks_per_stage) * sizeof *net->blocks);
}

const tl_model_class tl_resnet_cifar_class = {
    .kind = "resnet_cifar",
    .model_size = sizeof(resnet_cifar),
    .config_size = sizeof(tl_resnet_cifar_config),
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .build = build,
    .forward = forward,
    .destroy = destroy,
};

tl_model *tl_resnet_cifar_create(tl_context *context, const tl_resnet_cifar_config *config,
                                 uint64_t seed, tl_error *error) {
    return tl_model_create(context, &tl_resnet_cifar_class, config, seed, error);
}
