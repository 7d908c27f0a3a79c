/* Efficient attention: values on every path and instruction set against a naive reference, the
 * properties it must have, bits, memory, cost and errors. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kernels/kernels.h>

#include "reference/reference_efficient_attention.h"

enum { WEIGHTS = 8 };

typedef struct problem {
    reference_attention shape;
    tl_real *x, *dy;
    tl_real *weights[WEIGHTS];
    int64_t sizes[WEIGHTS];
    int64_t x_size, y_size;
} problem;

static problem problem_of(reference_attention s, uint64_t seed, double range) {
    const int64_t C = s.channels, K = s.key_channels, V = s.value_channels;
    problem p = {.shape = s,
                 .x_size = s.batch * s.positions * C,
                 .y_size = s.batch * s.positions * (s.reprojection ? C : V),
                 .sizes = {K * C, K, K * C, K, V * C, V, C * V, C}};
    p.x = random_values(p.x_size, seed, -1, 1);
    p.dy = random_values(p.y_size, seed + 1, -1, 1);
    for (int i = 0; i < WEIGHTS; i++) {
        p.weights[i] = random_values(p.sizes[i], seed + 2 + (uint64_t)i, -range, range);
    }
    return p;
}

static void free_problem(problem *p) {
    free(p->x);
    free(p->dy);
    for (int i = 0; i < WEIGHTS; i++) {
        free(p->weights[i]);
    }
}

static tl_efficient_attention_config config_of(const reference_attention *s) {
    return (tl_efficient_attention_config){.key_channels = s->key_channels,
                                           .value_channels = s->value_channels,
                                           .heads = s->heads,
                                           .normalization = s->scaling ? TL_NORMALIZATION_SCALING
                                                                       : TL_NORMALIZATION_SOFTMAX,
                                           .temperature = s->scaling ? 0 : s->temperature,
                                           .use_reprojection = s->reprojection,
                                           .use_residual = s->residual};
}

/* y, dx and the gradients of the weights, one behind the other; the caller frees them. */
static tl_real *run_with(tl_tensor *(*operation)(tl_tape *, tl_tensor *,
                                                 const tl_efficient_attention_weights *,
                                                 const tl_efficient_attention_config *),
                         tl_context *context, const problem *p, int64_t *count) {
    const reference_attention *s = &p->shape;
    const int64_t C = s->channels, K = s->key_channels, V = s->value_channels;
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *x = tl_input_with_grad(tape, (tl_array[]){ARRAY(p->x, s->batch, s->positions, C)});
    const int64_t rows[WEIGHTS] = {K, K, K, K, V, V, C, C};
    tl_tensor *weights[WEIGHTS];
    for (int i = 0; i < WEIGHTS; i++) {
        const int64_t shape[2] = {rows[i], p->sizes[i] / rows[i]};
        const tl_array array = array_of(i % 2 == 0 ? 2 : 1, shape, p->weights[i]);
        weights[i] = tl_input_with_grad(tape, &array);
    }
    tl_efficient_attention_weights named = {weights[0], weights[1], weights[2], weights[3],
                                            weights[4], weights[5], weights[6], weights[7]};
    const tl_efficient_attention_config config = config_of(s);
    tl_tensor *y = operation(tape, x, &named, &config);
    ck_assert_msg(tl_tape_status(tape) == TL_OK, "%s", tl_tape_error(tape)->message);
    *count = p->y_size + p->x_size;
    const int used = s->reprojection ? WEIGHTS : WEIGHTS - 2;
    for (int i = 0; i < used; i++) {
        *count += p->sizes[i];
    }
    tl_real *all = malloc((size_t)*count * sizeof *all), *at = all;
    memcpy(at, tl_tensor_data(y), (size_t)p->y_size * sizeof *at);
    at += p->y_size;
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, (const tl_real *[]){p->dy}), TL_OK);
    memcpy(at, tl_tensor_grad(x), (size_t)p->x_size * sizeof *at);
    at += p->x_size;
    for (int i = 0; i < used; i++) {
        memcpy(at, tl_tensor_grad(weights[i]), (size_t)p->sizes[i] * sizeof *at);
        at += p->sizes[i];
    }
    tl_tape_free(tape);
    return all;
}

