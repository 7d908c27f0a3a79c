/* gradient_check.h - analytic gradients against central differences, in double precision.
 *
 * The objective is L = sum_i r_i y_i with fixed random weights r, so that code which ignores the
 * gradient that flows in, or an axis, is caught. Every input is checked: per tensor
 *     max|analytic - numeric| <= 1e-6 max|numeric|
 * A tensor whose numeric gradient is all zero fails, unless it is declared to be zero. All of it on
 * every instruction set that the CPU has.
 */
#ifndef GRADIENT_CHECK_H
#define GRADIENT_CHECK_H

#include "support/support.h"

enum { GRADIENT_MAX_INPUTS = 16 };

/* Builds the operation from its inputs. Called many times: it must be a function of the inputs. */
typedef tl_tensor *(*gradient_function)(tl_tape *tape, tl_tensor *const *inputs, const void *user);

typedef struct gradient_input {
    const char *name;
    int rank;
    int64_t shape[TL_MAX_RANK];
    double low; /* values are uniform in [low, high); both 0: [-1, 1) */
    double high;
    bool zero_gradient;    /* declared to be exactly zero: an absolute bound applies */
    double keep_away_from; /* a kink: values nearer than `keep_away` to it are moved off it */
    double keep_away;
    bool distinct; /* all values at least 1e-3 apart (max pooling) */
} gradient_input;

typedef struct gradient_problem {
    const char *name;
    gradient_function forward;
    const void *user;
    int input_count;
    gradient_input inputs[GRADIENT_MAX_INPUTS];
    bool evaluation; /* training mode off */
    bool may_vanish; /* shapes drawn at random: a tensor may have no influence; its gradient is 0 */
    uint64_t seed;
    double tolerance; /* 0: 1e-6 */
} gradient_problem;

/* Fails the running test if a gradient is wrong. */
void check_gradients(const gradient_problem *problem);

/* The same as an answer, with the reason in `report`: for testing the checker itself. */
bool gradients_agree(const gradient_problem *problem, char *report, size_t report_size);

#endif
