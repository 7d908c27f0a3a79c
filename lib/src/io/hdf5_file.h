/* hdf5_file.h - a state as HDF5 in memory. Both functions hold the lock of hdf5_lock.h. */
#ifndef TL_HDF5_FILE_H
#define TL_HDF5_FILE_H

#include "core/state_internal.h"

/* HDF5 data in tracked memory, TL_USER_BLOCK_SIZE bytes for the user block in front. */
typedef struct tl_hdf5_image {
    tl_context *context;
    unsigned char *data;
    size_t bytes;
    size_t capacity; /* of the memory */
    bool refused;    /* the context gave no memory: `data` come from malloc, to be thrown away */
} tl_hdf5_image;

/* Fills `image` from a state. tl_hdf5_image_clear it, also after a failure. */
tl_status tl_hdf5_write(tl_context *context, const tl_state *state, tl_hdf5_image *image,
                        const char *path, tl_error *error);
void tl_hdf5_image_clear(tl_hdf5_image *image);

/* Puts all that the HDF5 data hold into `state`. `data` begin with the user block and are not
 * changed. `path` is for messages. */
tl_status tl_hdf5_read(tl_state *state, unsigned char *data, size_t bytes, const char *path,
                       tl_error *error);

#endif
