/* attention_cost - will it fit? What attention modules cost on inputs of a given size, before
 * anything runs; with --measure they are run as well.
 *
 *   attention_cost --size 64x64 --channels 64
 *   attention_cost --size 8x56x56 --channels 256 --batch 4 --memory-limit 2G
 *   attention_cost --size 1024 --channels 64 --heads 4 --measure --csv cost.csv
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tapeline/tapeline.h>

#include "common/attention_run.h"
#include "common/interrupt.h"
#include "common/options.h"
#include "common/process_memory.h"

static const char program[] = "attention_cost";

typedef struct settings {
    const char *size;
    int64_t channels;
    int64_t batch;
    int64_t heads;
    int64_t key_channels;
    int64_t value_channels;
    int normalization;
    int pairwise;
    int64_t sub_sample;
    bool batch_norm;
    int64_t threads;
    uint64_t memory_limit;
    bool measure;
    int module;
    double seconds;
    const char *csv;
} settings;

static const settings default_settings = {
    .size = "64x64", .channels = 64, .batch = 1, .heads = 1, .sub_sample = 1, .seconds = 1};

enum { OPTION_COUNT = 16, COMPARED = 3, LONGEST_SIDE = 1 << 24, MOST_CHANNELS = 1 << 16 };

static size_t describe_options(settings *s, option options[OPTION_COUNT]) {
    const option all[] = {
        {.name = "size",
         .type = OPTION_TEXT,
         .value = &s->size,
         .argument = "HxW",
         .help = "positions: HxW, TxHxW for video, L for a sequence"},
        {.name = "channels",
         .type = OPTION_INT,
         .value = &s->channels,
         .argument = "C",
         .help = "channels of x",
         .low = 1,
         .high = MOST_CHANNELS},
        {.name = "batch",
         .type = OPTION_INT,
         .value = &s->batch,
         .argument = "N",
         .help = "samples in a step",
         .low = 1,
         .high = 1 << 20},
        {.name = "heads",
         .type = OPTION_INT,
         .value = &s->heads,
         .argument = "H",
         .help = "heads of each module",
         .low = 1,
         .high = MOST_CHANNELS},
        {.name = "key-channels",
         .type = OPTION_INT,
         .value = &s->key_channels,
         .argument = "K",
         .help = "of all heads together, 0: C / 2",
         .low = 0,
         .high = MOST_CHANNELS},
        {.name = "value-channels",
         .type = OPTION_INT,
         .value = &s->value_channels,
         .argument = "V",
         .help = "of all heads together, 0: C",
         .low = 0,
         .high = MOST_CHANNELS},
        {.name = "normalization",
         .type = OPTION_CHOICE,
         .value = &s->normalization,
         .choices = "softmax|scaling",
         .help = "of efficient attention"},
        {.name = "pairwise",
         .type = OPTION_CHOICE,
         .value = &s->pairwise,
         .choices = "embedded-gaussian|gaussian|dot-product|concatenation",
         .help = "form of the non-local block"},
        {.name = "sub-sample",
         .type = OPTION_INT,
         .value = &s->sub_sample,
         .argument = "S",
         .help = "non-local: keys and values are max-pooled by S each way",
         .low = 1,
         .high = 256},
        {.name = "batch-norm",
         .type = OPTION_FLAG,
         .value = &s->batch_norm,
         .help = "non-local: batch norm on the output, as a layer has it"},
        {.name = "threads",
         .type = OPTION_INT,
         .value = &s->threads,
         .argument = "T",
         .help = "0: all cores; each has its scratch",
         .low = 0,
         .high = 1024},
        {.name = "memory-limit",
         .type = OPTION_BYTES,
         .value = &s->memory_limit,
         .argument = "BYTES",
         .help = "what it must fit in, say 2G; else the machine's memory"},
        {.name = "measure",
         .type = OPTION_FLAG,
         .value = &s->measure,
         .help = "run what fits and print times and peaks"},
        {.name = "module",
         .type = OPTION_CHOICE,
         .value = &s->module,
         .choices = "all|efficient|tiled|materialized|composed",
         .help = "measure this one only, and what the system says its process came to hold"},
        {.name = "seconds",
         .type = OPTION_NUMBER,
         .value = &s->seconds,
         .argument = "X",
         .help = "how long to measure each module, at least one step",
         .low = 0,
         .high = 3600},
        {.name = "csv",
         .type = OPTION_TEXT,
         .value = &s->csv,
         .argument = "FILE",
         .help = "write the table here too, a row per module"},
    };
    _Static_assert(sizeof all / sizeof all[0] == OPTION_COUNT, "OPTION_COUNT is out of date");
    memcpy(options, all, sizeof all);
    return OPTION_COUNT;
}

/* Reads "8x56x56" into the spatial extents; false if it is no such thing. */
static bool parse_size(const char *text, attention_setup *setup) {
    setup->rank = 1;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        const long long extent = strtoll(at, &end, 10);
        if (errno != 0 || end == at || extent < 1 || extent > LONGEST_SIDE ||
            setup->rank > TL_MAX_RANK - 2) {
            return false;
        }
        setup->shape[setup->rank++] = extent;
        at = end;
        if (*at == '\0') {
            return true;
        }
        if (*at != 'x') {
            return false;
        }
    }
}

