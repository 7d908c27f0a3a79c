/* Costs in advance: FLOPs and saved bytes are what the tape reports, peak bytes what a context
 * measures; the crossover is where the costs cross; a budget that is too small is an error before
 * anything is allocated. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One module on one shape. */
typedef struct module_case {
    int rank;
    int64_t shape[5];
    tl_attention_kind kind;
    tl_efficient_attention_config efficient;
    tl_non_local_config non_local;
} module_case;

static const void *config_of(const module_case *c) {
    return c->kind == TL_ATTENTION_EFFICIENT ? (const void *)&c->efficient
                                             : (const void *)&c->non_local;
}

typedef struct layers {
    tl_efficient_attention_layer efficient;
    tl_non_local_layer non_local;
} layers;

static tl_status init_layer(const module_case *c, layers *l, tl_parameters *parameters,
                            tl_error *error) {
    tl_random random = tl_random_create(1, 2, 0);
    const int64_t channels = c->shape[c->rank - 1];
    if (c->kind == TL_ATTENTION_EFFICIENT) {
        tl_efficient_attention_config config = c->efficient;
        config.in_channels = channels;
        return tl_efficient_attention_layer_init(&l->efficient, parameters, NULL, &config, &random,
                                                 error);
    }
    tl_non_local_config config = c->non_local;
    config.in_channels = channels;
    return tl_non_local_layer_init(&l->non_local, parameters, NULL, &config, &random, error);
}

static tl_tensor *forward(const module_case *c, const layers *l, tl_tape *tape, tl_tensor *x) {
    return c->kind == TL_ATTENTION_EFFICIENT
               ? tl_efficient_attention_layer_forward(&l->efficient, tape, x)
               : tl_non_local_layer_forward(&l->non_local, tape, x);
}

typedef struct measured {
    tl_cost cost;
    double peak; /* bytes, x included */
} measured;

/* Two steps (the second finds gradients of parameters), or a forward pass that is not recorded. */
static measured measure(const module_case *c, const char *isa, int threads, bool training) {
    tl_context *context = context_with(threads, isa);
    tl_parameters *parameters = tl_parameters_create(context, NULL);
    layers l;
    tl_error error;
    ck_assert_msg(init_layer(c, &l, parameters, &error) == TL_OK, "%s", error.message);
    int64_t size = 1;
    for (int i = 0; i < c->rank; i++) {
        size *= c->shape[i];
    }
    tl_real *pixels = random_values(size, 4, -1, 1);
    const tl_array array = array_of(c->rank, c->shape, pixels);
    tl_tape *tape = tl_tape_create(context);
    tl_tape_set_recording(tape, training);
    tl_tape_set_training(tape, training);
    measured result;
    for (int step = 0; step < 2; step++) {
        tl_tape_reset(tape);
        tl_tensor *y = forward(c, &l, tape, tl_input_with_grad(tape, &array));
        ck_assert_msg(y != NULL, "%s", tl_tape_error(tape)->message);
        if (training) {
            ck_assert_msg(tl_backward_from(tape, 1, &y, NULL) == TL_OK, "%s",
                          tl_tape_error(tape)->message);
        }
        result.cost = tl_tape_cost(tape);
    }
    result.peak = (double)tl_context_memory(context).peak + (double)size * (double)sizeof(tl_real);
    free(pixels);
    tl_tape_free(tape);
    tl_parameters_free(parameters);
    tl_context_free(context);
    return result;
}

/* Within 5%; of small modules within what a pool may lose: a product's scratch (up to half a
 * megabyte, whatever the module's size) that does not fit beside a value in the hole it left. */
static void assert_peak(const char *what, double measured_bytes, uint64_t estimate) {
    const double tolerance = fmax(0.05 * (double)estimate, 500e3);
    ck_assert_msg(fabs(measured_bytes - (double)estimate) <= tolerance,
                  "%s: measured %.0f bytes, estimated %.0f", what, measured_bytes,
                  (double)estimate);
}

static void check_case(const module_case *c, int threads) {
    tl_attention_estimate estimate;
    tl_error error;
    ck_assert_msg(tl_attention_cost(c->kind, config_of(c), c->rank, c->shape, threads, &estimate,
                                    &error) == TL_OK,
                  "%s", error.message);
    const measured training = measure(c, NULL, threads, true);
    ck_assert(training.cost.forward_flops == estimate.forward_flops);
    ck_assert(training.cost.backward_flops == estimate.backward_flops);
    ck_assert(training.cost.forward_flops_executed == estimate.forward_flops_executed);
    ck_assert(training.cost.backward_flops_executed == estimate.backward_flops_executed);
    ck_assert_uint_eq(training.cost.saved_bytes, estimate.saved_bytes);
    assert_peak("training", training.peak, estimate.peak_bytes);
    assert_peak("inference", measure(c, NULL, threads, false).peak, estimate.inference_peak_bytes);
}

