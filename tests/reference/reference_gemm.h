/* reference_gemm.h - a matrix product by its definition. */
#ifndef REFERENCE_GEMM_H
#define REFERENCE_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include <tapeline/real.h>

/* out[i * n + j] = sum over p of op(A)(i, p) op(B)(p, j), in double; rows of the stored matrices
 * are row_a and row_b apart. */
void reference_gemm(int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b,
                    const tl_real *a, int64_t row_a, const tl_real *b, int64_t row_b, double *out);

#endif