static uint64_t machine_bytes(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

/* ------------------------------------------------------------------ printing */

enum { LABEL_WIDTH = 26, COLUMN_WIDTH = 24, TEXT_SIZE = 64 };

/* 1.23 with the letter of its thousand. */
static const char *scaled_text(double value, const char *unit, char text[TEXT_SIZE]) {
    static const char *const prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
    size_t i = 0;
    while (value >= 1000 && i + 1 < sizeof prefixes / sizeof prefixes[0]) {
        value /= 1000;
        i++;
    }
    (void)snprintf(text, TEXT_SIZE, i == 0 ? "%.0f %s%s" : "%.2f %s%s", value, prefixes[i], unit);
    return text;
}

static const char *seconds_text(double seconds, char text[TEXT_SIZE]) {
    (void)snprintf(text, TEXT_SIZE, seconds < 1 ? "%.3g ms" : "%.3g s",
                   seconds < 1 ? 1e3 * seconds : seconds);
    return text;
}

static void print_head(const settings *s, const attention_setup *setup, uint64_t memory) {
    int64_t positions = 1;
    printf("x [%" PRId64, setup->shape[0]);
    for (int i = 1; i < setup->rank; i++) {
        printf(", %" PRId64, setup->shape[i]);
        positions *= i < setup->rank - 1 ? setup->shape[i] : 1;
    }
    char text[TEXT_SIZE];
    printf("], n = %" PRId64 " positions; %" PRId64 " head%s; to fit in %s (%s)\n\n", positions,
           s->heads, s->heads == 1 ? "" : "s", scaled_text((double)memory, "B", text),
           s->memory_limit != 0 ? "--memory-limit" : "this machine's memory");
}

static void print_names(const char *label, int count) {
    printf("%-*s", LABEL_WIDTH, label);
    for (int i = 0; i < count; i++) {
        printf("%*s", COLUMN_WIDTH, attention_variant_name((attention_variant)i));
    }
    printf("\n");
}

static void print_row(const char *label, const double values[COMPARED], const char *unit) {
    char text[TEXT_SIZE];
    printf("%-*s", LABEL_WIDTH, label);
    for (int i = 0; i < COMPARED; i++) {
        printf("%*s", COLUMN_WIDTH, scaled_text(values[i], unit, text));
    }
    printf("\n");
}

static void print_estimates(const tl_attention_estimate e[COMPARED], uint64_t memory) {
    double rows[7][COMPARED];
    for (int i = 0; i < COMPARED; i++) {
        rows[0][i] = e[i].forward_flops;
        rows[1][i] = e[i].forward_flops + e[i].backward_flops;
        rows[2][i] = e[i].forward_flops_executed;
        rows[3][i] = e[i].forward_flops_executed + e[i].backward_flops_executed;
        rows[4][i] = (double)e[i].saved_bytes;
        rows[5][i] = (double)e[i].inference_peak_bytes;
        rows[6][i] = (double)e[i].peak_bytes;
    }
    print_names("estimated", COMPARED);
    print_row("FLOPs, definition: forward", rows[0], "");
    print_row("  training", rows[1], "");
    print_row("FLOPs, executed: forward", rows[2], "");
    print_row("  training", rows[3], "");
    print_row("kept for backward", rows[4], "B");
    print_row("peak memory: inference", rows[5], "B");
    print_row("  training", rows[6], "B");
    printf("%-*s", LABEL_WIDTH, "fits: inference, training");
    for (int i = 0; i < COMPARED; i++) {
        char text[TEXT_SIZE];
        (void)snprintf(text, sizeof text, "%s, %s", rows[5][i] <= (double)memory ? "yes" : "no",
                       rows[6][i] <= (double)memory ? "yes" : "no");
        printf("%*s", COLUMN_WIDTH, text);
    }
    printf("\n");
}

static const char *from_text(int64_t n, char text[TEXT_SIZE]) {
    if (n == 0) {
        (void)snprintf(text, TEXT_SIZE, "not up to %d", TL_CROSSOVER_LIMIT);
    } else if (n == 1) {
        (void)snprintf(text, TEXT_SIZE, "always");
    } else {
        (void)snprintf(text, TEXT_SIZE, "n = %" PRId64, n);
    }
    return text;
}

static int print_crossover(const settings *s, const attention_setup *setup) {
    tl_non_local_config non_local = setup->non_local;
    /* pooled in the last two spatial dimensions, which the crossover has as one */
    if (setup->rank > 3) {
        non_local.sub_sample *= non_local.sub_sample;
    }
    tl_crossover c;
    tl_error error;
    if (tl_attention_crossover(&setup->efficient, &non_local, s->batch, s->channels, setup->threads,
                               &c, &error) != TL_OK) {
        return work_error(program, "%s", error.message);
    }
    char text[4][TEXT_SIZE];
    printf("\nfrom there on efficient attention is the cheaper (training):\n");
    printf("%-*s%*s%*s%*s\n", LABEL_WIDTH, "  FLOPs executed", COLUMN_WIDTH, "", COLUMN_WIDTH,
           from_text(c.time_tiled, text[0]), COLUMN_WIDTH, from_text(c.time_materialized, text[1]));
    printf("%-*s%*s%*s%*s\n", LABEL_WIDTH, "  peak memory", COLUMN_WIDTH, "", COLUMN_WIDTH,
           from_text(c.memory_tiled, text[2]), COLUMN_WIDTH,
           from_text(c.memory_materialized, text[3]));
    return EXIT_DONE;
}

/* ------------------------------------------------------------------ measuring */

static void print_measurement(const char *label, const attention_measurement results[VARIANT_COUNT],
                              int which) {
    printf("%-*s", LABEL_WIDTH, label);
    for (int i = 0; i < VARIANT_COUNT; i++) {
        const attention_measurement *m = &results[i];
        char text[TEXT_SIZE] = "-";
        if ((which % 2 == 0 ? m->forward_seconds : m->training_seconds) > 0) {
            (void)(which == 0   ? seconds_text(m->forward_seconds, text)
                   : which == 1 ? seconds_text(m->training_seconds, text)
                   : which == 2 ? scaled_text(m->inference_peak_bytes, "B", text)
                   : which == 3 ? scaled_text(m->peak_bytes, "B", text)
                                : scaled_text(m->system_peak_bytes, "B", text));
        }
        printf("%*s", COLUMN_WIDTH, text);
    }
    printf("\n");
}

static int measure_all(const settings *s, attention_setup setup, uint64_t memory,
                       attention_measurement results[VARIANT_COUNT]) {
    setup.memory_limit = memory; /* what does not fit must fail, not swap */
    char reasons[VARIANT_COUNT][TL_ERROR_MESSAGE_SIZE] = {{0}};
    for (int i = 0; i < VARIANT_COUNT; i++) {
        if (s->module != 0 && i != s->module - 1) {
            continue;
        }
        tl_error error = {0};
        const double before = process_memory_now();
        const tl_status status =
            attention_measure(&setup, (attention_variant)i, s->seconds, &results[i], &error);
        if (interrupt_requested()) {
            (void)work_error(program, "interrupted");
            return EXIT_INTERRUPTED;
        }
        if (status != TL_OK && status != TL_ERROR_OUT_OF_MEMORY) {
            return work_error(program, "%s: %s", attention_variant_name((attention_variant)i),
                              error.message);
        }
        if (s->module != 0 && before > 0) { /* else modules' peaks could not be told apart */
            results[i].system_peak_bytes = process_memory_peak() - before;
        }
        (void)snprintf(reasons[i], sizeof reasons[i], "%s", error.message);
    }
    printf("\n");
    print_names("measured", VARIANT_COUNT);
    print_measurement("time: inference", results, 0);
    print_measurement("  training", results, 1);
    print_measurement("peak memory: inference", results, 2);
    print_measurement("  training", results, 3);
    if (s->module != 0) {
        print_measurement("  the system's view", results, 4);
    }
    for (int i = 0; i < VARIANT_COUNT; i++) {
        if (reasons[i][0] != '\0') {
            printf("%s: %s\n", attention_variant_name((attention_variant)i), reasons[i]);
        }
    }
    return EXIT_DONE;
}

/* ------------------------------------------------------------------ CSV */

static int write_csv(const char *path, const tl_attention_estimate e[COMPARED],
                     const attention_measurement results[VARIANT_COUNT], uint64_t memory) {
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return work_error(program, "%s: %s", path, strerror(errno));
    }
    (void)fprintf(file, "module,forward_flops,backward_flops,forward_flops_executed,"
                        "backward_flops_executed,saved_bytes,inference_peak_bytes,peak_bytes,fits,"
                        "measured_forward_seconds,measured_training_seconds,"
                        "measured_inference_peak_bytes,measured_peak_bytes,"
                        "measured_system_peak_bytes\n");
    for (int i = 0; i < VARIANT_COUNT; i++) {
        const attention_measurement *m = &results[i];
        if (i >= COMPARED && !(m->forward_seconds > 0)) {
            continue;
        }
        (void)fprintf(file, "%s,", attention_variant_name((attention_variant)i));
        if (i < COMPARED) {
            (void)fprintf(file, "%.0f,%.0f,%.0f,%.0f,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%s,",
                          e[i].forward_flops, e[i].backward_flops, e[i].forward_flops_executed,
                          e[i].backward_flops_executed, e[i].saved_bytes, e[i].inference_peak_bytes,
                          e[i].peak_bytes, e[i].peak_bytes <= memory ? "yes" : "no");
        } else {
            (void)fprintf(file, ",,,,,,,,");
        }
        const double measured[] = {m->forward_seconds, m->training_seconds, m->inference_peak_bytes,
                                   m->peak_bytes, m->system_peak_bytes};
        for (int j = 0; j < 5; j++) {
            if (measured[j] > 0) {
                (void)fprintf(file, "%.8g", measured[j]);
            }
            (void)fputc(j < 4 ? ',' : '\n', file);
        }
    }
    const bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed) {
        return work_error(program, "%s: cannot be written: %s", path, strerror(errno));
    }
    return EXIT_DONE;
}

