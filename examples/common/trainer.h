/* trainer.h - a training program: options, checkpoints and data are put together here; a program
 * says what it trains, on what.
 */
#ifndef EXAMPLE_TRAINER_H
#define EXAMPLE_TRAINER_H

#include <tapeline/tapeline.h>

#include "common/options.h"
#include "common/task.h"
#include "common/training_options.h"

typedef struct trainer trainer;

struct trainer {
    const char *program;
    const char *summary; /* for --help */
    const task *task;
    option *options; /* the program's own and training_options */
    size_t option_count;
    training_settings *settings;
    void *own; /* the program's own settings, for the functions below */

    /* Combinations that no single option can see, and defaults that depend on others; after a
     * checkpoint's options were taken over. EXIT_DONE, or EXIT_USAGE after a message. */
    int (*check)(trainer *t);
    /* One part of the data. */
    tl_dataset *(*load)(trainer *t, tl_context *context, tl_split split, tl_error *error);
    tl_model *(*create)(trainer *t, tl_context *context, const tl_dataset_info *info,
                        tl_error *error);
    /* Whether a checkpoint's model can work on the data. */
    tl_status (*require_fit)(const tl_model *model, const tl_dataset_info *info, tl_error *error);

    /* what `check` may set */
    tl_augment_config augment;
    double label_smoothing;

    /* set before `check` is called */
    option_table table;
    bool restored; /* options come from a checkpoint */
};

/* Parses the command line and trains or evaluates. Returns the exit code. */
int trainer_main(trainer *t, int argc, char **argv);

#endif
