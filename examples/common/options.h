/* options.h - command-line options from a table: parsing, checking, --help. */
#ifndef EXAMPLE_OPTIONS_H
#define EXAMPLE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes of the examples. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

typedef enum option_type {
    OPTION_FLAG,    /* bool: given or not */
    OPTION_INT,     /* int64_t in [low, high] */
    OPTION_NUMBER,  /* double in [low, high] */
    OPTION_TEXT,    /* const char *, the argument itself */
    OPTION_CHOICE,  /* int: index into `choices`, which are separated by '|' */
    OPTION_BYTES,   /* uint64_t: 1500, 64K, 300M, 2G (powers of 1024) */
    OPTION_INT_SET, /* uint32_t: bits of a list such as 1,2; "none" is empty */
} option_type;

/* What a checkpoint does with an option. */
typedef enum option_keep {
    OPTION_NOT_KEPT,
    OPTION_MAY_DIFFER, /* kept; the command line may say otherwise when resuming */
    OPTION_MUST_AGREE, /* kept; the run would not be the same with another value */
} option_keep;

typedef struct option {
    const char *name; /* without the dashes */
    option_type type;
    void *value;          /* where the result goes; holds the default before */
    const char *argument; /* its name in the help, e.g. "N"; NULL for choices and flags */
    const char *help;
    const char *choices;
    double low;
    double high;
    option_keep keep;
    char *owned; /* of a restored text: options_free gives it back */
    bool given;  /* set if the option was on the command line */
} option;

typedef struct option_table {
    const char *program;
    const char *summary; /* what the program does, for --help */
    option *options;
    size_t count;
    const char *positional_help; /* NULL: no positional arguments allowed */
    int positional_count;        /* after parsing they stand at argv[1] ... argv[count] */
} option_table;

/* Parses argv. Returns true to go on. False: the program should exit with *exit_code, after --help
 * (to stdout, EXIT_DONE) or after a one-line message on stderr (EXIT_USAGE). */
bool options_parse(option_table *table, int argc, char **argv, int *exit_code);

/* Frees what restoring allocated. */
void options_free(option_table *table);

/* The value as text that option_parse_value reads back to the same bits; "" if it has none. */
void option_value_text(const option *o, char *text, size_t size);
bool option_parse_value(const option *o, const char *text);

option *options_find(option_table *table, const char *name);
bool options_given(option_table *table, const char *name);

/* Prints "program: message" to stderr and returns EXIT_USAGE. */
int usage_error(const char *program, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with EXIT_FAILED. */
int work_error(const char *program, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Keeps the first message of the two above back, and drops those after it, until errors_release
 * prints it or not. */
void errors_hold(void);
void errors_release(bool print);
/* Goes in front of every message that follows, e.g. "rank 1: ". */
void errors_set_origin(const char *origin);

#endif
