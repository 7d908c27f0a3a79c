/* Run by mpirun -n 2 or more: what the ranks exchange. A reference is computed by every rank alone.
 * An assertion that fails on one rank may leave the others waiting: the test then times out. */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PART = 4, SIDE = 8, IMAGE = SIDE * SIDE * 3, CLASSES = 5 };

static tl_parallel *parallel;
static tl_context *context;
static tl_error error;
static int rank, ranks;

static tl_model *create_model(void) {
    tl_local_resnet_config config = tl_local_resnet_config_default();
    config.input_channels = 3;
    config.classes = CLASSES;
    config.blocks = 2;
    config.width = 48; /* more than a bucket of gradients */
    config.attention = TL_ATTENTION_EFFICIENT;
    config.attention_blocks = 2;
    tl_model *model = tl_local_resnet_create(context, &config, 7, &error);
    ck_assert_msg(model != NULL, "%s", error.message);
    return model;
}

static tl_tensor *loss_of(tl_model *model, tl_tape *tape, tl_real *images, const int32_t *labels,
                          int64_t count) {
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(images, count, SIDE, SIDE, 3));
    return tl_cross_entropy(tape, tl_model_forward(model, tape, x), labels, NULL);
}

static void compare(tl_model *got, tl_model *want, bool gradients) {
    tl_parameters *a = tl_model_parameters(got);
    tl_parameters *b = tl_model_parameters(want);
    double largest = 0;
    for (int i = 0; i < tl_parameters_count(a); i++) {
        const tl_parameter p = tl_parameters_at(a, i);
        const bool is_buffer = p.group == TL_GROUP_BUFFER;
        if (is_buffer == gradients) {
            continue;
        }
        const int64_t size = tl_tensor_size(p.tensor);
        tl_tensor *other = tl_parameters_at(b, i).tensor;
        const tl_real *values = is_buffer ? tl_tensor_data(p.tensor) : tl_tensor_grad(p.tensor);
        const tl_real *wanted = is_buffer ? tl_tensor_data(other) : tl_tensor_grad(other);
        ck_assert_ptr_nonnull(values);
        double *reference = malloc((size_t)size * sizeof *reference);
        for (int64_t k = 0; k < size; k++) {
            reference[k] = (double)wanted[k];
            largest = reference[k] > largest ? reference[k] : largest;
        }
        /* some gradients are zero but for rounding */
        assert_close(p.name, size, values, reference, 1e-4, 1e-6);
        free(reference);
    }
    ck_assert(largest > 1e-3);
}

/* `passes` backward passes, of which the last exchanges what they all added up. */
static void check_backward(int passes) {
    const int64_t whole = (int64_t)PART * ranks;
    tl_real *images = random_values(whole * IMAGE, 3, -1, 1);
    int32_t labels[64 * PART];
    ck_assert_int_le(whole, 64 * PART);
    for (int64_t i = 0; i < whole; i++) {
        labels[i] = (int32_t)(i * 3 % CLASSES);
    }
    tl_model *alone = create_model();
    tl_model *together = create_model();
    tl_tape *tape = tl_tape_create(context);
    for (int i = 0; i < passes; i++) {
        tl_tape_reset(tape);
        ck_assert_int_eq(tl_backward(tape, loss_of(alone, tape, images, labels, whole)), TL_OK);
    }
    for (int i = 0; i < passes; i++) {
        tl_tape_reset(tape);
        tl_parallel_attach(parallel, tape, true);
        tl_tensor *loss = loss_of(together, tape, images + (int64_t)rank * PART * IMAGE,
                                  labels + (int64_t)rank * PART, PART);
        ck_assert_int_eq(
            i < passes - 1
                ? tl_backward(tape, loss)
                : tl_parallel_backward(parallel, tape, loss, tl_model_parameters(together), &error),
            TL_OK);
    }
    compare(together, alone, true);
    compare(together, alone, false);
    ck_assert_int_eq(tl_parallel_check_equal(parallel, tl_model_parameters(together), &error),
                     TL_OK);
    tl_tape_free(tape);
    tl_model_free(alone);
    tl_model_free(together);
    free(images);
}

START_TEST(gradients_are_those_of_the_whole_batch) {
    check_backward(1 + _i);
}
END_TEST

/* What the last pass does not touch is averaged as well; frozen parameters are not; a second step
 * takes no memory. */
