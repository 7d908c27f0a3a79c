/* progress.h - a progress bar on a terminal, plain lines in a pipe. */
#ifndef EXAMPLE_PROGRESS_H
#define EXAMPLE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
    bool terminal;
    bool drawn; /* a bar stands on the current line */
    double started;
    double last_shown;
    int64_t done_at_start;
} progress;

/* Seconds on a steady clock. */
double seconds_now(void);

/* `done` units of work are behind us already (a resumed epoch). */
void progress_start(progress *p, int64_t done);

/* Shows "label [####....] 45%  text  1234 unit/s  ETA 0:12": on a terminal at most ten times a
 * second, in a pipe a line every ten seconds. `units_per_step` turns steps into what is counted. */
void progress_update(progress *p, const char *label, int64_t done, int64_t total,
                     double units_per_step, const char *unit, const char *text);

/* Takes the bar off the line, so that something else can be printed. */
void progress_clear(progress *p);

#endif
