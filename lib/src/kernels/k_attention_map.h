/* k_attention_map.h - what happens to a stored n x m map between its matrix products.
 *
 * A map has `rows` rows (queries) of `columns` scores (keys), contiguous; `count` maps follow each
 * other at a distance of `stride` elements.
 */
#ifndef TL_K_ATTENTION_MAP_H
#define TL_K_ATTENTION_MAP_H

#include "kernels/k_tiled_attention.h"

typedef struct tl_attention_maps {
    tl_pair_weights weights;
    bool causal; /* row i has i + 1 scores; what is behind counts as a weight of zero */
    int64_t count, rows, columns;
} tl_attention_maps;

typedef struct tl_attention_map_kernels {
    /* Turns scores into weights in place: softmax over each row (two reads, two writes), relu, or
     * nothing; weights of hidden keys become zero. */
    void (*forward)(const tl_attention_maps *maps, tl_real *map, int64_t stride, int threads);
    /* Turns the gradient of the weights into that of the scores, in place. Softmax:
     * dS = P (dP - sum_j P_j dP_j) per row; relu: dP where P > 0. */
    void (*backward)(const tl_attention_maps *maps, const tl_real *map, int64_t stride,
                     tl_real *d_map, int64_t d_stride, int threads);
} tl_attention_map_kernels;
TL_DECLARE_KERNELS(tl_attention_map_kernels);

#endif
