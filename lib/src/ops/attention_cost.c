/* Costs in advance: each module is played through on paper (cost_plan.h) in the order of its
 * operation, from the footprints that the operations themselves give. */
#include <tapeline/attention_cost.h>

#include <inttypes.h>
#include <stdlib.h>

#include "core/error_internal.h"
#include "core/tensor_internal.h"
#include "ops/cost_plan.h"
#include "ops/efficient_attention_internal.h"
#include "ops/non_local_internal.h"

/* Beyond this a double no longer counts every FLOP, and an index not every value. */
static const double MOST_COUNTED = 4503599627370496.0; /* 2^52 */

/* Bytes that a tape holds beside values: nodes and tensors (a chunk of 64 kB holds more than one
 * module's), the pool's headers and the unused part of its last step of growth. */
static const double TAPE_TABLES = 100e3;

static tl_status find_machine(int threads, tl_footprint_machine *machine, tl_error *error) {
    const char *reason;
    machine->kernels = tl_kernels_select(getenv("TL_ISA"), &reason);
    if (machine->kernels == NULL) {
        return tl_fail(error, TL_ERROR_UNSUPPORTED, "attention cost: TL_ISA: %s", reason);
    }
    machine->threads = tl_thread_count(threads);
    return TL_OK;
}

/* ------------------------------------------------------------------ playing through */

/* What is played: one function per kind adds its operations to the plan. */
typedef struct module module;
struct module {
    tl_footprint_machine machine;
    int64_t samples, queries, keys; /* keys: positions of keys and values in a sample */
    void (*play)(const module *m, tl_cost_plan *plan);
    tl_attention_shape efficient;
    const tl_non_local_config *non_local;
    int64_t window; /* positions of one window of its sub-sampling */
    tl_pair_attention_config pair;
    int64_t channels, value_channels; /* of a sequence */
};

static int play_step(tl_cost_plan *plan, tl_footprint footprint, int input, unsigned saves,
                     int64_t output_size) {
    const tl_plan_step step = {.inputs = {input},
                               .input_count = 1,
                               .saves = saves,
                               .output_size = output_size,
                               .footprint = footprint};
    return tl_plan_apply(plan, &step);
}

/* y + x or x + y, as tl_add is given them. */
static int play_add(tl_cost_plan *plan, int a, int b, int64_t size) {
    const tl_plan_step step = {.inputs = {a, b},
                               .input_count = 2,
                               .hands_over = 3,
                               .output_size = size,
                               .footprint = tl_add_footprint(size)};
    return tl_plan_apply(plan, &step);
}

static int play_linear(const module *m, tl_cost_plan *plan, int x, int64_t rows, int64_t in,
                       int64_t out) {
    return play_step(plan, tl_linear_footprint(m->machine, rows, in, out, false), x, 1, rows * out);
}

/* The pairwise part of values q, k, v. */
static int play_pairs(const module *m, tl_cost_plan *plan, int q, int k, int v, int64_t d_k,
                      int64_t d_v) {
    const tl_attention_problem problem =
        tl_pair_problem_of(m->samples, m->queries, m->keys, d_k, d_v, &m->pair);
    const tl_attention_implementation implementation = m->pair.implementation;
    const tl_plan_step step = {
        .inputs = {q, k, v},
        .input_count = 3,
        .saves = 7,
        .saves_output = implementation == TL_ATTENTION_TILED && m->pair.weights == TL_PAIR_SOFTMAX,
        .output_size = m->samples * m->queries * m->pair.heads * d_v,
        .footprint = tl_pair_attention_footprint(m->machine, &problem, implementation, q == k)};
    return tl_plan_apply(plan, &step);
}

static void finish(tl_cost_plan *plan, int y) {
    if (plan->recording) {
        tl_plan_backward(plan, y);
    }
}

