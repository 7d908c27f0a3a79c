/* Every allocation of the library fails, alone and with all that follow it, and budgets that is too
 * small is tried: in the building of models, loading of data sets, steps of training, saving and
 * loading of checkpoints, and in every operation by itself. Each time there is a clean error,
 * nothing leaks, nothing that training changes has changed, and the same objects go on to the bits
 * they would have had. Under sanitizers of many allocations only a part, or all with
 * TAPELINE_SWEEP=full in the environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/data_files.h"
#include "support/failing_allocator.h"
#include "support/operation_list.h"
#include "support/workload.h"

static char folder[TEST_PATH_BYTES];
static failing_allocator allocator;
static tl_context *context;
static tl_error error;
static int64_t swept_allocations;
static int64_t swept_budgets;

static void set_up(void) {
    allocator = (failing_allocator){0};
    context = tl_context_create(
        &(tl_context_config){.threads = 1, .allocator = failing_allocator_with(&allocator)});
    ck_assert_ptr_nonnull(context);
    make_folder(folder);
}

static void tear_down(void) {
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
    ck_assert_int_eq(allocator.live, 0);
    ck_assert_uint_eq(allocator.bytes, 0);
    remove_folder(folder);
}

/* What is swept: leaves no memory behind, whether or not it succeeds. */
typedef tl_status (*activity)(void *user);

/* What must hold after a failure. */
typedef struct promise {
    const char *what;
    activity run;
    void *user;
    const workload *unchanged; /* or NULL */
    int most_budgets;          /* how many budgets, evenly spaced up to what is needed; 0: 40 */
} promise;

static void assert_clean_failure(const promise *p, tl_status status, const char *how,
                                 int64_t number, int64_t live, size_t held,
                                 const workload_copy *before) {
    char what[200];
    (void)snprintf(what, sizeof what, "%s, %s %lld", p->what, how, (long long)number);
    ck_assert_msg(status == TL_ERROR_OUT_OF_MEMORY, "%s: found '%s': %s", what,
                  tl_status_name(status), error.message);
    ck_assert_msg(error.status == status, "%s: the error has another status", what);
    ck_assert_msg(strstr(error.message, "out of memory") != NULL ||
                      strstr(error.message, " would fit") != NULL,
                  "%s: %s", what, error.message);
    ck_assert_msg(allocator.live == live && allocator.bytes == held,
                  "%s: %lld blocks of %lld bytes leak", what, (long long)(allocator.live - live),
                  (long long)(allocator.bytes - held));
    if (p->unchanged != NULL) {
        workload_assert_same(what, p->unchanged, before);
    }
}

typedef enum mode { FOR_GOOD, ONCE } mode;

/* The allocation to fail after the k-th. */
static int64_t after(int64_t k) {
#ifdef TEST_SANITIZED
    const char *full = getenv("TAPELINE_SWEEP");
    if ((full == NULL || strcmp(full, "full") != 0) && k >= 40) {
        return k + 15;
    }
#endif
    return k + 1;
}

/* Runs it with its k-th allocation failing, in ONCE that one alone; false if it makes fewer. */
static bool fails_at(int64_t k, mode how, activity run, void *user, tl_status *status) {
    error = (tl_error){0};
    allocator.calls = 0;
    allocator.fail_at = k;
    allocator.for_good = how == FOR_GOOD;
    *status = run(user);
    allocator.fail_at = 0;
    swept_allocations += allocator.calls >= k;
    return allocator.calls >= k;
}

/* Ends with a run that succeeds. Returns how many allocations there are. A tape that is refused a
 * large piece of memory asks for a smaller one, so one failure alone may do no harm. */
static int64_t sweep_mode(const promise *p, mode how) {
    const int64_t live = allocator.live;
    const size_t held = allocator.bytes;
    workload_copy before = {0};
    if (p->unchanged != NULL) {
        before = workload_remember(p->unchanged);
    }
    for (int64_t k = 1;; k = after(k)) {
        tl_status status;
        const bool happened = fails_at(k, how, p->run, p->user, &status);
        if (status != TL_OK) {
            ck_assert_msg(happened, "%s: %s", p->what, error.message);
            assert_clean_failure(p, status, "allocation", k, live, held, &before);
            continue;
        }
        ck_assert_msg(how == ONCE || !happened, "%s succeeds without memory", p->what);
        ck_assert_msg(allocator.live == live && allocator.bytes == held, "%s leaks", p->what);
        if (!happened || p->unchanged != NULL) {
            workload_forget(&before);
            return k - 1;
        }
    }
}

