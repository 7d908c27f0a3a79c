#include "common/history.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COLUMNS = 9 + 2 * TASK_METRICS, COLUMN_NAME = 48 };

typedef struct column {
    char name[COLUMN_NAME];
    size_t offset;
    int decimals; /* digits behind the point; -1: ten significant ones */
    bool newer;   /* older checkpoints lack it, and read as 0 */
} column;

typedef struct column_list {
    int count;
    column columns[MOST_COLUMNS];
} column_list;

static void add_column(column_list *list, const char *prefix, const char *name, size_t offset,
                       int decimals) {
    column *c = &list->columns[list->count++];
    (void)snprintf(c->name, sizeof c->name, "%s%s", prefix, name);
    c->offset = offset;
    c->decimals = decimals;
}

static column_list columns_of(const task *t) {
    column_list list = {0};
    add_column(&list, "", "epoch", offsetof(history_row, epoch), 0);
    add_column(&list, "train_", "loss", offsetof(history_row, train_loss), 6);
    for (int i = 0; i < t->metric_count; i++) {
        add_column(&list, "train_", t->metrics[i].name,
                   offsetof(history_row, train_metrics) + (size_t)i * sizeof(double), 6);
    }
    add_column(&list, "test_", "loss", offsetof(history_row, test_loss), 6);
    for (int i = 0; i < t->metric_count; i++) {
        add_column(&list, "test_", t->metrics[i].name,
                   offsetof(history_row, test_metrics) + (size_t)i * sizeof(double), 6);
    }
    add_column(&list, "", "seconds", offsetof(history_row, seconds), 3);
    add_column(&list, "", "step_seconds", offsetof(history_row, step_seconds), 6);
    add_column(&list, "", "peak_bytes", offsetof(history_row, peak_bytes), 0);
    add_column(&list, "", "learning_rate", offsetof(history_row, learning_rate), -1);
    add_column(&list, "", "grad_norm", offsetof(history_row, grad_norm), -1);
    add_column(&list, "", "resident_bytes", offsetof(history_row, resident_bytes), 0);
    list.columns[list.count - 1].newer = true;
    return list;
}

static double *cell(history_row *row, const column *c) {
    return (double *)(void *)((char *)row + c->offset);
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
    *h = (history){.task = h->task};
}

static tl_status file_error(tl_error *error, const char *path, const char *what) {
    error->status = TL_ERROR_IO;
    (void)snprintf(error->message, sizeof error->message, "%s: %s: %s", path, what,
                   strerror(errno));
    return error->status;
}

static void write_rows(const history *h, FILE *file) {
    const column_list list = columns_of(h->task);
    for (int c = 0; c < list.count; c++) {
        (void)fprintf(file, "%s%s", c == 0 ? "" : ",", list.columns[c].name);
    }
    (void)fputc('\n', file);
    for (int64_t r = 0; r < h->count; r++) {
        for (int c = 0; c < list.count; c++) {
            const double value = *cell(&h->rows[r], &list.columns[c]);
            (void)fputs(c == 0 ? "" : ",", file);
            if (list.columns[c].decimals < 0) {
                (void)fprintf(file, "%.10g", value);
            } else {
                (void)fprintf(file, "%.*f", list.columns[c].decimals, value);
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
    const column_list list = columns_of(h->task);
    tl_status status = TL_OK;
    for (int c = 0; c < list.count && status == TL_OK; c++) {
        char path[TL_PATH_SIZE];
        (void)snprintf(path, sizeof path, "training/history/%s", list.columns[c].name);
        for (int64_t r = 0; r < h->count; r++) {
            values[r] = *cell(&h->rows[r], &list.columns[c]);
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
    history_free(h);
    for (int64_t r = 0; r < count; r++) {
        if (!history_add(h, &(history_row){0})) {
            error->status = TL_ERROR_OUT_OF_MEMORY;
            (void)snprintf(error->message, sizeof error->message, "history: out of memory");
            return error->status;
        }
    }
    const column_list list = columns_of(h->task);
    for (int c = 0; c < list.count; c++) {
        char path[TL_PATH_SIZE];
        (void)snprintf(path, sizeof path, "training/history/%s", list.columns[c].name);
        if (list.columns[c].newer && tl_state_find_array(state, path) == NULL) {
            continue;
        }
        const tl_state_array *array;
        const tl_status status =
            tl_state_read_array(state, path, TL_FLOAT64, 1, &count, &array, error);
        if (status != TL_OK) {
            return status;
        }
        for (int64_t r = 0; r < count; r++) {
            *cell(&h->rows[r], &list.columns[c]) = ((const double *)array->data)[r];
        }
    }
    return TL_OK;
}
