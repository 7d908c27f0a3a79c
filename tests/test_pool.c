/* The tape's memory pool: blocks that do not overlap, merging, places of the last step, trimming;
 * with the default allocator (a reserved range) and with a replaced one (chunks). */
#include "core/pool.h"

#include <stdint.h>
#include <string.h>

#include "support/failing_allocator.h"

typedef struct fixture {
    failing_allocator allocator;
    tl_context *context;
    tl_pool *pool;
} fixture;

static void setup(fixture *f, bool replaced) {
    *f = (fixture){.pool = NULL};
    tl_context_config config = {.threads = 1};
    if (replaced) {
        config.allocator = failing_allocator_with(&f->allocator);
    }
    f->context = tl_context_create(&config);
    f->pool = tl_pool_create(f->context);
    ck_assert_ptr_nonnull(f->pool);
}

static void teardown(fixture *f) {
    tl_pool_free(f->pool);
    ck_assert_uint_eq(tl_context_memory(f->context).current, 0);
    tl_context_free(f->context);
    ck_assert_int_eq(f->allocator.live, 0);
}

static size_t held(const fixture *f) {
    return tl_context_memory(f->context).current;
}

enum { SLOTS = 40 };

/* Random allocations and releases; every block is filled with its own byte and checked. */
START_TEST(blocks_do_not_overlap) {
    fixture f;
    setup(&f, _i == 1);
    unsigned char *blocks[SLOTS] = {NULL};
    size_t sizes[SLOTS] = {0};
    tl_random random = tl_random_create(1, 1000, 0);
    for (int i = 0; i < 20000; i++) {
        const uint32_t slot = tl_random_below(&random, SLOTS);
        if (blocks[slot] != NULL) {
            for (size_t k = 0; k < sizes[slot]; k += 61) {
                ck_assert_uint_eq(blocks[slot][k], (unsigned char)(slot + 1));
            }
            tl_pool_release(f.pool, blocks[slot]);
            blocks[slot] = NULL;
        } else {
            const uint32_t scale = tl_random_below(&random, 16);
            sizes[slot] = tl_random_below(&random, 1u << scale);
            blocks[slot] = tl_pool_allocate(f.pool, sizes[slot]);
            ck_assert_ptr_nonnull(blocks[slot]);
            ck_assert_uint_eq((uintptr_t)blocks[slot] % 64, 0);
            memset(blocks[slot], (int)slot + 1, sizes[slot]);
        }
        if (i % 1000 == 999) {
            tl_pool_next_step(f.pool);
        }
        if (i % 3000 == 2999) {
            tl_pool_trim(f.pool);
        }
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        tl_pool_release(f.pool, blocks[slot]);
    }
    teardown(&f);
}
END_TEST

START_TEST(neighbours_merge) {
    fixture f;
    setup(&f, false);
    void *blocks[10];
    for (int i = 0; i < 10; i++) {
        blocks[i] = tl_pool_allocate(f.pool, 100000);
    }
    const size_t before = held(&f);
    const int order[10] = {3, 1, 2, 9, 0, 7, 8, 4, 6, 5};
    for (int i = 0; i < 10; i++) {
        tl_pool_release(f.pool, blocks[order[i]]);
    }
    void *whole = tl_pool_allocate(f.pool, 1000000);
    ck_assert_ptr_eq(whole, blocks[0]);
    ck_assert_uint_eq(held(&f), before);
    tl_pool_release(f.pool, whole);
    tl_pool_release(f.pool, NULL);
    teardown(&f);
}
END_TEST

/* A step that frees in an order which fragments: repeated, it finds its places again. */
static void fragmenting_step(tl_pool *pool, size_t scale, void *places[8]) {
    for (size_t i = 0; i < 8; i++) {
        places[i] = tl_pool_allocate(pool, (i + 1) * 1000 * scale);
        ck_assert_ptr_nonnull(places[i]);
        if (i % 3 == 2) {
            tl_pool_release(pool, places[i - 1]);
            places[i - 1] = NULL;
        }
    }
    for (size_t i = 0; i < 8; i++) {
        tl_pool_release(pool, places[i]);
    }
    tl_pool_next_step(pool);
}

START_TEST(repeated_steps_need_no_more) {
    fixture f;
    setup(&f, _i == 1);
    void *first[8];
    void *again[8];
    fragmenting_step(f.pool, 3, first);
    fragmenting_step(f.pool, 1, again);
    fragmenting_step(f.pool, 3, again);
    const uint64_t calls = tl_context_memory(f.context).allocations;
    for (int i = 0; i < 6; i++) {
        fragmenting_step(f.pool, i % 2 == 0 ? 1 : 3, again);
    }
    ck_assert_uint_eq(tl_context_memory(f.context).allocations, calls);
    ck_assert_ptr_eq(again[7], first[7]);
    teardown(&f);
}
END_TEST

