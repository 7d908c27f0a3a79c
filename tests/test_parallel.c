/* What operations do on several ranks, played by threads with a context each: batch norm over all
 * rows, dropout masks of parts, gradients announced when they are complete. And the one rank of a
 * program that was started by itself. */
#include "support/support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/tape_internal.h"

enum { RANKS = 3, CHANNELS = 5, ROWS = 70, VALUES = ROWS * CHANNELS };

/* ------------------------------------------------------------------ threads as ranks */

/* Rows of each rank: unequal, and one alone. */
static const int64_t first_row[RANKS + 1] = {0, 30, 31, ROWS};

static pthread_barrier_t barrier;
static double totals[2 * CHANNELS + 1];
static double contributions[RANKS][2 * CHANNELS + 1];

static tl_status sum_of_threads(void *user, double *values, int64_t length, tl_error *error) {
    (void)error;
    const int rank = *(const int *)user;
    memcpy(contributions[rank], values, (size_t)length * sizeof *values);
    if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
        for (int64_t i = 0; i < length; i++) {
            totals[i] = 0;
            for (int r = 0; r < RANKS; r++) {
                totals[i] += contributions[r][i];
            }
        }
    }
    pthread_barrier_wait(&barrier);
    memcpy(values, totals, (size_t)length * sizeof *values);
    pthread_barrier_wait(&barrier);
    return TL_OK;
}

/* A batch norm with ReLU and residual, on some of the rows. */
typedef struct norm_run {
    int rank;
    int64_t begin, end;
    const tl_ranks *ranks;
    tl_real *x, *residual, *dy, *weight, *bias; /* of all rows */
    tl_real y[VALUES], dx[VALUES];
    tl_real dweight[CHANNELS], dbias[CHANNELS], mean[CHANNELS], variance[CHANNELS];
} norm_run;

static tl_tensor *vector(tl_context *context, bool wants_grad, const tl_real *values) {
    tl_tensor *tensor = tl_tensor_create(context, 1, (int64_t[]){CHANNELS}, wants_grad, NULL);
    for (int c = 0; c < CHANNELS && values != NULL; c++) {
        tl_tensor_data(tensor)[c] = values[c];
    }
    return tensor;
}

static void *run_norm(void *argument) {
    norm_run *run = argument;
    tl_context *context = context_with(1, NULL);
    tl_tape *tape = tl_tape_create(context);
    tape->ranks = run->ranks;
    tape->synchronize_batch_norm = run->ranks != NULL;
    tl_tensor *weight = vector(context, true, run->weight);
    tl_tensor *bias = vector(context, true, run->bias);
    tl_tensor *mean = vector(context, false, NULL);
    tl_tensor *variance = vector(context, false, NULL);
    const int64_t offset = run->begin * CHANNELS;
    const int64_t rows = run->end - run->begin;
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(run->x + offset, rows, CHANNELS));
    tl_tensor *residual = tl_input(tape, ARRAY_POINTER(run->residual + offset, rows, CHANNELS));
    tl_tensor *y = tl_batch_norm_relu(tape, x, residual, weight, bias, mean, variance, NULL);
    ck_assert_msg(y != NULL, "%s", tl_tape_error(tape)->message);
    const size_t bytes = (size_t)(rows * CHANNELS) * sizeof(tl_real);
    memcpy(run->y + offset, tl_tensor_data(y), bytes);
    const tl_real *cotangent = run->dy + offset;
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, &cotangent), TL_OK);
    memcpy(run->dx + offset, tl_tensor_grad(x), bytes);
    memcpy(run->dweight, tl_tensor_grad(weight), sizeof run->dweight);
    memcpy(run->dbias, tl_tensor_grad(bias), sizeof run->dbias);
    memcpy(run->mean, tl_tensor_data(mean), sizeof run->mean);
    memcpy(run->variance, tl_tensor_data(variance), sizeof run->variance);
    tl_tape_free(tape);
    tl_tensor_free(weight);
    tl_tensor_free(bias);
    tl_tensor_free(mean);
    tl_tensor_free(variance);
    tl_context_free(context);
    return NULL;
}

