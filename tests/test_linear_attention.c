/* Causal linear attention against its definition; causality, bits, errors. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    int64_t batch, length, heads, D, E;
} shape;

static double feature(double u) {
    return u > 0 ? u + 1 : exp(u);
}

static void reference(const shape *s, const tl_real *q, const tl_real *k, const tl_real *v,
                      double *y) {
    const int64_t K = s->heads * s->D, V = s->heads * s->E;
    for (int64_t at = 0; at < s->batch * s->heads * s->length; at++) {
        const int64_t n = at / (s->heads * s->length), head = at / s->length % s->heads;
        const int64_t i = at % s->length;
        double sum = 1e-6;
        double *out = y + (n * s->length + i) * V + head * s->E;
        memset(out, 0, (size_t)s->E * sizeof *out);
        for (int64_t j = 0; j <= i; j++) {
            double weight = 0;
            for (int64_t a = 0; a < s->D; a++) {
                weight += feature((double)q[(n * s->length + i) * K + head * s->D + a]) *
                          feature((double)k[(n * s->length + j) * K + head * s->D + a]);
            }
            sum += weight;
            for (int64_t e = 0; e < s->E; e++) {
                out[e] += weight * (double)v[(n * s->length + j) * V + head * s->E + e];
            }
        }
        for (int64_t e = 0; e < s->E; e++) {
            out[e] /= sum;
        }
    }
}

/* y, dq, dk, dv one behind the other. */
static tl_real *run(tl_context *context, const shape *s, tl_real *q, tl_real *k, tl_real *v,
                    const tl_real *dy) {
    const int64_t K = s->heads * s->D, V = s->heads * s->E, rows = s->batch * s->length;
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *tensors[3];
    tensors[0] = tl_input_with_grad(tape, (tl_array[]){ARRAY(q, s->batch, s->length, K)});
    tensors[1] = tl_input_with_grad(tape, (tl_array[]){ARRAY(k, s->batch, s->length, K)});
    tensors[2] = tl_input_with_grad(tape, (tl_array[]){ARRAY(v, s->batch, s->length, V)});
    tl_tensor *y = tl_causal_linear_attention(tape, tensors[0], tensors[1], tensors[2], s->heads);
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, &dy), TL_OK);
    tl_real *all = malloc((size_t)(2 * rows * (K + V)) * sizeof *all), *at = all;
    memcpy(at, tl_tensor_data(y), (size_t)(rows * V) * sizeof *at);
    at += rows * V;
    for (int i = 0; i < 3; i++) {
        const int64_t size = tl_tensor_size(tensors[i]);
        memcpy(at, tl_tensor_grad(tensors[i]), (size_t)size * sizeof *at);
        at += size;
    }
    tl_tape_free(tape);
    return all;
}

static const shape shapes[] = {{2, 200, 2, 16, 8}, {1, 64, 1, 5, 7},    {1, 65, 3, 1, 1},
                               {3, 1, 1, 4, 3},    {2, 130, 1, 33, 15}, {1, 300, 4, 8, 16}};

START_TEST(values_and_bits) {
    const shape s = shapes[_i];
    const int64_t rows = s.batch * s.length, K = s.heads * s.D, V = s.heads * s.E;
    tl_real *q = random_values(rows * K, 1, -2, 2), *k = random_values(rows * K, 2, -2, 2);
    tl_real *v = random_values(rows * V, 3, -1, 1), *dy = random_values(rows * V, 4, -1, 1);
    double *want = malloc((size_t)(rows * V) * sizeof *want), *gradients = NULL;
    const int64_t count = 2 * rows * (K + V);
    reference(&s, q, k, v, want);
    for (int isa = 0; isa < 3; isa++) {
        tl_real *first = NULL;
        for (int threads = 1; threads <= 3 && isa_available(all_isas[isa]); threads++) {
            tl_context *context = context_with(threads, all_isas[isa]);
            tl_real *got = run(context, &s, q, k, v, dy);
            assert_close(all_isas[isa], rows * V, got, want, 3e-6, 0);
            if (first == NULL) {
                first = got;
            } else {
                assert_same_bits("threads", count, first, got);
                free(got);
            }
            tl_context_free(context);
        }
        if (gradients == NULL) {
            gradients = malloc((size_t)count * sizeof *gradients);
            for (int64_t i = 0; i < count; i++) {
                gradients[i] = (double)first[i];
            }
        } else if (first != NULL) {
            assert_close(all_isas[isa], count, first, gradients, 1e-5, 0);
        }
        free(first);
    }
    free(gradients);
    free(want);
    free(q);
    free(k);
    free(v);
    free(dy);
}
END_TEST

/* What comes later changes nothing; gradients do not flow to it either. */
START_TEST(the_past_does_not_see_the_future) {
    const shape s = {1, 150, 2, 3, 4};
    tl_real *q = random_values(150 * 6, 1, -1, 1), *k = random_values(150 * 6, 2, -1, 1);
    tl_real *v = random_values(150 * 8, 3, -1, 1), *dy = random_values(150 * 8, 4, -1, 1);
    memset(dy + 70 * 8, 0, 80 * 8 * sizeof *dy);
    tl_context *context = context_with(1, NULL);
    tl_real *before = run(context, &s, q, k, v, dy);
    for (int64_t i = 70 * 6; i < 150 * 6; i++) {
        k[i] = 3 - k[i];
    }
    for (int64_t i = 70 * 8; i < 150 * 8; i++) {
        v[i] = 3 - v[i];
    }
    tl_real *after = run(context, &s, q, k, v, dy);
    assert_same_bits("y", 70 * 8, before, after);
    for (int64_t i = 70 * 8; i < 150 * 8; i++) {
        ck_assert(after[150 * 8 + 2 * 150 * 6 + i] == 0);
    }
    free(before);
    free(after);
    tl_context_free(context);
    free(q);
    free(k);
    free(v);
    free(dy);
}
END_TEST

START_TEST(errors) {
    tl_context *context = context_with(1, NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_real zeros[60] = {0};
    const tl_array a = ARRAY(zeros, 2, 5, 6), b = ARRAY(zeros, 2, 5, 4), c = ARRAY(zeros, 2, 6);
    ck_assert_ptr_null(tl_causal_linear_attention(tape, tl_input(tape, &a), tl_input(tape, &b),
                                                  tl_input(tape, &a), 1));
    assert_tape_error(tape, TL_ERROR_SHAPE,
                      "causal_linear_attention: expected q [N, L, heads D], k [N, L, heads D] and "
                      "v [N, L, heads E], found q [2, 5, 6], k [2, 5, 4] and v [2, 5, 6]");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_causal_linear_attention(tape, tl_input(tape, &c), tl_input(tape, &c),
                                                  tl_input(tape, &c), 1));
    assert_tape_error(tape, TL_ERROR_SHAPE, "found q [2, 6]");
    tl_tape_reset(tape);
    tl_tensor *x = tl_input(tape, &a);
    ck_assert_ptr_null(tl_causal_linear_attention(tape, x, x, x, 4));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "found 4 heads, 6 and 6 channels");
    tl_tape_free(tape);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *tests;
    Suite *suite = suite_with_case("linear attention", &tests);
    tcase_add_loop_test(tests, values_and_bits, 0, sizeof shapes / sizeof shapes[0]);
    tcase_add_test(tests, the_past_does_not_see_the_future);
    tcase_add_test(tests, errors);
    return run_suite(suite);
}
