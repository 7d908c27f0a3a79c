/* failing_allocator.h - an allocator that counts, and fails when it is told to. */
#ifndef TEST_FAILING_ALLOCATOR_H
#define TEST_FAILING_ALLOCATOR_H

#include "support/support.h"

typedef struct failing_allocator {
    int64_t calls;   /* so far */
    int64_t fail_at; /* the call, counted from 1, that returns NULL; 0: none */
    bool for_good;   /* ... and all calls after it */
    int64_t live;    /* blocks not yet released */
    size_t bytes;    /* in them */
} failing_allocator;

/* An allocator for tl_context_config that keeps its books in `state`. */
tl_allocator failing_allocator_with(failing_allocator *state);

#endif