static void assert_equal(const char *what, int64_t count, const tl_real *got, const tl_real *want) {
    double wanted[VALUES];
    for (int64_t i = 0; i < count; i++) {
        wanted[i] = (double)want[i];
    }
    assert_close(what, count, got, wanted, 2e-6, 0);
}

static const double offsets[] = {0, 1, 300};

START_TEST(batch_norm_is_that_of_all_rows) {
    static norm_run whole;
    static norm_run parts[RANKS];
    whole = (norm_run){.begin = 0,
                       .end = ROWS,
                       .x = random_values(VALUES, 1, offsets[_i] - 1, offsets[_i] + 1),
                       .residual = random_values(VALUES, 2, -1, 1),
                       .dy = random_values(VALUES, 3, -1, 1),
                       .weight = random_values(CHANNELS, 4, 0.5, 2),
                       .bias = random_values(CHANNELS, 5, -1, 1)};
    (void)run_norm(&whole);
    pthread_t threads[RANKS];
    tl_ranks ranks[RANKS];
    pthread_barrier_init(&barrier, NULL, RANKS);
    for (int r = 0; r < RANKS; r++) {
        parts[r] = whole;
        parts[r].rank = r;
        parts[r].begin = first_row[r];
        parts[r].end = first_row[r + 1];
        parts[r].ranks = &ranks[r];
        ranks[r] =
            (tl_ranks){.rank = r, .count = RANKS, .sum = sum_of_threads, .user = &parts[r].rank};
        ck_assert_int_eq(pthread_create(&threads[r], NULL, run_norm, &parts[r]), 0);
    }
    tl_real dweight[CHANNELS] = {0};
    tl_real dbias[CHANNELS] = {0};
    for (int r = 0; r < RANKS; r++) {
        pthread_join(threads[r], NULL);
        const int64_t offset = first_row[r] * CHANNELS;
        const int64_t count = first_row[r + 1] * CHANNELS - offset;
        assert_equal("y", count, parts[r].y + offset, whole.y + offset);
        assert_equal("dx", count, parts[r].dx + offset, whole.dx + offset);
        assert_same_bits("running_mean", CHANNELS, parts[r].mean, parts[0].mean);
        assert_same_bits("running_var", CHANNELS, parts[r].variance, parts[0].variance);
        for (int c = 0; c < CHANNELS; c++) {
            dweight[c] += parts[r].dweight[c];
            dbias[c] += parts[r].dbias[c];
        }
    }
    assert_equal("running_mean", CHANNELS, parts[0].mean, whole.mean);
    assert_equal("running_var", CHANNELS, parts[0].variance, whole.variance);
    assert_equal("dweight", CHANNELS, dweight, whole.dweight);
    assert_equal("dbias", CHANNELS, dbias, whole.dbias);
    pthread_barrier_destroy(&barrier);
    free(whole.x);
    free(whole.residual);
    free(whole.dy);
    free(whole.weight);
    free(whole.bias);
}
END_TEST

static tl_status refuse(void *user, double *values, int64_t length, tl_error *error) {
    (void)values;
    (void)length;
    int *left = user;
    if ((*left)-- > 0) {
        return TL_OK;
    }
    *error = (tl_error){.status = TL_ERROR_IO, .message = "the other rank is gone"};
    return TL_ERROR_IO;
}

/* ... in forward, and in backward. */
START_TEST(a_failing_sum_is_an_error_of_the_tape) {
    int left = _i;
    const tl_ranks ranks = {.count = 2, .sum = refuse, .user = &left};
    tl_real values[6] = {1, 2, 3, 4, 5, 7};
    tl_tape *tape = tl_tape_create(NULL);
    tape->ranks = &ranks;
    tape->synchronize_batch_norm = true;
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 3, 2));
    tl_tensor *y = tl_batch_norm(tape, x, NULL, NULL, NULL, NULL, NULL);
    ck_assert_int_eq(y != NULL, _i > 0);
    if (y != NULL) {
        ck_assert_int_eq(tl_backward_from(tape, 1, &y, NULL), TL_ERROR_IO);
    }
    assert_tape_error(tape, TL_ERROR_IO, "batch_norm: the other rank is gone");
    tl_tape_free(tape);
}
END_TEST

