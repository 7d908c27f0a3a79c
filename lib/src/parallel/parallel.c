/* parallel.c - averages over ranks, on top of a transport.
 *
 * What is averaged is copied into one array, summed over the ranks in one message and copied back:
 * a message costs its latency however short it is, and a network has dozens of small tensors.
 */
#include <tapeline/parallel.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/tape_internal.h"
#include "parallel/transport.h"

struct tl_parallel {
    tl_transport *transport;
    tl_ranks ranks;
    int local;
    tl_context *context; /* that the buffer was taken from */
    tl_real *buffer;
    int64_t buffer_size;
};

static tl_status sum_doubles(void *user, double *values, int64_t length, tl_error *error) {
    const tl_parallel *parallel = user;
    return tl_transport_sum(parallel->transport, values, length, sizeof *values, error);
}

/* Into how many processes a launcher says it put this program; 1 if none says so. */
static long launched_processes(void) {
    static const char *const names[] = {
        "OMPI_COMM_WORLD_SIZE", /* Open MPI */
        "PMI_SIZE",             /* MPICH, Intel MPI, Slurm */
        "MV2_COMM_WORLD_SIZE",  /* MVAPICH */
    };
    long most = 1;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        const long count = text != NULL ? strtol(text, NULL, 10) : 1;
        most = count > most ? count : most;
    }
    return most;
}

bool tl_parallel_is_built_in(void) {
    return tl_transport_is_mpi;
}

tl_parallel *tl_parallel_create(tl_error *error) {
    tl_error_clear(error);
    tl_parallel *parallel = calloc(1, sizeof *parallel);
    if (parallel == NULL) {
        (void)tl_fail(error, TL_ERROR_OUT_OF_MEMORY, "parallel: out of memory");
        return NULL;
    }
    tl_transport_ranks ranks;
    if (tl_transport_open(&parallel->transport, &ranks, error) != TL_OK) {
        free(parallel);
        return NULL;
    }
    parallel->ranks =
        (tl_ranks){.rank = ranks.rank, .count = ranks.count, .sum = sum_doubles, .user = parallel};
    parallel->local = ranks.local;
    const long launched = launched_processes();
    if (ranks.count == 1 && launched > 1) {
        (void)tl_fail(error, TL_ERROR_UNSUPPORTED, "started as one of %ld processes, but %s",
                      launched, tl_transport_advice);
        tl_parallel_free(parallel);
        return NULL;
    }
    return parallel;
}

static void release_buffer(tl_parallel *parallel) {
    if (parallel->buffer != NULL) {
        tl_memory_release(parallel->context, parallel->buffer,
                          (size_t)parallel->buffer_size * sizeof(tl_real));
        parallel->buffer = NULL;
    }
}

void tl_parallel_free(tl_parallel *parallel) {
    if (parallel == NULL) {
        return;
    }
    release_buffer(parallel);
    tl_transport_close(parallel->transport);
    free(parallel);
}

int tl_parallel_rank(const tl_parallel *parallel) {
    return parallel->ranks.rank;
}

int tl_parallel_ranks(const tl_parallel *parallel) {
    return parallel->ranks.count;
}

int tl_parallel_local_ranks(const tl_parallel *parallel) {
    return parallel->local;
}

void tl_parallel_abort(tl_parallel *parallel, int exit_code) {
    if (parallel->ranks.count > 1) {
        tl_transport_abort(parallel->transport, exit_code);
    }
}

void tl_parallel_attach(tl_parallel *parallel, tl_tape *tape, bool synchronize_batch_norm) {
    const bool alone = parallel == NULL || parallel->ranks.count == 1;
    tape->ranks = alone ? NULL : &parallel->ranks;
    tape->synchronize_batch_norm = !alone && synchronize_batch_norm;
}

tl_status tl_parallel_sum(tl_parallel *parallel, double *values, int64_t count, tl_error *error) {
    return parallel->ranks.count > 1 ? sum_doubles(parallel, values, count, error) : TL_OK;
}

/* ------------------------------------------------------------------ tensors */

/* Makes the buffer hold `size` numbers. */
static tl_status reserve(tl_parallel *parallel, tl_context *context, int64_t size,
                         tl_error *error) {
    if (parallel->context == context && parallel->buffer_size >= size) {
        return TL_OK;
    }
    release_buffer(parallel);
    const size_t bytes = (size_t)size * sizeof(tl_real);
    tl_real *buffer = tl_memory_allocate(context, bytes);
    if (buffer == NULL) {
        return tl_memory_fail(context, error, "parallel: what the ranks exchange", bytes);
    }
    parallel->context = context;
    parallel->buffer = buffer;
    parallel->buffer_size = size;
    return TL_OK;
}

static bool is_buffer(const tl_parameter *parameter) {
    return parameter->group == TL_GROUP_BUFFER;
}

static bool is_trained(const tl_parameter *parameter) {
    return !is_buffer(parameter) && parameter->tensor->requires_grad;
}

static bool is_any(const tl_parameter *parameter) {
    (void)parameter;
    return true;
}

typedef bool (*choice)(const tl_parameter *parameter);

static int64_t size_of(const tl_parameters *parameters, choice chosen) {
    int64_t size = 0;
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        size += chosen(&parameter) ? parameter.tensor->size : 0;
    }
    return size;
}

