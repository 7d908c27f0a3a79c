/* hdf5_lock.h - one thread at a time in libhdf5, which keeps global state (the only reason for a
 * global lock in this library), and quietly: between the two calls its error printing is off. */
#ifndef TL_HDF5_LOCK_H
#define TL_HDF5_LOCK_H

#include <stdbool.h>

#include <hdf5.h>

#include "core/context_internal.h"

/* What printing was set to, to be set again. */
typedef struct tl_hdf5_quiet {
    H5E_auto2_t function;
    void *data;
    bool saved;
} tl_hdf5_quiet;

tl_hdf5_quiet tl_hdf5_lock(void);
void tl_hdf5_unlock(tl_hdf5_quiet quiet);

/* TL_ERROR_OUT_OF_MEMORY unless there is memory for what libhdf5 allocates by itself in one save or
 * load (a few chunks, their filters, its tables). It does not survive a refusal: version 1.10 may
 * crash, so this is asked first. */
tl_status tl_hdf5_require_memory(tl_error *error);

/* A name for a file in memory, while the lock is held. Each is new: where memory fails, libhdf5 may
 * keep a file open, and then opens no other of its name. */
enum { TL_HDF5_NAME_SIZE = 40 };
const char *tl_hdf5_new_name(char name[TL_HDF5_NAME_SIZE]);

/* What is common to files we write and read. */
#define TL_CHECKPOINT_FORMAT "tapeline-checkpoint"
enum { TL_CHECKPOINT_VERSION = 1 };

#endif
