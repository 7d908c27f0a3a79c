/* The tiled attention kernels against the definition: all weights, causal or not, heads as slices
 * of columns, tails of every block, large scores; on every instruction set, on 1, 2 and 3 threads
 * with the same bits.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "reference/reference_attention.h"

typedef struct shape {
    int64_t samples, heads, n, m, d_k, d_v;
    double size; /* of queries and keys */
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, 1, 1, 1},       {1, 1, 1, 7, 3, 2, 1},     {2, 1, 5, 1, 4, 9, 1},
    {1, 2, 97, 97, 5, 3, 1},     {2, 3, 96, 96, 8, 16, 1},  {1, 1, 191, 193, 32, 64, 1},
    {1, 1, 250, 63, 17, 33, 1},  {1, 1, 61, 500, 7, 13, 3}, {1, 4, 130, 130, 1, 1, 1},
    {1, 1, 410, 410, 16, 24, 2}, {1, 1, 800, 790, 9, 7, 1}, {1, 1, 100, 100, 70, 130, 1},
    {1, 1, 120, 300, 4, 8, 14},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct result {
    int64_t sizes[4];
    tl_real *o, *d_q, *d_k, *d_v;
} result;

static void release(result *r) {
    free(r->o);
    free(r->d_q);
    free(r->d_k);
    free(r->d_v);
}

static tl_attention_problem problem_of(const shape *s, tl_pair_weights weights, bool causal,
                                       double scale) {
    const tl_rows_layout layout_of_keys = {s->m * s->heads * s->d_k, s->d_k, s->heads * s->d_k};
    return (tl_attention_problem){
        .weights = weights,
        .causal = causal,
        .scale = (tl_real)scale,
        .samples = s->samples,
        .heads = s->heads,
        .queries = s->n,
        .keys = s->m,
        .d_k = s->d_k,
        .d_v = s->d_v,
        .q = {s->n * s->heads * s->d_k, s->d_k, s->heads * s->d_k},
        .k = layout_of_keys,
        .v = {s->m * s->heads * s->d_v, s->d_v, s->heads * s->d_v},
        .o = {s->n * s->heads * s->d_v, s->d_v, s->heads * s->d_v},
    };
}

/* Gradients start at 1, so that a kernel which overwrites is caught. */
static tl_real *ones(int64_t count) {
    tl_real *values = malloc((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++) {
        values[i] = 1;
    }
    return values;
}

static result run(const tl_kernels *kernels, const tl_attention_problem *p, const tl_real *q,
                  const tl_real *k, const tl_real *v, const tl_real *d_o, int threads) {
    const int64_t rows = p->samples * p->heads;
    result r = {{rows * p->queries * p->d_v, rows * p->queries * p->d_k, rows * p->keys * p->d_k,
                 rows * p->keys * p->d_v},
                NULL,
                NULL,
                NULL,
                NULL};
    r.o = ones(r.sizes[0]);
    r.d_q = ones(r.sizes[1]);
    r.d_k = ones(r.sizes[2]);
    r.d_v = ones(r.sizes[3]);
    tl_real *shift = ones(rows * p->queries);
    tl_real *inverse = ones(rows * p->queries);
    const size_t bytes = kernels->tiled_attention->scratch_bytes(p, threads);
    unsigned char *scratch = aligned_alloc(TL_ALIGNMENT, (bytes + 127) / 64 * 64);
    memset(scratch, 0xff, bytes + 64); /* NaN: must not matter */
    kernels->tiled_attention->forward(p, q, k, v, r.o, shift, inverse, scratch, threads);
    memset(scratch, 0xff, bytes);
    kernels->tiled_attention->backward(p, q, k, v, r.o, shift, inverse, d_o, r.d_q, r.d_k, r.d_v,
                                       scratch, threads);
    for (int i = 0; i < 64; i++) {
        ck_assert_msg(scratch[bytes + (size_t)i] == 0xff, "scratch was written beyond its end");
    }
    free(scratch);
    free(shift);
    free(inverse);
    return r;
}

/* Rows of one head as doubles, or (back) into a full array. */
static void gather(const tl_real *all, tl_rows_layout layout, int64_t sample, int64_t head,
                   int64_t rows, int64_t channels, double *out) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < channels; c++) {
            out[i * channels + c] =
                (double)all[sample * layout.sample + head * layout.head + i * layout.row + c];
        }
    }
}

