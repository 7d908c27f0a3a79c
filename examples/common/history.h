/* history.h - one row per epoch: the CSV log, and the same in checkpoints. */
#ifndef EXAMPLE_HISTORY_H
#define EXAMPLE_HISTORY_H

#include <tapeline/tapeline.h>

#include "common/task.h"

/* Metrics in the task's order and units; the gradient's norm is the epoch's mean. */
typedef struct history_row {
    double epoch; /* from 1: epochs completed */
    double train_loss;
    double train_metrics[TASK_METRICS];
    double test_loss;
    double test_metrics[TASK_METRICS];
    double seconds;      /* of the whole epoch */
    double step_seconds; /* of a training step, the mean */
    double peak_bytes;
    double learning_rate; /* of the epoch's last step */
    double grad_norm;
    double resident_bytes; /* of the whole process, at the epoch's end; 0 where unknown */
} history_row;

typedef struct history {
    const task *task; /* whose metrics the rows have: the columns' names */
    history_row *rows;
    int64_t count;
    int64_t capacity;
} history;

bool history_add(history *h, const history_row *row);
void history_free(history *h);

/* Writes the whole log anew (into a file beside it, then renamed). On failure says why. */
tl_status history_write_csv(const history *h, const char *path, tl_error *error);

/* To and from "training/history/<column>". */
tl_status history_save(const history *h, tl_state *state, tl_error *error);
tl_status history_load(history *h, const tl_state *state, int64_t count, tl_error *error);

#endif
