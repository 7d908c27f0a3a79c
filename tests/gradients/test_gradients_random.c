/* Gradients at random shapes and arguments: extents of 1, odd sizes, strides that leave a rest,
 * paddings beyond need, dilations, groups, heads. Each test draws DRAWS problems of its family. */
#include <stdio.h>
#include <string.h>

#include "gradients/gradient_check.h"

enum { DRAWS = 25, MOST_TRIES = 2000 };

typedef union arguments {
    tl_conv1d_config conv1d;
    tl_conv2d_config conv2d;
    tl_conv3d_config conv3d;
    tl_conv_transpose2d_config transpose;
    tl_pool_config pool;
    tl_attention_config attention;
    tl_efficient_attention_config efficient;
    tl_non_local_config non_local;
    int64_t heads; /* or groups */
    struct {
        int64_t starts[TL_MAX_RANK], stops[TL_MAX_RANK], steps[TL_MAX_RANK];
        int dims[TL_MAX_RANK], count;
        bool flag;
    } shape;
} arguments;

typedef struct drawn {
    gradient_problem problem;
    arguments arguments;
    char name[200];
} drawn;

/* False: what was drawn does not fit together. */
typedef bool (*draw_function)(tl_random *random, drawn *d);

/* low ... high, both included. */
static int64_t between(tl_random *random, int64_t low, int64_t high) {
    return low + (int64_t)tl_random_below(random, (uint32_t)(high - low + 1));
}

static void add_input(drawn *d, const char *name, int rank, const int64_t *shape) {
    gradient_input *input = &d->problem.inputs[d->problem.input_count++];
    *input = (gradient_input){.name = name, .rank = rank};
    memcpy(input->shape, shape, (size_t)rank * sizeof *shape);
    char *end = d->name + strlen(d->name);
    const size_t left = sizeof d->name - strlen(d->name);
    char text[64] = "";
    for (int i = 0; i < rank && strlen(text) < 50; i++) {
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d", i > 0 ? "x" : "",
                       (int)shape[i]);
    }
    (void)snprintf(end, left, " %s %s", name, text);
}

