/* tl_attention: values in both implementations and layouts, bits on 1, 2 and 3 threads, cost,
 * errors, the memory budget. The kernels have a test of their own: test_tiled_attention.c.
 */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "reference/reference_attention.h"

#define INPUT(create, tape, data, ...) create(tape, (tl_array[]){ARRAY(data, __VA_ARGS__)})

enum { N = 2, H = 3, L = 37, M = 53, D = 5, E = 4 };

/* o, dq, dk, dv of rank-4 inputs by the definition, one after the other. */
enum {
    O_SIZE = N * H * L * E,
    Q_SIZE = N * H * L * D,
    K_SIZE = N * H * M * D,
    V_SIZE = N * H * M * E
};

static void reference(const tl_real *q, const tl_real *k, const tl_real *v, const tl_real *d_o,
                      double scale, double *o, double *d_q, double *d_k, double *d_v) {
    static double in[4][N * H * M * D];
    static double map[L * M];
    const tl_real *from[4] = {q, k, v, d_o};
    const int64_t sizes[4] = {Q_SIZE, K_SIZE, V_SIZE, O_SIZE};
    for (int t = 0; t < 4; t++) {
        for (int64_t i = 0; i < sizes[t]; i++) {
            in[t][i] = (double)from[t][i];
        }
    }
    for (int h = 0; h < N * H; h++) {
        const reference_attention a = {.weights = REFERENCE_SOFTMAX,
                                       .scale = scale,
                                       .n = L,
                                       .m = M,
                                       .d_k = D,
                                       .d_v = E,
                                       .q = in[0] + h * L * D,
                                       .k = in[1] + h * M * D,
                                       .v = in[2] + h * M * E,
                                       .d_o = in[3] + h * L * E};
        reference_attention_forward(&a, o + h * L * E, map);
        reference_attention_backward(&a, d_q + h * L * D, d_k + h * M * D, d_v + h * M * E);
    }
}

typedef struct results {
    tl_real *values[4];
    tl_cost cost;
} results;

static const int64_t sizes[4] = {O_SIZE, Q_SIZE, K_SIZE, V_SIZE};

static results run(int threads, const char *isa, const tl_attention_config *config, tl_real *q,
                   tl_real *k, tl_real *v, const tl_real *d_o) {
    tl_context *context = context_with(threads, isa);
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *in[3] = {INPUT(tl_input_with_grad, tape, q, N, H, L, D),
                        INPUT(tl_input_with_grad, tape, k, N, H, M, D),
                        INPUT(tl_input_with_grad, tape, v, N, H, M, E)};
    tl_tensor *y = tl_attention(tape, in[0], in[1], in[2], config);
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, &d_o), TL_OK);
    results r = {.cost = tl_tape_cost(tape)};
    const tl_real *from[4] = {tl_tensor_data(y), tl_tensor_grad(in[0]), tl_tensor_grad(in[1]),
                              tl_tensor_grad(in[2])};
    for (int i = 0; i < 4; i++) {
        r.values[i] = malloc((size_t)sizes[i] * sizeof(tl_real));
        memcpy(r.values[i], from[i], (size_t)sizes[i] * sizeof(tl_real));
    }
    tl_tape_free(tape);
    tl_context_free(context);
    return r;
}

static void release(results *r) {
    for (int i = 0; i < 4; i++) {
        free(r->values[i]);
    }
}

