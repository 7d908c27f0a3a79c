/* Values that are made where they are read (tl_parts): a convolution that makes its input and the
 * gradient of its result from the batch norms around it gives the bits that it gives where both are
 * tensors, in all the graphs where somebody else reads or adds to either. Results that were left
 * unmade can be read at any time, and steps that fail leak nothing. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "core/op.h"
#include "support/failing_allocator.h"

enum { BATCH = 64, EXTENT = 12, CHANNELS = 16, PARAMETERS = 8 };
enum { SIZE = BATCH * EXTENT * EXTENT * CHANNELS };

typedef struct network {
    tl_tensor *weight[2]; /* of convolutions */
    tl_tensor *gain[3];
    tl_tensor *bias[3];
} network;

typedef tl_tensor *(*build_function)(tl_tape *tape, const network *n, tl_tensor *x, bool release);

static const tl_conv2d_config same = {.padding = {1, 1}};

static tl_tensor *conv(tl_tape *tape, const network *n, int i, tl_tensor *x) {
    return tl_conv2d(tape, x, n->weight[i], NULL, &same);
}

static tl_tensor *norm_relu(tl_tape *tape, const network *n, int i, tl_tensor *x,
                            tl_tensor *residual) {
    return tl_batch_norm_relu(tape, x, residual, n->gain[i], n->bias[i], NULL, NULL, NULL);
}

static void release_if(bool release, tl_tape *tape, tl_tensor *tensor) {
    if (release) {
        tl_release(tape, tensor);
    }
}

/* relu(bn(conv(relu(bn(conv(h))))) + h) with h = relu(bn(x)) */
static tl_tensor *residual_block(tl_tape *tape, const network *n, tl_tensor *x, bool release) {
    tl_tensor *h = norm_relu(tape, n, 2, x, NULL);
    tl_tensor *a = conv(tape, n, 0, h);
    tl_tensor *b = norm_relu(tape, n, 0, a, NULL);
    tl_tensor *c = conv(tape, n, 1, b);
    tl_tensor *y = norm_relu(tape, n, 1, c, h);
    tl_tensor *const inner[] = {h, a, b, c};
    for (int i = 0; i < 4; i++) {
        release_if(release, tape, inner[i]);
    }
    return y;
}

/* The residual is the convolution's own input: it adds to the gradient that it reads. */
static tl_tensor *residual_of_one(tl_tape *tape, const network *n, tl_tensor *x, bool release) {
    tl_tensor *h = tl_relu(tape, x);
    tl_tensor *a = conv(tape, n, 0, h);
    tl_tensor *y = norm_relu(tape, n, 0, a, h);
    release_if(release, tape, h);
    release_if(release, tape, a);
    return y;
}

/* Batch norm without a ReLU, into a second convolution. */
static tl_tensor *plain_norms(tl_tape *tape, const network *n, tl_tensor *x, bool release) {
    tl_tensor *a = conv(tape, n, 0, x);
    tl_tensor *b = tl_batch_norm(tape, a, n->gain[0], n->bias[0], NULL, NULL, NULL);
    tl_tensor *c = conv(tape, n, 1, b);
    tl_tensor *y = tl_batch_norm(tape, c, n->gain[1], n->bias[1], NULL, NULL, NULL);
    tl_tensor *const inner[] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        release_if(release, tape, inner[i]);
    }
    return y;
}

/* The convolution's result has another reader before the batch norm, whose gradient comes later. */
static tl_tensor *reader_before(tl_tape *tape, const network *n, tl_tensor *x, bool release) {
    tl_tensor *a = conv(tape, n, 0, x);
    tl_tensor *other = tl_relu(tape, a);
    tl_tensor *b = norm_relu(tape, n, 0, a, NULL);
    release_if(release, tape, a);
    return tl_add(tape, b, other);
}

/* ... and after it, whose gradient is there first. */
static tl_tensor *reader_after(tl_tape *tape, const network *n, tl_tensor *x, bool release) {
    tl_tensor *a = conv(tape, n, 0, x);
    tl_tensor *b = norm_relu(tape, n, 0, a, NULL);
    tl_tensor *other = tl_relu(tape, a);
    release_if(release, tape, a);
    return tl_add(tape, b, other);
}