static tl_real *run(tl_context *context, const problem *p, int64_t *count) {
    return run_with(tl_efficient_attention, context, p, count);
}

static const reference_attention shapes[] = {
    {1, 500, 64, 32, 64, 1, false, true, true, 1},
    {3, 256, 64, 32, 64, 4, false, true, true, 1},
    {3, 256, 64, 32, 64, 4, true, true, true, 1},
    {40, 33, 16, 8, 16, 2, false, true, true, 1}, /* one piece, several samples a group */
    {2, 1000, 7, 3, 5, 1, false, true, true, 0.7},
    {2, 1000, 7, 3, 5, 1, true, true, true, 1},
    {1, 300, 3, 1, 3, 1, false, true, true, 1},
    {1, 300, 1, 1, 1, 1, false, true, true, 1},
    {2, 97, 256, 128, 256, 8, false, true, true, 1},
    {1, 200, 24, 24, 24, 24, false, true, true, 1}, /* heads = key channels */
    {2, 150, 9, 3, 12, 3, false, false, false, 1},  /* constant queries, in every form */
    {2, 1700, 12, 4, 12, 4, false, false, true, 1},
    {1, 2000, 5, 1, 7, 1, false, true, false, 1},
    {40, 31, 6, 2, 6, 2, false, true, true, 0.5},
    {1, 1000, 16, 8, 16, 1, false, true, true, 1}, /* few key channels */
    {2, 1000, 16, 8, 16, 4, true, true, true, 1},
    {3, 97, 5, 2, 9, 1, false, true, true, 0.7},
    {1, 1009, 33, 3, 9, 3, true, true, false, 1},
    {1, 4000, 64, 2, 64, 1, false, true, true, 1},
    {2, 130, 48, 1, 48, 1, true, true, true, 1},
    {5, 1, 9, 4, 6, 2, false, true, true, 1},
    {5, 1, 9, 4, 6, 2, true, true, true, 1},
    {2, 250, 32, 64, 4, 2, false, true, true, 1}, /* nothing folded */
    {2, 250, 32, 64, 4, 2, true, true, true, 1},
    {2, 150, 4, 32, 3, 1, false, true, true, 1}, /* only the output folded */
    {2, 120, 16, 8, 16, 2, false, false, true, 1},
    {2, 120, 20, 10, 20, 5, false, false, true, 1},
    {2, 120, 20, 10, 30, 5, true, false, false, 1},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* Which paths the shapes above take, so that none of them is tested by name only. */
START_TEST(shapes_reach_every_path) {
    bool constant = false, cut = false, several_in_a_group = false, part_of_a_tile = false;
    bool folded[2][2] = {{false}}; /* values, output */
    bool narrow[2] = {false}, narrow_with_avx2_too = false;
    for (int i = 0; i < SHAPES; i++) {
        const reference_attention *r = &shapes[i];
        const tl_attention_shape s = {
            r->batch, r->positions, r->channels,     r->key_channels, r->value_channels,
            r->heads, r->scaling,   r->reprojection, r->residual,     r->temperature};
        const tl_attention_cut cut_of = tl_attention_cut_of(&s);
        constant |= tl_attention_constant_queries(&s);
        folded[tl_attention_folds_values(&s)][tl_attention_folds_output(&s)] = true;
        narrow[tl_attention_is_narrow(&s, 16)] = true;
        narrow_with_avx2_too |= tl_attention_is_narrow(&s, 8);
        cut |= cut_of.pieces > 1;
        several_in_a_group |= cut_of.groups < cut_of.units;
        part_of_a_tile |= s.positions % TL_ATTENTION_TILE != 0;
    }
    ck_assert(constant && cut && several_in_a_group && part_of_a_tile);
    ck_assert(folded[0][0] && folded[0][1] && folded[1][0] && folded[1][1]);
    ck_assert(narrow[0] && narrow[1] && narrow_with_avx2_too);
}
END_TEST

START_TEST(values) {
    problem p = problem_of(shapes[_i], 50 + (uint64_t)_i, 0.5);
    double *want = malloc((size_t)p.y_size * sizeof *want);
    reference_efficient_attention(&p.shape, p.x, (const tl_real *const *)p.weights, want);
    double *first = NULL;
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        tl_context *context = context_with(2, all_isas[isa]);
        int64_t count;
        tl_real *got = run(context, &p, &count);
        assert_close(all_isas[isa], p.y_size, got, want, 2e-6, 1e-6);
        if (first == NULL) { /* gradients are proved in double; here the sets must agree */
            first = malloc((size_t)count * sizeof *first);
            for (int64_t i = 0; i < count; i++) {
                first[i] = (double)got[i];
            }
        }
        assert_close(all_isas[isa], count, got, first, 1e-5, 1e-6);
        free(got);
        tl_context_free(context);
    }
    free(first);
    free(want);
    free_problem(&p);
}
END_TEST