#define EFFICIENT(...)                                                                             \
    .kind = TL_ATTENTION_EFFICIENT,                                                                \
    .efficient = {.use_reprojection = true, .use_residual = true, __VA_ARGS__}
#define NON_LOCAL(...)                                                                             \
    .kind = TL_ATTENTION_NON_LOCAL,                                                                \
    .non_local = {.use_reprojection = true, .use_residual = true, __VA_ARGS__}
#define BARE(...) .kind = TL_ATTENTION_NON_LOCAL, .non_local = {__VA_ARGS__}
#define MATERIALIZED .implementation = TL_ATTENTION_MATERIALIZED

static const module_case cases[] = {
    {4, {2, 3, 2, 32}, EFFICIENT(.heads = 1)},
    {4, {1, 200, 2, 32}, EFFICIENT(.heads = 4)},
    {4, {1, 100, 100, 64}, EFFICIENT(.heads = 1)},
    {3, {64, 90, 32}, EFFICIENT(.heads = 2)},
    {5, {2, 4, 30, 30, 24}, EFFICIENT(.normalization = TL_NORMALIZATION_SCALING)},
    {3, {3, 5000, 8}, EFFICIENT(.key_channels = 64, .value_channels = 4, .heads = 2)},
    {3, {1, 7000, 16}, .kind = TL_ATTENTION_EFFICIENT, .efficient = {.value_channels = 24}},
    /* the four forms, both implementations */
    {4, {2, 20, 30, 64}, NON_LOCAL(.heads = 1)},
    {4, {2, 20, 30, 64}, NON_LOCAL(.heads = 1, MATERIALIZED)},
    {4, {1, 30, 40, 32}, NON_LOCAL(.heads = 4, .use_scale = true)},
    {4, {1, 30, 40, 32}, NON_LOCAL(.heads = 4, .use_scale = true, MATERIALIZED)},
    {4, {2, 25, 25, 32}, NON_LOCAL(.pairwise = TL_PAIRWISE_GAUSSIAN)},
    {4, {2, 25, 25, 32}, NON_LOCAL(.pairwise = TL_PAIRWISE_GAUSSIAN, MATERIALIZED)},
    {3, {2, 1001, 20}, NON_LOCAL(.pairwise = TL_PAIRWISE_DOT_PRODUCT, .heads = 2)},
    {3, {2, 1001, 20}, NON_LOCAL(.pairwise = TL_PAIRWISE_DOT_PRODUCT, .heads = 2, MATERIALIZED)},
    {4, {1, 32, 32, 64}, NON_LOCAL(.pairwise = TL_PAIRWISE_CONCATENATION)},
    {4, {1, 32, 32, 64}, NON_LOCAL(.pairwise = TL_PAIRWISE_CONCATENATION, MATERIALIZED)},
    /* many positions, where only the tiled form goes */
    {4, {1, 64, 80, 64}, NON_LOCAL(.heads = 1)},
    {4, {1, 64, 80, 64}, NON_LOCAL(.pairwise = TL_PAIRWISE_CONCATENATION)},
    {4, {1, 64, 80, 16}, NON_LOCAL(.pairwise = TL_PAIRWISE_GAUSSIAN)},
    /* sub-sampling, also of odd extents, in one, two and three dimensions */
    {3, {1, 3001, 32}, NON_LOCAL(.sub_sample = 3)},
    {4, {2, 31, 41, 32}, NON_LOCAL(.sub_sample = 2)},
    {4, {2, 31, 41, 32}, NON_LOCAL(.sub_sample = 2, MATERIALIZED)},
    {5, {1, 4, 21, 20, 32}, NON_LOCAL(.sub_sample = 2, .heads = 2)},
    {4, {1, 50, 50, 24}, NON_LOCAL(.sub_sample = 2, .pairwise = TL_PAIRWISE_GAUSSIAN)},
    {4, {1, 50, 50, 24}, NON_LOCAL(.sub_sample = 2, .pairwise = TL_PAIRWISE_CONCATENATION)},
    /* what the layer adds, and leaves out */
    {4, {2, 30, 30, 64}, NON_LOCAL(.use_batch_norm = true)},
    {4, {2, 30, 30, 64}, NON_LOCAL(.use_batch_norm = true, MATERIALIZED)},
    {4, {1, 40, 40, 32}, BARE(.use_reprojection = true)},
    {4, {1, 40, 40, 32}, BARE(.use_reprojection = true, .use_batch_norm = true)},
    {4, {1, 40, 40, 32}, BARE(.use_residual = true)},
    {4, {1, 40, 40, 32}, BARE(.value_channels = 10)},
    {4, {1, 40, 40, 32}, BARE(.value_channels = 10, MATERIALIZED)},
    /* small and odd */
    {2, {9, 5}, NON_LOCAL(.heads = 1)},
    {3, {1, 1, 1}, NON_LOCAL(MATERIALIZED)},
    {3, {40, 33, 7}, NON_LOCAL(.key_channels = 3, .value_channels = 5)},
    {3, {2, 300, 256}, NON_LOCAL(.heads = 8)},
};
enum { CASES = sizeof cases / sizeof cases[0] };

