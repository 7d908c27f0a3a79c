/* hdf5_file.h - a state as HDF5 in memory. Both functions hold the lock of hdf5_lock.h. */
#ifndef TL_HDF5_FILE_H
#define TL_HDF5_FILE_H

#include "core/state_internal.h"

/* The HDF5 data of a state, with TL_USER_BLOCK_SIZE bytes in front for the caller to fill. The
 * memory is the caller's, to be released with its size. */
tl_status tl_hdf5_write(tl_context *context, const tl_state *state, unsigned char **data,
                        size_t *bytes, const char *path, tl_error *error);

/* Puts all that the HDF5 data hold into `state`. `data` begin with the user block and are not
 * changed. `path` is for messages. */
tl_status tl_hdf5_read(tl_state *state, unsigned char *data, size_t bytes, const char *path,
                       tl_error *error);

#endif