static void scatter(const double *rows_in, tl_rows_layout layout, int64_t sample, int64_t head,
                    int64_t rows, int64_t channels, double offset, double *all) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < channels; c++) {
            all[sample * layout.sample + head * layout.head + i * layout.row + c] =
                rows_in[i * channels + c] + offset;
        }
    }
}

static double *doubles(int64_t count) {
    return malloc((size_t)count * sizeof(double));
}

static void check_against_reference(const char *what, const tl_attention_problem *p,
                                    const tl_real *q, const tl_real *k, const tl_real *v,
                                    const tl_real *d_o, const result *got) {
    double *want[4];
    for (int i = 0; i < 4; i++) {
        want[i] = doubles(got->sizes[i]);
    }
    const int64_t n = p->queries;
    const int64_t m = p->keys;
    double *in[4] = {doubles(n * p->d_k), doubles(m * p->d_k), doubles(m * p->d_v),
                     doubles(n * p->d_v)};
    double *out[4] = {doubles(n * p->d_v), doubles(n * p->d_k), doubles(m * p->d_k),
                      doubles(m * p->d_v)};
    double *map = doubles(n * m);
    for (int64_t s = 0; s < p->samples; s++) {
        for (int64_t h = 0; h < p->heads; h++) {
            gather(q, p->q, s, h, n, p->d_k, in[0]);
            gather(k, p->k, s, h, m, p->d_k, in[1]);
            gather(v, p->v, s, h, m, p->d_v, in[2]);
            gather(d_o, p->o, s, h, n, p->d_v, in[3]);
            const reference_attention a = {
                .weights = (reference_weights)p->weights,
                .causal = p->causal,
                .scale = (double)p->scale,
                .n = n,
                .m = m,
                .d_k = p->d_k,
                .d_v = p->d_v,
                .q = in[0],
                .k = in[1],
                .v = in[2],
                .d_o = in[3],
            };
            reference_attention_forward(&a, out[0], map);
            reference_attention_backward(&a, out[1], out[2], out[3]);
            scatter(out[0], p->o, s, h, n, p->d_v, 0, want[0]);
            scatter(out[1], p->q, s, h, n, p->d_k, 1, want[1]);
            scatter(out[2], p->k, s, h, m, p->d_k, 1, want[2]);
            scatter(out[3], p->v, s, h, m, p->d_v, 1, want[3]);
        }
    }
    const tl_real *results[4] = {got->o, got->d_q, got->d_k, got->d_v};
    const char *names[4] = {"o", "d_q", "d_k", "d_v"};
    for (int i = 0; i < 4; i++) {
        char text[200];
        (void)snprintf(text, sizeof text, "%s: %s", what, names[i]);
        assert_close(text, got->sizes[i], results[i], want[i], 2e-5, 1e-6);
        free(want[i]);
        free(in[i]);
        free(out[i]);
    }
    free(map);
}

static void check_problem(const tl_kernels *kernels, const shape *s, tl_pair_weights weights,
                          bool causal) {
    const tl_attention_problem p =
        problem_of(s, weights, causal, weights == TL_PAIR_SOFTMAX ? 1 : 1.0 / (double)s->m);
    const int64_t rows = s->samples * s->heads;
    tl_real *q = random_values(rows * s->n * s->d_k, 1, -s->size, s->size);
    tl_real *k = random_values(rows * s->m * s->d_k, 2, -s->size, s->size);
    tl_real *v = random_values(rows * s->m * s->d_v, 3, -1, 1);
    tl_real *d_o = random_values(rows * s->n * s->d_v, 4, -1, 1);
    char what[160];
    (void)snprintf(what, sizeof what, "%s, weights %d, causal %d, n %d, m %d, d_k %d, d_v %d",
                   kernels->isa, (int)weights, causal, (int)s->n, (int)s->m, (int)s->d_k,
                   (int)s->d_v);
    result one = run(kernels, &p, q, k, v, d_o, 1);
    check_against_reference(what, &p, q, k, v, d_o, &one);
    for (int threads = 2; threads <= 3; threads++) {
        result more = run(kernels, &p, q, k, v, d_o, threads);
        assert_same_bits(what, one.sizes[0], one.o, more.o);
        assert_same_bits(what, one.sizes[1], one.d_q, more.d_q);
        assert_same_bits(what, one.sizes[2], one.d_k, more.d_k);
        assert_same_bits(what, one.sizes[3], one.d_v, more.d_v);
        release(&more);
    }
    release(&one);
    free(q);
    free(k);
    free(v);
    free(d_o);
}

