/* The IDX reader (MNIST and its relatives), on small files that it writes. */
#include "support/files.h"
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 7, HEIGHT = 3, WIDTH = 5, PIXELS = HEIGHT * WIDTH };

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

static uint8_t value(int64_t i) {
    return (uint8_t)(100 + i); /* no label has such a value */
}

static int label(int i) {
    return (3 * i + 1) % 10;
}

static bytes images(void) {
    bytes file = {0};
    bytes_append_big_endian(&file, 0x803);
    bytes_append_big_endian(&file, COUNT);
    bytes_append_big_endian(&file, HEIGHT);
    bytes_append_big_endian(&file, WIDTH);
    for (int i = 0; i < COUNT * PIXELS; i++) {
        bytes_append(&file, &(uint8_t){value(i)}, 1);
    }
    return file;
}

static bytes labels(void) {
    bytes file = {0};
    bytes_append_big_endian(&file, 0x801);
    bytes_append_big_endian(&file, COUNT);
    for (int i = 0; i < COUNT; i++) {
        bytes_append(&file, &(uint8_t){(uint8_t)label(i)}, 1);
    }
    return file;
}

static void set_big_endian(bytes *file, size_t at, uint32_t number) {
    for (size_t i = 0; i < 4; i++) {
        file->data[at + i] = (uint8_t)(number >> (24 - 8 * i));
    }
}

static void assert_content(const tl_dataset *dataset) {
    ck_assert_msg(dataset != NULL, "%s", error.message);
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    ck_assert_int_eq(info->count, COUNT);
    ck_assert_int_eq(info->height, HEIGHT);
    ck_assert_int_eq(info->width, WIDTH);
    ck_assert_int_eq(info->channels, 1);
    ck_assert_int_eq(info->classes, 10);
    for (int i = 0; i < COUNT * PIXELS; i++) {
        ck_assert_int_eq(info->images[i], value(i));
    }
    for (int i = 0; i < COUNT; i++) {
        ck_assert_int_eq(info->labels[i], label(i));
    }
}

/* Loads a pair and expects the failure. */
static void expect_failure(const bytes *image_file, const bytes *label_file, const char *part) {
    const char *image_path = in_folder(folder, "i");
    const char *label_path = in_folder(folder, "l");
    write_bytes(image_path, image_file);
    write_bytes(label_path, label_file);
    ck_assert_ptr_null(tl_dataset_load_idx(context, image_path, label_path, 10, &error));
    assert_error(&error, TL_ERROR_FORMAT, part);
    ck_assert_uint_lt(tl_context_memory(context).peak, 1 << 20);
    tl_context_reset_peak(context);
}

START_TEST(plain_and_compressed_are_read) {
    bytes i = images();
    bytes l = labels();
    write_bytes(in_folder(folder, "t10k-images-idx3-ubyte"), &i);
    write_gzip(in_folder(folder, "t10k-labels-idx1-ubyte.gz"), &l);
    write_gzip(in_folder(folder, "train-images.idx3-ubyte.gz"), &i);
    write_bytes(in_folder(folder, "train-labels.idx1-ubyte"), &l);
    for (int split = 0; split < 2; split++) {
        tl_dataset *dataset =
            tl_dataset_load_mnist(context, folder, TL_MNIST_FASHION, (tl_split)split, &error);
        assert_content(dataset);
        ck_assert_str_eq(tl_dataset_describe(dataset)->class_names[9], "ankle boot");
        ck_assert_double_eq(tl_dataset_describe(dataset)->mean[0], 0.28604);
        tl_dataset_free(dataset);
    }
    tl_dataset *dataset =
        tl_dataset_load_idx(context, in_folder(folder, "t10k-images-idx3-ubyte"),
                            in_folder(folder, "t10k-labels-idx1-ubyte.gz"), 0, &error);
    assert_content(dataset); /* the largest label is 9 */
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    ck_assert_double_eq_tol(info->mean[0] * 255, 152, 1e-9); /* of 100 ... 204 */
    ck_assert_double_eq_tol(info->deviation[0] * 255, sqrt(918 + 2.0 / 3), 1e-9);
    tl_dataset_free(dataset);
    bytes_free(&i);
    bytes_free(&l);
}
END_TEST