START_TEST(trim_gives_back) {
    fixture f;
    setup(&f, _i == 1);
    void *stays = tl_pool_allocate(f.pool, 1000);
    void *large = tl_pool_allocate(f.pool, 1 << 20);
    memset(large, 1, 1 << 20);
    tl_pool_trim(f.pool);
    const size_t before = held(&f);
    tl_pool_trim(f.pool);
    ck_assert_uint_eq(held(&f), before);
    tl_pool_release(f.pool, large);
    tl_pool_trim(f.pool);
    ck_assert_uint_lt(held(&f), before - (1 << 20) + 1);
    memset(stays, 2, 1000);
    large = tl_pool_allocate(f.pool, 1 << 20);
    ck_assert_ptr_nonnull(large);
    memset(large, 3, 1 << 20);
    tl_pool_release(f.pool, stays);
    tl_pool_release(f.pool, large);
    tl_pool_trim(f.pool);
    tl_pool_trim(f.pool);
    teardown(&f);
}
END_TEST

START_TEST(too_much) {
    fixture f;
    setup(&f, _i == 1);
    ck_assert_ptr_null(tl_pool_allocate(f.pool, SIZE_MAX));
    ck_assert_ptr_null(tl_pool_allocate(f.pool, SIZE_MAX / 4 - 100));
    void *small = tl_pool_allocate(f.pool, 100);
    ck_assert_ptr_nonnull(small);
    tl_context_set_memory_limit(f.context, held(&f) + (1 << 20));
    ck_assert_ptr_null(tl_pool_allocate(f.pool, 2 << 20));
    void *fits = tl_pool_allocate(f.pool, 1 << 19);
    ck_assert_ptr_nonnull(fits);
    ck_assert_uint_le(held(&f), tl_context_memory(f.context).limit);
    tl_pool_release(f.pool, small);
    tl_pool_release(f.pool, fits);
    teardown(&f);
}
END_TEST

/* With chunks: what lies idle in small pieces makes room for a large one under a budget. */
START_TEST(idle_chunks_make_room) {
    fixture f;
    setup(&f, true);
    void *blocks[4];
    for (int i = 0; i < 4; i++) {
        blocks[i] = tl_pool_allocate(f.pool, 1 << 18);
    }
    tl_context_set_memory_limit(f.context, held(&f) + 1000);
    for (int i = 0; i < 4; i++) {
        tl_pool_release(f.pool, blocks[i]);
    }
    void *large = tl_pool_allocate(f.pool, 1 << 20);
    ck_assert_ptr_nonnull(large);
    tl_pool_release(f.pool, large);
    teardown(&f);
}
END_TEST

/* What a block leaves holds two of half its size, then four of a quarter: their headers fit too. */
START_TEST(halves_fit) {
    fixture f;
    setup(&f, false);
    enum { MIB = 1 << 20 };
    void *whole = tl_pool_allocate(f.pool, 8 * MIB);
    void *behind = tl_pool_allocate(f.pool, MIB);
    ck_assert(whole != NULL && behind != NULL);
    const size_t before = held(&f);
    for (int parts = 1; parts <= 64; parts *= 2) {
        void *part[64];
        tl_pool_release(f.pool, whole);
        for (int i = 0; i < parts; i++) {
            part[i] = tl_pool_allocate(f.pool, (size_t)(8 * MIB / parts));
            ck_assert_ptr_nonnull(part[i]);
        }
        ck_assert_uint_eq(held(&f), before);
        for (int i = 0; i < parts; i++) {
            tl_pool_release(f.pool, part[i]);
        }
        whole = tl_pool_allocate(f.pool, 8 * MIB);
    }
    tl_pool_release(f.pool, whole);
    tl_pool_release(f.pool, behind);
    teardown(&f);
}
END_TEST

START_TEST(creation_fails) {
    failing_allocator allocator = {0};
    tl_context *context = tl_context_create(
        &(tl_context_config){.threads = 1, .allocator = failing_allocator_with(&allocator)});
    allocator.fail_at = allocator.calls + 1;
    ck_assert_ptr_null(tl_pool_create(context));
    tl_pool_free(NULL);
    tl_context_free(context);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("pool", &test_case);
    tcase_add_loop_test(test_case, blocks_do_not_overlap, 0, 2);
    tcase_add_test(test_case, neighbours_merge);
    tcase_add_loop_test(test_case, repeated_steps_need_no_more, 0, 2);
    tcase_add_loop_test(test_case, trim_gives_back, 0, 2);
    tcase_add_loop_test(test_case, too_much, 0, 2);
    tcase_add_test(test_case, idle_chunks_make_room);
    tcase_add_test(test_case, halves_fit);
    tcase_add_test(test_case, creation_fails);
    return run_suite(suite);
}
