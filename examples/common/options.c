#include "common/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool errors_held;
static char held_error[1024];
static char errors_origin[32];

static void print_error(const char *program, const char *format, va_list arguments) {
    char line[sizeof held_error];
    const int prefix = snprintf(line, sizeof line, "%s: %s", program, errors_origin);
    (void)vsnprintf(line + prefix, sizeof line - (size_t)prefix, format, arguments);
    /* arguments and names from files may hold anything: one line, no commands for a terminal */
    for (unsigned char *c = (unsigned char *)line; *c != '\0'; c++) {
        *c = *c < ' ' || *c == 0x7f ? '?' : *c;
    }
    if (!errors_held) {
        (void)fprintf(stderr, "%s\n", line);
    } else if (held_error[0] == '\0') {
        memcpy(held_error, line, sizeof line);
    }
}

void errors_set_origin(const char *origin) {
    (void)snprintf(errors_origin, sizeof errors_origin, "%s", origin);
}

void errors_hold(void) {
    errors_held = true;
}

void errors_release(bool print) {
    errors_held = false;
    if (print && held_error[0] != '\0') {
        (void)fprintf(stderr, "%s\n", held_error);
    }
    held_error[0] = '\0';
}

int usage_error(const char *program, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_error(program, format, arguments);
    va_end(arguments);
    return EXIT_USAGE;
}

int work_error(const char *program, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_error(program, format, arguments);
    va_end(arguments);
    return EXIT_FAILED;
}

option *options_find(option_table *table, const char *name) {
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->options[i].name, name) == 0) {
            return &table->options[i];
        }
    }
    return NULL;
}

bool options_given(option_table *table, const char *name) {
    const option *o = options_find(table, name);
    return o != NULL && o->given;
}

/* The name of the index-th choice, "" beyond the last. */
static const char *choice_name(const option *o, int index, char *buffer, size_t size) {
    const char *start = o->choices;
    for (int i = 0; i < index && start != NULL; i++) {
        start = strchr(start, '|');
        start = start != NULL ? start + 1 : NULL;
    }
    if (start == NULL) {
        return "";
    }
    const char *end = strchr(start, '|');
    const size_t length = end != NULL ? (size_t)(end - start) : strlen(start);
    (void)snprintf(buffer, size, "%.*s", (int)length, start);
    return buffer;
}

void options_free(option_table *table) {
    for (size_t i = 0; i < table->count; i++) {
        free(table->options[i].owned);
        table->options[i].owned = NULL;
    }
}

/* ------------------------------------------------------------------ parsing of one value */

static bool parse_int(const option *o, const char *text) {
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || (double)value < o->low ||
        (double)value > o->high) {
        return false;
    }
    *(int64_t *)o->value = value;
    return true;
}

static bool parse_number(const option *o, const char *text) {
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= o->low && value <= o->high)) {
        return false;
    }
    *(double *)o->value = value;
    return true;
}

static bool parse_choice(const option *o, const char *text) {
    char name[64];
    for (int i = 0; *choice_name(o, i, name, sizeof name) != '\0'; i++) {
        if (strcmp(name, text) == 0) {
            *(int *)o->value = i;
            return true;
        }
    }
    return false;
}

static bool parse_bytes(const option *o, const char *text) {
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (errno != 0 || end == text || !(value >= 0.0)) {
        return false;
    }
    static const char units[] = "KMGT";
    double factor = 1.0;
    if (*end != '\0') {
        const char *unit = strchr(units, *end);
        if (unit == NULL || end[1] != '\0') {
            return false;
        }
        factor = pow(1024.0, (double)(unit - units + 1));
    }
    if (value * factor > 0x1p62) {
        return false;
    }
    *(uint64_t *)o->value = (uint64_t)(value * factor);
    return true;
}

static bool parse_int_set(const option *o, const char *text) {
    uint32_t bits = 0;
    if (strcmp(text, "none") != 0) {
        const char *at = text;
        for (;;) {
            char *end;
            errno = 0;
            const long value = strtol(at, &end, 10);
            if (errno != 0 || end == at || (double)value < o->low || (double)value > o->high) {
                return false;
            }
            bits |= 1u << value;
            if (*end == '\0') {
                break;
            }
            if (*end != ',') {
                return false;
            }
            at = end + 1;
        }
    }
    *(uint32_t *)o->value = bits;
    return true;
}

bool option_parse_value(const option *o, const char *text) {
    switch (o->type) {
    case OPTION_FLAG:
        *(bool *)o->value = strcmp(text, "yes") == 0;
        return strcmp(text, "yes") == 0 || strcmp(text, "no") == 0;
    case OPTION_INT:
        return parse_int(o, text);
    case OPTION_NUMBER:
        return parse_number(o, text);
    case OPTION_TEXT:
        *(const char **)o->value = text;
        return text[0] != '\0';
    case OPTION_CHOICE:
        return parse_choice(o, text);
    case OPTION_BYTES:
        return parse_bytes(o, text);
    case OPTION_INT_SET:
        return parse_int_set(o, text);
    }
    return false;
}

