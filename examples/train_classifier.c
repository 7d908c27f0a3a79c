/* train_classifier - trains a residual network, with or without attention, on images.
 *
 *   train_classifier --dataset fashion-mnist --attention efficient --attention-stages 1,2
 *                    --epochs 3 --checkpoint fashion.h5
 *   train_classifier --resume fashion.h5 --checkpoint fashion.h5
 *   train_classifier --evaluate fashion.h5
 *   mpirun -n 4 train_classifier ...              (built with -DTAPELINE_MPI=ON)
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <tapeline/tapeline.h>

#include "common/fail.h"
#include "common/image_data.h"
#include "common/trainer.h"

enum { MODEL_AUTO, MODEL_RESNET, MODEL_LOCAL };

/* What the command line says; the defaults train well. */
typedef struct settings {
    int dataset;
    const char *data_dir;
    int64_t train_images;
    int64_t test_images;
    int64_t image_size;
    int model;
    int64_t depth;
    int64_t width;
    attention_settings attention;
    uint32_t attention_stages;
    bool attention_every_block;
    double label_smoothing;
    bool no_augmentation;
    int64_t cutout;
    training_settings training;
} settings;

enum { OWN_OPTIONS = 13, OPTION_COUNT = OWN_OPTIONS + ATTENTION_OPTIONS + TRAINING_OPTIONS };

