/* Whole networks: names, shapes, seeds, states, threads, memory, and what their mistakes say. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/support.h"

static tl_resnet_cifar_config small_config(void) {
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.depth = 8;
    config.width = 8;
    config.attention = TL_ATTENTION_EFFICIENT;
    config.attention_stages = 1u << 1 | 1u << 2;
    config.heads = 2;
    return config;
}

static tl_model *create(tl_context *context, const tl_resnet_cifar_config *config, uint64_t seed) {
    tl_error error;
    tl_model *model = tl_resnet_cifar_create(context, config, seed, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    return model;
}

START_TEST(parameters_are_named_by_place) {
    tl_context *context = tl_context_create(NULL);
    tl_resnet_cifar_config config = small_config();
    tl_model *model = create(context, &config, 1);
    const tl_parameters *p = tl_model_parameters(model);
    const char *const names[] = {"stem.conv.weight",
                                 "stem.bn.running_var",
                                 "stages.0.blocks.0.bn2.bias",
                                 "stages.1.blocks.0.shortcut.conv.weight",
                                 "stages.1.attention.keys.weight",
                                 "stages.2.attention.reprojection.bias",
                                 "head.weight"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        ck_assert_msg(tl_parameters_find(p, names[i]) != NULL, "%s is missing", names[i]);
    }
    ck_assert_ptr_null(tl_parameters_find(p, "stages.0.attention.keys.weight"));
    ck_assert_ptr_null(tl_parameters_find(p, "stages.0.blocks.0.shortcut.conv.weight"));
    tl_model_free(model);
    config.attention_every_block = true;
    model = create(context, &config, 1);
    ck_assert_ptr_nonnull(tl_parameters_find(tl_model_parameters(model),
                                             "stages.1.blocks.0.attention.queries.weight"));
    tl_model_free(model);
    tl_context_free(context);
}
END_TEST

static void expect_refusal(tl_resnet_cifar_config config, const char *part) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    ck_assert_ptr_null(tl_resnet_cifar_create(context, &config, 1, &error));
    ck_assert_msg(strstr(error.message, part) != NULL, "expected '%s' in '%s'", part,
                  error.message);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}

START_TEST(mistakes_are_explained) {
    tl_resnet_cifar_config config = small_config();
    config.depth = 9;
    expect_refusal(config, "depth must be 6 n + 2");
    config = small_config();
    config.classes = 0;
    expect_refusal(config, "classes must be from 1");
    config = small_config();
    config.heads = 3;
    expect_refusal(config, "heads must divide key_channels and value_channels, found 3 heads");
    config = small_config();
    config.key_channels_divisor = 3;
    expect_refusal(config, "key_channels_divisor 3 must divide");
}
END_TEST

/* Trains `steps` steps on fixed data; returns the last loss. */
static double train(tl_context *context, tl_model *model, int steps, uint64_t *late_allocations) {
    enum { N = 4, SIZE = 9 };
    tl_error error;
    tl_tape *tape = tl_tape_create(context);
    tl_optimizer *sgd =
        tl_sgd_create(tl_model_parameters(model),
                      &(tl_sgd_config){.learning_rate = 0.05, .momentum = 0.9}, &error);
    ck_assert_msg(sgd != NULL, "%s", error.message);
    tl_real *images = random_values(N * SIZE * SIZE * 3, 5, -1, 1);
    const int32_t labels[N] = {1, 0, 3, 2};
    const tl_array array = ARRAY(images, N, SIZE, SIZE, 3);
    double last = 0;
    uint64_t before = 0;
    for (int step = 0; step < steps; step++) {
        tl_tensor *logits = tl_model_forward(model, tape, tl_input(tape, &array));
        tl_tensor *loss = tl_cross_entropy(tape, logits, labels, NULL);
        ck_assert_msg(tl_backward(tape, loss) == TL_OK, "%s", tl_tape_error(tape)->message);
        last = (double)tl_tensor_item(loss);
        ck_assert_int_eq(tl_optimizer_step(sgd), TL_OK);
        tl_tape_reset(tape);
        if (step == 0) {
            before = tl_context_memory(context).allocations;
        }
    }
    if (late_allocations != NULL) {
        *late_allocations = tl_context_memory(context).allocations - before;
    }
    free(images);
    tl_optimizer_free(sgd);
    tl_tape_free(tape);
    return last;
}

