#include "data/byte_source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/context_internal.h"

enum { BUFFER_BYTES = 1 << 16, GZIP_WINDOW_BITS = 16 + 15, ZLIB_HEADER = 64 };

/* zlib releases without a size: it is kept in front of each block. */
static void *inflate_allocate(void *context, unsigned items, unsigned size) {
    const size_t bytes = (size_t)items * size + ZLIB_HEADER;
    uint8_t *memory = tl_memory_allocate(context, bytes);
    if (memory == NULL) {
        return NULL;
    }
    memcpy(memory, &bytes, sizeof bytes);
    return memory + ZLIB_HEADER;
}

static void inflate_release(void *context, void *address) {
    uint8_t *memory = (uint8_t *)address - ZLIB_HEADER;
    size_t bytes;
    memcpy(&bytes, memory, sizeof bytes);
    tl_memory_release(context, memory, bytes);
}

/* Reads from the file until `bytes` are there or the file ends. */
static tl_status read_file(tl_byte_source *source, uint8_t *out, size_t bytes, size_t *got,
                           tl_error *error) {
    *got = 0;
    while (*got < bytes) {
        const ssize_t n = read(source->descriptor, out + *got, bytes - *got);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return tl_fail(error, TL_ERROR_IO, TL_SHOWN_PATH ": reading failed: %s", source->path,
                           strerror(errno));
        }
        if (n == 0) {
            break;
        }
        *got += (size_t)n;
    }
    return TL_OK;
}

static bool name_demands_gzip(const char *path) {
    const size_t length = strlen(path);
    return (length > 3 && strcmp(path + length - 3, ".gz") == 0) ||
           (length > 4 && strcmp(path + length - 4, ".tgz") == 0);
}

static tl_status open_regular_file(tl_byte_source *source, tl_error *error) {
    source->descriptor = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (source->descriptor < 0) {
        return tl_fail(error, TL_ERROR_IO, TL_SHOWN_PATH ": %s", source->path, strerror(errno));
    }
    struct stat status;
    if (fstat(source->descriptor, &status) != 0) {
        return tl_fail(error, TL_ERROR_IO, TL_SHOWN_PATH ": %s", source->path, strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        return tl_fail(error, TL_ERROR_IO, TL_SHOWN_PATH ": expected a regular file, found %s",
                       source->path, S_ISDIR(status.st_mode) ? "a folder" : "another kind");
    }
    source->file_size = status.st_size;
    if (source->file_size == 0) {
        return tl_fail(error, TL_ERROR_FORMAT, TL_SHOWN_PATH ": the file is empty", source->path);
    }
    return TL_OK;
}

static tl_status detect_compression(tl_byte_source *source, tl_error *error) {
    uint8_t magic[2] = {0, 0};
    size_t got = 0;
    TL_TRY(read_file(source, magic, sizeof magic, &got, error));
    source->compressed = got == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
    if (!source->compressed && name_demands_gzip(source->path)) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": expected gzip data (1f 8b), found %02x %02x", source->path,
                       magic[0], magic[1]);
    }
    if (lseek(source->descriptor, 0, SEEK_SET) != 0) {
        return tl_fail(error, TL_ERROR_IO, TL_SHOWN_PATH ": %s", source->path, strerror(errno));
    }
    return TL_OK;
}

static tl_status start_inflating(tl_byte_source *source, tl_error *error) {
    source->buffer = tl_memory_allocate(source->context, BUFFER_BYTES);
    source->inflater =
        (z_stream){.zalloc = inflate_allocate, .zfree = inflate_release, .opaque = source->context};
    if (source->buffer == NULL || inflateInit2(&source->inflater, GZIP_WINDOW_BITS) != Z_OK) {
        tl_memory_release(source->context, source->buffer, BUFFER_BYTES);
        source->buffer = NULL;
        return tl_memory_fail(source->context, error, "decompression", BUFFER_BYTES);
    }
    return TL_OK;
}

tl_status tl_byte_source_open(tl_byte_source *source, tl_context *context, const char *path,
                              tl_error *error) {
    *source = (tl_byte_source){.context = context, .path = path, .descriptor = -1};
    tl_status status = open_regular_file(source, error);
    if (status == TL_OK) {
        status = detect_compression(source, error);
    }
    if (status == TL_OK && source->compressed) {
        status = start_inflating(source, error);
    }
    if (status != TL_OK) {
        tl_byte_source_close(source);
    }
    return status;
}

