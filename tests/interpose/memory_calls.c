#include "interpose/memory_calls.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

/* glibc's own, under the names it offers for this. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);

static atomic_bool armed;
static atomic_bool failing_for_good;
static atomic_llong calls;
static atomic_llong failing;

void memory_calls_arm(int64_t fail_at, bool for_good) {
    atomic_store(&calls, 0);
    atomic_store(&failing, fail_at);
    atomic_store(&failing_for_good, for_good);
    atomic_store(&armed, true);
}

int64_t memory_calls_disarm(void) {
    atomic_store(&armed, false);
    return atomic_load(&calls);
}

static bool fails(void) {
    if (!atomic_load(&armed)) {
        return false;
    }
    const long long call = atomic_fetch_add(&calls, 1) + 1;
    const long long at = atomic_load(&failing);
    return at > 0 && (call == at || (call > at && atomic_load(&failing_for_good)));
}

/* Seen by the shared libraries. */
#define EXPORTED __attribute__((visibility("default")))

static void *refuse(void) {
    errno = ENOMEM;
    return NULL;
}

EXPORTED void *malloc(size_t bytes) {
    return fails() ? refuse() : __libc_malloc(bytes);
}

EXPORTED void *calloc(size_t count, size_t bytes) {
    return fails() ? refuse() : __libc_calloc(count, bytes);
}

EXPORTED void *realloc(void *memory, size_t bytes) {
    return fails() ? refuse() : __libc_realloc(memory, bytes);
}

EXPORTED void *aligned_alloc(size_t alignment, size_t bytes) {
    return fails() ? refuse() : __libc_memalign(alignment, bytes);
}

EXPORTED void *memalign(size_t alignment, size_t bytes) {
    return fails() ? refuse() : __libc_memalign(alignment, bytes);
}

EXPORTED int posix_memalign(void **memory, size_t alignment, size_t bytes) {
    if (fails()) {
        return ENOMEM;
    }
    *memory = __libc_memalign(alignment, bytes);
    return *memory != NULL ? 0 : ENOMEM;
}
