/* image_data.h - the datasets of the image trainers, by name. */
#ifndef EXAMPLE_IMAGE_DATA_H
#define EXAMPLE_IMAGE_DATA_H

#include <tapeline/tapeline.h>

/* In the order of DATASET_CHOICES. */
typedef enum image_dataset {
    DATASET_CIFAR10,
    DATASET_CIFAR100,
    DATASET_FASHION_MNIST,
    DATASET_MNIST,
    DATASET_LONG_RANGE,
} image_dataset;
#define DATASET_CHOICES "cifar10|cifar100|fashion-mnist|mnist|long-range"

typedef struct image_data_config {
    image_dataset dataset;
    const char *folder;   /* NULL: where Debian puts it, if it does */
    int64_t train_images; /* of procedural data; 0: the dataset's default */
    int64_t test_images;
    int64_t image_size;
    uint64_t seed;
} image_data_config;

/* One part of it; the caller frees it. NULL after an error. */
tl_dataset *image_data_load(tl_context *context, const image_data_config *config, tl_split split,
                            tl_error *error);

/* What suits the dataset: crops for photographs, flips where left and right do not matter. */
tl_augment_config image_data_augmentation(image_dataset dataset);

#endif
