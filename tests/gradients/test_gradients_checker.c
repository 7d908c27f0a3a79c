/* The gradient checker is itself tested: with operations of the test's own whose backward is right,
 * scaled, zeroed, transposed or blind to the gradient that flows in. Only the right one may pass.
 */
#include "gradients/gradient_check.h"

#include <math.h>

#include "core/op.h"

typedef enum fault { RIGHT, SCALED, ZEROED, TRANSPOSED, BLIND, NOT_A_NUMBER, MISSING } fault;

typedef struct square_state {
    fault fault;
} square_state;

/* y[i, j] = x[i, j]^2 for x [n, n]; dx = 2 x dy. */
static void square_backward(tl_node *node) {
    const square_state *state = node->state;
    if (state->fault == MISSING) {
        return;
    }
    bool accumulate;
    tl_real *dx = tl_node_grad(node, 0, &accumulate);
    if (dx == NULL) {
        return;
    }
    const int64_t n = node->output->shape[0];
    const tl_real *x = tl_node_input(node, 0);
    const tl_real *dy = tl_node_output_grad(node);
    for (int64_t i = 0; i < n * n; i++) {
        const int64_t transposed = i % n * n + i / n;
        tl_real g = 2 * x[i] * dy[i];
        switch (state->fault) {
        case SCALED:
            g *= (tl_real)1.00001;
            break;
        case ZEROED:
            g = 0;
            break;
        case TRANSPOSED:
            g = 2 * x[transposed] * dy[transposed];
            break;
        case BLIND:
            g = 2 * x[i];
            break;
        case NOT_A_NUMBER:
            g = (tl_real)NAN;
            break;
        default:
            break;
        }
        dx[i] = accumulate ? dx[i] + g : g;
    }
}

static tl_tensor *square(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "square", 1, inputs, 0)) {
        return NULL;
    }
    tl_tensor *x = inputs[0];
    tl_tensor *y = tl_op_output(&op, x->rank, x->shape);
    square_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    state->fault = *(const fault *)user;
    for (int64_t i = 0; i < x->size; i++) {
        y->storage->data[i] = x->storage->data[i] * x->storage->data[i];
    }
    tl_op_save_input(&op, 0);
    return tl_op_finish(&op, square_backward);
}

static bool passes(fault f) {
    char report[1024];
    return gradients_agree(
        &(gradient_problem){.name = "square",
                            .forward = square,
                            .user = &f,
                            .input_count = 1,
                            .inputs = {{.name = "x", .rank = 2, .shape = {4, 4}}}},
        report, sizeof report);
}

START_TEST(right_backward_passes) {
    ck_assert(passes(RIGHT));
}
END_TEST

START_TEST(wrong_backward_is_caught) {
    const fault faults[] = {SCALED, ZEROED, TRANSPOSED, BLIND, NOT_A_NUMBER, MISSING};
    ck_assert_msg(!passes(faults[_i]), "fault %d was not caught", (int)faults[_i]);
}
END_TEST

static tl_tensor *constant(tl_tape *tape, tl_tensor *const *inputs, const void *user) {
    const fault right = RIGHT;
    (void)user;
    return square(tape, inputs + 1, &right);
}

START_TEST(all_zero_gradients_are_caught) {
    char report[1024];
    gradient_problem problem = {.name = "constant",
                                .forward = constant,
                                .input_count = 2,
                                .inputs = {{.name = "unused", .rank = 1, .shape = {3}},
                                           {.name = "x", .rank = 2, .shape = {2, 2}}}};
    ck_assert(!gradients_agree(&problem, report, sizeof report));
    problem.inputs[0].zero_gradient = true;
    ck_assert_msg(gradients_agree(&problem, report, sizeof report), "%s", report);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradient checker", &test_case);
    tcase_add_test(test_case, right_backward_passes);
    tcase_add_loop_test(test_case, wrong_backward_is_caught, 0, 6);
    tcase_add_test(test_case, all_zero_gradients_are_caught);
    return run_suite(suite);
}
