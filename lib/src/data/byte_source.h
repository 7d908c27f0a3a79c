/* byte_source.h - the bytes of a file, decompressed on the way if the file is gzip-compressed.
 *
 * zlib's gzread is too kind for data that must be right: it takes what is not gzip for plain bytes
 * and ignores what follows the last member. Here a compressed file is read to its last byte, every
 * checksum in it holds, or there is an error. Memory, zlib's included, is the context's.
 */
#ifndef TL_BYTE_SOURCE_H
#define TL_BYTE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <zlib.h>

#include <tapeline/context.h>
#include <tapeline/error.h>

/* How many bytes one compressed byte can become, at most (deflate's limit is just below). */
#define TL_DEFLATE_MAXIMUM_RATIO 1032

/* How many bytes we are willing to reserve per compressed byte before seeing them. */
#define TL_DEFLATE_EXPECTED_RATIO 16

typedef struct tl_byte_source {
    tl_context *context;
    const char *path;  /* borrowed */
    int descriptor;    /* -1: closed */
    int64_t file_size; /* bytes on disk */
    bool compressed;
    bool ended; /* all bytes were delivered, and all checksums held */
    int64_t delivered;
    z_stream inflater;
    uint8_t *buffer; /* compressed bytes on their way in */
} tl_byte_source;

/* Opens a regular file that is not empty. Compression is told by the first two bytes; a name that
 * ends in .gz or .tgz demands it. The source must be closed unless opening failed. */
tl_status tl_byte_source_open(tl_byte_source *source, tl_context *context, const char *path,
                              tl_error *error);

void tl_byte_source_close(tl_byte_source *source);

/* Reads `bytes` bytes; fewer (`*got`) only at the end. */
tl_status tl_byte_source_read(tl_byte_source *source, void *out, size_t bytes, size_t *got,
                              tl_error *error);

/* Reads and forgets up to `bytes` bytes. */
tl_status tl_byte_source_skip(tl_byte_source *source, uint64_t bytes, uint64_t *skipped,
                              tl_error *error);

/* The most bytes worth reserving for content that is not here yet: all of a plain file, a multiple
 * of a compressed one. */
uint64_t tl_byte_source_expected(const tl_byte_source *source);

/* The most bytes the file can hold at all. */
uint64_t tl_byte_source_capacity(const tl_byte_source *source);

#endif
