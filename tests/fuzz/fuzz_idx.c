/* Fuzzes the IDX reader: a pair of files, images and labels. The first byte says how each is stored
 * (plain, as a .gz file, or compressed here), the next two how long the labels are. */
#include "fuzz/fuzz_support.h"

enum { PLAIN, GZIP_FILE, GZIP_CONTENT, KINDS };

static const size_t overhead = 4u << 20;
static const size_t deflate_ratio = 1032;

static const char *store(int kind, const char *plain, const char *zipped, const uint8_t *data,
                         size_t size) {
    switch (kind) {
    case PLAIN:
        return fuzz_file(plain, data, size);
    case GZIP_FILE:
        return fuzz_file(zipped, data, size);
    default:
        return fuzz_gzip_file(zipped, data, size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_reader reader = {data, size};
    const uint8_t mode = fuzz_byte(&reader);
    const int images_kind = mode % KINDS, labels_kind = mode / KINDS % KINDS;
    size_t label_bytes = (size_t)fuzz_number(&reader, 2);
    label_bytes = label_bytes < reader.left ? label_bytes : reader.left;
    const char *labels = store(labels_kind, "labels", "labels.gz", reader.data, label_bytes);
    const size_t image_bytes = reader.left - label_bytes;
    const char *images =
        store(images_kind, "images", "images.gz", reader.data + label_bytes, image_bytes);
    tl_error error = {0};
    tl_dataset *dataset = tl_dataset_load_idx(fuzz_context(), images, labels, 10, &error);
    if (dataset == NULL) {
        fuzz_require_message(&error);
    } else {
        const tl_dataset_info *info = tl_dataset_describe(dataset);
        fuzz_require(info->count > 0 && info->height > 0 && info->width > 0, "an empty dataset");
        for (int64_t i = 0; i < info->count; i++) {
            fuzz_require(info->labels[i] >= 0 && info->labels[i] < info->classes, "a bad label");
        }
        tl_dataset_free(dataset);
    }
    const bool opaque = images_kind == GZIP_FILE || labels_kind == GZIP_FILE;
    /* a label becomes four bytes, an image of one pixel five */
    fuzz_require_clean(overhead + 8 * size * (opaque ? deflate_ratio : 1));
    return 0;
}