START_TEST(evaluation_asks_nobody) {
    int left = 0;
    const tl_ranks ranks = {.count = 2, .sum = refuse, .user = &left};
    tl_real values[6] = {1, 2, 3, 4, 5, 7};
    tl_context *context = tl_context_create(NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *mean = tl_tensor_create(context, 1, (int64_t[]){2}, false, NULL);
    tl_tensor *variance = tl_tensor_create(context, 1, (int64_t[]){2}, false, NULL);
    tape->ranks = &ranks;
    tape->synchronize_batch_norm = true;
    tl_tape_set_training(tape, false);
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(values, 3, 2));
    ck_assert_ptr_nonnull(tl_batch_norm(tape, x, NULL, NULL, mean, variance, NULL));
    tl_tape_free(tape);
    tl_tensor_free(mean);
    tl_tensor_free(variance);
    tl_context_free(context);
}
END_TEST

/* Parts of 128 values; parts that are not whole groups of 64 differ all the same. */
START_TEST(dropout_masks_are_parts_of_the_whole) {
    enum { PART = 128, ODD = 60 };
    tl_real values[RANKS * PART];
    for (int i = 0; i < RANKS * PART; i++) {
        values[i] = 1;
    }
    tl_tape *tape = tl_tape_create(NULL);
    tl_tensor *whole = tl_dropout(tape, tl_input(tape, ARRAY_POINTER(values, RANKS * PART)), 0.5);
    tl_tensor *odd[2];
    for (int r = 0; r < RANKS; r++) {
        const tl_ranks ranks = {.rank = r, .count = RANKS};
        tape->ranks = &ranks;
        tl_tape_set_random(tape, 0, 0);
        tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, PART));
        tl_tensor *part = tl_dropout(tape, x, 0.5);
        assert_same_bits("mask", PART, tl_tensor_data(part), tl_tensor_data(whole) + r * PART);
        if (r < 2) {
            odd[r] = tl_dropout(tape, tl_input(tape, ARRAY_POINTER(values, ODD)), 0.5);
        }
        if (r == RANKS - 1) { /* backward drops the same */
            ck_assert_int_eq(tl_backward_from(tape, 1, &part, NULL), TL_OK);
            assert_same_bits("dx", PART, tl_tensor_grad(x), tl_tensor_data(part));
        }
        tape->ranks = NULL;
    }
    ck_assert_int_ne(memcmp(tl_tensor_data(odd[0]), tl_tensor_data(odd[1]), ODD * sizeof(tl_real)),
                     0);
    tl_tape_free(tape);
}
END_TEST

/* ------------------------------------------------------------------ announcements */

typedef struct announced {
    int count;
    tl_tensor *tensors[8];
    tl_real gradients[8];
} announced;

static void note(void *user, tl_tensor *tensor) {
    announced *seen = user;
    seen->gradients[seen->count] = tl_tensor_grad(tensor)[0];
    seen->tensors[seen->count++] = tensor;
}

static tl_tensor *scalar(tl_context *context, tl_real value, bool wants_grad) {
    tl_tensor *tensor = tl_tensor_create(context, 1, (int64_t[]){1}, wants_grad, NULL);
    tl_tensor_data(tensor)[0] = value;
    return tensor;
}

