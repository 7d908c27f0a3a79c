/* k_gemm.h - general matrix products, single and batched.
 *
 *     C = alpha * op(A) op(B) + beta * C + bias
 *
 * with op(A) [m, k], op(B) [k, n], C [m, n] row-major and bias [n] added to every row. With
 * beta = 0 C is not read (NaN in it does not matter). A product is always carried out, also where
 * alpha is 0, so NaN and Inf in A or B reach C. C must not overlap A, B or the bias.
 */
#ifndef TL_K_GEMM_H
#define TL_K_GEMM_H

typedef struct tl_gemm_problem {
    int64_t m, n, k;
    bool transpose_a; /* A is stored [k, m], op(A) is its transpose */
    bool transpose_b; /* B is stored [n, k] */
    tl_real alpha, beta;
    const tl_real *a;
    const tl_real *b;
    const tl_real *bias; /* [n] or NULL */
    tl_real *c;
    /* from one stored row to the next; 0: rows lie close together */
    int64_t row_stride_a, row_stride_b, row_stride_c;
    /* `batch` independent products, item i at pointer + i * batch_stride; 0 items mean one.
     * The bias is the same for all. batch_stride_a or _b may be 0: the same matrix every time. */
    int64_t batch;
    int64_t batch_stride_a, batch_stride_b, batch_stride_c;
} tl_gemm_problem;

/* How a product is carried out. A function of shape, strides and flags alone. */
typedef struct tl_gemm_plan {
    bool sweep;     /* one or two rows of C: B is streamed along its rows, nothing is packed */
    bool dot;       /* vectors run along k, nothing is packed (few rows or columns) */
    bool pack_a;    /* A is copied to panels of `micro_rows` interleaved rows */
    bool pack_b;    /* B is copied to panels of `micro_vectors` vectors (else only a ragged edge) */
    int micro_rows; /* the register block */
    int micro_vectors;
    int64_t block_m, block_n; /* the part of C that one task computes */
    int64_t blocks_m, blocks_n;
    int64_t pieces;  /* k is cut into this many, added in order at the end (small C, long k) */
    int64_t block_k; /* a task adds this many products in registers before it adds to C */
} tl_gemm_plan;

typedef struct tl_gemm_kernels {
    /* Carries out the product. */
    void (*multiply)(const tl_gemm_problem *problem, void *scratch, int threads);
    /* Scratch that `multiply` needs; the pointers in `problem` are not looked at. */
    size_t (*scratch_bytes)(const tl_gemm_problem *problem, int threads);
    /* Tells which path a product takes; for tests and benchmarks. */
    tl_gemm_plan (*plan)(const tl_gemm_problem *problem);
} tl_gemm_kernels;

TL_DECLARE_KERNELS(tl_gemm_kernels);

#endif
