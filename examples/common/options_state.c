#include "common/options_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_SIZE = 1024 };

static void option_path(const option *o, char path[TL_PATH_SIZE]) {
    (void)snprintf(path, TL_PATH_SIZE, "training/options/%s", o->name);
}

tl_status options_save(const option_table *table, tl_state *state, tl_error *error) {
    for (size_t i = 0; i < table->count; i++) {
        const option *o = &table->options[i];
        if (o->keep == OPTION_NOT_KEPT) {
            continue;
        }
        char path[TL_PATH_SIZE];
        char text[VALUE_SIZE];
        option_path(o, path);
        option_value_text(o, text, sizeof text);
        const tl_status status = tl_state_put_string(state, path, text, error);
        if (status != TL_OK) {
            return status;
        }
    }
    return TL_OK;
}

/* Whether there is something of that path, of whatever kind. */
static bool is_saved(const tl_state *state, const char *path) {
    double number;
    return tl_state_find_string(state, path) != NULL ||
           tl_state_find_number(state, path, &number) || tl_state_find_array(state, path) != NULL;
}

tl_status options_restore(option_table *table, const tl_state *state, tl_error *error) {
    for (size_t i = 0; i < table->count; i++) {
        option *o = &table->options[i];
        if (o->keep == OPTION_NOT_KEPT) {
            continue;
        }
        char path[TL_PATH_SIZE];
        option_path(o, path);
        const char *saved = "";
        if (is_saved(state, path) && tl_state_read_string(state, path, &saved, error) != TL_OK) {
            return error->status;
        }
        if (saved[0] == '\0') {
            continue; /* an option that is younger than the checkpoint, or was not set */
        }
        if (o->given) {
            char text[VALUE_SIZE];
            option_value_text(o, text, sizeof text);
            if (o->keep == OPTION_MUST_AGREE && strcmp(text, saved) != 0) {
                error->status = TL_ERROR_INVALID_ARGUMENT;
                (void)snprintf(error->message, sizeof error->message,
                               "--%s: the checkpoint has %.100s, the command line %.100s", o->name,
                               saved, text);
                return error->status;
            }
            continue;
        }
        if (o->type == OPTION_TEXT) {
            free(o->owned);
            o->owned = strdup(saved); /* the state will be gone */
            saved = o->owned != NULL ? o->owned : "";
        }
        if (!option_parse_value(o, saved)) {
            error->status = TL_ERROR_FORMAT;
            (void)snprintf(error->message, sizeof error->message, "%s: unusable value '%.100s'",
                           path, saved);
            return error->status;
        }
    }
    return TL_OK;
}