START_TEST(gradients_of_an_earlier_pass_are_averaged) {
    tl_tape *tape = tl_tape_create(context);
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_tensor *t[3];
    for (int i = 0; i < 3; i++) {
        t[i] = tl_parameters_add(parameters, NULL, (const char *[]){"a", "b", "c"}[i],
                                 TL_GROUP_WEIGHT, "n", 1, (int64_t[]){1}, &error);
        tl_tensor_data(t[i])[0] = (tl_real)(rank + 1 + i);
    }
    tl_tensor_set_requires_grad(t[2], false);
    const tl_real mean_rank = (tl_real)(ranks - 1) / 2;
    uint64_t allocations = 0;
    for (int step = 0; step < 3; step++) {
        ck_assert_int_eq(tl_backward(tape, tl_mul(tape, t[0], t[0])), TL_OK);
        tl_tape_reset(tape);
        tl_tensor *loss = tl_mul(tape, t[1], tl_mul(tape, t[1], t[2]));
        ck_assert_int_eq(tl_parallel_backward(parallel, tape, loss, parameters, &error), TL_OK);
        ck_assert(tl_tensor_grad(t[0])[0] == 2 * (mean_rank + 1));
        tl_real wanted = 0;
        for (int r = 0; r < ranks; r++) {
            wanted += (tl_real)(2 * (r + 2) * (r + 3));
        }
        ck_assert(tl_tensor_grad(t[1])[0] == wanted / (tl_real)ranks);
        ck_assert_ptr_null(tl_tensor_grad(t[2]));
        tl_parameters_clear_grads(parameters);
        tl_tape_reset(tape);
        const uint64_t now = tl_context_memory(context).allocations;
        ck_assert(step < 2 || now == allocations);
        allocations = now;
    }
    tl_tape_free(tape);
    tl_parameters_free(parameters);
}
END_TEST

START_TEST(sums_and_buffers) {
    double values[3] = {1, rank, 0.5};
    ck_assert_int_eq(tl_parallel_sum(parallel, values, 3, &error), TL_OK);
    ck_assert(values[0] == ranks);
    ck_assert(values[1] == ranks * (ranks - 1) / 2);
    ck_assert(values[2] == 0.5 * ranks);
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_tensor *weight = tl_parameters_add(parameters, NULL, "weight", TL_GROUP_WEIGHT, "n", 1,
                                          (int64_t[]){2}, &error);
    tl_tensor *mean = tl_parameters_add(parameters, NULL, "running_mean", TL_GROUP_BUFFER, "n", 1,
                                        (int64_t[]){2}, &error);
    tl_tensor_data(weight)[0] = 1;
    tl_tensor_data(mean)[1] = (tl_real)rank;
    ck_assert_int_eq(tl_parallel_check_equal(parallel, parameters, &error), TL_ERROR_STATE);
    assert_error(&error, TL_ERROR_STATE, "running_mean: expected the same values on all");
    ck_assert_int_eq(tl_parallel_average_buffers(parallel, parameters, &error), TL_OK);
    ck_assert(tl_tensor_data(mean)[1] == (tl_real)(ranks - 1) / 2);
    ck_assert(tl_tensor_data(weight)[0] == 1);
    ck_assert_int_eq(tl_parallel_check_equal(parallel, parameters, &error), TL_OK);
    tl_tensor_data(weight)[1] = rank == ranks - 1 ? 1e-30f : 0;
    ck_assert_int_eq(tl_parallel_check_equal(parallel, parameters, &error), TL_ERROR_STATE);
    assert_error(&error, TL_ERROR_STATE, "weight: ");
    assert_error(&error, TL_ERROR_STATE, "others than rank 0's on 1");
    tl_parameters_free(parameters);
}
END_TEST

/* A rank's failed allocation is its own error, and takes nothing along. */
START_TEST(out_of_memory_is_an_error) {
    tl_context *small = tl_context_create(NULL);
    tl_parameters *parameters = tl_parameters_create(small, &error);
    ck_assert_ptr_nonnull(tl_parameters_add(parameters, NULL, "weight", TL_GROUP_WEIGHT, "n", 1,
                                            (int64_t[]){1000}, &error));
    const size_t before = tl_context_memory(small).current;
    tl_context_set_memory_limit(small, before + 2000);
    ck_assert_int_eq(tl_parallel_check_equal(parallel, parameters, &error), TL_ERROR_OUT_OF_MEMORY);
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "what the ranks exchange");
    ck_assert_uint_eq(tl_context_memory(small).current, before);
    tl_parameters_free(parameters);
    tl_context_free(small);
}
END_TEST

int main(void) {
    parallel = tl_parallel_create(&error);
    if (parallel == NULL || tl_parallel_ranks(parallel) < 2) {
        (void)fprintf(stderr, "wants mpirun -n 2 or more: %s\n", error.message);
        return 1;
    }
    rank = tl_parallel_rank(parallel);
    ranks = tl_parallel_ranks(parallel);
    context = tl_context_create(&(tl_context_config){.threads = 1});
    TCase *test_case;
    Suite *suite = suite_with_case("ranks", &test_case);
    tcase_add_loop_test(test_case, gradients_are_those_of_the_whole_batch, 0, 2);
    tcase_add_test(test_case, gradients_of_an_earlier_pass_are_averaged);
    tcase_add_test(test_case, out_of_memory_is_an_error);
    tcase_add_test(test_case, sums_and_buffers);
    const int code = run_suite(suite);
    tl_parallel_free(parallel);
    tl_context_free(context);
    return code;
}