static int64_t sweep_allocations(const promise *p) {
    (void)sweep_mode(p, ONCE);
    return sweep_mode(p, FOR_GOOD);
}

static void sweep_budgets(const promise *p) {
    const int64_t live = allocator.live;
    const size_t held = allocator.bytes;
    workload_copy before = {0};
    if (p->unchanged != NULL) {
        before = workload_remember(p->unchanged);
    }
    /* an error of some other kind would end this at once; success, when the budget is enough */
    const size_t current = tl_context_memory(context).current;
    const int budgets = p->most_budgets > 0 ? p->most_budgets : 40;
    size_t step = 1024;
    for (size_t extra = 1;; extra += step) {
        error = (tl_error){0};
        tl_context_set_memory_limit(context, current + extra);
        const tl_status status = p->run(p->user);
        tl_context_set_memory_limit(context, 0);
        if (status == TL_OK) {
            break;
        }
        assert_clean_failure(p, status, "budget", (int64_t)extra, live, held, &before);
        swept_budgets++;
        if (extra / step > (size_t)budgets) {
            step *= 2;
        }
    }
    workload_forget(&before);
}

/* ------------------------------------------------------------------ building and loading */

static tl_status build(void *user) {
    workload w;
    const tl_status status = workload_create(&w, context, *(const int *)user, &error);
    workload_free(&w);
    return status;
}

START_TEST(models_loaders_and_optimizers) {
    int kind = _i;
    const promise p = {.what = "building", .run = build, .user = &kind};
    ck_assert_int_ge(sweep_allocations(&p), 80);
    sweep_budgets(&p);
}
END_TEST

static tl_status load(void *user) {
    tl_dataset *dataset = load_data_file(context, folder, *(const int *)user, &error);
    const tl_status status = dataset != NULL ? TL_OK : error.status;
    tl_dataset_free(dataset);
    return status;
}

START_TEST(data_sets) {
    int index = _i;
    write_data_files(folder);
    const promise p = {.what = data_file_names[index], .run = load, .user = &index};
    ck_assert_int_ge(sweep_allocations(&p), 3);
    sweep_budgets(&p);
    assert_data_file_loads(context, folder, index);
}
END_TEST

/* ------------------------------------------------------------------ training */

typedef struct step_call {
    workload *w;
    int64_t step;
} step_call;

static void create_workload(workload *w, int kind) {
    ck_assert_msg(workload_create(w, context, kind, &error) == TL_OK, "%s", error.message);
}

static void train_step(workload *w, int64_t step) {
    ck_assert_msg(workload_step(w, step, NULL, &error) == TL_OK, "%s", error.message);
}

/* On a tape of its own, which has everything still to allocate; what succeeds is taken back. */
static tl_status first_step(void *user) {
    step_call *call = user;
    workload *w = call->w;
    tl_tape *kept = w->tape;
    w->tape = NULL;
    tl_status status = workload_new_tape(w, &error);
    if (status == TL_OK) {
        status = workload_step(w, call->step, NULL, &error);
    }
    tl_tape_free(w->tape);
    w->tape = kept;
    return status;
}

/* After one step, so that optimizers hold something and gradients have their memory. */
START_TEST(steps_on_a_fresh_tape) {
    workload w;
    create_workload(&w, _i);
    train_step(&w, 0);
    step_call call = {&w, 1};
    const promise p = {
        .what = "a step", .run = first_step, .user = &call, .unchanged = &w, .most_budgets = 100};
    ck_assert_int_ge(sweep_allocations(&p), 5);
    sweep_budgets(&p);
    workload_free(&w);
}
END_TEST

/* Gradients of parameters are allocated by the first backward pass, inside the tape's step. */
static tl_status first_step_of_all(void *user) {
    workload w;
    tl_status status = workload_create(&w, context, *(const int *)user, &error);
    if (status == TL_OK) {
        status = workload_step(&w, 0, NULL, &error);
    }
    workload_free(&w);
    return status;
}

