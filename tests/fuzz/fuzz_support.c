#include "fuzz/fuzz_support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { MOST_NAMES = 16, NAME_BYTES = 64, FOLDER_BYTES = 512 };

static tl_context *context;
static char folder[FOLDER_BYTES];
static char names[MOST_NAMES][NAME_BYTES];
static char paths[MOST_NAMES][FOLDER_BYTES + NAME_BYTES];
static int name_count;

void fuzz_require(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "fuzz: %s\n", what);
        abort();
    }
}

static void clean_up(void) {
    for (int i = 0; i < name_count; i++) {
        (void)unlink(paths[i]);
    }
    if (folder[0] != '\0') {
        (void)rmdir(folder);
    }
    tl_context_free(context);
    context = NULL;
}

tl_context *fuzz_context(void) {
    if (context == NULL) {
        context = tl_context_create(&(tl_context_config){.threads = 1});
        fuzz_require(context != NULL, "no context");
    }
    tl_context_reset_peak(context);
    return context;
}

void fuzz_require_clean(size_t most) {
    const tl_memory_usage usage = tl_context_memory(context);
    fuzz_require(usage.current == 0, "memory was not given back");
    if (usage.peak > most) {
        fprintf(stderr, "fuzz: %zu bytes were allocated, at most %zu were expected\n", usage.peak,
                most);
        abort();
    }
}

void fuzz_require_message(const tl_error *error) {
    fuzz_require(error->status != TL_OK, "a failure without a status");
    fuzz_require(error->message[0] != '\0', "a failure without a message");
    fuzz_require(strchr(error->message, '\n') == NULL, "a message of several lines");
}

const char *fuzz_folder(void) {
    if (folder[0] == '\0') {
        const char *parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        (void)snprintf(folder, sizeof folder, "%s/tapeline-fuzz-XXXXXX", parent);
        fuzz_require(mkdtemp(folder) != NULL, "cannot create a folder");
        (void)atexit(clean_up);
    }
    return folder;
}

static const char *path_of(const char *name) {
    for (int i = 0; i < name_count; i++) {
        if (strcmp(names[i], name) == 0) {
            return paths[i];
        }
    }
    fuzz_require(name_count < MOST_NAMES && strlen(name) < NAME_BYTES, "too many names");
    (void)snprintf(names[name_count], NAME_BYTES, "%s", name);
    (void)snprintf(paths[name_count], sizeof paths[0], "%s/%s", fuzz_folder(), name);
    return paths[name_count++];
}

const char *fuzz_file(const char *name, const uint8_t *data, size_t size) {
    const char *path = path_of(name);
    const int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    fuzz_require(descriptor >= 0, "cannot create a file");
    fuzz_require(size == 0 || write(descriptor, data, size) == (ssize_t)size, "cannot write it");
    (void)close(descriptor);
    return path;
}

const char *fuzz_gzip_file(const char *name, const uint8_t *data, size_t size) {
    z_stream stream = {0};
    fuzz_require(deflateInit2(&stream, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) ==
                     Z_OK,
                 "no compressor");
    const uLong bound = deflateBound(&stream, (uLong)size);
    uint8_t *compressed = malloc(bound);
    fuzz_require(compressed != NULL, "out of memory");
    stream.next_in = (Bytef *)(uintptr_t)data;
    stream.avail_in = (uInt)size;
    stream.next_out = compressed;
    stream.avail_out = (uInt)bound;
    fuzz_require(deflate(&stream, Z_FINISH) == Z_STREAM_END, "cannot compress");
    const char *path = fuzz_file(name, compressed, (size_t)stream.total_out);
    (void)deflateEnd(&stream);
    free(compressed);
    return path;
}

uint8_t *fuzz_read(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    fuzz_require(file != NULL && fseek(file, 0, SEEK_END) == 0, "cannot open a file");
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*size + 1);
    fuzz_require(data != NULL && fread(data, 1, *size, file) == *size, "cannot read a file");
    (void)fclose(file);
    return data;
}

void fuzz_remove(const char *name) {
    (void)unlink(path_of(name));
}

uint8_t fuzz_byte(fuzz_reader *reader) {
    if (reader->left == 0) {
        return 0;
    }
    reader->left--;
    return *reader->data++;
}

uint64_t fuzz_number(fuzz_reader *reader, int width) {
    uint64_t value = 0;
    for (int i = 0; i < width; i++) {
        value |= (uint64_t)fuzz_byte(reader) << (8 * i);
    }
    return value;
}
