#include "core/context_internal.h"

#include <string.h>

bool tl_multiply_size(size_t a, size_t b, size_t *product) {
    return !__builtin_mul_overflow(a, b, product);
}

bool tl_memory_charge(tl_context *context, size_t bytes) {
    const size_t limit = atomic_load(&context->limit);
    size_t current = atomic_load(&context->current);
    size_t next;
    do {
        if (__builtin_add_overflow(current, bytes, &next) || (limit != 0 && next > limit)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&context->current, &current, next));
    size_t peak = atomic_load(&context->peak);
    while (next > peak && !atomic_compare_exchange_weak(&context->peak, &peak, next)) {
    }
    atomic_fetch_add(&context->allocations, 1);
    return true;
}

void tl_memory_discharge(tl_context *context, size_t bytes) {
    atomic_fetch_sub(&context->current, bytes);
}

void *tl_memory_allocate(tl_context *context, size_t bytes) {
    if (bytes == 0) {
        bytes = 1;
    }
    if (!tl_memory_charge(context, bytes)) {
        return NULL;
    }
    void *memory = context->allocator.allocate(context->allocator.user, bytes, TL_ALIGNMENT);
    if (memory == NULL) {
        tl_memory_discharge(context, bytes);
    }
    return memory;
}

void tl_memory_release(tl_context *context, void *memory, size_t bytes) {
    if (memory == NULL) {
        return;
    }
    if (bytes == 0) {
        bytes = 1;
    }
    context->allocator.release(context->allocator.user, memory, bytes);
    tl_memory_discharge(context, bytes);
}

void *tl_memory_allocate_zeroed(tl_context *context, size_t count, size_t size) {
    size_t bytes;
    if (!tl_multiply_size(count, size, &bytes)) {
        return NULL;
    }
    void *memory = tl_memory_allocate(context, bytes);
    if (memory != NULL) {
        memset(memory, 0, bytes);
    }
    return memory;
}

void *tl_memory_reallocate(tl_context *context, void *memory, size_t old_bytes, size_t new_bytes) {
    void *grown = tl_memory_allocate(context, new_bytes);
    if (grown != NULL && memory != NULL) {
        memcpy(grown, memory, old_bytes < new_bytes ? old_bytes : new_bytes);
        tl_memory_release(context, memory, old_bytes);
    }
    return grown;
}

tl_status(tl_memory_fail)(const tl_context *context, tl_error *error, const char *what,
                          size_t bytes) {
    const tl_memory_usage usage = tl_context_memory(context);
    char wanted[TL_BYTES_TEXT_SIZE];
    char held[TL_BYTES_TEXT_SIZE];
    char limit[TL_BYTES_TEXT_SIZE];
    (void)tl_bytes_text((double)bytes, wanted);
    (void)tl_bytes_text((double)usage.current, held);
    (void)tl_bytes_text((double)usage.limit, limit);
    if (usage.limit != 0 && (bytes > usage.limit || usage.current > usage.limit - bytes)) {
        return tl_fail(error, TL_ERROR_OUT_OF_MEMORY,
                       "%s: out of memory: needs %s, %s of the limit of %s are in use", what,
                       wanted, held, limit);
    }
    return tl_fail(error, TL_ERROR_OUT_OF_MEMORY,
                   "%s: out of memory: the system refused %s (%s are in use)", what, wanted, held);
}
