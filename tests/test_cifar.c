/* The CIFAR reader, on small files that it writes: every form they come in, every kind of damage.
 */
#include "support/files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD = 3073, PER_BATCH = 3, BATCHES = 5 };

static const char *const batch_names[BATCHES] = {"data_batch_1.bin", "data_batch_2.bin",
                                                 "data_batch_3.bin", "data_batch_4.bin",
                                                 "data_batch_5.bin"};

static char folder[TEST_PATH_BYTES];
static tl_context *context;
static tl_error error;

static void setup(void) {
    make_folder(folder);
    context = tl_context_create(NULL);
    ck_assert_ptr_nonnull(context);
    error = (tl_error){TL_OK, ""};
}

static void teardown(void) {
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
    remove_folder(folder);
}

/* Batch b holds records b * PER_BATCH ...; the test batch is number 5. */
static bytes batch(int b) {
    bytes file = {0};
    cifar_append(&file, b * PER_BATCH, PER_BATCH, 10);
    return file;
}

static void write_batches(const char *where, bool compressed) {
    for (int b = 0; b < BATCHES + 1; b++) {
        bytes file = batch(b);
        char name[64];
        snprintf(name, sizeof name, "%s%s", b < BATCHES ? batch_names[b] : "test_batch.bin",
                 compressed ? ".gz" : "");
        if (compressed) {
            write_gzip(in_folder(where, name), &file);
        } else {
            write_bytes(in_folder(where, name), &file);
        }
        bytes_free(&file);
    }
}

/* The distributed archive: a folder entry, the batches out of order, other files between. */
static bytes archive(void) {
    static const int order[BATCHES + 1] = {0, 2, 3, 5, 4, 1};
    bytes tar = {0};
    bytes text = {0};
    bytes_append(&text, "airplane\n", 9);
    tar_append(&tar, '5', "cifar-10-batches-bin/", NULL);
    for (int i = 0; i < BATCHES + 1; i++) {
        bytes file = batch(order[i]);
        char name[64];
        snprintf(name, sizeof name, "cifar-10-batches-bin/%s",
                 order[i] < BATCHES ? batch_names[order[i]] : "test_batch.bin");
        tar_append(&tar, '0', name, &file);
        tar_append(&tar, '0', "cifar-10-batches-bin/batches.meta.txt", &text);
        bytes_free(&file);
    }
    tar_end(&tar);
    bytes_free(&text);
    return tar;
}

static void assert_records(const tl_dataset *dataset, int first, int count, int classes) {
    ck_assert_msg(dataset != NULL, "%s", error.message);
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    ck_assert_int_eq(info->count, count);
    ck_assert_int_eq(info->height, 32);
    ck_assert_int_eq(info->width, 32);
    ck_assert_int_eq(info->channels, 3);
    ck_assert_int_eq(info->classes, classes);
    ck_assert_ptr_null(info->masks);
    const uint8_t *pixel = info->images;
    for (int r = first; r < first + count; r++) {
        ck_assert_int_eq(info->labels[r - first], cifar_label(r, classes));
        for (int y = 0; y < 32; y++) {
            for (int x = 0; x < 32; x++) {
                for (int c = 0; c < 3; c++) {
                    ck_assert_int_eq(*pixel++, cifar_value(r, c, y, x));
                }
            }
        }
    }
}

static void expect_all(const char *path) {
    tl_dataset *train = tl_dataset_load_cifar(context, path, 10, TL_SPLIT_TRAIN, &error);
    assert_records(train, 0, BATCHES * PER_BATCH, 10);
    tl_dataset *test = tl_dataset_load_cifar(context, path, 10, TL_SPLIT_TEST, &error);
    assert_records(test, BATCHES * PER_BATCH, PER_BATCH, 10);
    ck_assert_str_eq(tl_dataset_describe(test)->class_names[9], "truck");
    tl_dataset_free(train);
    tl_dataset_free(test);
}

static void expect_failure(const char *path, tl_status status, const char *part) {
    error = (tl_error){TL_OK, ""};
    tl_dataset *dataset = tl_dataset_load_cifar(context, path, 10, TL_SPLIT_TRAIN, &error);
    ck_assert_ptr_null(dataset);
    assert_error(&error, status, part);
}