#define ADD(d, name, ...)                                                                          \
    add_input(d, name, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

static void random_shape(tl_random *random, int rank, int64_t largest, int64_t *shape) {
    for (int i = 0; i < rank; i++) {
        shape[i] = between(random, 1, largest);
    }
}

/* ------------------------------------------------------------------ convolutions */

static tl_tensor *conv1d(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_conv1d(tape, in[0], in[1], in[2], user);
}

static tl_tensor *conv2d(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_conv2d(tape, in[0], in[1], in[2], user);
}

static tl_tensor *conv3d(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_conv3d(tape, in[0], in[1], in[2], user);
}

static tl_tensor *transpose(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_conv_transpose2d(tape, in[0], in[1], in[2], user);
}

typedef struct window {
    int64_t size, kernel, stride, padding, dilation;
} window;

static window draw_window(tl_random *random, int64_t largest) {
    return (window){.size = between(random, 1, largest),
                    .kernel = between(random, 1, 4),
                    .stride = between(random, 1, 3),
                    .padding = between(random, 0, 3),
                    .dilation = between(random, 1, 3) / 2 + (int64_t)1};
}

static bool fits(const window *w) {
    return w->dilation * (w->kernel - 1) + 1 <= w->size + 2 * w->padding;
}

static bool draw_convolution(tl_random *random, drawn *d) {
    const int rank = (int)between(random, 1, 3);
    const int64_t groups = between(random, 1, 3);
    int64_t x[TL_MAX_RANK] = {between(random, 1, 2)};
    int64_t weight[TL_MAX_RANK] = {groups * between(random, 1, 5)};
    window w[3];
    for (int i = 0; i < rank; i++) {
        w[i] = draw_window(random, rank == 3 ? 4 : 7);
        if (!fits(&w[i])) {
            return false;
        }
        x[1 + i] = w[i].size;
        weight[1 + i] = w[i].kernel;
    }
    weight[1 + rank] = between(random, 1, 5);
    x[1 + rank] = groups * weight[1 + rank];
    if (rank == 1) {
        d->arguments.conv1d = (tl_conv1d_config){w[0].stride, w[0].padding, w[0].dilation, groups};
        d->problem.forward = conv1d;
    } else if (rank == 2) {
        d->arguments.conv2d = (tl_conv2d_config){{w[0].stride, w[1].stride},
                                                 {w[0].padding, w[1].padding},
                                                 {w[0].dilation, w[1].dilation},
                                                 groups};
        d->problem.forward = conv2d;
    } else {
        d->arguments.conv3d = (tl_conv3d_config){{w[0].stride, w[1].stride, w[2].stride},
                                                 {w[0].padding, w[1].padding, w[2].padding},
                                                 {w[0].dilation, w[1].dilation, w[2].dilation},
                                                 groups};
        d->problem.forward = conv3d;
    }
    d->problem.may_vanish = true;
    add_input(d, "x", rank + 2, x);
    add_input(d, "weight", rank + 2, weight);
    ADD(d, "bias", weight[0]);
    return true;
}

/* 3 x 3, stride 1, padding 1, and channels near multiples of a vector: Winograd and its neighbours.
 */
static bool draw_common_convolution(tl_random *random, drawn *d) {
    static const int64_t widths[] = {4, 8, 16, 15, 24, 32, 3};
    const int64_t c = widths[between(random, 0, 6)], o = widths[between(random, 0, 6)];
    d->arguments.conv2d = (tl_conv2d_config){.stride = {1, 1}, .padding = {1, 1}};
    d->problem.forward = conv2d;
    ADD(d, "x", between(random, 1, 3), between(random, 1, 6), between(random, 1, 6), c);
    ADD(d, "weight", o, 3, 3, c);
    ADD(d, "bias", o);
    return true;
}

static bool draw_transpose(tl_random *random, drawn *d) {
    const int64_t groups = between(random, 1, 3), inputs = groups * between(random, 1, 3);
    const int64_t outputs = between(random, 1, 4);
    tl_conv_transpose2d_config *c = &d->arguments.transpose;
    window w[2];
    for (int i = 0; i < 2; i++) {
        w[i] = draw_window(random, 5);
        c->stride[i] = w[i].stride;
        c->padding[i] = w[i].padding;
        c->dilation[i] = w[i].dilation;
        const int64_t most = w[i].stride > w[i].dilation ? w[i].stride : w[i].dilation;
        c->output_padding[i] = between(random, 0, most - 1);
        const int64_t out = (w[i].size - 1) * w[i].stride - 2 * w[i].padding +
                            w[i].dilation * (w[i].kernel - 1) + c->output_padding[i] + 1;
        if (out < 1) {
            return false;
        }
    }
    c->groups = groups;
    d->problem.forward = transpose;
    d->problem.may_vanish = true;
    ADD(d, "x", between(random, 1, 2), w[0].size, w[1].size, inputs);
    ADD(d, "weight", inputs, w[0].kernel, w[1].kernel, outputs);
    ADD(d, "bias", outputs * groups);
    return true;
}

/* ------------------------------------------------------------------ pooling, normalisation */

static tl_tensor *max_pool(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_max_pool(tape, in[0], user);
}

static tl_tensor *avg_pool(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_avg_pool(tape, in[0], user);
}

static bool draw_pool(tl_random *random, drawn *d) {
    const int rank = (int)between(random, 1, 3);
    int64_t x[TL_MAX_RANK] = {between(random, 1, 2)};
    tl_pool_config *c = &d->arguments.pool;
    for (int i = 0; i < rank; i++) {
        window w = draw_window(random, 6);
        w.dilation = 1;
        w.padding = between(random, 0, w.kernel / 2);
        if (!fits(&w)) {
            return false;
        }
        c->kernel_size[i] = w.kernel;
        c->stride[i] = w.stride;
        c->padding[i] = w.padding;
        x[1 + i] = w.size;
    }
    x[1 + rank] = between(random, 1, 9);
    c->exclude_padding = tl_random_below(random, 2) != 0;
    d->problem.forward = tl_random_below(random, 2) != 0 ? max_pool : avg_pool;
    add_input(d, "x", rank + 2, x);
    d->problem.inputs[0].distinct = true;
    return true;
}

static tl_tensor *batch_norm(tl_tape *tape, tl_tensor *const *in, const void *user) {
    (void)user;
    return tl_batch_norm(tape, in[0], in[1], in[2], NULL, NULL, NULL);
}

static tl_tensor *layer_norm(tl_tape *tape, tl_tensor *const *in, const void *user) {
    (void)user;
    return tl_layer_norm(tape, in[0], 1, in[1], in[2], 1e-3);
}

static tl_tensor *group_norm(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_group_norm(tape, in[0], *(const int64_t *)user, in[1], in[2], 1e-3);
}

static bool draw_norm(tl_random *random, drawn *d) {
    int64_t x[TL_MAX_RANK];
    const int rank = (int)between(random, 2, 5);
    random_shape(random, rank, 5, x);
    const int kind = (int)between(random, 0, 2);
    const int64_t groups = d->arguments.heads = between(random, 1, 4);
    x[rank - 1] = kind == 2 ? groups * between(random, 1, 4) : between(random, 1, 19);
    int64_t positions = 1;
    for (int i = 1; i < rank - 1; i++) {
        positions *= x[i];
    }
    const int64_t values = kind == 0   ? x[0] * positions
                           : kind == 1 ? x[rank - 1]
                                       : positions * (x[rank - 1] / groups);
    if (values < 4) {
        return false; /* of so few values the result hardly depends on x */
    }
    d->problem.forward = kind == 0 ? batch_norm : kind == 1 ? layer_norm : group_norm;
    add_input(d, "x", rank, x);
    ADD(d, "weight", x[rank - 1]);
    ADD(d, "bias", x[rank - 1]);
    return true;
}

/* ------------------------------------------------------------------ products, attention */

static tl_tensor *matmul(tl_tape *tape, tl_tensor *const *in, const void *user) {
    (void)user;
    return tl_matmul(tape, in[0], in[1]);
}

static tl_tensor *linear(tl_tape *tape, tl_tensor *const *in, const void *user) {
    (void)user;
    return tl_linear(tape, in[0], in[1], in[2]);
}

static bool draw_product(tl_random *random, drawn *d) {
    const int64_t m = between(random, 1, 40), k = between(random, 1, 40),
                  n = between(random, 1, 40);
    if (tl_random_below(random, 2) != 0) {
        const int64_t batch = between(random, 1, 3);
        d->problem.forward = matmul;
        ADD(d, "a", batch, m, k);
        ADD(d, "b", batch, k, n);
    } else {
        d->problem.forward = linear;
        ADD(d, "x", 1, m, k);
        ADD(d, "weight", n, k);
        ADD(d, "bias", n);
    }
    return true;
}

static tl_tensor *attention(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_attention(tape, in[0], in[1], in[2], user);
}

static tl_tensor *linear_attention(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_causal_linear_attention(tape, in[0], in[1], in[2], *(const int64_t *)user);
}

static bool draw_attention(tl_random *random, drawn *d) {
    const int64_t heads = between(random, 1, 4), n = between(random, 1, 2);
    const int64_t queries = between(random, 2, 21);
    const int64_t width = heads * between(random, 1, 9), values = heads * between(random, 1, 9);
    int64_t keys = queries;
    if (tl_random_below(random, 3) == 0) {
        d->arguments.heads = heads;
        d->problem.forward = linear_attention;
        if (width == heads) {
            return false; /* a softmax over one channel is constant */
        }
    } else {
        tl_attention_config *c = &d->arguments.attention;
        c->heads = heads;
        c->causal = tl_random_below(random, 2) != 0;
        c->implementation =
            tl_random_below(random, 2) != 0 ? TL_ATTENTION_TILED : TL_ATTENTION_MATERIALIZED;
        keys = c->causal ? queries : between(random, 2, 21);
        d->problem.forward = attention;
    }
    ADD(d, "q", n, queries, width);
    ADD(d, "k", n, keys, width);
    ADD(d, "v", n, keys, values);
    return true;
}

/* x [N, spatial..., C] of any rank with 2 to 60 positions. */
static bool draw_positions(tl_random *random, int64_t channels, drawn *d) {
    const int rank = (int)between(random, 1, 3);
    int64_t x[TL_MAX_RANK] = {between(random, 1, 2)}, positions = 1;
    for (int i = 0; i < rank; i++) {
        x[1 + i] = between(random, 1, rank == 1 ? 60 : 8);
        positions *= x[1 + i];
    }
    x[1 + rank] = channels;
    add_input(d, "x", rank + 2, x);
    return positions >= 2 && positions <= 60;
}

static void add_projections(drawn *d, int64_t c, int64_t keys, int64_t values) {
    ADD(d, "queries.weight", keys, c);
    ADD(d, "queries.bias", keys);
    ADD(d, "keys.weight", keys, c);
    ADD(d, "keys.bias", keys);
    ADD(d, "values.weight", values, c);
    ADD(d, "values.bias", values);
    ADD(d, "reprojection.weight", c, values);
    ADD(d, "reprojection.bias", c);
}

static tl_tensor *efficient(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_efficient_attention(
        tape, in[0],
        &(tl_efficient_attention_weights){in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8]},
        user);
}