START_TEST(agrees_with_the_definition) {
    const char *isa = all_isas[_i / 2];
    if (!isa_available(isa)) {
        return;
    }
    const tl_attention_config config = {.implementation = _i % 2 == 0 ? TL_ATTENTION_TILED
                                                                      : TL_ATTENTION_MATERIALIZED};
    tl_real *q = random_values(Q_SIZE, 1, -2, 2), *k = random_values(K_SIZE, 2, -2, 2);
    tl_real *v = random_values(V_SIZE, 3, -1, 1), *d_o = random_values(O_SIZE, 4, -1, 1);
    static double want[4][Q_SIZE + K_SIZE];
    reference(q, k, v, d_o, 1 / 2.23606797749979, want[0], want[1], want[2], want[3]);
    results one = run(1, isa, &config, q, k, v, d_o);
    for (int i = 0; i < 4; i++) {
        assert_close((const char *[]){"y", "dq", "dk", "dv"}[i], sizes[i], one.values[i], want[i],
                     1e-5, 1e-6);
    }
    for (int threads = 2; threads <= 3; threads++) {
        results more = run(threads, isa, &config, q, k, v, d_o);
        for (int i = 0; i < 4; i++) {
            assert_same_bits("threads", sizes[i], one.values[i], more.values[i]);
        }
        release(&more);
    }
    const double pairs = (double)N * H * L * M;
    ck_assert(one.cost.forward_flops == 2 * pairs * (D + E));
    ck_assert(one.cost.backward_flops == 4 * pairs * (D + E));
    ck_assert(one.cost.backward_flops_executed ==
              2 * pairs * (_i % 2 == 0 ? 3 * D + 2 * E : 2 * D + 2 * E));
    const double inputs = (Q_SIZE + K_SIZE + V_SIZE) * (double)sizeof(tl_real);
    const double kept = _i % 2 == 0 ? O_SIZE + 2.0 * N * H * L : pairs;
    ck_assert((double)one.cost.saved_bytes == inputs + kept * (double)sizeof(tl_real));
    release(&one);
    free(q);
    free(k);
    free(v);
    free(d_o);
}
END_TEST

/* Heads as slices of the channels are the same numbers in another order. */
START_TEST(layouts_agree) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real *q = random_values(L * H * D, 1, -1, 1);
    tl_real *by_head = malloc(L * H * D * sizeof(tl_real));
    for (int i = 0; i < L; i++) {
        for (int c = 0; c < H * D; c++) {
            by_head[(c / D * L + i) * D + c % D] = q[i * H * D + c];
        }
    }
    tl_tensor *a = INPUT(tl_input, tape, q, 1, L, H * D);
    tl_tensor *b = INPUT(tl_input, tape, by_head, 1, H, L, D);
    const tl_attention_config config = {.heads = H, .causal = true};
    const tl_real *y = tl_tensor_data(tl_attention(tape, a, a, a, &config));
    const tl_real *z = tl_tensor_data(tl_attention(tape, b, b, b, &config));
    for (int i = 0; i < L; i++) {
        for (int c = 0; c < H * D; c++) {
            ck_assert(y[i * H * D + c] == z[(c / D * L + i) * D + c % D]);
        }
    }
    ck_assert_int_eq(tl_tape_status(tape), TL_OK);
    free(q);
    free(by_head);
    tl_tape_free(tape);
}
END_TEST