/* The residual has gradients from elsewhere before the norm hands its own over. */
static tl_tensor *residual_read_later(tl_tape *tape, const network *n, tl_tensor *x, bool release) {
    tl_tensor *h = norm_relu(tape, n, 2, x, NULL);
    tl_tensor *a = conv(tape, n, 0, h);
    tl_tensor *b = norm_relu(tape, n, 0, a, h);
    tl_tensor *y = tl_add(tape, b, tl_mul(tape, h, h));
    release_if(release, tape, h);
    release_if(release, tape, a);
    return y;
}

/* The result of the inner norm has two readers, so that it is brought back whole. */
static tl_tensor *two_readers(tl_tape *tape, const network *n, tl_tensor *x, bool release) {
    tl_tensor *h = norm_relu(tape, n, 2, x, NULL);
    tl_tensor *a = conv(tape, n, 0, h);
    tl_tensor *b = conv(tape, n, 1, h);
    tl_tensor *d = norm_relu(tape, n, 1, b, NULL);
    tl_tensor *c = norm_relu(tape, n, 0, a, NULL);
    tl_tensor *y = tl_add(tape, c, d);
    tl_tensor *const inner[] = {h, a, b};
    for (int i = 0; i < 3; i++) {
        release_if(release, tape, inner[i]);
    }
    return y;
}

/* Somebody keeps the gradients of the convolution's result and of the norm's. */
static tl_tensor *kept_gradients(tl_tape *tape, const network *n, tl_tensor *x, bool release) {
    tl_tensor *h = norm_relu(tape, n, 2, x, NULL);
    tl_tensor *a = conv(tape, n, 0, h);
    tl_retain_grad(tape, a);
    tl_tensor *b = norm_relu(tape, n, 0, a, NULL);
    tl_tensor *c = conv(tape, n, 1, b);
    tl_tensor *y = norm_relu(tape, n, 1, c, h);
    tl_retain_grad(tape, y);
    release_if(release, tape, h);
    return y;
}

typedef struct graph {
    const char *name;
    build_function build;
    int deferred; /* batch norms that leave the gradient of x to the convolution */
    int made;     /* convolutions that make their input again in parts, once it is released */
} graph;

static const graph graphs[] = {
    {"residual block", residual_block, 2, 2}, {"residual of one", residual_of_one, 1, 0},
    {"plain norms", plain_norms, 2, 1},       {"reader before", reader_before, 0, 0},
    {"reader after", reader_after, 0, 0},     {"residual read later", residual_read_later, 0, 0},
    {"two readers", two_readers, 1, 0},       {"kept gradients", kept_gradients, 0, 1},
};
enum { GRAPHS = sizeof graphs / sizeof graphs[0] };

static tl_tensor *parameter(tl_context *context, int rank, const int64_t *shape, uint64_t seed,
                            double low, double high) {
    tl_tensor *tensor = tl_tensor_create(context, rank, shape, true, NULL);
    if (tensor != NULL) {
        fill_uniform(tl_tensor_data(tensor), tl_tensor_size(tensor), seed, low, high);
    }
    return tensor;
}

static void parameters_of(const network *n, tl_tensor *all[PARAMETERS]) {
    for (int i = 0; i < 2; i++) {
        all[i] = n->weight[i];
    }
    for (int i = 0; i < 3; i++) {
        all[2 + i] = n->gain[i];
        all[5 + i] = n->bias[i];
    }
}

static network make_network(tl_context *context) {
    const int64_t channels = CHANNELS;
    network n;
    for (int i = 0; i < 2; i++) {
        n.weight[i] = parameter(context, 4, (int64_t[]){CHANNELS, 3, 3, CHANNELS},
                                (uint64_t)(10 + i), -0.2, 0.2);
    }
    for (int i = 0; i < 3; i++) {
        n.gain[i] = parameter(context, 1, &channels, (uint64_t)(20 + i), 0.5, 1.5);
        n.bias[i] = parameter(context, 1, &channels, (uint64_t)(30 + i), -0.5, 0.5);
    }
    return n;
}

