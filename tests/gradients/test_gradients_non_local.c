/* Gradients of the non-local block: all forms, both implementations, heads, scale, sub-sampling,
 * with and without reprojection; and of linear_add. */
#include "gradients/gradient_check.h"

typedef struct block_case {
    const char *name;
    tl_non_local_config config;
    int rank;
    int64_t x[5];
} block_case;

enum { C = 4, K = 2, V = 6 };

#define FORM(pairwise_, ...)                                                                       \
    {                                                                                              \
        .in_channels = C, .key_channels = K, .value_channels = V, .pairwise = pairwise_,           \
        .use_reprojection = true, .use_residual = true, __VA_ARGS__                                \
    }

static const block_case cases[] = {
    {"embedded Gaussian", FORM(TL_PAIRWISE_EMBEDDED_GAUSSIAN, .heads = 2), 4, {2, 3, 5, C}},
    {"embedded Gaussian, scaled",
     FORM(TL_PAIRWISE_EMBEDDED_GAUSSIAN, .use_scale = true),
     3,
     {2, 7, C}},
    {"Gaussian", FORM(TL_PAIRWISE_GAUSSIAN, .heads = 1), 3, {1, 9, C}},
    {"dot product", FORM(TL_PAIRWISE_DOT_PRODUCT, .heads = 2), 5, {1, 2, 3, 2, C}},
    {"concatenation", FORM(TL_PAIRWISE_CONCATENATION, .heads = 1), 3, {2, 6, C}},
    {"sub-sampled", FORM(TL_PAIRWISE_EMBEDDED_GAUSSIAN, .sub_sample = 2), 4, {1, 5, 4, C}},
    {"without reprojection",
     {.in_channels = C, .key_channels = K, .value_channels = V, .heads = 2},
     3,
     {2, 5, C}},
};
enum { CASES = sizeof cases / sizeof cases[0] };

/* Inputs in this order, those that the form has. */
enum { X, VW, VB, RW, RB, QW, QB, KW, KB, PAIR };

static bool projects(const tl_non_local_config *config) {
    return config->pairwise != TL_PAIRWISE_GAUSSIAN;
}

static tl_tensor *block(tl_tape *tape, tl_tensor *const *in, const void *user) {
    const tl_non_local_config *config = user;
    int next = X + 1;
    tl_non_local_weights w = {0};
    w.value_weight = in[next++];
    w.value_bias = in[next++];
    if (config->use_reprojection) {
        w.reprojection_weight = in[next++];
        w.reprojection_bias = in[next++];
    }
    if (projects(config)) {
        w.query_weight = in[next++];
        w.query_bias = in[next++];
        w.key_weight = in[next++];
        w.key_bias = in[next++];
    }
    if (config->pairwise == TL_PAIRWISE_CONCATENATION) {
        w.pair_weight = in[next++];
    }
    return tl_non_local(tape, in[X], &w, config);
}

static void add(gradient_problem *p, const char *name, int64_t rows, int64_t columns) {
    gradient_input *input = &p->inputs[p->input_count++];
    *input = (gradient_input){
        .name = name, .rank = columns > 0 ? 2 : 1, .shape = {rows, columns}, .distinct = false};
}

static void check_case(const block_case *c, tl_attention_implementation implementation) {
    tl_non_local_config config = c->config;
    config.implementation = implementation;
    gradient_problem p = {
        .name = c->name, .forward = block, .user = &config, .input_count = 1, .seed = 5};
    p.inputs[X] = (gradient_input){.name = "x", .rank = c->rank, .distinct = true};
    for (int d = 0; d < c->rank; d++) {
        p.inputs[X].shape[d] = c->x[d];
    }
    add(&p, "values.weight", V, C);
    add(&p, "values.bias", V, 0);
    if (config.use_reprojection) {
        add(&p, "reprojection.weight", C, V);
        add(&p, "reprojection.bias", C, 0);
    }
    if (projects(&config)) {
        add(&p, "queries.weight", K, C);
        add(&p, "queries.bias", K, 0);
        add(&p, "keys.weight", K, C);
        add(&p, "keys.bias", K, 0);
        /* a shift of all keys is the same for every j: a softmax does not see it */
        p.inputs[p.input_count - 1].zero_gradient =
            config.pairwise == TL_PAIRWISE_EMBEDDED_GAUSSIAN;
    }
    if (config.pairwise == TL_PAIRWISE_CONCATENATION) {
        add(&p, "pair.weight", (int64_t)2 * K, 0);
    }
    check_gradients(&p);
}

START_TEST(non_local) {
    check_case(&cases[_i / 2], _i % 2 == 0 ? TL_ATTENTION_TILED : TL_ATTENTION_MATERIALIZED);
}
END_TEST

static tl_tensor *linear_add(tl_tape *tape, tl_tensor *const *in, const void *user) {
    (void)user;
    return tl_linear_add(tape, in[0], in[1], in[2], in[3]);
}

START_TEST(linear_with_residual) {
    check_gradients(
        &(gradient_problem){.name = "linear_add",
                            .forward = linear_add,
                            .input_count = 4,
                            .inputs = {{.name = "x", .rank = 3, .shape = {2, 3, 5}},
                                       {.name = "weight", .rank = 2, .shape = {4, 5}},
                                       {.name = "bias", .rank = 1, .shape = {4}},
                                       {.name = "residual", .rank = 3, .shape = {2, 3, 4}}}});
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients of the non-local block", &test_case);
    tcase_add_loop_test(test_case, non_local, 0, 2 * CASES);
    tcase_add_test(test_case, linear_with_residual);
    return run_suite(suite);
}
