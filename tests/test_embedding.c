/* embedding: values, gradients of repeated rows, errors. */
#include "support/everywhere.h"

#include <stdlib.h>

typedef struct problem {
    int64_t rows, width, count;
    int32_t *indices;
    tl_real *weight, *dy;
    bool twice;
} problem;

static void compute(tl_tape *tape, const void *user, tl_real *out) {
    const problem *p = user;
    tl_tensor *weight = tl_input_with_grad(tape, ARRAY_POINTER(p->weight, p->rows, p->width));
    tl_tensor *y[2] = {NULL, NULL};
    for (int i = 0; i < (p->twice ? 2 : 1); i++) {
        y[i] = tl_embedding(tape, weight, 2, (int64_t[]){p->count, 1}, p->indices);
        ck_assert_ptr_nonnull(y[i]);
    }
    ck_assert_int_eq(tl_tensor_rank(y[0]), 3);
    append_values(&out, y[0]);
    ck_assert_int_eq(
        tl_backward_from(tape, p->twice ? 2 : 1, y, (const tl_real *const[]){p->dy, p->dy}), TL_OK);
    append_grad(&out, weight);
}

START_TEST(values) {
    static const problem problems[] = {
        {.rows = 1, .width = 7, .count = 1},
        {.rows = 5, .width = 3, .count = 7, .twice = true},
        {.rows = 17, .width = 1, .count = 26},
        {.rows = 10, .width = 130, .count = 900, .twice = true},
    };
    problem p = problems[_i];
    const int64_t size_w = p.rows * p.width;
    const int64_t size_y = p.count * p.width;
    p.weight = random_values(size_w, 1, -1, 1);
    p.dy = random_values(size_y, 2, -1, 1);
    p.indices = malloc((size_t)p.count * sizeof *p.indices);
    double *y = calloc((size_t)size_y, sizeof *y);
    double *dw = calloc((size_t)size_w, sizeof *dw);
    ck_assert(p.indices != NULL && y != NULL && dw != NULL);
    tl_random random = tl_random_create(5, 1000, 0);
    for (int64_t i = 0; i < p.count; i++) {
        p.indices[i] = (int32_t)tl_random_below(&random, (uint32_t)p.rows);
        for (int64_t c = 0; c < p.width; c++) {
            const int64_t from = p.indices[i] * p.width + c;
            y[i * p.width + c] = (double)p.weight[from];
            dw[from] += (p.twice ? 2.0 : 1.0) * (double)p.dy[i * p.width + c];
        }
    }
    check_everywhere("embedding", compute, &p, 2,
                     (expected[]){{"y", size_y, y}, {"dweight", size_w, dw}}, 1e-6, 0);
    free(p.weight);
    free(p.dy);
    free(p.indices);
    free(y);
    free(dw);
}
END_TEST

START_TEST(indices_are_copied) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real weight[3] = {1, 2, 3};
    int32_t index = 2;
    tl_tensor *w = tl_input_with_grad(tape, ARRAY_POINTER(weight, 3, 1));
    tl_tensor *y = tl_embedding(tape, w, 0, NULL, &index);
    ck_assert_ptr_nonnull(y);
    ck_assert_int_eq(tl_tensor_rank(y), 1);
    ck_assert(tl_tensor_item(y) == 3);
    index = 0;
    ck_assert_int_eq(tl_backward(tape, y), TL_OK);
    ck_assert(tl_tensor_grad(w)[2] == 1 && tl_tensor_grad(w)[0] == 0);
    tl_tape_free(tape);
}
END_TEST

START_TEST(errors) {
    tl_tape *tape = tl_tape_create(NULL);
    tl_real weight[6] = {0};
    const tl_array array = ARRAY(weight, 3, 2);
    const int32_t indices[2] = {1, 3};
    ck_assert_ptr_null(tl_embedding(tape, tl_input(tape, &array), 1, (int64_t[]){2}, indices));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT,
                      "embedding: index 3 at position 1 is outside 0 ... 2");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_embedding(tape, tl_input(tape, &array), 1, (int64_t[]){2}, NULL));
    assert_tape_error(tape, TL_ERROR_INVALID_ARGUMENT, "embedding: indices is NULL");
    tl_tape_reset(tape);
    ck_assert_ptr_null(tl_embedding(tape, tl_input(tape, &array), 1, (int64_t[]){0}, indices));
    assert_tape_error(tape, TL_ERROR_SHAPE, "embedding: indices must have a rank of 0 to 7");
    tl_tape_reset(tape);
    ck_assert_ptr_null(
        tl_embedding(tape, tl_input(tape, ARRAY_POINTER(weight, 6)), 1, (int64_t[]){2}, indices));
    assert_tape_error(tape, TL_ERROR_SHAPE, "embedding: weight must be [V, D], found [6]");
    tl_tape_free(tape);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("embedding", &test_case);
    tcase_add_loop_test(test_case, values, 0, 4);
    tcase_add_test(test_case, indices_are_copied);
    tcase_add_test(test_case, errors);
    return run_suite(suite);
}
