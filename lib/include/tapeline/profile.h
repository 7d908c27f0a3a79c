/* profile.h - where the time of a training step goes.
 *
 *     tl_profile *profile = tl_profile_create(context, TL_PROFILE_EVENTS, &error);
 *     tl_tape_set_profile(tape, profile);
 *     ... steps ...
 *     tl_tape_set_profile(tape, NULL);
 *     entries = tl_profile_entries(profile, &count);          // one row per kind of operation
 *     tl_profile_write_trace(profile, "step.json", &error);   // for chrome://tracing and Perfetto
 *
 * While a profile is set, every operation of the tape is timed, forward and backward; without one
 * nothing is measured. What lies between operations (the loader, the optimizer) can be marked as
 * spans. A profile belongs to its context and is used by one thread at a time.
 */
#ifndef TL_PROFILE_H
#define TL_PROFILE_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_profile tl_profile;

/* Events that a trace holds by default: some 40 MB of text. */
enum { TL_PROFILE_EVENTS = 200000 };

/* `max_events`: how many operations and spans are kept one by one for the trace; those that follow
 * count in the totals only. 0: totals alone. NULL if it is negative or memory fails. */
TL_API tl_profile *tl_profile_create(tl_context *context, int64_t max_events, tl_error *error);

/* Set no tape to it any more before. NULL is fine. */
TL_API void tl_profile_free(tl_profile *profile);

/* From now on the tape's operations are timed into `profile`; NULL: no longer. */
TL_API void tl_tape_set_profile(tl_tape *tape, tl_profile *profile);

/* Marks what happens in between as a span of that name, a string that must outlive the profile.
 * Spans may lie in each other, up to 16 deep. Does nothing if `profile` is NULL. */
TL_API void tl_profile_begin(tl_profile *profile, const char *name);
TL_API void tl_profile_end(tl_profile *profile);

typedef struct tl_profile_work {
    int64_t calls;
    double seconds;
    double flops;          /* as in tl_cost: the algorithm's formula, */
    double flops_executed; /* and what the kernels do */
    double bytes;          /* of the tensors read and written, each counted once a call; a result or
                              gradient that is passed on where it lies counts nothing */
} tl_profile_work;

typedef struct tl_profile_entry {
    const char *operation; /* "conv2d" */
    tl_profile_work forward;
    tl_profile_work backward; /* with results that are computed again for it */
} tl_profile_entry;

typedef struct tl_profile_span {
    const char *name;
    int64_t calls;
    double seconds;
} tl_profile_span;

/* One row per kind of operation, or per name of a span, in order of first use. `*count` receives
 * how many; the array belongs to the profile and is valid until its next operation or span. */
TL_API const tl_profile_entry *tl_profile_entries(const tl_profile *profile, int *count);
TL_API const tl_profile_span *tl_profile_spans(const tl_profile *profile, int *count);

/* Events that the trace holds; `*dropped` (NULL is allowed) receives how many it does not. */
TL_API int64_t tl_profile_event_count(const tl_profile *profile, int64_t *dropped);

/* Writes the events as JSON in the Trace Event Format, times in microseconds since the profile was
 * created. TL_ERROR_IO, with the reason, if the file cannot be written. */
TL_API tl_status tl_profile_write_trace(const tl_profile *profile, const char *path,
                                        tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
