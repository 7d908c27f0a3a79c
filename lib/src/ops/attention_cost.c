#include <tapeline/attention_cost.h>

#include <inttypes.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "core/error_internal.h"
#include "core/tensor_internal.h"
#include "kernels/kernels.h"
#include "ops/efficient_attention_internal.h"

static int default_threads(int threads) {
#ifdef _OPENMP
    return threads > 0 ? threads : omp_get_max_threads();
#else
    return threads > 0 ? threads : 1;
#endif
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

static tl_status efficient_cost(const tl_efficient_attention_config *config, int rank,
                                const int64_t *x_shape, int64_t x_size, int threads,
                                tl_attention_estimate *estimate, tl_error *error) {
    tl_efficient_attention_config resolved;
    TL_TRY(tl_efficient_attention_resolve(config, x_shape[rank - 1], &resolved, error));
    const int64_t batch = x_shape[0];
    const tl_attention_shape s =
        tl_efficient_attention_shape(&resolved, batch, x_size / batch / x_shape[rank - 1]);
    const double C = (double)s.channels, K = (double)s.key_channels, V = (double)s.value_channels;
    const double bytes = (double)sizeof(tl_real), x = (double)x_size * bytes;
    const double y = x / C * (double)tl_attention_output_channels(&s);
    const double parameters =
        bytes * (2 * (K * C + K) + V * C + V + (s.reprojection ? C * V + C : 0));
    const double saved = bytes * (double)batch * (double)tl_attention_saved_per_sample(&s);
    /* scratch is laid out the same way for every instruction set */
    const char *reason;
    const tl_efficient_attention_kernels *kernels =
        tl_kernels_select("baseline", &reason)->efficient_attention;
    const double forward_scratch = (double)kernels->forward_scratch_bytes(&s, threads);
    const double backward_scratch = (double)kernels->backward_scratch_bytes(&s, threads);
    const double flops = tl_attention_algorithm_flops(&s);
    *estimate = (tl_attention_estimate){
        .forward_flops = flops,
        .backward_flops = 2 * flops,
        .forward_flops_executed = tl_attention_forward_flops(&s),
        .backward_flops_executed = tl_attention_backward_flops(&s),
        .saved_bytes = (uint64_t)(x + saved),
        .peak_bytes = (uint64_t)(x + y + parameters + saved +
                                 larger(forward_scratch, x + y + parameters + backward_scratch)),
    };
    return TL_OK;
}

tl_status tl_attention_cost(tl_attention_kind kind, const void *config, int rank,
                            const int64_t *shape, int threads, tl_attention_estimate *estimate,
                            tl_error *error) {
    tl_error_clear(error);
    int64_t size;
    if (rank < 2 || !tl_shape_size(rank, shape, &size)) {
        return tl_fail(error, TL_ERROR_SHAPE,
                       "attention cost: expected a shape [N, spatial..., C] of extents of at least "
                       "1 and rank 2 to %d, found rank %d",
                       TL_MAX_RANK, rank);
    }
    switch (kind) {
    case TL_ATTENTION_NONE:
        *estimate = (tl_attention_estimate){0};
        return TL_OK;
    case TL_ATTENTION_EFFICIENT:
        return efficient_cost(config, rank, shape, size, default_threads(threads), estimate, error);
    case TL_ATTENTION_NON_LOCAL:
        break;
    }
    return tl_fail(error, TL_ERROR_UNSUPPORTED, "attention cost: no estimate for kind %d",
                   (int)kind);
}
