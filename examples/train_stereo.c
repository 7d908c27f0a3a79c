/* train_stereo - trains a small network after PSMNet, with or without attention, to see depth in
 * pairs of images that a program makes (docs/datasets.md).
 *
 *   train_stereo --epochs 10 --checkpoint stereo.h5 --log stereo.csv
 *   train_stereo --attention efficient --attention-places both --epochs 10
 *   train_stereo --evaluate stereo.h5
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <tapeline/tapeline.h>

#include "common/fail.h"
#include "common/trainer.h"

typedef struct settings {
    int64_t train_pairs;
    int64_t test_pairs;
    int64_t height;
    int64_t width;
    int64_t max_disparity;
    int64_t channels;
    int64_t feature_blocks;
    int64_t groups;
    int64_t volume_channels;
    int64_t volume_blocks;
    attention_settings attention;
    int places;
    training_settings training;
} settings;

enum { OWN_OPTIONS = 11, OPTION_COUNT = OWN_OPTIONS + ATTENTION_OPTIONS + TRAINING_OPTIONS };

/* In the order of the option's choices. */
static const uint32_t place_bits[] = {1u << TL_STEREO_NET_FEATURES, 1u << TL_STEREO_NET_VOLUME,
                                      1u << TL_STEREO_NET_FEATURES | 1u << TL_STEREO_NET_VOLUME};

static size_t describe_options(settings *s, option options[OPTION_COUNT]) {
    const double large = 1e9;
    const option own[] = {
        {.name = "train-pairs",
         .type = OPTION_INT,
         .value = &s->train_pairs,
         .argument = "N",
         .help = "training pairs",
         .low = 1,
         .high = large,
         .keep = OPTION_MUST_AGREE},
        {.name = "test-pairs",
         .type = OPTION_INT,
         .value = &s->test_pairs,
         .argument = "N",
         .help = "test pairs",
         .low = 1,
         .high = large,
         .keep = OPTION_MUST_AGREE},
        {.name = "height",
         .type = OPTION_INT,
         .value = &s->height,
         .argument = "N",
         .help = "of an image, a multiple of 4",
         .low = 16,
         .high = 1024,
         .keep = OPTION_MUST_AGREE},
        {.name = "width",
         .type = OPTION_INT,
         .value = &s->width,
         .argument = "N",
         .help = "of an image, a multiple of 4",
         .low = 32,
         .high = 2048,
         .keep = OPTION_MUST_AGREE},
        {.name = "max-disparity",
         .type = OPTION_INT,
         .value = &s->max_disparity,
         .argument = "N",
         .help = "disparities lie below it, a multiple of 4",
         .low = 8,
         .high = 248,
         .keep = OPTION_MUST_AGREE},
        {.name = "channels",
         .type = OPTION_INT,
         .value = &s->channels,
         .argument = "N",
         .help = "of the features",
         .low = 2,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "feature-blocks",
         .type = OPTION_INT,
         .value = &s->feature_blocks,
         .argument = "N",
         .help = "residual blocks of the features",
         .low = 0,
         .high = TL_STEREO_NET_MAX_BLOCKS,
         .keep = OPTION_MUST_AGREE},
        {.name = "groups",
         .type = OPTION_INT,
         .value = &s->groups,
         .argument = "N",
         .help = "of the correlation; they divide the channels",
         .low = 1,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "volume-channels",
         .type = OPTION_INT,
         .value = &s->volume_channels,
         .argument = "N",
         .help = "of the cost volume",
         .low = 1,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "volume-blocks",
         .type = OPTION_INT,
         .value = &s->volume_blocks,
         .argument = "N",
         .help = "residual blocks of the cost volume",
         .low = 0,
         .high = TL_STEREO_NET_MAX_BLOCKS,
         .keep = OPTION_MUST_AGREE},
        {.name = "attention-places",
         .type = OPTION_CHOICE,
         .value = &s->places,
         .choices = "features|volume|both",
         .help = "where modules are: on the features of each image, on the cost volume",
         .keep = OPTION_MUST_AGREE},
    };
    _Static_assert(sizeof own / sizeof own[0] == OWN_OPTIONS, "OWN_OPTIONS is out of date");
    return trainer_options(own, OWN_OPTIONS, &s->attention, &s->training, options);
}

