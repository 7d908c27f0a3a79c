/* workload.h - a whole training in small: a dataset, a loader, a model with attention, an optimizer
 * and a tape, for tests of what must hold for all of them together. Nothing here is asserted about
 * the library's calls: failures come back, so that they can be provoked. */
#ifndef TEST_WORKLOAD_H
#define TEST_WORKLOAD_H

#include "support/support.h"

/* Three that together meet every layer, optimizer and attention module:
 *   0  ResNet-8, efficient attention (softmax), dropout of logits, SGD, clipping
 *   1  ResNet-8, non-local block (tiled), AdamW
 *   2  local network for every pixel, non-local block (materialized), RMSprop */
enum { WORKLOAD_KINDS = 3 };

typedef struct workload {
    int kind;
    tl_context *context;
    tl_dataset *dataset;
    tl_loader *loader;
    tl_model *model;
    tl_optimizer *optimizer;
    tl_tape *tape; /* with random numbers of its own seed */
} workload;

/* All of it belongs to the context, which stays the caller's. On failure *w is all NULL. */
tl_status workload_create(workload *w, tl_context *context, int kind, tl_error *error);
void workload_free(workload *w);
/* Frees the tape and makes a new one that stands where the old one stood. */
tl_status workload_new_tape(workload *w, tl_error *error);

/* Step number `step`: its batch, forward, backward, update. After a failure gradients are cleared
 * and the tape is reset; it can be tried again. *loss (NULL is fine) receives the loss. */
tl_status workload_step(workload *w, int64_t step, double *loss, tl_error *error);

/* Parameters, running statistics, optimizer and random position as a state of `context`; the arrays
 * are borrowed. */
tl_status workload_fill_state(const workload *w, tl_state *state, tl_error *error);
/* Takes such a state back. */
tl_status workload_restore(workload *w, const tl_state *state, tl_error *error);
tl_status workload_save(const workload *w, const char *path, tl_error *error);
tl_status workload_load(workload *w, const char *path, tl_error *error);

/* A copy of all that training changes, made with another context; free() it. Two are equal if and
 * only if they are the same bytes. */
typedef struct workload_copy {
    unsigned char *data;
    size_t count;
} workload_copy;

workload_copy workload_remember(const workload *w);
void workload_forget(workload_copy *copy);
/* Fails the test, naming `what`, unless w is what was remembered. */
void workload_assert_same(const char *what, const workload *w, const workload_copy *copy);

#endif
