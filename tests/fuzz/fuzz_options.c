/* Fuzzes the parsing of command lines. An input is the arguments, separated by zero bytes. What was
 * parsed lies in its range, and is the same after a way through text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/options.h"
#include "fuzz/fuzz_support.h"

enum { MOST_ARGUMENTS = 16, TEXT = 512 };

typedef struct values {
    bool flag;
    int64_t integer;
    double number;
    const char *text;
    int choice;
    uint64_t size;
    uint32_t set;
} values;

static void check(const option *options, size_t count, const values *v) {
    fuzz_require(v->integer >= -5 && v->integer <= 1000, "an integer out of its range");
    fuzz_require(v->number >= 0 && v->number <= 1.5, "a number out of its range");
    fuzz_require(v->choice >= 0 && v->choice <= 2, "a choice out of its range");
    for (size_t i = 0; i < count; i++) {
        char text[TEXT], again[TEXT];
        option_value_text(&options[i], text, sizeof text);
        if (options[i].type == OPTION_TEXT || options[i].type == OPTION_FLAG || text[0] == '\0') {
            continue;
        }
        fuzz_require(option_parse_value(&options[i], text), "a value that cannot be read again");
        option_value_text(&options[i], again, sizeof again);
        fuzz_require(strcmp(text, again) == 0, "a value that changed");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *copy = malloc(size + 1);
    fuzz_require(copy != NULL, "out of memory");
    if (size > 0) {
        memcpy(copy, data, size);
    }
    copy[size] = '\0';
    char *argv[MOST_ARGUMENTS + 2] = {(char *)"program"};
    int argc = 1;
    for (size_t at = 0; at < size && argc <= MOST_ARGUMENTS; at += strlen(copy + at) + 1) {
        argv[argc++] = copy + at;
    }
    values v = {.integer = 3, .number = 0.5, .size = 1};
    option options[] = {
        {.name = "flag", .type = OPTION_FLAG, .value = &v.flag, .help = "a flag"},
        {.name = "integer",
         .type = OPTION_INT,
         .value = &v.integer,
         .argument = "N",
         .help = "an integer",
         .low = -5,
         .high = 1000},
        {.name = "number",
         .type = OPTION_NUMBER,
         .value = &v.number,
         .argument = "X",
         .help = "a number",
         .low = 0,
         .high = 1.5},
        {.name = "text", .type = OPTION_TEXT, .value = &v.text, .argument = "TEXT", .help = "text"},
        {.name = "choice",
         .type = OPTION_CHOICE,
         .value = &v.choice,
         .help = "a choice",
         .choices = "one|two|three"},
        {.name = "size",
         .type = OPTION_BYTES,
         .value = &v.size,
         .argument = "BYTES",
         .help = "a size"},
        {.name = "set",
         .type = OPTION_INT_SET,
         .value = &v.set,
         .argument = "LIST",
         .help = "a set",
         .low = 0,
         .high = 31},
    };
    const size_t count = sizeof options / sizeof options[0];
    option_table table = {.program = "program",
                          .summary = "is fuzzed",
                          .options = options,
                          .count = count,
                          .positional_help = "FILE"};
    int exit_code = -1;
    if (options_parse(&table, argc, argv, &exit_code)) {
        check(options, count, &v);
    } else {
        fuzz_require(exit_code == EXIT_DONE || exit_code == EXIT_USAGE, "a strange exit code");
    }
    options_free(&table);
    free(copy);
    return 0;
}
