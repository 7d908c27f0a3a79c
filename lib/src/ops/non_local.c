/* The non-local operation, composed: projections (linear), the pairwise part (pair_attention.c,
 * which derives its backward pass), reprojection and residual (linear_add). Only the Gaussian form
 * reads x itself as queries and keys; where it is one tensor for both, its gradient is the sum.
 */
#include <tapeline/arithmetic.h>
#include <tapeline/matmul.h>
#include <tapeline/pooling.h>

#include <inttypes.h>
#include <string.h>

#include "ops/non_local_internal.h"

/* What the pairwise part works on. `source` is x, or x after max pooling. */
typedef struct pair_inputs {
    tl_tensor *source, *q, *k, *v;
} pair_inputs;

static bool weight_fits(tl_op *op, const char *name, const tl_tensor *weight, int64_t rows,
                        int64_t columns) {
    const bool matrix = columns != 0;
    if (weight != NULL && weight->rank == (matrix ? 2 : 1) && weight->shape[0] == rows &&
        (!matrix || weight->shape[1] == columns)) {
        return true;
    }
    char found[TL_SHAPE_TEXT_SIZE] = "none", expected[TL_SHAPE_TEXT_SIZE];
    if (weight != NULL) {
        (void)tl_shape_text(weight->rank, weight->shape, found);
    }
    (void)tl_op_fail(op, TL_ERROR_SHAPE, "expected %s %s, found %s", name,
                     tl_shape_text(matrix ? 2 : 1, (int64_t[]){rows, columns}, expected), found);
    return false;
}

static bool weights_fit(tl_op *op, const tl_non_local_config *c, const tl_non_local_weights *w) {
    const int64_t C = c->in_channels, K = c->key_channels, V = c->value_channels;
    if (tl_non_local_has_keys(c) && (!weight_fits(op, "query_weight", w->query_weight, K, C) ||
                                     !weight_fits(op, "query_bias", w->query_bias, K, 0) ||
                                     !weight_fits(op, "key_weight", w->key_weight, K, C) ||
                                     !weight_fits(op, "key_bias", w->key_bias, K, 0))) {
        return false;
    }
    if (c->pairwise == TL_PAIRWISE_CONCATENATION &&
        !weight_fits(op, "pair_weight", w->pair_weight, 2 * K, 0)) {
        return false;
    }
    if (c->use_reprojection &&
        (!weight_fits(op, "reprojection_weight", w->reprojection_weight, C, V) ||
         !weight_fits(op, "reprojection_bias", w->reprojection_bias, C, 0))) {
        return false;
    }
    return weight_fits(op, "value_weight", w->value_weight, V, C) &&
           weight_fits(op, "value_bias", w->value_bias, V, 0);
}

/* A checked call: the config with its defaults, and the problem of the pairwise part. */
typedef struct non_local_call {
    tl_non_local_config config;
    tl_pair_attention_config pair;
    int64_t queries, keys;
} non_local_call;

/* Checks all there is to check before anything is computed. */
static bool check(tl_op *op, tl_tape *tape, tl_tensor *x, const tl_non_local_weights *weights,
                  const tl_non_local_config *config, non_local_call *call) {
    if (!tl_op_begin(op, tape, "non_local", 1, &x, 0)) {
        return false;
    }
    tl_error error;
    if (x->rank < 2) {
        char text[TL_SHAPE_TEXT_SIZE];
        (void)tl_op_fail(op, TL_ERROR_SHAPE, "expected x [N, spatial..., C], found x %s",
                         tl_shape_text(x->rank, x->shape, text));
        return false;
    }
    tl_non_local_config *resolved = &call->config;
    if (tl_non_local_resolve(config, x->shape[x->rank - 1], resolved, &error) != TL_OK) {
        (void)tl_op_fail(op, error.status, "%s", error.message);
        return false;
    }
    if (resolved->use_batch_norm) {
        (void)tl_op_fail(op, TL_ERROR_INVALID_ARGUMENT,
                         "batch norm is for the layer: it has parameters of its own");
        return false;
    }
    if (tl_non_local_positions(resolved, x->rank, x->shape, &call->keys, &error) != TL_OK) {
        (void)tl_op_fail(op, error.status, "%s", error.message);
        return false;
    }
    call->queries = x->size / (x->shape[0] * x->shape[x->rank - 1]);
    call->pair = tl_non_local_pair(resolved, call->keys);
    return weights_fit(op, resolved, weights);
}

