/* reshape, permute, concat, slice: values, gradients, errors. */
#include "support/everywhere.h"

#include <stdlib.h>

#include "reference/reference_shape.h"

/* ------------------------------------------------------------------ reshape */

START_TEST(reshape) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[24];
    tl_real dy[24];
    fill_uniform(values, 24, 1, -1, 1);
    fill_uniform(dy, 24, 2, -1, 1);
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2, 3, 4));
    tl_tensor *y = tl_reshape(tape, x, 2, (int64_t[]){6, -1});
    ck_assert_ptr_nonnull(y);
    ck_assert_int_eq(tl_tensor_rank(y), 2);
    ck_assert_int_eq(tl_tensor_shape(y)[1], 4);
    ck_assert_ptr_eq(tl_tensor_data(y), values);
    tl_tensor *z = tl_reshape(tape, y, 1, (int64_t[]){24});
    ck_assert_int_eq(tl_backward_from(tape, 1, &z, (const tl_real *const[]){dy}), TL_OK);
    assert_same_bits("gradient of reshape", 24, tl_tensor_grad(x), dy);

    tl_tape_reset(tape);
    tl_tensor *one = tl_reshape(tape, tl_input(tape, ARRAY_POINTER(values, 1, 1)), 0, NULL);
    ck_assert_ptr_nonnull(one);
    ck_assert_int_eq(tl_tensor_rank(one), 0);
    tl_tape_free(tape);
}
END_TEST

START_TEST(reshape_errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[24] = {0};
    const tl_array array = ARRAY(values, 2, 3, 4);
    ck_assert_ptr_null(tl_reshape(tape, tl_input(tape, &array), 2, (int64_t[]){5, 5}));
    assert_tape_error(tape, TL_ERROR_SHAPE,
                      "reshape: x [2, 3, 4] has 24 elements, shape [5, 5] does not");
    const int64_t wrong[][2] = {{-1, -1}, {-1, 5}, {0, 24}, {INT64_MAX, INT64_MAX}, {-2, -12}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        tl_tape_reset(tape);
        ck_assert_ptr_null(tl_reshape(tape, tl_input(tape, &array), 2, wrong[i]));
        ck_assert_int_eq(tl_tape_status(tape), TL_ERROR_SHAPE);
    }
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_reshape(tape, tl_input(tape, &array), 9, wrong[0]));
    assert_tape_error(tape, TL_ERROR_SHAPE, "reshape: rank must be from 0 to 8, found 9");
    tl_tape_free(tape);
}
END_TEST

/* ------------------------------------------------------------------ permute, slice */

/* An operation that puts element from[i] of x in place i of y. */
typedef struct move {
    int rank;
    int64_t shape[TL_MAX_RANK];
    int dims[TL_MAX_RANK];                           /* permute */
    int64_t starts[TL_MAX_RANK], stops[TL_MAX_RANK]; /* slice, where stops[0] > 0 */
    int64_t steps[TL_MAX_RANK];                      /* steps[0] = 0: NULL */
    bool twice; /* x feeds the operation two times, so that the gradient is added */
    tl_real *x, *dy;
} move;

static const move moves[] = {
    {.rank = 0},
    {.rank = 1, .shape = {5}, .dims = {0}},
    {.rank = 2, .shape = {2, 3}, .dims = {1, 0}},
    {.rank = 2, .shape = {33, 17}, .dims = {1, 0}, .twice = true},
    {.rank = 2, .shape = {1000, 70}, .dims = {1, 0}},
    {.rank = 2, .shape = {16, 2048}, .dims = {1, 0}},
    {.rank = 3, .shape = {2, 3, 5}, .dims = {2, 0, 1}},
    {.rank = 3, .shape = {7, 20, 30}, .dims = {1, 0, 2}, .twice = true},
    {.rank = 4, .shape = {2, 3, 4, 5}, .dims = {0, 2, 3, 1}},
    {.rank = 4, .shape = {4, 17, 18, 70}, .dims = {0, 3, 1, 2}},
    {.rank = 4, .shape = {3, 2, 4, 5}, .dims = {3, 1, 0, 2}},
    {.rank = 4, .shape = {1, 7, 1, 3}, .dims = {1, 3, 2, 0}},
    {.rank = 6, .shape = {2, 3, 2, 3, 2, 3}, .dims = {5, 3, 1, 0, 2, 4}, .twice = true},
    {.rank = 1, .shape = {13}, .starts = {12}, .stops = {13}},
    {.rank = 2, .shape = {7, 5}, .starts = {0, 2}, .stops = {7, 4}, .steps = {1, 1}},
    {.rank = 2, .shape = {17, 6}, .starts = {1, 0}, .stops = {17, 6}, .steps = {3, 2}},
    {.rank = 4,
     .shape = {2, 6, 5, 7},
     .starts = {0, 3, 0, 1},
     .stops = {2, 6, 5, 7},
     .steps = {1, 2, 4, 5},
     .twice = true},
    {.rank = 2, .shape = {300, 300}, .starts = {0, 7}, .stops = {300, 290}},
    {.rank = 2, .shape = {2, 100000}, .starts = {0, 3}, .stops = {2, 99999}, .steps = {1, 1}},
};
enum { MOVES = sizeof moves / sizeof moves[0] };

