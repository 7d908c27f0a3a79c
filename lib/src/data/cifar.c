/* cifar.c - the binary versions of CIFAR-10 and CIFAR-100.
 *
 * A file is a row of records without a header: one label byte (CIFAR-100: a coarse and a fine one),
 * then 1024 bytes each of red, green and blue. Here the planes become channels-last pixels.
 * Format: https://www.cs.toronto.edu/~kriz/cifar.html
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/context_internal.h"
#include "data/byte_source.h"
#include "data/class_names.h"
#include "data/dataset_internal.h"
#include "data/tar_reader.h"

enum {
    SIDE = 32,
    PIXELS = SIDE * SIDE,
    CHANNELS = 3,
    IMAGE_BYTES = PIXELS * CHANNELS,
    MOST_MEMBERS = 5,
    RECORDS_AT_ONCE = 32,
    PATH_BYTES = 4096
};

typedef struct cifar_members {
    int count;
    const char *names[MOST_MEMBERS];
    int64_t official_records; /* of all of them */
} cifar_members;

typedef struct cifar_format {
    const char *name;
    int label_bytes; /* the class is the last of them */
    const char *folder;
    const char *archive;
    cifar_members members[2]; /* per split */
    tl_dataset_info info;
} cifar_format;

/* Means and deviations of the official training images. */
static const cifar_format cifar10 = {
    .name = "cifar-10",
    .label_bytes = 1,
    .folder = "cifar-10-batches-bin",
    .archive = "cifar-10-binary.tar.gz",
    .members = {{5,
                 {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                  "data_batch_5.bin"},
                 50000},
                {1, {"test_batch.bin"}, 10000}},
    .info = {.height = SIDE,
             .width = SIDE,
             .channels = CHANNELS,
             .classes = 10,
             .class_names = tl_class_names_cifar10,
             .mean = {0.49140, 0.48216, 0.44653},
             .deviation = {0.24703, 0.24349, 0.26159}},
};

static const cifar_format cifar100 = {
    .name = "cifar-100",
    .label_bytes = 2,
    .folder = "cifar-100-binary",
    .archive = "cifar-100-binary.tar.gz",
    .members = {{1, {"train.bin"}, 50000}, {1, {"test.bin"}, 10000}},
    .info = {.height = SIDE,
             .width = SIDE,
             .channels = CHANNELS,
             .classes = 100,
             .class_names = tl_class_names_cifar100,
             .mean = {0.50708, 0.48655, 0.44092},
             .deviation = {0.26733, 0.25644, 0.27615}},
};

static const int coarse_classes = 20; /* of CIFAR-100 */

/* One load in progress. */
typedef struct cifar_load {
    const cifar_format *format;
    const cifar_members *members;
    tl_dataset *dataset;
    uint8_t *records;       /* RECORDS_AT_ONCE of them */
    int64_t member_records; /* what each member holds; 0: none was read yet */
    tl_error *error;
} cifar_load;

/* Where records come from: a whole file, or a member of an archive (`archive` not NULL). */
typedef struct cifar_input {
    tl_byte_source *source;
    tl_tar_reader *archive;
    const char *member; /* for messages: "" or ": name" */
} cifar_input;

static size_t record_bytes(const cifar_format *format) {
    return (size_t)format->label_bytes + IMAGE_BYTES;
}

/* ---- records */

static tl_status check_labels(const cifar_load *load, const cifar_input *input,
                              const uint8_t *record, int64_t number) {
    const int label = record[load->format->label_bytes - 1];
    const bool has_coarse = load->format->label_bytes == 2;
    if (has_coarse && record[0] >= coarse_classes) {
        return tl_fail(load->error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH "%s: record %lld: expected a coarse label from 0 to %d, "
                                     "found %d",
                       input->source->path, input->member, (long long)number, coarse_classes - 1,
                       record[0]);
    }
    if (label >= load->format->info.classes) {
        return tl_fail(load->error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH "%s: record %lld: expected a label from 0 to %d, found "
                                     "%d",
                       input->source->path, input->member, (long long)number,
                       load->format->info.classes - 1, label);
    }
    return TL_OK;
}

static tl_status append_record(const cifar_load *load, const uint8_t *record) {
    tl_dataset *dataset = load->dataset;
    TL_TRY(tl_dataset_grow(dataset, INT64_MAX, load->error));
    const int64_t index = dataset->info.count;
    const uint8_t *planes = record + load->format->label_bytes;
    uint8_t *image = dataset->images + index * IMAGE_BYTES;
    for (int i = 0; i < PIXELS; i++) {
        for (int c = 0; c < CHANNELS; c++) {
            image[i * CHANNELS + c] = planes[c * PIXELS + i];
        }
    }
    dataset->labels[index] = record[load->format->label_bytes - 1];
    dataset->info.count++;
    return TL_OK;
}

