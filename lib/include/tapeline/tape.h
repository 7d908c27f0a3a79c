/* tape.h - define-by-run differentiation.
 *
 * Every operation takes the tape first, computes its result at once and, where a gradient will be
 * wanted, appends a node. tl_backward walks the nodes in reverse. tl_tape_reset makes the tape
 * ready for the next step and keeps its memory, so that from the second step on nothing is
 * allocated.
 *
 * Errors stick. An operation that fails returns NULL and records the first error; an operation
 * given NULL returns NULL. Check once, after tl_backward or the forward pass, as with ferror().
 * tl_tape_reset clears the error.
 *
 * A step that fails before its backward pass is through leaves parameters, running statistics and
 * the position of the random numbers as they were before it; only gradients of parameters may hold
 * a part of their sum. So after tl_parameters_clear_grads and tl_tape_reset the same step can be
 * tried again, with less memory or other data, to the bits it would have had.
 *
 * Two switches: *recording* (on by default; off for evaluation: no nodes, nothing kept) and
 * *training* (on by default; batch norm uses batch statistics, dropout drops).
 *
 * Lifetime of results. A result and its values live until tl_tape_reset. tl_release says that the
 * caller will neither read a result nor feed it to another operation: its memory is then given
 * back as soon as no backward function needs it (at once when not recording). Layers and models
 * release all their intermediate results. A released result of a normalisation is not kept at all:
 * the backward pass computes it once more, to the same bits. Gradients of intermediate results are
 * given back during the backward pass at their last use.
 */
#ifndef TL_TAPE_H
#define TL_TAPE_H

#include <tapeline/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_tape tl_tape;

/* `context` NULL: a default context that the tape owns. NULL if memory fails. */
TL_API tl_tape *tl_tape_create(tl_context *context);
TL_API void tl_tape_free(tl_tape *tape);

/* Forgets all results, nodes and errors; keeps the memory for the next step. */
TL_API void tl_tape_reset(tl_tape *tape);
/* Gives the kept memory back to the context; only right after a reset. */
TL_API void tl_tape_trim(tl_tape *tape);

/* The context it was created from, or its own. */
TL_API tl_context *tl_tape_context(const tl_tape *tape);

/* The two switches: whether operations append nodes, and how batch norm and dropout behave. They
 * act on the operations that follow. */
TL_API void tl_tape_set_recording(tl_tape *tape, bool recording);
TL_API bool tl_tape_is_recording(const tl_tape *tape);
TL_API void tl_tape_set_training(tl_tape *tape, bool training);
TL_API bool tl_tape_is_training(const tl_tape *tape);

/* The random numbers of dropout: each dropout operation takes the next stream of `seed`. `position`
 * counts them; save and restore the pair to resume exactly. Default: seed 0, position 0. */
TL_API void tl_tape_set_random(tl_tape *tape, uint64_t seed, uint64_t position);
TL_API uint64_t tl_tape_random_seed(const tl_tape *tape);
TL_API uint64_t tl_tape_random_position(const tl_tape *tape);

/* Checks every result and every gradient for NaN and infinity; the first that has one becomes an
 * error TL_ERROR_NOT_FINITE that names the operation. Costs a pass over all data. Off by default.
 */
TL_API void tl_tape_set_check_finite(tl_tape *tape, bool check);

/* TL_OK, or the status of the first error. */
TL_API tl_status tl_tape_status(const tl_tape *tape);
/* The first error; its message is "" if there is none. Valid until the tape is reset or freed. */
TL_API const tl_error *tl_tape_error(const tl_tape *tape);

/* Puts the caller's data on the tape. Nothing is copied: the data must stay unchanged until
 * tl_tape_reset (or the backward pass). */
TL_API tl_tensor *tl_input(tl_tape *tape, const tl_array *array);
/* The same, and the gradient with respect to it will be computed and kept. */
TL_API tl_tensor *tl_input_with_grad(tl_tape *tape, const tl_array *array);

/* The caller is done with a result, see above. NULL is fine. */
TL_API void tl_release(tl_tape *tape, tl_tensor *tensor);
/* Keeps the gradient of an intermediate result through the backward pass, for reading. */
TL_API void tl_retain_grad(tl_tape *tape, tl_tensor *tensor);

/* Gradients of `loss` (one element) with respect to every parameter and input that wants one,
 * added to what is there. Fails with the tape's error if an operation failed before. */
TL_API tl_status tl_backward(tl_tape *tape, tl_tensor *loss);

/* The same from any results: starts with cotangents[i] (outputs[i]'s shape; NULL means ones) as the
 * gradient of outputs[i]. */
TL_API tl_status tl_backward_from(tl_tape *tape, int count, tl_tensor *const *outputs,
                                  const tl_real *const *cotangents);

/* ---- cost: what the operations since the last reset needed */

typedef struct tl_cost {
    double forward_flops;           /* the algorithm's formula (a convolution: the direct count) */
    double backward_flops;          /* the same for backward, whether or not it has run */
    double forward_flops_executed;  /* what the kernels do, e.g. Winograd, folding */
    double backward_flops_executed; /* recomputation included */
    uint64_t saved_bytes;           /* kept for backward: each buffer counted once */
} tl_cost;

typedef struct tl_cost_entry {
    const char *operation; /* "conv2d" */
    int64_t calls;
    tl_cost cost;
} tl_cost_entry;

/* The sum over all operations since the last reset. */
TL_API tl_cost tl_tape_cost(const tl_tape *tape);
/* One row per kind of operation, in order of first use. `*count` receives how many rows there are;
 * the array belongs to the tape and is valid until its next operation. */
TL_API const tl_cost_entry *tl_tape_cost_entries(const tl_tape *tape, int *count);

#ifdef __cplusplus
}
#endif

#endif
