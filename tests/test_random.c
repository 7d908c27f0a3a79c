/* Random numbers: known answers of Philox, ranges, moments, independence of streams. */
#include "support/support.h"

#include <math.h>

/* The known-answer vectors that come with Random123 (philox4x32, 10 rounds). */
START_TEST(known_answers) {
    static const struct {
        uint64_t seed, stream, counter;
        uint32_t want[4];
    } vectors[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint32_t got[4];
        tl_random_block(vectors[i].seed, vectors[i].stream, vectors[i].counter, got);
        for (int k = 0; k < 4; k++) {
            ck_assert_msg(got[k] == vectors[i].want[k], "vector %zu, word %d: %08x, not %08x", i, k,
                          got[k], vectors[i].want[k]);
        }
    }
}
END_TEST

START_TEST(stream_is_made_of_blocks) {
    tl_random random = tl_random_create(5, 3, 9);
    ck_assert(random.stream == ((uint64_t)3 << 32 | 9) && random.position == 0);
    for (uint64_t block = 0; block < 3; block++) {
        uint32_t want[4];
        tl_random_block(5, random.stream, block, want);
        for (int k = 0; k < 4; k++) {
            ck_assert_uint_eq(tl_random_u32(&random), want[k]);
        }
    }
    ck_assert_uint_eq(random.position, 12);
    /* saved and restored in the middle of a block */
    (void)tl_random_u32(&random);
    tl_random copy = random;
    for (int i = 0; i < 10; i++) {
        ck_assert_uint_eq(tl_random_u32(&random), tl_random_u32(&copy));
    }
}
END_TEST

START_TEST(streams_differ) {
    tl_random streams[] = {tl_random_create(1, 1, 0), tl_random_create(2, 1, 0),
                           tl_random_create(1, 2, 0), tl_random_create(1, 1, 1)};
    uint32_t first[4];
    for (int i = 0; i < 4; i++) {
        first[i] = tl_random_u32(&streams[i]);
        for (int k = 0; k < i; k++) {
            ck_assert_uint_ne(first[i], first[k]);
        }
    }
}
END_TEST

START_TEST(below) {
    enum { BOUND = 7, DRAWS = 70000 };
    tl_random random = tl_random_create(1, 1, 0);
    int counts[BOUND] = {0};
    for (int i = 0; i < DRAWS; i++) {
        const uint32_t v = tl_random_below(&random, BOUND);
        ck_assert_uint_lt(v, BOUND);
        counts[v]++;
    }
    double chi_squared = 0.0;
    for (int v = 0; v < BOUND; v++) {
        const double expected = (double)DRAWS / BOUND;
        chi_squared += (counts[v] - expected) * (counts[v] - expected) / expected;
    }
    ck_assert_double_lt(chi_squared, 25.0); /* 6 degrees of freedom: p = 3e-4 */
    ck_assert_uint_eq(tl_random_below(&random, 1), 0);
    ck_assert_uint_eq(tl_random_below(&random, 0), 0);
    /* a bound that rejects nearly half of all numbers */
    for (int i = 0; i < 1000; i++) {
        ck_assert_uint_lt(tl_random_below(&random, 0x80000001u), 0x80000001u);
    }
}
END_TEST

START_TEST(moments) {
    enum { DRAWS = 200000 };
    tl_random random = tl_random_create(3, 1, 0);
    double sum = 0.0;
    double squares = 0.0;
    for (int i = 0; i < DRAWS; i++) {
        const double u = (double)tl_random_uniform(&random);
        ck_assert(u >= 0.0 && u < 1.0);
        sum += u;
        squares += u * u;
    }
    ck_assert_double_eq_tol(sum / DRAWS, 0.5, 0.003);
    ck_assert_double_eq_tol(squares / DRAWS, 1.0 / 3.0, 0.003);
    double normal_sum = 0.0;
    double normal_squares = 0.0;
    double fourth = 0.0;
    for (int i = 0; i < DRAWS; i++) {
        const double z = tl_random_normal(&random);
        ck_assert(isfinite(z));
        normal_sum += z;
        normal_squares += z * z;
        fourth += z * z * z * z;
    }
    ck_assert_double_eq_tol(normal_sum / DRAWS, 0.0, 0.01);
    ck_assert_double_eq_tol(normal_squares / DRAWS, 1.0, 0.02);
    ck_assert_double_eq_tol(fourth / DRAWS, 3.0, 0.15);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("random", &test_case);
    tcase_add_test(test_case, known_answers);
    tcase_add_test(test_case, stream_is_made_of_blocks);
    tcase_add_test(test_case, streams_differ);
    tcase_add_test(test_case, below);
    tcase_add_test(test_case, moments);
    return run_suite(suite);
}
