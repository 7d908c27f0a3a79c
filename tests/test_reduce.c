/* Sums and means over dimensions: values, gradients, errors. */
#include "support/everywhere.h"

#include <stdlib.h>

#include "reference/reference_shape.h"

typedef struct problem {
    int rank;
    int64_t shape[TL_MAX_RANK];
    int count; /* -1: all, as NULL */
    int dims[TL_MAX_RANK];
    bool keep_dims;
    bool mean;
    tl_real *x, *dy;
} problem;

/* Inner or outer dimensions, alternating ones, little and much to add for one result. */
static const problem problems[] = {
    {.rank = 0, .count = -1},
    {.rank = 0, .count = 0},
    {.rank = 1, .shape = {1}, .count = 1, .dims = {0}},
    {.rank = 1, .shape = {17}, .count = 1, .dims = {0}, .keep_dims = true},
    {.rank = 2, .shape = {3, 5}, .count = 0},
    {.rank = 2, .shape = {3, 5}, .count = 1, .dims = {0}},
    {.rank = 2, .shape = {3, 5}, .count = 1, .dims = {1}, .keep_dims = true},
    {.rank = 2, .shape = {3, 5}, .count = 2, .dims = {1, 0}},
    {.rank = 4, .shape = {2, 3, 7, 5}, .count = 2, .dims = {1, 3}},
    {.rank = 4, .shape = {2, 3, 7, 5}, .count = 2, .dims = {0, 2}, .keep_dims = true},
    {.rank = 4, .shape = {2, 1, 7, 5}, .count = 3, .dims = {0, 1, 2}},
    {.rank = 8, .shape = {2, 3, 1, 2, 3, 2, 1, 3}, .count = 4, .dims = {1, 3, 6, 7}},
    {.rank = 1, .shape = {300001}, .count = -1},
    {.rank = 2, .shape = {5000, 40}, .count = 1, .dims = {0}},
    {.rank = 2, .shape = {40, 5000}, .count = 1, .dims = {1}},
    {.rank = 2, .shape = {90000, 3}, .count = 1, .dims = {1}},
    {.rank = 2, .shape = {90000, 3}, .count = 1, .dims = {0}},
    {.rank = 2, .shape = {2, 70001}, .count = 1, .dims = {0}},
    {.rank = 3, .shape = {3, 2000, 33}, .count = 1, .dims = {1}, .keep_dims = true},
    {.rank = 3, .shape = {50, 30, 60}, .count = 2, .dims = {0, 2}},
    {.rank = 4, .shape = {20, 3, 50, 41}, .count = 2, .dims = {0, 2}},
    {.rank = 3, .shape = {2, 2, 60000}, .count = 1, .dims = {2}},
    {.rank = 2, .shape = {3, 9001}, .count = 2, .dims = {0, 1}},
};
enum { PROBLEMS = sizeof problems / sizeof problems[0] };

static void compute(tl_tape *tape, const void *user, tl_real *out) {
    const problem *p = user;
    const tl_array array = array_of(p->rank, p->shape, p->x);
    tl_tensor *x = tl_input_with_grad(tape, &array);
    tl_tensor *y = (p->mean ? tl_mean : tl_sum)(tape, x, p->count, p->count < 0 ? NULL : p->dims,
                                                p->keep_dims);
    ck_assert_ptr_nonnull(y);
    const int kept = p->count < 0 ? 0 : p->rank - p->count;
    ck_assert_int_eq(tl_tensor_rank(y), p->keep_dims ? p->rank : kept);
    append_values(&out, y);
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, (const tl_real *const[]){p->dy}), TL_OK);
    append_grad(&out, x);
}

START_TEST(values) {
    for (int mean = 0; mean < 2; mean++) {
        problem p = problems[_i];
        p.mean = mean == 1;
        bool is_summed[TL_MAX_RANK] = {false};
        int64_t kept[TL_MAX_RANK];
        for (int i = 0; i < p.rank; i++) {
            is_summed[i] = p.count < 0;
        }
        for (int i = 0; i < p.count; i++) {
            is_summed[p.dims[i]] = true;
        }
        for (int i = 0; i < p.rank; i++) {
            kept[i] = is_summed[i] ? 1 : p.shape[i];
        }
        const int64_t size = reference_size(p.rank, p.shape);
        const int64_t results = reference_size(p.rank, kept);
        const double scale = p.mean ? (double)results / (double)size : 1.0;
        p.x = random_values(size, 1, -1, 3);
        p.dy = random_values(results, 2, -1, 1);
        double *x = malloc((size_t)size * sizeof *x);
        double *dx = malloc((size_t)size * sizeof *dx);
        double *y = malloc((size_t)results * sizeof *y);
        ck_assert(x != NULL && dx != NULL && y != NULL);
        for (int64_t i = 0; i < size; i++) {
            int64_t position[TL_MAX_RANK];
            reference_position(p.rank, p.shape, i, position);
            x[i] = (double)p.x[i];
            dx[i] = scale * (double)p.dy[reference_broadcast_index(p.rank, position, p.rank, kept)];
        }
        reference_sum(p.rank, p.shape, is_summed, x, y);
        for (int64_t i = 0; i < results; i++) {
            y[i] *= scale;
        }
        check_everywhere(p.mean ? "mean" : "sum", compute, &p, 2,
                         (expected[]){{"y", results, y}, {"dx", size, dx}}, 3e-7, 1e-7);
        free(p.x);
        free(p.dy);
        free(x);
        free(dx);
        free(y);
    }
}
END_TEST

/* Where a single chain of floats would have lost all the small summands, only those of the large
 * one's own run are lost. */
START_TEST(long_sums_are_accurate) {
    enum { N = 1 << 22 };
    tl_real *ones = random_values(N, 1, 1, 1);
    ones[0] = (tl_real)(1 << 24);
    tl_tape *tape = tl_tape_create(NULL);
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(ones, N));
    const double want = (double)(1 << 24) + (double)(N - 1);
    const double got = (double)tl_tensor_item(tl_sum(tape, x, 0, NULL, false));
    ck_assert_double_eq_tol(got, want, 2e-5 * want);
    tl_tensor *column = tl_input(tape, ARRAY_POINTER(ones, N / 2, 2));
    const double first = (double)tl_tensor_data(tl_sum(tape, column, 1, (int[]){0}, false))[0];
    ck_assert_double_eq_tol(first, want - N / 2, 2e-5 * want);
    tl_tape_free(tape);
    free(ones);
}
END_TEST

START_TEST(errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real data[6] = {0};
    tl_tensor *x = tl_input(tape, ARRAY_POINTER(data, 2, 3));
    ck_assert_ptr_null(tl_sum(tape, x, 1, (int[]){2}, false));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT,
                      "sum: dims must be from 0 to 1 for x of rank 2, found 2");
    tl_tape_reset(tape);
    x = tl_input(tape, ARRAY_POINTER(data, 2, 3));
    ck_assert_ptr_null(tl_mean(tape, x, 2, (int[]){1, 1}, false));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "mean: dims must be distinct, found 1");
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("reduce", &test_case);
    tcase_add_loop_test(test_case, values, 0, PROBLEMS);
    tcase_add_test(test_case, long_sums_are_accurate);
    tcase_add_test(test_case, errors);
    return run_suite(suite);
}
