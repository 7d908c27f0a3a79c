/* user_block.h - the 512 bytes in front of a checkpoint's HDF5 data. Layout: user_block.c. */
#ifndef TL_USER_BLOCK_H
#define TL_USER_BLOCK_H

#include <stdint.h>

#include "core/error_internal.h"

enum { TL_USER_BLOCK_SIZE = 512 };

/* Fills the first TL_USER_BLOCK_SIZE bytes of a file of `bytes` bytes from the rest of it. */
void tl_user_block_fill(unsigned char *file, uint64_t bytes);

/* Checks magic, version and length, given the first TL_USER_BLOCK_SIZE bytes. `path` is for the
 * message. */
tl_status tl_user_block_check_head(const unsigned char *block, uint64_t file_bytes,
                                   const char *path, tl_error *error);
/* Checks the digest and every other byte of the block, given the whole file. */
tl_status tl_user_block_check(const unsigned char *file, uint64_t bytes, const char *path,
                              tl_error *error);

#endif
