/* Whole trainings: the same bits at any number of threads, the stated distance between instruction
 * sets, and several models, tapes and threads in one process. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/files.h"
#include "support/workload.h"

#ifdef TEST_SANITIZED /* which take ten times as long */
enum { STEPS = 3 };
#else
enum { STEPS = 8 };
#endif

/* ------------------------------------------------------------------ determinism */

static workload_copy train(const char *isa, int threads, int kind, double losses[STEPS]) {
    tl_error error;
    tl_context *context = context_with(threads, isa);
    workload w;
    ck_assert_msg(workload_create(&w, context, kind, &error) == TL_OK, "%s", error.message);
    for (int step = 0; step < STEPS; step++) {
        ck_assert_msg(workload_step(&w, step, &losses[step], &error) == TL_OK, "%s", error.message);
        ck_assert(isfinite(losses[step]));
    }
    workload_copy result = workload_remember(&w);
    workload_free(&w);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
    return result;
}

/* Parameters, statistics, optimizer and losses: everything. */
START_TEST(threads_do_not_change_bits) {
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        double losses[STEPS];
        workload_copy one = train(all_isas[isa], 1, _i, losses);
        for (int threads = 2; threads <= 4; threads += 2) {
            double other[STEPS];
            workload_copy more = train(all_isas[isa], threads, _i, other);
            ck_assert_msg(one.count == more.count && memcmp(one.data, more.data, one.count) == 0 &&
                              memcmp(losses, other, sizeof losses) == 0,
                          "training %d on %s: %d threads give other bits than one", _i,
                          all_isas[isa], threads);
            workload_forget(&more);
        }
        workload_forget(&one);
    }
}
END_TEST

/* Between instruction sets only rounding differs, which training magnifies from step to step: the
 * loss of the first step agrees to 1e-6, those up to the eighth to 1e-3 (docs/reliability.md). */
START_TEST(instruction_sets_agree_within_bounds) {
    double reference[STEPS];
    workload_copy copy = train("baseline", 1, _i, reference);
    workload_forget(&copy);
    for (int isa = 1; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        double losses[STEPS];
        copy = train(all_isas[isa], 1, _i, losses);
        workload_forget(&copy);
        for (int step = 0; step < STEPS; step++) {
            const double bound = step == 0 ? 1e-6 : 1e-3;
            const double difference = fabs(losses[step] - reference[step]) / fabs(reference[step]);
            if (getenv("TAPELINE_FIGURES") != NULL) {
                printf("training %d, step %d: %s against baseline: %.2g of the loss\n", _i, step,
                       all_isas[isa], difference);
            }
            ck_assert_msg(difference <= bound, "training %d, step %d: %s is %g off, bound %g", _i,
                          step, all_isas[isa], difference, bound);
        }
    }
}
END_TEST

/* ------------------------------------------------------------------ several at once */

typedef struct trainer {
    int kind;
    int threads;
    const char *path; /* saved to and loaded from after every step; or NULL */
    workload_copy result;
    bool failed;
    tl_error error;
} trainer;

/* Makes no assertion: Check's are for one thread. */
static void *train_alone(void *argument) {
    trainer *t = argument;
    t->failed = true;
    tl_context *context =
        tl_context_create(&(tl_context_config){.threads = t->threads, .error = &t->error});
    if (context == NULL) {
        return NULL;
    }
    workload w;
    tl_status status = workload_create(&w, context, t->kind, &t->error);
    for (int step = 0; step < STEPS && status == TL_OK; step++) {
        status = workload_step(&w, step, NULL, &t->error);
        if (status == TL_OK && t->path != NULL) {
            status = workload_save(&w, t->path, &t->error);
        }
        if (status == TL_OK && t->path != NULL) {
            status = workload_load(&w, t->path, &t->error);
        }
    }
    if (status == TL_OK) {
        t->result = workload_remember(&w);
        t->failed = false;
    }
    workload_free(&w);
    t->failed = t->failed || tl_context_memory(context).current != 0;
    tl_context_free(context);
    return NULL;
}

/* Two threads train two models at once, with two OpenMP threads each, saving and loading after
 * every step; each ends with the bits that it has alone. */
