/* The materialized implementation of pair_attention.c: matrix products around a stored map
 * P [samples, heads, n, m]. In backward the gradient of one head's maps, [samples, n, m], is held
 * at a time.
 */
#include <inttypes.h>

#include "ops/pair_attention.h"

/* The values of the maps of so many heads; a double, as they may be too many for an integer. */
static double map_size(const tl_attention_problem *problem, int64_t heads) {
    return (double)problem->samples * (double)heads * (double)problem->queries *
           (double)problem->keys;
}

static size_t bytes_of(const tl_attention_problem *problem, int64_t heads) {
    if (map_size(problem, heads) * (double)sizeof(tl_real) > (double)(SIZE_MAX / 4)) {
        return SIZE_MAX;
    }
    return (size_t)(problem->samples * heads * problem->queries * problem->keys) * sizeof(tl_real);
}

size_t tl_pair_map_bytes(const tl_attention_problem *problem) {
    return bytes_of(problem, problem->heads);
}

/* Of one head at a time. */
static size_t gradient_bytes(const tl_attention_problem *problem) {
    return bytes_of(problem, 1);
}

/* What the tape can still take: the rest of the budget and what it holds idle. */
static double bytes_left(const tl_op *op) {
    const tl_memory_usage usage = tl_context_memory(op->tape->context);
    const double rest = usage.limit > usage.current ? (double)(usage.limit - usage.current) : 0;
    return rest + (double)tl_pool_idle(op->tape->pool);
}

/* Whether the maps, and where recorded their gradient, can be had; nothing is kept. */
static bool available(const tl_op *op, const tl_attention_problem *problem, bool recorded) {
    const size_t map_bytes = tl_pair_map_bytes(problem);
    if (map_bytes == SIZE_MAX) {
        return false;
    }
    if (tl_context_memory(op->tape->context).limit == 0) {
        return true;
    }
    const size_t d_map_bytes = recorded ? gradient_bytes(problem) : 0;
    if ((double)map_bytes + (double)d_map_bytes > bytes_left(op)) {
        return false;
    }
    /* there is enough, but it may lie in pieces */
    tl_pool *pool = op->tape->pool;
    void *map = tl_pool_allocate(pool, map_bytes);
    void *gradient = map != NULL ? tl_pool_allocate(pool, d_map_bytes) : NULL;
    tl_pool_release(pool, gradient);
    tl_pool_release(pool, map);
    return gradient != NULL;
}

/* The most queries with which the step would fit into `left` bytes. */
static int64_t most_queries(const tl_pair_step *step, int64_t queries, double left) {
    int64_t fits = 0, too_many = queries;
    while (too_many - fits > 1) {
        const int64_t middle = fits + (too_many - fits) / 2;
        *(step->bytes(step, middle, TL_ATTENTION_MATERIALIZED) <= left ? &fits : &too_many) =
            middle;
    }
    return fits;
}

bool tl_pair_map_fits(tl_op *op, const tl_attention_problem *problem, const tl_pair_step *step) {
    if (available(op, problem, step->recorded)) {
        return true;
    }
    const tl_memory_usage usage = tl_context_memory(op->tape->context);
    const double needed =
        (map_size(problem, problem->heads) + (step->recorded ? map_size(problem, 1) : 0)) *
        (double)sizeof(tl_real);
    char wanted[TL_BYTES_TEXT_SIZE], left[TL_BYTES_TEXT_SIZE], limit[TL_BYTES_TEXT_SIZE],
        instead[TL_BYTES_TEXT_SIZE];
    (void)tl_bytes_text(needed, wanted);
    if (usage.limit == 0) {
        (void)tl_op_fail(op, TL_ERROR_OUT_OF_MEMORY,
                         "the materialized map of %" PRId64 " x %" PRId64
                         " positions needs %s, more than can be addressed",
                         problem->queries, problem->keys, wanted);
        return false;
    }
    (void)tl_op_fail(
        op, TL_ERROR_OUT_OF_MEMORY,
        "the materialized map of %" PRId64 " x %" PRId64
        " positions%s needs %s, and %s of the limit of %s are left; up to %" PRId64
        " positions would fit, or the tiled implementation, which takes %s",
        problem->queries, problem->keys, step->recorded ? " and its gradient" : "", wanted,
        tl_bytes_text(bytes_left(op), left), tl_bytes_text((double)usage.limit, limit),
        most_queries(step, problem->queries, bytes_left(op)),
        tl_bytes_text(step->bytes(step, problem->queries, TL_ATTENTION_TILED), instead));
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

/* dP [n, m] = dO V^T, a product of the scores' form. */
static tl_gemm_problem map_gradient(const tl_attention_problem *p, int64_t head, const tl_real *d_o,
                                    const tl_real *v, tl_real *d_map) {
    tl_attention_problem swapped = *p;
    swapped.q = p->o;
    swapped.k = p->v;
    swapped.d_k = p->d_v;
    swapped.scale = 1;
    tl_gemm_problem product = scores(&swapped, head, d_o, v, d_map);
    product.c = d_map;
    product.batch_stride_c = p->queries * p->keys;
    return product;
}

void tl_pair_map_footprint(tl_footprint_machine machine, const tl_attention_problem *p,
                           tl_footprint *footprint) {
    const int64_t one = p->queries * p->keys;
    const int64_t all = p->heads * one;
    tl_real unread = 0;
    tl_real *const any = &unread;
    const tl_gemm_problem forward[] = {
        scores(p, 0, any, any, any),
        apply(p, 0, false, any, all, any, p->v, any, p->o, p->d_v),
    };
    const tl_gemm_problem backward[] = {
        map_gradient(p, 0, any, any, any),
        apply(p, 0, false, any, one, any, p->k, any, p->q, p->d_k),
        apply(p, 0, true, any, one, any, p->q, any, p->k, p->d_k),
        apply(p, 0, true, any, all, any, p->o, any, p->v, p->d_v),
    };
    for (int i = 0; i < 2; i++) {
        const double bytes = tl_product_scratch(machine, &forward[i]);
        if (bytes > footprint->forward_scratch) {
            footprint->forward_scratch = bytes;
        }
    }
    /* scratch that grows from product to product is given back at the end, see run() */
    double largest = 0;
    for (int i = 0; i < 4; i++) {
        const double bytes = tl_product_scratch(machine, &backward[i]);
        if (bytes > largest) {
            largest = bytes;
            footprint->backward_scratch += bytes;
        }
    }
    footprint->kept_bytes = map_size(p, p->heads) * (double)sizeof(tl_real);
    footprint->backward_scratch += map_size(p, 1) * (double)sizeof(tl_real);
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
    tl_real *d_map = wants_scores ? tl_node_scratch(node, gradient_bytes(p)) : NULL;
    if (wants_scores && d_map == NULL) {
        return;
    }
    product_runner runner = {.node = node};
    const tl_attention_maps maps = maps_of(p, p->samples);
    for (int64_t head = 0; head < p->heads; head++) {
        const tl_real *head_map = map + head * one;
        if (wants_scores) {
            /* dP, then dS in its place */
            const tl_gemm_problem d_p = map_gradient(p, head, d_o, v, d_map);
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
