#include "core/context_internal.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *default_allocate(void *user, size_t bytes, size_t alignment) {
    (void)user;
    void *memory = NULL;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

static void default_release(void *user, void *memory, size_t bytes) {
    (void)user;
    (void)bytes;
    free(memory);
}

tl_context *tl_context_create(const tl_context_config *config) {
    static const tl_context_config defaults = {0};
    if (config == NULL) {
        config = &defaults;
    }
    tl_error_clear(config->error);
    if (config->threads < 0) {
        (void)tl_fail(config->error, TL_ERROR_INVALID_ARGUMENT,
                      "context: threads must be 0 or more, found %d", config->threads);
        return NULL;
    }
    tl_allocator allocator = config->allocator;
    const bool default_allocator = allocator.allocate == NULL;
    if (default_allocator != (allocator.release == NULL)) {
        (void)tl_fail(config->error, TL_ERROR_INVALID_ARGUMENT,
                      "context: an allocator needs both allocate and release");
        return NULL;
    }
    if (default_allocator) {
        allocator.allocate = default_allocate;
        allocator.release = default_release;
    }
    const char *isa = config->isa != NULL ? config->isa : getenv("TL_ISA");
    const char *reason = NULL;
    const tl_kernels *kernels = tl_kernels_select(isa, &reason);
    if (kernels == NULL) {
        (void)tl_fail(config->error, TL_ERROR_UNSUPPORTED, "context: instruction set '%s': %s", isa,
                      reason);
        return NULL;
    }
    tl_context *context = allocator.allocate(allocator.user, sizeof *context, TL_ALIGNMENT);
    if (context == NULL) {
        (void)tl_fail(config->error, TL_ERROR_OUT_OF_MEMORY, "context: out of memory");
        return NULL;
    }
    memset(context, 0, sizeof *context);
    context->threads = tl_thread_count(config->threads);
    context->kernels = kernels;
    context->allocator = allocator;
    context->default_allocator = default_allocator;
    context->log = config->log;
    context->log_user = config->log_user;
    atomic_init(&context->limit, config->memory_limit);
    atomic_init(&context->current, 0);
    atomic_init(&context->peak, 0);
    atomic_init(&context->allocations, 0);
    return context;
}

int tl_thread_count(int threads) {
    return threads > 0 ? threads : omp_get_max_threads();
}

void tl_context_free(tl_context *context) {
    if (context != NULL) {
        const tl_allocator allocator = context->allocator;
        allocator.release(allocator.user, context, sizeof *context);
    }
}

int tl_context_threads(const tl_context *context) {
    return context->threads;
}

const char *tl_context_isa(const tl_context *context) {
    return context->kernels->isa;
}

tl_memory_usage tl_context_memory(const tl_context *context) {
    return (tl_memory_usage){.current = atomic_load(&context->current),
                             .peak = atomic_load(&context->peak),
                             .limit = atomic_load(&context->limit),
                             .allocations = atomic_load(&context->allocations)};
}

void tl_context_reset_peak(tl_context *context) {
    atomic_store(&context->peak, atomic_load(&context->current));
}

void tl_context_set_memory_limit(tl_context *context, size_t bytes) {
    atomic_store(&context->limit, bytes);
}

void tl_log(const tl_context *context, tl_log_level level, const char *format, ...) {
    if (context->log == NULL) {
        return;
    }
    char message[TL_ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    context->log(context->log_user, level, message);
}