START_TEST(missing_files_are_named) {
    ck_assert_ptr_null(tl_dataset_load_mnist(context, folder, TL_MNIST_DIGITS, 0, &error));
    assert_error(&error, TL_ERROR_IO, "/train-images-idx3-ubyte: not found, neither plain nor .gz");
    ck_assert_ptr_null(tl_dataset_load_mnist(context, folder, TL_MNIST_DIGITS, 2, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "found");
    ck_assert_ptr_null(tl_dataset_load_mnist(context, NULL, TL_MNIST_DIGITS, 1, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "found NULL");
    ck_assert_ptr_null(tl_dataset_load_idx(context, "/no/i", "/no/l", 10, &error));
    assert_error(&error, TL_ERROR_IO, "/no/i: No such file or directory");
    ck_assert_ptr_null(tl_dataset_load_idx(context, "/no/i", "/no/l", 257, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "0 to 256 classes");
}
END_TEST

START_TEST(wrong_headers_are_named) {
    bytes i = images();
    bytes l = labels();
    set_big_endian(&i, 0, 0x801);
    expect_failure(&i, &l,
                   "/i: expected the magic number 0x00000803 (IDX, unsigned bytes, rank 3), "
                   "found 0x00000801");
    set_big_endian(&i, 0, 0x803);
    set_big_endian(&i, 8, 0);
    expect_failure(&i, &l, "/i: extent 1: expected 1 to 32768, found 0");
    set_big_endian(&i, 8, HEIGHT);
    set_big_endian(&l, 4, COUNT - 1);
    expect_failure(&i, &l, "/l: expected 7 labels, as there are images in");
    set_big_endian(&l, 4, COUNT);
    l.data[8 + 4] = 10;
    expect_failure(&i, &l, "/l: label 4: expected 0 to 9, found 10");
    l.data[8 + 4] = (uint8_t)label(4);
    i.count = 15;
    expect_failure(&i, &l, "/i: expected an IDX header of 16 bytes, found 15");
    bytes_free(&i);
    bytes_free(&l);
}
END_TEST

START_TEST(sizes_are_not_trusted) {
    bytes i = images();
    bytes l = labels();
    set_big_endian(&i, 4, 0xffffffff);
    set_big_endian(&i, 8, 28);
    set_big_endian(&i, 12, 28);
    expect_failure(&i, &l,
                   "/i: the header promises 3367254359280 bytes, more than the file of 121 "
                   "bytes can hold");
    set_big_endian(&i, 4, COUNT - 1);
    set_big_endian(&i, 8, HEIGHT);
    set_big_endian(&i, 12, WIDTH);
    expect_failure(&i, &l, "/i: expected 90 bytes after the header, found 105");
    /* a compressed file could hold what is promised here, but does not */
    set_big_endian(&i, 4, 1);
    set_big_endian(&i, 8, 100);
    set_big_endian(&i, 12, 500);
    bytes packed = bytes_gzip(&i);
    expect_failure(&packed, &l, "/i: expected 50000 bytes after the header, found 105");
    bytes_free(&i);
    bytes_free(&l);
    bytes_free(&packed);
}
END_TEST

START_TEST(no_cut_goes_unnoticed) {
    bytes i = images();
    bytes l = labels();
    bytes packed = bytes_gzip(&i);
    for (bytes cut = {packed.data, 1}; cut.count < packed.count; cut.count++) {
        expect_failure(&cut, &l, "/i: ");
    }
    for (bytes cut = {i.data, 1}; cut.count < i.count; cut.count++) {
        expect_failure(&cut, &l, "/i: ");
    }
    for (bytes cut = {l.data, 1}; cut.count < l.count; cut.count++) {
        expect_failure(&i, &cut, "/l: ");
    }
    bytes_free(&i);
    bytes_free(&l);
    bytes_free(&packed);
}
END_TEST

/* Many images from few compressed bytes: the dataset grows as they come. */
START_TEST(well_compressed_files_grow_the_dataset) {
    enum { MANY = 40000 };
    bytes i = {0};
    bytes l = {0};
    bytes_append_big_endian(&i, 0x803);
    bytes_append_big_endian(&i, MANY);
    bytes_append_big_endian(&i, 8);
    bytes_append_big_endian(&i, 8);
    bytes_append_big_endian(&l, 0x801);
    bytes_append_big_endian(&l, MANY);
    uint8_t *zeros = calloc(MANY, 64);
    ck_assert_ptr_nonnull(zeros);
    bytes_append(&i, zeros, (size_t)MANY * 64);
    bytes_append(&l, zeros, MANY);
    i.data[i.count - 1] = 255;
    write_gzip(in_folder(folder, "i"), &i);
    write_gzip(in_folder(folder, "l"), &l);
    tl_dataset *dataset =
        tl_dataset_load_idx(context, in_folder(folder, "i"), in_folder(folder, "l"), 0, &error);
    ck_assert_msg(dataset != NULL, "%s", error.message);
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    ck_assert_int_eq(info->count, MANY);
    ck_assert_int_eq(info->classes, 1);
    ck_assert_int_eq(info->images[(size_t)MANY * 64 - 1], 255);
    ck_assert_uint_lt(tl_context_memory(context).current, (size_t)MANY * 78);
    tl_dataset_free(dataset);
    /* the budget says no in time */
    tl_context_set_memory_limit(context, 1 << 20);
    ck_assert_ptr_null(
        tl_dataset_load_idx(context, in_folder(folder, "i"), in_folder(folder, "l"), 0, &error));
    assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "dataset: images and labels: out of memory");
    free(zeros);
    bytes_free(&i);
    bytes_free(&l);
}
END_TEST

START_TEST(the_installed_fashion_mnist_is_read) {
    const char *installed = "/usr/share/datasets/fashion-mnist";
    tl_dataset *test = tl_dataset_load_mnist(context, installed, TL_MNIST_FASHION, 1, &error);
    if (test == NULL && error.status == TL_ERROR_IO) {
        return; /* the package is not installed */
    }
    ck_assert_msg(test != NULL, "%s", error.message);
    const tl_dataset_info *info = tl_dataset_describe(test);
    ck_assert_int_eq(info->count, 10000);
    ck_assert_int_eq(info->height, 28);
    ck_assert_int_eq(info->width, 28);
    int counts[10] = {0};
    for (int64_t i = 0; i < info->count; i++) {
        counts[info->labels[i]]++;
    }
    for (int c = 0; c < 10; c++) {
        ck_assert_int_eq(counts[c], 1000);
    }
    ck_assert_int_eq(info->labels[0], 9); /* an ankle boot */
    tl_dataset_free(test);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("idx", &test_case);
    tcase_add_checked_fixture(test_case, setup, teardown);
    tcase_add_test(test_case, plain_and_compressed_are_read);
    tcase_add_test(test_case, missing_files_are_named);
    tcase_add_test(test_case, wrong_headers_are_named);
    tcase_add_test(test_case, sizes_are_not_trusted);
    tcase_add_test(test_case, no_cut_goes_unnoticed);
    tcase_add_test(test_case, well_compressed_files_grow_the_dataset);
    tcase_add_test(test_case, the_installed_fashion_mnist_is_read);
    return run_suite(suite);
}
