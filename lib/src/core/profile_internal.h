/* profile_internal.h - what the tape tells a profile, and the events of its trace. */
#ifndef TL_PROFILE_INTERNAL_H
#define TL_PROFILE_INTERNAL_H

#include <tapeline/profile.h>

#include "core/tape_internal.h"

enum { PROFILE_DEPTH = 16 }; /* of spans in spans, as profile.h says */

typedef enum tl_profile_phase {
    TL_PROFILE_FORWARD,
    TL_PROFILE_BACKWARD,
    TL_PROFILE_RECOMPUTE,
    TL_PROFILE_SPAN,
} tl_profile_phase;

typedef struct tl_profile_event {
    const char *name;
    tl_profile_phase phase;
    int64_t started, ended; /* nanoseconds of tl_profile_now */
    double flops, bytes;
} tl_profile_event;

struct tl_profile {
    tl_context *context;
    int64_t created;
    tl_profile_event *events;
    int64_t event_count, event_capacity, max_events, dropped;
    tl_profile_entry *entries;
    int entry_count, entry_capacity;
    tl_profile_span *spans;
    int span_count, span_capacity;
    int depth; /* of the spans that are open, those beyond PROFILE_DEPTH included */
    struct {
        const char *name;
        int64_t started;
    } open[PROFILE_DEPTH];
};

/* Nanoseconds on a steady clock. */
int64_t tl_profile_now(void);

/* The node's forward, backward or recompute function has just run, since `started`. */
void tl_profile_add_forward(tl_profile *profile, const tl_node *node, int64_t started);
void tl_profile_add_backward(tl_profile *profile, const tl_node *node, int64_t started);
void tl_profile_add_recompute(tl_profile *profile, const tl_node *node, int64_t started);

#endif