/* Whether the n x n map has so many values that sanitizers take minutes over them. */
static bool too_long(const module_case *c) {
#ifdef TEST_SANITIZED
    const int64_t most = 1300;
#else
    const int64_t most = INT64_MAX;
#endif
    int64_t positions = 1;
    for (int i = 1; i < c->rank - 1; i++) {
        positions *= c->shape[i];
    }
    return c->kind == TL_ATTENTION_NON_LOCAL && positions > most;
}

START_TEST(the_tape_agrees) {
    if (too_long(&cases[_i])) {
        return;
    }
    for (int threads = 1; threads <= 2; threads++) {
        check_case(&cases[_i], threads);
    }
}
END_TEST

START_TEST(sequences_agree) {
    const struct {
        int64_t batch, queries, keys, channels, value_channels;
        tl_attention_config config;
    } sequences[] = {
        {2, 500, 500, 64, 64, {.heads = 4}},
        {2, 500, 500, 64, 64, {.heads = 4, .causal = true}},
        {2, 500, 500, 64, 64, {.heads = 4, .causal = true, MATERIALIZED}},
        {1, 900, 411, 24, 50, {.heads = 2, MATERIALIZED}},
        {3, 411, 900, 24, 50, {.scale = 0.5}},
    };
    for (size_t i = 0; i < sizeof sequences / sizeof sequences[0]; i++) {
        const int64_t B = sequences[i].batch, L = sequences[i].queries, M = sequences[i].keys;
        const int64_t C = sequences[i].channels, E = sequences[i].value_channels;
        tl_attention_estimate estimate;
        ck_assert_int_eq(
            tl_sequence_attention_cost(&sequences[i].config, B, L, M, C, E, 2, &estimate, NULL),
            TL_OK);
        const int64_t sizes[3] = {B * L * C, B * M * C, B * M * E};
        tl_real *values[3];
        for (int j = 0; j < 3; j++) {
            values[j] = random_values(sizes[j], (uint64_t)j, -1, 1);
        }
        tl_context *context = context_with(2, NULL);
        tl_tape *tape = tl_tape_create(context);
        tl_tensor *q = tl_input_with_grad(tape, ARRAY_POINTER(values[0], B, L, C));
        tl_tensor *k = tl_input_with_grad(tape, ARRAY_POINTER(values[1], B, M, C));
        tl_tensor *v = tl_input_with_grad(tape, ARRAY_POINTER(values[2], B, M, E));
        tl_tensor *y = tl_attention(tape, q, k, v, &sequences[i].config);
        ck_assert_int_eq(tl_backward_from(tape, 1, &y, NULL), TL_OK);
        const tl_cost cost = tl_tape_cost(tape);
        ck_assert(cost.forward_flops == estimate.forward_flops);
        ck_assert(cost.backward_flops == estimate.backward_flops);
        ck_assert(cost.forward_flops_executed == estimate.forward_flops_executed);
        ck_assert(cost.backward_flops_executed == estimate.backward_flops_executed);
        ck_assert_uint_eq(cost.saved_bytes, estimate.saved_bytes);
        const double inputs = (double)(sizes[0] + sizes[1] + sizes[2]) * (double)sizeof(tl_real);
        assert_peak("sequence", (double)tl_context_memory(context).peak + inputs,
                    estimate.peak_bytes);
        for (int j = 0; j < 3; j++) {
            free(values[j]);
        }
        tl_tape_free(tape);
        tl_context_free(context);
    }
}
END_TEST

