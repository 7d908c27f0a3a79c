#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const all_isas[3] = {"baseline", "avx2", "avx512"};

int run_suite(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    const int run = srunner_ntests_run(runner);
    srunner_free(runner);
    return failed == 0 && run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

Suite *suite_with_case(const char *name, TCase **test_case) {
    Suite *suite = suite_create(name);
    *test_case = tcase_create(name);
    tcase_set_timeout(*test_case, 300);
    suite_add_tcase(suite, *test_case);
    return suite;
}

void fill_uniform(tl_real *values, int64_t count, uint64_t seed, double low, double high) {
    tl_random random = tl_random_create(seed, 1000, 0);
    for (int64_t i = 0; i < count; i++) {
        values[i] = (tl_real)(low + (high - low) * (double)tl_random_uniform(&random));
    }
}

tl_real *random_values(int64_t count, uint64_t seed, double low, double high) {
    tl_real *values = malloc((size_t)(count > 0 ? count : 1) * sizeof *values);
    ck_assert_ptr_nonnull(values);
    fill_uniform(values, count, seed, low, high);
    return values;
}

tl_array array_of(int rank, const int64_t *shape, tl_real *data) {
    tl_array array = {.rank = rank, .data = data};
    for (int i = 0; i < rank; i++) {
        array.shape[i] = shape[i];
    }
    return array;
}

bool is_close(int64_t count, const tl_real *got, const double *want, double rtol, double atol,
              double *worst) {
    double largest = 0.0;
    *worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs(want[i]));
        const double difference = fabs((double)got[i] - want[i]);
        if (!(difference <= *worst)) {
            *worst = difference;
        }
        if (!isfinite((double)got[i]) && isfinite(want[i])) {
            *worst = INFINITY;
            return false;
        }
    }
    return *worst <= atol + rtol * largest;
}

void assert_close(const char *what, int64_t count, const tl_real *got, const double *want,
                  double rtol, double atol) {
    ck_assert_msg(got != NULL, "%s: nothing to compare", what);
    double worst;
    const bool close = is_close(count, got, want, rtol, atol, &worst);
    ck_assert_msg(close, "%s: worst error %g over rtol %g, atol %g", what, worst, rtol, atol);
}

void assert_same_bits(const char *what, int64_t count, const tl_real *a, const tl_real *b) {
    ck_assert_msg(a != NULL && b != NULL, "%s: nothing to compare", what);
    ck_assert_msg(memcmp(a, b, (size_t)count * sizeof *a) == 0, "%s: the bits differ", what);
}

void assert_error(const tl_error *error, tl_status status, const char *part) {
    ck_assert_msg(error->status == status, "expected status '%s', found '%s': %s",
                  tl_status_name(status), tl_status_name(error->status), error->message);
    ck_assert_msg(strstr(error->message, part) != NULL, "expected '%s' in the message '%s'", part,
                  error->message);
}

void assert_tape_error(const tl_tape *tape, tl_status status, const char *part) {
    assert_error(tl_tape_error(tape), status, part);
}

tl_context *context_with(int threads, const char *isa) {
    tl_error error;
    tl_context *context =
        tl_context_create(&(tl_context_config){.threads = threads, .isa = isa, .error = &error});
    ck_assert_msg(context != NULL, "%s", error.message);
    return context;
}

bool isa_available(const char *isa) {
    tl_context *context = tl_context_create(&(tl_context_config){.isa = isa});
    const bool available = context != NULL;
    tl_context_free(context);
    return available;
}
