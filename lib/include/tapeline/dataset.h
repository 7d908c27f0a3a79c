/* dataset.h - labelled images in memory: files, arrays and procedural tasks.
 *
 * A dataset holds 8-bit images, channels-last, with one class label each and, for dense tasks, one
 * label or one number per pixel. It is read-only once created, so any number of loaders (loader.h)
 * may share it. All its memory is tracked by its context.
 *
 * Files are not trusted: sizes in headers are checked against what is there, memory is allocated as
 * data arrive, checksums of compressed files are verified to the last byte. Whatever is wrong is
 * one line that names the file, what was expected and what was found.
 */
#ifndef TL_DATASET_H
#define TL_DATASET_H

#include <stdint.h>

#include <tapeline/context.h>
#include <tapeline/error.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TL_DATASET_MAX_CHANNELS = 6 }; /* a pair of colour images */

typedef struct tl_dataset tl_dataset;

typedef enum tl_split { TL_SPLIT_TRAIN = 0, TL_SPLIT_TEST = 1 } tl_split;

/* What a dataset holds. */
typedef struct tl_dataset_info {
    int64_t count; /* images */
    int64_t height, width;
    int64_t channels;               /* 1 to TL_DATASET_MAX_CHANNELS */
    int classes;                    /* labels are 0 ... classes - 1 */
    const char *const *class_names; /* one each, or NULL where they are unknown */
    const uint8_t *images;          /* [count, height, width, channels] */
    const int32_t *labels;          /* [count] */
    const uint8_t *masks;           /* [count, height, width], a class per pixel; or NULL */
    int mask_classes;               /* mask values are 0 ... mask_classes - 1; 0 without masks */
    const float *targets;           /* [count, height, width], a number per pixel; or NULL */
    /* What normalisation subtracts and divides by, per channel, on the scale where white is 1. */
    double mean[TL_DATASET_MAX_CHANNELS];
    double deviation[TL_DATASET_MAX_CHANNELS];
} tl_dataset_info;

/* A dataset of the caller's own images, which are copied, as are labels, masks and targets; class
 * names are not copied and must outlive the dataset. Where all deviations are 0, mean and deviation
 * are computed from the images (a constant channel gets deviation 1). */
TL_API tl_dataset *tl_dataset_create(tl_context *context, const tl_dataset_info *info,
                                     tl_error *error);

/* NULL is fine. Free the loaders that read it before. */
TL_API void tl_dataset_free(tl_dataset *dataset);

/* What is in it; belongs to the dataset. */
TL_API const tl_dataset_info *tl_dataset_describe(const tl_dataset *dataset);

/* Replaces mean and deviation (`channels` numbers each, deviations above 0, all finite), e.g. by
 * those of the training images for a test set that was normalised by its own. Loaders take them
 * when they are created. */
TL_API tl_status tl_dataset_set_normalization(tl_dataset *dataset, const double *mean,
                                              const double *deviation, tl_error *error);

/* CIFAR-10 (`classes` 10) or CIFAR-100 (`classes` 100: the fine labels), binary version, 32x32x3.
 *
 * `path` is the distributed archive (.tar.gz, or .tar), or a folder: with data_batch_1.bin to
 * data_batch_5.bin and test_batch.bin (CIFAR-100: train.bin and test.bin), each plain or
 * gzip-compressed under the same name with .gz; or with the subfolder or the archive as they are
 * distributed (cifar-10-batches-bin, cifar-10-binary.tar.gz; cifar-100-binary,
 * cifar-100-binary.tar.gz). The batches may be smaller than the official 10,000 images, but all of
 * one size. Mean and deviation are those of the official training images.
 *
 * TL_ERROR_IO: a file cannot be opened or read. TL_ERROR_FORMAT: its content is not as it should
 * be (a cut or damaged file, a label out of range, a missing member). */
TL_API tl_dataset *tl_dataset_load_cifar(tl_context *context, const char *path, int classes,
                                         tl_split split, tl_error *error);

/* Grey images from a pair of IDX files (rank 3 of unsigned bytes, and rank 1), plain or
 * gzip-compressed. `classes` 0: the largest label + 1. Mean and deviation are computed. */
TL_API tl_dataset *tl_dataset_load_idx(tl_context *context, const char *images_path,
                                       const char *labels_path, int classes, tl_error *error);

typedef enum tl_mnist_kind { TL_MNIST_DIGITS = 0, TL_MNIST_FASHION = 1 } tl_mnist_kind;

/* MNIST or Fashion-MNIST from a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and
 * the same for t10k, each plain or with .gz (also under the spelling train-images.idx3-ubyte).
 * 10 classes; mean and deviation are those of the official training images. */
TL_API tl_dataset *tl_dataset_load_mnist(tl_context *context, const char *folder,
                                         tl_mnist_kind kind, tl_split split, tl_error *error);

/* ---- long-range: associative recall in images, made by a program
 *
 * Each image holds a ring in one of six colours and four glyphs of different shapes (of ten) and
 * different colours, one of them the ring's, at random places on dark noise. The class is the
 * shape of the glyph that has the ring's colour; the mask is 1 on the pixels of that glyph and 0
 * elsewhere. No glyph lies near the ring: a square window of `separation` + 1 pixels or less never
 * holds a pixel of both. A network whose receptive field is no larger, with global average pooling
 * and a linear classifier, can therefore not do better than to guess among the four shapes (25%).
 * See docs/datasets.md.
 *
 * Image i of a split depends on (seed, split, image_size, separation, i) alone, not on `count`;
 * training and test images come from disjoint random streams. */
typedef struct tl_long_range_config {
    int64_t count;  /* images; 0: 20,000 for training, 2,000 for test */
    int image_size; /* height and width in pixels; 0: 32; at least separation + 22, at most 512 */
    int separation; /* empty pixels between ring and glyphs; 0: 10 */
    uint64_t seed;
    tl_split split;
} tl_long_range_config;

/* `config` may be NULL: all defaults. */
TL_API tl_dataset *tl_dataset_create_long_range(tl_context *context,
                                                const tl_long_range_config *config,
                                                tl_error *error);

/* ---- stereo: pairs of images of the same scene from two eyes, made by a program
 *
 * An image has six channels: red, green and blue of the left eye, then of the right. The target of
 * a pixel is its disparity: what the left eye sees at column x, the right eye sees at column
 * x - disparity of the same row, unless something nearer hides it there or it lies outside. Scenes
 * are slanted planes: a textured background, and 3 to 6 rectangles and ellipses before it, of which
 * about two in five have no texture at all, so that only their outlines can be matched. Disparities
 * lie above 0 and below `max_disparity`. Both eyes have noise of their own. There is one class.
 * See docs/datasets.md.
 *
 * Pair i of a split depends on (seed, split, height, width, max_disparity, i) alone; training and
 * test pairs come from disjoint random streams. */
typedef struct tl_stereo_config {
    int64_t count;     /* pairs; 0: 2,000 for training, 200 for test */
    int height;        /* 0: 64; 16 to 1024 */
    int width;         /* 0: 128; 32 to 2048, at least twice max_disparity */
    int max_disparity; /* in pixels; 0: 32; 8 to 256 */
    uint64_t seed;
    tl_split split;
} tl_stereo_config;

/* `config` may be NULL: all defaults. */
TL_API tl_dataset *tl_dataset_create_stereo(tl_context *context, const tl_stereo_config *config,
                                            tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
