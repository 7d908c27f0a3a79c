/* lesson1_tape - differentiates L = (w x + b - y)^2 with a tape of its own, then with Tapeline.
 * docs/lessons/1-the-tape.md */
#include <stdio.h>
#include <stdlib.h>

#include <tapeline/tapeline.h>

/* ---- a tape of numbers */

typedef enum operation { INPUT, ADD, SUBTRACT, MULTIPLY } operation;

typedef struct node {
    operation kind;
    int a, b; /* which nodes it was computed from */
    double value;
    double grad; /* dL/d(value): filled in backwards */
} node;

static node tape[100];
static int count;

static int record(operation kind, int a, int b, double value) {
    tape[count] = (node){.kind = kind, .a = a, .b = b, .value = value};
    return count++;
}

static int input(double value) {
    return record(INPUT, 0, 0, value);
}

static int add(int a, int b) {
    return record(ADD, a, b, tape[a].value + tape[b].value);
}

static int subtract(int a, int b) {
    return record(SUBTRACT, a, b, tape[a].value - tape[b].value);
}

static int multiply(int a, int b) {
    return record(MULTIPLY, a, b, tape[a].value * tape[b].value);
}

static void backward(int loss) {
    tape[loss].grad = 1;
    for (int i = loss; i >= 0; i--) {
        const node *n = &tape[i];
        if (n->kind == ADD) {
            tape[n->a].grad += n->grad;
            tape[n->b].grad += n->grad;
        } else if (n->kind == SUBTRACT) {
            tape[n->a].grad += n->grad;
            tape[n->b].grad -= n->grad;
        } else if (n->kind == MULTIPLY) {
            tape[n->a].grad += tape[n->b].value * n->grad;
            tape[n->b].grad += tape[n->a].value * n->grad;
        }
    }
}

/* ---- the same with Tapeline */

static tl_tensor *number(tl_tape *t, tl_real *value) {
    return tl_input_with_grad(t, &(tl_array){.rank = 0, .data = value});
}

int main(void) {
    const int w = input(2), x = input(3), b = input(1), y = input(5);
    const int d = subtract(add(multiply(w, x), b), y);
    const int loss = multiply(d, d);
    backward(loss);
    printf("by hand:  L = %g  dL/dw = %g  dL/dx = %g  dL/db = %g  dL/dy = %g\n", tape[loss].value,
           tape[w].grad, tape[x].grad, tape[b].grad, tape[y].grad);

    tl_tape *t = tl_tape_create(NULL);
    tl_tensor *W = number(t, &(tl_real){2}), *X = number(t, &(tl_real){3});
    tl_tensor *B = number(t, &(tl_real){1}), *Y = number(t, &(tl_real){5});
    tl_tensor *D = tl_sub(t, tl_add(t, tl_mul(t, W, X), B), Y);
    tl_tensor *L = tl_mul(t, D, D);
    if (tl_backward(t, L) != TL_OK) {
        fprintf(stderr, "lesson1_tape: %s\n", tl_tape_error(t)->message);
        return EXIT_FAILURE;
    }
    printf("Tapeline: L = %g  dL/dw = %g  dL/dx = %g  dL/db = %g  dL/dy = %g\n",
           (double)tl_tensor_item(L), (double)*tl_tensor_grad(W), (double)*tl_tensor_grad(X),
           (double)*tl_tensor_grad(B), (double)*tl_tensor_grad(Y));
    int rows;
    const tl_cost_entry *costs = tl_tape_cost_entries(t, &rows);
    for (int i = 0; i < rows; i++) {
        printf("  %s: %lld on the tape\n", costs[i].operation, (long long)costs[i].calls);
    }
    tl_tape_free(t);
    return EXIT_SUCCESS;
}
