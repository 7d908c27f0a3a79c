/* Single operations, one direction at a time: NAME/forward/SHAPE and NAME/backward/SHAPE.
 *
 * Each run does both directions on a tape; the tape's profile tells them apart, and knows FLOPs and
 * the bytes of the tensors that are read and written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { CLASSES = 10, MAX_INPUTS = 3 };
enum { OPERATION, BACKWARD, RANK, SHAPE }; /* of a case's numbers */

typedef struct operation_state operation_state;

typedef struct operation {
    const char *name;
    int inputs;
    tl_tensor *(*apply)(operation_state *s, tl_tensor *const *x);
} operation;

struct operation_state {
    tl_tape *tape;
    tl_profile *profile;
    bool backward;
    const operation *operation;
    tl_array x[MAX_INPUTS];
    tl_tensor *values[MAX_INPUTS]; /* hold the memory of x */
    tl_parameters *parameters;
    tl_batch_norm_layer norm;
    int32_t *labels;
    tl_profile_work before, last; /* of the profile before the last run, and of that run alone */
};

/* ------------------------------------------------------------------ the operations */

static tl_tensor *batch_norm(operation_state *s, tl_tensor *const *x) {
    return tl_batch_norm_layer_forward(&s->norm, s->tape, x[0]);
}

static tl_tensor *batch_norm_relu(operation_state *s, tl_tensor *const *x) {
    return tl_batch_norm_layer_forward_relu(&s->norm, s->tape, x[0], NULL);
}

static tl_tensor *batch_norm_relu_residual(operation_state *s, tl_tensor *const *x) {
    return tl_batch_norm_layer_forward_relu(&s->norm, s->tape, x[0], x[1]);
}

static tl_tensor *layer_norm(operation_state *s, tl_tensor *const *x) {
    return tl_layer_norm(s->tape, x[0], 1, s->norm.weight, s->norm.bias, 1e-5);
}

static tl_tensor *relu(operation_state *s, tl_tensor *const *x) {
    return tl_relu(s->tape, x[0]);
}

static tl_tensor *gelu(operation_state *s, tl_tensor *const *x) {
    return tl_gelu(s->tape, x[0], TL_GELU_EXACT);
}

static tl_tensor *add(operation_state *s, tl_tensor *const *x) {
    return tl_add(s->tape, x[0], x[1]);
}

static tl_tensor *dropout(operation_state *s, tl_tensor *const *x) {
    return tl_dropout(s->tape, x[0], 0.2);
}

static tl_tensor *max_pool(operation_state *s, tl_tensor *const *x) {
    return tl_max_pool2d(s->tape, x[0], &(tl_pool_config){.kernel_size = {2, 2}});
}

static tl_tensor *avg_pool(operation_state *s, tl_tensor *const *x) {
    return tl_avg_pool2d(s->tape, x[0], &(tl_pool_config){.kernel_size = {2, 2}});
}

static tl_tensor *global_avg_pool(operation_state *s, tl_tensor *const *x) {
    return tl_global_avg_pool(s->tape, x[0]);
}

static tl_tensor *softmax(operation_state *s, tl_tensor *const *x) {
    return tl_softmax(s->tape, x[0], s->x[0].rank - 1);
}

static tl_tensor *cross_entropy(operation_state *s, tl_tensor *const *x) {
    return tl_cross_entropy(s->tape, x[0], s->labels, NULL);
}

/* Sequences [N, n, 64] in four heads. */
static tl_tensor *attention(operation_state *s, tl_tensor *const *x) {
    return tl_attention(s->tape, x[0], x[1], x[2], &(tl_attention_config){.heads = 4});
}

static tl_tensor *causal_attention(operation_state *s, tl_tensor *const *x) {
    return tl_attention(s->tape, x[0], x[1], x[2],
                        &(tl_attention_config){.heads = 4, .causal = true});
}

static tl_tensor *causal_linear_attention(operation_state *s, tl_tensor *const *x) {
    return tl_causal_linear_attention(s->tape, x[0], x[1], x[2], 4);
}

static const operation operations[] = {
    {"batch_norm", 1, batch_norm},
    {"batch_norm_relu", 1, batch_norm_relu},
    {"batch_norm_relu_residual", 2, batch_norm_relu_residual},
    {"layer_norm", 1, layer_norm},
    {"relu", 1, relu},
    {"gelu", 1, gelu},
    {"add", 2, add},
    {"dropout", 1, dropout},
    {"max_pool", 1, max_pool},
    {"avg_pool", 1, avg_pool},
    {"global_avg_pool", 1, global_avg_pool},
    {"softmax", 1, softmax},
    {"cross_entropy", 1, cross_entropy},
    {"attention", 3, attention},
    {"causal_attention", 3, causal_attention},
    {"causal_linear_attention", 3, causal_linear_attention},
};
enum { OPERATIONS = sizeof operations / sizeof operations[0] };

/* ------------------------------------------------------------------ a case */

static void destroy(void *state) {
    operation_state *s = state;
    tl_tape_free(s->tape);
    tl_profile_free(s->profile);
    for (int i = 0; i < MAX_INPUTS; i++) {
        tl_tensor_free(s->values[i]);
    }
    tl_parameters_free(s->parameters);
    free(s->labels);
    free(s);
}

