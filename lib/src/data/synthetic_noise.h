/* synthetic_noise.h - the noise of images that are made by a program. */
#ifndef TL_SYNTHETIC_NOISE_H
#define TL_SYNTHETIC_NOISE_H

#include <stdint.h>

#include <tapeline/random.h>

enum { TL_SYNTHETIC_NOISE_REACH = 15 };

/* Adds to each of `count` values the sum of two uniform numbers, -15 to 15 (deviation 6.5), from
 * the stream's blocks 2^32 on, 16 values a block. The values must be 15 to 240: nothing is clamped.
 */
void tl_synthetic_noise(const tl_random *random, int64_t count, uint8_t *values);

#endif
