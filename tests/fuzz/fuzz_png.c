/* Fuzzes the reading of PNG files. An input is a file; if its first byte is not that of a PNG file,
 * the rest is taken as its chunks, with checksums put right, so that changes reach what is in them.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/png_image.h"
#include "fuzz/fuzz_support.h"

enum { SIGNATURE = 8, CHUNK_OVERHEAD = 12 };

/* Puts the checksums of all whole chunks right. */
static void repair(uint8_t *file, size_t size) {
    static const uint8_t signature[SIGNATURE] = {137, 80, 78, 71, 13, 10, 26, 10};
    if (size < SIGNATURE) {
        return;
    }
    memcpy(file, signature, SIGNATURE);
    size_t at = SIGNATURE;
    while (size - at >= CHUNK_OVERHEAD) {
        const uint8_t *head = file + at;
        const size_t length =
            (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        if (length > size - at - CHUNK_OVERHEAD) {
            return;
        }
        const uint32_t checksum =
            (uint32_t)crc32(crc32(0, NULL, 0), file + at + 4, (uInt)(length + 4));
        for (int i = 0; i < 4; i++) {
            file[at + 8 + length + (size_t)i] = (uint8_t)(checksum >> (24 - 8 * i));
        }
        at += length + CHUNK_OVERHEAD;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size + 1);
    fuzz_require(copy != NULL, "out of memory");
    if (size > 0) {
        memcpy(copy, data, size);
    }
    if (size > 0 && data[0] != 137) {
        repair(copy, size);
    }
    const char *path = fuzz_file("picture.png", copy, size);
    picture image = {0};
    tl_error error = {0};
    if (png_image_read(&image, path, &error) == TL_OK) {
        fuzz_require(image.height >= 1 && image.width >= 1 && image.height <= PICTURE_MAX_SIDE &&
                         image.width <= PICTURE_MAX_SIDE &&
                         image.height * image.width <= PICTURE_MAX_PIXELS,
                     "a picture beyond the limits");
        fuzz_require(image.channels == 1 || image.channels == 3, "strange channels");
    } else {
        fuzz_require_message(&error);
        fuzz_require(image.pixels == NULL, "a picture although reading failed");
    }
    picture_free(&image);
    free(copy);
    return 0;
}
