#include <tapeline/stereo_net.h>

#include <stdio.h>
#include <tapeline/convolution.h>
#include <tapeline/cost_volume.h>
#include <tapeline/initialize.h>
#include <tapeline/matmul.h>
#include <tapeline/shape.h>
#include <tapeline/softmax.h>
#include <tapeline/upsample.h>

#include "models/model_internal.h"
#include "models/residual_block.h"

enum {
    COLOURS = 3,
    STRIDE = TL_STEREO_NET_STRIDE,
    MAX_BLOCKS = TL_STEREO_NET_MAX_BLOCKS,
    MAX_LEVELS = TL_STEREO_NET_MAX_DISPARITY / STRIDE,
    PLACES = 2
};

/* relu(bn(conv 3x3x3 (x)) + residual) */
typedef struct volume_conv {
    tl_tensor *weight;
    tl_batch_norm_layer bn;
} volume_conv;

typedef struct stereo_net {
    tl_model model;
    tl_conv_bn stem[2];
    tl_residual_block blocks[MAX_BLOCKS];
    tl_conv2d_layer features;
    volume_conv entry;
    volume_conv volume[MAX_BLOCKS][2];
    tl_tensor *score_weight, *score_bias;  /* conv 3x3x3 to one channel */
    tl_attention_module attention[PLACES]; /* of the places that have one */
    tl_real levels[MAX_LEVELS];            /* the disparities that the soft argmin weighs */
} stereo_net;

#define FIELD(name, type, low, high) TL_CONFIG_FIELD(tl_stereo_net_config, name, type, low, high)
#define CHOICE(name, choices) TL_CONFIG_CHOICE(tl_stereo_net_config, name, choices)

static const tl_config_field fields[] = {
    FIELD(max_disparity, TL_FIELD_INT, STRIDE, TL_STEREO_NET_MAX_DISPARITY),
    FIELD(width, TL_FIELD_INT, 2, 4096),
    FIELD(feature_blocks, TL_FIELD_INT, 0, MAX_BLOCKS),
    FIELD(groups, TL_FIELD_INT, 1, 4096),
    FIELD(volume_width, TL_FIELD_INT, 1, 4096),
    FIELD(volume_blocks, TL_FIELD_INT, 0, MAX_BLOCKS),
    CHOICE(attention, tl_attention_kind_names),
    FIELD(attention_places, TL_FIELD_BITS, 0, (1 << PLACES) - 1),
    FIELD(heads, TL_FIELD_INT, 1, 4096),
    FIELD(key_channels_divisor, TL_FIELD_INT, 1, 4096),
    CHOICE(normalization, tl_attention_normalization_names),
    CHOICE(pairwise, tl_pairwise_names),
    FIELD(use_scale, TL_FIELD_BOOL, 0, 1),
    CHOICE(implementation, tl_attention_implementation_names),
    FIELD(batch_norm_momentum, TL_FIELD_DOUBLE, 1e-6, 1),
    FIELD(batch_norm_epsilon, TL_FIELD_DOUBLE, 1e-12, 1),
};

tl_stereo_net_config tl_stereo_net_config_default(void) {
    return (tl_stereo_net_config){.max_disparity = 36,
                                  .width = 32,
                                  .feature_blocks = 2,
                                  .groups = 8,
                                  .volume_width = 16,
                                  .volume_blocks = 1,
                                  .attention = TL_ATTENTION_NONE,
                                  .heads = 1,
                                  .key_channels_divisor = 2,
                                  .normalization = TL_NORMALIZATION_SOFTMAX,
                                  .batch_norm_momentum = 0.1,
                                  .batch_norm_epsilon = 1e-5};
}

static bool has_attention(const tl_stereo_net_config *config, int place) {
    return config->attention != TL_ATTENTION_NONE && (config->attention_places >> place & 1u) != 0;
}

/* ------------------------------------------------------------------ building */

