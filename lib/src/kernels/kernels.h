/* kernels.h - how operations reach the kernels.
 *
 * A kernel knows pointers and sizes only. Each family (k_gemm.h, k_conv.h, ...) declares a struct
 * of function pointers, and k_<family>.c defines one constant instance of it per instruction set:
 * the file is compiled once for each, with TL_ISA set to baseline, avx2 or avx512. All functions
 * in it are static, so nothing clashes. `tl_kernels` gathers the families of one instruction set;
 * a context picks one at run time by CPU feature, or by TL_ISA in the environment.
 *
 * Rules all kernels keep:
 *  - results are the same bits for every number of threads: work is cut by the problem's shape,
 *    partial sums are added in a fixed order;
 *  - scratch is asked for by a `..._scratch_bytes` function and passed in, never allocated inside;
 *    it is aligned to TL_ALIGNMENT and its content is undefined;
 *  - `threads` is the most OpenMP threads a kernel may use; for little work it uses fewer;
 *  - pointers need no alignment beyond that of tl_real, unless a kernel says so.
 */
#ifndef TL_KERNELS_H
#define TL_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tapeline/real.h>

#define TL_ALIGNMENT 64

#define TL_CONCAT_(a, b) a##_##b
#define TL_CONCAT(a, b) TL_CONCAT_(a, b)
/* The name of this instruction set's instance: TL_PER_ISA(tl_gemm_kernels) -> tl_gemm_kernels_avx2
 */
#define TL_PER_ISA(name) TL_CONCAT(name, TL_ISA)

/* Declares the instances of one family. */
#define TL_DECLARE_KERNELS(type) extern const type type##_baseline, type##_avx2, type##_avx512

/* A tensor whose values are made where they are read. `make` writes samples first ... first+count-1
 * (of the first dimension) to `to`; several threads call it at a time. Where `values` are there,
 * `make` is not called. */
enum { TL_PARTS_READS = 3 };
typedef struct tl_parts {
    const tl_real *values; /* or NULL */
    void (*make)(const void *state, int64_t first, int64_t count, tl_real *to);
    const void *state;
    const tl_real *reads[TL_PARTS_READS]; /* arrays of the same shape that `make` reads, then NULL:
                                             hints of what to fetch ahead */
} tl_parts;

/* Sees samples first ... first+count-1 of a tensor when they have been written and are in the
 * cache; each sample once, several threads at a time. */
typedef struct tl_watch {
    void (*see)(const void *state, int64_t first, int64_t count);
    const void *state;
} tl_watch;

/* Below this many FLOPs (or touched values) an OpenMP region costs more than it saves. */
#define TL_PARALLEL_MINIMUM 60000

#include "kernels/k_activation.h"
#include "kernels/k_attention_map.h"
#include "kernels/k_broadcast.h"
#include "kernels/k_channel_norm.h"
#include "kernels/k_conv.h"
#include "kernels/k_copy.h"
#include "kernels/k_cost_volume.h"
#include "kernels/k_dropout.h"
#include "kernels/k_efficient_attention.h"
#include "kernels/k_embedding.h"
#include "kernels/k_gemm.h"
#include "kernels/k_layer_norm.h"
#include "kernels/k_linear_attention.h"
#include "kernels/k_loss.h"
#include "kernels/k_optimizer.h"
#include "kernels/k_pooling.h"
#include "kernels/k_reduce.h"
#include "kernels/k_softmax.h"
#include "kernels/k_tiled_attention.h"
#include "kernels/k_upsample.h"
#include "kernels/k_vector.h"

typedef struct tl_kernels {
    const char *isa; /* "baseline", "avx2" or "avx512" */
    /* one pointer a family, in alphabetical order; dispatch.c fills them in */
    const tl_activation_kernels *activation;
    const tl_attention_map_kernels *attention_map;
    const tl_broadcast_kernels *broadcast;
    const tl_channel_norm_kernels *channel_norm;
    const tl_conv_kernels *conv;
    const tl_copy_kernels *copy;
    const tl_cost_volume_kernels *cost_volume;
    const tl_dropout_kernels *dropout;
    const tl_efficient_attention_kernels *efficient_attention;
    const tl_embedding_kernels *embedding;
    const tl_gemm_kernels *gemm;
    const tl_layer_norm_kernels *layer_norm;
    const tl_linear_attention_kernels *linear_attention;
    const tl_loss_kernels *loss;
    const tl_optimizer_kernels *optimizer;
    const tl_pooling_kernels *pooling;
    const tl_reduce_kernels *reduce;
    const tl_softmax_kernels *softmax;
    const tl_tiled_attention_kernels *tiled_attention;
    const tl_upsample_kernels *upsample;
    const tl_vector_kernels *vector;
} tl_kernels;

/* The kernels for `isa`, or for the best instruction set of this CPU if it is NULL or "auto".
 * NULL if the name is unknown or the CPU lacks it; `*reason` then says why. */
const tl_kernels *tl_kernels_select(const char *isa, const char **reason);

#endif
