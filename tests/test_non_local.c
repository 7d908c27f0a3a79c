/* The non-local block: every form and implementation against the definition, the map of a position,
 * sub-sampling, the layer, and what mistakes say. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/support.h"

enum { N = 2, H = 6, W = 4, C = 6, K = 4, V = 8, POSITIONS = H * W, WEIGHTS = 9 };

static const int64_t weight_shapes[WEIGHTS][2] = {{K, C}, {K, 0}, {K, C}, {K, 0},    {V, C},
                                                  {V, 0}, {C, V}, {C, 0}, {2 * K, 0}};

typedef struct block {
    tl_real x[N * POSITIONS * C];
    tl_real *values[WEIGHTS];
} block;

static block create_block(void) {
    block b;
    fill_uniform(b.x, N * POSITIONS * C, 1, -1, 1);
    for (int i = 0; i < WEIGHTS; i++) {
        const int64_t columns = weight_shapes[i][1] > 0 ? weight_shapes[i][1] : 1;
        b.values[i] = random_values(weight_shapes[i][0] * columns, 2 + (uint64_t)i, -0.7, 0.7);
    }
    return b;
}

static void free_block(block *b) {
    for (int i = 0; i < WEIGHTS; i++) {
        free(b->values[i]);
    }
}

static tl_tensor *input(tl_tape *tape, block *b) {
    return tl_input(tape, ARRAY_POINTER(b->x, N, H, W, C));
}

static tl_non_local_weights weights_of(tl_tape *tape, const block *b) {
    tl_tensor *t[WEIGHTS];
    for (int i = 0; i < WEIGHTS; i++) {
        const tl_array array =
            array_of(weight_shapes[i][1] > 0 ? 2 : 1, weight_shapes[i], b->values[i]);
        t[i] = tl_input(tape, &array);
    }
    return (tl_non_local_weights){t[0], t[1], t[2], t[3], t[4], t[5], t[8], t[6], t[7]};
}

static tl_non_local_config config_of(tl_pairwise pairwise, int64_t heads) {
    tl_non_local_config config = tl_non_local_config_default();
    config.key_channels = K;
    config.value_channels = V;
    config.heads = heads;
    config.pairwise = pairwise;
    return config;
}

/* ------------------------------------------------------------------ the definition */

static double product(const tl_real *row, const double *v, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)row[i] * v[i];
    }
    return sum;
}

/* Rows of `x` [count, C] times weight [out, C], plus bias. */
static void project(const double *x, int64_t count, const tl_real *weight, const tl_real *bias,
                    int64_t out, int64_t in, double *y) {
    for (int64_t i = 0; i < count; i++) {
        for (int64_t o = 0; o < out; o++) {
            y[i * out + o] = (double)bias[o] + product(weight + o * in, x + i * in, in);
        }
    }
}

/* The weights of one query over m keys. */
static void weigh(const tl_non_local_config *c, const block *b, const double *q, const double *k,
                  int64_t d, int64_t row, int64_t m, double *w) {
    double largest = -INFINITY, total = 0;
    for (int64_t j = 0; j < m; j++) {
        double score = 0;
        for (int64_t a = 0; a < d; a++) {
            score +=
                c->pairwise == TL_PAIRWISE_CONCATENATION
                    ? (double)b->values[8][a] * q[a] + (double)b->values[8][K + a] * k[j * row + a]
                    : q[a] * k[j * row + a];
        }
        w[j] = c->use_scale ? score / sqrt((double)d) : score;
        largest = fmax(largest, w[j]);
    }
    for (int64_t j = 0; j < m; j++) {
        if (c->pairwise == TL_PAIRWISE_DOT_PRODUCT) {
            w[j] /= (double)m;
        } else if (c->pairwise == TL_PAIRWISE_CONCATENATION) {
            w[j] = fmax(w[j], 0) / (double)m;
        } else {
            w[j] = exp(w[j] - largest);
            total += w[j];
        }
    }
    for (int64_t j = 0; j < m && total > 0; j++) {
        w[j] /= total;
    }
}

