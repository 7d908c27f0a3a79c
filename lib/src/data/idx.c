/* idx.c - IDX files (MNIST and its relatives), plain or gzip-compressed.
 *
 * A header of big-endian 32-bit numbers (the magic 00 00 08 R, unsigned bytes of rank R, then R
 * extents), then the bytes, row-major. Format: http://yann.lecun.com/exdb/mnist/
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/context_internal.h"
#include "data/byte_source.h"
#include "data/class_names.h"
#include "data/dataset_internal.h"

enum {
    LONGEST_SIDE = 1 << 15,
    MOST_CLASSES = 256,
    PATH_BYTES = 4096,
    IMAGES_RANK = 3,
    LABELS_RANK = 1
};

typedef struct idx_header {
    uint32_t extents[IMAGES_RANK];
    uint64_t bytes; /* of the content */
} idx_header;

static uint32_t big_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Reads and checks the header: its promise must fit into what the file can hold. */
static tl_status read_header(tl_byte_source *source, int rank, idx_header *header,
                             tl_error *error) {
    uint8_t bytes[4 + 4 * IMAGES_RANK];
    const size_t wanted = 4 + 4 * (size_t)rank;
    size_t got = 0;
    TL_TRY(tl_byte_source_read(source, bytes, wanted, &got, error));
    if (got < wanted) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": expected an IDX header of %zu bytes, found %zu",
                       source->path, wanted, got);
    }
    const uint32_t magic = 0x00000800u | (uint32_t)rank;
    if (big_endian(bytes) != magic) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": expected the magic number 0x%08x (IDX, unsigned "
                                     "bytes, rank %d), found 0x%08x",
                       source->path, magic, rank, big_endian(bytes));
    }
    header->bytes = 1;
    for (int i = 0; i < rank; i++) {
        const uint32_t extent = big_endian(bytes + 4 + 4 * i);
        header->extents[i] = extent;
        if (extent == 0 || (i > 0 && extent > LONGEST_SIDE)) {
            return tl_fail(error, TL_ERROR_FORMAT,
                           TL_SHOWN_PATH ": extent %d: expected 1 to %u, found %u", source->path, i,
                           i > 0 ? LONGEST_SIDE : UINT32_MAX, extent);
        }
        header->bytes *= extent; /* below 2^62 */
    }
    if (header->bytes > tl_byte_source_capacity(source)) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH ": the header promises %llu bytes, more than the file of "
                                     "%lld bytes can hold",
                       source->path, (unsigned long long)header->bytes,
                       (long long)source->file_size);
    }
    return TL_OK;
}

static tl_status report_cut(const tl_byte_source *source, const idx_header *header, uint64_t found,
                            tl_error *error) {
    return tl_fail(error, TL_ERROR_FORMAT,
                   TL_SHOWN_PATH ": expected %llu bytes after the header, found %llu", source->path,
                   (unsigned long long)header->bytes, (unsigned long long)found);
}

/* Nothing may follow; and reading to the end verifies the checksum. */
static tl_status expect_end(tl_byte_source *source, const idx_header *header, tl_error *error) {
    uint64_t more = 0;
    TL_TRY(tl_byte_source_skip(source, UINT64_MAX, &more, error));
    return more > 0 ? report_cut(source, header, header->bytes + more, error) : TL_OK;
}

/* Reads all images; the dataset's extents are set here. */
static tl_status read_images(tl_dataset *dataset, tl_byte_source *source, tl_error *error) {
    idx_header header = {0};
    TL_TRY(read_header(source, IMAGES_RANK, &header, error));
    const int64_t count = header.extents[0];
    dataset->info.height = header.extents[1];
    dataset->info.width = header.extents[2];
    const size_t bytes = (size_t)header.extents[1] * header.extents[2];
    const uint64_t expected = tl_byte_source_expected(source) / bytes;
    TL_TRY(
        tl_dataset_reserve(dataset, (uint64_t)count < expected ? count : (int64_t)expected, error));
    while (dataset->info.count < count) {
        TL_TRY(tl_dataset_grow(dataset, count, error));
        const int64_t room = dataset->capacity;
        const size_t place = (size_t)dataset->info.count * bytes;
        const size_t wanted = (size_t)room * bytes - place;
        size_t got = 0;
        TL_TRY(tl_byte_source_read(source, dataset->images + place, wanted, &got, error));
        if (got < wanted) {
            return report_cut(source, &header, place + got, error);
        }
        dataset->info.count = room;
    }
    return expect_end(source, &header, error);
}

