/* lesson3_order - (Q K^T) V and Q (K^T V): the same numbers at another price.
 * docs/lessons/3-two-products.md */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <tapeline/tapeline.h>

enum { K = 32, V = 64 };

static double seconds_now(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static tl_tensor *random_matrix(tl_context *context, int64_t rows, int64_t columns,
                                uint32_t which) {
    tl_tensor *matrix = tl_tensor_create(context, 2, (int64_t[]){rows, columns}, false, NULL);
    tl_random random = tl_random_create(1, TL_RANDOM_SYNTHETIC, which);
    if (matrix != NULL) {
        tl_initialize_normal(matrix, 0, 1, &random);
    }
    return matrix;
}

/* Runs one order, best time of five in *milliseconds. */
static tl_tensor *run(tl_tape *tape, tl_tensor *q, tl_tensor *k, tl_tensor *v, int keys_first,
                      double *milliseconds, tl_cost *cost) {
    tl_tensor *y = NULL;
    *milliseconds = INFINITY;
    for (int repeat = 0; repeat < 5; repeat++) {
        tl_tape_reset(tape);
        const double start = seconds_now();
        tl_tensor *k_transposed = tl_permute(tape, k, (int[]){1, 0});
        y = keys_first ? tl_matmul(tape, q, tl_matmul(tape, k_transposed, v))
                       : tl_matmul(tape, tl_matmul(tape, q, k_transposed), v);
        *milliseconds = fmin(*milliseconds, 1e3 * (seconds_now() - start));
    }
    *cost = tl_tape_cost(tape);
    return y;
}

int main(int argc, char **argv) {
    const long most = argc > 1 ? strtol(argv[1], NULL, 10) : 2048;
    tl_context *context = tl_context_create(NULL);
    tl_tape *left = tl_tape_create(context), *right = tl_tape_create(context);
    tl_tape_set_recording(left, false);
    tl_tape_set_recording(right, false);
    printf("    n  MFLOP (QK')V  MFLOP Q(K'V)  difference     ms (QK')V  ms Q(K'V)\n");
    int code = EXIT_SUCCESS;
    for (int64_t n = 32; n <= most; n *= 4) {
        tl_tensor *q = random_matrix(context, n, K, 0), *k = random_matrix(context, n, K, 1);
        tl_tensor *v = random_matrix(context, n, V, 2);
        double left_ms, right_ms, worst = 0, largest = 0;
        tl_cost left_cost, right_cost;
        tl_tensor *a = run(left, q, k, v, 0, &left_ms, &left_cost);
        tl_tensor *b = run(right, q, k, v, 1, &right_ms, &right_cost);
        for (int64_t i = 0; a != NULL && b != NULL && i < n * V; i++) {
            const double x = (double)tl_tensor_data(a)[i];
            worst = fmax(worst, fabs(x - (double)tl_tensor_data(b)[i]));
            largest = fmax(largest, fabs(x));
        }
        printf("%5lld  %12.2f  %12.2f  %s  %12.3f  %9.3f\n", (long long)n,
               left_cost.forward_flops / 1e6, right_cost.forward_flops / 1e6,
               worst <= 1e-5 * largest ? "rounding" : "LARGE", left_ms, right_ms);
        if (!(largest > 0 && worst <= 1e-5 * largest)) {
            code = EXIT_FAILURE;
        }
        tl_tape_reset(left);
        tl_tape_reset(right);
        tl_tensor_free(q);
        tl_tensor_free(k);
        tl_tensor_free(v);
    }
    tl_tape_free(left);
    tl_tape_free(right);
    tl_context_free(context);
    return code;
}
