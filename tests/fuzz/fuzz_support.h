/* fuzz_support.h - what the fuzzers share: a context, files in memory, and checks that abort.
 *
 * A fuzzer is a function LLVMFuzzerTestOneInput(data, size). clang's libFuzzer calls it with inputs
 * that it makes up (scripts/fuzz.sh); replay.c calls it with the files that it is given, in the
 * ordinary test suite.
 */
#ifndef FUZZ_SUPPORT_H
#define FUZZ_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tapeline/tapeline.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One context for the process, with one thread; its peak is reset. */
tl_context *fuzz_context(void);

/* Aborts with the text unless `holds`. */
void fuzz_require(bool holds, const char *what);

/* After everything was freed: nothing of the context's memory is left, and its peak since
 * fuzz_context() was at most `most` bytes. */
void fuzz_require_clean(size_t most);

/* A failure says something. */
void fuzz_require_message(const tl_error *error);

/* Writes a file of that name into a folder of this process's (in memory where there is such a
 * place) and returns its path, which lasts until the process ends. */
const char *fuzz_file(const char *name, const uint8_t *data, size_t size);
/* The same, gzip-compressed. */
const char *fuzz_gzip_file(const char *name, const uint8_t *data, size_t size);
/* The whole file; the caller frees it. */
uint8_t *fuzz_read(const char *path, size_t *size);
/* Removes a file again. */
void fuzz_remove(const char *name);
/* The folder. */
const char *fuzz_folder(void);

/* Reads numbers from the front of an input; zeros once it is used up. */
typedef struct fuzz_reader {
    const uint8_t *data;
    size_t left;
} fuzz_reader;

uint8_t fuzz_byte(fuzz_reader *reader);
/* Little-endian, `width` bytes. */
uint64_t fuzz_number(fuzz_reader *reader, int width);

#endif
