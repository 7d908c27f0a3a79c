#include "data/tar_reader.h"

#include <string.h>

#include "core/error_internal.h"

enum {
    BLOCK = 512,
    NAME_OFFSET = 0,
    NAME_BYTES = 100,
    SIZE_OFFSET = 124,
    SIZE_BYTES = 12,
    CHECKSUM_OFFSET = 148,
    CHECKSUM_BYTES = 8,
    TYPE_OFFSET = 156,
    LONGEST_EXTENSION = 8192 /* bytes of a long name or of pax records that we look at */
};

void tl_tar_reader_init(tl_tar_reader *reader, tl_byte_source *source) {
    *reader = (tl_tar_reader){.source = source};
}

/* A number in octal digits, perhaps between blanks, or (first bit set) in base 256. */
static bool parse_number(const uint8_t *field, int bytes, uint64_t *value) {
    *value = 0;
    if (field[0] & 0x80) {
        *value = field[0] & 0x7f;
        for (int i = 1; i < bytes; i++) {
            if (*value >> 55 != 0) {
                return false;
            }
            *value = *value << 8 | field[i];
        }
        return true;
    }
    int i = 0;
    while (i < bytes && field[i] == ' ') {
        i++;
    }
    const int first = i;
    while (i < bytes && field[i] >= '0' && field[i] <= '7') {
        *value = *value << 3 | (uint64_t)(field[i] - '0'); /* at most 12 digits: 36 bits */
        i++;
    }
    return i > first && (i == bytes || field[i] == ' ' || field[i] == '\0');
}

static bool checksum_holds(const uint8_t *header) {
    uint64_t stored = 0;
    uint64_t sum = 0;
    for (int i = 0; i < BLOCK; i++) {
        const bool inside = i >= CHECKSUM_OFFSET && i < CHECKSUM_OFFSET + CHECKSUM_BYTES;
        sum += inside ? ' ' : header[i];
    }
    return parse_number(header + CHECKSUM_OFFSET, CHECKSUM_BYTES, &stored) && stored == sum;
}

static bool is_zero(const uint8_t *block) {
    for (int i = 0; i < BLOCK; i++) {
        if (block[i] != 0) {
            return false;
        }
    }
    return true;
}

/* The last part of a path of `length` bytes that need not end in a zero. */
static void set_name(tl_tar_reader *reader, const char *path, size_t length) {
    size_t start = length;
    while (start > 0 && path[start - 1] != '/') {
        start--;
    }
    const size_t bytes = length - start;
    reader->name[0] = '\0';
    if (bytes < sizeof reader->name) {
        memcpy(reader->name, path + start, bytes);
        reader->name[bytes] = '\0';
    }
}

tl_status tl_tar_reader_read(tl_tar_reader *reader, void *out, size_t bytes, size_t *got,
                             tl_error *error) {
    const size_t wanted = bytes < reader->left ? bytes : (size_t)reader->left;
    TL_TRY(tl_byte_source_read(reader->source, out, wanted, got, error));
    reader->left -= *got;
    if (*got < wanted) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": the archive ends inside %.60s: expected %llu bytes "
                                     "of it, found %llu",
                       reader->source->path, reader->name[0] != '\0' ? reader->name : "a file",
                       (unsigned long long)reader->size,
                       (unsigned long long)(reader->size - reader->left));
    }
    return TL_OK;
}

/* Passes over what is left of the current member. */
static tl_status finish_member(tl_tar_reader *reader, tl_error *error) {
    uint64_t skipped = 0;
    const uint64_t size = reader->size;
    TL_TRY(tl_byte_source_skip(reader->source, reader->left, &skipped, error));
    reader->left -= skipped;
    if (reader->left > 0) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": the archive ends inside %.60s: expected %llu bytes "
                                     "of it, found %llu",
                       reader->source->path, reader->name[0] != '\0' ? reader->name : "a file",
                       (unsigned long long)size, (unsigned long long)(size - reader->left));
    }
    TL_TRY(tl_byte_source_skip(reader->source, reader->padding, &skipped, error));
    reader->padding = 0;
    return TL_OK;
}