/* n = 65,536: the map alone is 17 GB, and as much again for its gradient; the rest is small. */
START_TEST(large_sizes_are_estimated) {
    const int64_t shape[4] = {1, 256, 256, 64};
    tl_non_local_config config = tl_non_local_config_default();
    tl_attention_estimate tiled, materialized, efficient;
    ck_assert_int_eq(tl_attention_cost(TL_ATTENTION_NON_LOCAL, &config, 4, shape, 2, &tiled, NULL),
                     TL_OK);
    config.implementation = TL_ATTENTION_MATERIALIZED;
    ck_assert_int_eq(
        tl_attention_cost(TL_ATTENTION_NON_LOCAL, &config, 4, shape, 2, &materialized, NULL),
        TL_OK);
    ck_assert_int_eq(tl_attention_cost(TL_ATTENTION_EFFICIENT, NULL, 4, shape, 2, &efficient, NULL),
                     TL_OK);
    const double map = 65536.0 * 65536.0 * (double)sizeof(tl_real);
    ck_assert((double)materialized.peak_bytes > 2 * map);
    ck_assert((double)materialized.peak_bytes < 2 * map + 200e6);
    ck_assert((double)materialized.saved_bytes > map);
    ck_assert((double)materialized.inference_peak_bytes > map);
    ck_assert(tiled.peak_bytes < 200000000u);
    ck_assert(efficient.peak_bytes < tiled.peak_bytes);
    ck_assert(efficient.inference_peak_bytes < efficient.peak_bytes);
    /* without a map, (q k^T) v costs 2 n^2 (K + V), and all that is not n^2 is below a percent */
    const double pairs = 2.0 * 65536 * 65536 * (32 + 64);
    ck_assert(tiled.forward_flops_executed > pairs && tiled.forward_flops_executed < 1.01 * pairs);
}
END_TEST