START_TEST(composed_agrees) {
    problem p = problem_of(shapes[_i], 70 + (uint64_t)_i, 0.5);
    tl_context *context = context_with(2, NULL);
    int64_t count;
    tl_real *fused = run(context, &p, &count);
    tl_real *composed = run_with(tl_efficient_attention_composed, context, &p, &count);
    double *want = malloc((size_t)count * sizeof *want);
    for (int64_t i = 0; i < count; i++) {
        want[i] = (double)composed[i];
    }
    assert_close("composed", count, fused, want, 1e-5, 1e-6);
    free(fused);
    free(composed);
    free(want);
    tl_context_free(context);
    free_problem(&p);
}
END_TEST

START_TEST(threads_do_not_change_bits) {
    problem p = problem_of(shapes[_i], 90 + (uint64_t)_i, 0.5);
    tl_real *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        tl_context *context = context_with(threads, NULL);
        int64_t count;
        tl_real *got = run(context, &p, &count);
        if (first == NULL) {
            first = got;
        } else {
            assert_same_bits("threads", count, first, got);
            free(got);
        }
        tl_context_free(context);
    }
    free(first);
    free_problem(&p);
}
END_TEST

/* Logits that rise from tile to tile up to +-200: the maximum must be raised and what was summed
 * scaled down, many times. */
START_TEST(rising_logits) {
    problem p = problem_of((reference_attention){1, 1500, 6, 4, 6, 2, false, true, true, 1}, 11, 1);
    for (int64_t i = 0; i < p.shape.positions; i++) {
        for (int64_t c = 0; c < 6; c++) {
            p.x[i * 6 + c] *= (tl_real)0.1;
        }
        p.x[i * 6] = (tl_real)i / 1500;
    }
    for (int64_t a = 0; a < 4; a++) {
        p.weights[2][a * 6] = a % 2 == 0 ? 200 : -200;
        p.weights[0][a * 6] = a % 2 == 0 ? -200 : 200;
    }
    double *want = malloc((size_t)p.y_size * sizeof *want);
    reference_efficient_attention(&p.shape, p.x, (const tl_real *const *)p.weights, want);
    tl_context *context = context_with(2, NULL);
    int64_t count;
    tl_real *got = run(context, &p, &count);
    assert_close("rising logits", p.y_size, got, want, 1e-4, 1e-5);
    for (int64_t i = 0; i < count; i++) {
        ck_assert(isfinite((double)got[i]));
    }
    free(got);
    free(want);
    tl_context_free(context);
    free_problem(&p);
}
END_TEST

/* With values 1 everywhere each position receives the sum of its row of the implied map. */
START_TEST(rows_of_the_implied_map_sum_to_one) {
    problem p =
        problem_of((reference_attention){2, 333, 5, 6, 4, 2, false, false, false, 1}, 21, 2);
    memset(p.weights[4], 0, (size_t)p.sizes[4] * sizeof(tl_real));
    double *want = malloc((size_t)p.y_size * sizeof *want);
    for (int64_t i = 0; i < p.sizes[5]; i++) {
        p.weights[5][i] = 1;
    }
    for (int64_t i = 0; i < p.y_size; i++) {
        want[i] = 1;
    }
    tl_context *context = context_with(1, NULL);
    int64_t count;
    tl_real *got = run(context, &p, &count);
    assert_close("row sums", p.y_size, got, want, 1e-6, 0);
    free(got);
    free(want);
    tl_context_free(context);
    free_problem(&p);
}
END_TEST

