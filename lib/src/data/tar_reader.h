/* tar_reader.h - walks the members of a tar archive (ustar, GNU and pax), front to back.
 *
 * Only what reading data needs: names of regular files and their contents. Long names (GNU 'L'
 * members, pax "path" records) replace the name in the header; links, folders, devices and other
 * pax records are passed over. Sizes are believed only as far as bytes are there.
 */
#ifndef TL_TAR_READER_H
#define TL_TAR_READER_H

#include "data/byte_source.h"

typedef struct tl_tar_reader {
    tl_byte_source *source;
    uint64_t left;    /* bytes of the current member's content not read yet */
    uint64_t padding; /* bytes behind them, up to a multiple of 512 */
    /* the current member */
    uint64_t size;
    char name[260]; /* its last part, without folders; "" if it is too long to be of interest */
} tl_tar_reader;

void tl_tar_reader_init(tl_tar_reader *reader, tl_byte_source *source);

/* To the next regular file; `*found` false at the archive's end. */
tl_status tl_tar_reader_next(tl_tar_reader *reader, bool *found, tl_error *error);

/* Reads `bytes` bytes of the member's content; fewer (`*got`) only at its end. An archive that ends
 * inside the member is an error. */
tl_status tl_tar_reader_read(tl_tar_reader *reader, void *out, size_t bytes, size_t *got,
                             tl_error *error);

#endif