static bool draw_efficient(tl_random *random, drawn *d) {
    const int64_t heads = between(random, 1, 4), c = between(random, 1, 20);
    const int64_t keys = heads * between(random, 2, 6), values = heads * between(random, 1, 6);
    const bool scaling = tl_random_below(random, 2) != 0;
    d->arguments.efficient = tl_efficient_attention_config_default();
    d->arguments.efficient.heads = heads;
    d->arguments.efficient.key_channels = keys;
    d->arguments.efficient.value_channels = values;
    d->arguments.efficient.normalization =
        scaling ? TL_NORMALIZATION_SCALING : TL_NORMALIZATION_SOFTMAX;
    d->problem.forward = efficient;
    if (!draw_positions(random, c, d)) {
        return false;
    }
    add_projections(d, c, keys, values);
    d->problem.inputs[4].zero_gradient = !scaling;
    return true;
}

static tl_tensor *non_local(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_non_local(tape, in[0],
                        &(tl_non_local_weights){.query_weight = in[1],
                                                .query_bias = in[2],
                                                .key_weight = in[3],
                                                .key_bias = in[4],
                                                .value_weight = in[5],
                                                .value_bias = in[6],
                                                .reprojection_weight = in[7],
                                                .reprojection_bias = in[8]},
                        user);
}

