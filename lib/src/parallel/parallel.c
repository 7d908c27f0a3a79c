/* parallel.c - averages over ranks, on top of a transport.
 *
 * What is averaged is copied into one array, summed over the ranks and copied back: a message costs
 * its latency however short it is, and a network has dozens of small tensors. Gradients depart in
 * buckets while the backward pass goes on (docs/decisions.md).
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
    int64_t *place; /* per parameter: where in the buffer its gradient is, -1: not there */
    int place_count;
};

/* Gradients that go together. */
static const int64_t bucket_size = 65536;

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
    if (parallel->context == NULL) {
        return;
    }
    tl_memory_release(parallel->context, parallel->buffer,
                      (size_t)parallel->buffer_size * sizeof *parallel->buffer);
    tl_memory_release(parallel->context, parallel->place,
                      (size_t)parallel->place_count * sizeof *parallel->place);
    parallel->context = NULL;
    parallel->buffer = NULL;
    parallel->place = NULL;
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

/* Room for all of the parameters. */
static tl_status reserve(tl_parallel *parallel, const tl_parameters *parameters, tl_error *error) {
    tl_context *context = tl_parameters_context(parameters);
    const int count = tl_parameters_count(parameters);
    int64_t size = 0;
    for (int i = 0; i < count; i++) {
        size += tl_parameters_at(parameters, i).tensor->size;
    }
    if (parallel->context == context && parallel->buffer_size >= size &&
        parallel->place_count >= count) {
        return TL_OK;
    }
    release_buffer(parallel);
    parallel->context = context;
    parallel->buffer_size = size;
    parallel->place_count = count;
    const size_t bytes = (size_t)size * sizeof *parallel->buffer;
    parallel->buffer = tl_memory_allocate(context, bytes);
    parallel->place = tl_memory_allocate(context, (size_t)count * sizeof *parallel->place);
    if (parallel->buffer == NULL || parallel->place == NULL) {
        release_buffer(parallel);
        return tl_memory_fail(context, error, "parallel: what the ranks exchange", bytes);
    }
    return TL_OK;
}

static bool is_buffer(const tl_parameter *parameter) {
    return parameter->group == TL_GROUP_BUFFER;
}

static bool is_any(const tl_parameter *parameter) {
    (void)parameter;
    return true;
}

typedef bool (*choice)(const tl_parameter *parameter);

static void divide_by_ranks(tl_parallel *parallel, int64_t count) {
    const tl_context *context = parallel->context;
    context->kernels->vector->scale(
        context->threads, count, (tl_real)(1.0 / (double)parallel->ranks.count), parallel->buffer);
}

/* ------------------------------------------------------------------ gradients */

/* Gradients on their way. They lie in the buffer in the order in which the backward pass completes
 * them, which is the same on all ranks; those before `sent` have departed. */
typedef struct departure {
    tl_parallel *parallel;
    const tl_parameters *parameters;
    int expected; /* the parameter that is looked for first */
    int64_t filled;
    int64_t sent;
    tl_status status;
    tl_error *error;
} departure;

static void send_bucket(departure *d) {
    if (d->status == TL_OK && d->filled > d->sent) {
        d->status = tl_transport_start_sum(d->parallel->transport, d->parallel->buffer + d->sent,
                                           d->filled - d->sent, sizeof(tl_real), d->error);
    }
    d->sent = d->filled;
}

static void add_gradient(departure *d, int index, const tl_tensor *tensor) {
    memcpy(d->parallel->buffer + d->filled, tensor->grad, (size_t)tensor->size * sizeof(tl_real));
    d->parallel->place[index] = d->filled;
    d->filled += tensor->size;
    if (d->filled - d->sent >= bucket_size) {
        send_bucket(d);
    }
}

/* Its number, or -1 if the tensor is none of the parameters. Gradients are completed in about the
 * reverse of the order in which parameters were added. */
static int find_parameter(departure *d, const tl_tensor *tensor) {
    const int count = tl_parameters_count(d->parameters);
    for (int tried = 0; tried < count; tried++) {
        const int index = (d->expected + count - tried) % count;
        if (tl_parameters_at(d->parameters, index).tensor == tensor) {
            d->expected = (index + count - 1) % count;
            return index;
        }
    }
    return -1;
}

