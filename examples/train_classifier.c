/* train_classifier - trains a residual network, with or without attention, on images.
 *
 *   train_classifier --dataset fashion-mnist --attention efficient --attention-stages 1,2
 *                    --epochs 3 --checkpoint fashion.h5
 *   train_classifier --resume fashion.h5 --checkpoint fashion.h5
 *   train_classifier --evaluate fashion.h5
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <tapeline/tapeline.h>

#include "common/image_data.h"
#include "common/interrupt.h"
#include "common/options.h"
#include "common/options_state.h"
#include "common/training.h"

static const char program[] = "train_classifier";

enum { OPTIMIZER_SGD, OPTIMIZER_ADAM, OPTIMIZER_ADAMW };
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
    int attention;
    uint32_t attention_stages;
    bool attention_every_block;
    int64_t key_divisor;
    int64_t heads;
    int normalization;
    int pairwise;
    bool use_scale;
    int implementation;
    int64_t epochs;
    int64_t stop_after;
    int64_t batch_size;
    int optimizer;
    double learning_rate;
    double momentum;
    double weight_decay;
    int schedule;
    double warmup_epochs;
    double label_smoothing;
    double clip_norm;
    bool no_augmentation;
    int64_t cutout;
    int64_t seed;
    int64_t threads;
    int64_t loader_threads;
    uint64_t memory_limit;
    const char *checkpoint;
    const char *resume;
    const char *log;
    const char *profile;
    const char *evaluate;
} settings;

static const settings default_settings = {
    .dataset = DATASET_CIFAR10,
    .model = MODEL_AUTO,
    .width = 0,
    .attention = TL_ATTENTION_NONE,
    .attention_stages = 1u << 1 | 1u << 2,
    .key_divisor = 2,
    .heads = 1,
    .epochs = 15,
    .batch_size = 128,
    .optimizer = OPTIMIZER_SGD,
    .learning_rate = NAN,
    .momentum = 0.9,
    .weight_decay = NAN,
    .schedule = TL_SCHEDULE_ONE_CYCLE,
    .seed = 1,
};

enum { OPTION_COUNT = 39 };

/* Fills the table; every entry points into *s. */
static size_t describe_options(settings *s, option options[OPTION_COUNT]) {
    const double large = 1e9;
    const option all[] = {
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
        {.name = "attention",
         .type = OPTION_CHOICE,
         .value = &s->attention,
         .choices = "none|efficient|non-local",
         .help = "kind of attention module",
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
        {.name = "key-divisor",
         .type = OPTION_INT,
         .value = &s->key_divisor,
         .argument = "D",
         .help = "key channels = channels / D",
         .low = 1,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "heads",
         .type = OPTION_INT,
         .value = &s->heads,
         .argument = "H",
         .help = "heads of a module",
         .low = 1,
         .high = 4096,
         .keep = OPTION_MUST_AGREE},
        {.name = "normalization",
         .type = OPTION_CHOICE,
         .value = &s->normalization,
         .choices = "softmax|scaling",
         .help = "of efficient attention",
         .keep = OPTION_MUST_AGREE},
        {.name = "pairwise",
         .type = OPTION_CHOICE,
         .value = &s->pairwise,
         .choices = "embedded-gaussian|gaussian|dot-product|concatenation",
         .help = "form of the non-local block",
         .keep = OPTION_MUST_AGREE},
        {.name = "use-scale",
         .type = OPTION_FLAG,
         .value = &s->use_scale,
         .help = "its softmax forms: scores over sqrt(key channels / heads)",
         .keep = OPTION_MUST_AGREE},
        {.name = "implementation",
         .type = OPTION_CHOICE,
         .value = &s->implementation,
         .choices = "tiled|materialized",
         .help = "of the non-local block",
         .keep = OPTION_MUST_AGREE},
        {.name = "epochs",
         .type = OPTION_INT,
         .value = &s->epochs,
         .argument = "E",
         .help = "length of the training, and of the schedule",
         .low = 1,
         .high = large,
         .keep = OPTION_MUST_AGREE},
        {.name = "stop-after",
         .type = OPTION_INT,
         .value = &s->stop_after,
         .argument = "E",
         .help = "stop when E epochs are done in all, to resume later",
         .low = 1,
         .high = large},
        {.name = "batch-size",
         .type = OPTION_INT,
         .value = &s->batch_size,
         .argument = "B",
         .help = "images of a step",
         .low = 1,
         .high = 65536,
         .keep = OPTION_MUST_AGREE},
        {.name = "optimizer",
         .type = OPTION_CHOICE,
         .value = &s->optimizer,
         .choices = "sgd|adam|adamw",
         .help = "update rule; sgd has Nesterov momentum",
         .keep = OPTION_MUST_AGREE},
        {.name = "lr",
         .type = OPTION_NUMBER,
         .value = &s->learning_rate,
         .argument = "X",
         .help =
             "(highest) learning rate; default 0.2 for sgd (local: 0.05), 0.003 for adam and adamw",
         .low = 0,
         .high = 1e6,
         .keep = OPTION_MUST_AGREE},
        {.name = "momentum",
         .type = OPTION_NUMBER,
         .value = &s->momentum,
         .argument = "X",
         .help = "of sgd",
         .low = 0,
         .high = 0.9999,
         .keep = OPTION_MUST_AGREE},
        {.name = "weight-decay",
         .type = OPTION_NUMBER,
         .value = &s->weight_decay,
         .argument = "X",
         .help = "on weights, not on biases and norms; default 5e-4, adamw 0.01",
         .low = 0,
         .high = 1e3,
         .keep = OPTION_MUST_AGREE},
        {.name = "schedule",
         .type = OPTION_CHOICE,
         .value = &s->schedule,
         .choices = "constant|step|multistep|cosine|one-cycle",
         .help = "of the learning rate; step and multistep divide it by 10 after 1/2 and 3/4",
         .keep = OPTION_MUST_AGREE},
        {.name = "warmup-epochs",
         .type = OPTION_NUMBER,
         .value = &s->warmup_epochs,
         .argument = "X",
         .help = "linear rise before the schedule",
         .low = 0,
         .high = 1e6,
         .keep = OPTION_MUST_AGREE},
        {.name = "label-smoothing",
         .type = OPTION_NUMBER,
         .value = &s->label_smoothing,
         .argument = "X",
         .help = "of the training loss",
         .low = 0,
         .high = 0.9999,
         .keep = OPTION_MUST_AGREE},
        {.name = "clip-norm",
         .type = OPTION_NUMBER,
         .value = &s->clip_norm,
         .argument = "X",
         .help = "largest norm of the whole gradient, 0: no clipping",
         .low = 0,
         .high = 1e9,
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
        {.name = "seed",
         .type = OPTION_INT,
         .value = &s->seed,
         .argument = "S",
         .help = "of weights, order and augmentation",
         .low = 0,
         .high = 9e15,
         .keep = OPTION_MUST_AGREE},
        {.name = "threads",
         .type = OPTION_INT,
         .value = &s->threads,
         .argument = "T",
         .help = "0: all cores; the results do not depend on it",
         .low = 0,
         .high = 1024},
        {.name = "loader-threads",
         .type = OPTION_INT,
         .value = &s->loader_threads,
         .argument = "T",
         .help = "threads that prepare batches ahead, 0: none",
         .low = 0,
         .high = 16},
        {.name = "memory-limit",
         .type = OPTION_BYTES,
         .value = &s->memory_limit,
         .argument = "BYTES",
         .help = "fail rather than hold more than, say, 2G"},
        {.name = "checkpoint",
         .type = OPTION_TEXT,
         .value = &s->checkpoint,
         .argument = "FILE",
         .help = "save here after every epoch and on Ctrl-C (HDF5)"},
        {.name = "resume",
         .type = OPTION_TEXT,
         .value = &s->resume,
         .argument = "FILE",
         .help = "go on from this checkpoint, with its options"},
        {.name = "log",
         .type = OPTION_TEXT,
         .value = &s->log,
         .argument = "FILE.csv",
         .help = "one row per epoch"},
        {.name = "profile",
         .type = OPTION_TEXT,
         .value = &s->profile,
         .argument = "FILE.json",
         .help = "time every operation: a table, and a trace for Perfetto"},
        {.name = "evaluate",
         .type = OPTION_TEXT,
         .value = &s->evaluate,
         .argument = "FILE",
         .help = "test this checkpoint instead of training"},
    };
    _Static_assert(sizeof all / sizeof all[0] == OPTION_COUNT, "OPTION_COUNT is out of date");
    memcpy(options, all, sizeof all);
    return OPTION_COUNT;
}

/* Everything the program holds. */
typedef struct session {
    settings s;
    option options[OPTION_COUNT];
    option_table table;
    tl_context *context;
    tl_state *state; /* of --resume or --evaluate */
    image_data data;
    training t;
} session;

static void session_free(session *x) {
    training_free(&x->t);
    image_data_free(&x->data);
    tl_state_free(x->state);
    tl_context_free(x->context);
    options_free(&x->table);
}

static bool is_local(const settings *s) {
    return s->model == MODEL_LOCAL || (s->model == MODEL_AUTO && s->dataset == DATASET_LONG_RANGE);
}

/* Combinations that no single option can see. */
static int check_settings(session *x) {
    settings *s = &x->s;
    if (s->resume != NULL && s->evaluate != NULL) {
        return usage_error(program, "--resume and --evaluate exclude each other");
    }
    if (s->profile != NULL && s->evaluate != NULL) {
        return usage_error(program, "--profile is of training; --evaluate does none");
    }
    const int64_t depth = s->depth > 0 ? s->depth : (is_local(s) ? 6 : 20);
    if (is_local(s) ? depth % 2 != 0 || depth < 4 || depth > 66 : depth % 6 != 2) {
        return usage_error(program, "--depth wants %s, found %" PRId64,
                           is_local(s) ? "an even number from 4 to 66 for the local model"
                                       : "6n+2 (8, 14, 20, 26, 32, ...)",
                           depth);
    }
    s->depth = depth;
    const int64_t places = is_local(s) ? (depth - 2) / 2 : TL_RESNET_CIFAR_STAGES;
    if (!options_given(&x->table, "attention-stages") && is_local(s) && x->state == NULL) {
        s->attention_stages = 1u << (places - 1);
    }
    if (places < 32 && s->attention_stages >> places != 0) {
        return usage_error(program, "--attention-stages wants numbers from 0 to %" PRId64,
                           places - 1);
    }
    if (s->width == 0) {
        s->width = is_local(s) ? 32 : 16;
    }
    if (isnan(s->learning_rate)) {
        s->learning_rate = s->optimizer != OPTIMIZER_SGD ? 0.003 : is_local(s) ? 0.05 : 0.2;
    }
    if (isnan(s->weight_decay)) {
        s->weight_decay = s->optimizer == OPTIMIZER_ADAMW ? 0.01 : 5e-4;
    }
    return EXIT_DONE;
}

/* ------------------------------------------------------------------ building */

static tl_model *create_model(const session *x, const tl_dataset_info *info, tl_error *error) {
    const settings *s = &x->s;
    if (is_local(s)) {
        tl_local_resnet_config config = tl_local_resnet_config_default();
        config.input_channels = (int)info->channels;
        config.blocks = (int)(s->depth - 2) / 2;
        config.width = (int)s->width;
        config.classes = info->classes;
        config.attention = (tl_attention_kind)s->attention;
        config.attention_blocks = s->attention == TL_ATTENTION_NONE ? 0
                                  : s->attention_every_block
                                      ? (uint32_t)((UINT64_C(1) << config.blocks) - 1)
                                      : s->attention_stages;
        config.heads = (int)s->heads;
        config.key_channels_divisor = (int)s->key_divisor;
        config.normalization = (tl_normalization)s->normalization;
        config.pairwise = (tl_pairwise)s->pairwise;
        config.use_scale = s->use_scale;
        config.implementation = (tl_attention_implementation)s->implementation;
        return tl_local_resnet_create(x->context, &config, (uint64_t)s->seed, error);
    }
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.input_channels = (int)info->channels;
    config.depth = (int)s->depth;
    config.width = (int)s->width;
    config.classes = info->classes;
    config.attention = (tl_attention_kind)s->attention;
    config.attention_stages = s->attention == TL_ATTENTION_NONE ? 0 : s->attention_stages;
    config.attention_every_block = s->attention_every_block;
    config.heads = (int)s->heads;
    config.key_channels_divisor = (int)s->key_divisor;
    config.normalization = (tl_normalization)s->normalization;
    config.pairwise = (tl_pairwise)s->pairwise;
    config.use_scale = s->use_scale;
    config.implementation = (tl_attention_implementation)s->implementation;
    return tl_resnet_cifar_create(x->context, &config, (uint64_t)s->seed, error);
}

static tl_optimizer *create_optimizer(const settings *s, tl_model *model, tl_error *error) {
    tl_parameters *parameters = tl_model_parameters(model);
    if (s->optimizer == OPTIMIZER_SGD) {
        return tl_sgd_create(parameters,
                             &(tl_sgd_config){.learning_rate = s->learning_rate,
                                              .momentum = s->momentum,
                                              .weight_decay = s->weight_decay,
                                              .nesterov = s->momentum > 0.0},
                             error);
    }
    tl_adam_config config = tl_adam_config_default();
    config.learning_rate = s->learning_rate;
    config.weight_decay = s->weight_decay;
    return s->optimizer == OPTIMIZER_ADAM ? tl_adam_create(parameters, &config, error)
                                          : tl_adamw_create(parameters, &config, error);
}

static tl_schedule_config make_schedule(const settings *s, int64_t steps_per_epoch) {
    const int64_t total = s->epochs * steps_per_epoch;
    int64_t warmup = (int64_t)(s->warmup_epochs * (double)steps_per_epoch);
    warmup = warmup < total ? warmup : total - 1;
    tl_schedule_config schedule = {.kind = (tl_schedule_kind)s->schedule,
                                   .base_learning_rate = s->learning_rate,
                                   .warmup_steps = warmup,
                                   .total_steps = total,
                                   .step_size = (total - warmup + 1) / 2,
                                   .milestones = {total / 2, total * 3 / 4},
                                   .milestone_count = 2};
    return schedule;
}

static tl_status require_fit(const tl_model *model, const tl_dataset_info *info,
                             const char *dataset, tl_error *error) {
    const int64_t channels = tl_model_config_value(model, "input_channels");
    const int64_t classes = tl_model_config_value(model, "classes");
    if (channels == info->channels && classes == info->classes) {
        return TL_OK;
    }
    error->status = TL_ERROR_INVALID_ARGUMENT;
    (void)snprintf(error->message, sizeof error->message,
                   "the checkpoint's model takes %" PRId64 " channels and gives %" PRId64
                   " classes, %s has %" PRId64 " and %d",
                   channels, classes, dataset, info->channels, info->classes);
    return error->status;
}

static tl_status prepare_training(session *x, tl_error *error) {
    settings *s = &x->s;
    training *t = &x->t;
    const tl_dataset_info *info = tl_dataset_describe(x->data.train);
    tl_augment_config augment = {0};
    if (!s->no_augmentation) {
        augment = image_data_augmentation((image_dataset)s->dataset);
    }
    augment.cutout_size = (int)s->cutout;
    t->loader = tl_loader_create(x->context, x->data.train,
                                 &(tl_loader_config){.batch_size = s->batch_size,
                                                     .shuffle = true,
                                                     .drop_last = info->count >= s->batch_size,
                                                     .seed = (uint64_t)s->seed,
                                                     .augment = augment,
                                                     .threads = (int)s->loader_threads},
                                 error);
    if (t->loader == NULL) {
        return error->status;
    }
    if (t->model == NULL) {
        t->model = create_model(x, info, error);
    }
    if (t->model == NULL) {
        return error->status;
    }
    t->optimizer = create_optimizer(s, t->model, error);
    if (t->optimizer == NULL) {
        return error->status;
    }
    t->schedule = make_schedule(s, tl_loader_batches(t->loader));
    if (tl_schedule_check(&t->schedule, error) != TL_OK) {
        return error->status;
    }
    tl_tape_set_random(t->tape, (uint64_t)s->seed, 0);
    t->input = info;
    t->test = x->data.test;
    t->options = &x->table;
    t->batch_size = s->batch_size;
    t->epochs = s->epochs;
    t->stop_after = s->stop_after;
    t->label_smoothing = s->label_smoothing;
    t->clip_norm = s->clip_norm;
    t->checkpoint = s->checkpoint;
    t->log = s->log;
    t->profile_path = s->profile;
    return x->state != NULL ? training_restore(t, x->state, error) : TL_OK;
}

/* ------------------------------------------------------------------ main */

static int load_state(session *x, const char *path) {
    tl_error error;
    x->state = tl_checkpoint_load(x->context, path, &error);
    if (x->state == NULL) {
        return work_error(program, "%s", error.message);
    }
    if (options_restore(&x->table, x->state, &error) != TL_OK) {
        return error.status == TL_ERROR_INVALID_ARGUMENT
                   ? usage_error(program, "%s: %s", path, error.message)
                   : work_error(program, "%s: %s", path, error.message);
    }
    x->t.model = tl_model_create_from_state(x->context, x->state, &error);
    return x->t.model != NULL ? EXIT_DONE : work_error(program, "%s: %s", path, error.message);
}

static void print_head(const session *x) {
    const settings *s = &x->s;
    const tl_dataset_info *info = tl_dataset_describe(x->data.train);
    char optimizer[32];
    option_value_text(options_find((option_table *)&x->table, "optimizer"), optimizer,
                      sizeof optimizer);
    printf("%s: %" PRId64 " parameters, %" PRId64 " training and %" PRId64 " test images of "
           "%" PRId64 "x%" PRId64 "x%" PRId64 ", %d classes; %s, %s, %d threads\n",
           tl_model_kind(x->t.model), tl_parameters_trainable_size(tl_model_parameters(x->t.model)),
           info->count, tl_dataset_describe(x->data.test)->count, info->height, info->width,
           info->channels, info->classes, optimizer, tl_context_isa(x->context),
           tl_context_threads(x->context));
    if (x->t.epoch > 0 || x->t.step > 0) {
        printf("resumed %s after %" PRId64 " epochs, %" PRId64 " steps\n", s->resume, x->t.epoch,
               x->t.step);
    }
    (void)fflush(stdout);
}

static int evaluate_checkpoint(session *x) {
    tl_error error;
    evaluation result;
    if (evaluate(x->t.tape, x->t.model, x->data.test, x->s.batch_size, &result, &error) != TL_OK) {
        return work_error(program, "evaluation: %s", error.message);
    }
    if (interrupt_requested()) {
        (void)work_error(program, "interrupted");
        return EXIT_INTERRUPTED;
    }
    printf("%s: test loss %.4f accuracy %.2f%% on %" PRId64 " images\n", x->s.evaluate, result.loss,
           100.0 * result.accuracy, result.count);
    return EXIT_DONE;
}

static int run(session *x) {
    settings *s = &x->s;
    tl_error error = {0};
    x->context = tl_context_create(&(tl_context_config){
        .threads = (int)s->threads, .memory_limit = s->memory_limit, .error = &error});
    if (x->context == NULL) {
        return usage_error(program, "%s", error.message);
    }
    x->t.program = program;
    x->t.context = x->context;
    x->t.tape = tl_tape_create(x->context);
    if (x->t.tape == NULL) {
        return work_error(program, "out of memory");
    }
    const char *source = s->resume != NULL ? s->resume : s->evaluate;
    int code = source != NULL ? load_state(x, source) : EXIT_DONE;
    code = code == EXIT_DONE ? check_settings(x) : code;
    if (code != EXIT_DONE) {
        return code;
    }
    const image_data_config data = {.dataset = (image_dataset)s->dataset,
                                    .folder = s->data_dir,
                                    .train_images = s->train_images,
                                    .test_images = s->test_images,
                                    .image_size = s->image_size,
                                    .seed = (uint64_t)s->seed};
    if (image_data_load(&x->data, x->context, &data, s->evaluate != NULL, &error) != TL_OK) {
        return error.status == TL_ERROR_INVALID_ARGUMENT ? usage_error(program, "%s", error.message)
                                                         : work_error(program, "%s", error.message);
    }
    if (x->t.model != NULL && require_fit(x->t.model, tl_dataset_describe(x->data.test),
                                          "the data set", &error) != TL_OK) {
        return usage_error(program, "%s: %s", source, error.message);
    }
    if (s->evaluate != NULL) {
        return evaluate_checkpoint(x);
    }
    if (prepare_training(x, &error) != TL_OK) {
        return error.status == TL_ERROR_INVALID_ARGUMENT ? usage_error(program, "%s", error.message)
                                                         : work_error(program, "%s", error.message);
    }
    tl_state_free(x->state);
    x->state = NULL;
    print_head(x);
    return training_run(&x->t);
}

int main(int argc, char **argv) {
    session x = {.s = default_settings};
    x.table = (option_table){
        .program = program,
        .summary = "Trains a residual network for image classification, with or without attention\n"
                   "modules, and saves it in HDF5 checkpoints that h5py reads.",
        .options = x.options,
        .count = describe_options(&x.s, x.options)};
    int code;
    if (!options_parse(&x.table, argc, argv, &code)) {
        return code;
    }
    interrupt_install();
    code = run(&x);
    session_free(&x);
    return code;
}
