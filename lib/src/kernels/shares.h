/* shares.h - tasks of a parallel loop, which change hands where a thread falls behind.
 *
 * Each thread begins with a share of its own, the same as with schedule(static), so that a core
 * finds in its cache what an earlier loop left there. Whoever is done takes tasks from the others'
 * shares: a core that another program slows down costs its part of the time, and nobody waits for
 * it. For tasks whose results do not depend on who computes them.
 *
 *     tl_shares shares = tl_shares_of(tasks, threads);
 * #pragma omp parallel num_threads(threads)
 *     for (int64_t task; tl_shares_take(&shares, &task);) {
 */
#ifndef TL_SHARES_H
#define TL_SHARES_H

#include <omp.h>
#include <stdbool.h>
#include <stdint.h>

enum { TL_MOST_SHARES = 64 };

typedef struct tl_share {
    int64_t next, end;
    int64_t unused[6]; /* each on a cache line of its own */
} tl_share;

typedef struct tl_shares {
    int count;
    tl_share share[TL_MOST_SHARES];
} tl_shares;

static inline tl_shares tl_shares_of(int64_t tasks, int threads) {
    tl_shares shares;
    shares.count = threads < TL_MOST_SHARES ? threads : TL_MOST_SHARES;
    for (int i = 0; i < shares.count; i++) {
        shares.share[i].next = i == 0 ? 0 : shares.share[i - 1].end;
        shares.share[i].end =
            shares.share[i].next + tasks / shares.count + (i < tasks % shares.count);
    }
    return shares;
}

/* The calling thread's next task; false if none is left. */
static inline bool tl_shares_take(tl_shares *shares, int64_t *task) {
    const int thread = omp_get_thread_num();
    for (int i = 0; i < shares->count; i++) {
        tl_share *share = &shares->share[(thread + i) % shares->count];
        if (__atomic_load_n(&share->next, __ATOMIC_RELAXED) < share->end) {
            *task = __atomic_fetch_add(&share->next, 1, __ATOMIC_RELAXED);
            if (*task < share->end) {
                return true;
            }
        }
    }
    return false;
}

/* The same for tasks that are cheaper in a row: a third of those left to the thread itself, or one
 * of another's. Returns how many, from `*first` on; 0 if none is left. */
static inline int64_t tl_shares_take_run(tl_shares *shares, int64_t *first) {
    tl_share *own = &shares->share[omp_get_thread_num() % shares->count];
    int64_t next = __atomic_load_n(&own->next, __ATOMIC_RELAXED);
    while (next < own->end) {
        const int64_t count = (own->end - next + 2) / 3;
        if (__atomic_compare_exchange_n(&own->next, &next, next + count, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            *first = next;
            return count;
        }
    }
    return tl_shares_take(shares, first) ? 1 : 0;
}

#endif
