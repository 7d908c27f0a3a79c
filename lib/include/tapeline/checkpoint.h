/* checkpoint.h - a state as a file: HDF5, compressed, checksummed, replaced atomically.
 *
 * Arrays become datasets, values attributes; h5dump and h5py read the file as it is, and
 * docs/checkpoint-format.md describes every byte of it. A block of 512 bytes in front of the HDF5
 * data holds the length and the SHA-256 of all that follows; it is verified before libhdf5 sees
 * anything, so that a damaged file is a clear error and no more.
 *
 * libhdf5 is not thread-safe as distributions build it. These functions take turns by a lock of
 * their own; a program that calls libhdf5 itself must not do so while one of them runs in another
 * thread. They print nothing and leave libhdf5's error printing as they found it.
 */
#ifndef TL_CHECKPOINT_H
#define TL_CHECKPOINT_H

#include <tapeline/state.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the state to `path`. The file is built in memory, written to "<path>.tmp", flushed to the
 * disk and renamed: at every instant the name holds the old checkpoint or the new one, whole. On
 * failure the old one stays and the temporary file is removed; after a crash it may be left, and
 * the next save takes it over. TL_ERROR_IO names what failed and why (no space, no permission,
 * another process saving to the same path); TL_ERROR_INVALID_ARGUMENT if an array's path continues
 * that of another array. The names "format", "version", "library_version" and "created" without a
 * slash are the file's own; values of these names in the state are passed over. */
TL_API tl_status tl_checkpoint_save(tl_context *context, const char *path, const tl_state *state,
                                    tl_error *error);

/* Reads a file that tl_checkpoint_save wrote, into a state the caller frees. NULL with
 * TL_ERROR_IO (no such file, not readable), TL_ERROR_FORMAT (no checkpoint, truncated, damaged,
 * another version: the message has the file, the expected and the found) or
 * TL_ERROR_OUT_OF_MEMORY. What the arrays mean and whether they fit is checked by whoever takes
 * them: tl_parameters_load_state and its like. */
TL_API tl_state *tl_checkpoint_load(tl_context *context, const char *path, tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
