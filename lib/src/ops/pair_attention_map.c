/* The materialized implementation of pair_attention.c: matrix products around a stored map
 * P [samples, heads, n, m]. In backward the gradient of one head's maps, [samples, n, m], is held
 * at a time.
 */
#include <inttypes.h>
#include <math.h>

#include "kernels/kernels.h"
#include "ops/pair_attention.h"

static size_t bytes_of(const tl_attention_problem *problem, int64_t heads) {
    const double elements =
        (double)problem->samples * (double)heads * (double)problem->queries * (double)problem->keys;
    if (elements * (double)sizeof(tl_real) > (double)(SIZE_MAX / 4)) {
        return SIZE_MAX;
    }
    return (size_t)(problem->samples * heads * problem->queries * problem->keys) * sizeof(tl_real);
}

size_t tl_pair_map_bytes(const tl_attention_problem *problem) {
    return bytes_of(problem, problem->heads);
}

size_t tl_pair_map_gradient_bytes(const tl_attention_problem *problem) {
    return bytes_of(problem, 1);
}

/* Whether the maps, and for a backward pass their gradient, can be had; nothing is kept. */
static bool available(const tl_op *op, const tl_attention_problem *problem) {
    const size_t map_bytes = tl_pair_map_bytes(problem);
    if (map_bytes == SIZE_MAX) {
        return false;
    }
    if (tl_context_memory(op->tape->context).limit == 0) {
        return true;
    }
    tl_pool *pool = op->tape->pool;
    void *map = tl_pool_allocate(pool, map_bytes);
    void *gradient = NULL;
    bool fits = map != NULL;
    if (fits && op->recorded) {
        gradient = tl_pool_allocate(pool, tl_pair_map_gradient_bytes(problem));
        fits = gradient != NULL;
    }
    tl_pool_release(pool, gradient);
    tl_pool_release(pool, map);
    return fits;
}

bool tl_pair_map_fits(tl_op *op, const tl_attention_problem *problem) {
    if (available(op, problem)) {
        return true;
    }
    const tl_memory_usage usage = tl_context_memory(op->tape->context);
    const double pair_bytes = (double)problem->samples * (double)sizeof(tl_real) *
                              (double)(problem->heads + (op->recorded ? 1 : 0));
    const double needed = pair_bytes * (double)problem->queries * (double)problem->keys;
    const double left = usage.limit > usage.current ? (double)(usage.limit - usage.current) : 0;
    const double ratio = (double)problem->keys / (double)problem->queries;
    const size_t tiled =
        TL_OP_KERNELS(op)->tiled_attention->scratch_bytes(problem, TL_OP_THREADS(op)) +
        (size_t)(2 * problem->samples * problem->heads * problem->queries) * sizeof(tl_real);
    char wanted[TL_BYTES_TEXT_SIZE], held[TL_BYTES_TEXT_SIZE], limit[TL_BYTES_TEXT_SIZE],
        instead[TL_BYTES_TEXT_SIZE];
    (void)tl_op_fail(op, TL_ERROR_OUT_OF_MEMORY,
                     "the materialized map of %" PRId64 " x %" PRId64
                     " positions%s needs %s, and %s of the limit of %s are in use; up to %" PRId64
                     " positions would fit, or the tiled implementation, which needs %s",
                     problem->queries, problem->keys, op->recorded ? " and its gradient" : "",
                     tl_bytes_text(needed, wanted), tl_bytes_text((double)usage.current, held),
                     usage.limit == 0 ? "the machine" : tl_bytes_text((double)usage.limit, limit),
                     (int64_t)sqrt(left / (pair_bytes * ratio)),
                     tl_bytes_text((double)tiled, instead));
    return false;
}

/* ------------------------------------------------------------------ the products */

/* S = scale Q K^T of one head of all samples. */
static tl_gemm_problem scores(const tl_attention_problem *p, int64_t head, const tl_real *q,
                              const tl_real *k, tl_real *map) {
    return (tl_gemm_problem){.m = p->queries,
                             .n = p->keys,
                             .k = p->d_k,
                             .transpose_b = true,
                             .alpha = p->scale,
                             .a = q + head * p->q.head,
                             .b = k + head * p->k.head,
                             .c = map + head * p->queries * p->keys,
                             .row_stride_a = p->q.row,
                             .row_stride_b = p->k.row,
                             .batch = p->samples,
                             .batch_stride_a = p->q.sample,
                             .batch_stride_b = p->k.sample,
                             .batch_stride_c = p->heads * p->queries * p->keys};
}

/* C [n or m, d] = alpha op(map) B + beta C, where rows of B and C lie as `from` and `to` say. */
static tl_gemm_problem apply(const tl_attention_problem *p, int64_t head, bool transposed,
                             const tl_real *map, int64_t map_stride, const tl_real *b,
                             tl_rows_layout from, tl_real *c, tl_rows_layout to, int64_t channels) {
    return (tl_gemm_problem){.m = transposed ? p->keys : p->queries,
                             .n = channels,
                             .k = transposed ? p->queries : p->keys,
                             .transpose_a = transposed,
                             .alpha = 1,
                             .a = map,
                             .b = b + head * from.head,
                             .c = c + head * to.head,
                             .row_stride_b = from.row,
                             .row_stride_c = to.row,
                             .batch = p->samples,
                             .batch_stride_a = map_stride,
                             .batch_stride_b = from.sample,
                             .batch_stride_c = to.sample};
}