/* Fills the table; every entry points into *s. */
static size_t describe_options(settings *s, option options[OPTION_COUNT]) {
    const double large = 1e9;
    const option own[] = {
        {.name = "dataset",
         .type = OPTION_CHOICE,
         .value = &s->dataset,
         .choices = DATASET_CHOICES,
         .help = "what to train on; long-range is made by a program",
         .keep = OPTION_MUST_AGREE},
        {.name = "data-dir",
         .type = OPTION_TEXT,
         .value = &s->data_dir,
         .argument = "DIR",
         .help = "where its files are (datasets/README.md)",
         .keep = OPTION_MAY_DIFFER},
        {.name = "train-images",
         .type = OPTION_INT,
         .value = &s->train_images,
         .argument = "N",
         .help = "long-range: training images, 0: 20000",
         .low = 0,
         .high = large,
         .keep = OPTION_MUST_AGREE},
        {.name = "test-images",
         .type = OPTION_INT,
         .value = &s->test_images,
         .argument = "N",
         .help = "long-range: test images, 0: 2000",
         .low = 0,
         .high = large,
         .keep = OPTION_MUST_AGREE},
        {.name = "image-size",
         .type = OPTION_INT,
         .value = &s->image_size,
         .argument = "N",
         .help = "long-range: height and width, 0: 32",
         .low = 0,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "model",
         .type = OPTION_CHOICE,
         .value = &s->model,
         .choices = "auto|resnet|local",
         .help = "resnet_cifar, or local_resnet of small receptive field (auto: local for "
                 "long-range)",
         .keep = OPTION_MUST_AGREE},
        {.name = "depth",
         .type = OPTION_INT,
         .value = &s->depth,
         .argument = "N",
         .help = "layers: resnet 6n+2 (0: 20), local 2n+2 (0: 6)",
         .low = 0,
         .high = 1202,
         .keep = OPTION_MUST_AGREE},
        {.name = "width",
         .type = OPTION_INT,
         .value = &s->width,
         .argument = "W",
         .help = "channels of the first stage, 0: 16 (resnet), 32 (local)",
         .low = 0,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "attention-stages",
         .type = OPTION_INT_SET,
         .value = &s->attention_stages,
         .argument = "LIST",
         .low = 0,
         .high = 31,
         .help = "stages (local: blocks), counted from 0, that end with a module",
         .keep = OPTION_MUST_AGREE},
        {.name = "attention-every-block",
         .type = OPTION_FLAG,
         .value = &s->attention_every_block,
         .help = "a module after every block of these stages",
         .keep = OPTION_MUST_AGREE},
        {.name = "label-smoothing",
         .type = OPTION_NUMBER,
         .value = &s->label_smoothing,
         .argument = "X",
         .help = "of the training loss",
         .low = 0,
         .high = 0.9999,
         .keep = OPTION_MUST_AGREE},
        {.name = "no-augmentation",
         .type = OPTION_FLAG,
         .value = &s->no_augmentation,
         .help = "neither crops nor flips",
         .keep = OPTION_MUST_AGREE},
        {.name = "cutout",
         .type = OPTION_INT,
         .value = &s->cutout,
         .argument = "N",
         .help = "side of a square that is blanked in each training image",
         .low = 0,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
    };
    _Static_assert(sizeof own / sizeof own[0] == OWN_OPTIONS, "OWN_OPTIONS is out of date");
    return trainer_options(own, OWN_OPTIONS, &s->attention, &s->training, options);
}

static bool is_local(const settings *s) {
    return s->model == MODEL_LOCAL || (s->model == MODEL_AUTO && s->dataset == DATASET_LONG_RANGE);
}

static int check(trainer *t) {
    settings *s = t->own;
    const int64_t depth = s->depth > 0 ? s->depth : (is_local(s) ? 6 : 20);
    if (is_local(s) ? depth % 2 != 0 || depth < 4 || depth > 66 : depth % 6 != 2) {
        return usage_error(t->program, "--depth wants %s, found %" PRId64,
                           is_local(s) ? "an even number from 4 to 66 for the local model"
                                       : "6n+2 (8, 14, 20, 26, 32, ...)",
                           depth);
    }
    s->depth = depth;
    const int64_t places = is_local(s) ? (depth - 2) / 2 : TL_RESNET_CIFAR_STAGES;
    if (!options_given(&t->table, "attention-stages") && is_local(s) && !t->restored) {
        s->attention_stages = 1u << (places - 1);
    }
    if (places < 32 && s->attention_stages >> places != 0) {
        return usage_error(t->program, "--attention-stages wants numbers from 0 to %" PRId64,
                           places - 1);
    }
    if (s->width == 0) {
        s->width = is_local(s) ? 32 : 16;
    }
    training_settings_resolve(&s->training, is_local(s) ? 0.05 : 0.2);
    if (!s->no_augmentation) {
        t->augment = image_data_augmentation((image_dataset)s->dataset);
    }
    t->augment.cutout_size = (int)s->cutout;
    t->label_smoothing = s->label_smoothing;
    return EXIT_DONE;
}

static tl_dataset *load(trainer *t, tl_context *context, tl_split split, tl_error *error) {
    const settings *s = t->own;
    const image_data_config config = {.dataset = (image_dataset)s->dataset,
                                      .folder = s->data_dir,
                                      .train_images = s->train_images,
                                      .test_images = s->test_images,
                                      .image_size = s->image_size,
                                      .seed = (uint64_t)s->training.seed};
    return image_data_load(context, &config, split, error);
}

static tl_model *create_model(trainer *t, tl_context *context, const tl_dataset_info *info,
                              tl_error *error) {
    const settings *s = t->own;
    const attention_settings *a = &s->attention;
    const uint64_t seed = (uint64_t)s->training.seed;
    if (is_local(s)) {
        tl_local_resnet_config config = tl_local_resnet_config_default();
        config.input_channels = (int)info->channels;
        config.blocks = (int)(s->depth - 2) / 2;
        config.width = (int)s->width;
        config.classes = info->classes;
        ATTENTION_CONFIGURE(&config, a);
        config.attention_blocks = a->kind == TL_ATTENTION_NONE ? 0
                                  : s->attention_every_block
                                      ? (uint32_t)((UINT64_C(1) << config.blocks) - 1)
                                      : s->attention_stages;
        return tl_local_resnet_create(context, &config, seed, error);
    }
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.input_channels = (int)info->channels;
    config.depth = (int)s->depth;
    config.width = (int)s->width;
    config.classes = info->classes;
    ATTENTION_CONFIGURE(&config, a);
    config.attention_stages = a->kind == TL_ATTENTION_NONE ? 0 : s->attention_stages;
    config.attention_every_block = s->attention_every_block;
    return tl_resnet_cifar_create(context, &config, seed, error);
}

static tl_status require_fit(const tl_model *model, const tl_dataset_info *info, tl_error *error) {
    const int64_t channels = tl_model_config_value(model, "input_channels");
    const int64_t classes = tl_model_config_value(model, "classes");
    if (channels == info->channels && classes == info->classes) {
        return TL_OK;
    }
    return fail_with(error, TL_ERROR_INVALID_ARGUMENT,
                     "the checkpoint's model takes %" PRId64 " channels and gives %" PRId64
                     " classes, the data set has %" PRId64 " and %d",
                     channels, classes, info->channels, info->classes);
}

int main(int argc, char **argv) {
    settings s = {.dataset = DATASET_CIFAR10,
                  .model = MODEL_AUTO,
                  .attention = attention_settings_default(),
                  .attention_stages = 1u << 1 | 1u << 2,
                  .training = training_settings_default()};
    option options[OPTION_COUNT];
    trainer t = {
        .program = "train_classifier",
        .summary = "Trains a residual network for image classification, with or without attention\n"
                   "modules, and saves it in HDF5 checkpoints that h5py reads.",
        .task = &task_classify,
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