static void play_efficient(const module *m, tl_cost_plan *plan) {
    const tl_attention_shape *s = &m->efficient;
    const int64_t C = s->channels, K = s->key_channels, V = s->value_channels;
    const int64_t rows = s->batch * s->positions;
    tl_plan_begin(plan, plan->recording,
                  2 * (K * C + K) + V * C + V + (s->reprojection ? C * V + C : 0), 0);
    const int x = tl_plan_input(plan, rows * C);
    finish(plan, play_step(plan, tl_efficient_attention_footprint(m->machine, s), x, 1,
                           rows * tl_attention_output_channels(s)));
}

/* Queries and keys of the non-local block; what is not the caller's is to be released. */
static void play_projections(const module *m, tl_cost_plan *plan, int x, int source, int *q,
                             int *k) {
    const tl_non_local_config *c = m->non_local;
    const int64_t n = m->samples * m->queries, keys = m->samples * m->keys;
    const int64_t C = c->in_channels, K = c->key_channels;
    *q = x;
    *k = source;
    if (!tl_non_local_has_keys(c)) {
        return;
    }
    *q = play_linear(m, plan, x, n, C, K);
    *k = play_linear(m, plan, source, keys, C, K);
    if (c->pairwise == TL_PAIRWISE_CONCATENATION) {
        const int queries = *q, projected = *k;
        *q = play_step(plan, tl_pair_terms_footprint(m->machine, n, K), queries, 1, 2 * n);
        *k = play_step(plan, tl_pair_terms_footprint(m->machine, keys, K), projected, 1, 2 * keys);
        tl_plan_release(plan, queries);
        tl_plan_release(plan, projected);
    }
}

/* What follows the pairwise part: reprojection, batch norm, residual. */
static int play_output(const module *m, tl_cost_plan *plan, int x, int out) {
    const tl_non_local_config *c = m->non_local;
    const int64_t n = m->samples * m->queries, C = c->in_channels, V = c->value_channels;
    int y = out;
    if (c->use_reprojection) {
        const bool fused = c->use_residual && !c->use_batch_norm;
        const tl_plan_step step = {.inputs = {out, x},
                                   .input_count = fused ? 2 : 1,
                                   .saves = 1,
                                   .hands_over = 2,
                                   .output_size = n * C,
                                   .footprint = tl_linear_footprint(m->machine, n, V, C, fused)};
        y = tl_plan_apply(plan, &step);
        tl_plan_release(plan, out);
        if (fused) {
            return y;
        }
    }
    if (c->use_batch_norm) {
        const tl_plan_step step = {.inputs = {y},
                                   .input_count = 1,
                                   .saves = 1,
                                   .hands_over = 1,
                                   .output_size = n * C,
                                   .footprint = tl_batch_norm_footprint(m->machine, n, C)};
        const int normalized = tl_plan_apply(plan, &step);
        tl_plan_release(plan, y);
        y = normalized;
    }
    if (c->use_residual) {
        const int sum =
            c->use_batch_norm ? play_add(plan, x, y, n * C) : play_add(plan, y, x, n * C);
        tl_plan_release(plan, y);
        y = sum;
    }
    return y;
}

static int64_t non_local_parameters(const tl_non_local_config *c) {
    const int64_t C = c->in_channels, K = c->key_channels, V = c->value_channels;
    return (tl_non_local_has_keys(c) ? 2 * (K * C + K) : 0) + V * C + V +
           (c->pairwise == TL_PAIRWISE_CONCATENATION ? 2 * K : 0) +
           (c->use_reprojection ? C * V + C : 0) + (c->use_batch_norm ? 2 * C : 0);
}

static void play_non_local(const module *m, tl_cost_plan *plan) {
    const tl_non_local_config *c = m->non_local;
    const int64_t keys = m->samples * m->keys, C = c->in_channels, V = c->value_channels;
    tl_plan_begin(plan, plan->recording, non_local_parameters(c), c->use_batch_norm ? 2 * C : 0);
    const int x = tl_plan_input(plan, m->samples * m->queries * C);
    int source = x;
    if (c->sub_sample > 1) {
        source = play_step(plan, tl_max_pool_footprint(m->window, keys * C), x, 0, keys * C);
    }
    const int v = play_linear(m, plan, source, keys, C, V);
    int q, k;
    play_projections(m, plan, x, source, &q, &k);
    const bool terms = c->pairwise == TL_PAIRWISE_CONCATENATION;
    const int out =
        play_pairs(m, plan, q, k, v, terms ? 2 : c->key_channels / c->heads, V / c->heads);
    if (q != x) {
        tl_plan_release(plan, q);
    }
    if (k != source) {
        tl_plan_release(plan, k);
    }
    tl_plan_release(plan, v);
    if (source != x) {
        tl_plan_release(plan, source);
    }
    finish(plan, play_output(m, plan, x, out));
}

