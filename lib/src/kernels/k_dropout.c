/* k_dropout.c - see k_dropout.h.
 *
 * Philox in vectors: a 64-bit lane holds one word of one block in its low half, so that the product
 * of 32-bit numbers is one instruction and its halves are in place; high halves hold leftovers that
 * nothing reads. Two vectors go together, the even and the odd blocks; at the end their low halves
 * interleave to words in order. About 6 integer instructions a value.
 */
#include "kernels/kernels.h"
#include "kernels/simd.h"

enum {
    WORDS = 4,
    GROUP = TL_DROPOUT_GROUP,
    BLOCKS = GROUP / WORDS,
    ROUNDS = 10,
    PAIR_BLOCKS = 2 * TL_VECTOR_BYTES / 8 /* blocks in an even and an odd vector */
};

typedef uint64_t random_vector __attribute__((vector_size(TL_VECTOR_BYTES)));
typedef uint64_t random_store __attribute__((vector_size(TL_VECTOR_BYTES), aligned(4), may_alias));

/* The 64-bit products of the low halves and a constant. */
TL_INLINE random_vector multiply_low(random_vector a, uint32_t b) {
#if defined(TL_SIMD_AVX512)
    return (random_vector)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((long long)b));
#elif defined(TL_SIMD_AVX2)
    return (random_vector)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((long long)b));
#else
    return (a & 0xffffffffu) * (uint64_t)b;
#endif
}

typedef struct random_state {
    random_vector word[WORDS];
} random_state;

TL_INLINE random_state next_round(random_state s, uint64_t key0, uint64_t key1) {
    const random_vector product0 = multiply_low(s.word[0], 0xD2511F53u);
    const random_vector product1 = multiply_low(s.word[2], 0xCD9E8D57u);
    s.word[0] = (product1 >> 32) ^ s.word[1] ^ key0;
    s.word[1] = product1;
    s.word[2] = (product0 >> 32) ^ s.word[3] ^ key1;
    s.word[3] = product0;
    return s;
}

/* Blocks first, first + 2, ... of the stream before the first round. */
TL_INLINE random_state first_state(uint64_t first, uint64_t stream) {
    random_vector block = {0};
    for (int lane = 0; lane < PAIR_BLOCKS / 2; lane++) {
        block[lane] = first + 2 * (uint64_t)lane;
    }
    return (random_state){.word = {block, block >> 32, (random_vector){0} + stream,
                                   (random_vector){0} + (stream >> 32)}};
}

/* The numbers of blocks 16 group ... 16 group + 15: word w of block b in words[w][b]. */
static void random_group(uint64_t seed, uint64_t stream, uint64_t group,
                         uint32_t words[WORDS][BLOCKS]) {
    for (int first = 0; first < BLOCKS; first += PAIR_BLOCKS) {
        random_state even = first_state(group * BLOCKS + (uint64_t)first, stream);
        random_state odd = first_state(group * BLOCKS + (uint64_t)first + 1, stream);
        uint32_t key0 = (uint32_t)seed;
        uint32_t key1 = (uint32_t)(seed >> 32);
        for (int round = 0; round < ROUNDS; round++) {
            even = next_round(even, key0, key1);
            odd = next_round(odd, key0, key1);
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        for (int w = 0; w < WORDS; w++) {
            const random_vector merged = (even.word[w] & 0xffffffffu) | odd.word[w] << 32;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
            *(random_store *)&words[w][first] = merged << 32 | merged >> 32;
#else
            *(random_store *)&words[w][first] = merged;
#endif
        }
    }
}

TL_INLINE void drop(int64_t count, const tl_real *x, const uint32_t *random, uint32_t threshold,
                    tl_real scale, tl_real *y, bool accumulate) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        const tl_real kept = random[i] >= threshold ? x[i] * scale : 0;
        y[i] = accumulate ? y[i] + kept : kept;
    }
}

static void apply(int64_t count, const tl_real *x, uint64_t seed, uint64_t stream,
                  uint64_t first_group, uint32_t threshold, tl_real scale, tl_real *y,
                  bool accumulate, int threads) {
    const int64_t groups = (count + GROUP - 1) / GROUP;
    const int team = count > TL_PARALLEL_MINIMUM ? threads : 1;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t group = 0; group < groups; group++) {
        uint32_t words[WORDS][BLOCKS];
        random_group(seed, stream, first_group + (uint64_t)group, words);
        const int64_t first = group * GROUP;
        if (count - first < GROUP) {
            drop(count - first, x + first, &words[0][0], threshold, scale, y + first, accumulate);
        } else if (accumulate) {
            drop(GROUP, x + first, &words[0][0], threshold, scale, y + first, true);
        } else {
            drop(GROUP, x + first, &words[0][0], threshold, scale, y + first, false);
        }
    }
}

const tl_dropout_kernels TL_PER_ISA(tl_dropout_kernels) = {
    .apply = apply,
};
