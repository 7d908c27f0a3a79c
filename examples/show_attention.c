/* show_attention - what the attention modules of a trained model look at in an image.
 *
 *   show_attention --checkpoint fashion.h5 --image shirt.png --output sheet.png
 *   show_attention --checkpoint nonlocal.h5 --image shirt.png --query 5,14
 *
 * Efficient attention reads each key channel as one global map over the positions: one cell each.
 * The non-local block has a map for every query position: one line per query, one cell per head.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tapeline/tapeline.h>

#include "common/attention_sheet.h"
#include "common/options.h"
#include "common/png_image.h"
#include "common/trained_model.h"

static const char program[] = "show_attention";

enum { OPTION_COUNT = 8, MOST_QUERIES = 32, SHOWN_CLASSES = 3 };

typedef struct settings {
    const char *checkpoint;
    const char *image;
    const char *output;
    int64_t stage;
    int64_t block;
    const char *query;
    int64_t maps;
    int64_t threads;
} settings;

static const settings default_settings = {
    .output = "attention.png", .stage = -1, .block = -1, .maps = 64};

static size_t describe_options(settings *s, option options[OPTION_COUNT]) {
    const option all[] = {
        {.name = "checkpoint",
         .type = OPTION_TEXT,
         .value = &s->checkpoint,
         .argument = "FILE",
         .help = "the trained model (train_classifier --checkpoint)"},
        {.name = "image",
         .type = OPTION_TEXT,
         .value = &s->image,
         .argument = "FILE.png",
         .help = "what it looks at; resized to the size that it was trained on"},
        {.name = "output",
         .type = OPTION_TEXT,
         .value = &s->output,
         .argument = "FILE.png",
         .help = "the sheet"},
        {.name = "stage",
         .type = OPTION_INT,
         .value = &s->stage,
         .argument = "S",
         .help = "only modules of this stage, counted from 0; -1: all",
         .low = -1,
         .high = 1000},
        {.name = "block",
         .type = OPTION_INT,
         .value = &s->block,
         .argument = "B",
         .help = "only modules of this block, counted from 0; -1: all",
         .low = -1,
         .high = 1000},
        {.name = "query",
         .type = OPTION_TEXT,
         .value = &s->query,
         .argument = "Y,X",
         .help = "non-local: pixel of the resized image whose map is shown, several as Y,X:Y,X; "
                 "the middle if not given"},
        {.name = "maps",
         .type = OPTION_INT,
         .value = &s->maps,
         .argument = "N",
         .help = "efficient: at most so many maps per module",
         .low = 1,
         .high = 4096},
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

typedef struct position {
    int64_t y, x;
} position;

/* Everything the program holds. */
typedef struct session {
    settings s;
    trained_model trained;
    picture image; /* of the model's size */
    attention_sheet *sheet;
    position queries[MOST_QUERIES];
    int query_count;
    int shown; /* modules */
    char seen[512];
    tl_error error; /* of the visitor */
} session;

static void session_free(session *x) {
    attention_sheet_free(x->sheet);
    picture_free(&x->image);
    trained_model_free(&x->trained);
}

/* Reads "5,14:20,3"; false if it is no such thing or outside the image. */
static bool parse_queries(session *x) {
    const char *at = x->s.query;
    if (at == NULL) {
        x->queries[x->query_count++] =
            (position){x->trained.input.height / 2, x->trained.input.width / 2};
        return true;
    }
    for (;;) {
        char *end;
        const long long row = strtoll(at, &end, 10);
        if (end == at || *end != ',' || x->query_count == MOST_QUERIES) {
            return false;
        }
        at = end + 1;
        const long long column = strtoll(at, &end, 10);
        if (end == at || row < 0 || row >= x->trained.input.height || column < 0 ||
            column >= x->trained.input.width) {
            return false;
        }
        x->queries[x->query_count++] = (position){row, column};
        if (*end == '\0') {
            return true;
        }
        if (*end != ':') {
            return false;
        }
        at = end + 1;
    }
}

/* ------------------------------------------------------------------ maps */

/* The number behind "stages." or "blocks." in a module's name; -1 if there is none. */
static int64_t number_behind(const char *name, const char *word) {
    const char *at = strstr(name, word);
    return at != NULL ? strtoll(at + strlen(word), NULL, 10) : -1;
}

static bool wanted(const settings *s, const char *name) {
    return (s->stage < 0 || number_behind(name, "stages.") == s->stage) &&
           (s->block < 0 || number_behind(name, "blocks.") == s->block);
}