static void play_sequence(const module *m, tl_cost_plan *plan) {
    tl_plan_begin(plan, plan->recording, 0, 0);
    const int q = tl_plan_input(plan, m->samples * m->queries * m->channels);
    const int k = tl_plan_input(plan, m->samples * m->keys * m->channels);
    const int v = tl_plan_input(plan, m->samples * m->keys * m->value_channels);
    finish(plan, play_pairs(m, plan, q, k, v, m->channels / m->pair.heads,
                            m->value_channels / m->pair.heads));
}

/* ------------------------------------------------------------------ the estimate */

/* Whether all that is counted is below what counts exactly. */
static bool countable(const module *m) {
    const double pairs =
        (double)m->samples * (double)m->queries * (double)m->keys * (double)m->pair.heads;
    return m->play == play_efficient || pairs < MOST_COUNTED;
}

static tl_status estimate_module(const module *m, tl_attention_estimate *estimate,
                                 tl_error *error) {
    if (!countable(m)) {
        return tl_fail(error, TL_ERROR_UNSUPPORTED,
                       "attention cost: the pairs of %" PRId64 " and %" PRId64
                       " positions are too many to count",
                       m->queries, m->keys);
    }
    tl_cost_plan inference = {.recording = false}, training = {.recording = true};
    m->play(m, &inference);
    m->play(m, &training);
    *estimate = (tl_attention_estimate){
        .forward_flops = training.forward_flops,
        .backward_flops = training.backward_flops,
        .forward_flops_executed = training.forward_flops_executed,
        .backward_flops_executed = training.backward_flops_executed,
        .saved_bytes = (uint64_t)training.saved_bytes,
        .peak_bytes = (uint64_t)(training.peak + TAPE_TABLES),
        .inference_peak_bytes = (uint64_t)(inference.peak + TAPE_TABLES),
    };
    return TL_OK;
}

/* ------------------------------------------------------------------ for the operations */

static int64_t scaled_keys(int64_t keys, int64_t queries, int64_t wanted_queries) {
    const double scaled = (double)keys * (double)wanted_queries / (double)queries;
    return scaled > 1 ? (int64_t)scaled : 1;
}

static double step_bytes(const module *m, bool recorded) {
    tl_cost_plan plan = {.recording = recorded};
    m->play(m, &plan);
    return plan.peak - plan.callers;
}

double tl_non_local_step_bytes(const tl_pair_step *step, int64_t queries,
                               tl_attention_implementation implementation) {
    const tl_non_local_module *block = step->module;
    module m = {.machine = step->machine,
                .samples = block->samples,
                .queries = queries,
                .keys = scaled_keys(block->keys, block->queries, queries),
                .play = play_non_local,
                .non_local = block->config,
                .window = 1}; /* its FLOPs do not matter */
    m.pair = tl_non_local_pair(block->config, m.keys);
    m.pair.implementation = implementation;
    return step_bytes(&m, step->recorded);
}

double tl_sequence_step_bytes(const tl_pair_step *step, int64_t queries,
                              tl_attention_implementation implementation) {
    const tl_sequence_module *sequence = step->module;
    module m = {.machine = step->machine,
                .samples = sequence->samples,
                .queries = queries,
                .keys = scaled_keys(sequence->keys, sequence->queries, queries),
                .play = play_sequence,
                .pair = sequence->pair,
                .channels = sequence->d_k * sequence->pair.heads,
                .value_channels = sequence->d_v * sequence->pair.heads};
    m.pair.implementation = implementation;
    return step_bytes(&m, step->recorded);
}

