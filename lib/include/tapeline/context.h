/* context.h - what would else be global: allocator, memory budget, threads, log.
 *
 * Everything is created from a context and belongs to it; two contexts in one process do not see
 * each other. A context and all that belongs to it is used by one thread at a time (its kernels
 * run on several threads inside). Different contexts may be used by different threads at once.
 */
#ifndef TL_CONTEXT_H
#define TL_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include <tapeline/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_context tl_context;

/* Replaces malloc. `allocate` returns memory aligned to `alignment` (a power of two, at least
 * sizeof(void *)) or NULL; `release` gets the size it was allocated with. Both may be called from
 * the thread of a data loader, so they must be thread-safe. */
typedef struct tl_allocator {
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *memory, size_t bytes);
    void *user;
} tl_allocator;

typedef enum tl_log_level { TL_LOG_INFO = 0, TL_LOG_WARNING = 1 } tl_log_level;

typedef void (*tl_log_function)(void *user, tl_log_level level, const char *message);

/* All zero: the defaults. */
typedef struct tl_context_config {
    int threads;            /* OpenMP threads of a kernel; 0: omp_get_max_threads() */
    size_t memory_limit;    /* bytes the context may hold; 0: no limit */
    tl_allocator allocator; /* zero: aligned_alloc and free */
    tl_log_function log;    /* NULL: messages are dropped */
    void *log_user;
    const char *isa; /* "baseline", "avx2", "avx512"; NULL: TL_ISA from the environment, else the
                        best this CPU has */
    tl_error *error; /* NULL, or receives why tl_context_create returned NULL */
} tl_context_config;

/* NULL on an unknown or missing instruction set, a negative thread count or failed allocation.
 * `config` may be NULL: all defaults. */
TL_API tl_context *tl_context_create(const tl_context_config *config);

/* All that was created from the context must be freed before. NULL is fine. */
TL_API void tl_context_free(tl_context *context);

/* OpenMP threads that a kernel runs on: what the config said, or the default. */
TL_API int tl_context_threads(const tl_context *context);
/* The instruction set of its kernels: "baseline", "avx2" or "avx512". */
TL_API const char *tl_context_isa(const tl_context *context);

/* Memory in bytes. `current` is what the context holds from the allocator (memory a tape keeps for
 * the next step included), `peak` its maximum since creation or the last reset, `limit` the budget
 * (0: none), `allocations` how often the allocator was called. */
typedef struct tl_memory_usage {
    size_t current;
    size_t peak;
    size_t limit;
    uint64_t allocations;
} tl_memory_usage;

/* What the context holds now and held at most. */
TL_API tl_memory_usage tl_context_memory(const tl_context *context);
/* The peak becomes what is held now. */
TL_API void tl_context_reset_peak(tl_context *context);
/* A new budget in bytes; 0: none. What is held already stays, also if it is more. */
TL_API void tl_context_set_memory_limit(tl_context *context, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