/* "LENGTH path=VALUE\n" among the records of a pax header: the name of the next member. */
static void take_pax_path(tl_tar_reader *reader, const char *records, size_t bytes) {
    size_t at = 0;
    while (at < bytes) {
        size_t length = 0;
        size_t digit = at;
        while (digit < bytes && records[digit] >= '0' && records[digit] <= '9' &&
               length <= LONGEST_EXTENSION) {
            length = length * 10 + (size_t)(records[digit] - '0');
            digit++;
        }
        if (length > bytes - at || length < digit - at + 2) {
            return; /* not a record */
        }
        static const char key[] = " path=";
        const size_t key_bytes = sizeof key - 1;
        const size_t value = digit + key_bytes;
        if (value < at + length && memcmp(records + digit, key, key_bytes) == 0) {
            set_name(reader, records + value, at + length - 1 - value);
        }
        at += length;
    }
}

/* Reads a member that describes the next one, and takes the name in it. */
static tl_status read_extension(tl_tar_reader *reader, char type, tl_error *error) {
    char content[LONGEST_EXTENSION];
    size_t got = 0;
    TL_TRY(tl_tar_reader_read(reader, content, sizeof content, &got, error));
    if (reader->left == 0 && type == 'L') {
        set_name(reader, content, strnlen(content, got));
    } else if (reader->left == 0) {
        take_pax_path(reader, content, got);
    }
    return TL_OK;
}

/* Reads a header; `*found` false at the archive's end. */
static tl_status read_header(tl_tar_reader *reader, uint8_t *header, bool *found, tl_error *error) {
    size_t got = 0;
    TL_TRY(tl_byte_source_read(reader->source, header, BLOCK, &got, error));
    *found = got == BLOCK && !is_zero(header);
    if (got > 0 && got < BLOCK) {
        return tl_fail(error, TL_ERROR_FORMAT, TL_SHOWN_PATH ": the archive ends inside a header",
                       reader->source->path);
    }
    if (!*found) {
        return TL_OK;
    }
    if (!checksum_holds(header) || !parse_number(header + SIZE_OFFSET, SIZE_BYTES, &reader->size)) {
        return tl_fail(error, TL_ERROR_FORMAT, TL_SHOWN_PATH ": no valid tar header at byte %lld",
                       reader->source->path, (long long)(reader->source->delivered - BLOCK));
    }
    if (reader->size > tl_byte_source_capacity(reader->source)) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": a header promises %llu bytes, more than the file of "
                                     "%lld bytes can hold",
                       reader->source->path, (unsigned long long)reader->size,
                       (long long)reader->source->file_size);
    }
    reader->left = reader->size;
    reader->padding = (BLOCK - reader->size % BLOCK) % BLOCK;
    return TL_OK;
}

tl_status tl_tar_reader_next(tl_tar_reader *reader, bool *found, tl_error *error) {
    bool named = false; /* by a member in front */
    for (;;) {
        TL_TRY(finish_member(reader, error));
        if (!named) {
            reader->name[0] = '\0';
        }
        uint8_t header[BLOCK];
        TL_TRY(read_header(reader, header, found, error));
        if (!*found) {
            return TL_OK;
        }
        const char type = (char)header[TYPE_OFFSET];
        if (type == 'L' || type == 'x') {
            TL_TRY(read_extension(reader, type, error));
            named = named || reader->name[0] != '\0';
            continue;
        }
        if (type == '0' || type == '\0' || type == '7') {
            if (!named) {
                const char *name = (const char *)header + NAME_OFFSET;
                set_name(reader, name, strnlen(name, NAME_BYTES));
            }
            return TL_OK;
        }
        /* Of a link, a folder or a device no content follows, whatever its size says. */
        if (type >= '1' && type <= '6') {
            reader->left = 0;
            reader->padding = 0;
        }
        named = named && type == 'g'; /* global pax records stand between */
        if (!named) {
            reader->name[0] = '\0';
        }
    }
}
