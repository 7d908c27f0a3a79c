/* context_internal.h - the context's fields and its tracked memory. */
#ifndef TL_CONTEXT_INTERNAL_H
#define TL_CONTEXT_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>

#include <tapeline/context.h>

#include "core/error_internal.h"
#include "kernels/kernels.h"

struct tl_context {
    int threads;
    const tl_kernels *kernels;
    tl_allocator allocator;
    bool default_allocator; /* address space may be reserved and grown into */
    tl_log_function log;
    void *log_user;
    atomic_size_t limit;
    atomic_size_t current;
    atomic_size_t peak;
    atomic_uint_fast64_t allocations;
};

/* `threads`, or if it is 0 as many as a context has by default. */
int tl_thread_count(int threads);

/* Tracked memory, aligned to TL_ALIGNMENT, uninitialised; NULL if the budget or the allocator says
 * no. Thread-safe. Release with the same size; NULL is fine. */
void *tl_memory_allocate(tl_context *context, size_t bytes);
void tl_memory_release(tl_context *context, void *memory, size_t bytes);
/* The same, filled with zeros; NULL as well if count * size overflows. */
void *tl_memory_allocate_zeroed(tl_context *context, size_t count, size_t size);
/* Grows from `old_bytes` to `new_bytes` by copying; NULL on failure (the old memory stays). */
void *tl_memory_reallocate(tl_context *context, void *memory, size_t old_bytes, size_t new_bytes);

/* Accounts for memory that comes from elsewhere (pages of a reserved range): false if the budget
 * does not allow it. */
bool tl_memory_charge(tl_context *context, size_t bytes);
void tl_memory_discharge(tl_context *context, size_t bytes);

/* Fills `error` with an out-of-memory message: what was wanted, what is held, the limit.
 * `what` names the thing: "checkpoint: buffer for the file". */
tl_status tl_memory_fail(const tl_context *context, tl_error *error, const char *what,
                         size_t bytes);
#ifdef TL_ANALYSIS /* as tl_fail */
#define tl_memory_fail(...) ((void)tl_memory_fail(__VA_ARGS__), TL_ERROR_OUT_OF_MEMORY)
#endif

/* a * b, or false if it overflows. */
bool tl_multiply_size(size_t a, size_t b, size_t *product);

void tl_log(const tl_context *context, tl_log_level level, const char *format, ...) TL_PRINTF(3, 4);

#endif
