#include <tapeline/random.h>

#include <math.h>

/* Multipliers and Weyl constants of Philox4x32 (Salmon et al., SC 2011, section 5.3). */
enum { PHILOX_ROUNDS = 10 };
static const uint32_t philox_m0 = 0xD2511F53u;
static const uint32_t philox_m1 = 0xCD9E8D57u;
static const uint32_t philox_w0 = 0x9E3779B9u;
static const uint32_t philox_w1 = 0xBB67AE85u;

void tl_random_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]) {
    uint32_t key0 = (uint32_t)seed;
    uint32_t key1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)counter;
    uint32_t c1 = (uint32_t)(counter >> 32);
    uint32_t c2 = (uint32_t)stream;
    uint32_t c3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        const uint64_t p0 = (uint64_t)philox_m0 * c0;
        const uint64_t p1 = (uint64_t)philox_m1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)p0;
        key0 += philox_w0;
        key1 += philox_w1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

tl_random tl_random_create(uint64_t seed, uint32_t purpose, uint32_t index) {
    return (tl_random){.seed = seed, .stream = (uint64_t)purpose << 32 | index, .position = 0};
}

uint32_t tl_random_u32(tl_random *random) {
    uint32_t block[4];
    tl_random_block(random->seed, random->stream, random->position / 4, block);
    return block[random->position++ % 4];
}

/* Lemire, "Fast random integer generation in an interval", 2019: multiply, reject the overhang. */
uint32_t tl_random_below(tl_random *random, uint32_t bound) {
    if (bound <= 1) {
        return 0;
    }
    const uint32_t threshold = (0u - bound) % bound;
    for (;;) {
        const uint64_t product = (uint64_t)tl_random_u32(random) * bound;
        if ((uint32_t)product >= threshold) {
            return (uint32_t)(product >> 32);
        }
    }
}

float tl_random_uniform(tl_random *random) {
    return (float)(tl_random_u32(random) >> 8) * 0x1p-24f;
}

double tl_random_normal(tl_random *random) {
    const double two_pi = 6.283185307179586476925286766559;
    /* u in (0, 1], so that the logarithm is finite */
    const double u = ((double)tl_random_u32(random) + 1.0) * 0x1p-32;
    const double v = (double)tl_random_u32(random) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(two_pi * v);
}