/* ------------------------------------------------------------------ public */

static tl_status efficient_cost(const tl_efficient_attention_config *config, int rank,
                                const int64_t *shape, module *m, tl_attention_estimate *estimate,
                                tl_error *error) {
    tl_efficient_attention_config resolved;
    TL_TRY(tl_efficient_attention_resolve(config, shape[rank - 1], &resolved, error));
    m->efficient = tl_efficient_attention_shape(&resolved, m->samples, m->queries);
    m->play = play_efficient;
    return estimate_module(m, estimate, error);
}

static tl_status non_local_cost(const tl_non_local_config *config, int rank, const int64_t *shape,
                                module *m, tl_attention_estimate *estimate, tl_error *error) {
    tl_non_local_config resolved;
    TL_TRY(tl_non_local_resolve(config, shape[rank - 1], &resolved, error));
    TL_TRY(tl_non_local_check_layer(&resolved, error));
    TL_TRY(tl_non_local_positions(&resolved, rank, shape, &m->keys, error));
    m->window = 1;
    for (int i = 1; i < rank - 1; i++) {
        m->window *= tl_non_local_pools(rank, i) ? resolved.sub_sample : 1;
    }
    m->non_local = &resolved;
    m->pair = tl_non_local_pair(&resolved, m->keys);
    m->play = play_non_local;
    const tl_status status = estimate_module(m, estimate, error);
    m->non_local = NULL;
    return status;
}

tl_status tl_attention_cost(tl_attention_kind kind, const void *config, int rank,
                            const int64_t *shape, int threads, tl_attention_estimate *estimate,
                            tl_error *error) {
    tl_error_clear(error);
    int64_t size;
    if (rank < 2 || !tl_shape_size(rank, shape, &size)) {
        return tl_fail(error, TL_ERROR_SHAPE,
                       "attention cost: expected a shape [N, spatial..., C] of extents of at least "
                       "1 and rank 2 to %d, found rank %d",
                       TL_MAX_RANK, rank);
    }
    module m = {.samples = shape[0], .queries = size / shape[0] / shape[rank - 1]};
    TL_TRY(find_machine(threads, &m.machine, error));
    switch (kind) {
    case TL_ATTENTION_NONE:
        *estimate = (tl_attention_estimate){0};
        return TL_OK;
    case TL_ATTENTION_EFFICIENT:
        return efficient_cost(config, rank, shape, &m, estimate, error);
    case TL_ATTENTION_NON_LOCAL:
        return non_local_cost(config, rank, shape, &m, estimate, error);
    }
    return tl_fail(error, TL_ERROR_UNSUPPORTED, "attention cost: no estimate for kind %d",
                   (int)kind);
}

tl_status tl_sequence_attention_cost(const tl_attention_config *config, int64_t batch,
                                     int64_t queries, int64_t keys, int64_t channels,
                                     int64_t value_channels, int threads,
                                     tl_attention_estimate *estimate, tl_error *error) {
    tl_error_clear(error);
    int64_t size;
    const int64_t widest = channels > value_channels ? channels : value_channels;
    const int64_t longest = queries > keys ? queries : keys;
    if (queries < 1 || keys < 1 || channels < 1 || value_channels < 1 ||
        !tl_shape_size(3, (int64_t[]){batch, longest, widest}, &size)) {
        return tl_fail(error, TL_ERROR_SHAPE,
                       "sequence attention cost: extents must be at least 1 and fit in memory, "
                       "found batch %" PRId64 ", %" PRId64 " queries, %" PRId64 " keys, %" PRId64
                       " and %" PRId64 " channels",
                       batch, queries, keys, channels, value_channels);
    }
    module m = {.samples = batch,
                .queries = queries,
                .keys = keys,
                .channels = channels,
                .value_channels = value_channels,
                .play = play_sequence};
    TL_TRY(find_machine(threads, &m.machine, error));
    TL_TRY(tl_attention_resolve(config, false, 1, queries, keys, channels, value_channels, &m.pair,
                                error));
    return estimate_module(&m, estimate, error);
}
