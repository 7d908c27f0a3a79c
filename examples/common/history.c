#include "common/history.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct column {
    const char *name;
    size_t offset;
    int decimals; /* digits behind the point; -1: ten significant ones */
} column;

static const column columns[] = {
    {"epoch", offsetof(history_row, epoch), 0},
    {"train_loss", offsetof(history_row, train_loss), 6},
    {"train_accuracy", offsetof(history_row, train_accuracy), 6},
    {"test_loss", offsetof(history_row, test_loss), 6},
    {"test_accuracy", offsetof(history_row, test_accuracy), 6},
    {"seconds", offsetof(history_row, seconds), 3},
    {"peak_bytes", offsetof(history_row, peak_bytes), 0},
    {"learning_rate", offsetof(history_row, learning_rate), -1},
    {"grad_norm", offsetof(history_row, grad_norm), -1},
};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

static double *cell(history_row *row, int index) {
    return (double *)(void *)((char *)row + columns[index].offset);
}

bool history_add(history *h, const history_row *row) {
    if (h->count == h->capacity) {
        const int64_t capacity = h->capacity == 0 ? 32 : 2 * h->capacity;
        history_row *grown = realloc(h->rows, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        h->rows = grown;
        h->capacity = capacity;
    }
    h->rows[h->count++] = *row;
    return true;
}

void history_free(history *h) {
    free(h->rows);
    *h = (history){0};
}

static tl_status file_error(tl_error *error, const char *path, const char *what) {
    error->status = TL_ERROR_IO;
    (void)snprintf(error->message, sizeof error->message, "%s: %s: %s", path, what,
                   strerror(errno));
    return error->status;
}

static void write_rows(const history *h, FILE *file) {
    for (int c = 0; c < COLUMNS; c++) {
        (void)fprintf(file, "%s%s", c == 0 ? "" : ",", columns[c].name);
    }
    (void)fputc('\n', file);
    for (int64_t r = 0; r < h->count; r++) {
        for (int c = 0; c < COLUMNS; c++) {
            const double value = *cell(&h->rows[r], c);
            (void)fputs(c == 0 ? "" : ",", file);
            if (columns[c].decimals < 0) {
                (void)fprintf(file, "%.10g", value);
            } else {
                (void)fprintf(file, "%.*f", columns[c].decimals, value);
            }
        }
        (void)fputc('\n', file);
    }
}

tl_status history_write_csv(const history *h, const char *path, tl_error *error) {
    char temporary[4096];
    const int length = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (length < 0 || (size_t)length >= sizeof temporary) {
        errno = ENAMETOOLONG;
        return file_error(error, path, "cannot write the log");
    }
    FILE *file = fopen(temporary, "w");
    if (file == NULL) {
        return file_error(error, path, "cannot write the log");
    }
    write_rows(h, file);
    const bool written = ferror(file) == 0;
    if (fclose(file) != 0 || !written || rename(temporary, path) != 0) {
        (void)file_error(error, path, "cannot write the log");
        (void)remove(temporary);
        return error->status;
    }
    return TL_OK;
}

tl_status history_save(const history *h, tl_state *state, tl_error *error) {
    double *values = malloc((size_t)(h->count > 0 ? h->count : 1) * sizeof *values);
    if (values == NULL) {
        error->status = TL_ERROR_OUT_OF_MEMORY;
        (void)snprintf(error->message, sizeof error->message, "history: out of memory");
        return error->status;
    }
    tl_status status = TL_OK;
    for (int c = 0; c < COLUMNS && status == TL_OK; c++) {
        char path[TL_PATH_SIZE];
        (void)snprintf(path, sizeof path, "training/history/%s", columns[c].name);
        for (int64_t r = 0; r < h->count; r++) {
            values[r] = *cell(&h->rows[r], c);
        }
        status = tl_state_put_array(
            state, path,
            &(tl_state_array){.type = TL_FLOAT64, .rank = 1, .shape = {h->count}, .data = values},
            error);
    }
    free(values);
    return status;
}

tl_status history_load(history *h, const tl_state *state, int64_t count, tl_error *error) {
    *h = (history){0};
    for (int64_t r = 0; r < count; r++) {
        if (!history_add(h, &(history_row){0})) {
            error->status = TL_ERROR_OUT_OF_MEMORY;
            (void)snprintf(error->message, sizeof error->message, "history: out of memory");
            return error->status;
        }
    }
    for (int c = 0; c < COLUMNS; c++) {
        char path[TL_PATH_SIZE];
        (void)snprintf(path, sizeof path, "training/history/%s", columns[c].name);
        const tl_state_array *array;
        const tl_status status =
            tl_state_read_array(state, path, TL_FLOAT64, 1, &count, &array, error);
        if (status != TL_OK) {
            return status;
        }
        for (int64_t r = 0; r < count; r++) {
            *cell(&h->rows[r], c) = ((const double *)array->data)[r];
        }
    }
    return TL_OK;
}
