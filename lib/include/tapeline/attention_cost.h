/* attention_cost.h - what an attention module costs, before it runs: "will it fit?"
 *
 * The figures are those of the module alone, with every gradient wanted, on a tape that has done a
 * step before (gradients of parameters are there). FLOPs and saved bytes are exactly what the tape
 * reports (tape.h); peak bytes are what a context measures within 5% from some 5 MB up, x included
 * although it is the caller's. They hold for the instruction set that a context picks by default.
 */
#ifndef TL_ATTENTION_COST_H
#define TL_ATTENTION_COST_H

#include <stdint.h>

#include <tapeline/attention.h>
#include <tapeline/efficient_attention.h>
#include <tapeline/error.h>
#include <tapeline/non_local.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tl_attention_kind {
    TL_ATTENTION_NONE = 0,
    TL_ATTENTION_EFFICIENT = 1, /* config: tl_efficient_attention_config */
    TL_ATTENTION_NON_LOCAL = 2, /* config: tl_non_local_config, batch norm of the layer included */
} tl_attention_kind;

typedef struct tl_attention_estimate {
    double forward_flops, backward_flops;                   /* the definition's */
    double forward_flops_executed, backward_flops_executed; /* folded, with recomputation */
    uint64_t saved_bytes; /* kept from forward to backward: x included, parameters not */
    uint64_t peak_bytes;  /* of a training step: x, y, parameters, the gradients of all, what is
                             saved, scratch, as far as they are there at one time; and 100 kB for
                             the tape's own tables */
    uint64_t inference_peak_bytes; /* of a forward pass that is not recorded */
} tl_attention_estimate;

/* The cost of a module of that kind on x of this shape [N, spatial..., C], with that many threads
 * (0: as many as a context has by default). `config` is of the kind's type; NULL: its default.
 * Nothing is allocated. Fails as the layer and the operation would; TL_ERROR_UNSUPPORTED if there
 * are more than 2^52 pairs of positions, which cannot be counted. */
TL_API tl_status tl_attention_cost(tl_attention_kind kind, const void *config, int rank,
                                   const int64_t *shape, int threads,
                                   tl_attention_estimate *estimate, tl_error *error);

/* The numbers of positions n from which on, for every greater number too, efficient attention is
 * cheaper than the non-local block; 1: always; 0: not up to TL_CROSSOVER_LIMIT. */
typedef struct tl_crossover {
    int64_t time_tiled, time_materialized;     /* by the executed FLOPs of a training step */
    int64_t memory_tiled, memory_materialized; /* by its peak bytes */
} tl_crossover;

enum { TL_CROSSOVER_LIMIT = 1 << 20 };

/* The crossover on x [batch, n, channels] (one spatial dimension, so that a sub-sampling by s
 * leaves n / s keys; ask for s^2 about images). NULL configs: the defaults. The implementation that
 * `non_local` names is not looked at. FLOPs are no seconds: a materialized map is moved through
 * memory several times, and the kernels reach different parts of the peak; docs/attention.md has
 * measured times beside this. Errors as above. */
TL_API tl_status tl_attention_crossover(const tl_efficient_attention_config *efficient,
                                        const tl_non_local_config *non_local, int64_t batch,
                                        int64_t channels, int threads, tl_crossover *crossover,
                                        tl_error *error);

/* The cost of tl_attention (attention.h) on q [batch, queries, channels], k [batch, keys, channels]
 * and v [batch, keys, value_channels], three tensors. `config` NULL: the default. */
TL_API tl_status tl_sequence_attention_cost(const tl_attention_config *config, int64_t batch,
                                            int64_t queries, int64_t keys, int64_t channels,
                                            int64_t value_channels, int threads,
                                            tl_attention_estimate *estimate, tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