static tl_attention_maps maps_of(const tl_attention_problem *p, int64_t count) {
    return (tl_attention_maps){.weights = p->weights,
                               .causal = p->causal,
                               .count = count,
                               .rows = p->queries,
                               .columns = p->keys};
}

bool tl_pair_map_forward(tl_op *op, const tl_attention_problem *p, const tl_real *q,
                         const tl_real *k, const tl_real *v, tl_real *map, tl_real *o) {
    const tl_kernels *kernels = TL_OP_KERNELS(op);
    const int threads = TL_OP_THREADS(op);
    const int64_t one = p->queries * p->keys;
    tl_gemm_problem first = scores(p, 0, q, k, map);
    tl_gemm_problem second = apply(p, 0, false, map, p->heads * one, v, p->v, o, p->o, p->d_v);
    const size_t first_bytes = kernels->gemm->scratch_bytes(&first, threads);
    const size_t second_bytes = kernels->gemm->scratch_bytes(&second, threads);
    void *scratch = tl_op_scratch(op, first_bytes > second_bytes ? first_bytes : second_bytes);
    if (scratch == NULL) {
        return false;
    }
    for (int64_t head = 0; head < p->heads; head++) {
        first = scores(p, head, q, k, map);
        kernels->gemm->multiply(&first, scratch, threads);
    }
    const tl_attention_maps maps = maps_of(p, p->samples * p->heads);
    kernels->attention_map->forward(&maps, map, one, threads);
    for (int64_t head = 0; head < p->heads; head++) {
        second = apply(p, head, false, map + head * one, p->heads * one, v, p->v, o, p->o, p->d_v);
        kernels->gemm->multiply(&second, scratch, threads);
    }
    return true;
}

/* Runs a product with scratch of its own, given back when backward returns. */
typedef struct product_runner {
    tl_node *node;
    void *scratch;
    size_t bytes;
} product_runner;

static void run(product_runner *runner, const tl_gemm_problem *problem) {
    const tl_gemm_kernels *gemm = TL_NODE_KERNELS(runner->node)->gemm;
    const int threads = TL_NODE_THREADS(runner->node);
    const size_t bytes = gemm->scratch_bytes(problem, threads);
    if (runner->scratch == NULL || bytes > runner->bytes) {
        runner->scratch = tl_node_scratch(runner->node, bytes);
        runner->bytes = bytes;
    }
    if (runner->scratch != NULL) {
        gemm->multiply(problem, runner->scratch, threads);
    }
}

void tl_pair_map_backward(tl_node *node, const tl_attention_problem *p, const tl_real *map) {
    const int64_t one = p->queries * p->keys;
    const tl_real *q = tl_node_input(node, 0);
    const tl_real *k = tl_node_input(node, 1);
    const tl_real *v = tl_node_input(node, 2);
    const tl_real *d_o = tl_node_output_grad(node);
    bool add_q = false, add_k = false, add_v = false;
    tl_real *d_q = tl_node_grad(node, 0, &add_q);
    tl_real *d_k = tl_node_grad(node, 1, &add_k);
    tl_real *d_v = tl_node_grad(node, 2, &add_v);
    const bool wants_scores = d_q != NULL || d_k != NULL;
    tl_real *d_map = wants_scores ? tl_node_scratch(node, tl_pair_map_gradient_bytes(p)) : NULL;
    if (wants_scores && d_map == NULL) {
        return;
    }
    product_runner runner = {.node = node};
    const tl_attention_maps maps = maps_of(p, p->samples);
    for (int64_t head = 0; head < p->heads; head++) {
        const tl_real *head_map = map + head * one;
        if (wants_scores) {
            /* dP = dO V^T, a product of the scores' form; then dS in its place */
            tl_attention_problem swapped = *p;
            swapped.q = p->o;
            swapped.k = p->v;
            swapped.d_k = p->d_v;
            swapped.scale = 1;
            tl_gemm_problem d_p = scores(&swapped, head, d_o, v, d_map);
            d_p.c = d_map;
            d_p.batch_stride_c = one;
            run(&runner, &d_p);
            TL_NODE_KERNELS(node)->attention_map->backward(&maps, head_map, p->heads * one, d_map,
                                                           one, TL_NODE_THREADS(node));
        }
        if (d_q != NULL) {
            tl_gemm_problem product = apply(p, head, false, d_map, one, k, p->k, d_q, p->q, p->d_k);
            product.alpha = p->scale;
            product.beta = add_q ? 1 : 0;
            run(&runner, &product);
        }
        if (d_k != NULL) {
            tl_gemm_problem product = apply(p, head, true, d_map, one, q, p->q, d_k, p->k, p->d_k);
            product.alpha = p->scale;
            product.beta = add_k ? 1 : 0;
            run(&runner, &product);
        }
        if (d_v != NULL) {
            tl_gemm_problem product =
                apply(p, head, true, head_map, p->heads * one, d_o, p->o, d_v, p->v, p->d_v);
            product.beta = add_v ? 1 : 0;
            run(&runner, &product);
        }
    }
}