void tl_byte_source_close(tl_byte_source *source) {
    if (source->buffer != NULL) {
        inflateEnd(&source->inflater);
        tl_memory_release(source->context, source->buffer, BUFFER_BYTES);
        source->buffer = NULL;
    }
    if (source->descriptor >= 0) {
        close(source->descriptor);
        source->descriptor = -1;
    }
}

static tl_status refill(tl_byte_source *source, tl_error *error) {
    size_t got = 0;
    TL_TRY(read_file(source, source->buffer, BUFFER_BYTES, &got, error));
    source->inflater.next_in = source->buffer;
    source->inflater.avail_in = (unsigned)got;
    return TL_OK;
}

/* After a member's end: another member follows, or nothing. */
static tl_status next_member(tl_byte_source *source, tl_error *error) {
    if (source->inflater.avail_in == 0) {
        TL_TRY(refill(source, error));
    }
    if (source->inflater.avail_in == 0) {
        source->ended = true;
        return TL_OK;
    }
    if (source->inflater.next_in[0] != 0x1f || inflateReset(&source->inflater) != Z_OK) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": bytes that are not gzip data follow its end", source->path);
    }
    return TL_OK;
}

/* One call of inflate, which may deliver nothing yet. */
static tl_status inflate_some(tl_byte_source *source, uint8_t *out, unsigned bytes, unsigned *got,
                              tl_error *error) {
    z_stream *z = &source->inflater;
    *got = 0;
    if (z->avail_in == 0) {
        TL_TRY(refill(source, error));
        if (z->avail_in == 0) {
            return tl_fail(error, TL_ERROR_FORMAT,
                           TL_SHOWN_PATH ": the gzip data are cut off: the file ends after "
                                         "%lld bytes, before the data's end and checksum",
                           source->path, (long long)source->file_size);
        }
    }
    z->next_out = out;
    z->avail_out = bytes;
    const int result = inflate(z, Z_NO_FLUSH);
    *got = bytes - z->avail_out;
    if (result == Z_STREAM_END) {
        return next_member(source, error);
    }
    if (result == Z_MEM_ERROR) {
        return tl_memory_fail(source->context, error, "decompression", BUFFER_BYTES);
    }
    if (result != Z_OK && result != Z_BUF_ERROR) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": damaged gzip data, after %lld good bytes: %s", source->path,
                       (long long)(source->delivered + (int64_t)*got),
                       z->msg != NULL ? z->msg : "not a deflate stream");
    }
    return TL_OK;
}

tl_status tl_byte_source_read(tl_byte_source *source, void *out, size_t bytes, size_t *got,
                              tl_error *error) {
    uint8_t *target = out;
    *got = 0;
    if (!source->compressed) {
        TL_TRY(read_file(source, target, bytes, got, error));
        source->ended = source->ended || *got < bytes;
        source->delivered += (int64_t)*got;
        return TL_OK;
    }
    while (*got < bytes && !source->ended) {
        const size_t left = bytes - *got;
        unsigned n = 0;
        TL_TRY(inflate_some(source, target + *got, left < INT_MAX ? (unsigned)left : INT_MAX, &n,
                            error));
        *got += n;
        source->delivered += n;
    }
    return TL_OK;
}

tl_status tl_byte_source_skip(tl_byte_source *source, uint64_t bytes, uint64_t *skipped,
                              tl_error *error) {
    uint8_t waste[4096];
    *skipped = 0;
    while (*skipped < bytes) {
        const uint64_t left = bytes - *skipped;
        const size_t wanted = left < sizeof waste ? (size_t)left : sizeof waste;
        size_t got = 0;
        TL_TRY(tl_byte_source_read(source, waste, wanted, &got, error));
        *skipped += got;
        if (got < wanted) {
            break;
        }
    }
    return TL_OK;
}

uint64_t tl_byte_source_expected(const tl_byte_source *source) {
    return (uint64_t)source->file_size * (source->compressed ? TL_DEFLATE_EXPECTED_RATIO : 1);
}

uint64_t tl_byte_source_capacity(const tl_byte_source *source) {
    return (uint64_t)source->file_size * (source->compressed ? TL_DEFLATE_MAXIMUM_RATIO : 1);
}