static bool is_slice(const move *m) {
    return m->stops[0] > 0;
}

static void compute_move(tl_tape *tape, const void *user, tl_real *out) {
    const move *m = user;
    const tl_array array = array_of(m->rank, m->shape, m->x);
    tl_tensor *x = tl_input_with_grad(tape, &array);
    tl_tensor *y[2] = {NULL, NULL};
    for (int i = 0; i < (m->twice ? 2 : 1); i++) {
        y[i] = is_slice(m)
                   ? tl_slice(tape, x, m->starts, m->stops, m->steps[0] > 0 ? m->steps : NULL)
                   : tl_permute(tape, x, m->dims);
        ck_assert_ptr_nonnull(y[i]);
    }
    append_values(&out, y[0]);
    ck_assert_int_eq(
        tl_backward_from(tape, m->twice ? 2 : 1, y, (const tl_real *const[]){m->dy, m->dy}), TL_OK);
    append_grad(&out, x);
}

START_TEST(permute_and_slice) {
    move m = moves[_i];
    int64_t shape[TL_MAX_RANK];
    for (int d = 0; d < m.rank; d++) {
        const int64_t step = m.steps[0] > 0 ? m.steps[d] : 1;
        shape[d] = is_slice(&m) ? (m.stops[d] - m.starts[d] + step - 1) / step : m.shape[m.dims[d]];
    }
    const int64_t size_x = reference_size(m.rank, m.shape);
    const int64_t size_y = reference_size(m.rank, shape);
    m.x = random_values(size_x, 1, -1, 1);
    m.dy = random_values(size_y, 2, -1, 1);
    double *y = calloc((size_t)size_y, sizeof *y);
    double *dx = calloc((size_t)size_x, sizeof *dx);
    ck_assert(y != NULL && dx != NULL);
    for (int64_t i = 0; i < size_y; i++) {
        int64_t to[TL_MAX_RANK];
        int64_t from[TL_MAX_RANK];
        reference_position(m.rank, shape, i, to);
        for (int d = 0; d < m.rank; d++) {
            if (is_slice(&m)) {
                from[d] = m.starts[d] + to[d] * (m.steps[0] > 0 ? m.steps[d] : 1);
            } else {
                from[m.dims[d]] = to[d];
            }
        }
        const int64_t at = reference_broadcast_index(m.rank, from, m.rank, m.shape);
        y[i] = (double)m.x[at];
        dx[at] += (m.twice ? 2.0 : 1.0) * (double)m.dy[i];
    }
    check_everywhere(is_slice(&m) ? "slice" : "permute", compute_move, &m, 2,
                     (expected[]){{"y", size_y, y}, {"dx", size_x, dx}}, 0, 0);
    free(m.x);
    free(m.dy);
    free(y);
    free(dx);
}
END_TEST

START_TEST(permute_and_slice_errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[6] = {0};
    const tl_array array = ARRAY(values, 2, 3);
    ck_assert_ptr_null(tl_permute(tape, tl_input(tape, &array), (int[]){0, 0}));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT,
                      "permute: dims must be a permutation of 0 ... 1 for x of rank 2");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_permute(tape, tl_input(tape, &array), (int[]){2, 0}));
    ck_assert_int_eq(tl_tape_status(tape), TL_ERROR_INVALID_ARGUMENT);
    const int64_t bounds[][3] = {{-1, 2, 1}, {2, 2, 1}, {0, 4, 1}, {0, 3, 0}};
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        tl_tape_reset(tape);
        ck_assert_ptr_null(tl_slice(tape, tl_input(tape, &array), (int64_t[]){0, bounds[i][0]},
                                    (int64_t[]){2, bounds[i][1]}, (int64_t[]){1, bounds[i][2]}));
        assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT,
                          "slice: dimension 1 wants 0 <= start < stop <= 3");
    }
    tl_tape_free(tape);
}
END_TEST

/* ------------------------------------------------------------------ concat */

typedef struct join {
    int rank;
    int64_t shape[TL_MAX_RANK];
    int dim;
    int count;
    int64_t lengths[4];
    tl_real *x[4], *dy;
} join;

static const join joins[] = {
    {.rank = 1, .shape = {0}, .dim = 0, .count = 3, .lengths = {7, 1, 13}},
    {.rank = 2, .shape = {0, 3}, .dim = 0, .count = 2, .lengths = {2, 4}},
    {.rank = 2, .shape = {5, 0}, .dim = 1, .count = 3, .lengths = {3, 1, 5}},
    {.rank = 4, .shape = {2, 0, 5, 4}, .dim = 1, .count = 2, .lengths = {3, 7}},
    {.rank = 4, .shape = {2, 3, 5, 0}, .dim = 3, .count = 4, .lengths = {16, 1, 2, 33}},
    {.rank = 3, .shape = {1, 1, 0}, .dim = 2, .count = 1, .lengths = {1}},
    {.rank = 3, .shape = {100, 50, 0}, .dim = 2, .count = 2, .lengths = {16, 24}},
};
enum { JOINS = sizeof joins / sizeof joins[0] };

