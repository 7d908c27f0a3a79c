#include "gradients/gradient_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ELEMENTS = 96 }; /* checked per tensor; of larger ones an evenly spread sample */
static const double step = 1e-5;
static const double absolute_bound = 1e-9; /* for gradients declared to be zero */

typedef struct checker {
    const gradient_problem *problem;
    tl_tape *tape;
    tl_real *values[GRADIENT_MAX_INPUTS];
    int64_t sizes[GRADIENT_MAX_INPUTS];
    tl_real *weights; /* r */
    int64_t output_size;
    char *report;
    size_t report_size;
} checker;

static bool disagree(checker *c, const char *format, const char *input, double a, double b,
                     double d) {
    (void)snprintf(c->report, c->report_size, format, c->problem->name, input, a, b, d);
    return false;
}

static void prepare_values(checker *c, int index) {
    const gradient_input *input = &c->problem->inputs[index];
    const int64_t size = c->sizes[index];
    const bool default_range = input->low == 0.0 && input->high == 0.0;
    const double low = default_range ? -1.0 : input->low;
    const double high = default_range ? 1.0 : input->high;
    tl_real *values = random_values(size, c->problem->seed * 64 + (uint64_t)index + 1, low, high);
    for (int64_t i = 0; i < size; i++) {
        const double offset = (double)values[i] - input->keep_away_from;
        if (input->keep_away > 0.0 && fabs(offset) < input->keep_away) {
            values[i] =
                (tl_real)(input->keep_away_from + (offset < 0.0 ? -2.0 : 2.0) * input->keep_away);
        }
    }
    if (input->distinct) {
        /* a shuffled ramp over the range */
        tl_random random = tl_random_create(c->problem->seed, 1001, (uint32_t)index);
        for (int64_t i = 0; i < size; i++) {
            values[i] = (tl_real)(low + (high - low) * ((double)i + 0.5) / (double)size);
        }
        for (int64_t i = size - 1; i > 0; i--) {
            const int64_t j = tl_random_below(&random, (uint32_t)i + 1);
            const tl_real swap = values[i];
            values[i] = values[j];
            values[j] = swap;
        }
    }
    c->values[index] = values;
}

static tl_tensor *forward(checker *c, bool with_grad, tl_tensor **inputs) {
    tl_tape_reset(c->tape);
    tl_tape_set_recording(c->tape, with_grad);
    tl_tape_set_training(c->tape, !c->problem->evaluation);
    tl_tape_set_random(c->tape, 7, 0);
    for (int i = 0; i < c->problem->input_count; i++) {
        const gradient_input *input = &c->problem->inputs[i];
        const tl_array array = array_of(input->rank, input->shape, c->values[i]);
        inputs[i] = with_grad ? tl_input_with_grad(c->tape, &array) : tl_input(c->tape, &array);
    }
    return c->problem->forward(c->tape, inputs, c->problem->user);
}

static double objective(checker *c) {
    tl_tensor *inputs[GRADIENT_MAX_INPUTS];
    tl_tensor *y = forward(c, false, inputs);
    if (y == NULL) {
        return NAN;
    }
    double sum = 0.0;
    for (int64_t i = 0; i < c->output_size; i++) {
        sum += (double)c->weights[i] * (double)tl_tensor_data(y)[i];
    }
    return sum;
}

static double numeric_gradient(checker *c, int index, int64_t element) {
    tl_real *value = &c->values[index][element];
    const tl_real saved = *value;
    const double h = step * fmax(1.0, fabs((double)saved));
    *value = (tl_real)((double)saved + h);
    const double above = objective(c);
    *value = (tl_real)((double)saved - h);
    const double below = objective(c);
    *value = saved;
    return (above - below) / (2.0 * h);
}

