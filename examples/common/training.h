/* training.h - the training loop of all trainers: epochs, evaluation, log, checkpoints, resume.
 *
 * A run that is stopped - by --stop-after, Ctrl-C in the middle of an epoch, or SIGKILL after a
 * checkpoint - and resumed does the same steps with the same bits as one that is not.
 *
 * On several ranks (parallel.h) each works on its part of every batch; rank 0 prints and saves. All
 * numbers that are reported, and all decisions, are of the ranks together.
 */
#ifndef EXAMPLE_TRAINING_H
#define EXAMPLE_TRAINING_H

#include <tapeline/tapeline.h>

#include "common/history.h"
#include "common/options.h"
#include "common/task.h"

typedef struct training {
    const char *program; /* for messages */
    const task *task;
    option_table *options;
    tl_context *context;
    tl_parallel *parallel;
    bool synchronize_batch_norm;
    tl_tape *tape;
    tl_model *model;
    tl_optimizer *optimizer;
    tl_schedule_config schedule;
    tl_loader *loader;
    const tl_dataset_info
        *input; /* the training images: what checkpoints say of the model's input */
    const tl_dataset *test;
    int64_t batch_size;
    int64_t epochs;
    bool stopping;            /* a rank was asked to stop; the same on all */
    int64_t stop_after;       /* epochs in all after which this run stops; 0: all */
    double label_smoothing;   /* of the training loss */
    double clip_norm;         /* 0: no clipping */
    const char *checkpoint;   /* NULL: nothing is saved */
    const char *log;          /* NULL: no CSV */
    const char *profile_path; /* NULL: nothing is timed */
    tl_profile *profile;      /* of the steps; set by training_run */

    /* where the run stands */
    int64_t epoch; /* completed */
    int64_t step;
    double loss_sum;        /* of the epoch so far, over images */
    double sums[TASK_SUMS]; /* of the task's metrics, likewise */
    int64_t seen;
    double grad_norm_sum;
    int64_t grad_norm_count; /* steps of the epoch so far */
    double step_seconds;     /* spent on them: without evaluation, saving and logging */
    double seconds;          /* spent on the epoch before this process */
    history history;
    task_scratch scratch;
    bool cost_shown;
    const char *good_checkpoint; /* written or read last, for messages; NULL: none */
} training;

typedef struct evaluation {
    double loss;
    double metrics[TASK_METRICS];
    int64_t count;
    bool interrupted; /* a rank was asked to stop: not all images were seen */
} evaluation;

/* Loss and metrics on the test set, in evaluation mode, without recording. */
tl_status evaluate(training *t, evaluation *result, tl_error *error);

/* Puts model, optimizer and loop where a checkpoint's state says. */
tl_status training_restore(training *t, const tl_state *state, tl_error *error);

/* Trains to the end, or to where it is told to stop. Returns the program's exit code. */
int training_run(training *t);

void training_free(training *t);

#endif
