/* non_local_internal.h - what the operation, the layer and the cost estimate share. */
#ifndef TL_NON_LOCAL_INTERNAL_H
#define TL_NON_LOCAL_INTERNAL_H

#include <tapeline/non_local.h>

#include "ops/pair_attention.h"

/* Checks a config (NULL: the default) and fills in its defaults, for inputs of `channels` channels
 * (0: config->in_channels says how many). */
tl_status tl_non_local_resolve(const tl_non_local_config *config, int64_t channels,
                               tl_non_local_config *resolved, tl_error *error);

bool tl_non_local_has_keys(const tl_non_local_config *resolved);

/* The pairwise part's config for m keys. */
tl_pair_attention_config tl_non_local_pair(const tl_non_local_config *resolved, int64_t m);

/* Whether dimension `dimension` of an x of this rank is pooled by sub-sampling. */
bool tl_non_local_pools(int rank, int dimension);

/* x [rows..., K], pair_weight [2 K] -> [rows..., 2]: [<a, x>, 1], or with `keys` [1, <b, x>], so
 * that the product of two such rows is <a, q> + <b, k>. */
tl_tensor *tl_pair_terms(tl_tape *tape, tl_tensor *x, tl_tensor *pair_weight, bool keys);

#endif
