#include "support/data_files.h"

const char *const data_file_names[DATA_FILES] = {"CIFAR, plain", "CIFAR, gzip", "CIFAR, archive",
                                                 "IDX, plain", "IDX, gzip"};

enum { FIRST_IDX = 3, SIDE = 28, CLASSES = 10 };

static const char *const places[DATA_FILES] = {"plain", "zipped", "archive.tar.gz", "images",
                                               "images.gz"};

static void write_cifar(const char *folder) {
    bytes batch = {0};
    bytes archive = {0};
    cifar_append(&batch, 0, DATA_FILE_IMAGES, CLASSES);
    make_subfolder(folder, "plain");
    make_subfolder(folder, "zipped");
    write_bytes(in_folder(folder, "plain/test_batch.bin"), &batch);
    write_gzip(in_folder(folder, "zipped/test_batch.bin.gz"), &batch);
    tar_append(&archive, '0', "cifar-10-batches-bin/test_batch.bin", &batch);
    tar_end(&archive);
    write_gzip(in_folder(folder, "archive.tar.gz"), &archive);
    bytes_free(&batch);
    bytes_free(&archive);
}

static void write_idx(const char *folder) {
    bytes images = {0};
    bytes labels = {0};
    const uint32_t header[4] = {0x803, DATA_FILE_IMAGES, SIDE, SIDE};
    for (int i = 0; i < 4; i++) {
        bytes_append_big_endian(&images, header[i]);
    }
    bytes_append_big_endian(&labels, 0x801);
    bytes_append_big_endian(&labels, DATA_FILE_IMAGES);
    for (int i = 0; i < DATA_FILE_IMAGES; i++) {
        bytes_append(&labels, &(uint8_t){(uint8_t)cifar_label(i, CLASSES)}, 1);
        for (int pixel = 0; pixel < SIDE * SIDE; pixel++) {
            bytes_append(&images, &(uint8_t){(uint8_t)(i + pixel * 7)}, 1);
        }
    }
    write_bytes(in_folder(folder, "images"), &images);
    write_bytes(in_folder(folder, "labels"), &labels);
    write_gzip(in_folder(folder, "images.gz"), &images);
    write_gzip(in_folder(folder, "labels.gz"), &labels);
    bytes_free(&images);
    bytes_free(&labels);
}

void write_data_files(const char *folder) {
    write_cifar(folder);
    write_idx(folder);
}

tl_dataset *load_data_file(tl_context *context, const char *folder, int index, tl_error *error) {
    const char *path = in_folder(folder, places[index]);
    if (index < FIRST_IDX) {
        return tl_dataset_load_cifar(context, path, CLASSES, TL_SPLIT_TEST, error);
    }
    const char *labels = in_folder(folder, index == FIRST_IDX ? "labels" : "labels.gz");
    return tl_dataset_load_idx(context, path, labels, CLASSES, error);
}

void assert_data_file_loads(tl_context *context, const char *folder, int index) {
    tl_error error = {0};
    tl_dataset *dataset = load_data_file(context, folder, index, &error);
    ck_assert_msg(dataset != NULL, "%s: %s", data_file_names[index], error.message);
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    ck_assert_int_eq(info->count, DATA_FILE_IMAGES);
    for (int i = 0; i < DATA_FILE_IMAGES; i++) {
        ck_assert_int_eq(info->labels[i], cifar_label(i, CLASSES));
    }
    tl_dataset_free(dataset);
}
