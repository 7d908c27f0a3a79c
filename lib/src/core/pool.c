#include "core/pool.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/context_internal.h"

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25 /* since Linux 6.1; earlier ones refuse it */
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(memory, bytes) ASAN_POISON_MEMORY_REGION(memory, bytes)
#define UNPOISON(memory, bytes) ASAN_UNPOISON_MEMORY_REGION(memory, bytes)
#else
#define POISON(memory, bytes) ((void)(memory), (void)(bytes))
#define UNPOISON(memory, bytes) ((void)(memory), (void)(bytes))
#endif

/* A block's header, in front of its memory. Blocks of a chunk lie one behind the other. */
typedef struct block {
    size_t bytes;           /* of the memory behind the header */
    struct block *previous; /* neighbour below, NULL for the first */
    struct block *free_next;
    struct block *free_previous;
    struct chunk *chunk;
    bool is_free;
} block;

enum {
    HEADER_BYTES = 64,  /* keeps the memory aligned */
    SPLIT_MINIMUM = 64, /* a remainder with less memory than this stays with its block */
    GROWTH_STEP = 64 * 1024,
    HUGE_PAGE = 2 * 1024 * 1024,
    GRAIN = 64 * 1024, /* every so many bytes of a block have room for a header of their own */
    WAYS = 2,          /* remembered places per allocation: training and evaluation alternate */
};
_Static_assert(sizeof(block) <= HEADER_BYTES, "a block's header must fit in front of it");

/* A range of memory: [base, base + committed) is in use and paid for. */
typedef struct chunk {
    char *base;
    size_t committed;
    size_t capacity;
    size_t huge_end;      /* up to here huge pages have been asked for, */
    size_t collapsed_end; /* and up to here small ones have been moved into them */
    bool reserved;        /* address space only; grows from committed towards capacity */
    block *last;          /* the block at the end of what is committed */
    struct chunk *next;
} chunk;

typedef struct place {
    size_t bytes[WAYS];
    block *where[WAYS];
    int newest;
} place;

struct tl_pool {
    tl_context *context;
    chunk *chunks;
    block *free_blocks;
    place *places; /* of the n-th allocation of a step */
    size_t place_capacity;
    size_t place_count;
    size_t step_count; /* allocations in this step */
};

static const size_t reserved_bytes = sizeof(void *) >= 8 ? (size_t)1 << 38 : 0;

static block *next_of(const block *b) {
    char *end = (char *)(uintptr_t)b + HEADER_BYTES + b->bytes;
    return end < b->chunk->base + b->chunk->committed ? (block *)(void *)end : NULL;
}

static void free_list_add(tl_pool *pool, block *b) {
    b->is_free = true;
    b->free_previous = NULL;
    b->free_next = pool->free_blocks;
    if (pool->free_blocks != NULL) {
        pool->free_blocks->free_previous = b;
    }
    pool->free_blocks = b;
    POISON((char *)b + HEADER_BYTES, b->bytes);
}

static void free_list_remove(tl_pool *pool, block *b) {
    if (b->free_previous != NULL) {
        b->free_previous->free_next = b->free_next;
    } else {
        pool->free_blocks = b->free_next;
    }
    if (b->free_next != NULL) {
        b->free_next->free_previous = b->free_previous;
    }
    b->is_free = false;
    UNPOISON((char *)b + HEADER_BYTES, b->bytes);
}

/* Cuts block b behind `bytes` of memory; the rest becomes a block of its own, which is returned
 * (not on the free list), or NULL if it would be too small. */
static block *split(block *b, size_t bytes) {
    if (b->bytes < bytes + HEADER_BYTES + SPLIT_MINIMUM) {
        return NULL;
    }
    block *after = next_of(b);
    block *rest = (block *)(void *)((char *)b + HEADER_BYTES + bytes);
    *rest = (block){.bytes = b->bytes - bytes - HEADER_BYTES, .previous = b, .chunk = b->chunk};
    b->bytes = bytes;
    if (after != NULL) {
        after->previous = rest;
    } else {
        b->chunk->last = rest;
    }
    return rest;
}