/* Scaling is dot-product attention: out_i = sum over j of (q_i . k_j / n) v_j. Written out with the
 * n x n map. */
START_TEST(scaling_is_dot_product_attention) {
    enum { N = 29, C = 4, K = 3, V = 5 };
    problem p = problem_of((reference_attention){1, N, C, K, V, 1, true, false, false, 1}, 31, 1);
    double q[N][K], k[N][K], v[N][V], want[N * V] = {0};
    for (int i = 0; i < N; i++) {
        for (int a = 0; a < K; a++) {
            q[i][a] = (double)p.weights[1][a];
            k[i][a] = (double)p.weights[3][a];
            for (int c = 0; c < C; c++) {
                q[i][a] += (double)p.weights[0][a * C + c] * (double)p.x[i * C + c];
                k[i][a] += (double)p.weights[2][a * C + c] * (double)p.x[i * C + c];
            }
        }
        for (int j = 0; j < V; j++) {
            v[i][j] = (double)p.weights[5][j];
            for (int c = 0; c < C; c++) {
                v[i][j] += (double)p.weights[4][j * C + c] * (double)p.x[i * C + c];
            }
        }
    }
    for (int i = 0; i < N; i++) {
        for (int o = 0; o < N; o++) {
            const double map = (q[i][0] * k[o][0] + q[i][1] * k[o][1] + q[i][2] * k[o][2]) / N;
            for (int j = 0; j < V; j++) {
                want[i * V + j] += map * v[o][j];
            }
        }
    }
    tl_context *context = context_with(1, NULL);
    int64_t count;
    tl_real *got = run(context, &p, &count);
    assert_close("dot product", N * V, got, want, 2e-6, 0);
    free(got);
    tl_context_free(context);
    free_problem(&p);
}
END_TEST

/* Reversing the positions reverses y and dx, and leaves the weights' gradients. */
/* One head as the paper writes it before it speaks of heads: x + (q (k^T v)) Wr^T + br. */
static tl_tensor *without_heads(tl_tape *tape, tl_tensor *x,
                                const tl_efficient_attention_weights *w,
                                const tl_efficient_attention_config *config) {
    (void)config;
    const int swap[3] = {0, 2, 1};
    tl_tensor *queries = tl_softmax(tape, tl_linear(tape, x, w->query_weight, w->query_bias), 2);
    tl_tensor *keys = tl_softmax(tape, tl_linear(tape, x, w->key_weight, w->key_bias), 1);
    tl_tensor *v = tl_linear(tape, x, w->value_weight, w->value_bias);
    tl_tensor *context = tl_matmul(tape, tl_permute(tape, keys, swap), v);
    tl_tensor *out = tl_matmul(tape, queries, context);
    out = tl_linear(tape, out, w->reprojection_weight, w->reprojection_bias);
    return tl_add(tape, x, out);
}

START_TEST(one_head_is_no_heads) {
    problem p =
        problem_of((reference_attention){3, 150, 24, 12, 20, 1, false, true, true, 1}, 61, 1);
    tl_context *context = context_with(2, NULL);
    int64_t count;
    tl_real *fused = run(context, &p, &count);
    tl_real *composed = run_with(tl_efficient_attention_composed, context, &p, &count);
    tl_real *simple = run_with(without_heads, context, &p, &count);
    double *want = malloc((size_t)count * sizeof *want);
    for (int64_t i = 0; i < count; i++) {
        want[i] = (double)simple[i];
    }
    assert_close("fused", count, fused, want, 1e-5, 1e-6);
    assert_close("composed", count, composed, want, 1e-5, 1e-6);
    free(fused);
    free(composed);
    free(simple);
    free(want);
    tl_context_free(context);
    free_problem(&p);
}
END_TEST

