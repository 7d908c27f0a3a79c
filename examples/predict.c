/* predict - what a trained model sees in pictures.
 *
 *   predict --checkpoint fashion.h5 shirt.png boot.png
 *   predict --checkpoint fashion.h5 --json --top 1 *.png
 *
 * Pictures of any size are resized to the size that the model was trained on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tapeline/tapeline.h>

#include "common/fail.h"
#include "common/interrupt.h"
#include "common/options.h"
#include "common/png_image.h"
#include "common/trained_model.h"

static const char program[] = "predict";

enum { OPTION_COUNT = 4, NAME_SIZE = 64, MOST_CLASSES = 1000 };

typedef struct settings {
    const char *checkpoint;
    int64_t top;
    bool json;
    int64_t threads;
} settings;

static size_t describe_options(settings *s, option options[OPTION_COUNT]) {
    const option all[] = {
        {.name = "checkpoint",
         .type = OPTION_TEXT,
         .value = &s->checkpoint,
         .argument = "FILE",
         .help = "the trained model (train_classifier --checkpoint)"},
        {.name = "top",
         .type = OPTION_INT,
         .value = &s->top,
         .argument = "K",
         .help = "how many classes to show, the likeliest first",
         .low = 1,
         .high = MOST_CLASSES},
        {.name = "json",
         .type = OPTION_FLAG,
         .value = &s->json,
         .help = "a JSON array with an object per picture, for programs"},
        {.name = "threads",
         .type = OPTION_INT,
         .value = &s->threads,
         .argument = "T",
         .help = "0: all cores",
         .low = 0,
         .high = 1024},
    };
    _Static_assert(sizeof all / sizeof all[0] == OPTION_COUNT, "OPTION_COUNT is out of date");
    memcpy(options, all, sizeof all);
    return OPTION_COUNT;
}

/* Everything the program holds. */
typedef struct session {
    settings s;
    trained_model trained;
    ranked_class *ranked;
} session;

static void session_free(session *x) {
    free(x->ranked);
    trained_model_free(&x->trained);
}

/* ------------------------------------------------------------------ output */

/* As a JSON string: quotes, backslashes and control characters escaped; the rest as it is. */
static void print_json_text(const char *text) {
    putchar('"');
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            printf("\\%c", *c);
        } else if ((unsigned char)*c < ' ') {
            printf("\\u%04x", (unsigned)*c);
        } else {
            putchar(*c);
        }
    }
    putchar('"');
}

static void print_json(const session *x, const char *path, const picture *original, int count) {
    const model_input *input = &x->trained.input;
    printf("\n  {\"image\": ");
    print_json_text(path);
    printf(", \"height\": %" PRId64 ", \"width\": %" PRId64 ", \"channels\": %d,\n"
           "   \"model_height\": %" PRId64 ", \"model_width\": %" PRId64 ", \"model_channels\": %d,"
           "\n   \"classes\": [",
           original->height, original->width, original->channels, input->height, input->width,
           input->channels);
    for (int i = 0; i < count; i++) {
        char name[NAME_SIZE];
        printf("%s\n     {\"class\": %" PRId64 ", \"name\": ", i > 0 ? "," : "",
               x->ranked[i].index);
        print_json_text(model_input_class_name(input, x->ranked[i].index, name, sizeof name));
        printf(", \"probability\": %.6g}", x->ranked[i].probability);
    }
    printf("]}");
}

static void print_text(const session *x, const char *path, const picture *original, int count) {
    const model_input *input = &x->trained.input;
    printf("%s: %" PRId64 "x%" PRId64 " %s", path, original->height, original->width,
           original->channels == 1 ? "grey" : "colour");
    if (original->height != input->height || original->width != input->width) {
        printf(", resized to %" PRId64 "x%" PRId64, input->height, input->width);
        if (original->height * input->width != original->width * input->height) {
            printf(" (its proportions change)");
        }
    }
    if (original->channels != input->channels) {
        printf(", made %s", input->channels == 1 ? "grey" : "colour");
    }
    printf("\n");
    for (int i = 0; i < count; i++) {
        char name[NAME_SIZE];
        printf("  %5.1f%%  %s\n", 100.0 * x->ranked[i].probability,
               model_input_class_name(input, x->ranked[i].index, name, sizeof name));
    }
}

