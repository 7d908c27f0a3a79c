/* train_dense - trains a network of small receptive field, with or without attention, to segment:
 * in the images of the long-range task, which pixels belong to the glyph of the ring's colour?
 *
 *   train_dense --image-size 64 --attention efficient --heads 4 --epochs 5 --checkpoint dense.h5
 *   train_dense --image-size 128 --attention non-local --implementation materialized
 *               --memory-limit 2G
 *   train_dense --evaluate dense.h5
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <tapeline/tapeline.h>

#include "common/fail.h"
#include "common/trainer.h"

typedef struct settings {
    int64_t train_images;
    int64_t test_images;
    int64_t image_size;
    int64_t separation;
    int64_t depth;
    int64_t width;
    attention_settings attention;
    uint32_t attention_blocks;
    training_settings training;
} settings;

enum { OWN_OPTIONS = 7, OPTION_COUNT = OWN_OPTIONS + ATTENTION_OPTIONS + TRAINING_OPTIONS };

static size_t describe_options(settings *s, option options[OPTION_COUNT]) {
    const double large = 1e9;
    const option own[] = {
        {.name = "train-images",
         .type = OPTION_INT,
         .value = &s->train_images,
         .argument = "N",
         .help = "training images",
         .low = 1,
         .high = large,
         .keep = OPTION_MUST_AGREE},
        {.name = "test-images",
         .type = OPTION_INT,
         .value = &s->test_images,
         .argument = "N",
         .help = "test images",
         .low = 1,
         .high = large,
         .keep = OPTION_MUST_AGREE},
        {.name = "image-size",
         .type = OPTION_INT,
         .value = &s->image_size,
         .argument = "N",
         .help = "height and width",
         .low = 23,
         .high = 512,
         .keep = OPTION_MUST_AGREE},
        {.name = "separation",
         .type = OPTION_INT,
         .value = &s->separation,
         .argument = "N",
         .help = "empty pixels between the ring and any glyph, 0: 10",
         .low = 0,
         .high = 490,
         .keep = OPTION_MUST_AGREE},
        {.name = "depth",
         .type = OPTION_INT,
         .value = &s->depth,
         .argument = "N",
         .help = "layers, 2n+2 with n residual blocks",
         .low = 4,
         .high = 66,
         .keep = OPTION_MUST_AGREE},
        {.name = "width",
         .type = OPTION_INT,
         .value = &s->width,
         .argument = "W",
         .help = "channels of all layers",
         .low = 1,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "attention-blocks",
         .type = OPTION_INT_SET,
         .value = &s->attention_blocks,
         .argument = "LIST",
         .low = 0,
         .high = 31,
         .help = "blocks, counted from 0, that end with a module; the last if not given",
         .keep = OPTION_MUST_AGREE},
    };
    _Static_assert(sizeof own / sizeof own[0] == OWN_OPTIONS, "OWN_OPTIONS is out of date");
    return trainer_options(own, OWN_OPTIONS, &s->attention, &s->training, options);
}

static int check(trainer *t) {
    settings *s = t->own;
    if (s->depth % 2 != 0) {
        return usage_error(t->program, "--depth wants an even number, found %" PRId64, s->depth);
    }
    const int64_t blocks = (s->depth - 2) / 2;
    if (!options_given(&t->table, "attention-blocks") && !t->restored) {
        s->attention_blocks = 1u << (blocks - 1);
    }
    if (blocks < 32 && s->attention_blocks >> blocks != 0) {
        return usage_error(t->program, "--attention-blocks wants numbers from 0 to %" PRId64,
                           blocks - 1);
    }
    training_settings_resolve(&s->training, 0.05);
    return EXIT_DONE;
}

static tl_dataset *load(trainer *t, tl_context *context, tl_split split, tl_error *error) {
    const settings *s = t->own;
    return tl_dataset_create_long_range(
        context,
        &(tl_long_range_config){.count = split == TL_SPLIT_TRAIN ? s->train_images : s->test_images,
                                .image_size = (int)s->image_size,
                                .separation = (int)s->separation,
                                .seed = (uint64_t)s->training.seed,
                                .split = split},
        error);
}

static tl_model *create_model(trainer *t, tl_context *context, const tl_dataset_info *info,
                              tl_error *error) {
    const settings *s = t->own;
    const attention_settings *a = &s->attention;
    tl_local_resnet_config config = tl_local_resnet_config_default();
    config.input_channels = (int)info->channels;
    config.blocks = (int)(s->depth - 2) / 2;
    config.width = (int)s->width;
    config.classes = info->mask_classes;
    config.dense = true;
    ATTENTION_CONFIGURE(&config, a);
    config.attention_blocks = a->kind == TL_ATTENTION_NONE ? 0 : s->attention_blocks;
    return tl_local_resnet_create(context, &config, (uint64_t)s->training.seed, error);
}

static tl_status require_fit(const tl_model *model, const tl_dataset_info *info, tl_error *error) {
    if (tl_model_config_value(model, "dense") == 1 &&
        tl_model_config_value(model, "input_channels") == info->channels &&
        tl_model_config_value(model, "classes") == info->mask_classes) {
        return TL_OK;
    }
    return fail_with(error, TL_ERROR_INVALID_ARGUMENT,
                     "the checkpoint's model does not give %d classes for every pixel of %" PRId64
                     " channels",
                     info->mask_classes, info->channels);
}

int main(int argc, char **argv) {
    settings s = {.train_images = 4000,
                  .test_images = 400,
                  .image_size = 32,
                  .depth = 6,
                  .width = 32,
                  .attention = attention_settings_default(),
                  .training = training_settings_default()};
    s.training.epochs = 10;
    s.training.batch_size = 16;
    s.training.optimizer = OPTIMIZER_ADAMW;
    option options[OPTION_COUNT];
    trainer t = {
        .program = "train_dense",
        .summary = "Trains a network of small receptive field, with or without attention modules,\n"
                   "to mark the pixels of the glyph that has the ring's colour (docs/datasets.md).",
        .task = &task_segment,
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
