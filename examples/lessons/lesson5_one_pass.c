/* lesson5_one_pass - efficient attention as one pass over the positions that gathers the context
 * and one that hands it out, beside the formula and the library's kernel.
 * docs/lessons/5-one-pass.md */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <tapeline/tapeline.h>

enum { N = 1000, K = 8, V = 16, C = 2 * K + V }; /* x: query, key, value */

static tl_real x[N * C];
static tl_real streamed[N * V];

static void stream(void) {
    float largest[K], sum[K] = {0}, context[K][V] = {{0}};
    for (int a = 0; a < K; a++) {
        largest[a] = -INFINITY;
    }
    /* the first pass gathers: a new maximum shrinks what was gathered under the old one */
    for (int i = 0; i < N; i++) {
        for (int a = 0; a < K; a++) {
            const float key = x[i * C + K + a], now = fmaxf(largest[a], key);
            const float shrink = expf(largest[a] - now), weight = expf(key - now);
            largest[a] = now;
            sum[a] = shrink * sum[a] + weight;
            for (int b = 0; b < V; b++) {
                context[a][b] = shrink * context[a][b] + weight * x[i * C + 2 * K + b];
            }
        }
    }
    /* the second hands out: softmax of the query over its channels, mixed with the contexts */
    for (int i = 0; i < N; i++) {
        float odds[K], total = 0;
        for (int a = 0; a < K; a++) {
            total += odds[a] = expf(x[i * C + a]);
        }
        for (int b = 0; b < V; b++) {
            float y = 0;
            for (int a = 0; a < K; a++) {
                y += odds[a] / total * context[a][b] / sum[a];
            }
            streamed[i * V + b] = y;
        }
    }
}

/* [rows, C] with ones that pick columns first, first + 1, ... of x. */
static tl_tensor *picking(tl_context *context, int rows, int first) {
    tl_tensor *weight = tl_tensor_create(context, 2, (int64_t[]){rows, C}, false, NULL);
    for (int i = 0; i < rows; i++) {
        tl_tensor_data(weight)[i * C + first + i] = 1;
    }
    return weight;
}

static bool agrees(tl_tensor *y) {
    double worst = y != NULL ? 0 : NAN;
    for (int i = 0; i < N * V && y != NULL; i++) {
        worst = fmax(worst, fabs((double)(tl_tensor_data(y)[i] - streamed[i])));
    }
    return worst <= 1e-5;
}

int main(void) {
    tl_tape *t = tl_tape_create(NULL);
    tl_context *c = tl_tape_context(t);
    tl_random random = tl_random_create(1, TL_RANDOM_SYNTHETIC, 0);
    tl_tensor *zeros = tl_tensor_create(c, 1, (int64_t[]){K}, false, NULL);
    const tl_efficient_attention_weights w = {
        .query_weight = picking(c, K, 0),
        .key_weight = picking(c, K, K),
        .value_weight = picking(c, V, 2 * K),
        .query_bias = zeros,
        .key_bias = zeros,
        .value_bias = tl_tensor_create(c, 1, (int64_t[]){V}, false, NULL)};
    const tl_efficient_attention_config config = {.key_channels = K, .value_channels = V};
    bool close = true;
    for (int size = 1; size <= 80 && close; size += 79) { /* of the keys: exp(4 * 80) overflows */
        for (int i = 0; i < N * C; i++) {
            x[i] = (tl_real)((i % C / K == 1 ? size : 1) * tl_random_normal(&random));
        }
        stream();
        tl_tensor *input = tl_input(t, &(tl_array){.rank = 3, .shape = {1, N, C}, .data = x});
        close = agrees(tl_efficient_attention_composed(t, input, &w, &config)) &&
                agrees(tl_efficient_attention(t, input, &w, &config));
        printf("keys of deviation %2d: formula, kernel and our passes %s\n", size,
               close ? "agree to 1e-5" : "DIFFER");
        tl_tape_reset(t);
    }
    printf("kept between the passes: %zu bytes; a map of all pairs: %zu bytes\n",
           sizeof(float) * (K * V + 2 * K), sizeof(float) * N * (size_t)N);
    tl_tensor_free(w.query_weight);
    tl_tensor_free(w.key_weight);
    tl_tensor_free(w.value_weight);
    tl_tensor_free(w.value_bias);
    tl_tensor_free(zeros);
    tl_tape_free(t);
    return close ? EXIT_SUCCESS : EXIT_FAILURE;
}
