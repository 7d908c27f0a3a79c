/* files.h - small files that tests write: folders that vanish, gzip, tar, datasets' records. */
#ifndef TEST_FILES_H
#define TEST_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TEST_PATH_BYTES = 512 };

/* A fresh folder below $TMPDIR, else in memory (/dev/shm) or below /tmp; remove_folder deletes it
 * with all it holds. */
void make_folder(char path[TEST_PATH_BYTES]);
void remove_folder(const char *path);
/* folder/name, in one of a few buffers that are used in turn. */
const char *in_folder(const char *folder, const char *name);
/* The same in a buffer of the caller's. */
void set_path(char path[TEST_PATH_BYTES], const char *folder, const char *name);
bool file_exists(const char *path);
/* How many entries a folder has. */
int folder_count(const char *path);
void make_subfolder(const char *folder, const char *name);

/* Bytes that grow. Start from {0}; free with bytes_free. */
typedef struct bytes {
    uint8_t *data;
    size_t count;
} bytes;

void bytes_append(bytes *target, const void *data, size_t count);
void bytes_append_big_endian(bytes *target, uint32_t value);
void bytes_free(bytes *target);
/* gzip-compressed, one member. */
bytes bytes_gzip(const bytes *plain);

void write_file(const char *path, const void *data, size_t count);
void write_bytes(const char *path, const bytes *content);
/* The whole file. */
bytes read_file(const char *path);
/* Writes the bytes gzip-compressed. */
void write_gzip(const char *path, const bytes *content);

/* Appends one ustar member: type '0' is a regular file, '5' a folder, 'L' a GNU long name, 'x' pax
 * records. tar_end appends the two empty blocks. */
void tar_append(bytes *archive, char type, const char *name, const bytes *content);
void tar_end(bytes *archive);

/* CIFAR records in which every misplacement shows: record r, channel c, pixel (y, x) has the value
 * cifar_value(r, c, y, x), its label is cifar_label(r, classes). For 100 classes a coarse label
 * stands in front. Records are numbered from `first`. */
void cifar_append(bytes *file, int first, int count, int classes);
uint8_t cifar_value(int record, int channel, int y, int x);
int cifar_label(int record, int classes);

#endif
