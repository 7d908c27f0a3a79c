/* Gradients of scaled dot-product attention, tiled and materialized. */
#include "gradients/gradient_check.h"

static tl_tensor *attention(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_attention(tape, inputs[0], inputs[1], inputs[2], user);
}

static tl_tensor *self_attention(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_attention(tape, inputs[0], inputs[0], inputs[0], user);
}

/* Keys and values are one tensor. */
static tl_tensor *shared(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    return tl_attention(tape, inputs[0], inputs[1], inputs[1], user);
}

typedef struct attention_case {
    const char *name;
    gradient_function forward;
    tl_attention_config config;
    int rank;
    int64_t q[4], k[4], v[4];
} attention_case;

static const attention_case cases[] = {
    {"heads axis", attention, {0}, 4, {2, 3, 5, 4}, {2, 3, 7, 4}, {2, 3, 7, 2}},
    {"causal", attention, {.causal = true}, 4, {1, 2, 9, 3}, {1, 2, 9, 3}, {1, 2, 9, 5}},
    {"slices", attention, {.heads = 2}, 3, {2, 6, 4}, {2, 5, 4}, {2, 5, 6}},
    {"scale", attention, {.scale = 1.5}, 3, {1, 13, 3}, {1, 14, 3}, {1, 14, 1}},
    {"one query", attention, {0}, 3, {1, 1, 3}, {1, 6, 3}, {1, 6, 2}},
    {"several tiles", attention, {.causal = true}, 3, {1, 110, 2}, {1, 110, 2}, {1, 110, 3}},
    {"self", self_attention, {.heads = 2}, 3, {2, 7, 6}, {0}, {0}},
    {"self, causal", self_attention, {.causal = true}, 4, {1, 2, 6, 3}, {0}, {0}},
    {"shared", shared, {0}, 3, {1, 4, 3}, {1, 9, 3}, {0}},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static void check_case(const attention_case *c, tl_attention_implementation implementation) {
    tl_attention_config config = c->config;
    config.implementation = implementation;
    gradient_problem problem = {.name = c->name,
                                .forward = c->forward,
                                .user = &config,
                                .input_count = c->forward == self_attention ? 1
                                               : c->forward == shared       ? 2
                                                                            : 3};
    const char *names[3] = {"q", "k", "v"};
    const int64_t *shapes[3] = {c->q, c->k, c->v};
    for (int i = 0; i < problem.input_count; i++) {
        problem.inputs[i] = (gradient_input){.name = names[i], .rank = c->rank};
        for (int d = 0; d < c->rank; d++) {
            problem.inputs[i].shape[d] = shapes[i][d];
        }
    }
    check_gradients(&problem);
}

START_TEST(gradients) {
    check_case(&cases[_i / 2], _i % 2 == 0 ? TL_ATTENTION_TILED : TL_ATTENTION_MATERIALIZED);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients of attention", &test_case);
    tcase_add_loop_test(test_case, gradients, 0, 2 * CASES);
    return run_suite(suite);
}
