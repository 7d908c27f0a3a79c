/* Scaled dot-product attention: checks shapes; the mathematics is in pair_attention.c. */
#include <tapeline/attention.h>

#include <inttypes.h>
#include <math.h>

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

tl_tensor *tl_attention(tl_tape *tape, tl_tensor *q, tl_tensor *k, tl_tensor *v,
                        const tl_attention_config *config) {
    const tl_attention_config defaults = {0};
    const tl_attention_config c = config != NULL ? *config : defaults;
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
    const bool head_axis = q->rank == 4;
    const int64_t heads = head_axis ? q->shape[1] : c.heads == 0 ? 1 : c.heads;
    const int64_t channels = q->shape[q->rank - 1];
    const int64_t value_channels = v->shape[v->rank - 1];
    if (heads < 1 || (!head_axis && (channels % heads != 0 || value_channels % heads != 0))) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                          "heads must divide the channels of q and of v, found %" PRId64
                          " heads, %" PRId64 " and %" PRId64 " channels",
                          heads, channels, value_channels);
    }
    if (c.causal && q->shape[q->rank - 2] != k->shape[k->rank - 2]) {
        return tl_op_fail(&op, TL_ERROR_SHAPE,
                          "causal attention needs as many keys as queries, found %" PRId64
                          " and %" PRId64,
                          k->shape[k->rank - 2], q->shape[q->rank - 2]);
    }
    if (!isfinite(c.scale) || c.scale < 0) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "scale must be finite and not negative");
    }
    if (c.implementation != TL_ATTENTION_TILED && c.implementation != TL_ATTENTION_MATERIALIZED) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT, "unknown implementation %d",
                          (int)c.implementation);
    }
    const double d = (double)(head_axis ? channels : channels / heads);
    return tl_pair_attention(
        &op, &(tl_pair_attention_config){.weights = TL_PAIR_SOFTMAX,
                                         .causal = c.causal,
                                         .scale = c.scale == 0 ? 1 / sqrt(d) : c.scale,
                                         .heads = heads,
                                         .head_axis = head_axis,
                                         .implementation = c.implementation});
}
