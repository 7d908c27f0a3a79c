/* k_linear_attention.h - causal linear attention (the formula is in tapeline/linear_attention.h).
 */
#ifndef TL_K_LINEAR_ATTENTION_H
#define TL_K_LINEAR_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tapeline/real.h>

/* Positions are worked in chunks of this many: pairs within a chunk one by one, all earlier ones
 * through running sums. */
enum { TL_LINEAR_ATTENTION_CHUNK = 64 };

typedef struct tl_linear_attention_shape {
    int64_t batch, length, heads;
    int64_t key_channels, value_channels; /* of a head: D, E */
} tl_linear_attention_shape;

typedef struct tl_linear_attention_gradients {
    tl_real *q, *k, *v; /* NULL: not wanted */
    bool accumulate_q, accumulate_k, accumulate_v;
} tl_linear_attention_gradients;

typedef struct tl_linear_attention_kernels {
    size_t (*scratch_bytes)(const tl_linear_attention_shape *shape, int threads);
    /* q, k [N, L, heads D], v, y [N, L, heads E]; sums [N, L, heads]: the sum of each position's
     * weights plus epsilon, for backward. */
    void (*forward)(const tl_linear_attention_shape *shape, const tl_real *q, const tl_real *k,
                    const tl_real *v, tl_real *y, tl_real *sums, void *scratch, int threads);
    /* Writes dq before dk before dv, so that the buffers may be one where the later accumulate. */
    void (*backward)(const tl_linear_attention_shape *shape, const tl_real *q, const tl_real *k,
                     const tl_real *v, const tl_real *y, const tl_real *sums, const tl_real *dy,
                     const tl_linear_attention_gradients *gradients, void *scratch, int threads);
} tl_linear_attention_kernels;

TL_DECLARE_KERNELS(tl_linear_attention_kernels);

/* FLOPs that the kernels execute. */
static inline double tl_linear_attention_flops(const tl_linear_attention_shape *s, bool backward) {
    const double D = (double)s->key_channels, E = (double)s->value_channels + 1;
    const double B = TL_LINEAR_ATTENTION_CHUNK;
    const double rows = (double)s->batch * (double)s->length * (double)s->heads;
    return rows * (backward ? 10 * D * E + 6 * B * D + 6 * B * E : 4 * D * E + 2 * B * (D + E));
}

#endif