START_TEST(positions_may_be_permuted) {
    const int64_t n = 700, C = 8;
    problem p = problem_of((reference_attention){1, n, C, 4, 8, 2, false, true, true, 1}, 41, 1);
    problem r = problem_of(p.shape, 41, 1);
    for (int64_t i = 0; i < n; i++) {
        memcpy(r.x + i * C, p.x + (n - 1 - i) * C, (size_t)C * sizeof(tl_real));
        memcpy(r.dy + i * C, p.dy + (n - 1 - i) * C, (size_t)C * sizeof(tl_real));
    }
    tl_context *context = context_with(2, NULL);
    int64_t count;
    tl_real *straight = run(context, &p, &count), *reversed = run(context, &r, &count);
    double *want = malloc((size_t)count * sizeof *want);
    for (int64_t i = 0; i < count; i++) {
        const int64_t block = i / (n * C), at = i % (n * C);
        want[i] = (double)(block < 2 ? straight[block * n * C + (n - 1 - at / C) * C + at % C]
                                     : straight[i]);
    }
    assert_close("permuted", count, reversed, want, 2e-6, 0);
    free(straight);
    free(reversed);
    free(want);
    tl_context_free(context);
    free_problem(&p);
    free_problem(&r);
}
END_TEST

START_TEST(a_batch_is_its_samples) {
    problem p = problem_of((reference_attention){5, 230, 8, 4, 8, 2, false, true, true, 1}, 51, 1);
    tl_context *context = context_with(2, NULL);
    int64_t count;
    tl_real *whole = run(context, &p, &count);
    const int64_t values_each = 230 * 8, weights = count - p.y_size - p.x_size;
    double *want = calloc((size_t)count, sizeof *want);
    for (int64_t sample = 0; sample < 5; sample++) {
        problem one = p;
        one.shape.batch = 1;
        one.x = p.x + sample * values_each;
        one.dy = p.dy + sample * values_each;
        one.x_size = one.y_size = values_each;
        int64_t part_count;
        tl_real *part = run(context, &one, &part_count);
        for (int64_t i = 0; i < values_each; i++) {
            want[sample * values_each + i] = (double)part[i];
            want[p.y_size + sample * values_each + i] = (double)part[values_each + i];
        }
        for (int64_t i = 0; i < weights; i++) {
            want[p.y_size + p.x_size + i] += (double)part[2 * values_each + i];
        }
        free(part);
    }
    assert_close("batch", count, whole, want, 2e-6, 0);
    free(whole);
    free(want);
    tl_context_free(context);
    free_problem(&p);
}
END_TEST

START_TEST(scratch_does_not_depend_on_positions) {
    tl_attention_shape shape = {.batch = 1,
                                .positions = 100000,
                                .channels = 64,
                                .key_channels = 32,
                                .value_channels = 64,
                                .heads = 1,
                                .reprojection = true,
                                .residual = true,
                                .temperature = 1};
    const char *reason;
    const tl_efficient_attention_kernels *kernels =
        tl_kernels_select("baseline", &reason)->efficient_attention;
    const size_t forward = kernels->forward_scratch_bytes(&shape, 2);
    const size_t backward = kernels->backward_scratch_bytes(&shape, 2);
    shape.positions = 10000000;
    ck_assert(kernels->forward_scratch_bytes(&shape, 2) == forward);
    ck_assert(kernels->backward_scratch_bytes(&shape, 2) == backward);
    ck_assert_msg(forward + backward < 4u << 20, "%zu + %zu", forward, backward);
}
END_TEST

static tl_tensor *filled(tl_context *context, int rank, int64_t rows, int64_t columns) {
    tl_tensor *tensor = tl_tensor_create(context, rank, (int64_t[]){rows, columns}, true, NULL);
    ck_assert_ptr_nonnull(tensor);
    return tensor;
}

