/* pool.h - the memory of a tape: blocks that come and go within a step.
 *
 * With the default allocator a pool reserves address space once and grows into it, so that freed
 * neighbours always merge; with a replaced allocator it asks for a chunk at a time. Allocation is
 * best fit. The places given in earlier steps are remembered, and a step's n-th allocation gets
 * the place that an earlier step's n-th allocation of the same size had: a step that repeats needs
 * no new memory.
 */
#ifndef TL_POOL_INTERNAL_H
#define TL_POOL_INTERNAL_H

#include <stddef.h>

#include <tapeline/context.h>

typedef struct tl_pool tl_pool;

tl_pool *tl_pool_create(tl_context *context);
void tl_pool_free(tl_pool *pool);

/* Uninitialised memory aligned to TL_ALIGNMENT, or NULL. */
void *tl_pool_allocate(tl_pool *pool, size_t bytes);
/* NULL is fine. */
void tl_pool_release(tl_pool *pool, void *memory);

/* A step ends: all its blocks have been released. */
void tl_pool_next_step(tl_pool *pool);
/* Gives unused memory back to the context. */
void tl_pool_trim(tl_pool *pool);
/* Bytes that the pool holds and nobody uses. */
size_t tl_pool_idle(const tl_pool *pool);

#endif