START_TEST(the_very_first_step) {
    int kind = _i;
    const promise p = {.what = "the first step", .run = first_step_of_all, .user = &kind};
    ck_assert_int_ge(sweep_allocations(&p), 100);
}
END_TEST

static tl_status step_of(void *user) {
    const step_call *call = user;
    return workload_step(call->w, call->step, NULL, &error);
}

/* Ten steps of which each fails at every one of its allocations, and at some budgets, before it is
 * let through, against ten undisturbed ones. */
START_TEST(training_goes_on_to_the_same_bits) {
    enum { STEPS = 10 };
    workload w;
    create_workload(&w, _i);
    for (int64_t step = 0; step < STEPS; step++) {
        train_step(&w, step);
    }
    workload_copy undisturbed = workload_remember(&w);
    workload_free(&w);
    create_workload(&w, _i);
    int64_t failures = 0;
    for (int64_t step = 0; step < STEPS; step++) {
        step_call call = {&w, step};
        for (int64_t k = 1;; k = after(k)) {
            tl_tape_trim(w.tape);
            workload_copy before = workload_remember(&w);
            tl_status status;
            bool happened = fails_at(k, FOR_GOOD, step_of, &call, &status);
            ck_assert_int_eq(status, happened ? TL_ERROR_OUT_OF_MEMORY : TL_OK);
            if (happened) {
                workload_assert_same("a failed step", &w, &before);
                tl_tape_trim(w.tape);
                happened = fails_at(k, ONCE, step_of, &call, &status);
                failures++;
            }
            if (status != TL_OK) {
                ck_assert_int_eq(status, TL_ERROR_OUT_OF_MEMORY);
                workload_assert_same("a failed step", &w, &before);
            }
            workload_forget(&before);
            if (status == TL_OK) {
                break;
            }
        }
    }
    ck_assert_int_ge(failures, STEPS);
    workload_assert_same("ten disturbed steps", &w, &undisturbed);
    workload_forget(&undisturbed);
    workload_free(&w);
}
END_TEST

/* ------------------------------------------------------------------ checkpoints */

typedef struct file_call {
    workload *w;
    const char *path;
} file_call;

static tl_status save(void *user) {
    const file_call *call = user;
    return workload_save(call->w, call->path, &error);
}

static tl_status load_checkpoint(void *user) {
    const file_call *call = user;
    return workload_load(call->w, call->path, &error);
}

static tl_status create_from_checkpoint(void *user) {
    const file_call *call = user;
    tl_state *state = tl_checkpoint_load(context, call->path, &error);
    if (state == NULL) {
        return error.status;
    }
    tl_model *model = tl_model_create_from_state(context, state, &error);
    const tl_status status = model != NULL ? TL_OK : error.status;
    tl_model_free(model);
    tl_state_free(state);
    return status;
}

static void assert_file_holds(workload *w, const char *path, const workload_copy *content) {
    ck_assert_msg(workload_load(w, path, &error) == TL_OK, "%s", error.message);
    workload_assert_same(path, w, content);
}

START_TEST(checkpoints) {
    char path[TEST_PATH_BYTES];
    set_path(path, folder, "model.h5");
    workload w;
    create_workload(&w, _i);
    train_step(&w, 0);
    workload_copy old = workload_remember(&w);
    ck_assert_msg(workload_save(&w, path, &error) == TL_OK, "%s", error.message);
    train_step(&w, 1);
    workload_copy new = workload_remember(&w);
    file_call call = {&w, path};

    /* saving: until it succeeds the file is the old one */
    const int64_t live = allocator.live;
    for (int64_t k = 1;; k = after(k)) {
        tl_status status;
        const bool happened = fails_at(k, ONCE, save, &call, &status);
        ck_assert_int_eq(status, happened ? TL_ERROR_OUT_OF_MEMORY : TL_OK);
        ck_assert_int_eq(allocator.live, live);
        ck_assert_int_eq(folder_count(folder), 1);
        if (!happened) {
            ck_assert_int_ge(k, 20);
            break;
        }
        /* reading all of it each time would take long */
        if (k % 16 == 1) {
            assert_file_holds(&w, path, &old);
            train_step(&w, 1);
            workload_assert_same("after a failed save", &w, &new);
        }
    }
    assert_file_holds(&w, path, &new);
    const promise saving = {
        .what = "saving", .run = save, .user = &call, .unchanged = &w, .most_budgets = 20};
    sweep_budgets(&saving);

    /* loading into what stands elsewhere: nothing changes unless all does */
    train_step(&w, 2);
    workload_copy later = workload_remember(&w);
    for (int64_t k = 1;; k = after(k)) {
        tl_status status;
        const bool happened = fails_at(k, ONCE, load_checkpoint, &call, &status);
        ck_assert_int_eq(status, happened ? TL_ERROR_OUT_OF_MEMORY : TL_OK);
        ck_assert_int_eq(allocator.live, live);
        workload_assert_same("a load", &w, happened ? &later : &new);
        if (!happened) {
            ck_assert_int_ge(k, 50);
            break;
        }
    }
    const promise loading = {.what = "loading", .run = load_checkpoint, .user = &call};
    sweep_budgets(&loading);
    const promise creating = {
        .what = "a model from a checkpoint", .run = create_from_checkpoint, .user = &call};
    ck_assert_int_ge(sweep_allocations(&creating), 100);
    workload_forget(&old);
    workload_forget(&new);
    workload_forget(&later);
    workload_free(&w);
}
END_TEST

