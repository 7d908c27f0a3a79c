#include "kernels/kernels.h"
#include "kernels/pieces.h"
#include "kernels/simd.h"

enum { COLUMNS = 64 };

static void gather(int threads, int64_t count, int64_t width, const int32_t *indices,
                   const tl_real *table, tl_real *y) {
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (count * width > TL_PARALLEL_MINIMUM)
    for (int64_t i = 0; i < count; i++) {
        memcpy(y + i * width, table + indices[i] * width, (size_t)width * sizeof *y);
    }
}

static void add_row(int64_t n, const tl_real *x, tl_real *y) {
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        tl_v_store(y + i, tl_v_load(y + i) + tl_v_load(x + i));
    }
    for (; i < n; i++) {
        y[i] += x[i];
    }
}

static void scatter_add(int threads, int64_t count, int64_t width, const int32_t *indices,
                        const tl_real *y, tl_real *table) {
    const int64_t chunks = tl_piece_count(width, COLUMNS);
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (count * width > TL_PARALLEL_MINIMUM)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const int64_t column = chunk * COLUMNS;
        const int64_t n = tl_piece_size(chunk, width, COLUMNS);
        for (int64_t i = 0; i < count; i++) {
            add_row(n, y + i * width + column, table + indices[i] * width + column);
        }
    }
}

const tl_embedding_kernels TL_PER_ISA(tl_embedding_kernels) = {
    .gather = gather,
    .scatter_add = scatter_add,
};