START_TEST(a_network_learns_and_allocates_once) {
    tl_context *context = context_with(2, NULL);
    const tl_resnet_cifar_config config = small_config();
    tl_model *model = create(context, &config, 3);
    uint64_t allocations;
    const double loss = train(context, model, 30, &allocations);
    ck_assert_msg(loss < 0.1, "four images should be learned by heart, loss %g", loss);
    ck_assert_uint_eq(allocations, 0);
    tl_model_free(model);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}
END_TEST

START_TEST(threads_do_not_change_bits) {
    const tl_resnet_cifar_config config = small_config();
    tl_real *first = NULL;
    int64_t size = 0;
    for (int threads = 1; threads <= 3; threads++) {
        tl_context *context = context_with(threads, NULL);
        tl_model *model = create(context, &config, 7);
        (void)train(context, model, 3, NULL);
        tl_tensor *weight = tl_parameters_find(tl_model_parameters(model), "stem.conv.weight");
        size = tl_tensor_size(weight);
        if (first == NULL) {
            first = malloc((size_t)size * sizeof *first);
            ck_assert_ptr_nonnull(first);
            memcpy(first, tl_tensor_data(weight), (size_t)size * sizeof *first);
        }
        assert_same_bits("stem.conv.weight", size, first, tl_tensor_data(weight));
        tl_model_free(model);
        tl_context_free(context);
    }
    free(first);
}
END_TEST

/* A copy of the state without one of its values. */
static tl_state *state_without(tl_context *context, const tl_state *state, const char *path) {
    tl_state *copy = tl_state_create(context, NULL);
    for (int i = 0; i < tl_state_count(state); i++) {
        const tl_state_entry e = tl_state_at(state, i);
        tl_status status = TL_OK;
        if (strcmp(e.path, path) == 0) {
            continue;
        }
        if (e.kind == TL_STATE_ARRAY) {
            status = tl_state_put_array(copy, e.path, &e.array, NULL);
        } else if (e.kind == TL_STATE_INTEGER) {
            status = tl_state_put_integer(copy, e.path, e.integer, NULL);
        } else if (e.kind == TL_STATE_NUMBER) {
            status = tl_state_put_number(copy, e.path, e.number, NULL);
        } else {
            status = tl_state_put_string(copy, e.path, e.string, NULL);
        }
        ck_assert_int_eq(status, TL_OK);
    }
    ck_assert_int_eq(tl_state_count(copy), tl_state_count(state) - 1);
    return copy;
}

/* What older versions did not write has the value it had then; all else must be there. */
START_TEST(states_of_older_versions) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    const tl_resnet_cifar_config config = small_config();
    tl_model *model = create(context, &config, 11);
    tl_state *state = tl_state_create(context, &error);
    ck_assert_int_eq(tl_model_save_state(model, state, &error), TL_OK);
    tl_state *older = state_without(context, state, "model/use_scale");
    tl_model *copy = tl_model_create_from_state(context, older, &error);
    ck_assert_msg(copy != NULL, "%s", error.message);
    ck_assert_int_eq(tl_model_require_same_config(model, copy, &error), TL_OK);
    tl_state *damaged = state_without(context, state, "model/heads");
    ck_assert_ptr_null(tl_model_create_from_state(context, damaged, &error));
    assert_error(&error, TL_ERROR_FORMAT, "model/heads");
    tl_state_free(damaged);
    tl_model_free(copy);
    tl_state_free(older);
    tl_state_free(state);
    tl_model_free(model);
    tl_context_free(context);
}
END_TEST