static int64_t part_size(const join *j, int part, int64_t shape[TL_MAX_RANK]) {
    for (int d = 0; d < j->rank; d++) {
        shape[d] = d == j->dim ? j->lengths[part] : j->shape[d];
    }
    return reference_size(j->rank, shape);
}

static void compute_join(tl_tape *tape, const void *user, tl_real *out) {
    const join *j = user;
    tl_tensor *inputs[5];
    for (int i = 0; i < j->count; i++) {
        int64_t shape[TL_MAX_RANK];
        (void)part_size(j, i, shape);
        const tl_array array = array_of(j->rank, shape, j->x[i]);
        inputs[i] = tl_input_with_grad(tape, &array);
    }
    tl_tensor *y = tl_concat(tape, j->count, inputs, j->dim);
    ck_assert_ptr_nonnull(y);
    append_values(&out, y);
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, (const tl_real *const[]){j->dy}), TL_OK);
    for (int i = 0; i < j->count; i++) {
        append_grad(&out, inputs[i]);
    }
}

START_TEST(concat) {
    join j = joins[_i];
    int64_t shape[TL_MAX_RANK];
    int64_t total = 0;
    for (int i = 0; i < j.count; i++) {
        total += part_size(&j, i, shape);
    }
    j.dy = random_values(total, 9, -1, 1);
    double *y = calloc((size_t)total, sizeof *y);
    double *dx = calloc((size_t)total, sizeof *dx);
    ck_assert(y != NULL && dx != NULL);
    int64_t whole[TL_MAX_RANK];
    (void)part_size(&j, 0, whole);
    whole[j.dim] = 0;
    for (int i = 0; i < j.count; i++) {
        whole[j.dim] += j.lengths[i];
    }
    int64_t start = 0;
    double *to = dx;
    for (int i = 0; i < j.count; i++) {
        const int64_t size = part_size(&j, i, shape);
        j.x[i] = random_values(size, (uint64_t)i + 1, -1, 1);
        for (int64_t k = 0; k < size; k++) {
            int64_t position[TL_MAX_RANK];
            reference_position(j.rank, shape, k, position);
            position[j.dim] += start;
            const int64_t at = reference_broadcast_index(j.rank, position, j.rank, whole);
            y[at] = (double)j.x[i][k];
            *to++ = (double)j.dy[at];
        }
        start += j.lengths[i];
    }
    check_everywhere("concat", compute_join, &j, 2,
                     (expected[]){{"y", total, y}, {"dx", total, dx}}, 0, 0);
    for (int i = 0; i < j.count; i++) {
        free(j.x[i]);
    }
    free(j.dy);
    free(y);
    free(dx);
}
END_TEST

START_TEST(concat_of_one_tensor_twice) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[2] = {1, 2};
    tl_real dy[4] = {1, 10, 100, 1000};
    tl_tensor *x = tl_input_with_grad(tape, ARRAY_POINTER(values, 2));
    tl_tensor *y = tl_concat(tape, 2, (tl_tensor *[]){x, x}, 0);
    ck_assert_int_eq(tl_backward_from(tape, 1, &y, (const tl_real *const[]){dy}), TL_OK);
    ck_assert(tl_tensor_grad(x)[0] == 101 && tl_tensor_grad(x)[1] == 1010);
    tl_tape_free(tape);
}
END_TEST

START_TEST(concat_errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real values[12] = {0};
    tl_tensor *inputs[] = {tl_input(tape, ARRAY_POINTER(values, 2, 3)),
                           tl_input(tape, ARRAY_POINTER(values, 3, 4))};
    ck_assert_ptr_null(tl_concat(tape, 2, inputs, 0));
    assert_tape_error(tape, TL_ERROR_SHAPE,
                      "concat: input 1 must have the shape of input 0, [2, 3], but in dimension 0, "
                      "found [3, 4]");
    tl_tape_reset(tape);
    inputs[0] = tl_input(tape, ARRAY_POINTER(values, 2, 3));
    ck_assert_ptr_null(tl_concat(tape, 1, inputs, 2));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "concat: dim must be from 0 to 1");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_concat(tape, 0, inputs, 0));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "concat: count must be at least 1, found 0");
    tl_tape_reset(tape);
    tl_tensor *many[40] = {NULL};
    for (int i = 0; i < 39; i++) {
        many[i] = tl_input(tape, ARRAY_POINTER(values, 2));
    }
    ck_assert_ptr_null(tl_concat(tape, 40, many, 0));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "concat: input 39 is NULL");
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("shape", &test_case);
    tcase_add_test(test_case, reshape);
    tcase_add_test(test_case, reshape_errors);
    tcase_add_loop_test(test_case, permute_and_slice, 0, MOVES);
    tcase_add_test(test_case, permute_and_slice_errors);
    tcase_add_loop_test(test_case, concat, 0, JOINS);
    tcase_add_test(test_case, concat_of_one_tensor_twice);
    tcase_add_test(test_case, concat_errors);
    return run_suite(suite);
}