/* The spatial extents of a map over x [1, height, width, C]. */
static attention_map map_over(const tl_tensor *x) {
    const int64_t *shape = tl_tensor_shape(x);
    return (attention_map){.height = shape[1], .width = shape[2]};
}

static double largest_of(const attention_map *map) {
    double largest = 0;
    for (int64_t i = 0; i < map->height * map->width; i++) {
        largest = fmax(largest, fabs((double)map->values[i * map->stride]));
    }
    return largest;
}

/* A line per head, a cell per key channel. */
static tl_status show_efficient(session *x, tl_tape *tape, const tl_attention_site *site,
                                tl_error *error) {
    const tl_efficient_attention_config *config = &site->efficient->config;
    tl_tensor *maps = tl_efficient_attention_maps(tape, site->x, &site->efficient->weights, config);
    if (maps == NULL) {
        *error = *tl_tape_error(tape);
        return error->status;
    }
    attention_map map = map_over(site->x);
    map.stride = config->key_channels;
    const int64_t per_head = config->key_channels / config->heads;
    const int64_t count = config->key_channels < x->s.maps ? config->key_channels : x->s.maps;
    printf("%s: efficient attention, %" PRId64 "x%" PRId64 " positions, %" PRId64 " head%s of "
           "%" PRId64 " key channels; a line is a head, a cell is a key channel\n",
           site->name, map.height, map.width, config->heads, config->heads == 1 ? "" : "s",
           per_head);
    tl_status status = TL_OK;
    double sum = 0;
    for (int64_t channel = 0; channel < count && status == TL_OK; channel++) {
        if (channel % per_head == 0) {
            status = attention_sheet_line(x->sheet, -1, -1, error);
        }
        map.values = tl_tensor_data(maps) + channel;
        sum += largest_of(&map);
        status = status == TL_OK ? attention_sheet_add(x->sheet, &map, error) : status;
    }
    if (config->normalization == TL_NORMALIZATION_SOFTMAX) {
        printf("  the brightest position of a map has on average %.1f times the weight of an even "
               "map\n",
               sum / (double)count * (double)(map.height * map.width));
    }
    tl_release(tape, maps);
    return status;
}

/* A line per query position, a cell per head. */
static tl_status show_non_local(session *x, tl_tape *tape, const tl_attention_site *site,
                                tl_error *error) {
    tl_non_local_config config = site->non_local->config;
    config.use_batch_norm = false; /* follows the maps */
    const int64_t *shape = tl_tensor_shape(site->x);
    attention_map map = map_over(site->x);
    map.height /= config.sub_sample;
    map.width /= config.sub_sample;
    map.stride = 1;
    printf("%s: non-local block, %" PRId64 "x%" PRId64 " keys; a line is a query (framed in the "
           "image), a cell is one of %" PRId64 " head%s\n",
           site->name, map.height, map.width, config.heads, config.heads == 1 ? "" : "s");
    tl_status status = TL_OK;
    for (int i = 0; i < x->query_count && status == TL_OK; i++) {
        const position q = x->queries[i];
        const int64_t y = q.y * shape[1] / x->trained.input.height,
                      c = q.x * shape[2] / x->trained.input.width;
        tl_tensor *weights =
            tl_non_local_map(tape, site->x, &site->non_local->weights, &config, y * shape[2] + c);
        if (weights == NULL) {
            *error = *tl_tape_error(tape);
            return error->status;
        }
        status = attention_sheet_line(x->sheet, q.y, q.x, error);
        for (int64_t head = 0; head < config.heads && status == TL_OK; head++) {
            map.values = tl_tensor_data(weights) + head * map.height * map.width;
            status = attention_sheet_add(x->sheet, &map, error);
            printf("  query %" PRId64 ",%" PRId64 ", head %" PRId64
                   ": the brightest position has %.1f times the weight of an even map\n",
                   q.y, q.x, head, largest_of(&map) * (double)(map.height * map.width));
        }
        tl_release(tape, weights);
    }
    return status;
}

static void visit(void *user, tl_tape *tape, const tl_attention_site *site) {
    session *x = user;
    const size_t used = strlen(x->seen);
    (void)snprintf(x->seen + used, sizeof x->seen - used, "%s%s", used > 0 ? ", " : "", site->name);
    if (x->error.status != TL_OK || !wanted(&x->s, site->name)) {
        return;
    }
    x->shown++;
    const bool efficient = site->kind == TL_ATTENTION_EFFICIENT;
    const int64_t *shape = tl_tensor_shape(site->x);
    char title[SHEET_TITLE_SIZE];
    (void)snprintf(title, sizeof title, "%s, %" PRId64 "x%" PRId64 ": a line is a %s", site->name,
                   shape[1], shape[2],
                   efficient ? "head, a cell is a key channel" : "query, a cell is a head");
    if (attention_sheet_title(x->sheet, title, &x->error) == TL_OK) {
        (void)(efficient ? show_efficient : show_non_local)(x, tape, site, &x->error);
    }
}

