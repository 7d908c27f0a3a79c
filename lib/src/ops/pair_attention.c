/* Attention between all pairs of positions, per sample and head:
 *
 *     S = scale Q K^T [n, m],   P = softmax of its rows | S | relu(S),   O = P V.
 *
 * Backward, with dO given:
 *
 *     dV = P^T dO,   dP = dO V^T,
 *     softmax: dS_ij = P_ij (dP_ij - sum_j P_ij dP_ij),  where the sum is <dO_i, O_i>;
 *     linear: dS = dP;   relu: dS = dP where P > 0;
 *     dQ = scale dS K,   dK = scale dS^T Q.
 *
 * Tiled (kernels/k_tiled_attention.c): saved are q, k, v, and for the softmax O and two numbers a
 * row, 2 N heads n values; P is computed again. Materialized (pair_attention_map.c): saved are
 * q, k, v and P, N heads n m values.
 */
#include "ops/pair_attention.h"

#include <string.h>

typedef struct pair_state {
    tl_attention_problem problem;
    tl_attention_implementation implementation;
    tl_real *map;                     /* materialized */
    tl_real *row_shift, *row_inverse; /* tiled, softmax */
} pair_state;

static tl_rows_layout layout_of(int64_t positions, int64_t channels, int64_t heads,
                                bool head_axis) {
    const int64_t sample = positions * heads * channels;
    return head_axis
               ? (tl_rows_layout){.sample = sample, .head = sample / heads, .row = channels}
               : (tl_rows_layout){.sample = sample, .head = channels, .row = heads * channels};
}

tl_attention_problem tl_pair_problem_of(int64_t samples, int64_t queries, int64_t keys, int64_t d_k,
                                        int64_t d_v, const tl_pair_attention_config *config) {
    const int64_t heads = config->heads;
    const bool axis = config->head_axis;
    return (tl_attention_problem){
        .weights = config->weights,
        .causal = config->causal,
        .scale = (tl_real)config->scale,
        .samples = samples,
        .heads = heads,
        .queries = queries,
        .keys = keys,
        .d_k = d_k,
        .d_v = d_v,
        .q = layout_of(queries, d_k, heads, axis),
        .k = layout_of(keys, d_k, heads, axis),
        .v = layout_of(keys, d_v, heads, axis),
        .o = layout_of(queries, d_v, heads, axis),
    };
}

tl_attention_problem tl_pair_problem(const tl_tensor *q, const tl_tensor *k, const tl_tensor *v,
                                     const tl_pair_attention_config *config) {
    const int64_t samples = q->shape[0];
    const int64_t slices = config->head_axis ? 1 : config->heads;
    const int64_t d_k = q->shape[q->rank - 1] / slices;
    const int64_t d_v = v->shape[v->rank - 1] / slices;
    const int64_t rows = samples * config->heads * d_k;
    return tl_pair_problem_of(samples, q->size / rows, k->size / rows, d_k, d_v, config);
}

tl_cost tl_pair_attention_cost(const tl_attention_problem *problem,
                               tl_attention_implementation implementation, unsigned gradients) {
    const double n = (double)problem->queries;
    const double pairs = (double)problem->samples * (double)problem->heads *
                         (problem->causal ? n * (n + 1) / 2 : n * (double)problem->keys);
    const double by_k = 2 * pairs * (double)problem->d_k;
    const double by_v = 2 * pairs * (double)problem->d_v;
    const bool tiled = implementation == TL_ATTENTION_TILED;
    const bool scores = (gradients & 3u) != 0;
    const double products = by_k * ((gradients & 1u) + (gradients >> 1 & 1u)) +
                            by_v * ((gradients >> 2 & 1u) + (scores ? 1 : 0));
    /* the stored map is computed as a whole, hidden keys included */
    const double whole = tiled || !problem->causal ? 1 : 2 * n / (n + 1);
    tl_cost cost = {
        .forward_flops = by_k + by_v,
        .forward_flops_executed = (by_k + by_v) * whole,
        .backward_flops = products,
        /* tiled: the scores again, and dP in any case */
        .backward_flops_executed = products * whole + (tiled ? by_k + (scores ? 0 : by_v) : 0),
    };
    if (gradients == 0) {
        cost.backward_flops_executed = 0;
    }
    return cost;
}

tl_footprint tl_pair_attention_footprint(tl_footprint_machine machine,
                                         const tl_attention_problem *problem,
                                         tl_attention_implementation implementation,
                                         bool same_q_and_k) {
    const tl_cost cost = tl_pair_attention_cost(problem, implementation, 7u);
    tl_footprint footprint = {.forward_flops = cost.forward_flops,
                              .backward_flops = cost.backward_flops,
                              .forward_flops_executed = cost.forward_flops_executed,
                              .backward_flops_executed = cost.backward_flops_executed};
    if (implementation == TL_ATTENTION_MATERIALIZED) {
        tl_pair_map_footprint(machine, problem, &footprint);
        return footprint;
    }
    const double rows =
        (double)problem->samples * (double)problem->heads * (double)problem->queries;
    const double q_size = rows * (double)problem->d_k;
    const double scratch =
        (double)machine.kernels->tiled_attention->scratch_bytes(problem, machine.threads);
    if (problem->weights == TL_PAIR_SOFTMAX) {
        footprint.kept_bytes = 2 * rows * (double)sizeof(tl_real);
    }
    footprint.forward_scratch = scratch;
    footprint.backward_scratch = scratch + (same_q_and_k ? q_size * (double)sizeof(tl_real) : 0);
    return footprint;
}

