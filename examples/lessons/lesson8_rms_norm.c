/* lesson8_rms_norm - an operation that the library does not have, written in a program of one's own
 * against core/op.h, and checked by finite differences. docs/lessons/8-your-own-operation.md */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <tapeline/tapeline.h>
#include "core/op.h"

enum { ROWS = 3, CHANNELS = 5, SIZE = ROWS * CHANNELS };
/* For each row of C values:  y_i = x_i / r,  r = sqrt(mean of x^2 + epsilon);
 *                           dx_i = (dy_i - x_i <dy, x> / (C r^2)) / r. */
static const double epsilon = 1e-5;

static double dot(int64_t C, const tl_real *a, const tl_real *b) {
    double sum = 0;
    for (int64_t i = 0; i < C; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

static void rms_norm_backward(tl_node *node) {
    const tl_real *x = tl_node_input(node, 0), *dy = tl_node_output_grad(node);
    tl_real *dx = tl_node_grad_zeroed(node, 0);
    const int64_t C = node->output->shape[node->output->rank - 1];
    for (int64_t row = 0; row < node->output->size && dx != NULL; row += C) { /* NULL: not wanted */
        const double r = sqrt(dot(C, x + row, x + row) / (double)C + epsilon);
        const double share = dot(C, dy + row, x + row) / ((double)C * r * r);
        for (int64_t i = row; i < row + C; i++) {
            dx[i] += (tl_real)(((double)dy[i] - (double)x[i] * share) / r);
        }
    }
}

static tl_tensor *rms_norm(tl_tape *tape, tl_tensor *x) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "rms_norm", 1, (tl_tensor *[]){x}, 0)) {
        return NULL;
    }
    if (x->rank < 1) {
        return tl_op_fail(&op, TL_ERROR_SHAPE, "x needs a dimension of channels");
    }
    tl_tensor *y = tl_op_output(&op, x->rank, x->shape);
    if (y == NULL) {
        return NULL;
    }
    const int64_t C = x->shape[x->rank - 1];
    const tl_real *from = x->storage->data;
    for (int64_t row = 0; row < x->size; row += C) {
        const double r = sqrt(dot(C, from + row, from + row) / (double)C + epsilon);
        for (int64_t i = row; i < row + C; i++) {
            y->storage->data[i] = (tl_real)((double)from[i] / r);
        }
    }
    tl_op_save_input(&op, 0);
    tl_op_set_flops(&op, 3 * (double)x->size, 7 * (double)x->size);
    return tl_op_finish(&op, rms_norm_backward);
}

/* L = sum_i weights_i y_i, and its gradient; NaN after an error. */
static double objective(tl_tape *tape, tl_real *x, const tl_real *weights, tl_real *dx) {
    tl_tape_reset(tape);
    const tl_array array = {.rank = 2, .shape = {ROWS, CHANNELS}, .data = x};
    tl_tensor *input = tl_input_with_grad(tape, &array);
    tl_tensor *y = rms_norm(tape, input);
    if (tl_backward_from(tape, 1, &y, &weights) != TL_OK) {
        return NAN;
    }
    memcpy(dx, tl_tensor_grad(input), SIZE * sizeof *dx);
    return dot(SIZE, weights, tl_tensor_data(y));
}

int main(void) {
    tl_real x[SIZE], weights[SIZE], dx[SIZE], unused[SIZE];
    const bool in_double = sizeof(tl_real) == sizeof(double);
    const double h = in_double ? 1e-5 : 1e-2, tolerance = in_double ? 1e-6 : 1e-2;
    double worst = 0, largest = 0;
    tl_tape *tape = tl_tape_create(NULL);
    tl_random random = tl_random_create(1, TL_RANDOM_SYNTHETIC, 0);
    for (int i = 0; i < SIZE; i++) {
        x[i] = (tl_real)tl_random_normal(&random);
        weights[i] = (tl_real)tl_random_normal(&random);
    }
    (void)objective(tape, x, weights, dx);
    for (int i = 0; i < SIZE; i++) {
        const tl_real middle = x[i];
        x[i] = middle + (tl_real)h;
        const double up = objective(tape, x, weights, unused);
        x[i] = middle - (tl_real)h;
        const double numeric = (up - objective(tape, x, weights, unused)) / (2 * h);
        x[i] = middle;
        worst = fmax(worst, fabs((double)dx[i] - numeric));
        largest = fmax(largest, fabs(numeric));
    }
    tl_tape_free(tape);
    printf("the gradient %s\n", worst <= tolerance * largest ? "agrees" : "DIFFERS");
    return worst <= tolerance * largest ? 0 : 1;
}