typedef struct options {
    const char *isa;
    int threads;
    bool release;
    bool check_finite; /* then nothing is deferred */
} options;

typedef struct outcome {
    tl_real *gradients; /* x's, then the parameters' */
    int64_t size;
    int deferred;
    int made;
    int fused;
} outcome;

/* Nodes are still there after the backward pass: what they did is told by their fields. */
static void count_nodes(tl_node *const *nodes, int count, outcome *o) {
    for (int i = 0; i < count; i++) {
        o->deferred += nodes[i]->grad_parts.make != NULL;
        o->made += nodes[i]->parts_maker != NULL;
        o->fused += nodes[i]->reads_parts;
    }
}

static outcome run(const graph *g, const tl_real *values, options with) {
    tl_context *context = context_with(with.threads, with.isa);
    network n = make_network(context);
    tl_tape *tape = tl_tape_create(context);
    tl_tape_set_check_finite(tape, with.check_finite);
    tl_real *x_values = malloc(SIZE * sizeof *x_values);
    memcpy(x_values, values, SIZE * sizeof *x_values);
    tl_tensor *x =
        tl_input_with_grad(tape, ARRAY_POINTER(x_values, BATCH, EXTENT, EXTENT, CHANNELS));
    tl_tensor *y = g->build(tape, &n, x, with.release);
    tl_tensor *loss = tl_mean(tape, tl_mul(tape, y, y), 0, NULL, false);
    tl_node *nodes[32];
    int count = 0;
    for (tl_node *node = tape->last_node; node != NULL && count < 32; node = node->previous) {
        nodes[count++] = node;
    }
    ck_assert_msg(tl_backward(tape, loss) == TL_OK, "%s: %s", g->name,
                  tl_tape_error(tape)->message);
    tl_tensor *all[PARAMETERS];
    parameters_of(&n, all);
    outcome o = {.size = SIZE};
    for (int i = 0; i < PARAMETERS; i++) {
        o.size += tl_tensor_size(all[i]);
    }
    o.gradients = calloc((size_t)o.size, sizeof *o.gradients);
    memcpy(o.gradients, tl_tensor_grad(x), SIZE * sizeof *o.gradients);
    int64_t at = SIZE;
    for (int i = 0; i < PARAMETERS; i++) {
        if (tl_tensor_grad(all[i]) != NULL) { /* not every graph uses all */
            memcpy(o.gradients + at, tl_tensor_grad(all[i]),
                   (size_t)tl_tensor_size(all[i]) * sizeof *o.gradients);
        }
        at += tl_tensor_size(all[i]);
    }
    count_nodes(nodes, count, &o);
    tl_tape_free(tape);
    for (int i = 0; i < PARAMETERS; i++) {
        tl_tensor_free(all[i]);
    }
    tl_context_free(context);
    free(x_values);
    return o;
}

START_TEST(bits_are_those_of_whole_tensors) {
    const graph *g = &graphs[_i];
    tl_real *values = random_values(SIZE, 1, -1, 1);
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        const outcome whole = run(g, values, (options){all_isas[isa], 1, false, true});
        ck_assert_int_gt(whole.fused, 0);
        ck_assert_int_eq(whole.deferred + whole.made, 0);
        for (int threads = 1; threads <= 3; threads++) {
            for (int release = 0; release < 2; release++) {
                const outcome o =
                    run(g, values, (options){all_isas[isa], threads, release != 0, false});
                assert_same_bits(g->name, o.size, o.gradients, whole.gradients);
                ck_assert_msg(o.deferred == g->deferred && o.made == (release ? g->made : 0),
                              "%s: %d gradients deferred, %d inputs made", g->name, o.deferred,
                              o.made);
                free(o.gradients);
            }
        }
        free(whole.gradients);
    }
    free(values);
}
END_TEST

/* h = bn(x) is left unmade: read it before anybody else does, after a convolution has, after the
 * backward pass, and where no gradient flows through it. */
static void read_result(const char *what, tl_tensor *h, const tl_real *want) {
    const tl_real *got = tl_tensor_data(h);
    ck_assert_msg(got != NULL, "%s: not there", what);
    assert_same_bits(what, SIZE, got, want);
}