/* ------------------------------------------------------------------ every operation */

typedef struct operation_call {
    const operation_case *operation;
    tl_real *values[OPERATION_MAX_INPUTS];
    tl_real *result; /* of the first run; later ones must equal it */
    int64_t size;
} operation_call;

static tl_status run_operation(void *user) {
    operation_call *call = user;
    const operation_case *c = call->operation;
    tl_tape *tape = tl_tape_create(context);
    if (tape == NULL) {
        error = (tl_error){TL_ERROR_OUT_OF_MEMORY, "tape: out of memory"};
        return error.status;
    }
    tl_tensor *x[OPERATION_MAX_INPUTS];
    for (int i = 0; i < c->input_count; i++) {
        const tl_array array = array_of(c->inputs[i].rank, c->inputs[i].shape, call->values[i]);
        x[i] = tl_input_with_grad(tape, &array);
    }
    tl_tensor *y = c->compute(tape, x);
    if (y != NULL && tl_backward_from(tape, 1, &y, NULL) == TL_OK) {
        call->size = tl_tensor_size(y);
        const size_t count = (size_t)call->size * sizeof(tl_real);
        if (call->result == NULL) {
            call->result = malloc(count);
            ck_assert_ptr_nonnull(call->result);
            memcpy(call->result, tl_tensor_data(y), count);
        }
        assert_same_bits(c->function, call->size, call->result, tl_tensor_data(y));
    }
    const tl_status status = tl_tape_status(tape);
    error = *tl_tape_error(tape);
    tl_tape_free(tape);
    return status;
}

START_TEST(operations) {
    operation_call call = {.operation = &operation_list[_i]};
    for (int i = 0; i < call.operation->input_count; i++) {
        call.values[i] =
            random_values(operation_input_size(call.operation, i), 10 + (uint64_t)i, -1, 1);
    }
    const promise p = {
        .what = call.operation->function, .run = run_operation, .user = &call, .most_budgets = 4};
    ck_assert_int_eq(run_operation(&call), TL_OK);
    ck_assert_int_ge(sweep_allocations(&p), 5);
    sweep_budgets(&p);
    free(call.result);
    for (int i = 0; i < call.operation->input_count; i++) {
        free(call.values[i]);
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("allocation_failures", &test_case);
    tcase_add_checked_fixture(test_case, set_up, tear_down);
    tcase_add_loop_test(test_case, models_loaders_and_optimizers, 0, WORKLOAD_KINDS);
    tcase_add_loop_test(test_case, data_sets, 0, DATA_FILES);
    tcase_add_loop_test(test_case, steps_on_a_fresh_tape, 0, WORKLOAD_KINDS);
    tcase_add_loop_test(test_case, the_very_first_step, 0, WORKLOAD_KINDS);
    tcase_add_loop_test(test_case, training_goes_on_to_the_same_bits, 0, WORKLOAD_KINDS);
    tcase_add_loop_test(test_case, checkpoints, 0, WORKLOAD_KINDS);
    tcase_add_loop_test(test_case, operations, 0, operation_count);
    const int code = run_suite(suite);
    printf("failed allocations: %lld, budgets too small: %lld\n", (long long)swept_allocations,
           (long long)swept_budgets);
    return code;
}
