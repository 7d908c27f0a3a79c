/* Tasks of a parallel loop that change hands: each is done once, whoever falls behind. */
#include <omp.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/shares.h"
#include "support/support.h"

/* Does `tasks` tasks on `threads` threads, of which the first waits a millisecond before each of
 * its own; returns how many that one did. */
static int64_t run_tasks(int64_t tasks, int threads) {
    int *times = calloc((size_t)tasks + 1, sizeof *times);
    ck_assert_ptr_nonnull(times);
    int64_t by_first = 0;
    tl_shares shares = tl_shares_of(tasks, threads);
#pragma omp parallel num_threads(threads)
    for (int64_t task; tl_shares_take(&shares, &task);) {
        if (omp_get_thread_num() == 0 && omp_get_num_threads() > 1) {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            by_first++;
        }
        times[task]++;
    }
    for (int64_t task = 0; task < tasks; task++) {
        ck_assert_int_eq(times[task], 1);
    }
    free(times);
    return by_first;
}

START_TEST(every_task_is_done_once) {
    static const int64_t tasks[] = {0, 1, 2, 7, 64, 1000};
    static const int threads[] = {1, 2, 3, 70}; /* more than there are shares */
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
            run_tasks(tasks[t], threads[i]);
        }
    }
}
END_TEST

/* In runs each task comes once as well; a thread's first run is a third of its share. */
START_TEST(runs_cover_every_task_once) {
    enum { TASKS = 100 };
    static const int threads[] = {1, 2, 3, 70};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        int times[TASKS] = {0};
        tl_shares shares = tl_shares_of(TASKS, threads[i]);
#pragma omp parallel num_threads(threads[i])
        for (int64_t first, count; (count = tl_shares_take_run(&shares, &first)) > 0;) {
            for (int64_t task = first; task < first + count; task++) {
                times[task]++;
            }
        }
        for (int task = 0; task < TASKS; task++) {
            ck_assert_int_eq(times[task], 1);
        }
    }
    tl_shares shares = tl_shares_of(TASKS, 2);
    int64_t first;
    ck_assert_int_eq(tl_shares_take_run(&shares, &first), 17);
    ck_assert_int_eq(first, 0);
    ck_assert_int_eq(tl_shares_take_run(&shares, &first), 11);
    ck_assert_int_eq(first, 17);
}
END_TEST

START_TEST(others_help_a_slow_thread) {
    const int64_t tasks = 1000;
    ck_assert_int_lt(run_tasks(tasks, 2), tasks / 2);
}
END_TEST

START_TEST(shares_are_those_of_a_static_schedule) {
    const tl_shares shares = tl_shares_of(11, 3);
    const int64_t expected[][2] = {{0, 4}, {4, 8}, {8, 11}};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(shares.share[i].next, expected[i][0]);
        ck_assert_int_eq(shares.share[i].end, expected[i][1]);
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("shares", &test_case);
    tcase_add_test(test_case, every_task_is_done_once);
    tcase_add_test(test_case, runs_cover_every_task_once);
    tcase_add_test(test_case, others_help_a_slow_thread);
    tcase_add_test(test_case, shares_are_those_of_a_static_schedule);
    return run_suite(suite);
}
