/* Matrix products: the shapes of training small networks, and a square one, through tl_matmul. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

typedef struct gemm_state {
    tl_tape *tape;
    tl_tensor *a, *b;
} gemm_state;

static void destroy(void *state) {
    gemm_state *s = state;
    tl_tape_free(s->tape);
    tl_tensor_free(s->a);
    tl_tensor_free(s->b);
    free(s);
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    gemm_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    const int64_t m = c->numbers[0], n = c->numbers[1], k = c->numbers[2];
    s->tape = tl_tape_create(context);
    s->a = tl_tensor_create(context, 2, (int64_t[]){m, k}, false, error);
    s->b = tl_tensor_create(context, 2, (int64_t[]){k, n}, false, error);
    if (s->tape == NULL || s->a == NULL || s->b == NULL) {
        destroy(s);
        return NULL;
    }
    bench_fill(tl_tensor_data(s->a), m * k, 1);
    bench_fill(tl_tensor_data(s->b), k * n, 2);
    return s;
}

static bool run(void *state, tl_error *error) {
    gemm_state *s = state;
    (void)tl_matmul(s->tape, s->a, s->b);
    *error = *tl_tape_error(s->tape);
    tl_tape_reset(s->tape);
    return error->status == TL_OK;
}

void bench_gemm_cases(bench_list *list) {
    static const int64_t shapes[][3] = {
        {1024, 1024, 1024}, {64, 16384, 576}, {64, 4096, 64},  {32, 32, 4096},
        {4096, 32, 32},     {16, 16384, 144}, {256, 256, 256},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int64_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
        bench_case c = {.flops = 2.0 * (double)m * (double)n * (double)k,
                        .numbers = {m, n, k},
                        .create = create,
                        .run = run,
                        .destroy = destroy};
        snprintf(c.name, sizeof c.name, "gemm/%lldx%lldx%lld", (long long)m, (long long)n,
                 (long long)k);
        bench_add(list, &c);
    }
}
