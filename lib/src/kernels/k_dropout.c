/* k_dropout.c - see k_dropout.h.
 *
 * Sixteen Philox blocks are worked at once, as loops over arrays of sixteen that the compiler turns
 * into vectors; they give the random numbers of 64 values. About 10 integer operations a value.
 */
#include "kernels/kernels.h"

enum { BLOCKS = 16, WORDS = 4, GROUP = BLOCKS * WORDS, ROUNDS = 10 };

/* The numbers of blocks 16 group ... 16 group + 15: word w of block b in words[w][b]. */
static void random_group(uint64_t seed, uint64_t stream, uint64_t group,
                         uint32_t words[WORDS][BLOCKS]) {
    uint32_t key0 = (uint32_t)seed;
    uint32_t key1 = (uint32_t)(seed >> 32);
    for (int b = 0; b < BLOCKS; b++) {
        words[0][b] = (uint32_t)(group * BLOCKS) + (uint32_t)b; /* no carry: a multiple of 16 */
        words[1][b] = (uint32_t)(group * BLOCKS >> 32);
        words[2][b] = (uint32_t)stream;
        words[3][b] = (uint32_t)(stream >> 32);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int b = 0; b < BLOCKS; b++) {
            const uint64_t product0 = (uint64_t)0xD2511F53u * words[0][b];
            const uint64_t product1 = (uint64_t)0xCD9E8D57u * words[2][b];
            words[0][b] = (uint32_t)(product1 >> 32) ^ words[1][b] ^ key0;
            words[1][b] = (uint32_t)product1;
            words[2][b] = (uint32_t)(product0 >> 32) ^ words[3][b] ^ key1;
            words[3][b] = (uint32_t)product0;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

static void apply(int64_t count, const tl_real *x, uint64_t seed, uint64_t stream,
                  uint32_t threshold, tl_real scale, tl_real *y, bool accumulate, int threads) {
    const int64_t groups = (count + GROUP - 1) / GROUP;
    const int team = count > TL_PARALLEL_MINIMUM ? threads : 1;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t group = 0; group < groups; group++) {
        uint32_t words[WORDS][BLOCKS];
        random_group(seed, stream, (uint64_t)group, words);
        const uint32_t *random = &words[0][0];
        const int64_t first = group * GROUP;
        const int64_t values = count - first < GROUP ? count - first : GROUP;
        for (int64_t i = 0; i < values; i++) {
            const tl_real kept = random[i] >= threshold ? x[first + i] * scale : 0;
            y[first + i] = accumulate ? y[first + i] + kept : kept;
        }
    }
}

const tl_dropout_kernels TL_PER_ISA(tl_dropout_kernels) = {
    .apply = apply,
};
