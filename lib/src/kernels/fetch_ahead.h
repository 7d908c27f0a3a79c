/* fetch_ahead.h - what a thread will read or write soon, asked for little by little.
 *
 * A processor has a few dozen misses under way at a time. A burst of prefetches beyond that waits
 * for memory as loads would, and nothing is gained; a few of them before each block of products
 * arrive while the block is worked on. A kernel puts the memory of its next tile into the queue and
 * takes some lines out of it before each register block. The queue is the thread's own; it holds
 * hints, on which no result depends, so that an address in it may be stale. Private to kernel
 * files.
 */
#ifndef TL_FETCH_AHEAD_H
#define TL_FETCH_AHEAD_H

#include "kernels/simd.h"

enum { FETCH_RUNS = 16, FETCH_LINE = 64 / sizeof(tl_real) };

typedef struct fetch_run {
    const tl_real *next;
    int64_t lines;
} fetch_run;

static _Thread_local struct {
    fetch_run run[FETCH_RUNS];
    int first, end; /* those in between are left */
} fetch_queue;

/* Forgets what has not been asked for yet. */
TL_INLINE void fetch_forget(void) {
    fetch_queue.first = fetch_queue.end = 0;
}

/* Puts `count` values into the queue (none if it is not positive, or if the queue is full). */
TL_INLINE void fetch_later(const tl_real *values, int64_t count) {
    const int64_t lines = (count + FETCH_LINE - 1) / FETCH_LINE;
    if (count <= 0) {
        return;
    }
    if (fetch_queue.end > fetch_queue.first) {
        fetch_run *last = &fetch_queue.run[fetch_queue.end - 1];
        if (last->next + last->lines * FETCH_LINE == values) {
            last->lines += lines;
            return;
        }
    }
    if (fetch_queue.end < FETCH_RUNS) {
        fetch_queue.run[fetch_queue.end++] = (fetch_run){values, lines};
    }
}

/* Asks for so many of the lines that are left. */
TL_INLINE void fetch_some(int64_t lines) {
    while (lines > 0 && fetch_queue.first < fetch_queue.end) {
        fetch_run *run = &fetch_queue.run[fetch_queue.first];
        const int64_t count = run->lines < lines ? run->lines : lines;
        for (int64_t i = 0; i < count; i++) {
            __builtin_prefetch(run->next + i * FETCH_LINE, 0, 2);
        }
        run->next += count * FETCH_LINE;
        run->lines -= count;
        lines -= count;
        fetch_queue.first += run->lines == 0;
    }
}

#endif
