/* ranks.h - how a program that was started several times at once (mpirun) behaves as one: rank 0
 * speaks for all, and mistakes are reported once.
 */
#ifndef EXAMPLE_RANKS_H
#define EXAMPLE_RANKS_H

#include <tapeline/tapeline.h>

/* Joins the ranks; on all but rank 0 stdout is dropped from here on. NULL after an error, whose
 * message was printed. */
tl_parallel *ranks_join(const char *program);

/* All ranks call it with the exit code they have so far. Returns EXIT_DONE if all have; else, on
 * all, the code of the lowest rank that failed, whose message alone is printed if messages are held
 * back (errors_hold): they are from ranks_join to the first call, and no longer after a call. */
int ranks_agree(tl_parallel *parallel, const char *program, int code);

/* Threads of each rank if none are asked for: an equal share of what this machine has. */
int ranks_default_threads(const tl_parallel *parallel);

#endif
