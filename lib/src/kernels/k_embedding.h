/* k_embedding.h - rows of a table by index, and the sum of their gradients. */
#ifndef TL_K_EMBEDDING_H
#define TL_K_EMBEDDING_H

typedef struct tl_embedding_kernels {
    /* y[i] = table[indices[i]]: `count` rows of `width` values, read and written once. */
    void (*gather)(int threads, int64_t count, int64_t width, const int32_t *indices,
                   const tl_real *table, tl_real *y);
    /* table[indices[i]] += y[i] in the order of i. Threads share the columns, 64 each. */
    void (*scatter_add)(int threads, int64_t count, int64_t width, const int32_t *indices,
                        const tl_real *y, tl_real *table);
} tl_embedding_kernels;

TL_DECLARE_KERNELS(tl_embedding_kernels);

#endif
