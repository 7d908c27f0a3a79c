/* make_seeds FOLDER - writes a seed corpus for each fuzzer: FOLDER/cifar/..., FOLDER/idx/... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <tapeline/tapeline.h>

#include "support/checkpoint_files.h"
#include "support/files.h"

static char folder[TEST_PATH_BYTES];

/* Writes `first` (if not negative) and the content as FOLDER/fuzzer/name. */
static void seed(const char *fuzzer, const char *name, int first, const bytes *content) {
    char path[2 * TEST_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", folder, fuzzer);
    (void)mkdir(path, 0777);
    (void)snprintf(path, sizeof path, "%s/%s/%s", folder, fuzzer, name);
    bytes file = {0};
    if (first >= 0) {
        bytes_append(&file, &(uint8_t){(uint8_t)first}, 1);
    }
    bytes_append(&file, content->data, content->count);
    write_bytes(path, &file);
    bytes_free(&file);
}

/* ------------------------------------------------------------------ CIFAR */

/* The first byte: kinds in fuzz_cifar.c's order, plus 5 for CIFAR-100. */
static void cifar_seeds(int classes) {
    const int hundred = classes == 100 ? 5 : 0;
    const char *tag = classes == 100 ? "100" : "10";
    char name[64];
    bytes records = {0};
    cifar_append(&records, 0, 2, classes);
    bytes zipped = bytes_gzip(&records);
    bytes archive = {0};
    tar_append(&archive, '5', "cifar-10-batches-bin/", &(bytes){0});
    tar_append(&archive, '0', classes == 100 ? "test.bin" : "cifar-10-batches-bin/test_batch.bin",
               &records);
    tar_append(&archive, 'x', "pax", &(bytes){.data = (uint8_t *)"12 path=abc\n", .count = 12});
    tar_append(&archive, '0', "readme.html", &(bytes){.data = (uint8_t *)"text", .count = 4});
    tar_end(&archive);
    bytes packed = bytes_gzip(&archive);
    const bytes *const contents[] = {&records, &zipped, &records, &packed, &archive};
    for (int kind = 0; kind < 5; kind++) {
        (void)snprintf(name, sizeof name, "cifar%s_%d", tag, kind);
        seed("cifar", name, hundred + kind, contents[kind]);
    }
    bytes_free(&records);
    bytes_free(&zipped);
    bytes_free(&archive);
    bytes_free(&packed);
}

/* ------------------------------------------------------------------ IDX */

static bytes idx_pair(uint32_t count, bool zipped) {
    bytes images = {0}, labels = {0}, pair = {0};
    bytes_append_big_endian(&images, 0x00000803);
    bytes_append_big_endian(&images, count);
    bytes_append_big_endian(&images, 4);
    bytes_append_big_endian(&images, 3);
    bytes_append_big_endian(&labels, 0x00000801);
    bytes_append_big_endian(&labels, count);
    for (uint32_t i = 0; i < count; i++) {
        bytes_append(&labels, &(uint8_t){(uint8_t)(i % 10)}, 1);
        for (uint32_t k = 0; k < 12; k++) {
            bytes_append(&images, &(uint8_t){(uint8_t)(i + k)}, 1);
        }
    }
    if (zipped) {
        bytes small = bytes_gzip(&images), few = bytes_gzip(&labels);
        bytes_free(&images);
        bytes_free(&labels);
        images = small;
        labels = few;
    }
    bytes_append(&pair, (uint8_t[]){(uint8_t)labels.count, (uint8_t)(labels.count >> 8)}, 2);
    bytes_append(&pair, labels.data, labels.count);
    bytes_append(&pair, images.data, images.count);
    bytes_free(&images);
    bytes_free(&labels);
    return pair;
}

static void idx_seeds(void) {
    bytes plain = idx_pair(5, false), zipped = idx_pair(5, true);
    seed("idx", "plain", 0, &plain);
    seed("idx", "zipped", 1 + 3, &zipped);
    seed("idx", "content", 2 + 6, &plain);
    bytes_free(&plain);
    bytes_free(&zipped);
}

/* ------------------------------------------------------------------ the others */

static void checkpoint_seeds(void) {
    tl_context *context = tl_context_create(NULL);
    char path[2 * TEST_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/sample.h5", folder);
    save_sample(context, path, 1);
    bytes sample = read_file(path);
    (void)remove(path);
    seed("checkpoint", "sample", 0, &sample);
    bytes_free(&sample);
    tl_context_free(context);
    uint8_t change[] = {0, 2, 0, 0, 0, 1, 9, 0, 0, 0, 1, 0};
    seed("checkpoint", "changed", 1, &(bytes){.data = change, .count = sizeof change});
    seed("checkpoint", "unchanged", 1, &(bytes){.data = change, .count = 0});
}

static void state_seeds(void) {
    uint8_t every[80];
    for (int start = 0; start < 6; start++) {
        for (size_t i = 0; i < sizeof every; i++) {
            every[i] = (uint8_t)(start + (int)i * start);
        }
        char name[32];
        (void)snprintf(name, sizeof name, "mixed_%d", start);
        seed("state", name, -1, &(bytes){.data = every, .count = sizeof every});
    }
}

static void option_seeds(void) {
    static const char line[] = "--flag\0--integer\0-5\0--number=1e-3\0--text\0a b\0--choice\0two\0"
                               "--size\0"
                               "12M\0--set\0"
                               "0,3,31\0file\0--\0--other";
    static const char wrong[] = "--integer=99999999999999999999\0--number\0nan";
    seed("options", "all", -1, &(bytes){.data = (uint8_t *)line, .count = sizeof line});
    seed("options", "wrong", -1, &(bytes){.data = (uint8_t *)wrong, .count = sizeof wrong});
    seed("options", "help", -1, &(bytes){.data = (uint8_t *)"--help", .count = 6});
}

/* 2 x 1 pixels of 8 bits, grey. */
static void png_seeds(void) {
    static const uint8_t grey[] = {
        137, 80, 78, 71,  13,  10,  26,  10,  0,   0,   0,   13,  'I', 'H', 'D', 'R', 0,
        0,   0,  2,  0,   0,   0,   1,   8,   0,   0,   0,   0,   209, 73,  119, 239, 0,
        0,   0,  11, 'I', 'D', 'A', 'T', 120, 156, 99,  224, 18,  1,   0,   0,   46,  0,
        38,  0,  0,  0,   0,   0,   0,   0,   0,   'I', 'E', 'N', 'D', 174, 66,  96,  130};
    bytes content = {.data = (uint8_t *)(uintptr_t)grey, .count = sizeof grey};
    seed("png", "grey", -1, &content);
    uint8_t repaired[sizeof grey];
    memcpy(repaired, grey, sizeof grey);
    repaired[0] = 0;
    seed("png", "repaired", -1, &(bytes){.data = repaired, .count = sizeof repaired});
}

/* What the tests share asserts with Check, and so works inside a test only. */
START_TEST(write_seeds) {
    cifar_seeds(10);
    cifar_seeds(100);
    idx_seeds();
    checkpoint_seeds();
    state_seeds();
    option_seeds();
    png_seeds();
}
END_TEST

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: make_seeds FOLDER\n");
        return 2;
    }
    (void)snprintf(folder, sizeof folder, "%s", argv[1]);
    (void)mkdir(folder, 0777);
    TCase *test_case;
    Suite *suite = suite_with_case("seeds", &test_case);
    tcase_add_test(test_case, write_seeds);
    return run_suite(suite);
}
