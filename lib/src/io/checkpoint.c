#include <tapeline/checkpoint.h>

#include "io/file.h"
#include "io/hdf5_file.h"
#include "io/user_block.h"

tl_status tl_checkpoint_save(tl_context *context, const char *path, const tl_state *state,
                             tl_error *error) {
    tl_error_clear(error);
    tl_hdf5_image image;
    tl_status status = tl_hdf5_write(context, state, &image, path, error);
    if (status == TL_OK) {
        tl_user_block_fill(image.data, image.bytes);
        status = tl_file_replace(context, path, image.data, image.bytes, error);
    }
    tl_hdf5_image_clear(&image);
    return status;
}

tl_state *tl_checkpoint_load(tl_context *context, const char *path, tl_error *error) {
    tl_error_clear(error);
    unsigned char *data;
    size_t bytes;
    if (tl_file_read(context, path, &data, &bytes, error) != TL_OK) {
        return NULL;
    }
    tl_state *state = tl_state_create(context, error);
    if (state != NULL && tl_hdf5_read(state, data, bytes, path, error) != TL_OK) {
        tl_state_free(state);
        state = NULL;
    }
    tl_memory_release(context, data, bytes);
    return state;
}