/* x after max pooling by s in both dimensions. */
static int64_t pooled(const double *x, int64_t s, double *y) {
    for (int64_t i = 0; i < H / s; i++) {
        for (int64_t j = 0; j < W / s; j++) {
            for (int64_t c = 0; c < C; c++) {
                double most = -INFINITY;
                for (int64_t at = 0; at < s * s; at++) {
                    most = fmax(most, x[((i * s + at / s) * W + j * s + at % s) * C + c]);
                }
                y[(i * (W / s) + j) * C + c] = most;
            }
        }
    }
    return (H / s) * (W / s);
}

static void define_sample(const tl_non_local_config *c, const block *b, const double *x,
                          double *y) {
    double source[POSITIONS * C], q[POSITIONS * C], k[POSITIONS * C], v[POSITIONS * V];
    double out[POSITIONS * V] = {0}, w[POSITIONS];
    const bool gaussian = c->pairwise == TL_PAIRWISE_GAUSSIAN;
    const int64_t heads = c->heads, rows = gaussian ? C : K;
    const int64_t m = pooled(x, c->sub_sample > 0 ? c->sub_sample : 1, source);
    memcpy(q, x, sizeof q);
    memcpy(k, source, sizeof k);
    if (!gaussian) {
        project(x, POSITIONS, b->values[0], b->values[1], K, C, q);
        project(source, m, b->values[2], b->values[3], K, C, k);
    }
    project(source, m, b->values[4], b->values[5], V, C, v);
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < POSITIONS; i++) {
            const int64_t d = rows / heads;
            weigh(c, b, q + i * rows + h * d, k + h * d, d, rows, m, w);
            for (int64_t j = 0; j < m; j++) {
                for (int64_t e = h * V / heads; e < (h + 1) * V / heads; e++) {
                    out[i * V + e] += w[j] * v[j * V + e];
                }
            }
        }
    }
    project(out, POSITIONS, b->values[6], b->values[7], C, V, y);
    for (int64_t i = 0; i < POSITIONS * C; i++) {
        y[i] += x[i];
    }
}

static const struct {
    tl_pairwise pairwise;
    int64_t heads, sub_sample;
    bool use_scale;
} forms[] = {
    {TL_PAIRWISE_EMBEDDED_GAUSSIAN, 1, 0, false}, {TL_PAIRWISE_EMBEDDED_GAUSSIAN, 2, 2, true},
    {TL_PAIRWISE_GAUSSIAN, 1, 0, false},          {TL_PAIRWISE_GAUSSIAN, 1, 2, true},
    {TL_PAIRWISE_DOT_PRODUCT, 4, 0, false},       {TL_PAIRWISE_DOT_PRODUCT, 1, 2, false},
    {TL_PAIRWISE_CONCATENATION, 1, 0, false},     {TL_PAIRWISE_CONCATENATION, 1, 2, false},
};
enum { FORMS = sizeof forms / sizeof forms[0] };

START_TEST(agrees_with_the_definition) {
    block b = create_block();
    tl_non_local_config config = config_of(forms[_i].pairwise, forms[_i].heads);
    config.sub_sample = forms[_i].sub_sample;
    config.use_scale = forms[_i].use_scale;
    double x[N * POSITIONS * C], want[N * POSITIONS * C];
    for (int i = 0; i < N * POSITIONS * C; i++) {
        x[i] = (double)b.x[i];
    }
    for (int n = 0; n < N; n++) {
        define_sample(&config, &b, x + n * POSITIONS * C, want + n * POSITIONS * C);
    }
    for (int isa = 0; isa < 3; isa++) {
        for (int stored = 0; stored < 2 && isa_available(all_isas[isa]); stored++) {
            tl_context *context = context_with(2, all_isas[isa]);
            tl_tape *tape = tl_tape_create(context);
            config.implementation = stored ? TL_ATTENTION_MATERIALIZED : TL_ATTENTION_TILED;
            const tl_non_local_weights weights = weights_of(tape, &b);
            tl_tensor *y = tl_non_local(tape, input(tape, &b), &weights, &config);
            ck_assert_msg(y != NULL, "%s", tl_tape_error(tape)->message);
            assert_close(all_isas[isa], N * POSITIONS * C, tl_tensor_data(y), want, 2e-6, 1e-6);
            tl_tape_free(tape);
            tl_context_free(context);
        }
    }
    free_block(&b);
}
END_TEST

