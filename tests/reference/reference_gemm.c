#include "reference/reference_gemm.h"

void reference_gemm(int64_t m, int64_t n, int64_t k, bool transpose_a, bool transpose_b,
                    const tl_real *a, int64_t row_a, const tl_real *b, int64_t row_b, double *out) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++) {
                const double x = transpose_a ? a[p * row_a + i] : a[i * row_a + p];
                const double y = transpose_b ? b[j * row_b + p] : b[p * row_b + j];
                sum += x * y;
            }
            out[i * n + j] = sum;
        }
    }
}
