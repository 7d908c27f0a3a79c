/* Scaled dot-product attention: checks shapes; the mathematics is in pair_attention.c. */
#include <tapeline/attention.h>

#include <inttypes.h>
#include <math.h>

#include "core/error_internal.h"
#include "ops/pair_attention.h"

static bool shapes_fit(const tl_tensor *q, const tl_tensor *k, const tl_tensor *v) {
    const int rank = q->rank;
    if ((rank != 3 && rank != 4) || k->rank != rank || v->rank != rank) {
        return false;
    }
    for (int i = 0; i < rank - 2; i++) {
        if (k->shape[i] != q->shape[i] || v->shape[i] != q->shape[i]) {
            return false;
        }
    }
    return k->shape[rank - 1] == q->shape[rank - 1] && k->shape[rank - 2] == v->shape[rank - 2];
}

tl_status tl_attention_resolve(const tl_attention_config *config, bool head_axis, int64_t heads,
                               int64_t queries, int64_t keys, int64_t channels,
                               int64_t value_channels, tl_pair_attention_config *pair,
                               tl_error *error) {
    const tl_attention_config defaults = {0};
    const tl_attention_config c = config != NULL ? *config : defaults;
    if (!head_axis) {
        heads = c.heads == 0 ? 1 : c.heads;
    }
    if (heads < 1 || (!head_axis && (channels % heads != 0 || value_channels % heads != 0))) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "heads must divide the channels of q and of v, found %" PRId64
                       " heads, %" PRId64 " and %" PRId64 " channels",
                       heads, channels, value_channels);
    }
    if (c.causal && queries != keys) {
        return tl_fail(error, TL_ERROR_SHAPE,
                       "causal attention needs as many keys as queries, found %" PRId64
                       " and %" PRId64,
                       keys, queries);
    }
    if (!isfinite(c.scale) || c.scale < 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "scale must be finite and not negative");
    }
    if (c.implementation != TL_ATTENTION_TILED && c.implementation != TL_ATTENTION_MATERIALIZED) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "unknown implementation %d",
                       (int)c.implementation);
    }
    const double d = (double)(head_axis ? channels : channels / heads);
    *pair = (tl_pair_attention_config){.weights = TL_PAIR_SOFTMAX,
                                       .causal = c.causal,
                                       .scale = c.scale == 0 ? 1 / sqrt(d) : c.scale,
                                       .heads = heads,
                                       .head_axis = head_axis,
                                       .implementation = c.implementation};
    return TL_OK;
}

/* Whether there is memory for a map, if there is to be one. */
static bool map_fits(tl_op *op, const tl_pair_attention_config *pair) {
    if (pair->implementation != TL_ATTENTION_MATERIALIZED) {
        return true;
    }
    tl_tensor *const *in = op->node->inputs;
    const tl_attention_problem problem = tl_pair_problem(in[0], in[1], in[2], pair);
    const tl_sequence_module module = {.pair = *pair,
                                       .samples = problem.samples,
                                       .queries = problem.queries,
                                       .keys = problem.keys,
                                       .d_k = problem.d_k,
                                       .d_v = problem.d_v};
    return tl_pair_map_fits(op, &problem,
                            &(tl_pair_step){.bytes = tl_sequence_step_bytes,
                                            .module = &module,
                                            .machine = {TL_OP_KERNELS(op), TL_OP_THREADS(op)},
                                            .recorded = op->recorded});
}

tl_tensor *tl_attention(tl_tape *tape, tl_tensor *q, tl_tensor *k, tl_tensor *v,
                        const tl_attention_config *config) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "attention", 3, (tl_tensor *[]){q, k, v}, 0)) {
        return NULL;
    }
    if (!shapes_fit(q, k, v)) {
        char text_q[TL_SHAPE_TEXT_SIZE], text_k[TL_SHAPE_TEXT_SIZE], text_v[TL_SHAPE_TEXT_SIZE];
        return tl_op_fail(
            &op, TL_ERROR_SHAPE,
            "expected q [N, H, L, D], k [N, H, M, D] and v [N, H, M, E], or [N, L, C], "
            "[N, M, C] and [N, M, E], found q %s, k %s and v %s",
            tl_shape_text(q->rank, q->shape, text_q), tl_shape_text(k->rank, k->shape, text_k),
            tl_shape_text(v->rank, v->shape, text_v));
    }
    const int last = q->rank - 1;
    tl_pair_attention_config pair;
    tl_error error;
    if (tl_attention_resolve(config, q->rank == 4, q->shape[1], q->shape[last - 1],
                             k->shape[last - 1], q->shape[last], v->shape[last], &pair,
                             &error) != TL_OK) {
        return tl_op_fail(&op, error.status, "%s", error.message);
    }
    return map_fits(&op, &pair) ? tl_pair_attention(&op, &pair) : NULL;
}