static bool create_values(operation_state *s, const bench_case *c, tl_context *context,
                          tl_error *error) {
    for (int i = 0; i < s->operation->inputs; i++) {
        tl_array *x = &s->x[i];
        x->rank = (int)c->numbers[RANK];
        memcpy(x->shape, c->numbers + SHAPE, (size_t)x->rank * sizeof *x->shape);
        s->values[i] = tl_tensor_create(context, x->rank, x->shape, false, error);
        if (s->values[i] == NULL) {
            return false;
        }
        x->data = tl_tensor_data(s->values[i]);
        bench_fill(x->data, tl_tensor_size(s->values[i]), (uint64_t)i + 1);
    }
    const int64_t channels = s->x[0].shape[s->x[0].rank - 1];
    const int64_t rows = tl_tensor_size(s->values[0]) / channels;
    s->labels = calloc((size_t)rows, sizeof *s->labels);
    for (int64_t i = 0; s->labels != NULL && i < rows; i++) {
        s->labels[i] = (int32_t)(i % channels);
    }
    return s->labels != NULL &&
           tl_batch_norm_layer_init(&s->norm, s->parameters, "norm",
                                    &(tl_batch_norm_layer_config){.channels = channels},
                                    error) == TL_OK;
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    operation_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->operation = &operations[c->numbers[OPERATION]];
    s->backward = c->numbers[BACKWARD] != 0;
    s->tape = tl_tape_create(context);
    s->parameters = tl_parameters_create(context, error);
    s->profile = tl_profile_create(context, 0, error);
    if (s->tape == NULL || s->parameters == NULL || s->profile == NULL ||
        !create_values(s, c, context, error)) {
        destroy(s);
        return NULL;
    }
    tl_tape_set_profile(s->tape, s->profile);
    return s;
}

static tl_profile_work profiled(const operation_state *s) {
    int count;
    tl_profile_work sum = {0};
    const tl_profile_entry *entries = tl_profile_entries(s->profile, &count);
    for (int i = 0; i < count; i++) {
        const tl_profile_work *work = s->backward ? &entries[i].backward : &entries[i].forward;
        sum.seconds += work->seconds;
        sum.flops += work->flops;
        sum.bytes += work->bytes;
    }
    return sum;
}

static bool run(void *state, tl_error *error) {
    operation_state *s = state;
    tl_tensor *x[MAX_INPUTS] = {NULL};
    s->before = profiled(s);
    for (int i = 0; i < s->operation->inputs; i++) {
        x[i] = tl_input_with_grad(s->tape, &s->x[i]);
    }
    tl_tensor *y = s->operation->apply(s, x);
    (void)tl_backward_from(s->tape, 1, &y, NULL);
    *error = *tl_tape_error(s->tape);
    tl_parameters_clear_grads(s->parameters);
    tl_tape_reset(s->tape);
    s->last = profiled(s);
    return error->status == TL_OK;
}

static bench_account account(void *state) {
    const operation_state *s = state;
    return (bench_account){.seconds = s->last.seconds - s->before.seconds,
                           .flops = s->last.flops - s->before.flops,
                           .bytes = s->last.bytes - s->before.bytes};
}

/* The maps of a ResNet-20 step, and one beyond any cache; but for batch norm the first and the last
 * do. */
static const int64_t image_shapes[][4] = {
    {128, 32, 32, 16}, {128, 16, 16, 32}, {128, 8, 8, 64}, {128, 64, 64, 64}};
enum { IMAGE_SHAPES = sizeof image_shapes / sizeof image_shapes[0] };
static const int64_t row_shapes[][2] = {{128, CLASSES}, {8192, 1000}};
static const int64_t sequence_shapes[][3] = {{1, 4096, 64}, {32, 512, 64}};

static void add_case(bench_list *list, int index, int rank, const int64_t *shape) {
    for (int backward = 0; backward < 2; backward++) {
        bench_case c = {.numbers = {index, backward, rank},
                        .create = create,
                        .run = run,
                        .account = account,
                        .destroy = destroy};
        memcpy(c.numbers + SHAPE, shape, (size_t)rank * sizeof *shape);
        int length = snprintf(c.name, sizeof c.name, "%s/%s/", operations[index].name,
                              backward ? "backward" : "forward");
        for (int i = 0; i < rank; i++) {
            length += snprintf(c.name + length, sizeof c.name - (size_t)length, "%s%d",
                               i > 0 ? "x" : "", (int)shape[i]);
        }
        bench_add(list, &c);
    }
}

void bench_operation_cases(bench_list *list) {
    for (int i = 0; i < OPERATIONS; i++) {
        const operation *o = &operations[i];
        if (o->apply == softmax || o->apply == cross_entropy) {
            for (size_t k = 0; k < sizeof row_shapes / sizeof row_shapes[0]; k++) {
                add_case(list, i, 2, row_shapes[k]);
            }
        } else if (o->inputs == MAX_INPUTS) {
            for (size_t k = 0; k < sizeof sequence_shapes / sizeof sequence_shapes[0]; k++) {
                add_case(list, i, 3, sequence_shapes[k]);
            }
        } else {
            const bool all = strncmp(o->name, "batch_norm", strlen("batch_norm")) == 0;
            for (size_t k = 0; k < IMAGE_SHAPES; k++) {
                if (all || k == 0 || k == IMAGE_SHAPES - 1) {
                    add_case(list, i, 4, image_shapes[k]);
                }
            }
        }
    }
}