/* Appends all records of one input. */
static tl_status read_records(cifar_load *load, const cifar_input *input) {
    const size_t bytes = record_bytes(load->format);
    int64_t number = 0;
    size_t got = RECORDS_AT_ONCE * bytes;
    while (got == RECORDS_AT_ONCE * bytes) {
        if (input->archive != NULL) {
            TL_TRY(tl_tar_reader_read(input->archive, load->records, got, &got, load->error));
        } else {
            TL_TRY(tl_byte_source_read(input->source, load->records, got, &got, load->error));
        }
        for (size_t at = 0; at + bytes <= got; at += bytes) {
            TL_TRY(check_labels(load, input, load->records + at, number));
            TL_TRY(append_record(load, load->records + at));
            number++;
        }
    }
    if (got % bytes != 0 || number == 0) {
        return tl_fail(load->error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH "%s: expected whole records of %zu bytes, found %lld and "
                                     "%zu bytes of another",
                       input->source->path, input->member, bytes, (long long)number, got % bytes);
    }
    if (load->member_records != 0 && number != load->member_records) {
        return tl_fail(load->error, TL_ERROR_FORMAT,
                       TL_SHOWN_PATH "%s: expected %lld records, as in the batches before, "
                                     "found %lld",
                       input->source->path, input->member, (long long)load->member_records,
                       (long long)number);
    }
    load->member_records = number;
    return TL_OK;
}

/* Reserves for `files` files like this one, but no more than the official number of images or than
 * one can expect of their bytes; what is there beyond that grows the dataset as it comes. */
static tl_status reserve(const cifar_load *load, const tl_byte_source *source, int files) {
    const uint64_t bytes = record_bytes(load->format);
    const uint64_t expected = tl_byte_source_expected(source) / bytes * (uint64_t)files +
                              (uint64_t)load->dataset->info.count;
    const uint64_t official = (uint64_t)load->members->official_records;
    return tl_dataset_reserve(load->dataset, (int64_t)(expected < official ? expected : official),
                              load->error);
}

/* ---- a folder of files */

static bool exists(const char *path) {
    struct stat status;
    return stat(path, &status) == 0;
}

static tl_status join(char *path, const char *folder, const char *name, const char *suffix,
                      tl_error *error) {
    const int length = snprintf(path, PATH_BYTES, "%s/%s%s", folder, name, suffix);
    if (length < 0 || length >= PATH_BYTES) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, TL_SHOWN_PATH ": the path is too long",
                       folder);
    }
    return TL_OK;
}

/* The path of a member in a folder, plain or with .gz; an error if there is neither. */
static tl_status find_member(char *path, const char *folder, const char *name, tl_error *error) {
    TL_TRY(join(path, folder, name, "", error));
    if (exists(path)) {
        return TL_OK;
    }
    TL_TRY(join(path, folder, name, ".gz", error));
    if (exists(path)) {
        return TL_OK;
    }
    return tl_fail(error, TL_ERROR_IO, TL_SHOWN_PATH "/%s: not found, neither plain nor .gz",
                   folder, name);
}

static bool has_any_member(const cifar_members *members, const char *folder) {
    char path[PATH_BYTES];
    for (int i = 0; i < members->count; i++) {
        if (find_member(path, folder, members->names[i], NULL) == TL_OK) {
            return true;
        }
    }
    return false;
}

static tl_status read_folder(cifar_load *load, const char *folder) {
    for (int i = 0; i < load->members->count; i++) {
        char path[PATH_BYTES];
        TL_TRY(find_member(path, folder, load->members->names[i], load->error));
        tl_byte_source source;
        TL_TRY(tl_byte_source_open(&source, load->dataset->context, path, load->error));
        tl_status status = reserve(load, &source, load->members->count - i);
        if (status == TL_OK) {
            const cifar_input input = {.source = &source, .member = ""};
            status = read_records(load, &input);
        }
        tl_byte_source_close(&source);
        TL_TRY(status);
    }
    return TL_OK;
}

/* ---- an archive */

static void swap_bytes(uint8_t *a, uint8_t *b, size_t bytes) {
    uint8_t kept[4096];
    while (bytes > 0) {
        const size_t n = bytes < sizeof kept ? bytes : sizeof kept;
        memcpy(kept, a, n);
        memcpy(a, b, n);
        memcpy(b, kept, n);
        a += n;
        b += n;
        bytes -= n;
    }
}

/* Archives hold the batches in any order: place[m] says where member m was read. Puts them into
 * their own order by swapping; all are of one size. */
static void sort_members(const cifar_load *load, int *place) {
    const size_t records = (size_t)load->member_records;
    tl_dataset *dataset = load->dataset;
    for (int m = 0; m < load->members->count; m++) {
        const int from = place[m];
        if (from == m) {
            continue;
        }
        swap_bytes(dataset->images + (size_t)m * records * IMAGE_BYTES,
                   dataset->images + (size_t)from * records * IMAGE_BYTES, records * IMAGE_BYTES);
        swap_bytes((uint8_t *)(dataset->labels + (size_t)m * records),
                   (uint8_t *)(dataset->labels + (size_t)from * records),
                   records * sizeof(int32_t));
        for (int other = m + 1; other < load->members->count; other++) {
            if (place[other] == m) {
                place[other] = from;
            }
        }
    }
}

