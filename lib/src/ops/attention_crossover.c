/* The crossover: estimates at many n, until the last one at which efficient attention is not the
 * cheaper is found. */
#include <tapeline/attention_cost.h>

#include "core/error_internal.h"

typedef struct comparison {
    const tl_efficient_attention_config *efficient;
    tl_non_local_config non_local;
    int64_t batch, channels;
    int threads;
    bool memory; /* else time */
} comparison;

static double cost_of(const comparison *c, const tl_attention_estimate *estimate) {
    return c->memory ? (double)estimate->peak_bytes
                     : estimate->forward_flops_executed + estimate->backward_flops_executed;
}

/* Whether efficient attention is the cheaper with n positions. */
static tl_status compare(const comparison *c, int64_t n, bool *cheaper, tl_error *error) {
    const int64_t shape[3] = {c->batch, n, c->channels};
    tl_attention_estimate ours, theirs;
    TL_TRY(tl_attention_cost(TL_ATTENTION_EFFICIENT, c->efficient, 3, shape, c->threads, &ours,
                             error));
    TL_TRY(tl_attention_cost(TL_ATTENTION_NON_LOCAL, &c->non_local, 3, shape, c->threads, &theirs,
                             error));
    *cheaper = cost_of(c, &ours) < cost_of(c, &theirs);
    return TL_OK;
}

/* Goes down from the limit in steps of a sixteenth, which no stretch of the costs, smooth but for
 * the blocking of scratch, falls through; then halves the last step. */
static tl_status find(const comparison *c, int64_t smallest, int64_t *from, tl_error *error) {
    bool cheaper;
    int64_t above = TL_CROSSOVER_LIMIT, below = above;
    TL_TRY(compare(c, above, &cheaper, error));
    if (!cheaper) {
        *from = 0;
        return TL_OK;
    }
    while (cheaper && below > smallest) {
        above = below;
        below -= below / 16 > 1 ? below / 16 : 1;
        below = below > smallest ? below : smallest;
        TL_TRY(compare(c, below, &cheaper, error));
    }
    if (cheaper) {
        *from = 1;
        return TL_OK;
    }
    while (above - below > 1) {
        const int64_t middle = below + (above - below) / 2;
        TL_TRY(compare(c, middle, &cheaper, error));
        *(cheaper ? &above : &below) = middle;
    }
    *from = above;
    return TL_OK;
}

tl_status tl_attention_crossover(const tl_efficient_attention_config *efficient,
                                 const tl_non_local_config *non_local, int64_t batch,
                                 int64_t channels, int threads, tl_crossover *crossover,
                                 tl_error *error) {
    tl_error_clear(error);
    comparison c = {.efficient = efficient,
                    .non_local = non_local != NULL ? *non_local : tl_non_local_config_default(),
                    .batch = batch,
                    .channels = channels,
                    .threads = threads};
    const int64_t smallest = c.non_local.sub_sample > 1 ? c.non_local.sub_sample : 1;
    int64_t *const results[2][2] = {{&crossover->time_tiled, &crossover->time_materialized},
                                    {&crossover->memory_tiled, &crossover->memory_materialized}};
    for (int memory = 0; memory < 2; memory++) {
        for (int i = 0; i < 2; i++) {
            c.memory = memory != 0;
            c.non_local.implementation = i == 0 ? TL_ATTENTION_TILED : TL_ATTENTION_MATERIALIZED;
            TL_TRY(find(&c, smallest, results[memory][i], error));
        }
    }
    return TL_OK;
}