static tl_tensor *add_volume_weight(tl_parameters *parameters, const char *prefix, int in, int out,
                                    tl_random *random, tl_error *error) {
    tl_tensor *weight =
        tl_parameters_add(parameters, prefix, "weight", TL_GROUP_WEIGHT, "out kd kh kw in", 5,
                          (int64_t[]){out, 3, 3, 3, in}, error);
    if (weight != NULL) {
        tl_initialize_he_normal(weight, 27 * (int64_t)out, random);
    }
    return weight;
}

static tl_status volume_conv_init(volume_conv *conv, const tl_model *model, const char *prefix,
                                  int in, tl_random *random, tl_error *error) {
    const tl_stereo_net_config *config = model->config;
    char name[TL_NAME_SIZE];
    (void)snprintf(name, sizeof name, "%s.conv", prefix);
    conv->weight =
        add_volume_weight(model->parameters, name, in, config->volume_width, random, error);
    if (conv->weight == NULL) {
        return error->status;
    }
    (void)snprintf(name, sizeof name, "%s.bn", prefix);
    return tl_batch_norm_layer_init(
        &conv->bn, model->parameters, name,
        &(tl_batch_norm_layer_config){.channels = config->volume_width,
                                      .norm = {.momentum = config->batch_norm_momentum,
                                               .epsilon = config->batch_norm_epsilon}},
        error);
}

static tl_status attention_init(stereo_net *net, int place, const char *prefix, int channels,
                                tl_random *random, tl_error *error) {
    const tl_stereo_net_config *config = net->model.config;
    if (!has_attention(config, place)) {
        return TL_OK;
    }
    return tl_attention_module_init(
        &net->attention[place], net->model.parameters, prefix,
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

static tl_status build_features(stereo_net *net, tl_random *random, tl_error *error) {
    const tl_stereo_net_config *config = net->model.config;
    tl_parameters *parameters = net->model.parameters;
    tl_conv_bn_config conv = {.in_channels = COLOURS,
                              .out_channels = config->width / 2,
                              .kernel_size = 3,
                              .stride = 2,
                              .momentum = config->batch_norm_momentum,
                              .epsilon = config->batch_norm_epsilon};
    for (int i = 0; i < 2; i++) {
        char name[TL_NAME_SIZE];
        (void)snprintf(name, sizeof name, "stem.%d", i);
        TL_TRY(
            tl_conv_bn_init(&net->stem[i], parameters, name, "conv", "bn", &conv, random, error));
        conv.in_channels = config->width / 2;
        conv.out_channels = config->width;
    }
    conv.in_channels = config->width;
    conv.stride = 1;
    for (int i = 0; i < config->feature_blocks; i++) {
        char name[TL_NAME_SIZE];
        (void)snprintf(name, sizeof name, "blocks.%d", i);
        TL_TRY(tl_residual_block_init(&net->blocks[i], parameters, name, &conv, random, error));
    }
    TL_TRY(attention_init(net, TL_STEREO_NET_FEATURES, "features.attention", config->width, random,
                          error));
    return tl_conv2d_layer_init(&net->features, parameters, "features.conv",
                                &(tl_conv2d_layer_config){.in_channels = config->width,
                                                          .out_channels = config->width,
                                                          .kernel_size = {3, 3},
                                                          .padding = {1, 1}},
                                random, error);
}

static tl_status build_volume(stereo_net *net, tl_random *random, tl_error *error) {
    const tl_stereo_net_config *config = net->model.config;
    const tl_model *model = &net->model;
    TL_TRY(volume_conv_init(&net->entry, model, "volume.entry", config->groups, random, error));
    for (int i = 0; i < config->volume_blocks; i++) {
        for (int j = 0; j < 2; j++) {
            char name[TL_NAME_SIZE];
            (void)snprintf(name, sizeof name, "volume.blocks.%d.%d", i, j);
            TL_TRY(volume_conv_init(&net->volume[i][j], model, name, config->volume_width, random,
                                    error));
        }
    }
    TL_TRY(attention_init(net, TL_STEREO_NET_VOLUME, "volume.attention", config->volume_width,
                          random, error));
    net->score_weight = add_volume_weight(model->parameters, "volume.score", config->volume_width,
                                          1, random, error);
    if (net->score_weight == NULL) {
        return error->status;
    }
    net->score_bias = tl_parameters_add(model->parameters, "volume.score", "bias",
                                        TL_GROUP_NO_DECAY, "out", 1, (int64_t[]){1}, error);
    return net->score_bias != NULL ? TL_OK : error->status;
}

static tl_status build(tl_model *model, uint64_t seed, tl_error *error) {
    stereo_net *net = (stereo_net *)model;
    const tl_stereo_net_config *config = model->config;
    if (config->max_disparity % STRIDE != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "stereo_net: max_disparity must be a multiple of %d, found %d", STRIDE,
                       config->max_disparity);
    }
    if (config->width % 2 != 0 || config->width % config->groups != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "stereo_net: width must be even and a multiple of groups, found %d and %d",
                       config->width, config->groups);
    }
    for (int k = 0; k < config->max_disparity / STRIDE; k++) {
        net->levels[k] = (tl_real)(STRIDE * k);
    }
    tl_random random = tl_random_create(seed, TL_RANDOM_INITIALIZE, 0);
    TL_TRY(build_features(net, &random, error));
    return build_volume(net, &random, error);
}