static bool check_input(checker *c, int index, const tl_real *analytic) {
    const gradient_input *input = &c->problem->inputs[index];
    const int64_t size = c->sizes[index];
    const int64_t count = size < MOST_ELEMENTS ? size : MOST_ELEMENTS;
    double worst = 0.0;
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const int64_t element = count == size ? i : i * size / count;
        const double numeric = numeric_gradient(c, index, element);
        const double difference = fabs((double)analytic[element] - numeric);
        if (!(difference <= worst)) {
            worst = difference;
        }
        largest = fmax(largest, fabs(numeric));
    }
    if (input->zero_gradient || (c->problem->may_vanish && largest == 0.0)) {
        for (int64_t i = 0; i < size; i++) {
            if (!(fabs((double)analytic[i]) <= absolute_bound)) {
                return disagree(c, "%s: the gradient of %s must be zero, found %g (bound %g, %g)",
                                input->name, (double)analytic[i], absolute_bound, 0.0);
            }
        }
        return true;
    }
    if (largest == 0.0) {
        return disagree(
            c, "%s: the numeric gradient of %s is all zero: nothing was checked (%g %g %g)",
            input->name, 0.0, 0.0, 0.0);
    }
    const double tolerance = c->problem->tolerance > 0.0 ? c->problem->tolerance : 1e-6;
    if (!(worst <= tolerance * largest)) {
        return disagree(c, "%s: gradient of %s: worst error %g, largest gradient %g, tolerance %g",
                        input->name, worst, largest, tolerance);
    }
    return true;
}

static bool run(checker *c) {
    const gradient_problem *problem = c->problem;
    for (int i = 0; i < problem->input_count; i++) {
        c->sizes[i] = 1;
        for (int d = 0; d < problem->inputs[i].rank; d++) {
            c->sizes[i] *= problem->inputs[i].shape[d];
        }
        prepare_values(c, i);
    }
    tl_tensor *inputs[GRADIENT_MAX_INPUTS];
    tl_tensor *y = forward(c, true, inputs);
    if (y == NULL) {
        (void)snprintf(c->report, c->report_size, "%s: %s", problem->name,
                       tl_tape_error(c->tape)->message);
        return false;
    }
    c->output_size = tl_tensor_size(y);
    c->weights = random_values(c->output_size, problem->seed * 64 + 63, -1.0, 1.0);
    const tl_real *cotangent = c->weights;
    if (tl_backward_from(c->tape, 1, &y, &cotangent) != TL_OK) {
        (void)snprintf(c->report, c->report_size, "%s: %s", problem->name,
                       tl_tape_error(c->tape)->message);
        return false;
    }
    tl_real *analytic[GRADIENT_MAX_INPUTS] = {0};
    for (int i = 0; i < problem->input_count; i++) {
        const size_t bytes = (size_t)c->sizes[i] * sizeof(tl_real);
        const tl_real *grad = tl_tensor_grad(inputs[i]);
        analytic[i] = calloc(1, bytes);
        ck_assert_ptr_nonnull(analytic[i]);
        if (grad != NULL) {
            memcpy(analytic[i], grad, bytes);
        }
    }
    bool agree = true;
    for (int i = 0; i < problem->input_count && agree; i++) {
        agree = check_input(c, i, analytic[i]);
    }
    for (int i = 0; i < problem->input_count; i++) {
        free(analytic[i]);
    }
    return agree;
}

static bool agree_on(const gradient_problem *problem, const char *isa, char *report,
                     size_t report_size) {
    tl_context *context = context_with(2, isa);
    checker c = {.problem = problem,
                 .tape = tl_tape_create(context),
                 .report = report,
                 .report_size = report_size};
    report[0] = '\0';
    const bool agree = run(&c);
    for (int i = 0; i < problem->input_count; i++) {
        free(c.values[i]);
    }
    free(c.weights);
    tl_tape_free(c.tape);
    tl_context_free(context);
    return agree;
}

bool gradients_agree(const gradient_problem *problem, char *report, size_t report_size) {
    _Static_assert(sizeof(tl_real) == sizeof(double), "gradient checks need the double library");
    bool agree = true;
    for (int i = 0; i < 3 && agree; i++) {
        agree = !isa_available(all_isas[i]) || agree_on(problem, all_isas[i], report, report_size);
    }
    return agree;
}

void check_gradients(const gradient_problem *problem) {
    char report[TL_ERROR_MESSAGE_SIZE + 128];
    const bool agree = gradients_agree(problem, report, sizeof report);
    ck_assert_msg(agree, "%s", report);
}