START_TEST(errors) {
    tl_context *context = context_with(1, NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_efficient_attention_weights w = {filled(context, 2, 4, 8), filled(context, 1, 4, 0),
                                        filled(context, 2, 4, 8), filled(context, 1, 4, 0),
                                        filled(context, 2, 8, 8), filled(context, 1, 8, 0),
                                        filled(context, 2, 8, 8), filled(context, 1, 8, 0)};
    tl_real zeros[2 * 5 * 8] = {0};
    const tl_array good = ARRAY(zeros, 2, 5, 8), flat = ARRAY(zeros, 8), other = ARRAY(zeros, 2, 4);
    const tl_efficient_attention_config base = tl_efficient_attention_config_default();
    ck_assert_ptr_nonnull(tl_efficient_attention(tape, tl_input(tape, &good), &w, NULL));
    struct {
        const tl_array *x;
        tl_efficient_attention_config config;
        tl_status status;
        const char *part;
    } wrong[] = {
        {&flat, base, TL_ERROR_SHAPE, "expected x [N, spatial..., C], found [8]"},
        {&other, base, TL_ERROR_SHAPE, "expected query weight [2, 4] and bias [2], found [4, 8]"},
        {&good, base, TL_ERROR_SHAPE, "expected x with 3 channels, found 8"},
        {&good, base, TL_ERROR_INVALID_ARGUMENT, "heads must divide"},
        {&good, base, TL_ERROR_INVALID_ARGUMENT, "must not be negative"},
        {&good, base, TL_ERROR_INVALID_ARGUMENT, "temperature must be positive, found -1"},
        {&good, base, TL_ERROR_INVALID_ARGUMENT, "temperature belongs to softmax"},
        {&good, base, TL_ERROR_INVALID_ARGUMENT, "unknown normalization 9"},
        {&good, base, TL_ERROR_INVALID_ARGUMENT, "needs value_channels = in_channels"},
        {&good, base, TL_ERROR_SHAPE, "expected value weight [4, 8] and bias [4], found [8, 8]"},
    };
    wrong[2].config.in_channels = 3;
    wrong[3].config.heads = 3;
    wrong[4].config.key_channels = -4;
    wrong[5].config.temperature = -1;
    wrong[6].config.temperature = 2;
    wrong[6].config.normalization = TL_NORMALIZATION_SCALING;
    wrong[7].config.normalization = (tl_normalization)9;
    wrong[8].config.use_reprojection = false;
    wrong[8].config.value_channels = 4;
    wrong[9].config.value_channels = 4;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        tl_tape_reset(tape);
        ck_assert_ptr_null(
            tl_efficient_attention(tape, tl_input(tape, wrong[i].x), &w, &wrong[i].config));
        assert_tape_error(tape, wrong[i].status, "efficient_attention: ");
        assert_tape_error(tape, wrong[i].status, wrong[i].part);
        tl_tape_reset(tape);
        ck_assert_ptr_null(tl_efficient_attention_composed(tape, tl_input(tape, wrong[i].x), &w,
                                                           &wrong[i].config));
        ck_assert_int_eq(tl_tape_status(tape), wrong[i].status);
    }
    tl_tape_free(tape);
    tl_tensor *all[] = {w.query_weight, w.query_bias, w.key_weight,          w.key_bias,
                        w.value_weight, w.value_bias, w.reprojection_weight, w.reprojection_bias};
    for (int i = 0; i < WEIGHTS; i++) {
        tl_tensor_free(all[i]);
    }
    tl_context_free(context);
}
END_TEST

