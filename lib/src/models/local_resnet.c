#include <tapeline/local_resnet.h>

#include <stdio.h>
#include <tapeline/matmul.h>
#include <tapeline/pooling.h>

#include "models/model_internal.h"
#include "models/residual_block.h"

enum { MAX_BLOCKS = TL_LOCAL_RESNET_MAX_BLOCKS };

typedef struct local_resnet {
    tl_model model;
    tl_conv_bn stem;
    tl_residual_block blocks[MAX_BLOCKS];
    tl_attention_module attention[MAX_BLOCKS]; /* of the blocks that have one */
    tl_linear_layer head;                      /* on every position if dense: a 1x1 convolution */
} local_resnet;

#define FIELD(name, type, low, high) TL_CONFIG_FIELD(tl_local_resnet_config, name, type, low, high)
#define CHOICE(name, choices) TL_CONFIG_CHOICE(tl_local_resnet_config, name, choices)
#define LATER_BOOL(name) TL_CONFIG_LATER_BOOL(tl_local_resnet_config, name)

static const tl_config_field fields[] = {
    FIELD(input_channels, TL_FIELD_INT, 1, 1024),
    FIELD(blocks, TL_FIELD_INT, 1, MAX_BLOCKS),
    FIELD(width, TL_FIELD_INT, 1, 4096),
    FIELD(classes, TL_FIELD_INT, 1, 1 << 20),
    FIELD(dense, TL_FIELD_BOOL, 0, 1),
    CHOICE(attention, tl_attention_kind_names),
    FIELD(attention_blocks, TL_FIELD_BITS, 0, UINT32_MAX),
    FIELD(heads, TL_FIELD_INT, 1, 4096),
    FIELD(key_channels_divisor, TL_FIELD_INT, 1, 4096),
    CHOICE(normalization, tl_attention_normalization_names),
    CHOICE(pairwise, tl_pairwise_names),
    LATER_BOOL(use_scale),
    CHOICE(implementation, tl_attention_implementation_names),
    FIELD(batch_norm_momentum, TL_FIELD_DOUBLE, 1e-6, 1),
    FIELD(batch_norm_epsilon, TL_FIELD_DOUBLE, 1e-12, 1),
};

tl_local_resnet_config tl_local_resnet_config_default(void) {
    return (tl_local_resnet_config){.input_channels = 3,
                                    .blocks = 2,
                                    .width = 32,
                                    .classes = 10,
                                    .attention = TL_ATTENTION_NONE,
                                    .heads = 1,
                                    .key_channels_divisor = 2,
                                    .normalization = TL_NORMALIZATION_SOFTMAX,
                                    .batch_norm_momentum = 0.1,
                                    .batch_norm_epsilon = 1e-5};
}

static bool has_attention(const tl_local_resnet_config *config, int index) {
    return config->attention != TL_ATTENTION_NONE && (config->attention_blocks >> index & 1u) != 0;
}

static tl_status build(tl_model *model, uint64_t seed, tl_error *error) {
    local_resnet *net = (local_resnet *)model;
    const tl_local_resnet_config *config = model->config;
    if (config->blocks < MAX_BLOCKS && config->attention_blocks >> config->blocks != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "local_resnet: attention_blocks names a block beyond the last, %d",
                       config->blocks - 1);
    }
    tl_random random = tl_random_create(seed, TL_RANDOM_INITIALIZE, 0);
    tl_conv_bn_config conv = {.in_channels = config->input_channels,
                              .out_channels = config->width,
                              .kernel_size = 3,
                              .stride = 1,
                              .momentum = config->batch_norm_momentum,
                              .epsilon = config->batch_norm_epsilon};
    TL_TRY(tl_conv_bn_init(&net->stem, model->parameters, "stem", "conv", "bn", &conv, &random,
                           error));
    conv.in_channels = config->width;
    for (int i = 0; i < config->blocks; i++) {
        char name[TL_NAME_SIZE];
        (void)snprintf(name, sizeof name, "blocks.%d", i);
        TL_TRY(tl_residual_block_init(&net->blocks[i], model->parameters, name, &conv, &random,
                                      error));
        if (has_attention(config, i)) {
            (void)snprintf(name, sizeof name, "blocks.%d.attention", i);
            TL_TRY(tl_attention_module_init(
                &net->attention[i], model->parameters, name,
                &(tl_attention_module_config){.kind = config->attention,
                                              .channels = config->width,
                                              .key_channels_divisor = config->key_channels_divisor,
                                              .heads = config->heads,
                                              .normalization = config->normalization,
                                              .pairwise = config->pairwise,
                                              .use_scale = config->use_scale,
                                              .implementation = config->implementation},
                &random, error));
        }
    }
    return tl_linear_layer_init(&net->head, model->parameters, "head",
                                &(tl_linear_layer_config){.in_features = config->width,
                                                          .out_features = config->classes,
                                                          .use_bias = true},
                                &random, error);
}

static tl_tensor *forward(tl_model *model, tl_tape *tape, tl_tensor *x) {
    const local_resnet *net = (const local_resnet *)model;
    const tl_local_resnet_config *config = model->config;
    tl_tensor *h = tl_conv_bn_forward(&net->stem, tape, x, true, NULL);
    for (int i = 0; i < config->blocks; i++) {
        h = tl_residual_block_forward(&net->blocks[i], tape, h);
        if (has_attention(config, i)) {
            h = tl_attention_module_forward(&net->attention[i], &model->watch, tape, h);
        }
    }
    if (!config->dense) {
        tl_tensor *pooled = tl_global_avg_pool(tape, h);
        tl_release(tape, h);
        h = pooled;
    }
    tl_tensor *logits = tl_linear_layer_forward(&net->head, tape, h);
    tl_release(tape, h);
    return logits;
}

const tl_model_class tl_local_resnet_class = {
    .kind = "local_resnet",
    .model_size = sizeof(local_resnet),
    .config_size = sizeof(tl_local_resnet_config),
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .build = build,
    .forward = forward,
};

tl_model *tl_local_resnet_create(tl_context *context, const tl_local_resnet_config *config,
                                 uint64_t seed, tl_error *error) {
    return tl_model_create(context, &tl_local_resnet_class, config, seed, error);
}
