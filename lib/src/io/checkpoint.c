#include <tapeline/checkpoint.h>

#include "io/file.h"
#include "io/hdf5_file.h"
#include "io/user_block.h"

tl_status tl_checkpoint_save(tl_context *context, const char *path, const tl_state *state,
                             tl_error *error) {
    tl_error_clear(error);
    unsigned char *data;
    size_t bytes;
    TL_TRY(tl_hdf5_write(context, state, &data, &bytes, path, error));
    tl_user_block_fill(data, bytes);
    const tl_status status = tl_file_replace(context, path, data, bytes, error);
    tl_memory_release(context, data, bytes);
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