/* Reads as many labels as there are images. */
static tl_status read_labels(tl_dataset *dataset, tl_byte_source *source, const char *images_path,
                             tl_error *error) {
    idx_header header = {0};
    TL_TRY(read_header(source, LABELS_RANK, &header, error));
    if (header.extents[0] != (uint64_t)dataset->info.count) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "%.150s: expected %lld labels, as there are images in %.150s, found %u",
                       source->path, (long long)dataset->info.count, images_path,
                       header.extents[0]);
    }
    const int classes = dataset->info.classes;
    int largest = 0;
    for (int64_t i = 0; i < dataset->info.count;) {
        uint8_t labels[4096];
        const int64_t left = dataset->info.count - i;
        const size_t wanted = left < (int64_t)sizeof labels ? (size_t)left : sizeof labels;
        size_t got = 0;
        TL_TRY(tl_byte_source_read(source, labels, wanted, &got, error));
        if (got < wanted) {
            return report_cut(source, &header, (uint64_t)i + got, error);
        }
        for (size_t k = 0; k < got; k++, i++) {
            if (classes > 0 && labels[k] >= classes) {
                return tl_fail(error, TL_ERROR_FORMAT,
                               TL_SHOWN_PATH ": label %lld: expected 0 to %d, found %d",
                               source->path, (long long)i, classes - 1, labels[k]);
            }
            largest = labels[k] > largest ? labels[k] : largest;
            dataset->labels[i] = labels[k];
        }
    }
    dataset->info.classes = classes > 0 ? classes : largest + 1;
    return expect_end(source, &header, error);
}

static tl_status read_pair(tl_dataset *dataset, const char *images_path, const char *labels_path,
                           tl_error *error) {
    tl_byte_source source;
    TL_TRY(tl_byte_source_open(&source, dataset->context, images_path, error));
    tl_status status = read_images(dataset, &source, error);
    tl_byte_source_close(&source);
    TL_TRY(status);
    TL_TRY(tl_byte_source_open(&source, dataset->context, labels_path, error));
    status = read_labels(dataset, &source, images_path, error);
    tl_byte_source_close(&source);
    TL_TRY(status);
    return tl_dataset_trim(dataset, error);
}

tl_dataset *tl_dataset_load_idx(tl_context *context, const char *images_path,
                                const char *labels_path, int classes, tl_error *error) {
    if (images_path == NULL || labels_path == NULL || classes < 0 || classes > MOST_CLASSES) {
        (void)tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                      "idx: expected two paths and 0 to %d classes, found %s, %s and %d",
                      MOST_CLASSES, images_path != NULL ? images_path : "NULL",
                      labels_path != NULL ? labels_path : "NULL", classes);
        return NULL;
    }
    const tl_dataset_info info = {.height = 1, .width = 1, .channels = 1, .classes = classes};
    tl_dataset *dataset = tl_dataset_create_empty(context, &info, error);
    if (dataset == NULL) {
        return NULL;
    }
    if (read_pair(dataset, images_path, labels_path, error) != TL_OK) {
        tl_dataset_free(dataset);
        return NULL;
    }
    tl_dataset_compute_normalization(dataset);
    return dataset;
}

/* ---- folders with the names of MNIST */

static bool try_path(char *path, const char *folder, const char *name, const char *suffix) {
    struct stat status;
    const int length = snprintf(path, PATH_BYTES, "%s/%s%s", folder, name, suffix);
    return length > 0 && length < PATH_BYTES && stat(path, &status) == 0;
}

/* names[0] is the official spelling, names[1] another that archives use. */
static tl_status find_file(char *path, const char *folder, const char *const names[2],
                           tl_error *error) {
    for (int i = 0; i < 2; i++) {
        if (try_path(path, folder, names[i], "") || try_path(path, folder, names[i], ".gz")) {
            return TL_OK;
        }
    }
    return tl_fail(error, TL_ERROR_IO, TL_SHOWN_PATH "/%s: not found, neither plain nor .gz",
                   folder, names[0]);
}

tl_dataset *tl_dataset_load_mnist(tl_context *context, const char *folder, tl_mnist_kind kind,
                                  tl_split split, tl_error *error) {
    static const char *const names[2][2][2] = {
        {{"train-images-idx3-ubyte", "train-images.idx3-ubyte"},
         {"train-labels-idx1-ubyte", "train-labels.idx1-ubyte"}},
        {{"t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"},
         {"t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"}},
    };
    static const double means[2] = {0.13066, 0.28604}; /* digits, fashion: training images */
    static const double deviations[2] = {0.30811, 0.35302};
    if (folder == NULL || (kind != TL_MNIST_DIGITS && kind != TL_MNIST_FASHION) ||
        (split != TL_SPLIT_TRAIN && split != TL_SPLIT_TEST)) {
        (void)tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                      "mnist: expected a folder, a kind of 0 or 1 and a split of 0 or 1, found %s, "
                      "%d and %d",
                      folder != NULL ? folder : "NULL", (int)kind, (int)split);
        return NULL;
    }
    char images_path[PATH_BYTES];
    char labels_path[PATH_BYTES];
    if (find_file(images_path, folder, names[split][0], error) != TL_OK ||
        find_file(labels_path, folder, names[split][1], error) != TL_OK) {
        return NULL;
    }
    tl_dataset *dataset = tl_dataset_load_idx(context, images_path, labels_path, 10, error);
    if (dataset != NULL) {
        dataset->info.class_names =
            kind == TL_MNIST_FASHION ? tl_class_names_fashion : tl_class_names_digits;
        dataset->info.mean[0] = means[kind];
        dataset->info.deviation[0] = deviations[kind];
    }
    return dataset;
}
