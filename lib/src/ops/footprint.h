/* footprint.h - what an operation will take, before it runs: FLOPs and memory as the operation
 * itself will report and allocate them. Each function lies beside its operation; cost_plan.h puts
 * several together.
 */
#ifndef TL_FOOTPRINT_H
#define TL_FOOTPRINT_H

#include "core/op.h"
#include "kernels/kernels.h"

typedef struct tl_footprint {
    double forward_flops, backward_flops;
    double forward_flops_executed, backward_flops_executed;
    double kept_bytes;        /* until backward, beside inputs and output */
    bool keeps_only_recorded; /* else it is taken, and given back, also where nothing is recorded */
    double forward_scratch;   /* bytes */
    double backward_scratch;  /* bytes, all that is held at one time */
} tl_footprint;

/* What the kernels of an estimate are asked for. */
typedef struct tl_footprint_machine {
    const tl_kernels *kernels;
    int threads;
} tl_footprint_machine;

/* Scratch of a matrix product, in bytes. */
static inline double tl_product_scratch(tl_footprint_machine machine,
                                        const tl_gemm_problem *problem) {
    return (double)machine.kernels->gemm->scratch_bytes(problem, machine.threads);
}

/* All gradients wanted: of x, the parameters, and the residual. */

/* x [rows, in] -> [rows, out], with a bias; and with a residual (linear_add). */
tl_footprint tl_linear_footprint(tl_footprint_machine machine, int64_t rows, int64_t in,
                                 int64_t out, bool residual);

/* A window of `window` positions, `size` values of y. */
tl_footprint tl_max_pool_footprint(int64_t window, int64_t size);

/* Batch norm in training mode, without ReLU and residual. */
tl_footprint tl_batch_norm_footprint(tl_footprint_machine machine, int64_t rows, int64_t channels);

/* Sum of two tensors of `size` values. */
tl_footprint tl_add_footprint(int64_t size);

#endif