START_TEST(agrees_with_the_definition) {
    const char *isa = all_isas[_i % 3];
    const shape *s = &shapes[_i / 3];
    const char *reason;
    const tl_kernels *kernels = tl_kernels_select(isa, &reason);
    if (kernels == NULL) {
        return;
    }
    check_problem(kernels, s, TL_PAIR_SOFTMAX, false);
    check_problem(kernels, s, TL_PAIR_LINEAR, false);
    check_problem(kernels, s, TL_PAIR_RELU, false);
    if (s->n == s->m) {
        check_problem(kernels, s, TL_PAIR_SOFTMAX, true);
        check_problem(kernels, s, TL_PAIR_LINEAR, true);
    }
}
END_TEST

/* Scores that keep rising make the running shift rise again and again; scores of +-200 must neither
 * overflow nor lose the small weights' gradients. */
START_TEST(large_and_rising_scores_are_stable) {
    const char *reason;
    const tl_kernels *kernels = tl_kernels_select(all_isas[_i], &reason);
    if (kernels == NULL) {
        return;
    }
    enum { N = 300 };
    const shape s = {1, 1, N, N, 1, 2, 1};
    const tl_attention_problem p = problem_of(&s, TL_PAIR_SOFTMAX, false, 1);
    tl_real q[N], k[N];
    tl_real *v = random_values(2 * N, 5, -1, 1);
    tl_real *d_o = random_values(2 * N, 6, -1, 1);
    for (int i = 0; i < N; i++) {
        q[i] = (tl_real)(i % 2 == 0 ? 20 : -20);
        k[i] = (tl_real)(-10 + 20.0 * i / N);
    }
    result r = run(kernels, &p, q, k, v, d_o, 1);
    check_against_reference("scores up to 200", &p, q, k, v, d_o, &r);
    release(&r);
    free(v);
    free(d_o);
}
END_TEST

START_TEST(unwanted_gradients_are_skipped) {
    const char *reason;
    const tl_kernels *kernels = tl_kernels_select(NULL, &reason);
    const shape s = {1, 1, 30, 20, 3, 4, 1};
    const tl_attention_problem p = problem_of(&s, TL_PAIR_SOFTMAX, false, 1);
    tl_real *q = random_values(90, 1, -1, 1);
    tl_real *k = random_values(60, 2, -1, 1);
    tl_real *v = random_values(80, 3, -1, 1);
    tl_real *d_o = random_values(120, 4, -1, 1);
    result all = run(kernels, &p, q, k, v, d_o, 1);
    tl_real *o = ones(120), *shift = ones(30), *inverse = ones(30);
    void *scratch =
        aligned_alloc(64, (kernels->tiled_attention->scratch_bytes(&p, 1) + 63) / 64 * 64);
    kernels->tiled_attention->forward(&p, q, k, v, o, shift, inverse, scratch, 1);
    for (int wanted = 0; wanted < 3; wanted++) {
        tl_real *gradient = ones(90);
        kernels->tiled_attention->backward(
            &p, q, k, v, o, shift, inverse, d_o, wanted == 0 ? gradient : NULL,
            wanted == 1 ? gradient : NULL, wanted == 2 ? gradient : NULL, scratch, 1);
        const tl_real *want[3] = {all.d_q, all.d_k, all.d_v};
        assert_same_bits("single gradient", all.sizes[1 + wanted], gradient, want[wanted]);
        free(gradient);
    }
    release(&all);
    free(q);
    free(k);
    free(v);
    free(d_o);
    free(o);
    free(shift);
    free(inverse);
    free(scratch);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("tiled attention kernels", &test_case);
    tcase_add_loop_test(test_case, agrees_with_the_definition, 0, 3 * SHAPES);
    tcase_add_loop_test(test_case, large_and_rising_scores_are_stable, 0, 3);
    tcase_add_test(test_case, unwanted_gradients_are_skipped);
    return run_suite(suite);
}
