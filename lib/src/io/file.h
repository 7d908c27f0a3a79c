/* file.h - a checkpoint's bytes on disk. */
#ifndef TL_FILE_H
#define TL_FILE_H

#include <stddef.h>

#include "core/context_internal.h"

/* Puts `bytes` bytes at `path`, all or nothing: see tl_checkpoint_save. */
tl_status tl_file_replace(tl_context *context, const char *path, const unsigned char *data,
                          size_t bytes, tl_error *error);

/* Reads a whole checkpoint whose user block is right. The memory is the caller's, to be released
 * with its size. Nothing is allocated for a file whose header is not a checkpoint's. */
tl_status tl_file_read(tl_context *context, const char *path, unsigned char **data, size_t *bytes,
                       tl_error *error);

#endif
