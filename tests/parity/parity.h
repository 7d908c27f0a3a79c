/* parity.h - what the adapters of the parity runner are written with.
 *
 * An adapter makes tensors of a case's inputs, calls the operation and says which result is which
 * output; the runner then starts the backward pass from the case's cotangents and compares all that
 * the case expects. Cases keep channels first, Tapeline last: PARITY_CHANNELS moves dimension 1 to
 * the end on the way in, and back on the way out (for weights [O, I, kernel...] as well).
 *
 * Functions that find a case wanting record the first problem, and the case fails; what they return
 * is then of no use but harmless (NULL, 0).
 */
#ifndef PARITY_H
#define PARITY_H

#include <tapeline/tapeline.h>

#include "parity_case.h"

typedef enum parity_layout { PARITY_AS_IS, PARITY_CHANNELS } parity_layout;

typedef struct parity_run parity_run;

typedef struct parity_adapter {
    const char *op;
    void (*function)(parity_run *run);
} parity_adapter;

/* One table a family, ending with a NULL name. */
extern const parity_adapter parity_attention[], parity_convolution[], parity_efficient_attention[],
    parity_elementwise[], parity_loss[], parity_matmul[], parity_model[], parity_non_local[],
    parity_norm[], parity_optimizer[], parity_shape[];

const parity_case *parity_run_case(const parity_run *run);
tl_context *parity_run_context(const parity_run *run);
tl_tape *parity_run_tape(const parity_run *run);
/* Records a problem, unless there is one. */
void parity_fail(parity_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool parity_failed(const parity_run *run);
/* False with the problem recorded if the status is not TL_OK. */
bool parity_ok(parity_run *run, tl_status status, const tl_error *error);

/* ---- arguments */
int64_t parity_int(parity_run *run, const char *name);
double parity_number(parity_run *run, const char *name);
const char *parity_text(parity_run *run, const char *name);
/* Exactly `count` values (-1: any number up to PARITY_MAX_INTS); returns how many. */
int parity_ints(parity_run *run, const char *name, int count, int64_t *values);
/* The argument "pairwise" of a non-local block. */
void parity_pairwise(parity_run *run, tl_pairwise *pairwise, bool *use_scale);

/* ---- tensors */
/* A differentiable tensor of "inputs" or "params"; its gradient will be compared. */
tl_tensor *parity_input(parity_run *run, const char *name, parity_layout layout);
tl_tensor *parity_param(parity_run *run, const char *name, parity_layout layout);
/* The same, or NULL if the case has none of that name. */
tl_tensor *parity_optional_param(parity_run *run, const char *name, parity_layout layout);
/* A tensor that is not differentiated (targets). */
tl_tensor *parity_constant(parity_run *run, const char *group, const char *name,
                           parity_layout layout);
/* A persistent tensor from "buffers"; compared with "buffers_after" where there is such. */
tl_tensor *parity_buffer(parity_run *run, const char *name);
/* Integers of "buffers" (labels, indices); `count` may be NULL. */
const int32_t *parity_integers(parity_run *run, const char *group, const char *name,
                               int64_t *count);
/* A tensor of the case, NULL with a problem recorded if it is not there. */
const parity_tensor *parity_tensor_of(parity_run *run, const char *group, const char *name);
/* Copies one of the case's tensors (or its part number `index` along the first dimension, if that
 * is not negative) into values of ours. */
bool parity_copy_in(parity_run *run, const parity_tensor *from, int64_t index, parity_layout layout,
                    int64_t size, tl_real *to);
/* Ours, remembered by the runner until the case ends. */
tl_real *parity_values(parity_run *run, int64_t count);

/* The result of that name: compared, and backward starts there if there is a cotangent. */
void parity_output(parity_run *run, const char *name, tl_tensor *tensor, parity_layout layout);
/* Compares values in our layout with an expected tensor (or one part of it). */
void parity_compare(parity_run *run, const char *group, const char *name, int64_t index,
                    int64_t size, const tl_real *got, parity_layout layout);
/* Loads values of "params" and "buffers" into a registry by name, all of them, channels last. */
void parity_load_parameters(parity_run *run, tl_parameters *parameters);
/* Gradients of all parameters of a registry, once backward has run. */
void parity_watch_parameters(parity_run *run, tl_parameters *parameters);
/* Things to free when the case ends. */
void parity_defer(parity_run *run, void (*release)(void *), void *object);

#endif
