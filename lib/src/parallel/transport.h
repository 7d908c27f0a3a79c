/* transport.h - how ranks talk: through MPI (transport_mpi.c), or not at all (transport_single.c);
 * the build takes one of the two.
 */
#ifndef TL_TRANSPORT_H
#define TL_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tapeline/error.h>

typedef struct tl_transport tl_transport;

typedef struct tl_transport_ranks {
    int rank;
    int count;
    int local; /* on this machine */
} tl_transport_ranks;

extern const bool tl_transport_is_mpi;
/* What to do if a launcher's processes do not find each other, for a message. */
extern const char tl_transport_advice[];

tl_status tl_transport_open(tl_transport **transport, tl_transport_ranks *ranks, tl_error *error);
void tl_transport_close(tl_transport *transport);
void tl_transport_abort(tl_transport *transport, int exit_code);

/* In place, over all ranks; the same bits on each. `element` is sizeof(float) or sizeof(double). */
tl_status tl_transport_sum(tl_transport *transport, void *values, int64_t count, size_t element,
                           tl_error *error);
/* The same without waiting: values may not be touched until tl_transport_wait, which waits for all
 * that was started. MPI makes progress only while it is called, as tl_transport_progress does. */
tl_status tl_transport_start_sum(tl_transport *transport, void *values, int64_t count,
                                 size_t element, tl_error *error);
void tl_transport_progress(tl_transport *transport);
tl_status tl_transport_wait(tl_transport *transport, tl_error *error);
/* Rank 0's values become everybody's. */
tl_status tl_transport_broadcast(tl_transport *transport, void *values, int64_t count,
                                 size_t element, tl_error *error);

#endif