START_TEST(unmade_results_can_be_read) {
    tl_real *values = random_values(SIZE, 1, -1, 1);
    tl_real *want = malloc(SIZE * sizeof *want);
    tl_context *context = context_with(2, NULL);
    network n = make_network(context);
    tl_tape *tape = tl_tape_create(context);
    for (int when = -1; when < 5; when++) { /* at first: where nothing is left unmade */
        tl_tape_set_check_finite(tape, when < 0);
        tl_tensor *x =
            tl_input_with_grad(tape, ARRAY_POINTER(values, BATCH, EXTENT, EXTENT, CHANNELS));
        tl_tensor *h = norm_relu(tape, &n, 0, x, NULL);
        ck_assert_msg((h->storage->data == NULL) == (when >= 0), "%d", when);
        if (when == 0) {
            read_result("at once", h, want);
        }
        tl_tensor *view = when == 1 ? tl_reshape(tape, h, 1, (int64_t[]){SIZE}) : NULL;
        tl_tensor *y = conv(tape, &n, 0, h);
        ck_assert((h->storage->data == NULL) == (when > 1));
        if (when == 1) {
            read_result("a view", view, want);
        } else if (when == 2) {
            read_result("after a convolution", h, want);
        }
        tl_tensor *loss = tl_mean(tape, when == 4 ? tl_mul(tape, x, x) : y, 0, NULL, false);
        ck_assert_int_eq(tl_backward(tape, loss), TL_OK);
        if (when < 0) {
            memcpy(want, tl_tensor_data(h), SIZE * sizeof *want);
        }
        read_result("after the backward pass", h, want);
        tl_tape_reset(tape);
    }
    tl_tape_free(tape);
    tl_tensor *all[PARAMETERS];
    parameters_of(&n, all);
    for (int i = 0; i < PARAMETERS; i++) {
        tl_tensor_free(all[i]);
    }
    tl_context_free(context);
    free(values);
    free(want);
}
END_TEST

/* One step; false if memory failed. */
static bool step(tl_context *context, tl_real *values) {
    network n = make_network(context);
    tl_tape *tape = tl_tape_create(context);
    bool done = false;
    if (tape != NULL) {
        tl_tensor *x =
            tl_input_with_grad(tape, ARRAY_POINTER(values, BATCH, EXTENT, EXTENT, CHANNELS));
        tl_tensor *y = residual_block(tape, &n, x, true);
        tl_tensor *loss = tl_mean(tape, tl_mul(tape, y, y), 0, NULL, false);
        done = tl_backward(tape, loss) == TL_OK;
        ck_assert(done || tl_tape_status(tape) == TL_ERROR_OUT_OF_MEMORY ||
                  tl_tape_status(tape) == TL_ERROR_INVALID_ARGUMENT); /* a parameter is missing */
    }
    tl_tape_free(tape);
    tl_tensor *all[PARAMETERS];
    parameters_of(&n, all);
    for (int i = 0; i < PARAMETERS; i++) {
        tl_tensor_free(all[i]);
    }
    return done;
}

START_TEST(failing_allocations_leak_nothing) {
    tl_real *values = random_values(SIZE, 1, -1, 1);
    bool done = false;
    for (int64_t k = 1; !done; k++) {
        failing_allocator allocator = {0};
        tl_context *context = tl_context_create(
            &(tl_context_config){.threads = 2, .allocator = failing_allocator_with(&allocator)});
        ck_assert_ptr_nonnull(context);
        allocator.fail_at = allocator.calls + k;
        done = step(context, values);
        tl_context_free(context);
        ck_assert_msg(allocator.live == 0 && allocator.bytes == 0,
                      "%lld blocks leak when allocation %lld fails", (long long)allocator.live,
                      (long long)k);
    }
    free(values);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("parts", &test_case);
    tcase_add_loop_test(test_case, bits_are_those_of_whole_tensors, 0, GRAPHS);
    tcase_add_test(test_case, unmade_results_can_be_read);
    tcase_add_test(test_case, failing_allocations_leak_nothing);
    return run_suite(suite);
}
