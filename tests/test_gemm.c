/* The product kernels against the definition: every path, on every instruction set, on 1, 2 and 3
 * threads with the same bits. The plan of each shape is recorded, and at the end every kind of plan
 * must have been met.
 */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "reference/reference_gemm.h"

typedef struct shape {
    int64_t m, n, k;
} shape;

/* Small and odd ones, the edges of register blocks and of cache blocks, long k, single rows and
 * columns. Each runs with all four combinations of transposed operands. */
static const shape shapes[] = {
    {1, 1, 1},      {1, 1, 5000},  {1, 700, 33},   {700, 1, 33},    {2, 3, 4},       {5, 17, 9},
    {7, 16, 300},   {13, 33, 65},  {12, 8, 7},     {25, 9, 31},     {6, 32, 256},    {31, 31, 257},
    {64, 10, 50},   {4, 40, 100},  {200, 70, 30},  {193, 513, 20},  {100, 130, 300}, {32, 32, 4096},
    {3, 65, 2100},  {48, 49, 770}, {97, 200, 129}, {16, 1100, 40},  {400, 24, 24},   {50, 64, 1030},
    {1, 513, 2500}, {65, 2, 4100}, {130, 97, 48},  {301, 150, 260}, {4100, 24, 270}, /* groups */
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct seen {
    bool sweep, dot, direct, only_a, only_b, both, pieces, long_k, many_m, many_n;
} seen;

static void record(seen *s, const tl_gemm_plan *p, int64_t k) {
    s->sweep |= p->sweep;
    s->dot |= p->dot;
    s->direct |= !p->dot && !p->sweep && !p->pack_a && !p->pack_b;
    s->only_a |= p->pack_a && !p->pack_b;
    s->only_b |= !p->pack_a && p->pack_b;
    s->both |= p->pack_a && p->pack_b;
    s->pieces |= p->pieces > 1;
    s->long_k |= p->pieces == 1 && k > p->block_k;
    s->many_m |= p->blocks_m > 1;
    s->many_n |= p->blocks_n > 1;
}

/* Runs a problem into a fresh copy of `start`, on that many threads. */
static tl_real *run(const tl_kernels *kernels, tl_gemm_problem problem, int64_t c_size,
                    const tl_real *start, int threads) {
    tl_real *c = malloc((size_t)c_size * sizeof(tl_real));
    memcpy(c, start, (size_t)c_size * sizeof(tl_real));
    const size_t bytes = kernels->gemm->scratch_bytes(&problem, threads);
    unsigned char *scratch = aligned_alloc(TL_ALIGNMENT, (bytes + 64 + 63) / 64 * 64);
    memset(scratch, 0xff, bytes + 64); /* NaN: must not matter */
    problem.c = c;
    kernels->gemm->multiply(&problem, scratch, threads);
    for (int i = 0; i < 64; i++) {
        ck_assert_msg(scratch[bytes + (size_t)i] == 0xff, "scratch was written beyond its end");
    }
    free(scratch);
    return c;
}

static void check_problem(const tl_kernels *kernels, shape s, bool transpose_a, bool transpose_b,
                          double alpha, double beta, bool use_bias, int64_t batch, int64_t gap,
                          seen *paths) {
    const int64_t row_a = (transpose_a ? s.m : s.k) + gap;
    const int64_t row_b = (transpose_b ? s.k : s.n) + 2 * gap;
    const int64_t row_c = s.n + 3 * gap;
    const int64_t size_a = row_a * (transpose_a ? s.k : s.m);
    const int64_t size_b = row_b * (transpose_b ? s.n : s.k);
    const int64_t size_c = row_c * s.m;
    tl_real *a = random_values(size_a * batch, 1, -1, 1);
    tl_real *b = random_values(size_b * batch, 2, -1, 1);
    tl_real *bias = random_values(s.n, 3, -1, 1);
    tl_real *start = random_values(size_c * batch, 4, -1, 1);
    if (beta == 0) {
        for (int64_t i = 0; i < size_c * batch; i++) {
            start[i] = (tl_real)NAN; /* must not be read */
        }
    }
    const tl_gemm_problem problem = {.m = s.m,
                                     .n = s.n,
                                     .k = s.k,
                                     .transpose_a = transpose_a,
                                     .transpose_b = transpose_b,
                                     .alpha = (tl_real)alpha,
                                     .beta = (tl_real)beta,
                                     .a = a,
                                     .b = b,
                                     .bias = use_bias ? bias : NULL,
                                     .row_stride_a = gap ? row_a : 0,
                                     .row_stride_b = gap ? row_b : 0,
                                     .row_stride_c = gap ? row_c : 0,
                                     .batch = batch,
                                     .batch_stride_a = size_a,
                                     .batch_stride_b = size_b,
                                     .batch_stride_c = size_c};
    const tl_gemm_plan plan = kernels->gemm->plan(&problem);
    record(paths, &plan, s.k);
    tl_real *c = run(kernels, problem, size_c * batch, start, 1);

    double *want = malloc((size_t)(s.m * s.n) * sizeof(double));
    tl_real *got = malloc((size_t)(s.m * s.n) * sizeof(tl_real));
    char what[160];
    snprintf(what, sizeof what, "%s %lldx%lldx%lld transposed %d%d alpha %g beta %g gap %lld",
             kernels->isa, (long long)s.m, (long long)s.n, (long long)s.k, transpose_a, transpose_b,
             alpha, beta, (long long)gap);
    for (int64_t item = 0; item < batch; item++) {
        reference_gemm(s.m, s.n, s.k, transpose_a, transpose_b, a + item * size_a, row_a,
                       b + item * size_b, row_b, want);
        for (int64_t i = 0; i < s.m; i++) {
            for (int64_t j = 0; j < s.n; j++) {
                const int64_t at = item * size_c + i * row_c + j;
                want[i * s.n + j] = alpha * want[i * s.n + j] + (use_bias ? bias[j] : 0) +
                                    (beta != 0 ? beta * start[at] : 0);
                got[i * s.n + j] = c[at];
            }
            for (int64_t j = s.n; j < row_c; j++) { /* the gap was left alone */
                const int64_t at = item * size_c + i * row_c + j;
                ck_assert_msg(memcmp(&c[at], &start[at], sizeof(tl_real)) == 0, "%s: gap", what);
            }
        }
        assert_close(what, s.m * s.n, got, want, 2e-6, 1e-6);
    }
    for (int threads = 2; threads <= 3; threads++) {
        tl_real *again = run(kernels, problem, size_c * batch, start, threads);
        ck_assert_msg(memcmp(c, again, (size_t)(size_c * batch) * sizeof(tl_real)) == 0,
                      "%s: %d threads give other bits", what, threads);
        free(again);
    }
    free(a);
    free(b);
    free(bias);
    free(start);
    free(c);
    free(want);
    free(got);
}

START_TEST(products) {
    for (int isa = 0; isa < 3; isa++) {
        const char *reason;
        const tl_kernels *kernels = tl_kernels_select(all_isas[isa], &reason);
        if (kernels == NULL) {
            continue;
        }
        seen paths = {0};
        for (int i = 0; i < SHAPES; i++) {
            for (int flags = 0; flags < 4; flags++) {
                const bool ta = flags & 1, tb = flags & 2;
                check_problem(kernels, shapes[i], ta, tb, 1, 0, false, 1, 0, &paths);
                check_problem(kernels, shapes[i], ta, tb, -0.5, 0.75, true, 1, i % 5 + 1, &paths);
            }
        }
        ck_assert(paths.sweep && paths.dot && paths.direct && paths.only_a && paths.only_b &&
                  paths.both);
        ck_assert(paths.pieces && paths.long_k && paths.many_m && paths.many_n);
    }
}
END_TEST

START_TEST(batches) {
    for (int isa = 0; isa < 3; isa++) {
        const char *reason;
        const tl_kernels *kernels = tl_kernels_select(all_isas[isa], &reason);
        if (kernels == NULL) {
            continue;
        }
        seen paths = {0};
        for (int flags = 0; flags < 4; flags++) {
            const bool ta = flags & 1, tb = flags & 2;
            check_problem(kernels, (shape){5, 7, 11}, ta, tb, 1, 1, true, 3, 0, &paths);
            check_problem(kernels, (shape){40, 33, 600}, ta, tb, 2, 0, false, 2, 1, &paths);
            check_problem(kernels, (shape){64, 64, 64}, ta, tb, 1, 0, false, 12, 0, &paths);
        }
    }
}
END_TEST

/* With k = 0 the product is a zero matrix; NaN and Inf reach the result, even times alpha = 0. */
START_TEST(special_values) {
    const char *reason;
    const tl_kernels *kernels = tl_kernels_select(NULL, &reason);
    tl_real a[4] = {1, 2, 3, 4}, b[4] = {1, 0, (tl_real)INFINITY, 1}, c[4] = {8, 8, 8, 8};
    tl_real bias[2] = {1, 2};
    const tl_gemm_problem empty = {.m = 2,
                                   .n = 2,
                                   .alpha = 1,
                                   .beta = (tl_real)0.5,
                                   .a = a,
                                   .b = b,
                                   .bias = bias,
                                   .row_stride_a = 1,
                                   .c = c};
    kernels->gemm->multiply(&empty, NULL, 1);
    ck_assert(c[0] == 5 && c[1] == 6 && c[2] == 5 && c[3] == 6);

    const tl_gemm_problem infinite = {.m = 2, .n = 2, .k = 2, .alpha = 0, .a = a, .b = b};
    tl_real *got = run(kernels, infinite, 4, c, 1);
    ck_assert(isnan((double)got[0]) && got[1] == 0 && isnan((double)got[2]) && got[3] == 0);
    free(got);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gemm", &test_case);
    tcase_add_test(test_case, products);
    tcase_add_test(test_case, batches);
    tcase_add_test(test_case, special_values);
    return run_suite(suite);
}
