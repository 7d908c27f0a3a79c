/* lesson4_two_softmaxes - what the two softmaxes of efficient attention share with the softmax of
 * all pairs, and what they do not. docs/lessons/4-what-softmax-changes.md */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <tapeline/tapeline.h>

enum { N = 64, K = 8 };

/* How many positions a row of weights is spread over: exp of its entropy, from 1 to N. */
static double spread(const tl_real *row) {
    double entropy = 0;
    for (int j = 0; j < N; j++) {
        const double p = (double)row[j];
        entropy -= p > 0 ? p * log(p) : 0;
    }
    return exp(entropy);
}

/* True if the rank of an N x N matrix is K or less: Gaussian elimination with the largest pivots
 * leaves nothing above 1e-5 of the first after K steps. */
static bool has_low_rank(const tl_real *values) {
    static double m[N][N];
    double first = 0, pivot = 0;
    for (int i = 0; i < N * N; i++) {
        m[i / N][i % N] = (double)values[i];
    }
    for (int step = 0; step <= K; step++) {
        int row = step, column = step;
        for (int i = step * N; i < N * N; i++) {
            if (i % N >= step && fabs(m[i / N][i % N]) > fabs(m[row][column])) {
                row = i / N;
                column = i % N;
            }
        }
        pivot = m[row][column];
        first = step == 0 ? fabs(pivot) : first;
        for (int j = 0; j < N; j++) { /* row and column change places with those of the step */
            const double held = m[row][j];
            m[row][j] = m[step][j];
            m[step][j] = held;
        }
        for (int i = 0; i < N; i++) {
            const double held = m[i][column];
            m[i][column] = m[i][step];
            m[i][step] = held;
        }
        for (int i = step + 1; i < N; i++) {
            const double factor = m[i][step] / pivot;
            for (int j = step; j < N; j++) {
                m[i][j] -= factor * m[step][j];
            }
        }
    }
    return fabs(pivot) <= 1e-5 * first; /* of step K, the K+1st */
}

int main(void) {
    tl_tape *t = tl_tape_create(NULL);
    tl_tensor *q = tl_tensor_create(tl_tape_context(t), 2, (int64_t[]){N, K}, false, NULL);
    tl_tensor *k = tl_tensor_create(tl_tape_context(t), 2, (int64_t[]){N, K}, false, NULL);
    tl_random random = tl_random_create(1, TL_RANDOM_SYNTHETIC, 0);
    tl_initialize_normal(q, 0, 1, &random);
    tl_initialize_normal(k, 0, 1, &random);
    printf("logits x  map of               row sums  rank  positions a row is spread over\n");
    for (int factor = 1; factor <= 25; factor *= 5) {
        tl_tensor *keys = tl_permute(t, tl_scale(t, k, factor), (int[]){1, 0}); /* [K, N] */
        tl_tensor *queries = tl_scale(t, q, factor);
        tl_tensor *pairs = tl_softmax(t, tl_matmul(t, q, keys), 1);
        tl_tensor *two = tl_matmul(t, tl_softmax(t, queries, 1), tl_softmax(t, keys, 1));
        tl_tensor *maps[] = {pairs, two};
        for (int m = 0; m < 2; m++) {
            if (maps[m] == NULL) {
                fprintf(stderr, "lesson4_two_softmaxes: %s\n", tl_tape_error(t)->message);
                return EXIT_FAILURE;
            }
            double low = INFINITY, high = 0, mean = 0;
            for (int i = 0; i < N; i++) {
                double sum = 0;
                for (int j = 0; j < N; j++) {
                    sum += (double)tl_tensor_data(maps[m])[i * N + j];
                }
                low = fmin(low, sum);
                high = fmax(high, sum);
                mean += spread(tl_tensor_data(maps[m]) + i * N) / N;
            }
            printf("%8d  %-19s  %s  %s  %5.1f\n", factor, m ? "efficient attention" : "all pairs",
                   low > 0.9999 && high < 1.0001 ? "all 1   " : "NOT 1   ",
                   has_low_rank(tl_tensor_data(maps[m])) ? "<= 8" : " > 8", mean);
        }
    }
    tl_tensor_free(q);
    tl_tensor_free(k);
    tl_tape_free(t);
    return EXIT_SUCCESS;
}
