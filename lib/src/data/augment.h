/* augment.h - one image of a batch: crop, flip, normalisation and cutout in one pass. */
#ifndef TL_AUGMENT_H
#define TL_AUGMENT_H

#include <tapeline/loader.h>

/* What is the same for all images of a loader. */
typedef struct tl_augment_plan {
    const tl_dataset_info *info;
    tl_augment_config config;
    uint64_t seed;
    const tl_real *scale; /* [width, channels]: a value v becomes v * scale + offset */
    const tl_real *offset;
} tl_augment_plan;

/* Bytes of one row of an image, the scratch of the functions below. */
size_t tl_augment_scratch_bytes(const tl_dataset_info *info);

/* Fills scale and offset (width * channels numbers each). */
void tl_augment_fill_normalization(const tl_dataset_info *info, tl_real *scale, tl_real *offset);

/* Image `index` as epoch `epoch` sees it, to `image` [H, W, C], and its mask to `mask` [H, W]
 * (not touched if the dataset has none). */
void tl_augment_sample(const tl_augment_plan *plan, int64_t epoch, int64_t index, uint8_t *scratch,
                       tl_real *image, uint8_t *mask);

#endif