START_TEST(a_state_brings_a_model_back) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    const tl_resnet_cifar_config config = small_config();
    tl_model *model = create(context, &config, 11);
    tl_state *state = tl_state_create(context, &error);
    ck_assert_int_eq(tl_model_save_state(model, state, &error), TL_OK);
    tl_model *copy = tl_model_create_from_state(context, state, &error);
    ck_assert_msg(copy != NULL, "%s", error.message);
    ck_assert_int_eq(tl_model_require_same_config(model, copy, &error), TL_OK);
    const tl_parameters *a = tl_model_parameters(model);
    const tl_parameters *b = tl_model_parameters(copy);
    ck_assert_int_eq(tl_parameters_count(a), tl_parameters_count(b));
    for (int i = 0; i < tl_parameters_count(a); i++) {
        const tl_parameter p = tl_parameters_at(a, i);
        tl_tensor *other = tl_parameters_find(b, p.name);
        ck_assert_ptr_nonnull(other);
        assert_same_bits(p.name, tl_tensor_size(p.tensor), tl_tensor_data(p.tensor),
                         tl_tensor_data(other));
    }
    tl_resnet_cifar_config deeper = config;
    deeper.depth = 14;
    tl_model *other = create(context, &deeper, 11);
    ck_assert_int_ne(tl_model_require_same_config(model, other, &error), TL_OK);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "depth: expected 8, found 14");
    tl_model_free(other);
    tl_model_free(copy);
    tl_state_free(state);
    tl_model_free(model);
    tl_context_free(context);
}
END_TEST