START_TEST(two_threads_train_two_models) {
    char folder[TEST_PATH_BYTES];
    char paths[2][TEST_PATH_BYTES];
    make_folder(folder);
    set_path(paths[0], folder, "first.h5");
    set_path(paths[1], folder, "second.h5");
    trainer alone[2] = {{.kind = 0, .threads = 2}, {.kind = 1, .threads = 2}};
    trainer together[2] = {{.kind = 0, .threads = 2, .path = paths[0]},
                           {.kind = 1, .threads = 2, .path = paths[1]}};
    for (int i = 0; i < 2; i++) {
        (void)train_alone(&alone[i]);
        ck_assert_msg(!alone[i].failed, "%s", alone[i].error.message);
    }
    for (int round = 0; round < 3; round++) {
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) {
            ck_assert_int_eq(pthread_create(&threads[i], NULL, train_alone, &together[i]), 0);
        }
        for (int i = 0; i < 2; i++) {
            ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        }
        for (int i = 0; i < 2; i++) {
            ck_assert_msg(!together[i].failed, "%s", together[i].error.message);
            ck_assert_msg(alone[i].result.count == together[i].result.count &&
                              memcmp(alone[i].result.data, together[i].result.data,
                                     alone[i].result.count) == 0,
                          "model %d is another one when two are trained at once", i);
            workload_forget(&together[i].result);
        }
    }
    workload_forget(&alone[0].result);
    workload_forget(&alone[1].result);
    remove_folder(folder);
}
END_TEST

/* On one thread, models of one context take turns step by step, and nobody sees the others.
 */
START_TEST(models_and_tapes_take_turns) {
    double losses[STEPS];
    workload_copy alone[WORKLOAD_KINDS];
    tl_error error;
    tl_context *context = context_with(2, NULL);
    workload w[WORKLOAD_KINDS];
    for (int kind = 0; kind < WORKLOAD_KINDS; kind++) {
        alone[kind] = train(NULL, 2, kind, losses);
        ck_assert_int_eq(workload_create(&w[kind], context, kind, &error), TL_OK);
    }
    for (int step = 0; step < STEPS; step++) {
        for (int kind = 0; kind < WORKLOAD_KINDS; kind++) {
            ck_assert_msg(workload_step(&w[kind], step, NULL, &error) == TL_OK, "%s",
                          error.message);
        }
    }
    for (int kind = 0; kind < WORKLOAD_KINDS; kind++) {
        workload_assert_same("a model that took turns", &w[kind], &alone[kind]);
        workload_forget(&alone[kind]);
        workload_free(&w[kind]);
    }
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}
END_TEST

/* One model on two tapes: gradients add up as those of two passes on one. */
START_TEST(one_model_on_two_tapes) {
    tl_error error;
    tl_context *context = context_with(2, NULL);
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.depth = 8;
    config.width = 8;
    tl_model *model = tl_resnet_cifar_create(context, &config, 1, &error);
    ck_assert_ptr_nonnull(model);
    enum { SIZE = 2 * 9 * 9 * 3 };
    tl_real *images = random_values(2 * SIZE, 3, -1, 1);
    const int32_t labels[2] = {1, 2};
    tl_tensor *weight = tl_parameters_find(tl_model_parameters(model), "stem.conv.weight");
    const size_t count = (size_t)tl_tensor_size(weight) * sizeof(tl_real);
    tl_real *expected = NULL;
    for (int both = 0; both < 2; both++) {
        tl_tape *tapes[2] = {tl_tape_create(context), both ? tl_tape_create(context) : NULL};
        tl_tensor *losses[2];
        for (int i = 0; i < 2; i++) {
            tl_tape *tape = tapes[both ? i : 0];
            const tl_array array = ARRAY(images + i * SIZE, 2, 9, 9, 3);
            losses[i] = tl_cross_entropy(
                tape, tl_model_forward(model, tape, tl_input(tape, &array)), labels, NULL);
            if (!both) {
                ck_assert_int_eq(tl_backward(tape, losses[i]), TL_OK);
                tl_tape_reset(tape);
            }
        }
        for (int i = 0; i < 2 && both; i++) {
            ck_assert_int_eq(tl_backward(tapes[i], losses[i]), TL_OK);
        }
        if (!both) {
            expected = malloc(count);
            ck_assert_ptr_nonnull(expected);
            memcpy(expected, tl_tensor_grad(weight), count);
        }
        assert_same_bits("gradients", tl_tensor_size(weight), expected, tl_tensor_grad(weight));
        tl_parameters_clear_grads(tl_model_parameters(model));
        tl_tape_free(tapes[0]);
        tl_tape_free(tapes[1]);
    }
    free(expected);
    free(images);
    tl_model_free(model);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("training", &test_case);
    tcase_add_loop_test(test_case, threads_do_not_change_bits, 0, WORKLOAD_KINDS);
    tcase_add_loop_test(test_case, instruction_sets_agree_within_bounds, 0, WORKLOAD_KINDS);
    tcase_add_test(test_case, two_threads_train_two_models);
    tcase_add_test(test_case, models_and_tapes_take_turns);
    tcase_add_test(test_case, one_model_on_two_tapes);
    return run_suite(suite);
}