START_TEST(every_form_gives_the_same_records) {
    make_subfolder(folder, "plain");
    write_batches(in_folder(folder, "plain"), false);
    expect_all(in_folder(folder, "plain"));

    make_subfolder(folder, "gz");
    write_batches(in_folder(folder, "gz"), true);
    expect_all(in_folder(folder, "gz"));

    bytes tar = archive();
    write_bytes(in_folder(folder, "some.tar"), &tar);
    expect_all(in_folder(folder, "some.tar"));
    write_gzip(in_folder(folder, "cifar-10-binary.tar.gz"), &tar);
    expect_all(in_folder(folder, "cifar-10-binary.tar.gz"));
    expect_all(folder); /* finds the archive */
    bytes_free(&tar);

    make_subfolder(folder, "cifar-10-batches-bin");
    write_batches(in_folder(folder, "cifar-10-batches-bin"), false);
    remove_folder(in_folder(folder, "cifar-10-binary.tar.gz"));
    expect_all(folder); /* finds the subfolder */
}
END_TEST

START_TEST(cifar100_reads_the_fine_labels) {
    bytes file = {0};
    cifar_append(&file, 0, 40, 100);
    write_bytes(in_folder(folder, "train.bin"), &file);
    tl_dataset *train = tl_dataset_load_cifar(context, folder, 100, TL_SPLIT_TRAIN, &error);
    assert_records(train, 0, 40, 100);
    ck_assert_str_eq(tl_dataset_describe(train)->class_names[0], "apple");
    ck_assert_str_eq(tl_dataset_describe(train)->class_names[99], "worm");
    tl_dataset_free(train);

    file.data[0] = 20;
    write_bytes(in_folder(folder, "train.bin"), &file);
    ck_assert_ptr_null(tl_dataset_load_cifar(context, folder, 100, TL_SPLIT_TRAIN, &error));
    assert_error(&error, TL_ERROR_FORMAT,
                 "record 0: expected a coarse label from 0 to 19, found 20");
    bytes_free(&file);
}
END_TEST

START_TEST(several_gzip_members_are_one_file) {
    write_batches(folder, false);
    bytes whole = batch(1);
    bytes head = {0};
    bytes tail = {0};
    bytes_append(&head, whole.data, 1000);
    bytes_append(&tail, whole.data + 1000, whole.count - 1000);
    bytes packed = bytes_gzip(&head);
    bytes more = bytes_gzip(&tail);
    bytes_append(&packed, more.data, more.count);
    write_bytes(in_folder(folder, "data_batch_2.bin.gz"), &packed);
    remove_folder(in_folder(folder, "data_batch_2.bin"));
    expect_all(folder);
    bytes_append(&packed, "end", 3);
    write_bytes(in_folder(folder, "data_batch_2.bin.gz"), &packed);
    expect_failure(folder, TL_ERROR_FORMAT, "data_batch_2.bin.gz: bytes that are not gzip data");
    bytes_free(&whole);
    bytes_free(&head);
    bytes_free(&tail);
    bytes_free(&packed);
    bytes_free(&more);
}
END_TEST

/* Names longer than a header holds, as GNU tar and pax write them. */
START_TEST(long_names_replace_the_header) {
    bytes tar = {0};
    for (int b = 0; b < BATCHES; b++) {
        char path[300];
        bytes name = {0};
        snprintf(path, sizeof path, "%0250d/%s", 0, batch_names[b]);
        if (b % 2 == 0) {
            bytes_append(&name, path, strlen(path) + 1);
            tar_append(&tar, 'L', "././@LongLink", &name);
        } else {
            char records[400];
            snprintf(records, sizeof records, "11 size=12\n%zu path=%s\n", strlen(path) + 10, path);
            bytes_append(&name, records, strlen(records));
            tar_append(&tar, 'x', "PaxHeaders/0", &name);
        }
        bytes file = batch(b);
        tar_append(&tar, '0', "a/name/that/was/cut/data_batch_9.bin", &file);
        bytes_free(&file);
        bytes_free(&name);
    }
    tar_end(&tar);
    write_gzip(in_folder(folder, "long.tar.gz"), &tar);
    tl_dataset *train =
        tl_dataset_load_cifar(context, in_folder(folder, "long.tar.gz"), 10, 0, &error);
    assert_records(train, 0, BATCHES * PER_BATCH, 10);
    tl_dataset_free(train);
    bytes_free(&tar);
}
END_TEST