/* Under a softmax the weights of a query sum to 1; the map is that of the definition. */
START_TEST(map_of_a_position) {
    block b = create_block();
    tl_tape *tape = tl_tape_create(NULL);
    const tl_non_local_config config = config_of(TL_PAIRWISE_EMBEDDED_GAUSSIAN, 2);
    const tl_non_local_weights weights = weights_of(tape, &b);
    tl_tensor *x = input(tape, &b);
    tl_tensor *map = tl_non_local_map(tape, x, &weights, &config, POSITIONS - 1);
    ck_assert_msg(map != NULL, "%s", tl_tape_error(tape)->message);
    ck_assert_int_eq(tl_tensor_size(map), N * 2 * POSITIONS);
    for (int row = 0; row < N * 2; row++) {
        double sum = 0;
        for (int j = 0; j < POSITIONS; j++) {
            sum += (double)tl_tensor_data(map)[row * POSITIONS + j];
        }
        ck_assert(fabs(sum - 1) < 1e-5);
    }
    ck_assert_ptr_null(tl_non_local_map(tape, x, &weights, &config, POSITIONS));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "position must be 0 ... 23, found 24");
    tl_tape_free(tape);
    free_block(&b);
}
END_TEST

/* ------------------------------------------------------------------ mistakes */

typedef struct mistake {
    tl_status status;
    const char *message;
    tl_non_local_config config;
} mistake;