static bool draw_non_local(tl_random *random, drawn *d) {
    const int64_t heads = between(random, 1, 4), c = between(random, 1, 20);
    const int64_t keys = heads * between(random, 1, 6), values = heads * between(random, 1, 6);
    const bool dot = tl_random_below(random, 2) != 0;
    tl_non_local_config *config = &d->arguments.non_local;
    *config = tl_non_local_config_default();
    config->heads = heads;
    config->key_channels = keys;
    config->value_channels = values;
    config->pairwise = dot ? TL_PAIRWISE_DOT_PRODUCT : TL_PAIRWISE_EMBEDDED_GAUSSIAN;
    config->use_scale = !dot && tl_random_below(random, 2) != 0;
    config->implementation =
        tl_random_below(random, 2) != 0 ? TL_ATTENTION_TILED : TL_ATTENTION_MATERIALIZED;
    d->problem.forward = non_local;
    if (!draw_positions(random, c, d)) {
        return false;
    }
    add_projections(d, c, keys, values);
    d->problem.inputs[4].zero_gradient = !dot;
    return true;
}

/* ------------------------------------------------------------------ shapes, reductions, softmax */

/* Squares, so that the gradient depends on the place. */
static tl_tensor *squared(tl_tape *tape, tl_tensor *y) {
    return tl_mul(tape, y, y);
}

static tl_tensor *slice(tl_tape *tape, tl_tensor *const *in, const void *user) {
    const arguments *a = user;
    return squared(tape, tl_slice(tape, in[0], a->shape.starts, a->shape.stops, a->shape.steps));
}