START_TEST(errors) {
    tl_attention_estimate estimate;
    tl_error error;
    const int64_t shape[4] = {1, 8, 8, 6};
    const struct {
        module_case c;
        tl_status status;
        const char *part;
    } wrong[] = {
        {{1, {8}, EFFICIENT(.heads = 1)}, TL_ERROR_SHAPE, "found rank 1"},
        {{2, {8, 0}, EFFICIENT(.heads = 1)}, TL_ERROR_SHAPE, "extents of at least 1"},
        {{2, {8, 8}, EFFICIENT(.heads = 3)}, TL_ERROR_INVALID_ARGUMENT, "heads must divide"},
        {{2, {8, 8}, NON_LOCAL(.heads = 3)}, TL_ERROR_INVALID_ARGUMENT, "heads must divide"},
        {{3, {8, 2, 8}, NON_LOCAL(.sub_sample = 3)}, TL_ERROR_SHAPE, "sub_sample 3 is too much"},
        {{4, {8, 20, 20, 8}, NON_LOCAL(.sub_sample = 17)},
         TL_ERROR_UNSUPPORTED,
         "windows of 289 positions"},
        {{2, {8, 8}, NON_LOCAL(.sub_sample = 2)}, TL_ERROR_SHAPE, "one to three spatial"},
        {{2, {8, 8}, BARE(.use_batch_norm = true)},
         TL_ERROR_INVALID_ARGUMENT,
         "batch norm follows the reprojection"},
        {{3, {1, 1 << 30, 4}, NON_LOCAL(.heads = 1)}, TL_ERROR_UNSUPPORTED, "too many to count"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const module_case *c = &wrong[i].c;
        ck_assert_int_eq(
            tl_attention_cost(c->kind, config_of(c), c->rank, c->shape, 1, &estimate, &error),
            wrong[i].status);
        assert_error(&error, wrong[i].status, wrong[i].part);
    }
    ck_assert_int_eq(tl_attention_cost(TL_ATTENTION_NONE, NULL, 4, shape, 1, &estimate, &error),
                     TL_OK);
    ck_assert(estimate.peak_bytes == 0);
    ck_assert_int_eq(tl_attention_cost((tl_attention_kind)77, NULL, 4, shape, 1, &estimate, &error),
                     TL_ERROR_UNSUPPORTED);
    ck_assert_int_eq(tl_sequence_attention_cost(NULL, 1, 4, 4, 0, 4, 1, &estimate, &error),
                     TL_ERROR_SHAPE);
    ck_assert_int_eq(tl_sequence_attention_cost(&(tl_attention_config){.causal = true}, 1, 4, 5, 4,
                                                4, 1, &estimate, &error),
                     TL_ERROR_SHAPE);
    assert_error(&error, TL_ERROR_SHAPE, "as many keys as queries");
}
END_TEST

/* ------------------------------------------------------------------ the crossover */

static double cost_at(const module_case *c, int64_t n, bool memory) {
    tl_attention_estimate e;
    const int64_t shape[3] = {c->shape[0], n, c->shape[2]};
    ck_assert_int_eq(tl_attention_cost(c->kind, config_of(c), 3, shape, 2, &e, NULL), TL_OK);
    return memory ? (double)e.peak_bytes : e.forward_flops_executed + e.backward_flops_executed;
}

static void check_crossing(const module_case *efficient, module_case other,
                           tl_attention_implementation implementation, bool memory, int64_t from) {
    other.non_local.implementation = implementation;
    const int64_t smallest = other.non_local.sub_sample > 1 ? other.non_local.sub_sample : 1;
    ck_assert_int_ge(from, 1);
    for (int64_t n = from > smallest ? from : smallest; n < TL_CROSSOVER_LIMIT; n += n / 3 + 1) {
        ck_assert_msg(cost_at(efficient, n, memory) < cost_at(&other, n, memory),
                      "memory %d, implementation %d: not cheaper at %lld >= %lld", memory,
                      (int)implementation, (long long)n, (long long)from);
    }
    if (from > smallest) {
        ck_assert(cost_at(efficient, from - 1, memory) >= cost_at(&other, from - 1, memory));
    }
}

START_TEST(crossovers) {
    static const module_case pairs[][2] = {
        {{3, {1, 0, 64}, EFFICIENT(.heads = 1)}, {3, {1, 0, 64}, NON_LOCAL(.heads = 1)}},
        {{3, {8, 0, 64}, EFFICIENT(.heads = 4)}, {3, {8, 0, 64}, NON_LOCAL(.heads = 4)}},
        {{3, {1, 0, 32}, EFFICIENT(.key_channels = 128)},
         {3, {1, 0, 32}, NON_LOCAL(.sub_sample = 4)}},
        {{3, {1, 0, 16}, EFFICIENT(.heads = 1)},
         {3, {1, 0, 16}, NON_LOCAL(.pairwise = TL_PAIRWISE_CONCATENATION, .use_batch_norm = true)}},
        {{3, {2, 0, 9}, EFFICIENT(.heads = 1)},
         {3, {2, 0, 9}, BARE(.pairwise = TL_PAIRWISE_GAUSSIAN, .use_residual = true)}},
    };
    const module_case *efficient = &pairs[_i][0], *other = &pairs[_i][1];
    tl_crossover crossover;
    tl_error error;
    ck_assert_msg(tl_attention_crossover(&efficient->efficient, &other->non_local, other->shape[0],
                                         other->shape[2], 2, &crossover, &error) == TL_OK,
                  "%s", error.message);
    check_crossing(efficient, *other, TL_ATTENTION_TILED, false, crossover.time_tiled);
    check_crossing(efficient, *other, TL_ATTENTION_MATERIALIZED, false,
                   crossover.time_materialized);
    check_crossing(efficient, *other, TL_ATTENTION_TILED, true, crossover.memory_tiled);
    check_crossing(efficient, *other, TL_ATTENTION_MATERIALIZED, true,
                   crossover.memory_materialized);
}
END_TEST

/* The time of the default against a formula written down here: C = 64, K = 32, V = 64, one head.
 * Efficient, folded: 28 n C K + 14 K V C; non-local, tiled: 2 n^2 (4 K + 3 V) for the pairs,
 * 6 n C (2 K + 2 V) for the projections, and n (4 K + 2 V + 3 C) for biases and the residual.
 */
START_TEST(the_crossover_is_where_the_formulas_cross) {
    tl_crossover crossover;
    ck_assert_int_eq(tl_attention_crossover(NULL, NULL, 1, 64, 1, &crossover, NULL), TL_OK);
    const double C = 64, K = 32, V = 64;
    int n = 1;
    while (28 * n * C * K + 14 * K * V * C >= 2.0 * n * n * (4 * K + 3 * V) +
                                                  6 * n * C * (2 * K + 2 * V) +
                                                  n * (4 * K + 2 * V + 3 * C)) {
        n++;
    }
    ck_assert_msg(llabs(crossover.time_tiled - n) <= 1, "%lld, expected %d",
                  (long long)crossover.time_tiled, n);
    ck_assert(crossover.time_materialized >= crossover.time_tiled); /* recomputes nothing */
    /* values of one channel and no reprojection: never the heavier in memory */
    const tl_non_local_config slim = {.pairwise = TL_PAIRWISE_GAUSSIAN, .value_channels = 1};
    ck_assert_int_eq(tl_attention_crossover(NULL, &slim, 1, 64, 1, &crossover, NULL), TL_OK);
    ck_assert_int_eq(crossover.memory_tiled, 0);
    ck_assert_int_gt(crossover.memory_materialized, 1);
    tl_error error;
    ck_assert_int_eq(tl_attention_crossover(NULL, NULL, 0, 64, 1, &crossover, &error),
                     TL_ERROR_SHAPE);
}
END_TEST

/* ------------------------------------------------------------------ budgets */

static int64_t number_before(const char *message, const char *words) {
    const char *at = strstr(message, words);
    ck_assert_msg(at != NULL, "no '%s' in '%s'", words, message);
    while (at > message && at[-1] >= '0' && at[-1] <= '9') {
        at--;
    }
    return strtoll(at, NULL, 10);
}

/* One training step of a materialized block on n positions under a limit. */
static bool step_fits(const module_case *c, int64_t n, size_t limit, tl_error *error,
                      double *growth) {
    tl_context *context = tl_context_create(
        &(tl_context_config){.threads = 2, .memory_limit = limit, .error = error});
    tl_parameters *parameters = tl_parameters_create(context, NULL);
    layers l;
    ck_assert_int_eq(init_layer(c, &l, parameters, error), TL_OK);
    tl_tape *tape = tl_tape_create(context);
    const int64_t channels = c->shape[2];
    tl_real *values = random_values(n * channels, 4, -1, 1);
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 1, n, channels));
    const size_t before = tl_context_memory(context).peak;
    tl_tensor *y = forward(c, &l, tape, x);
    *growth = (double)tl_context_memory(context).peak - (double)before;
    (void)tl_backward_from(tape, y != NULL ? 1 : 0, &y, NULL);
    *error = *tl_tape_error(tape);
    tl_tape_free(tape);
    tl_parameters_free(parameters);
    tl_context_free(context);
    free(values);
    return error->status == TL_OK;
}

