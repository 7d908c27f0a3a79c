/* hdf5_lock.h - one thread at a time in libhdf5, which keeps global state (the only reason for a
 * global lock in this library), and quietly: between the two calls its error printing is off. */
#ifndef TL_HDF5_LOCK_H
#define TL_HDF5_LOCK_H

#include <stdbool.h>

#include <hdf5.h>

/* What printing was set to, to be set again. */
typedef struct tl_hdf5_quiet {
    H5E_auto2_t function;
    void *data;
    bool saved;
} tl_hdf5_quiet;

tl_hdf5_quiet tl_hdf5_lock(void);
void tl_hdf5_unlock(tl_hdf5_quiet quiet);

/* What is common to files we write and read. */
#define TL_CHECKPOINT_FORMAT "tapeline-checkpoint"
enum { TL_CHECKPOINT_VERSION = 1 };

#endif
