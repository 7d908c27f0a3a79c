/* transport_mpi.c - ranks are the processes of MPI_COMM_WORLD.
 *
 * MPI promises that all ranks receive the same bits from an all-reduce, which keeps their weights
 * equal. A duplicate of the communicator keeps our messages apart from the program's own.
 */
#include "parallel/transport.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/error_internal.h"

const bool tl_transport_is_mpi = true;
const char tl_transport_advice[] =
    "the MPI library sees only one: start them with the mpirun that belongs to it";

enum { MOST_REQUESTS = 64 };

struct tl_transport {
    MPI_Comm communicator;
    bool owns_mpi;
    int request_count;
    MPI_Request requests[MOST_REQUESTS];
    MPI_Status statuses[MOST_REQUESTS]; /* nobody reads them; gcc warns of MPICH's way to say so */
};

static tl_status fail(tl_error *error, const char *what, int code) {
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int length = 0;
    (void)MPI_Error_string(code, text, &length);
    return tl_fail(error, TL_ERROR_IO, "MPI: %s failed: %.300s", what, text);
}

/* The ranks on this machine. */
static int count_local(MPI_Comm communicator, int *local) {
    MPI_Comm machine;
    int code = MPI_Comm_split_type(communicator, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
    if (code == MPI_SUCCESS) {
        code = MPI_Comm_size(machine, local);
        (void)MPI_Comm_free(&machine);
    }
    return code;
}

static tl_status start_mpi(bool *started, tl_error *error) {
    int initialized = 0;
    int finalized = 0;
    (void)MPI_Initialized(&initialized);
    (void)MPI_Finalized(&finalized);
    if (finalized) {
        return tl_fail(error, TL_ERROR_STATE, "MPI was ended, and cannot be started again");
    }
    *started = !initialized;
    if (initialized) {
        return TL_OK;
    }
    int provided;
    const int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    return code == MPI_SUCCESS ? TL_OK : fail(error, "starting", code);
}

tl_status tl_transport_open(tl_transport **transport, tl_transport_ranks *ranks, tl_error *error) {
    bool started;
    const tl_status status = start_mpi(&started, error);
    if (status != TL_OK) {
        return status;
    }
    tl_transport *opened = malloc(sizeof *opened);
    if (opened == NULL) {
        return tl_fail(error, TL_ERROR_OUT_OF_MEMORY, "MPI: out of memory");
    }
    *opened = (tl_transport){.owns_mpi = started};
    int code = MPI_Comm_dup(MPI_COMM_WORLD, &opened->communicator);
    if (code != MPI_SUCCESS) {
        free(opened);
        return fail(error, "joining the ranks", code);
    }
    /* errors come back instead of ending the program */
    (void)MPI_Comm_set_errhandler(opened->communicator, MPI_ERRORS_RETURN);
    (void)MPI_Comm_rank(opened->communicator, &ranks->rank);
    (void)MPI_Comm_size(opened->communicator, &ranks->count);
    code = count_local(opened->communicator, &ranks->local);
    if (code != MPI_SUCCESS) {
        tl_transport_close(opened);
        return fail(error, "counting the ranks of a machine", code);
    }
    *transport = opened;
    return TL_OK;
}

void tl_transport_close(tl_transport *transport) {
    if (transport == NULL) {
        return;
    }
    (void)MPI_Comm_free(&transport->communicator);
    if (transport->owns_mpi) {
        (void)MPI_Finalize();
    }
    free(transport);
}

void tl_transport_abort(tl_transport *transport, int exit_code) {
    (void)MPI_Abort(transport->communicator, exit_code);
}

/* Calls to MPI take counts of int: longer arrays go in pieces. */
static int piece(int64_t left) {
    return left < INT_MAX ? (int)left : INT_MAX;
}

static MPI_Datatype type_of(size_t element) {
    return element == sizeof(double) ? MPI_DOUBLE : MPI_FLOAT;
}

tl_status tl_transport_sum(tl_transport *transport, void *values, int64_t count, size_t element,
                           tl_error *error) {
    int code = MPI_SUCCESS;
    for (int64_t done = 0; done < count && code == MPI_SUCCESS; done += piece(count - done)) {
        code =
            MPI_Allreduce(MPI_IN_PLACE, (char *)values + (size_t)done * element,
                          piece(count - done), type_of(element), MPI_SUM, transport->communicator);
    }
    return code == MPI_SUCCESS ? TL_OK : fail(error, "summing over the ranks", code);
}

tl_status tl_transport_broadcast(tl_transport *transport, void *values, int64_t count,
                                 size_t element, tl_error *error) {
    int code = MPI_SUCCESS;
    for (int64_t done = 0; done < count && code == MPI_SUCCESS; done += piece(count - done)) {
        code = MPI_Bcast((char *)values + (size_t)done * element, piece(count - done),
                         type_of(element), 0, transport->communicator);
    }
    return code == MPI_SUCCESS ? TL_OK : fail(error, "sending from rank 0", code);
}

tl_status tl_transport_start_sum(tl_transport *transport, void *values, int64_t count,
                                 size_t element, tl_error *error) {
    int code = MPI_SUCCESS;
    for (int64_t done = 0; done < count && code == MPI_SUCCESS; done += piece(count - done)) {
        if (transport->request_count == MOST_REQUESTS) {
            TL_TRY(tl_transport_wait(transport, error));
        }
        code =
            MPI_Iallreduce(MPI_IN_PLACE, (char *)values + (size_t)done * element,
                           piece(count - done), type_of(element), MPI_SUM, transport->communicator,
                           &transport->requests[transport->request_count]);
        transport->request_count += code == MPI_SUCCESS;
    }
    return code == MPI_SUCCESS ? TL_OK : fail(error, "summing over the ranks", code);
}

void tl_transport_progress(tl_transport *transport) {
    int done;
    (void)MPI_Testall(transport->request_count, transport->requests, &done, transport->statuses);
    if (done) {
        transport->request_count = 0;
    }
}

tl_status tl_transport_wait(tl_transport *transport, tl_error *error) {
    const int code =
        MPI_Waitall(transport->request_count, transport->requests, transport->statuses);
    transport->request_count = 0;
    return code == MPI_SUCCESS ? TL_OK : fail(error, "summing over the ranks", code);
}