static bool wants_grad(const tl_tensor *tensor) {
    return tensor != NULL && tensor->requires_grad;
}

/* Whether there is memory for a map, if there is to be one: asked before anything is allocated. */
static bool map_fits(tl_op *op, const tl_non_local_weights *w, const non_local_call *call) {
    const tl_non_local_config *c = &call->config;
    if (c->implementation != TL_ATTENTION_MATERIALIZED) {
        return true;
    }
    const tl_tensor *x = op->node->inputs[0];
    const bool wanted =
        x->requires_grad || wants_grad(w->value_weight) || wants_grad(w->value_bias) ||
        (tl_non_local_has_keys(c) && (wants_grad(w->query_weight) || wants_grad(w->query_bias) ||
                                      wants_grad(w->key_weight) || wants_grad(w->key_bias)));
    const tl_attention_problem problem =
        tl_pair_problem_of(x->shape[0], call->queries, call->keys, c->key_channels / c->heads,
                           c->value_channels / c->heads, &call->pair);
    const tl_non_local_module module = {
        .config = c, .samples = x->shape[0], .queries = call->queries, .keys = call->keys};
    return tl_pair_map_fits(op, &problem,
                            &(tl_pair_step){.bytes = tl_non_local_step_bytes,
                                            .module = &module,
                                            .machine = {TL_OP_KERNELS(op), TL_OP_THREADS(op)},
                                            .recorded = op->tape->recording && wanted});
}

static tl_tensor *sub_sampled(tl_tape *tape, tl_tensor *x, const tl_non_local_config *c) {
    if (c->sub_sample == 1) {
        return x;
    }
    tl_pool_config pool = {0};
    for (int i = 1; i < x->rank - 1; i++) {
        pool.kernel_size[i - 1] = tl_non_local_pools(x->rank, i) ? c->sub_sample : 1;
    }
    return tl_max_pool(tape, x, &pool);
}

static pair_inputs project(tl_tape *tape, tl_tensor *x, const tl_non_local_weights *w,
                           const tl_non_local_config *c) {
    pair_inputs in = {.source = sub_sampled(tape, x, c)};
    in.v = tl_linear(tape, in.source, w->value_weight, w->value_bias);
    if (!tl_non_local_has_keys(c)) {
        in.q = x;
        in.k = in.source;
        return in;
    }
    in.q = tl_linear(tape, x, w->query_weight, w->query_bias);
    in.k = tl_linear(tape, in.source, w->key_weight, w->key_bias);
    if (c->pairwise == TL_PAIRWISE_CONCATENATION) {
        tl_tensor *queries = in.q;
        tl_tensor *keys = in.k;
        in.q = tl_pair_terms(tape, queries, w->pair_weight, false);
        in.k = tl_pair_terms(tape, keys, w->pair_weight, true);
        tl_release(tape, queries);
        tl_release(tape, keys);
    }
    return in;
}

static void release(tl_tape *tape, const tl_tensor *x, const pair_inputs *in) {
    if (in->q != x) {
        tl_release(tape, in->q);
    }
    if (in->k != in->source) {
        tl_release(tape, in->k);
    }
    tl_release(tape, in->v);
    if (in->source != x) {
        tl_release(tape, in->source);
    }
}