/* Joins b with its upper neighbour, which must be off the free list. */
static void absorb_next(block *b) {
    b->bytes += HEADER_BYTES + next_of(b)->bytes;
    block *after = next_of(b);
    if (after != NULL) {
        after->previous = b;
    } else {
        b->chunk->last = b;
    }
}

tl_pool *tl_pool_create(tl_context *context) {
    tl_pool *pool = tl_memory_allocate_zeroed(context, 1, sizeof *pool);
    if (pool != NULL) {
        pool->context = context;
    }
    return pool;
}

static void chunk_free(tl_pool *pool, chunk *c) {
    UNPOISON(c->base, c->committed);
    if (c->reserved) {
        (void)munmap(c->base, c->capacity);
        tl_memory_discharge(pool->context, c->committed);
    } else {
        tl_memory_release(pool->context, c->base, c->committed);
    }
    tl_memory_release(pool->context, c, sizeof *c);
}

void tl_pool_free(tl_pool *pool) {
    if (pool == NULL) {
        return;
    }
    for (chunk *c = pool->chunks; c != NULL;) {
        chunk *next = c->next;
        chunk_free(pool, c);
        c = next;
    }
    tl_memory_release(pool->context, pool->places, pool->place_capacity * sizeof(place));
    tl_memory_release(pool->context, pool, sizeof *pool);
}

/* Where the huge pages end that lie wholly within the first `bytes` of a range; for 0 bytes, where
 * the first of them begins. */
static size_t huge_pages_end(const char *base, size_t bytes) {
    const size_t first = (HUGE_PAGE - (uintptr_t)base % HUGE_PAGE) % HUGE_PAGE;
    return bytes > first ? first + (bytes - first) / HUGE_PAGE * HUGE_PAGE : first;
}

/* Huge pages are asked for where they lie wholly within what is committed, and nowhere else: a
 * step's passes over memory then miss the processor's table of pages less, and no page holds more
 * than was paid for. Hints, which may fail. */
static void advise_huge_pages(chunk *c) {
#ifdef MADV_HUGEPAGE
    const size_t end = huge_pages_end(c->base, c->committed);
    if (end > c->huge_end) {
        (void)madvise(c->base + c->huge_end, end - c->huge_end, MADV_HUGEPAGE);
    } else if (end < c->huge_end) {
        (void)madvise(c->base + end, c->huge_end - end, MADV_NOHUGEPAGE);
        c->collapsed_end = c->collapsed_end < end ? c->collapsed_end : end;
    }
    c->huge_end = end;
#else
    (void)c;
#endif
}

/* What was written before all of its huge page was committed lies in small ones, and is moved,
 * once: 20 ms for the 140 MB of a ResNet-20 step. */
static void collapse_into_huge_pages(tl_pool *pool) {
#ifdef MADV_COLLAPSE
    chunk *c = pool->chunks;
    if (c != NULL && c->reserved && c->huge_end > c->collapsed_end) {
        (void)madvise(c->base + c->collapsed_end, c->huge_end - c->collapsed_end, MADV_COLLAPSE);
        c->collapsed_end = c->huge_end;
    }
#else
    (void)pool;
#endif
}

/* Commits more of a reserved range: returns its last block, off the free list and with room for
 * `bytes`; NULL if the range or the budget is used up. */
static block *grow_reserved(tl_pool *pool, chunk *c, size_t bytes) {
    block *last = c->last;
    const bool extend = last != NULL && last->is_free;
    const size_t missing = extend ? bytes - last->bytes : bytes + HEADER_BYTES;
    const size_t growth = (missing + GROWTH_STEP - 1) / GROWTH_STEP * GROWTH_STEP;
    if (growth < missing || growth > c->capacity - c->committed ||
        !tl_memory_charge(pool->context, growth)) {
        return NULL;
    }
    char *end = c->base + c->committed;
    c->committed += growth;
    advise_huge_pages(c);
    UNPOISON(end, growth);
    if (extend) {
        free_list_remove(pool, last);
        last->bytes += growth;
        UNPOISON((char *)last + HEADER_BYTES, last->bytes);
        return last;
    }
    block *fresh = (block *)(void *)end;
    *fresh = (block){.bytes = growth - HEADER_BYTES, .previous = last, .chunk = c};
    c->last = fresh;
    return fresh;
}

