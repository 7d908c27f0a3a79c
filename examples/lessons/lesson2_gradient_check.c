/* lesson2_gradient_check - finite differences: how near they come, and how a check with them can
 * be fooled. docs/lessons/2-a-gradient-you-can-trust.md */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 5 };

/* ---- the error of (f(x + h) - f(x - h)) / 2h for f = exp(sin x) at x = 1 */

static void print_errors(void) {
    const double exact = cos(1.0) * exp(sin(1.0));
    printf("    h    float error  double error\n");
    for (int e = 1; e <= 7; e += 2) {
        const double h = pow(10.0, -e);
        const volatile float up = 1.0F + (float)h, down = 1.0F - (float)h;
        const float in_float = (expf(sinf(up)) - expf(sinf(down))) / (up - down);
        const double in_double = (exp(sin(1.0 + h)) - exp(sin(1.0 - h))) / (2.0 * h);
        printf("  1e-%d  %11.0e  %12.0e\n", e, fabs((double)in_float - exact),
               fabs(in_double - exact));
    }
}

/* ---- softmax, with a backward function that may be wrong by a factor */

static void softmax(const double *x, double *y) {
    double sum = 0;
    for (int i = 0; i < N; i++) {
        sum += y[i] = exp(x[i]);
    }
    for (int i = 0; i < N; i++) {
        y[i] /= sum;
    }
}

static void softmax_backward(const double *y, const double *dy, double factor, double *dx) {
    double dot = 0;
    for (int i = 0; i < N; i++) {
        dot += y[i] * dy[i];
    }
    for (int i = 0; i < N; i++) {
        dx[i] = factor * y[i] * (dy[i] - dot);
    }
}

/* The objective L = sum_i r_i y_i, as a function of x. */
static double objective(const double *x, const double *r) {
    double y[N], sum = 0;
    softmax(x, y);
    for (int i = 0; i < N; i++) {
        sum += r[i] * y[i];
    }
    return sum;
}

/* The largest difference between analytic and numeric gradient, and the largest numeric one. */
static double check(const double *r, double factor, double *largest) {
    double x[N] = {0.3, -1.2, 0.8, 0.1, -0.5}, y[N], dx[N], worst = 0;
    const double h = 1e-5;
    softmax(x, y);
    softmax_backward(y, r, factor, dx);
    *largest = 0;
    for (int i = 0; i < N; i++) {
        const double middle = x[i];
        x[i] = middle + h;
        const double up = objective(x, r);
        x[i] = middle - h;
        const double down = objective(x, r);
        x[i] = middle;
        const double numeric = (up - down) / (2 * h);
        worst = fmax(worst, fabs(dx[i] - numeric));
        *largest = fmax(*largest, fabs(numeric));
    }
    return worst;
}

int main(void) {
    print_errors();
    static const double ones[N] = {1, 1, 1, 1, 1}, weights[N] = {0.9, -0.4, 0.7, -1.1, 0.2};
    const double factors[] = {1, -7};
    int wrong_is_caught = 0;
    for (int f = 0; f < 2; f++) {
        double size_sum, size_weighted;
        const double sum = check(ones, factors[f], &size_sum);
        const double weighted = check(weights, factors[f], &size_weighted);
        const int sum_passes = sum <= 1e-6, weighted_passes = weighted <= 1e-6 * size_weighted;
        printf("backward times %2g: sum of y %s, weighted sum of y %s\n", factors[f],
               sum_passes ? "passes" : "FAILS ", weighted_passes ? "passes" : "FAILS");
        wrong_is_caught = !weighted_passes;
    }
    const double error = NAN;
    printf("a NaN: 'error > 1e-6' says %s, '!(error <= 1e-6)' says %s\n",
           error > 1e-6 ? "wrong" : "fine", !(error <= 1e-6) ? "wrong" : "fine");
    return wrong_is_caught ? EXIT_SUCCESS : EXIT_FAILURE;
}
