/* reference_efficient_attention.h - efficient attention as its definition says, in double. */
#ifndef REFERENCE_EFFICIENT_ATTENTION_H
#define REFERENCE_EFFICIENT_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

#include <tapeline/real.h>

typedef struct reference_attention {
    int64_t batch, positions, channels, key_channels, value_channels, heads;
    bool scaling, reprojection, residual;
    double temperature;
} reference_attention;

/* weights: queries, keys, values, reprojection, each weight [out, in] then bias [out]. */
void reference_efficient_attention(const reference_attention *shape, const tl_real *x,
                                   const tl_real *const weights[8], double *y);

#endif
