/* support.h - what the tests share. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include <tapeline/tapeline.h>

/* Runs a suite in this process (GNU OpenMP hangs in forked children) and returns the exit code. */
int run_suite(Suite *suite);

/* A suite of one test case with a time limit of its own; add tests with tcase_add_test. */
Suite *suite_with_case(const char *name, TCase **test_case);

/* Uniform values in [low, high), the same for the same seed. */
void fill_uniform(tl_real *values, int64_t count, uint64_t seed, double low, double high);

/* A fresh array of such values; free() it. */
tl_real *random_values(int64_t count, uint64_t seed, double low, double high);

tl_array array_of(int rank, const int64_t *shape, tl_real *data);
#define ARRAY(data, ...)                                                                           \
    array_of((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__},  \
             data)
/* The address of such an array, as an argument: tl_input(tape, ARRAY_POINTER(data, 2, 3)). */
#define ARRAY_POINTER(data, ...) ((tl_array[]){ARRAY(data, __VA_ARGS__)})

/* max|got - want| <= atol + rtol * max|want|; NaN fails. The worst error goes into the message. */
void assert_close(const char *what, int64_t count, const tl_real *got, const double *want,
                  double rtol, double atol);
/* The same, as an answer. */
bool is_close(int64_t count, const tl_real *got, const double *want, double rtol, double atol,
              double *worst);
/* The same bits. */
void assert_same_bits(const char *what, int64_t count, const tl_real *a, const tl_real *b);

/* The tape's error has this status, and a message with `part` in it. */
void assert_tape_error(const tl_tape *tape, tl_status status, const char *part);
void assert_error(const tl_error *error, tl_status status, const char *part);

/* A context with that many threads on that instruction set (NULL: the default); fails the test if
 * the CPU lacks it: ask isa_available first. */
tl_context *context_with(int threads, const char *isa);
bool isa_available(const char *isa);
extern const char *const all_isas[3]; /* baseline, avx2, avx512 */

#endif
