/* Offset  Bytes  Content (numbers are little-endian)
 *      0      8  magic: 89 'T' 'L' 'C' 'K' 0D 0A 1A
 *      8      4  version of this block, 1
 *     12      4  size of this block, 512: the HDF5 data begin there
 *     16      8  length of the whole file
 *     24     32  SHA-256 of everything from byte 512 to the end
 *     56     72  a line for people who look at the file, then zeros
 *    128    384  zeros
 *
 * The magic's first byte is not ASCII, and it holds both kinds of line end and a control-Z, so that
 * a transfer in text mode shows (as in PNG). Every byte of the block is determined by the rest of
 * the file, so any change in it is found.
 */
#include "io/user_block.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "io/sha256.h"

enum {
    MAGIC_SIZE = 8,
    VERSION_OFFSET = 8,
    SIZE_OFFSET = 12,
    LENGTH_OFFSET = 16,
    DIGEST_OFFSET = 24,
    NOTE_OFFSET = 56,
    VERSION = 1,
};

static const unsigned char magic[MAGIC_SIZE] = {0x89, 'T', 'L', 'C', 'K', '\r', '\n', 0x1a};
static const unsigned char hdf5_magic[MAGIC_SIZE] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
static const char note[] = "\nTapeline checkpoint: HDF5 data from byte 512 on\n";

static void store(unsigned char *p, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) {
        p[i] = (unsigned char)(value >> (8 * i));
    }
}

static uint64_t load(const unsigned char *p, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t)p[i] << (8 * i);
    }
    return value;
}

static void compose(unsigned char block[TL_USER_BLOCK_SIZE], const unsigned char *file,
                    uint64_t bytes) {
    memset(block, 0, TL_USER_BLOCK_SIZE);
    memcpy(block, magic, sizeof magic);
    store(block + VERSION_OFFSET, VERSION, 4);
    store(block + SIZE_OFFSET, TL_USER_BLOCK_SIZE, 4);
    store(block + LENGTH_OFFSET, bytes, 8);
    tl_sha256(file + TL_USER_BLOCK_SIZE, (size_t)bytes - TL_USER_BLOCK_SIZE, block + DIGEST_OFFSET);
    memcpy(block + NOTE_OFFSET, note, sizeof note);
}

void tl_user_block_fill(unsigned char *file, uint64_t bytes) {
    unsigned char block[TL_USER_BLOCK_SIZE];
    compose(block, file, bytes);
    memcpy(file, block, sizeof block);
}

tl_status tl_user_block_check_head(const unsigned char *block, uint64_t file_bytes,
                                   const char *path, tl_error *error) {
    if (memcmp(block, hdf5_magic, sizeof hdf5_magic) == 0) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH
                       "': expected a Tapeline checkpoint, found another HDF5 file",
                       path);
    }
    if (memcmp(block, magic, sizeof magic) != 0) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH
                       "': expected a Tapeline checkpoint, found a file that begins "
                       "with the bytes %02x %02x %02x %02x",
                       path, block[0], block[1], block[2], block[3]);
    }
    const uint64_t version = load(block + VERSION_OFFSET, 4);
    if (version != VERSION) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH
                       "': expected version %d of the header, found %" PRIu64,
                       path, VERSION, version);
    }
    const uint64_t length = load(block + LENGTH_OFFSET, 8);
    if (length != file_bytes) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH "': %s: expected %" PRIu64
                       " bytes, found %" PRIu64,
                       path, file_bytes < length ? "truncated" : "damaged", length, file_bytes);
    }
    return TL_OK;
}

/* The first eight digits of a digest. */
static uint32_t digest_start(const unsigned char *block) {
    const unsigned char *d = block + DIGEST_OFFSET;
    return (uint32_t)d[0] << 24 | (uint32_t)d[1] << 16 | (uint32_t)d[2] << 8 | d[3];
}

/* Not memcmp: libFuzzer looks at what that compares, and would put the right digest into a file
 * that it has damaged. */
static bool same_digest(const unsigned char *a, const unsigned char *b) {
    unsigned difference = 0;
    for (int i = 0; i < TL_SHA256_SIZE; i++) {
        difference |= (unsigned)(a[i] ^ b[i]);
    }
    return difference == 0;
}

tl_status tl_user_block_check(const unsigned char *file, uint64_t bytes, const char *path,
                              tl_error *error) {
    unsigned char block[TL_USER_BLOCK_SIZE];
    compose(block, file, bytes);
    if (!same_digest(block + DIGEST_OFFSET, file + DIGEST_OFFSET)) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH "': damaged: expected the checksum %08" PRIx32
                       "..., found %08" PRIx32 "...",
                       path, digest_start(file), digest_start(block));
    }
    if (memcmp(block, file, sizeof block) != 0) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH
                       "': damaged: the content is whole, but the header of %d bytes "
                       "is not what was written",
                       path, TL_USER_BLOCK_SIZE);
    }
    return TL_OK;
}
