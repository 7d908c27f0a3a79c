#include "support/failing_allocator.h"

#include <stdlib.h>

static void *allocate(void *user, size_t bytes, size_t alignment) {
    failing_allocator *state = user;
    state->calls++;
    if (state->calls == state->fail_at ||
        (state->for_good && state->fail_at > 0 && state->calls > state->fail_at)) {
        return NULL;
    }
    void *memory = NULL;
    if (posix_memalign(&memory, alignment, bytes) != 0) {
        return NULL;
    }
    state->live++;
    state->bytes += bytes;
    return memory;
}

static void release(void *user, void *memory, size_t bytes) {
    failing_allocator *state = user;
    state->live--;
    state->bytes -= bytes;
    free(memory);
}

tl_allocator failing_allocator_with(failing_allocator *state) {
    return (tl_allocator){.allocate = allocate, .release = release, .user = state};
}
