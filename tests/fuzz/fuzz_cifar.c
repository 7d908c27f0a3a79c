/* Fuzzes the CIFAR reader. The first byte of an input chooses the format, the split and what its
 * rest is: a plain file, a .gz file, the content of one (compressed here, so that changes reach
 * what lies behind the checksum), a .tar.gz archive, or the content of one. */
#include "fuzz/fuzz_support.h"

enum { RAW_FILE, GZIP_FILE, GZIP_CONTENT, ARCHIVE, ARCHIVE_CONTENT, KINDS };

/* Fixed needs: records on their way, zlib's window, the dataset's first images. */
static const size_t overhead = 4u << 20;
static const size_t deflate_ratio = 1032;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const int kind = data[0] % KINDS;
    const bool hundred = (data[0] / KINDS & 1) != 0;
    const char *plain = hundred ? "test.bin" : "test_batch.bin";
    const char *zipped = hundred ? "test.bin.gz" : "test_batch.bin.gz";
    const uint8_t *content = data + 1;
    const size_t content_size = size - 1;
    const char *path = fuzz_folder();
    switch (kind) {
    case RAW_FILE:
        (void)fuzz_file(plain, content, content_size);
        break;
    case GZIP_FILE:
        (void)fuzz_file(zipped, content, content_size);
        break;
    case GZIP_CONTENT:
        (void)fuzz_gzip_file(zipped, content, content_size);
        break;
    case ARCHIVE:
        path = fuzz_file("archive.tar.gz", content, content_size);
        break;
    default:
        path = fuzz_gzip_file("archive.tar.gz", content, content_size);
        break;
    }
    tl_error error = {0};
    tl_context *context = fuzz_context();
    tl_dataset *dataset =
        tl_dataset_load_cifar(context, path, hundred ? 100 : 10, TL_SPLIT_TEST, &error);
    if (dataset == NULL) {
        fuzz_require_message(&error);
    } else {
        const tl_dataset_info *info = tl_dataset_describe(dataset);
        fuzz_require(info->count > 0, "an empty dataset");
        for (int64_t i = 0; i < info->count; i++) {
            fuzz_require(info->labels[i] >= 0 && info->labels[i] < info->classes, "a bad label");
        }
        tl_dataset_free(dataset);
    }
    const bool opaque = kind == GZIP_FILE || kind == ARCHIVE;
    fuzz_require_clean(overhead + 3 * content_size * (opaque ? deflate_ratio : 1));
    fuzz_remove(plain);
    fuzz_remove(zipped);
    return 0;
}