/* ------------------------------------------------------------------ work */

/* The logits of a picture of the model's size; NULL with the reason in *error. */
static const tl_real *run_model(session *x, const picture *fitted, int64_t *classes,
                                tl_error *error) {
    tl_tensor *image = trained_model_input(&x->trained, fitted);
    tl_tensor *logits = tl_model_forward(x->trained.model, x->trained.tape, image);
    if (logits == NULL) {
        (void)fail_with(error, tl_tape_status(x->trained.tape), "%.200s: %.250s", x->s.checkpoint,
                        tl_tape_error(x->trained.tape)->message);
        return NULL;
    }
    *classes = tl_tensor_size(logits);
    return tl_tensor_data(logits);
}

/* Predicts one picture and prints it; `shown` counts those that were. */
static tl_status predict(session *x, const char *path, int *shown, tl_error *error) {
    picture original = {0};
    picture fitted = {0};
    tl_status status = png_image_read(&original, path, error);
    if (status == TL_OK) {
        status = model_input_fit(&x->trained.input, &original, &fitted, error);
    }
    int64_t classes = 0;
    const tl_real *logits = status == TL_OK ? run_model(x, &fitted, &classes, error) : NULL;
    if (logits != NULL) {
        const int count = rank_classes(logits, classes, (int)x->s.top, x->ranked);
        if (x->s.json) {
            printf("%s", *shown > 0 ? "," : "");
            print_json(x, path, &original, count);
        } else {
            print_text(x, path, &original, count);
        }
        (*shown)++;
    }
    picture_free(&original);
    picture_free(&fitted);
    return logits != NULL ? TL_OK : error->status;
}

static int prepare(session *x) {
    const int code = trained_model_open(&x->trained, program, x->s.checkpoint, x->s.threads);
    if (code != EXIT_DONE) {
        return code;
    }
    if (tl_model_config_value(x->trained.model, "dense") == 1) {
        return work_error(program, "%s: the model classifies pixels, not pictures",
                          x->s.checkpoint);
    }
    x->ranked = malloc((size_t)x->s.top * sizeof *x->ranked);
    return x->ranked != NULL ? EXIT_DONE : work_error(program, "out of memory");
}

/* All pictures; one that cannot be read does not stop the others. */
static int run(session *x, int count, char *const *paths) {
    if (x->s.checkpoint == NULL || count == 0) {
        return usage_error(program, "--checkpoint and at least one picture are needed "
                                    "(see --help)");
    }
    int code = prepare(x);
    if (code != EXIT_DONE) {
        return code;
    }
    printf("%s", x->s.json ? "[" : "");
    int shown = 0;
    for (int i = 0; i < count && !interrupt_requested(); i++) {
        tl_error error;
        if (predict(x, paths[i], &shown, &error) != TL_OK) {
            code = work_error(program, "%s", error.message);
        }
    }
    printf("%s", x->s.json ? "\n]\n" : "");
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        return work_error(program, "cannot write the predictions");
    }
    return interrupt_requested() ? EXIT_INTERRUPTED : code;
}

int main(int argc, char **argv) {
    session x = {.s = {.top = 3}};
    option options[OPTION_COUNT];
    option_table table = {.program = program,
                          .summary = "Says what a trained model sees in pictures (PNG files of any "
                                     "size): classes with probabilities.",
                          .options = options,
                          .count = describe_options(&x.s, options),
                          .positional_help = "IMAGE.png..."};
    int code;
    if (!options_parse(&table, argc, argv, &code)) {
        return code;
    }
    interrupt_install();
    code = run(&x, table.positional_count, argv + 1);
    session_free(&x);
    return code;
}