static int member_index(const cifar_members *members, const char *name) {
    for (int i = 0; i < members->count; i++) {
        if (strcmp(members->names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static tl_status read_members(cifar_load *load, tl_byte_source *source, int *place) {
    tl_tar_reader archive;
    tl_tar_reader_init(&archive, source);
    int seen = 0;
    for (;;) {
        bool found = false;
        TL_TRY(tl_tar_reader_next(&archive, &found, load->error));
        if (!found) {
            break;
        }
        const int member = member_index(load->members, archive.name);
        if (member < 0) {
            continue;
        }
        if (place[member] >= 0) {
            return tl_fail(load->error, TL_ERROR_FORMAT,
                           TL_SHOWN_PATH ": the archive holds %s twice", source->path,
                           archive.name);
        }
        place[member] = seen++;
        char shown[64];
        snprintf(shown, sizeof shown, ": %s", load->members->names[member]);
        const cifar_input input = {.source = source, .archive = &archive, .member = shown};
        TL_TRY(read_records(load, &input));
    }
    for (int m = 0; m < load->members->count; m++) {
        if (place[m] < 0) {
            return tl_fail(load->error, TL_ERROR_FORMAT,
                           TL_SHOWN_PATH ": the archive does not hold %s, which %s needs",
                           source->path, load->members->names[m], load->format->name);
        }
    }
    /* on to the end of the file, where the checksum is */
    uint64_t skipped = 0;
    return tl_byte_source_skip(source, UINT64_MAX, &skipped, load->error);
}

static tl_status read_archive(cifar_load *load, const char *path) {
    tl_byte_source source;
    TL_TRY(tl_byte_source_open(&source, load->dataset->context, path, load->error));
    int place[MOST_MEMBERS];
    for (int m = 0; m < MOST_MEMBERS; m++) {
        place[m] = -1;
    }
    tl_status status = reserve(load, &source, 1);
    if (status == TL_OK) {
        status = read_members(load, &source, place);
    }
    tl_byte_source_close(&source);
    if (status == TL_OK) {
        sort_members(load, place);
    }
    return status;
}

/* ---- all of it */

static tl_status read_path(cifar_load *load, const char *path) {
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISDIR(status.st_mode)) {
        return read_archive(load, path);
    }
    if (!exists(path)) {
        return tl_fail(load->error, TL_ERROR_IO, TL_SHOWN_PATH ": no such folder or archive", path);
    }
    if (has_any_member(load->members, path)) {
        return read_folder(load, path);
    }
    char inner[PATH_BYTES];
    TL_TRY(join(inner, path, load->format->folder, "", load->error));
    if (has_any_member(load->members, inner)) {
        return read_folder(load, inner);
    }
    TL_TRY(join(inner, path, load->format->archive, "", load->error));
    if (exists(inner)) {
        return read_archive(load, inner);
    }
    return tl_fail(load->error, TL_ERROR_IO,
                   TL_SHOWN_PATH ": expected %s, the same with .gz, or %s in this folder; "
                                 "found neither",
                   path, load->members->names[0], load->format->archive);
}

tl_dataset *tl_dataset_load_cifar(tl_context *context, const char *path, int classes,
                                  tl_split split, tl_error *error) {
    if (path == NULL || (classes != 10 && classes != 100) ||
        (split != TL_SPLIT_TRAIN && split != TL_SPLIT_TEST)) {
        (void)tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                      "cifar: expected a path, 10 or 100 classes and a split of 0 or 1, found %s, "
                      "%d and %d",
                      path != NULL ? path : "NULL", classes, (int)split);
        return NULL;
    }
    const cifar_format *format = classes == 10 ? &cifar10 : &cifar100;
    cifar_load load = {.format = format, .members = &format->members[split], .error = error};
    const size_t buffer_bytes = RECORDS_AT_ONCE * record_bytes(format);
    load.dataset = tl_dataset_create_empty(context, &format->info, error);
    if (load.dataset == NULL) {
        return NULL;
    }
    load.records = tl_memory_allocate(context, buffer_bytes);
    tl_status status = TL_OK;
    if (load.records == NULL) {
        status = tl_memory_fail(context, error, "cifar: records", buffer_bytes);
    } else {
        status = read_path(&load, path);
    }
    if (status == TL_OK) {
        status = tl_dataset_trim(load.dataset, error);
    }
    if (status == TL_OK && load.dataset->info.count != load.members->official_records) {
        tl_log(context, TL_LOG_WARNING,
               TL_SHOWN_PATH ": %lld images, where the official %s has %lld", path,
               (long long)load.dataset->info.count, format->name,
               (long long)load.members->official_records);
    }
    tl_memory_release(context, load.records, buffer_bytes);
    if (status != TL_OK) {
        tl_dataset_free(load.dataset);
        return NULL;
    }
    return load.dataset;
}
