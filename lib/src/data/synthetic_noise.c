#include "data/synthetic_noise.h"

void tl_synthetic_noise(const tl_random *random, int64_t count, uint8_t *values) {
    for (int64_t i = 0; i < count; i += 16) {
        uint32_t block[4];
        tl_random_block(random->seed, random->stream, (UINT64_C(1) << 32) + (uint64_t)(i / 16),
                        block);
        for (int k = 0; k < 16 && i + k < count; k++) {
            const int byte = (int)(block[k / 4] >> (8 * (k % 4)) & 0xff);
            const int value = values[i + k] + (byte >> 4) + (byte & 15) - TL_SYNTHETIC_NOISE_REACH;
            values[i + k] = (uint8_t)value;
        }
    }
}