/* ------------------------------------------------------------------ prediction */

static void print_prediction(const session *x, tl_tensor *logits) {
    if (tl_tensor_rank(logits) != 2) {
        return;
    }
    ranked_class ranked[SHOWN_CLASSES];
    const int count =
        rank_classes(tl_tensor_data(logits), tl_tensor_size(logits), SHOWN_CLASSES, ranked);
    printf("prediction:");
    for (int i = 0; i < count; i++) {
        char name[64];
        printf("%s %s %.1f%%", i > 0 ? "," : "",
               model_input_class_name(&x->trained.input, ranked[i].index, name, sizeof name),
               100 * ranked[i].probability);
    }
    printf("\n");
}

/* ------------------------------------------------------------------ main */

static int load(session *x) {
    tl_error error;
    const int code = trained_model_open(&x->trained, program, x->s.checkpoint, x->s.threads);
    if (code != EXIT_DONE) {
        return code;
    }
    if (!parse_queries(x)) {
        return usage_error(program,
                           "--query wants Y,X (or up to %d of them, Y,X:Y,X) within %" PRId64
                           "x%" PRId64 ", found '%s'",
                           MOST_QUERIES, x->trained.input.height, x->trained.input.width,
                           x->s.query);
    }
    picture original;
    if (png_image_read(&original, x->s.image, &error) != TL_OK) {
        return work_error(program, "%s", error.message);
    }
    printf("%s: %" PRId64 "x%" PRId64 ", resized to %" PRId64 "x%" PRId64 "\n", x->s.image,
           original.height, original.width, x->trained.input.height, x->trained.input.width);
    const tl_status status = model_input_fit(&x->trained.input, &original, &x->image, &error);
    picture_free(&original);
    if (status == TL_OK) {
        x->sheet = attention_sheet_create(&x->image, &error);
    }
    return x->sheet != NULL ? EXIT_DONE : work_error(program, "%s", error.message);
}

/* Runs the model over the image; the visitor fills the sheet. */
static int look(session *x) {
    tl_tape *tape = x->trained.tape;
    tl_tensor *image = trained_model_input(&x->trained, &x->image);
    tl_tensor *logits = tl_model_visit_attention(x->trained.model, tape, image, visit, x);
    int code = EXIT_DONE;
    if (logits == NULL) {
        code = work_error(program, "%s: %s", x->s.checkpoint, tl_tape_error(tape)->message);
    } else if (x->error.status != TL_OK) {
        code = work_error(program, "%s", x->error.message);
    } else if (x->shown == 0) {
        code = usage_error(program,
                           "no attention module of stage %" PRId64 ", block %" PRId64
                           "; the model has %s",
                           x->s.stage, x->s.block, x->seen[0] != '\0' ? x->seen : "none");
    } else {
        print_prediction(x, logits);
    }
    return code;
}

static int write_sheet(const session *x) {
    picture drawn;
    tl_error error;
    tl_status status = attention_sheet_draw(x->sheet, &drawn, &error);
    if (status == TL_OK) {
        status = png_image_write(&drawn, x->s.output, &error);
    }
    if (status != TL_OK) {
        picture_free(&drawn);
        return work_error(program, "%s", error.message);
    }
    printf("%s: %" PRId64 "x%" PRId64 "\n", x->s.output, drawn.height, drawn.width);
    picture_free(&drawn);
    return EXIT_DONE;
}

static int run(session *x) {
    if (x->s.checkpoint == NULL || x->s.image == NULL) {
        return usage_error(program, "--checkpoint and --image are needed (see --help)");
    }
    int code = load(x);
    code = code == EXIT_DONE ? look(x) : code;
    return code == EXIT_DONE ? write_sheet(x) : code;
}

int main(int argc, char **argv) {
    session x = {.s = default_settings};
    option options[OPTION_COUNT];
    option_table table = {
        .program = program,
        .summary = "Draws what the attention modules of a trained model look at in an image: a PNG "
                   "sheet\nof maps over the image's positions, bright where the weight is.",
        .options = options,
        .count = describe_options(&x.s, options)};
    int code;
    if (!options_parse(&table, argc, argv, &code)) {
        return code;
    }
    code = run(&x);
    session_free(&x);
    return code;
}
