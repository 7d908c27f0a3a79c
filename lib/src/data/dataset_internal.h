/* dataset_internal.h - how readers and generators fill a dataset. */
#ifndef TL_DATASET_INTERNAL_H
#define TL_DATASET_INTERNAL_H

#include <stdbool.h>

#include <tapeline/dataset.h>

struct tl_dataset {
    tl_context *context;
    int64_t capacity; /* images there is memory for */
    uint8_t *images;  /* info.images, labels, masks and targets, writable */
    int32_t *labels;
    uint8_t *masks;
    float *targets;
    bool has_targets; /* set it before room is made */
    tl_dataset_info info;
};

/* A dataset of no images yet. Of `shape` height, width, channels, classes, class names, mask
 * classes, mean and deviation are taken; its extents must have been checked. */
tl_dataset *tl_dataset_create_empty(tl_context *context, const tl_dataset_info *shape,
                                    tl_error *error);

/* Makes room for `capacity` images at least; those that are there keep. */
tl_status tl_dataset_reserve(tl_dataset *dataset, int64_t capacity, tl_error *error);

/* Makes room for one image more, in steps that grow with the dataset, `most` images in all. */
tl_status tl_dataset_grow(tl_dataset *dataset, int64_t most, tl_error *error);

/* Gives back room that is not used, if it is much. */
tl_status tl_dataset_trim(tl_dataset *dataset, tl_error *error);

/* Mean and deviation from the images that are there. */
void tl_dataset_compute_normalization(tl_dataset *dataset);

#endif