/* ------------------------------------------------------------------ main */

static int run(const settings *s) {
    attention_setup setup = {.efficient = tl_efficient_attention_config_default(),
                             .non_local = tl_non_local_config_default(),
                             .threads = (int)s->threads};
    if (!parse_size(s->size, &setup)) {
        return usage_error(program,
                           "--size wants HxW, TxHxW or L with numbers from 1 to %d, found "
                           "'%s'",
                           LONGEST_SIDE, s->size);
    }
    setup.shape[0] = s->batch;
    setup.shape[setup.rank++] = s->channels;
    setup.efficient.heads = setup.non_local.heads = s->heads;
    setup.efficient.key_channels = setup.non_local.key_channels = s->key_channels;
    setup.efficient.value_channels = setup.non_local.value_channels = s->value_channels;
    setup.efficient.normalization = (tl_normalization)s->normalization;
    setup.non_local.pairwise = (tl_pairwise)s->pairwise;
    setup.non_local.sub_sample = s->sub_sample;
    setup.non_local.use_batch_norm = s->batch_norm;
    const uint64_t memory = s->memory_limit != 0 ? s->memory_limit : machine_bytes();
    tl_attention_estimate estimates[COMPARED];
    for (int i = 0; i < COMPARED; i++) {
        tl_error error;
        if (attention_estimate(&setup, (attention_variant)i, &estimates[i], &error) != TL_OK) {
            return usage_error(program, "%s", error.message);
        }
    }
    print_head(s, &setup, memory);
    print_estimates(estimates, memory);
    int code = print_crossover(s, &setup);
    attention_measurement results[VARIANT_COUNT] = {0};
    if (code == EXIT_DONE && s->measure) {
        (void)fflush(stdout);
        code = measure_all(s, setup, memory, results);
    }
    return code == EXIT_DONE && s->csv != NULL ? write_csv(s->csv, estimates, results, memory)
                                               : code;
}

int main(int argc, char **argv) {
    settings s = default_settings;
    option options[OPTION_COUNT];
    option_table table = {
        .program = program,
        .summary = "Prints what efficient attention and the non-local block cost on inputs of a "
                   "size,\nbefore anything runs: FLOPs, memory, whether it fits, and from how many "
                   "positions\non efficient attention is the cheaper.",
        .options = options,
        .count = describe_options(&s, options)};
    int code;
    if (!options_parse(&table, argc, argv, &code)) {
        return code;
    }
    interrupt_install();
    return run(&s);
}