/* Where to add the gradient of input `index`. Two inputs that are one tensor must not share a
 * buffer while the kernel runs, so the second gets one of its own. */
static tl_real *gradient_buffer(tl_node *node, int index, bool *apart) {
    *apart = false;
    for (int i = 0; i < index; i++) {
        *apart = *apart || node->inputs[i] == node->inputs[index];
    }
    if (!*apart) {
        return tl_node_grad_zeroed(node, index);
    }
    if (!tl_node_wants(node, index)) {
        return NULL;
    }
    const size_t bytes = (size_t)node->inputs[index]->size * sizeof(tl_real);
    tl_real *buffer = tl_node_scratch(node, bytes);
    if (buffer != NULL) {
        memset(buffer, 0, bytes);
    }
    return buffer;
}

static void tiled_backward(tl_node *node, const pair_state *state) {
    const tl_attention_problem *problem = &state->problem;
    const tl_tiled_attention_kernels *kernels = TL_NODE_KERNELS(node)->tiled_attention;
    const int threads = TL_NODE_THREADS(node);
    tl_real *gradients[3];
    bool apart[3];
    for (int i = 0; i < 3; i++) {
        gradients[i] = gradient_buffer(node, i, &apart[i]);
    }
    void *scratch = tl_node_scratch(node, kernels->scratch_bytes(problem, threads));
    if (scratch == NULL) {
        return;
    }
    kernels->backward(problem, tl_node_input(node, 0), tl_node_input(node, 1),
                      tl_node_input(node, 2),
                      problem->weights == TL_PAIR_SOFTMAX ? tl_node_output(node) : NULL,
                      state->row_shift, state->row_inverse, tl_node_output_grad(node), gradients[0],
                      gradients[1], gradients[2], scratch, threads);
    for (int i = 1; i < 3; i++) {
        if (apart[i] && gradients[i] != NULL) {
            bool accumulate;
            tl_real *sum = tl_node_grad(node, i, &accumulate);
            TL_NODE_KERNELS(node)->vector->add(threads, node->inputs[i]->size, gradients[i], sum);
        }
    }
}

static void pair_backward(tl_node *node) {
    const pair_state *state = node->state;
    if (state->implementation == TL_ATTENTION_MATERIALIZED) {
        tl_pair_map_backward(node, &state->problem, state->map);
    } else {
        tiled_backward(node, state);
    }
}

/* False if memory failed. */
static bool tiled_forward(tl_op *op, pair_state *state, const tl_real *q, const tl_real *k,
                          const tl_real *v, tl_real *o) {
    const tl_attention_problem *problem = &state->problem;
    const tl_tiled_attention_kernels *kernels = TL_OP_KERNELS(op)->tiled_attention;
    const int threads = TL_OP_THREADS(op);
    if (problem->weights == TL_PAIR_SOFTMAX) {
        const int64_t rows = problem->samples * problem->heads * problem->queries;
        state->row_shift = tl_op_keep(op, (size_t)(2 * rows) * sizeof(tl_real));
        if (state->row_shift == NULL) {
            return false;
        }
        state->row_inverse = state->row_shift + rows;
        tl_op_save_output(op);
    }
    void *scratch = tl_op_scratch(op, kernels->scratch_bytes(problem, threads));
    if (scratch == NULL) {
        return false;
    }
    kernels->forward(problem, q, k, v, o, state->row_shift, state->row_inverse, scratch, threads);
    return true;
}

static bool materialized_forward(tl_op *op, pair_state *state, const tl_real *q, const tl_real *k,
                                 const tl_real *v, tl_real *o) {
    state->map = tl_op_keep(op, tl_pair_map_bytes(&state->problem));
    return state->map != NULL && tl_pair_map_forward(op, &state->problem, q, k, v, state->map, o);
}

tl_tensor *tl_pair_attention(tl_op *op, const tl_pair_attention_config *config) {
    const tl_tensor *q = op->node->inputs[0];
    const tl_tensor *k = op->node->inputs[1];
    const tl_tensor *v = op->node->inputs[2];
    const tl_attention_problem problem = tl_pair_problem(q, k, v, config);
    const bool materialized = config->implementation == TL_ATTENTION_MATERIALIZED;
    int64_t shape[TL_MAX_RANK];
    memcpy(shape, q->shape, sizeof shape);
    shape[q->rank - 1] = v->shape[v->rank - 1];
    tl_tensor *o = tl_op_output(op, q->rank, shape);
    pair_state *state = o != NULL ? tl_op_state(op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    state->problem = problem;
    state->implementation = config->implementation;
    if (!(materialized ? materialized_forward : tiled_forward)(
            op, state, q->storage->data, k->storage->data, v->storage->data, o->storage->data)) {
        return NULL;
    }
    for (int i = 0; i < 3; i++) {
        tl_op_save_input(op, i);
    }
    const unsigned gradients = (tl_op_wants(op, 0) ? 1u : 0u) | (tl_op_wants(op, 1) ? 2u : 0u) |
                               (tl_op_wants(op, 2) ? 4u : 0u);
    const tl_cost cost = tl_pair_attention_cost(&problem, config->implementation, gradients);
    tl_op_set_flops(op, cost.forward_flops, cost.backward_flops);
    tl_op_set_flops_executed(op, cost.forward_flops_executed, cost.backward_flops_executed);
    return tl_op_finish(op, pair_backward);
}