START_TEST(errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real *data = random_values(240, 1, -1, 1);
    tl_tensor *a = INPUT(tl_input, tape, data, 2, 3, 4);
    ck_assert_ptr_null(tl_attention(tape, a, INPUT(tl_input, tape, data, 2, 3, 5), a, NULL));
    assert_tape_error(tape, TL_ERROR_SHAPE, "attention: expected q [N, H, L, D]");
    assert_tape_error(tape, TL_ERROR_SHAPE, "k [2, 3, 5]");
    tl_tape_reset(tape);
    a = INPUT(tl_input, tape, data, 2, 3, 4);
    ck_assert_ptr_null(tl_attention(tape, a, a, a, &(tl_attention_config){.heads = 3}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "heads must divide the channels");
    tl_tape_reset(tape);
    a = INPUT(tl_input, tape, data, 2, 3, 4);
    tl_tensor *b = INPUT(tl_input, tape, data, 2, 7, 4);
    ck_assert_ptr_null(tl_attention(tape, a, b, b, &(tl_attention_config){.causal = true}));
    assert_tape_error(tape, TL_ERROR_SHAPE, "as many keys as queries, found 7 and 3");
    tl_tape_reset(tape);
    a = INPUT(tl_input, tape, data, 2, 3, 4);
    ck_assert_ptr_null(tl_attention(tape, a, a, a, &(tl_attention_config){.scale = -1}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "scale");
    tl_tape_reset(tape);
    a = INPUT(tl_input, tape, data, 2, 3, 4);
    ck_assert_ptr_null(tl_attention(
        tape, a, a, a,
        &(tl_attention_config){.implementation = (tl_attention_implementation)_i + 7}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "unknown implementation");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_attention(tape, NULL, NULL, NULL, NULL));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "input 0 is NULL");
    free(data);
    tl_tape_free(tape);
}
END_TEST

/* Without the memory for the map the materialized form fails before it allocates and says what
 * would do; the tiled form then works in the same budget. */
START_TEST(memory_budget) {
    tl_context *context =
        tl_context_create(&(tl_context_config){.threads = 1, .memory_limit = 8u << 20});
    tl_tape *tape = tl_tape_create(context);
    enum { LONG = 4096 };
    tl_real *data = random_values(LONG * 4, 1, -1, 1);
    tl_tensor *x = INPUT(tl_input_with_grad, tape, data, 1, LONG, 4);
    const size_t before = tl_context_memory(context).peak;
    const tl_attention_config config = {.implementation = TL_ATTENTION_MATERIALIZED};
    ck_assert_ptr_null(tl_attention(tape, x, x, x, &config));
    assert_tape_error(tape, TL_ERROR_OUT_OF_MEMORY,
                      "map of 4096 x 4096 positions and its gradient");
    assert_tape_error(tape, TL_ERROR_OUT_OF_MEMORY, "needs 134.22 MB, and 8.");
    assert_tape_error(tape, TL_ERROR_OUT_OF_MEMORY, "of the limit of 8.39 MB are left");
    assert_tape_error(tape, TL_ERROR_OUT_OF_MEMORY, "positions would fit");
    ck_assert(tl_context_memory(context).peak < before + (1u << 20));
    tl_tape_reset(tape);
    x = INPUT(tl_input_with_grad, tape, data, 1, LONG, 4);
    tl_tensor *y = tl_attention(tape, x, x, x, NULL);
    const tl_real *dy = data;
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, &dy), TL_OK);
    free(data);
    tl_tape_free(tape);
    tl_context_free(context);
}
END_TEST

/* A step that just fits must fit again: the memory of the first is there for the second. */
START_TEST(a_tight_budget_serves_every_step) {
    enum { LONG = 600 };
    const size_t map = (size_t)LONG * LONG * sizeof(tl_real);
    tl_context *context =
        tl_context_create(&(tl_context_config){.threads = 1, .memory_limit = 2 * map + (1u << 20)});
    tl_tape *tape = tl_tape_create(context);
    tl_real *data = random_values(LONG * 4, 1, -1, 1);
    for (int step = 0; step < 3; step++) {
        tl_tensor *x = INPUT(tl_input_with_grad, tape, data, 1, LONG, 4);
        const tl_attention_config config = {.implementation = TL_ATTENTION_MATERIALIZED};
        tl_tensor *y = tl_attention(tape, x, x, x, &config);
        const tl_real *dy = data;
        ck_assert_msg(tl_backward_from(tape, 1, &y, &dy) == TL_OK, "step %d: %s", step,
                      tl_tape_error(tape)->message);
        tl_tape_reset(tape);
    }
    free(data);
    tl_tape_free(tape);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("attention", &test_case);
    tcase_add_loop_test(test_case, agrees_with_the_definition, 0, 6);
    tcase_add_test(test_case, layouts_agree);
    tcase_add_test(test_case, errors);
    tcase_add_test(test_case, memory_budget);
    tcase_add_test(test_case, a_tight_budget_serves_every_step);
    return run_suite(suite);
}