static int check(trainer *t) {
    settings *s = t->own;
    const struct {
        const char *name;
        int64_t value;
    } multiples[] = {
        {"height", s->height}, {"width", s->width}, {"max-disparity", s->max_disparity}};
    for (size_t i = 0; i < sizeof multiples / sizeof multiples[0]; i++) {
        if (multiples[i].value % TL_STEREO_NET_STRIDE != 0) {
            return usage_error(t->program, "--%s wants a multiple of %d, found %" PRId64,
                               multiples[i].name, TL_STEREO_NET_STRIDE, multiples[i].value);
        }
    }
    training_settings_resolve(&s->training, 0.01);
    return EXIT_DONE;
}

static tl_dataset *load(trainer *t, tl_context *context, tl_split split, tl_error *error) {
    const settings *s = t->own;
    return tl_dataset_create_stereo(
        context,
        &(tl_stereo_config){.count = split == TL_SPLIT_TRAIN ? s->train_pairs : s->test_pairs,
                            .height = (int)s->height,
                            .width = (int)s->width,
                            .max_disparity = (int)s->max_disparity,
                            .seed = (uint64_t)s->training.seed,
                            .split = split},
        error);
}

static tl_model *create_model(trainer *t, tl_context *context, const tl_dataset_info *info,
                              tl_error *error) {
    (void)info;
    const settings *s = t->own;
    const attention_settings *a = &s->attention;
    tl_stereo_net_config config = tl_stereo_net_config_default();
    /* one level more, so that a mean of levels can come up to the largest disparity */
    config.max_disparity = (int)s->max_disparity + TL_STEREO_NET_STRIDE;
    config.width = (int)s->channels;
    config.feature_blocks = (int)s->feature_blocks;
    config.groups = (int)s->groups;
    config.volume_width = (int)s->volume_channels;
    config.volume_blocks = (int)s->volume_blocks;
    ATTENTION_CONFIGURE(&config, a);
    config.attention_places = a->kind == TL_ATTENTION_NONE ? 0 : place_bits[s->places];
    return tl_stereo_net_create(context, &config, (uint64_t)s->training.seed, error);
}

static tl_status require_fit(const tl_model *model, const tl_dataset_info *info, tl_error *error) {
    (void)info;
    if (strcmp(tl_model_kind(model), "stereo_net") == 0) {
        return TL_OK;
    }
    return fail_with(error, TL_ERROR_INVALID_ARGUMENT,
                     "the checkpoint's model is a %s, which does not work on pairs of images",
                     tl_model_kind(model));
}

int main(int argc, char **argv) {
    settings s = {.train_pairs = 2000,
                  .test_pairs = 200,
                  .height = 64,
                  .width = 128,
                  .max_disparity = 32,
                  .channels = 32,
                  .feature_blocks = 2,
                  .groups = 8,
                  .volume_channels = 16,
                  .volume_blocks = 1,
                  .attention = attention_settings_default(),
                  .training = training_settings_default()};
    s.training.epochs = 10;
    s.training.batch_size = 8;
    s.training.optimizer = OPTIMIZER_ADAMW;
    option options[OPTION_COUNT];
    trainer t = {
        .program = "train_stereo",
        .summary =
            "Trains a small network after PSMNet, with or without attention modules, to see\n"
            "depth in pairs of images that a program makes (docs/datasets.md).",
        .task = &task_stereo,
        .options = options,
        .option_count = describe_options(&s, options),
        .settings = &s.training,
        .own = &s,
        .check = check,
        .load = load,
        .create = create_model,
        .require_fit = require_fit,
    };
    return trainer_main(&t, argc, argv);
}
