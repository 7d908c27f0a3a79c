/* everywhere.h - one computation on every instruction set and number of threads.
 *
 * On each instruction set that the CPU has the values must be near a reference, and the same bits
 * on 1, 2 and 3 threads.
 */
#ifndef TEST_EVERYWHERE_H
#define TEST_EVERYWHERE_H

#include "support/support.h"

/* One tensor of what is computed. */
typedef struct expected {
    const char *name;
    int64_t count;
    const double *want;
} expected;

/* Computes on an empty tape and writes the parts' values one behind the other. */
typedef void (*everywhere_function)(tl_tape *tape, const void *user, tl_real *out);

/* Computes in a context of its own; `what` names it in a message. */
void compute_on(const char *what, const char *isa, int threads, everywhere_function compute,
                const void *user, tl_real *out);

/* max|got - want| <= rtol * max|want| + atol for every part. */
void check_everywhere(const char *what, everywhere_function compute, const void *user, int parts,
                      const expected *expected_parts, double rtol, double atol);

/* Appends a tensor's values, or its gradient (zeros if there is none), to *out. */
void append_values(tl_real **out, tl_tensor *tensor);
void append_grad(tl_real **out, const tl_tensor *tensor);

#endif