static tl_tensor *permute(tl_tape *tape, tl_tensor *const *in, const void *user) {
    const arguments *a = user;
    return squared(tape, tl_permute(tape, in[0], a->shape.dims));
}

static tl_tensor *reduce(tl_tape *tape, tl_tensor *const *in, const void *user) {
    const arguments *a = user;
    return squared(tape, (a->shape.flag ? tl_mean : tl_sum)(tape, in[0], a->shape.count,
                                                            a->shape.dims, a->shape.flag));
}

static tl_tensor *softmax(tl_tape *tape, tl_tensor *const *in, const void *user) {
    const arguments *a = user;
    return (a->shape.flag ? tl_log_softmax : tl_softmax)(tape, in[0], a->shape.dims[0]);
}

static tl_tensor *divide(tl_tape *tape, tl_tensor *const *in, const void *user) {
    (void)user;
    return tl_div(tape, tl_mul(tape, in[0], in[1]), in[2]);
}

static void shuffle(tl_random *random, int count, int *dims) {
    for (int i = 0; i < count; i++) {
        dims[i] = i;
    }
    for (int i = count - 1; i > 0; i--) {
        const int j = (int)between(random, 0, i);
        const int kept = dims[i];
        dims[i] = dims[j];
        dims[j] = kept;
    }
}

static bool draw_shapes(tl_random *random, drawn *d) {
    static const gradient_function functions[] = {slice, permute, reduce, softmax};
    int64_t x[TL_MAX_RANK];
    const int rank = (int)between(random, 1, 5);
    const int kind = (int)between(random, 0, 3);
    random_shape(random, rank, 6, x);
    for (int i = 0; i < rank; i++) {
        d->arguments.shape.starts[i] = between(random, 0, x[i] - 1);
        d->arguments.shape.stops[i] = between(random, d->arguments.shape.starts[i] + 1, x[i]);
        d->arguments.shape.steps[i] = between(random, 1, 3);
    }
    shuffle(random, rank, d->arguments.shape.dims);
    d->arguments.shape.count = (int)between(random, 1, rank);
    d->arguments.shape.flag = tl_random_below(random, 2) != 0;
    d->problem.forward = functions[kind];
    add_input(d, "x", rank, x);
    return kind != 3 || x[d->arguments.shape.dims[0]] > 1;
}

/* Any extents of any operand may be 1, leading ones missing. */
static bool draw_broadcast(tl_random *random, drawn *d) {
    static const char *const names[] = {"a", "b", "c"};
    int64_t shape[TL_MAX_RANK], own[TL_MAX_RANK];
    const int rank = (int)between(random, 1, 5);
    random_shape(random, rank, 5, shape);
    for (int i = 0; i < 3; i++) {
        const int missing = (int)between(random, 0, rank - 1);
        for (int k = missing; k < rank; k++) {
            own[k - missing] = tl_random_below(random, 3) == 0 ? 1 : shape[k];
        }
        add_input(d, names[i], rank - missing, own);
    }
    d->problem.inputs[2].low = 0.5;
    d->problem.inputs[2].high = 1.5;
    d->problem.forward = divide;
    return true;
}

/* ------------------------------------------------------------------ all of them */

static const draw_function families[] = {
    draw_convolution, draw_common_convolution, draw_transpose, draw_pool,      draw_norm,
    draw_product,     draw_attention,          draw_efficient, draw_non_local, draw_shapes,
    draw_broadcast,
};

START_TEST(random_problems) {
    tl_random random = tl_random_create(20, 1000, (uint32_t)_i);
    int checked = 0;
    for (int tries = 0; checked < DRAWS; tries++) {
        drawn d = {0};
        ck_assert_int_lt(tries, MOST_TRIES);
        d.problem.name = d.name;
        d.problem.user = &d.arguments;
        d.problem.seed = (uint64_t)(tries + 1);
        if (families[_i](&random, &d)) {
            check_gradients(&d.problem);
            checked++;
        }
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients at random", &test_case);
    tcase_add_loop_test(test_case, random_problems, 0, sizeof families / sizeof families[0]);
    return run_suite(suite);
}
