/* attention_cost.h - what an attention module costs, before it runs: "will it fit?"
 *
 * The figures are those of one training step of the module alone (forward and backward, every
 * gradient wanted), and agree with what the tape reports for it (tape.h).
 */
#ifndef TL_ATTENTION_COST_H
#define TL_ATTENTION_COST_H

#include <stdint.h>

#include <tapeline/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tl_attention_kind {
    TL_ATTENTION_NONE = 0,
    TL_ATTENTION_EFFICIENT = 1, /* config: tl_efficient_attention_config */
    TL_ATTENTION_NON_LOCAL = 2,
} tl_attention_kind;

typedef struct tl_attention_estimate {
    double forward_flops, backward_flops;                   /* the definition's */
    double forward_flops_executed, backward_flops_executed; /* folded, with recomputation */
    uint64_t saved_bytes; /* kept from forward to backward: x included, parameters not */
    uint64_t peak_bytes;  /* x, y, parameters, the gradients of all, what is saved, scratch */
} tl_attention_estimate;

/* The cost of a module of that kind on x of this shape [N, spatial..., C], with that many threads
 * (0: as many as a context has by default). `config` is of the kind's type; NULL: its default.
 * Fails as the operation would. */
TL_API tl_status tl_attention_cost(tl_attention_kind kind, const void *config, int rank,
                                   const int64_t *shape, int threads,
                                   tl_attention_estimate *estimate, tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
