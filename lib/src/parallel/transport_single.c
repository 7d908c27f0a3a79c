/* transport_single.c - one rank: sums are what they were. */
#include "parallel/transport.h"

const bool tl_transport_is_mpi = false;
const char tl_transport_advice[] =
    "this library was built without MPI: configure with -DTAPELINE_MPI=ON";

tl_status tl_transport_open(tl_transport **transport, tl_transport_ranks *ranks, tl_error *error) {
    (void)error;
    *transport = NULL;
    *ranks = (tl_transport_ranks){.rank = 0, .count = 1, .local = 1};
    return TL_OK;
}

void tl_transport_close(tl_transport *transport) {
    (void)transport;
}

void tl_transport_abort(tl_transport *transport, int exit_code) {
    (void)transport;
    (void)exit_code;
}

tl_status tl_transport_sum(tl_transport *transport, void *values, int64_t count, size_t element,
                           tl_error *error) {
    (void)transport;
    (void)values;
    (void)count;
    (void)element;
    (void)error;
    return TL_OK;
}

tl_status tl_transport_broadcast(tl_transport *transport, void *values, int64_t count,
                                 size_t element, tl_error *error) {
    return tl_transport_sum(transport, values, count, element, error);
}

tl_status tl_transport_start_sum(tl_transport *transport, void *values, int64_t count,
                                 size_t element, tl_error *error) {
    return tl_transport_sum(transport, values, count, element, error);
}

void tl_transport_progress(tl_transport *transport) {
    (void)transport;
}

tl_status tl_transport_wait(tl_transport *transport, tl_error *error) {
    (void)transport;
    (void)error;
    return TL_OK;
}
