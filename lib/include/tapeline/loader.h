/* loader.h - batches of a dataset: order, augmentation, normalisation.
 *
 * The order of an epoch is a permutation drawn from (seed, epoch); how an image is augmented is
 * drawn from (seed, epoch, its index). So an epoch is the same on every machine, with any number of
 * loader threads, and from any point at which it is resumed.
 */
#ifndef TL_LOADER_H
#define TL_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include <tapeline/dataset.h>
#include <tapeline/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Random changes to an image, redrawn every epoch. All zero: none. Masks are cropped and flipped
 * with their image; a dataset with targets takes neither crops nor flips, which could change them.
 */
typedef struct tl_augment_config {
    int crop_padding;     /* a crop of the image's size from the image with this many black pixels
                             (class 0 in masks) around it: shifts by up to so many each way */
    bool horizontal_flip; /* left and right swapped, with probability 1/2 */
    int cutout_size;      /* a square of this side, centred at a random pixel and clipped at the
                             borders, set to the mean (DeVries and Taylor 2017, arXiv 1708.04552) */
} tl_augment_config;

/* All zero: batches of 128 in the dataset's order, made inside tl_loader_next. */
typedef struct tl_loader_config {
    int64_t batch_size; /* 0: 128 */
    bool shuffle;
    bool drop_last; /* leave out the last batch of an epoch if it is smaller */
    uint64_t seed;
    tl_augment_config augment;
    int shares; /* 0 or 1: whole batches. Else each batch is cut into so many equal parts (its order
                   kept), which must divide batch_size, and the loader makes only part number
                   `share`: of all that follows, tl_batch alone speaks of the part. A smaller last
                   batch is cut into parts that differ by an image, and may be empty */
    int share;  /* 0 ... shares - 1 */
    int threads; /* 0 to 16 threads that prepare batches ahead; 0 makes each batch inside
                    tl_loader_next, some 0.3 ms for 128 CIFAR images (docs/datasets.md) */
} tl_loader_config;

/* Belongs to the loader; valid until its next call. */
typedef struct tl_batch {
    int64_t count;          /* B: images in the batch; the last one of an epoch may be smaller */
    tl_array images;        /* [B, H, W, C]: (pixel / 255 - mean) / deviation, per channel */
    const int32_t *labels;  /* [B] */
    const uint8_t *masks;   /* [B, H, W], or NULL if the dataset has none */
    tl_array targets;       /* [B, H, W]; its data are NULL if the dataset has none */
    const int64_t *indices; /* [B]: which images of the dataset */
} tl_batch;

typedef struct tl_loader tl_loader;

/* Stands at the start of epoch 0. The dataset must outlive the loader. All memory is taken here:
 * batches cost none. `config` may be NULL: all defaults. */
TL_API tl_loader *tl_loader_create(tl_context *context, const tl_dataset *dataset,
                                   const tl_loader_config *config, tl_error *error);

/* NULL is fine. */
TL_API void tl_loader_free(tl_loader *loader);

/* The next batch of the epoch; false, and `batch` untouched, at its end. */
TL_API bool tl_loader_next(tl_loader *loader, tl_batch *batch);

/* To the start of an epoch, 0 <= epoch < 2^32. TL_ERROR_INVALID_ARGUMENT otherwise. */
TL_API tl_status tl_loader_start_epoch(tl_loader *loader, int64_t epoch);

/* Where the loader stands: save the pair, and tl_loader_seek goes on exactly there. `position`
 * counts the images of the epoch that were handed out: 0 to the dataset's count. */
TL_API int64_t tl_loader_epoch(const tl_loader *loader);
TL_API int64_t tl_loader_position(const tl_loader *loader);
TL_API tl_status tl_loader_seek(tl_loader *loader, int64_t epoch, int64_t position);

/* Batches of a whole epoch. */
TL_API int64_t tl_loader_batches(const tl_loader *loader);

#ifdef __cplusplus
}
#endif

#endif
