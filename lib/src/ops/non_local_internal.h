/* non_local_internal.h - what the operation, the layer and the cost estimate share. */
#ifndef TL_NON_LOCAL_INTERNAL_H
#define TL_NON_LOCAL_INTERNAL_H

#include <tapeline/non_local.h>

#include "ops/pair_attention.h"

/* Checks a config (NULL: the default) and fills in its defaults, for inputs of `channels` channels
 * (0: config->in_channels says how many). */
tl_status tl_non_local_resolve(const tl_non_local_config *config, int64_t channels,
                               tl_non_local_config *resolved, tl_error *error);

/* Checks what only a layer can be asked for. */
tl_status tl_non_local_check_layer(const tl_non_local_config *resolved, tl_error *error);

bool tl_non_local_has_keys(const tl_non_local_config *resolved);

/* The pairwise part's config for m keys. */
tl_pair_attention_config tl_non_local_pair(const tl_non_local_config *resolved, int64_t m);

/* Whether dimension `dimension` of an x of this rank is pooled by sub-sampling. */
bool tl_non_local_pools(int rank, int dimension);

/* Checks that x of this shape [N, spatial..., C] can be sub-sampled, and says how many positions
 * keys and values then have. */
tl_status tl_non_local_positions(const tl_non_local_config *resolved, int rank,
                                 const int64_t *shape, int64_t *keys, tl_error *error);

/* The block as a module for tl_pair_step: what its step takes (attention_cost.c). */
typedef struct tl_non_local_module {
    const tl_non_local_config *config; /* resolved */
    int64_t samples, queries, keys;
} tl_non_local_module;
double tl_non_local_step_bytes(const tl_pair_step *step, int64_t queries,
                               tl_attention_implementation implementation);

/* x [rows..., K], pair_weight [2 K] -> [rows..., 2]: [<a, x>, 1], or with `keys` [1, <b, x>], so
 * that the product of two such rows is <a, q> + <b, k>. */
tl_tensor *tl_pair_terms(tl_tape *tape, tl_tensor *x, tl_tensor *pair_weight, bool keys);
tl_footprint tl_pair_terms_footprint(tl_footprint_machine machine, int64_t rows, int64_t channels);

#endif
