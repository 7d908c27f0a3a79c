/* random.h - counter-based random numbers.
 *
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the
 * n-th block of four 32-bit numbers is a function of (key, n) alone. A stream is keyed by a seed
 * and a purpose, so that consumers never disturb each other, any element can be computed by any
 * thread, and a state is two numbers. The same seed gives the same stream on every machine.
 */
#ifndef TL_RANDOM_H
#define TL_RANDOM_H

#include <stdint.h>

#include <tapeline/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A stream. Copy it freely; save and restore it as its three numbers. */
typedef struct tl_random {
    uint64_t seed;
    uint64_t stream; /* which of the seed's streams (purpose, sample, step: the caller's choice) */
    uint64_t position; /* 32-bit numbers drawn so far */
} tl_random;

/* Purposes that the library itself uses for `stream`; add an index in the low 32 bits. */
enum {
    TL_RANDOM_INITIALIZE = 1,
    TL_RANDOM_DROPOUT = 2,
    TL_RANDOM_SHUFFLE = 3,
    TL_RANDOM_AUGMENT = 4,
    TL_RANDOM_SYNTHETIC = 5,
};

/* A stream at its start: `purpose` in the high 32 bits of `stream`, `index` in the low. */
TL_API tl_random tl_random_create(uint64_t seed, uint32_t purpose, uint32_t index);

/* Four 32-bit numbers: block `counter` of the stream (seed, stream). The core of all below. */
TL_API void tl_random_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);

/* The next 32 random bits. */
TL_API uint32_t tl_random_u32(tl_random *random);
/* Uniform in 0 ... bound-1 without bias; bound >= 1. */
TL_API uint32_t tl_random_below(tl_random *random, uint32_t bound);
/* Uniform in [0, 1) with 24 bits. */
TL_API float tl_random_uniform(tl_random *random);
/* Standard normal (Box-Muller on two numbers). */
TL_API double tl_random_normal(tl_random *random);

#ifdef __cplusplus
}
#endif

#endif