/* loss = (a b + c) a, twice a and once b; c is frozen, d unused. */
START_TEST(each_gradient_is_announced_once_when_complete) {
    tl_context *context = tl_context_create(NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_tensor *a = scalar(context, 2, true);
    tl_tensor *b = scalar(context, 3, true);
    tl_tensor *c = scalar(context, 5, false);
    tl_tensor *d = scalar(context, 7, true);
    announced seen = {0};
    tape->gradient_ready = note;
    tape->gradient_user = &seen;
    for (int step = 0; step < 2; step++) {
        seen.count = 0;
        tl_tensor *unused = tl_mul(tape, d, d);
        tl_tensor *loss = tl_mul(tape, tl_add(tape, tl_mul(tape, a, b), c), a);
        ck_assert_int_eq(tl_backward(tape, loss), TL_OK);
        ck_assert_ptr_nonnull(unused);
        ck_assert_int_eq(seen.count, 2);
        const int of_a = seen.tensors[0] == a ? 0 : 1;
        ck_assert_ptr_eq(seen.tensors[of_a], a);
        ck_assert_ptr_eq(seen.tensors[1 - of_a], b);
        ck_assert(seen.gradients[of_a] == 2 * 2 * 3 + 5);
        ck_assert(seen.gradients[1 - of_a] == 2 * 2);
        tl_tensor_clear_grad(a);
        tl_tensor_clear_grad(b);
        tl_tape_reset(tape);
    }
    tl_tape_free(tape);
    tl_tensor_free(a);
    tl_tensor_free(b);
    tl_tensor_free(c);
    tl_tensor_free(d);
    tl_context_free(context);
}
END_TEST

/* ------------------------------------------------------------------ one rank */

START_TEST(alone_nothing_is_exchanged) {
    tl_error error;
    tl_parallel *parallel = tl_parallel_create(&error);
    ck_assert_msg(parallel != NULL, "%s", error.message);
    ck_assert_int_eq(tl_parallel_rank(parallel), 0);
    ck_assert_int_eq(tl_parallel_ranks(parallel), 1);
    ck_assert_int_eq(tl_parallel_local_ranks(parallel), 1);
    tl_context *context = tl_context_create(NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_parallel_attach(parallel, tape, true);
    ck_assert_ptr_null(tape->ranks);
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_tensor *weight = tl_parameters_add(parameters, NULL, "weight", TL_GROUP_WEIGHT, "n", 1,
                                          (int64_t[]){1}, &error);
    tl_tensor_data(weight)[0] = 3;
    const size_t before = tl_context_memory(context).current;
    double value = 4;
    ck_assert_int_eq(tl_parallel_sum(parallel, &value, 1, &error), TL_OK);
    ck_assert(value == 4);
    tl_tensor *loss = tl_mul(tape, weight, weight);
    ck_assert_int_eq(tl_parallel_backward(parallel, tape, loss, parameters, &error), TL_OK);
    ck_assert(tl_tensor_grad(weight)[0] == 6);
    /* a second pass over the same tape is refused, by the tape */
    ck_assert_int_eq(tl_parallel_backward(parallel, tape, loss, parameters, &error),
                     TL_ERROR_STATE);
    assert_error(&error, TL_ERROR_STATE, "has run already");
    tl_tape_reset(tape);
    ck_assert_int_eq(tl_parallel_average_buffers(parallel, parameters, &error), TL_OK);
    ck_assert_int_eq(tl_parallel_check_equal(parallel, parameters, &error), TL_OK);
    tl_parallel_abort(parallel, 3); /* returns */
    tl_tape_free(tape);
    tl_parallel_free(parallel);
    tl_parallel_free(NULL);
    ck_assert_uint_le(tl_context_memory(context).current, before);
    tl_parameters_free(parameters);
    tl_context_free(context);
}
END_TEST

/* mpirun with a library that knows nothing of it would train several times, side by side. */
START_TEST(a_launcher_that_is_not_understood_is_an_error) {
    if (tl_parallel_is_built_in()) {
        return; /* test_parallel_programs.sh looks at that */
    }
    ck_assert_int_eq(setenv("OMPI_COMM_WORLD_SIZE", "2", 1), 0);
    tl_error error;
    ck_assert_ptr_null(tl_parallel_create(&error));
    assert_error(&error, TL_ERROR_UNSUPPORTED, "started as one of 2 processes");
    assert_error(&error, TL_ERROR_UNSUPPORTED, "-DTAPELINE_MPI=ON");
    unsetenv("OMPI_COMM_WORLD_SIZE");
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("parallel", &test_case);
    tcase_add_loop_test(test_case, batch_norm_is_that_of_all_rows, 0, 3);
    tcase_add_loop_test(test_case, a_failing_sum_is_an_error_of_the_tape, 0, 2);
    tcase_add_test(test_case, evaluation_asks_nobody);
    tcase_add_test(test_case, dropout_masks_are_parts_of_the_whole);
    tcase_add_test(test_case, each_gradient_is_announced_once_when_complete);
    tcase_add_test(test_case, alone_nothing_is_exchanged);
    tcase_add_test(test_case, a_launcher_that_is_not_understood_is_an_error);
    return run_suite(suite);
}