tl_tensor *tl_non_local(tl_tape *tape, tl_tensor *x, const tl_non_local_weights *weights,
                        const tl_non_local_config *config) {
    tl_op op;
    non_local_call call;
    if (!check(&op, tape, x, weights, config, &call) || !map_fits(&op, weights, &call)) {
        return NULL;
    }
    const tl_non_local_config *c = &call.config;
    pair_inputs in = project(tape, x, weights, c);
    tl_tensor *out = NULL;
    if (tl_op_begin(&op, tape, "non_local", 3, (tl_tensor *[]){in.q, in.k, in.v}, 0)) {
        out = tl_pair_attention(&op, &call.pair);
    }
    release(tape, x, &in);
    if (c->use_reprojection) {
        tl_tensor *y = c->use_residual ? tl_linear_add(tape, out, weights->reprojection_weight,
                                                       weights->reprojection_bias, x)
                                       : tl_linear(tape, out, weights->reprojection_weight,
                                                   weights->reprojection_bias);
        tl_release(tape, out);
        return y;
    }
    if (c->use_residual) {
        tl_tensor *y = tl_add(tape, out, x);
        tl_release(tape, out);
        return y;
    }
    return out;
}

/* ------------------------------------------------------------------ the map of one position */

/* q [N, positions..., h d], k [N, positions..., h d] -> the weights of one query [N, h, m]. */
static tl_tensor *map_of(tl_op *op, const tl_pair_attention_config *pair, int64_t position) {
    const tl_tensor *q = op->node->inputs[0];
    const tl_tensor *k = op->node->inputs[1];
    const tl_attention_problem p = tl_pair_problem(q, k, k, pair);
    tl_tensor *map = tl_op_output(op, 3, (int64_t[]){p.samples, p.heads, p.keys});
    if (map == NULL) {
        return NULL;
    }
    const tl_kernels *kernels = TL_OP_KERNELS(op);
    const int threads = TL_OP_THREADS(op);
    tl_gemm_problem scores = {.m = 1,
                              .n = p.keys,
                              .k = p.d_k,
                              .transpose_b = true,
                              .alpha = p.scale,
                              .row_stride_a = p.q.row,
                              .row_stride_b = p.k.row,
                              .batch = p.samples,
                              .batch_stride_a = p.q.sample,
                              .batch_stride_b = p.k.sample,
                              .batch_stride_c = p.heads * p.keys};
    void *scratch = tl_op_scratch(op, kernels->gemm->scratch_bytes(&scores, threads));
    if (scratch == NULL) {
        return NULL;
    }
    for (int64_t h = 0; h < p.heads; h++) {
        scores.a = q->storage->data + position * p.q.row + h * p.q.head;
        scores.b = k->storage->data + h * p.k.head;
        scores.c = map->storage->data + h * p.keys;
        kernels->gemm->multiply(&scores, scratch, threads);
    }
    const tl_attention_maps maps = {
        .weights = pair->weights, .count = p.samples * p.heads, .rows = 1, .columns = p.keys};
    kernels->attention_map->forward(&maps, map->storage->data, p.keys, threads);
    return tl_op_finish(op, NULL);
}

tl_tensor *tl_non_local_map(tl_tape *tape, tl_tensor *x, const tl_non_local_weights *weights,
                            const tl_non_local_config *config, int64_t position) {
    tl_op op;
    non_local_call call;
    if (!check(&op, tape, x, weights, config, &call)) {
        return NULL;
    }
    if (position < 0 || position >= call.queries) {
        (void)tl_tape_fail(tape, TL_ERROR_INVALID_ARGUMENT,
                           "non_local_map: position must be 0 ... %" PRId64 ", found %" PRId64,
                           call.queries - 1, position);
        return NULL;
    }
    const bool recording = tl_tape_is_recording(tape);
    tl_tape_set_recording(tape, false);
    pair_inputs in = project(tape, x, weights, &call.config);
    tl_tensor *map = NULL;
    if (tl_op_begin(&op, tape, "non_local_map", 2, (tl_tensor *[]){in.q, in.k}, 0)) {
        map = map_of(&op, &call.pair, position);
    }
    release(tape, x, &in);
    tl_tape_set_recording(tape, recording);
    return map;
}