/* What values an option takes, for messages. */
static const char *expected(const option *o, char *buffer, size_t size) {
    switch (o->type) {
    case OPTION_FLAG:
        (void)snprintf(buffer, size, "no value, yes or no");
        break;
    case OPTION_INT:
        (void)snprintf(buffer, size, "an integer from %.0f to %.0f", o->low, o->high);
        break;
    case OPTION_NUMBER:
        (void)snprintf(buffer, size, "a number from %g to %g", o->low, o->high);
        break;
    case OPTION_TEXT:
        (void)snprintf(buffer, size, "a name");
        break;
    case OPTION_CHOICE:
        (void)snprintf(buffer, size, "one of %s", o->choices);
        break;
    case OPTION_BYTES:
        (void)snprintf(buffer, size, "a size such as 1500, 64K, 300M or 2G");
        break;
    case OPTION_INT_SET:
        (void)snprintf(buffer, size, "none, or a list such as 0,2 of integers from %.0f to %.0f",
                       o->low, o->high);
        break;
    }
    return buffer;
}

/* ------------------------------------------------------------------ help */

void option_value_text(const option *o, char *buffer, size_t size) {
    char name[64];
    buffer[0] = '\0';
    switch (o->type) {
    case OPTION_FLAG:
        (void)snprintf(buffer, size, "%s", *(const bool *)o->value ? "yes" : "no");
        break;
    case OPTION_INT:
        (void)snprintf(buffer, size, "%" PRId64, *(const int64_t *)o->value);
        break;
    case OPTION_NUMBER:
        if (!isnan(*(const double *)o->value)) {
            const double value = *(const double *)o->value;
            (void)snprintf(buffer, size, "%g", value);
            if (strtod(buffer, NULL) != value) {
                (void)snprintf(buffer, size, "%.17g", value);
            }
        }
        break;
    case OPTION_TEXT:
        if (*(const char *const *)o->value != NULL) {
            (void)snprintf(buffer, size, "%s", *(const char *const *)o->value);
        }
        break;
    case OPTION_CHOICE:
        if (*(const int *)o->value >= 0) {
            (void)snprintf(buffer, size, "%s",
                           choice_name(o, *(const int *)o->value, name, sizeof name));
        }
        break;
    case OPTION_BYTES:
        (void)snprintf(buffer, size, "%" PRIu64, *(const uint64_t *)o->value);
        break;
    case OPTION_INT_SET: {
        size_t length = 0;
        (void)snprintf(buffer, size, "none");
        for (int bit = 0; bit < 32; bit++) {
            if ((*(const uint32_t *)o->value >> bit & 1u) != 0 && length + 4 < size) {
                length += (size_t)snprintf(buffer + length, size - length, "%s%d",
                                           length == 0 ? "" : ",", bit);
            }
        }
        break;
    }
    }
}

static void print_help(const option_table *table) {
    enum { HELP_COLUMN = 34 };
    printf("usage: %s [options]%s%s\n\n%s\n\noptions:\n", table->program,
           table->positional_help != NULL ? " " : "",
           table->positional_help != NULL ? table->positional_help : "", table->summary);
    for (size_t i = 0; i < table->count; i++) {
        const option *o = &table->options[i];
        char left[256];
        char standard[128];
        (void)snprintf(left, sizeof left, "  --%s %s", o->name,
                       o->type == OPTION_CHOICE ? o->choices
                       : o->argument != NULL    ? o->argument
                                                : "");
        option_value_text(o, standard, sizeof standard);
        const bool has_default = standard[0] != '\0' && o->type != OPTION_FLAG &&
                                 !(o->type == OPTION_BYTES && strcmp(standard, "0") == 0);
        if (strlen(left) >= HELP_COLUMN) {
            printf("%s\n%*s", left, HELP_COLUMN, "");
        } else {
            printf("%-*s", HELP_COLUMN, left);
        }
        printf("%s", o->help);
        if (has_default) {
            printf(" (default: %s)", standard);
        }
        printf("\n");
    }
    printf("%-*sshow this text\n", HELP_COLUMN, "  --help");
}

/* ------------------------------------------------------------------ the command line */

bool options_parse(option_table *table, int argc, char **argv, int *exit_code) {
    table->positional_count = 0;
    for (int i = 1; i < argc; i++) {
        char *argument = argv[i];
        if (strncmp(argument, "--", 2) != 0) {
            if (table->positional_help == NULL) {
                *exit_code =
                    usage_error(table->program, "unexpected argument '%s' (see --help)", argument);
                return false;
            }
            argv[1 + table->positional_count++] = argument;
            continue;
        }
        char *name = argument + 2;
        if (strcmp(name, "help") == 0) {
            print_help(table);
            *exit_code = EXIT_DONE;
            return false;
        }
        char *value = strchr(name, '=');
        char plain[64];
        (void)snprintf(plain, sizeof plain, "%.*s",
                       value != NULL ? (int)(value - name) : (int)strlen(name), name);
        option *o = options_find(table, plain);
        if (o == NULL) {
            *exit_code = usage_error(table->program, "unknown option '--%s' (see --help)", plain);
            return false;
        }
        o->given = true;
        if (o->type == OPTION_FLAG && value == NULL) {
            *(bool *)o->value = true;
            continue;
        }
        value = value != NULL ? value + 1 : (i + 1 < argc ? argv[++i] : NULL);
        char wants[256];
        if (value == NULL) {
            *exit_code = usage_error(table->program, "--%s wants %s", plain,
                                     expected(o, wants, sizeof wants));
            return false;
        }
        if (!option_parse_value(o, value)) {
            *exit_code = usage_error(table->program, "--%s wants %s, found '%s'", plain,
                                     expected(o, wants, sizeof wants), value);
            return false;
        }
    }
    return true;
}