/* ------------------------------------------------------------------ forward */

static int64_t extent_of(const tl_tensor *x, int dim) {
    return x != NULL ? tl_tensor_shape(x)[dim] : 1;
}

/* x[begin ... end) along `dim`, of a tensor of rank 4. */
static tl_tensor *part(tl_tape *tape, tl_tensor *x, int dim, int64_t begin, int64_t end) {
    int64_t starts[4] = {0};
    int64_t stops[4];
    for (int i = 0; i < 4; i++) {
        stops[i] = extent_of(x, i);
    }
    starts[dim] = begin;
    stops[dim] = end;
    return tl_slice(tape, x, starts, stops, NULL);
}

/* The two images one after the other: [N, H, W, 6] -> [2 N, H, W, 3]. */
static tl_tensor *stack_views(tl_tape *tape, tl_tensor *x) {
    tl_tensor *views[2] = {part(tape, x, 3, 0, COLOURS), part(tape, x, 3, COLOURS, 2 * COLOURS)};
    tl_tensor *stacked = tl_concat(tape, 2, views, 0);
    tl_release(tape, views[0]);
    tl_release(tape, views[1]);
    return stacked;
}

static tl_tensor *attend(stereo_net *net, int place, tl_tape *tape, tl_tensor *x) {
    return has_attention(net->model.config, place)
               ? tl_attention_module_forward(&net->attention[place], &net->model.watch, tape, x)
               : x;
}

static tl_tensor *features_forward(stereo_net *net, tl_tape *tape, tl_tensor *x) {
    const tl_stereo_net_config *config = net->model.config;
    tl_tensor *half = tl_conv_bn_forward(&net->stem[0], tape, x, true, NULL);
    tl_tensor *h = tl_conv_bn_forward(&net->stem[1], tape, half, true, NULL);
    tl_release(tape, half);
    for (int i = 0; i < config->feature_blocks; i++) {
        h = tl_residual_block_forward(&net->blocks[i], tape, h);
    }
    h = attend(net, TL_STEREO_NET_FEATURES, tape, h);
    tl_tensor *y = tl_conv2d_layer_forward(&net->features, tape, h);
    tl_release(tape, h);
    return y;
}

static const tl_conv3d_config same_size = {.padding = {1, 1, 1}};