START_TEST(layer) {
    tl_context *context = context_with(1, NULL);
    tl_parameters *parameters = tl_parameters_create(context, NULL);
    tl_random random = tl_random_create(1, 2, 0);
    tl_efficient_attention_layer attention;
    tl_error error;
    tl_efficient_attention_config config = tl_efficient_attention_config_default();
    ck_assert_int_eq(
        tl_efficient_attention_layer_init(&attention, parameters, "a", &config, &random, &error),
        TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "in_channels must be at least 1");
    config.in_channels = 6;
    config.heads = 3;
    config.zero_reprojection = true;
    ck_assert_int_eq(tl_efficient_attention_layer_init(&attention, parameters, "stages.1.attention",
                                                       &config, &random, &error),
                     TL_OK);
    ck_assert_int_eq(tl_parameters_count(parameters), 8);
    const char *names[] = {"keys", "queries", "values", "reprojection"};
    for (int i = 0; i < 4; i++) {
        char name[TL_NAME_SIZE];
        snprintf(name, sizeof name, "stages.1.attention.%s.weight", names[i]);
        ck_assert_ptr_nonnull(tl_parameters_find(parameters, name));
        snprintf(name, sizeof name, "stages.1.attention.%s.bias", names[i]);
        ck_assert_ptr_nonnull(tl_parameters_find(parameters, name));
    }
    ck_assert_int_eq(tl_efficient_attention_layer_init(&attention, parameters, "stages.1.attention",
                                                       &config, &random, NULL),
                     TL_ERROR_INVALID_ARGUMENT);
    tl_tape *tape = tl_tape_create(context);
    tl_real *pixels = random_values(2 * 3 * 5 * 6, 4, -1, 1);
    config.zero_reprojection = true;
    ck_assert_int_eq(
        tl_efficient_attention_layer_init(&attention, parameters, "b", &config, &random, &error),
        TL_OK);
    tl_tensor *y = tl_efficient_attention_layer_forward(
        &attention, tape, tl_input(tape, (tl_array[]){ARRAY(pixels, 2, 3, 5, 6)}));
    assert_same_bits("starts as the identity", 2 * 3 * 5 * 6, pixels, tl_tensor_data(y));
    free(pixels);
    tl_tape_free(tape);
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

START_TEST(maps) {
    for (int scaling = 0; scaling < 2; scaling++) {
        enum { BATCH = 2, N = 210, C = 5, K = 6 };
        problem p =
            problem_of((reference_attention){BATCH, N, C, K, 4, 2, scaling, true, true, 1}, 61, 1);
        tl_context *context = context_with(3, NULL);
        tl_tape *tape = tl_tape_create(context);
        tl_efficient_attention_weights w;
        tl_tensor **slots[WEIGHTS] = {
            &w.query_weight, &w.query_bias, &w.key_weight,          &w.key_bias,
            &w.value_weight, &w.value_bias, &w.reprojection_weight, &w.reprojection_bias};
        const int64_t rows[WEIGHTS] = {K, K, K, K, 4, 4, C, C};
        for (int i = 0; i < WEIGHTS; i++) {
            const int64_t shape[2] = {rows[i], p.sizes[i] / rows[i]};
            const tl_array array = array_of(i % 2 == 0 ? 2 : 1, shape, p.weights[i]);
            *slots[i] = tl_input_with_grad(tape, &array);
        }
        const tl_efficient_attention_config config = config_of(&p.shape);
        tl_tensor *got = tl_efficient_attention_maps(
            tape, tl_input(tape, (tl_array[]){ARRAY(p.x, BATCH, 21, 10, C)}), &w, &config);
        ck_assert_ptr_nonnull(got);
        ck_assert(tl_tape_is_recording(tape));
        ck_assert_int_eq(tl_tensor_rank(got), 4);
        ck_assert(tl_tensor_shape(got)[3] == K);
        double *want = malloc(BATCH * N * K * sizeof *want);
        for (int64_t at = 0; at < BATCH * K; at++) {
            const int64_t sample = at / K, a = at % K;
            double sum = 0;
            for (int64_t i = 0; i < N; i++) {
                double key = (double)p.weights[3][a];
                for (int64_t c = 0; c < C; c++) {
                    key += (double)p.weights[2][a * C + c] * (double)p.x[(sample * N + i) * C + c];
                }
                want[(sample * N + i) * K + a] = scaling ? key / sqrt(N) : exp(key);
                sum += exp(key);
            }
            for (int64_t i = 0; i < N && !scaling; i++) {
                want[(sample * N + i) * K + a] /= sum;
            }
        }
        assert_close("maps", BATCH * N * K, tl_tensor_data(got), want, 2e-6, 0);
        free(want);
        tl_tape_free(tape);
        tl_context_free(context);
        free_problem(&p);
    }
}
END_TEST

int main(void) {
    TCase *tests;
    Suite *suite = suite_with_case("efficient attention", &tests);
    tcase_add_test(tests, shapes_reach_every_path);
    tcase_add_loop_test(tests, values, 0, SHAPES);
    tcase_add_loop_test(tests, composed_agrees, 0, SHAPES);
    tcase_add_loop_test(tests, threads_do_not_change_bits, 0, SHAPES);
    tcase_add_test(tests, rising_logits);
    tcase_add_test(tests, rows_of_the_implied_map_sum_to_one);
    tcase_add_test(tests, scaling_is_dot_product_attention);
    tcase_add_test(tests, one_head_is_no_heads);
    tcase_add_test(tests, positions_may_be_permuted);
    tcase_add_test(tests, a_batch_is_its_samples);
    tcase_add_test(tests, scratch_does_not_depend_on_positions);
    tcase_add_test(tests, errors);
    tcase_add_test(tests, layer);
    tcase_add_test(tests, maps);
    return run_suite(suite);
}
