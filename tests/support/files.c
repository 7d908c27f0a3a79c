#include "support/files.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { TAR_BLOCK = 512, CIFAR_SIDE = 32 };

/* In memory where there is such a place: saving flushes to the disk, which may be slow. */
static const char *parent_folder(void) {
    const char *parent = getenv("TMPDIR");
    if (parent != NULL && parent[0] != '\0') {
        return parent;
    }
    return access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
}

void make_folder(char path[TEST_PATH_BYTES]) {
    set_path(path, parent_folder(), "tapeline-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
}

void remove_folder(const char *path) {
    DIR *folder = opendir(path);
    if (folder == NULL) {
        unlink(path);
        return;
    }
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            char inner[2 * TEST_PATH_BYTES];
            snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
            remove_folder(inner);
        }
    }
    closedir(folder);
    rmdir(path);
}

void set_path(char path[TEST_PATH_BYTES], const char *folder, const char *name) {
    const int length = snprintf(path, TEST_PATH_BYTES, "%s/%s", folder, name);
    ck_assert(length > 0 && length < TEST_PATH_BYTES);
}

const char *in_folder(const char *folder, const char *name) {
    static char paths[8][TEST_PATH_BYTES];
    static int next;
    char *path = paths[next++ % 8];
    set_path(path, folder, name);
    return path;
}

bool file_exists(const char *path) {
    struct stat status;
    return stat(path, &status) == 0;
}

int folder_count(const char *path) {
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    int count = 0;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(folder);
    return count;
}

void make_subfolder(const char *folder, const char *name) {
    ck_assert_int_eq(mkdir(in_folder(folder, name), 0700), 0);
}

void bytes_append(bytes *target, const void *data, size_t count) {
    target->data = realloc(target->data, target->count + count + 1);
    ck_assert_ptr_nonnull(target->data);
    if (count > 0) {
        memcpy(target->data + target->count, data, count);
    }
    target->count += count;
}

void bytes_append_big_endian(bytes *target, uint32_t value) {
    const uint8_t data[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                             (uint8_t)value};
    bytes_append(target, data, sizeof data);
}

void bytes_free(bytes *target) {
    free(target->data);
    *target = (bytes){0};
}

bytes bytes_gzip(const bytes *plain) {
    z_stream z = {0};
    ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, 16 + 15, 9, Z_DEFAULT_STRATEGY), Z_OK);
    bytes packed = {.data = malloc(deflateBound(&z, plain->count) + 64)};
    ck_assert_ptr_nonnull(packed.data);
    z.next_in = plain->data;
    z.avail_in = (unsigned)plain->count;
    z.next_out = packed.data;
    z.avail_out = (unsigned)deflateBound(&z, plain->count) + 64;
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    packed.count = z.total_out;
    deflateEnd(&z);
    return packed;
}

void write_file(const char *path, const void *data, size_t count) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, count, file), count);
    ck_assert_int_eq(fclose(file), 0);
}

void write_bytes(const char *path, const bytes *content) {
    write_file(path, content->data, content->count);
}

bytes read_file(const char *path) {
    bytes content = {0};
    uint8_t piece[4096];
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "cannot open %s", path);
    for (size_t got = fread(piece, 1, sizeof piece, file); got > 0;
         got = fread(piece, 1, sizeof piece, file)) {
        bytes_append(&content, piece, got);
    }
    ck_assert_int_eq(fclose(file), 0);
    return content;
}

void write_gzip(const char *path, const bytes *content) {
    bytes packed = bytes_gzip(content);
    write_bytes(path, &packed);
    bytes_free(&packed);
}

void tar_append(bytes *archive, char type, const char *name, const bytes *content) {
    uint8_t header[TAR_BLOCK] = {0};
    char *text = (char *)header;
    memcpy(text, name, strlen(name) < 100 ? strlen(name) : 100);
    memcpy(text + 100, "0000644", 7);
    memcpy(text + 108, "0000000", 7);
    memcpy(text + 116, "0000000", 7);
    snprintf(text + 124, 12, "%011zo", content != NULL ? content->count : 0);
    memcpy(text + 136, "00000000000", 11);
    text[156] = type;
    memcpy(text + 257, "ustar", 6);
    memcpy(text + 263, "00", 2);
    memset(text + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < TAR_BLOCK; i++) {
        sum += header[i];
    }
    snprintf(text + 148, 7, "%06o", sum);
    bytes_append(archive, header, sizeof header);
    if (content != NULL) {
        const uint8_t zeros[TAR_BLOCK] = {0};
        bytes_append(archive, content->data, content->count);
        bytes_append(archive, zeros, (TAR_BLOCK - content->count % TAR_BLOCK) % TAR_BLOCK);
    }
}

void tar_end(bytes *archive) {
    const uint8_t zeros[2 * TAR_BLOCK] = {0};
    bytes_append(archive, zeros, sizeof zeros);
}

uint8_t cifar_value(int record, int channel, int y, int x) {
    return (uint8_t)(record * 11 + channel * 83 + y * 5 + x);
}

int cifar_label(int record, int classes) {
    return (record * 7 + 3) % classes;
}

void cifar_append(bytes *file, int first, int count, int classes) {
    for (int r = first; r < first + count; r++) {
        uint8_t record[2 + 3 * CIFAR_SIDE * CIFAR_SIDE];
        size_t at = 0;
        if (classes == 100) {
            record[at++] = (uint8_t)(r % 20);
        }
        record[at++] = (uint8_t)cifar_label(r, classes);
        for (int c = 0; c < 3; c++) {
            for (int y = 0; y < CIFAR_SIDE; y++) {
                for (int x = 0; x < CIFAR_SIDE; x++) {
                    record[at++] = cifar_value(r, c, y, x);
                }
            }
        }
        bytes_append(file, record, at);
    }
}