static void gradient_ready(void *user, tl_tensor *tensor) {
    departure *d = user;
    const int index = find_parameter(d, tensor);
    if (index >= 0) {
        add_gradient(d, index, tensor);
    }
    tl_transport_progress(d->parallel->transport);
}

/* What has a gradient from an earlier backward pass alone departs last. */
static void send_rest(departure *d) {
    for (int i = 0; i < tl_parameters_count(d->parameters); i++) {
        const tl_tensor *tensor = tl_parameters_at(d->parameters, i).tensor;
        if (d->parallel->place[i] < 0 && tensor->has_grad && tensor->requires_grad) {
            add_gradient(d, i, tensor);
        }
    }
    send_bucket(d);
}

static tl_status backward(tl_tape *tape, tl_tensor *loss, tl_error *error) {
    const tl_status status = tl_backward(tape, loss);
    if (status != TL_OK && error != NULL) {
        *error = tape->error;
    }
    return status;
}

tl_status tl_parallel_backward(tl_parallel *parallel, tl_tape *tape, tl_tensor *loss,
                               tl_parameters *parameters, tl_error *error) {
    tl_error_clear(error);
    if (parallel->ranks.count == 1) {
        return backward(tape, loss, error);
    }
    TL_TRY(reserve(parallel, parameters, error));
    const int count = tl_parameters_count(parameters);
    for (int i = 0; i < count; i++) {
        parallel->place[i] = -1;
    }
    departure d = {
        .parallel = parallel, .parameters = parameters, .expected = count - 1, .error = error};
    tape->gradient_ready = gradient_ready;
    tape->gradient_user = &d;
    const tl_status status = backward(tape, loss, error);
    tape->gradient_ready = NULL;
    tape->gradient_user = NULL;
    if (status == TL_OK) {
        send_rest(&d);
    }
    /* whatever has departed must arrive, the buffer being its */
    tl_error waiting;
    const tl_status arrived = tl_transport_wait(parallel->transport, &waiting);
    TL_TRY(status);
    TL_TRY(d.status);
    if (arrived != TL_OK) {
        return tl_fail(error, arrived, "%s", waiting.message);
    }
    divide_by_ranks(parallel, d.filled);
    for (int i = 0; i < count; i++) {
        const tl_tensor *tensor = tl_parameters_at(parameters, i).tensor;
        if (parallel->place[i] >= 0) {
            memcpy(tensor->grad, parallel->buffer + parallel->place[i],
                   (size_t)tensor->size * sizeof *tensor->grad);
        }
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ values */

/* Copies the values of the chosen tensors to the buffer, one behind the other. Returns how many. */
static int64_t gather(tl_parallel *parallel, const tl_parameters *parameters, choice chosen) {
    tl_real *at = parallel->buffer;
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter parameter = tl_parameters_at(parameters, i);
        if (chosen(&parameter)) {
            memcpy(at, parameter.tensor->storage->data,
                   (size_t)parameter.tensor->size * sizeof *at);
            at += parameter.tensor->size;
        }
    }
    return at - parallel->buffer;
}

tl_status tl_parallel_average_buffers(tl_parallel *parallel, tl_parameters *parameters,
                                      tl_error *error) {
    if (parallel->ranks.count == 1) {
        return TL_OK;
    }
    TL_TRY(reserve(parallel, parameters, error));
    const int64_t size = gather(parallel, parameters, is_buffer);
    TL_TRY(tl_transport_sum(parallel->transport, parallel->buffer, size, sizeof(tl_real), error));
    divide_by_ranks(parallel, size);
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
    const int count = tl_parameters_count(parameters);
    TL_TRY(reserve(parallel, parameters, error));
    const size_t bytes = (size_t)count * sizeof(double);
    double *different = tl_memory_allocate(context, bytes);
    if (different == NULL) {
        return tl_memory_fail(context, error, "parallel: check", bytes);
    }
    const int64_t size = gather(parallel, parameters, is_any);
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
