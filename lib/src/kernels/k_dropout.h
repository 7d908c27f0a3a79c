/* k_dropout.h - dropout with a mask that is computed, not stored. */
#ifndef TL_K_DROPOUT_H
#define TL_K_DROPOUT_H

enum { TL_DROPOUT_GROUP = 64 };

typedef struct tl_dropout_kernels {
    /* y[i] = x[i] * scale where the random number r(64 first_group + i) >= threshold, else 0; added
     * to what is there if `accumulate`. y may be x. Backward is the same function from dy to dx.
     * r(i): Philox4x32-10 keyed by `seed`; with i = 64 c + 16 w + b (w < 4, b < 16), word w of the
     * stream's block 16 c + b (tl_random_block), on every instruction set. */
    void (*apply)(int64_t count, const tl_real *x, uint64_t seed, uint64_t stream,
                  uint64_t first_group, uint32_t threshold, tl_real scale, tl_real *y,
                  bool accumulate, int threads);
} tl_dropout_kernels;

TL_DECLARE_KERNELS(tl_dropout_kernels);

#endif