/* Releases x. */
static tl_tensor *volume_conv_forward(const volume_conv *conv, tl_tape *tape, tl_tensor *x,
                                      tl_tensor *residual) {
    tl_tensor *h = tl_conv3d(tape, x, conv->weight, NULL, &same_size);
    tl_tensor *y = tl_batch_norm_layer_forward_relu(&conv->bn, tape, h, residual);
    tl_release(tape, h);
    return y;
}

/* [N, h, w, D, groups] -> scores [N, h, w, D]; releases x. */
static tl_tensor *volume_forward(stereo_net *net, tl_tape *tape, tl_tensor *x) {
    const tl_stereo_net_config *config = net->model.config;
    tl_tensor *h = volume_conv_forward(&net->entry, tape, x, NULL);
    tl_release(tape, x);
    for (int i = 0; i < config->volume_blocks; i++) {
        tl_tensor *inner = volume_conv_forward(&net->volume[i][0], tape, h, NULL);
        tl_tensor *y = volume_conv_forward(&net->volume[i][1], tape, inner, h);
        tl_release(tape, inner);
        tl_release(tape, h);
        h = y;
    }
    h = attend(net, TL_STEREO_NET_VOLUME, tape, h);
    tl_tensor *scores = tl_conv3d(tape, h, net->score_weight, net->score_bias, &same_size);
    tl_release(tape, h);
    tl_tensor *flat = tl_reshape(tape, scores, 4,
                                 (int64_t[]){extent_of(scores, 0), extent_of(scores, 1),
                                             extent_of(scores, 2), extent_of(scores, 3)});
    tl_release(tape, scores);
    return flat;
}

/* scores [N, h, w, D] -> disparity [N, 4 h, 4 w]; releases scores. */
static tl_tensor *soft_argmin(const stereo_net *net, tl_tape *tape, tl_tensor *scores) {
    const tl_stereo_net_config *config = net->model.config;
    tl_tensor *large = tl_upsample(tape, scores, STRIDE, TL_UPSAMPLE_BILINEAR);
    tl_release(tape, scores);
    tl_tensor *p = tl_softmax(tape, large, 3);
    tl_release(tape, large);
    const tl_array levels = {
        .rank = 2, .shape = {1, config->max_disparity / STRIDE}, .data = (tl_real *)net->levels};
    tl_tensor *mean = tl_linear(tape, p, tl_input(tape, &levels), NULL);
    tl_release(tape, p);
    tl_tensor *disparity = tl_reshape(
        tape, mean, 3, (int64_t[]){extent_of(mean, 0), extent_of(mean, 1), extent_of(mean, 2)});
    tl_release(tape, mean);
    return disparity;
}

static tl_tensor *forward(tl_model *model, tl_tape *tape, tl_tensor *x) {
    stereo_net *net = (stereo_net *)model;
    const tl_stereo_net_config *config = model->config;
    const int64_t pairs = extent_of(x, 0);
    tl_tensor *views = stack_views(tape, x);
    tl_tensor *features = features_forward(net, tape, views);
    tl_release(tape, views);
    tl_tensor *left = part(tape, features, 0, 0, pairs);
    tl_tensor *right = part(tape, features, 0, pairs, 2 * pairs);
    tl_release(tape, features);
    tl_tensor *volume =
        tl_cost_volume(tape, left, right, config->max_disparity / STRIDE, config->groups);
    tl_release(tape, left);
    tl_release(tape, right);
    return soft_argmin(net, tape, volume_forward(net, tape, volume));
}

const tl_model_class tl_stereo_net_class = {
    .kind = "stereo_net",
    .model_size = sizeof(stereo_net),
    .config_size = sizeof(tl_stereo_net_config),
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .build = build,
    .forward = forward,
};

tl_model *tl_stereo_net_create(tl_context *context, const tl_stereo_net_config *config,
                               uint64_t seed, tl_error *error) {
    return tl_model_create(context, &tl_stereo_net_class, config, seed, error);
}