/* The buffer's first `count` numbers become their means over the ranks. */
static tl_status average(tl_parallel *parallel, int64_t count, tl_error *error) {
    TL_TRY(tl_transport_sum(parallel->transport, parallel->buffer, count, sizeof(tl_real), error));
    const tl_context *context = parallel->context;
    context->kernels->vector->scale(
        context->threads, count, (tl_real)(1.0 / (double)parallel->ranks.count), parallel->buffer);
    return TL_OK;
}

/* The tensor's gradient, wherever it has had none so far; NULL if memory fails. */
static tl_real *gradient_of(tl_tensor *tensor) {
    if (tensor->grad == NULL) {
        tensor->grad = tl_memory_allocate(tensor->context, (size_t)tensor->size * sizeof(tl_real));
    }
    return tensor->grad;
}

/* Behind the gradients goes a number a parameter: 1 if this rank has a gradient. */
tl_status tl_parallel_average_gradients(tl_parallel *parallel, tl_parameters *parameters,
                                        tl_error *error) {
    if (parallel->ranks.count == 1) {
        return TL_OK;
    }
    tl_context *context = tl_parameters_context(parameters);
    const int count = tl_parameters_count(parameters);
    const int64_t size = size_of(parameters, is_trained);
    TL_TRY(reserve(parallel, context, size + count, error));
    tl_real *has_gradient = parallel->buffer + size;
    tl_real *at = parallel->buffer;
    for (int i = 0; i < count; i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        const tl_tensor *tensor = parameter.tensor;
        has_gradient[i] = is_trained(&parameter) && tensor->has_grad ? 1 : 0;
        if (is_trained(&parameter)) {
            const size_t bytes = (size_t)tensor->size * sizeof *at;
            if (tensor->has_grad) {
                memcpy(at, tensor->grad, bytes);
            } else {
                memset(at, 0, bytes);
            }
            at += tensor->size;
        }
    }
    TL_TRY(average(parallel, size + count, error));
    at = parallel->buffer;
    for (int i = 0; i < count; i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        if (!is_trained(&parameter)) {
            continue;
        }
        if (has_gradient[i] > 0) {
            tl_real *gradient = gradient_of(parameter.tensor);
            if (gradient == NULL) {
                return tl_memory_fail(context, error, parameter.name,
                                      (size_t)parameter.tensor->size * sizeof *gradient);
            }
            memcpy(gradient, at, (size_t)parameter.tensor->size * sizeof *gradient);
            parameter.tensor->has_grad = true;
        }
        at += parameter.tensor->size;
    }
    return TL_OK;
}

/* Copies the values of the chosen tensors to the buffer, one behind the other. */
static void gather(tl_parallel *parallel, const tl_parameters *parameters, choice chosen) {
    tl_real *at = parallel->buffer;
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        if (chosen(&parameter)) {
            memcpy(at, parameter.tensor->storage->data,
                   (size_t)parameter.tensor->size * sizeof *at);
            at += parameter.tensor->size;
        }
    }
}

tl_status tl_parallel_average_buffers(tl_parallel *parallel, tl_parameters *parameters,
                                      tl_error *error) {
    if (parallel->ranks.count == 1) {
        return TL_OK;
    }
    const int64_t size = size_of(parameters, is_buffer);
    TL_TRY(reserve(parallel, tl_parameters_context(parameters), size, error));
    gather(parallel, parameters, is_buffer);
    TL_TRY(average(parallel, size, error));
    const tl_real *at = parallel->buffer;
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        if (is_buffer(&parameter)) {
            memcpy(parameter.tensor->storage->data, at,
                   (size_t)parameter.tensor->size * sizeof *at);
            at += parameter.tensor->size;
        }
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ agreement */

/* How many ranks have other bits than the buffer, which holds rank 0's, per parameter. */
static tl_status count_different(tl_parallel *parallel, const tl_parameters *parameters,
                                 double *different, tl_error *error) {
    const tl_real *at = parallel->buffer;
    const int count = tl_parameters_count(parameters);
    for (int i = 0; i < count; i++) {
        const tl_tensor *tensor = tl_parameters_at(parameters, i).tensor;
        different[i] =
            memcmp(at, tensor->storage->data, (size_t)tensor->size * sizeof *at) != 0 ? 1 : 0;
        at += tensor->size;
    }
    return sum_doubles(parallel, different, count, error);
}

tl_status tl_parallel_check_equal(tl_parallel *parallel, const tl_parameters *parameters,
                                  tl_error *error) {
    if (parallel->ranks.count == 1) {
        return TL_OK;
    }
    tl_context *context = tl_parameters_context(parameters);
    const int64_t size = size_of(parameters, is_any);
    const int count = tl_parameters_count(parameters);
    TL_TRY(reserve(parallel, context, size, error));
    const size_t bytes = (size_t)count * sizeof(double);
    double *different = tl_memory_allocate(context, bytes);
    if (different == NULL) {
        return tl_memory_fail(context, error, "parallel: check", bytes);
    }
    gather(parallel, parameters, is_any);
    tl_status status =
        tl_transport_broadcast(parallel->transport, parallel->buffer, size, sizeof(tl_real), error);
    if (status == TL_OK) {
        status = count_different(parallel, parameters, different, error);
    }
    for (int i = 0; i < count && status == TL_OK; i++) {
        if (different[i] > 0) {
            status =
                tl_fail(error, TL_ERROR_STATE,
                        "parallel: %s: expected the same values on all %d ranks, found others "
                        "than rank 0's on %.0f",
                        tl_parameters_at(parameters, i).name, parallel->ranks.count, different[i]);
        }
    }
    tl_memory_release(context, different, bytes);
    return status;
}