/* The reserved range of a pool, or NULL where there can be none. */
static chunk *reserve(tl_pool *pool) {
    if (!pool->context->default_allocator || reserved_bytes == 0) {
        return NULL;
    }
    chunk *c = tl_memory_allocate_zeroed(pool->context, 1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    void *range = mmap(NULL, reserved_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) {
        tl_memory_release(pool->context, c, sizeof *c);
        return NULL;
    }
    *c = (chunk){.base = range, .capacity = reserved_bytes, .reserved = true};
    c->huge_end = c->collapsed_end = huge_pages_end(range, 0);
    pool->chunks = c;
    return c;
}

/* A chunk of its own for a block, which is returned. */
static block *chunk_for(tl_pool *pool, size_t bytes) {
    chunk *c = tl_memory_allocate_zeroed(pool->context, 1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    const size_t total = bytes + HEADER_BYTES;
    char *base = tl_memory_allocate(pool->context, total);
    if (base == NULL) {
        tl_memory_release(pool->context, c, sizeof *c);
        return NULL;
    }
    block *whole = (block *)(void *)base;
    *c = (chunk){
        .base = base, .committed = total, .capacity = total, .last = whole, .next = pool->chunks};
    *whole = (block){.bytes = bytes, .chunk = c};
    pool->chunks = c;
    return whole;
}

/* A block with room for `bytes`, off the free list; it may be larger. */
static block *find_block(tl_pool *pool, size_t bytes) {
    block *best = NULL;
    for (block *b = pool->free_blocks; b != NULL; b = b->free_next) {
        if (b->bytes >= bytes && (best == NULL || b->bytes < best->bytes)) {
            best = b;
        }
    }
    if (best != NULL) {
        free_list_remove(pool, best);
        return best;
    }
    if (pool->chunks == NULL) {
        (void)reserve(pool);
    }
    for (chunk *c = pool->chunks; c != NULL; c = c->next) {
        if (c->reserved) {
            return grow_reserved(pool, c, bytes);
        }
    }
    block *whole = chunk_for(pool, bytes);
    if (whole == NULL) {
        /* what lies idle in pieces too small may make room */
        tl_pool_trim(pool);
        whole = chunk_for(pool, bytes);
    }
    return whole;
}

/* The free block in which a block of `bytes` at `want` would lie, or NULL. */
static block *free_block_around(const tl_pool *pool, const block *want, size_t bytes) {
    const uintptr_t start = (uintptr_t)want;
    for (block *b = pool->free_blocks; b != NULL; b = b->free_next) {
        const uintptr_t lower = (uintptr_t)b;
        if (lower <= start && start - lower <= b->bytes && bytes <= b->bytes - (start - lower)) {
            return b;
        }
    }
    return NULL;
}

/* An earlier step's place for this allocation, if it is free now: off the free list. */
static block *take_same_place(tl_pool *pool, size_t bytes) {
    if (pool->step_count >= pool->place_count) {
        return NULL;
    }
    const place *p = &pool->places[pool->step_count];
    for (int way = 0; way < WAYS; way++) {
        if (p->bytes[way] != bytes) {
            continue;
        }
        block *b = free_block_around(pool, p->where[way], bytes);
        if (b == NULL) {
            continue;
        }
        const size_t below = (uintptr_t)p->where[way] - (uintptr_t)b;
        if (below != 0 && below < HEADER_BYTES + SPLIT_MINIMUM) {
            continue;
        }
        free_list_remove(pool, b);
        if (below == 0) {
            return b;
        }
        block *upper = split(b, below - HEADER_BYTES);
        free_list_add(pool, b);
        if (upper != NULL) {
            return upper;
        }
    }
    return NULL;
}

static void remember_place(tl_pool *pool, size_t bytes, block *where) {
    const size_t index = pool->step_count++;
    if (index >= pool->place_capacity) {
        size_t capacity = pool->place_capacity == 0 ? 256 : 2 * pool->place_capacity;
        capacity = capacity > index ? capacity : index + 1;
        place *grown =
            tl_memory_reallocate(pool->context, pool->places, pool->place_capacity * sizeof(place),
                                 capacity * sizeof(place));
        if (grown == NULL) {
            return; /* only the memory of the place is lost */
        }
        /* where growing failed before, allocations went by without a place */
        memset(grown + pool->place_capacity, 0, (capacity - pool->place_capacity) * sizeof(place));
        pool->places = grown;
        pool->place_capacity = capacity;
    }
    place *p = &pool->places[index];
    if (index >= pool->place_count) {
        pool->place_count = index + 1;
    }
    int way = 0;
    while (way < WAYS && p->bytes[way] != bytes) {
        way++;
    }
    if (way == WAYS) {
        way = (p->newest + 1) % WAYS;
    }
    p->bytes[way] = bytes;
    p->where[way] = where;
    p->newest = way;
}

/* What a block of `bytes` takes behind its header: a header's room for every further GRAIN, so that
 * what it leaves can be cut into two halves or four quarters: the tensors of a network that halves
 * its extents. Without it a halved block misses the second half by its header. */
static size_t block_bytes(size_t bytes) {
    bytes = bytes == 0 ? TL_ALIGNMENT : (bytes + TL_ALIGNMENT - 1) / TL_ALIGNMENT * TL_ALIGNMENT;
    const size_t grains = bytes / GRAIN;
    return grains > 1 ? bytes + (grains - 1) * HEADER_BYTES : bytes;
}

void *tl_pool_allocate(tl_pool *pool, size_t bytes) {
    const size_t largest = SIZE_MAX / 4;
    if (bytes > largest) {
        return NULL;
    }
    bytes = block_bytes(bytes);
    block *b = take_same_place(pool, bytes);
    if (b == NULL) {
        b = find_block(pool, bytes);
    }
    if (b == NULL) {
        return NULL;
    }
    block *rest = split(b, bytes);
    if (rest != NULL) {
        free_list_add(pool, rest);
    }
    remember_place(pool, bytes, b);
    return (char *)b + HEADER_BYTES;
}

void tl_pool_release(tl_pool *pool, void *memory) {
    if (memory == NULL) {
        return;
    }
    block *b = (block *)(void *)((char *)memory - HEADER_BYTES);
    block *upper = next_of(b);
    if (upper != NULL && upper->is_free) {
        free_list_remove(pool, upper);
        absorb_next(b);
    }
    block *lower = b->previous;
    if (lower != NULL && lower->is_free) {
        free_list_remove(pool, lower);
        absorb_next(lower);
        b = lower;
    }
    free_list_add(pool, b);
}

void tl_pool_next_step(tl_pool *pool) {
    pool->step_count = 0;
    collapse_into_huge_pages(pool);
}

/* Gives up the free end of a reserved range; its address space stays. */
static void trim_reserved(tl_pool *pool, chunk *c) {
    block *last = c->last;
    if (last == NULL || !last->is_free) {
        return;
    }
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const size_t bytes = HEADER_BYTES + last->bytes;
    char *const end = (char *)last + bytes;
    block *const before = last->previous;
    free_list_remove(pool, last);
    char *const first_page = (char *)last + (page - (uintptr_t)last % page) % page;
    if (first_page < end) {
        (void)madvise(first_page, (size_t)(end - first_page), MADV_DONTNEED);
    }
    c->committed -= bytes;
    c->last = before;
    advise_huge_pages(c);
    tl_memory_discharge(pool->context, bytes);
}

void tl_pool_trim(tl_pool *pool) {
    for (chunk **link = &pool->chunks; *link != NULL;) {
        chunk *c = *link;
        if (c->reserved) {
            trim_reserved(pool, c);
        } else if (c->last->is_free && c->last->previous == NULL) {
            free_list_remove(pool, c->last);
            *link = c->next;
            chunk_free(pool, c);
            continue;
        }
        link = &c->next;
    }
}

size_t tl_pool_idle(const tl_pool *pool) {
    size_t bytes = 0;
    for (const block *b = pool->free_blocks; b != NULL; b = b->free_next) {
        bytes += b->bytes;
    }
    return bytes;
}
