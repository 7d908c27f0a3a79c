/* parallel.h - training on several processes, on one machine or many.
 *
 * Data parallel: every process, a *rank*, holds the whole network, works on an equal part of each
 * batch (tl_loader_config.shares), and averages its gradients with the others'; so all take the
 * same step. The processes are started together (mpirun -n 4 PROGRAM) and talk through MPI where
 * the library was built with it (-DTAPELINE_MPI=ON); without, there is one rank, and all functions
 * below do what little that leaves.
 *
 *     tl_parallel *parallel = tl_parallel_create(&error);
 *     tl_parallel_attach(parallel, tape, true);
 *     loader_config.shares = tl_parallel_ranks(parallel);
 *     loader_config.share = tl_parallel_rank(parallel);
 *     ...
 *     tl_parallel_backward(parallel, tape, loss, parameters, &error);     (for tl_backward)
 *     tl_optimizer_step(optimizer);
 *
 * With statistics of batch norm over all ranks (tl_parallel_attach) n ranks with batches of B / n
 * follow one with batches of B, but for the order in which sums are rounded. With the same number
 * of ranks a run is repeated to the bit at any number of threads, as far as the MPI library adds in
 * the same order (Open MPI and MPICH do on the same machines).
 *
 * Functions that return a tl_status after tl_parallel_attach are *collective*: all ranks call them,
 * in the same order. A rank that cannot go on while others may be waiting for it must end them
 * (tl_parallel_abort). All calls come from the thread that created the object.
 */
#ifndef TL_PARALLEL_H
#define TL_PARALLEL_H

#include <tapeline/parameters.h>
#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_parallel tl_parallel;

/* True if the library was built with MPI. */
TL_API bool tl_parallel_is_built_in(void);

/* Joins the processes that were started together; starts MPI unless the program has. NULL with
 * TL_ERROR_UNSUPPORTED if a launcher started several processes and they cannot find each other (no
 * MPI in the library, or another MPI's launcher), TL_ERROR_IO if MPI fails. */
TL_API tl_parallel *tl_parallel_create(tl_error *error);

/* Ends MPI if tl_parallel_create started it: all ranks call it, and then no more can be created.
 * Free the tapes it is attached to first, and it before the contexts of parameters it was given.
 * NULL is fine. */
TL_API void tl_parallel_free(tl_parallel *parallel);

/* 0 ... ranks - 1. Rank 0 is the one to print and to save. */
TL_API int tl_parallel_rank(const tl_parallel *parallel);
TL_API int tl_parallel_ranks(const tl_parallel *parallel);
/* How many of them share this machine. */
TL_API int tl_parallel_local_ranks(const tl_parallel *parallel);

/* Ends all ranks at once, with this exit code where the launcher passes it on. Returns, having done
 * nothing, if there is only one. */
TL_API void tl_parallel_abort(tl_parallel *parallel, int exit_code);

/* The tape's operations work on this rank's part of a batch: dropout masks differ between ranks;
 * and if `synchronize_batch_norm`, batch norm in training takes mean and variance over the rows of
 * all ranks, for 2 C + 1 doubles summed over the ranks in forward and 2 C in backward. May be
 * called again after a reset, to change that. `parallel` NULL: the tape works alone again. */
TL_API void tl_parallel_attach(tl_parallel *parallel, tl_tape *tape, bool synchronize_batch_norm);

/* Replaces values[0 ... count-1] by their sums over all ranks: the same bits on each. */
TL_API tl_status tl_parallel_sum(tl_parallel *parallel, double *values, int64_t count,
                                 tl_error *error);

/* tl_backward, and the gradients of the parameters become their means over the ranks: for a loss
 * that is a mean over the images of a rank's part, and equal parts, the gradient of the mean over
 * all images. They travel while the backward pass goes on. All ranks record the same operations. To
 * add up the gradients of several backward passes, use this for the last alone. The tape's error is
 * also `error`.
 */
TL_API tl_status tl_parallel_backward(tl_parallel *parallel, tl_tape *tape, tl_tensor *loss,
                                      tl_parameters *parameters, tl_error *error);

/* Replaces the values of what is not trained by their means over the ranks: running means and
 * variances, which differ between ranks where batch norm is not synchronized. Do it before they are
 * used or saved. */
TL_API tl_status tl_parallel_average_buffers(tl_parallel *parallel, tl_parameters *parameters,
                                             tl_error *error);

/* TL_ERROR_STATE, on every rank, if a parameter or buffer does not have the same bits on all; the
 * message names the first. They part if ranks start from different seeds or checkpoints, or do not
 * run the same instruction set (TL_ISA). */
TL_API tl_status tl_parallel_check_equal(tl_parallel *parallel, const tl_parameters *parameters,
                                         tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