/* Of a config that is right but for these fields. */
#define WRONG(status_, message_, ...)                                                              \
    {                                                                                              \
        .status = status_, .message = message_, .config = {                                        \
            .key_channels = K,                                                                     \
            .value_channels = V,                                                                   \
            .use_reprojection = true,                                                              \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static const mistake mistakes[] = {
    WRONG(TL_ERROR_INVALID_ARGUMENT, "unknown pairwise form 7", .pairwise = (tl_pairwise)7),
    WRONG(TL_ERROR_INVALID_ARGUMENT, "unknown implementation 5",
          .implementation = (tl_attention_implementation)5),
    WRONG(TL_ERROR_INVALID_ARGUMENT,
          "only the embedded Gaussian and the dot product form have "
          "heads, found 2",
          .pairwise = TL_PAIRWISE_CONCATENATION, .heads = 2),
    WRONG(TL_ERROR_INVALID_ARGUMENT, "use_scale belongs to the forms with a softmax",
          .pairwise = TL_PAIRWISE_DOT_PRODUCT, .use_scale = true),
    WRONG(TL_ERROR_INVALID_ARGUMENT, "heads must divide", .heads = 3),
    WRONG(TL_ERROR_INVALID_ARGUMENT,
          "must not be negative, found in_channels 0, key_channels 4, "
          "value_channels 8, heads 0, sub_sample -1",
          .sub_sample = -1),
    WRONG(TL_ERROR_SHAPE, "expected x with 5 channels, found 6", .in_channels = 5),
    WRONG(TL_ERROR_INVALID_ARGUMENT, "batch norm is for the layer", .use_batch_norm = true),
    WRONG(TL_ERROR_SHAPE, "sub_sample", .sub_sample = 5),
};
enum { MISTAKES = sizeof mistakes / sizeof mistakes[0] };

START_TEST(mistakes_are_explained) {
    block b = create_block();
    tl_tape *tape = tl_tape_create(NULL);
    const tl_non_local_weights weights = weights_of(tape, &b);
    ck_assert_ptr_null(tl_non_local(tape, input(tape, &b), &weights, &mistakes[_i].config));
    assert_tape_error(tape, mistakes[_i].status, mistakes[_i].message);
    tl_tape_free(tape);
    free_block(&b);
}
END_TEST

START_TEST(wrong_shapes_are_explained) {
    block b = create_block();
    tl_tape *tape = tl_tape_create(NULL);
    const tl_non_local_config config = config_of(TL_PAIRWISE_CONCATENATION, 1);
    tl_non_local_weights weights = weights_of(tape, &b);
    const tl_array flat = ARRAY(b.x, C);
    ck_assert_ptr_null(tl_non_local(tape, tl_input(tape, &flat), &weights, &config));
    assert_tape_error(tape, TL_ERROR_SHAPE, "expected x [N, spatial..., C], found x [6]");
    static const char *const names[] = {"query_weight [4, 6]", "pair_weight [8]",
                                        "reprojection_bias [6]", "value_bias [8]"};
    for (int i = 0; i < 4; i++) {
        tl_tape_reset(tape);
        weights = weights_of(tape, &b);
        tl_tensor **const fields[] = {&weights.query_weight, &weights.pair_weight,
                                      &weights.reprojection_bias, &weights.value_bias};
        *fields[i] = i % 2 == 0 ? NULL : weights.key_weight;
        ck_assert_ptr_null(tl_non_local(tape, input(tape, &b), &weights, &config));
        assert_tape_error(tape, TL_ERROR_SHAPE, names[i]);
        assert_tape_error(tape, TL_ERROR_SHAPE, i % 2 == 0 ? "found none" : "found [4, 6]");
    }
    tl_tape_free(tape);
    free_block(&b);
}
END_TEST

/* ------------------------------------------------------------------ the layer */

static tl_status init_layer(tl_non_local_layer *layer, tl_parameters *parameters,
                            const char *prefix, const tl_non_local_config *config,
                            tl_error *error) {
    tl_random random = tl_random_create(5, TL_RANDOM_INITIALIZE, 0);
    return tl_non_local_layer_init(layer, parameters, prefix, config, &random, error);
}

/* With batch norm the block begins as the identity; its parameters have the documented names. */
START_TEST(layer) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_non_local_config config = config_of(TL_PAIRWISE_CONCATENATION, 1);
    config.in_channels = C;
    config.use_batch_norm = true;
    tl_non_local_layer made;
    ck_assert_int_eq(init_layer(&made, parameters, "block", &config, &error), TL_OK);
    static const char *const names[] = {"block.keys.weight",     "block.queries.bias",
                                        "block.values.weight",   "block.pair.weight",
                                        "block.norm.weight",     "block.reprojection.weight",
                                        "block.norm.running_var"};
    for (int i = 0; i < 7; i++) {
        ck_assert_msg(tl_parameters_find(parameters, names[i]) != NULL, "%s", names[i]);
    }
    block b = create_block();
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *y = tl_non_local_layer_forward(&made, tape, input(tape, &b));
    ck_assert_msg(y != NULL, "%s", tl_tape_error(tape)->message);
    assert_same_bits("the identity", N * POSITIONS * C, tl_tensor_data(y), b.x);
    made.config.use_residual = false;
    y = tl_non_local_layer_forward(&made, tape, input(tape, &b));
    ck_assert(y != NULL && tl_tensor_data(y)[0] == 0);
    tl_tape_free(tape);
    free_block(&b);
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

START_TEST(layers_that_cannot_be) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_non_local_config config = config_of(TL_PAIRWISE_EMBEDDED_GAUSSIAN, 1);
    tl_non_local_layer made;
    ck_assert_int_ne(init_layer(&made, parameters, "a", &config, &error), TL_OK);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT,
                 "non-local layer: in_channels must be at least");
    config.in_channels = C;
    config.use_reprojection = false;
    ck_assert_int_ne(init_layer(&made, parameters, "a", &config, &error), TL_OK);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "a residual without reprojection");
    config.use_residual = false;
    config.use_batch_norm = true;
    ck_assert_int_ne(init_layer(&made, parameters, "a", &config, &error), TL_OK);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "batch norm follows the reprojection");
    config.use_batch_norm = false;
    char name[400];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    ck_assert_int_ne(init_layer(&made, parameters, name, &config, &error), TL_OK);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "is too long");
    ck_assert_int_eq(tl_parameters_count(parameters), 0);
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("non_local", &test_case);
    tcase_add_loop_test(test_case, agrees_with_the_definition, 0, FORMS);
    tcase_add_test(test_case, map_of_a_position);
    tcase_add_loop_test(test_case, mistakes_are_explained, 0, MISTAKES);
    tcase_add_test(test_case, wrong_shapes_are_explained);
    tcase_add_test(test_case, layer);
    tcase_add_test(test_case, layers_that_cannot_be);
    return run_suite(suite);
}