START_TEST(missing_things_are_named) {
    expect_failure("/no/such/folder", TL_ERROR_IO, "/no/such/folder: no such folder or archive");
    expect_failure(folder, TL_ERROR_IO,
                   "expected data_batch_1.bin, the same with .gz, or "
                   "cifar-10-binary.tar.gz in this folder; found neither");
    write_batches(folder, false);
    remove_folder(in_folder(folder, "data_batch_1.bin"));
    expect_failure(folder, TL_ERROR_IO, "/data_batch_1.bin: not found, neither plain nor .gz");
    make_subfolder(folder, "data_batch_1.bin");
    expect_failure(folder, TL_ERROR_IO,
                   "data_batch_1.bin: expected a regular file, found a folder");
    bytes tar = {0};
    bytes file = batch(0);
    tar_append(&tar, '0', "x/data_batch_1.bin", &file);
    write_bytes(in_folder(folder, "x.tar"), &tar);
    expect_failure(in_folder(folder, "x.tar"), TL_ERROR_FORMAT,
                   "x.tar: the archive does not hold data_batch_2.bin, which cifar-10 needs");
    tar_append(&tar, '0', "y/data_batch_1.bin", &file);
    write_bytes(in_folder(folder, "x.tar"), &tar);
    expect_failure(in_folder(folder, "x.tar"), TL_ERROR_FORMAT, "holds data_batch_1.bin twice");
    bytes_free(&tar);
    bytes_free(&file);
    ck_assert_ptr_null(tl_dataset_load_cifar(context, folder, 11, TL_SPLIT_TRAIN, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "found");
}
END_TEST

START_TEST(damaged_records_are_named) {
    write_batches(folder, false);
    bytes file = batch(2);
    const char *path = in_folder(folder, "data_batch_3.bin");
    write_file(path, file.data, file.count - 1);
    expect_failure(folder, TL_ERROR_FORMAT,
                   "data_batch_3.bin: expected whole records of 3073 bytes, found 2 and 3072 bytes "
                   "of another");
    write_file(path, file.data, RECORD);
    expect_failure(folder, TL_ERROR_FORMAT,
                   "data_batch_3.bin: expected 3 records, as in the batches before, found 1");
    write_file(path, file.data, 0);
    expect_failure(folder, TL_ERROR_FORMAT, "data_batch_3.bin: the file is empty");
    file.data[RECORD] = 10;
    write_bytes(path, &file);
    expect_failure(folder, TL_ERROR_FORMAT,
                   "data_batch_3.bin: record 1: expected a label from 0 to 9, found 10");
    bytes_free(&file);
}
END_TEST

START_TEST(damaged_gzip_is_named) {
    write_batches(folder, true);
    bytes file = batch(3);
    bytes packed = bytes_gzip(&file);
    const char *path = in_folder(folder, "data_batch_4.bin.gz");
    write_file(path, packed.data, packed.count - 5);
    expect_failure(folder, TL_ERROR_FORMAT, "data_batch_4.bin.gz: the gzip data are cut off");
    packed.data[packed.count - 6] ^= 1;
    write_bytes(path, &packed);
    expect_failure(folder, TL_ERROR_FORMAT, "data_batch_4.bin.gz: damaged gzip data");
    write_bytes(path, &file);
    expect_failure(folder, TL_ERROR_FORMAT, "data_batch_4.bin.gz: expected gzip data (1f 8b)");
    bytes_free(&file);
    bytes_free(&packed);
}
END_TEST

START_TEST(damaged_archives_are_named) {
    const char *path = in_folder(folder, "damaged.tar");
    bytes tar = archive();
    write_file(path, tar.data, 2000);
    expect_failure(path, TL_ERROR_FORMAT,
                   "damaged.tar: a header promises 9219 bytes, more than the file of 2000 bytes");
    write_file(path, tar.data, 13000);
    expect_failure(path, TL_ERROR_FORMAT,
                   "damaged.tar: the archive ends inside data_batch_3.bin: expected 9219 bytes of "
                   "it, found 712");
    write_file(path, tar.data, 700);
    expect_failure(path, TL_ERROR_FORMAT, "damaged.tar: the archive ends inside a header");
    tar.data[512 + 3] ^= 1;
    write_bytes(path, &tar);
    expect_failure(path, TL_ERROR_FORMAT, "damaged.tar: no valid tar header at byte 512");
    bytes_free(&tar);
    /* a header that is valid but promises the impossible */
    bytes huge = {0};
    tar_append(&huge, '0', "data_batch_1.bin", NULL);
    memcpy(huge.data + 124, "77777777777", 11);
    memset(huge.data + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) {
        sum += huge.data[i];
    }
    snprintf((char *)huge.data + 148, 7, "%06o", sum);
    write_bytes(path, &huge);
    expect_failure(path, TL_ERROR_FORMAT, "a header promises 8589934591 bytes, more than the file");
    bytes_free(&huge);
}
END_TEST

/* A compressed archive cut anywhere is an error; with a bit turned anywhere it is an error, or (in
 * bytes of the header without meaning) the same records. */
START_TEST(no_damage_goes_unnoticed) {
    bytes tar = archive();
    bytes packed = bytes_gzip(&tar);
    const char *path = in_folder(folder, "cut.tar.gz");
    for (size_t length = 0; length < packed.count; length += 1 + length / 40) {
        write_file(path, packed.data, length);
        expect_failure(path, TL_ERROR_FORMAT, "cut.tar.gz: ");
    }
    int harmless = 0;
    for (size_t i = 0; i < packed.count; i += 1 + i / 40) {
        packed.data[i] ^= (uint8_t)(1u << i % 8);
        write_bytes(path, &packed);
        tl_dataset *dataset = tl_dataset_load_cifar(context, path, 10, TL_SPLIT_TRAIN, &error);
        if (dataset != NULL) {
            assert_records(dataset, 0, BATCHES * PER_BATCH, 10);
            tl_dataset_free(dataset);
            harmless++;
        } else {
            assert_error(&error, TL_ERROR_FORMAT, "cut.tar.gz: ");
        }
        packed.data[i] ^= (uint8_t)(1u << i % 8);
    }
    ck_assert_int_le(harmless, 7); /* time stamp, extra flags, system */
    bytes_free(&tar);
    bytes_free(&packed);
}
END_TEST

/* Each allocation fails once: a clean error, and nothing is left behind. */
typedef struct failing_allocator {
    int calls;
    int failing; /* the call that fails */
} failing_allocator;

static void *allocate(void *user, size_t count, size_t alignment) {
    failing_allocator *state = user;
    const size_t rounded = (count + alignment - 1) / alignment * alignment;
    return ++state->calls == state->failing ? NULL : aligned_alloc(alignment, rounded);
}

static void release(void *user, void *memory, size_t count) {
    (void)user;
    (void)count;
    free(memory);
}

START_TEST(failed_allocations_are_errors) {
    bytes tar = archive();
    const char *path = in_folder(folder, "a.tar.gz");
    write_gzip(path, &tar);
    bytes_free(&tar);
    int failures = 0;
    for (bool loaded = false; !loaded; failures++) {
        failing_allocator state = {0};
        tl_context *own =
            tl_context_create(&(tl_context_config){.allocator = {allocate, release, &state}});
        ck_assert_ptr_nonnull(own);
        state.failing = state.calls + failures + 1;
        tl_dataset *dataset = tl_dataset_load_cifar(own, path, 10, TL_SPLIT_TRAIN, &error);
        loaded = dataset != NULL;
        if (!loaded) {
            assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "out of memory");
        }
        tl_dataset_free(dataset);
        tl_context_free(own);
    }
    ck_assert_int_ge(failures, 5);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("cifar", &test_case);
    tcase_add_checked_fixture(test_case, setup, teardown);
    tcase_add_test(test_case, every_form_gives_the_same_records);
    tcase_add_test(test_case, cifar100_reads_the_fine_labels);
    tcase_add_test(test_case, several_gzip_members_are_one_file);
    tcase_add_test(test_case, long_names_replace_the_header);
    tcase_add_test(test_case, missing_things_are_named);
    tcase_add_test(test_case, damaged_records_are_named);
    tcase_add_test(test_case, damaged_gzip_is_named);
    tcase_add_test(test_case, damaged_archives_are_named);
    tcase_add_test(test_case, no_damage_goes_unnoticed);
    tcase_add_test(test_case, failed_allocations_are_errors);
    return run_suite(suite);
}