START_TEST(local_networks_classify_and_segment) {
    tl_context *context = tl_context_create(NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_error error;
    tl_local_resnet_config config = tl_local_resnet_config_default();
    config.width = 8;
    config.attention = TL_ATTENTION_EFFICIENT;
    config.attention_blocks = 1u << 1;
    tl_real *images = random_values(2 * 12 * 10 * 3, 5, -1, 1);
    const tl_array array = ARRAY(images, 2, 12, 10, 3);
    for (int dense = 0; dense < 2; dense++) {
        config.dense = dense == 1;
        tl_model *model = tl_local_resnet_create(context, &config, 1, &error);
        ck_assert_msg(model != NULL, "%s", error.message);
        tl_tensor *logits = tl_model_forward(model, tape, tl_input(tape, &array));
        ck_assert_msg(logits != NULL, "%s", tl_tape_error(tape)->message);
        ck_assert_int_eq(tl_tensor_rank(logits), dense == 1 ? 4 : 2);
        ck_assert_int_eq(tl_tensor_size(logits), dense == 1 ? 2 * 12 * 10 * 10 : 2 * 10);
        tl_tape_reset(tape);
        tl_model_free(model);
    }
    config.attention_blocks = 1u << 2;
    ck_assert_ptr_null(tl_local_resnet_create(context, &config, 1, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "beyond the last, 1");
    free(images);
    tl_tape_free(tape);
    tl_context_free(context);
}
END_TEST

/* A pair in, a disparity per pixel out; the state brings it back; mistakes are explained. */
START_TEST(stereo_networks_give_disparities) {
    tl_context *context = tl_context_create(NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_error error;
    tl_stereo_net_config config = tl_stereo_net_config_default();
    config.max_disparity = 12;
    config.width = 8;
    config.groups = 4;
    config.volume_width = 4;
    config.attention = TL_ATTENTION_EFFICIENT;
    config.attention_places = 1u << TL_STEREO_NET_FEATURES | 1u << TL_STEREO_NET_VOLUME;
    tl_model *model = tl_stereo_net_create(context, &config, 1, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    tl_state *state = tl_state_create(context, &error);
    ck_assert_int_eq(tl_model_save_state(model, state, &error), TL_OK);
    tl_model *copy = tl_model_create_from_state(context, state, &error);
    ck_assert_msg(copy != NULL, "%s", error.message);
    tl_real *images = random_values(2 * 8 * 24 * 6, 5, -1, 1);
    const tl_array array = ARRAY(images, 2, 8, 24, 6);
    tl_tape_set_training(tape, false);
    tl_tensor *y = tl_model_forward(model, tape, tl_input(tape, &array));
    tl_tensor *again = tl_model_forward(copy, tape, tl_input(tape, &array));
    ck_assert_msg(y != NULL, "%s", tl_tape_error(tape)->message);
    ck_assert_int_eq(tl_tensor_rank(y), 3);
    ck_assert_int_eq(tl_tensor_size(y), 2 * 8 * 24);
    assert_same_bits("copy", tl_tensor_size(y), tl_tensor_data(y), tl_tensor_data(again));
    for (int64_t i = 0; i < tl_tensor_size(y); i++) {
        ck_assert(tl_tensor_data(y)[i] > 0 && tl_tensor_data(y)[i] < 8);
    }
    config.max_disparity = 14;
    ck_assert_ptr_null(tl_stereo_net_create(context, &config, 1, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "a multiple of 4, found 14");
    config.max_disparity = 12;
    config.groups = 3;
    ck_assert_ptr_null(tl_stereo_net_create(context, &config, 1, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "a multiple of groups, found 8 and 3");
    free(images);
    tl_state_free(state);
    tl_model_free(copy);
    tl_model_free(model);
    tl_tape_free(tape);
    tl_context_free(context);
}
END_TEST

typedef struct visits {
    int count;
    char names[4][TL_NAME_SIZE];
    double worst; /* how far the sums of maps are from 1 */
} visits;

/* Sums channel or head `a` of [1, positions, width] over the positions. */
static void check_sums(visits *v, tl_tensor *map, int64_t width, int64_t stride) {
    const tl_real *values = tl_tensor_data(map);
    const int64_t positions = tl_tensor_size(map) / width;
    for (int64_t a = 0; a < width; a++) {
        double sum = 0;
        for (int64_t i = 0; i < positions; i++) {
            sum += (double)values[stride == 1 ? a * positions + i : i * stride + a];
        }
        v->worst = fmax(v->worst, fabs(sum - 1));
    }
}

static void visit(void *user, tl_tape *tape, const tl_attention_site *site) {
    visits *v = user;
    strcpy(v->names[v->count++], site->name);
    if (site->kind == TL_ATTENTION_EFFICIENT) {
        ck_assert_ptr_null(site->non_local);
        const int64_t keys = site->efficient->config.key_channels;
        check_sums(v,
                   tl_efficient_attention_maps(tape, site->x, &site->efficient->weights,
                                               &site->efficient->config),
                   keys, keys);
        return;
    }
    ck_assert_ptr_null(site->efficient);
    check_sums(
        v, tl_non_local_map(tape, site->x, &site->non_local->weights, &site->non_local->config, 3),
        site->non_local->config.heads, 1);
}

/* Every module is seen, with its input, and the prediction stays what it is. */
START_TEST(attention_can_be_watched) {
    enum { SIZE = 9 };
    tl_context *context = context_with(2, NULL);
    tl_resnet_cifar_config config = small_config();
    config.attention = _i == 0 ? TL_ATTENTION_EFFICIENT : TL_ATTENTION_NON_LOCAL;
    tl_model *model = create(context, &config, 1);
    tl_tape *tape = tl_tape_create(context);
    tl_tape_set_recording(tape, false);
    tl_tape_set_training(tape, false);
    tl_real *image = random_values(SIZE * SIZE * 3, 5, -1, 1);
    const tl_array array = ARRAY(image, 1, SIZE, SIZE, 3);
    tl_tensor *plain = tl_model_forward(model, tape, tl_input(tape, &array));
    visits seen = {0};
    tl_tensor *watched =
        tl_model_visit_attention(model, tape, tl_input(tape, &array), visit, &seen);
    ck_assert_msg(watched != NULL, "%s", tl_tape_error(tape)->message);
    assert_same_bits("watched", 10, tl_tensor_data(plain), tl_tensor_data(watched));
    ck_assert_int_eq(seen.count, 2);
    ck_assert_str_eq(seen.names[0], "stages.1.attention");
    ck_assert_str_eq(seen.names[1], "stages.2.attention");
    ck_assert_msg(seen.worst < 1e-5, "sums differ from 1 by %g", seen.worst);
    ck_assert_ptr_nonnull(tl_model_forward(model, tape, tl_input(tape, &array)));
    ck_assert_int_eq(seen.count, 2);
    free(image);
    tl_tape_free(tape);
    tl_model_free(model);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("models", &test_case);
    tcase_add_test(test_case, parameters_are_named_by_place);
    tcase_add_test(test_case, mistakes_are_explained);
    tcase_add_test(test_case, a_network_learns_and_allocates_once);
    tcase_add_test(test_case, threads_do_not_change_bits);
    tcase_add_test(test_case, a_state_brings_a_model_back);
    tcase_add_test(test_case, states_of_older_versions);
    tcase_add_test(test_case, local_networks_classify_and_segment);
    tcase_add_test(test_case, stereo_networks_give_disparities);
    tcase_add_loop_test(test_case, attention_can_be_watched, 0, 2);
    return run_suite(suite);
}