/* Fails before anything is allocated, and what it says would fit does. */
START_TEST(a_budget_is_kept) {
    const module_case blocks[] = {
        {3, {1, 0, 16}, NON_LOCAL(MATERIALIZED)},
        {3, {1, 0, 16}, NON_LOCAL(.heads = 4, MATERIALIZED)},
        {3, {1, 0, 16}, NON_LOCAL(.pairwise = TL_PAIRWISE_GAUSSIAN, .sub_sample = 2, MATERIALIZED)},
        {3, {1, 0, 16}, BARE(.pairwise = TL_PAIRWISE_CONCATENATION, MATERIALIZED)},
    };
    const module_case *c = &blocks[_i];
    const size_t limit = 24u << 20;
    tl_error error;
    double growth;
    ck_assert(!step_fits(c, 5000, limit, &error, &growth));
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "non_local: the materialized map of 5000 x ");
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "positions and its gradient needs ");
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "of the limit of 25.17 MB are left");
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "the tiled implementation, which takes ");
    ck_assert_msg(growth < 100e3, "%g bytes were allocated", growth);
    const int64_t fits = number_before(error.message, " positions would fit");
    ck_assert_int_gt(fits, 500);
    ck_assert_msg(step_fits(c, fits * 97 / 100, limit, &error, &growth), "%lld: %s",
                  (long long)fits, error.message);
    ck_assert(!step_fits(c, fits * 104 / 100, limit, &error, &growth));
    module_case tiled = *c;
    tiled.non_local.implementation = TL_ATTENTION_TILED;
    ck_assert_msg(step_fits(&tiled, 5000, limit, &error, &growth), "%s", error.message);
}
END_TEST

int main(void) {
    TCase *tests;
    Suite *suite = suite_with_case("attention cost", &tests);
    tcase_add_loop_test(tests, the_tape_agrees, 0, CASES);
    tcase_add_test(tests, sequences_agree);
    tcase_add_test(tests, large_sizes_are_estimated);
    tcase_add_test(tests, errors);
    tcase_add_loop_test(tests, crossovers, 0, 5);
    tcase_add_test(tests, the_crossover_is_where_the_formulas_cross);
    tcase_add_loop_test(tests, a_budget_is_kept, 0, 4);
    return run_suite(suite);
}
