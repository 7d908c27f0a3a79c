/* efficient_attention_internal.h - what the operation, the layer and the cost estimate share. */
#ifndef TL_EFFICIENT_ATTENTION_INTERNAL_H
#define TL_EFFICIENT_ATTENTION_INTERNAL_H

#include <tapeline/efficient_attention.h>

#include "kernels/k_attention_plan.h"
#include "ops/footprint.h"

/* Checks a config (NULL: the default) and fills in its defaults, for inputs of `channels`
 * channels (0: config->in_channels says how many). */
tl_status tl_efficient_attention_resolve(const tl_efficient_attention_config *config,
                                         int64_t channels, tl_efficient_attention_config *resolved,
                                         tl_error *error);

/* The kernels' view of a resolved config. */
tl_attention_shape tl_efficient_attention_shape(const tl_efficient_attention_config *resolved,
                                                int64_t batch, int64_t positions);

/* What the operation takes with all gradients; it saves x besides. */
tl_footprint tl_efficient_attention_footprint(tl_footprint_machine machine,
                                              const tl_attention_shape *shape);

#endif
