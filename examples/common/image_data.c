#include "common/image_data.h"

#include <stdio.h>

static const char fashion_mnist_folder[] = "/usr/share/datasets/fashion-mnist";

static tl_dataset *load_split(tl_context *context, const image_data_config *config, tl_split split,
                              tl_error *error) {
    switch (config->dataset) {
    case DATASET_CIFAR10:
        return tl_dataset_load_cifar(context, config->folder, 10, split, error);
    case DATASET_CIFAR100:
        return tl_dataset_load_cifar(context, config->folder, 100, split, error);
    case DATASET_FASHION_MNIST:
        return tl_dataset_load_mnist(context, config->folder, TL_MNIST_FASHION, split, error);
    case DATASET_MNIST:
        return tl_dataset_load_mnist(context, config->folder, TL_MNIST_DIGITS, split, error);
    case DATASET_LONG_RANGE:
        return tl_dataset_create_long_range(
            context,
            &(tl_long_range_config){.count = split == TL_SPLIT_TRAIN ? config->train_images
                                                                     : config->test_images,
                                    .image_size = (int)config->image_size,
                                    .seed = config->seed,
                                    .split = split},
            error);
    }
    return NULL;
}

tl_status image_data_load(image_data *data, tl_context *context, const image_data_config *config,
                          bool test_only, tl_error *error) {
    *data = (image_data){0};
    image_data_config filled = *config;
    if (filled.folder == NULL && filled.dataset == DATASET_FASHION_MNIST) {
        filled.folder = fashion_mnist_folder;
    }
    if (filled.folder == NULL && filled.dataset != DATASET_LONG_RANGE) {
        error->status = TL_ERROR_INVALID_ARGUMENT;
        (void)snprintf(error->message, sizeof error->message,
                       "this dataset is read from files: give their folder with --data-dir "
                       "(datasets/README.md says where to get them)");
        return error->status;
    }
    data->test = load_split(context, &filled, TL_SPLIT_TEST, error);
    if (data->test == NULL) {
        return error->status;
    }
    if (test_only) {
        return TL_OK;
    }
    data->train = load_split(context, &filled, TL_SPLIT_TRAIN, error);
    if (data->train == NULL) {
        image_data_free(data);
        return error->status;
    }
    return TL_OK;
}

void image_data_free(image_data *data) {
    tl_dataset_free(data->train);
    tl_dataset_free(data->test);
    *data = (image_data){0};
}

tl_augment_config image_data_augmentation(image_dataset dataset) {
    switch (dataset) {
    case DATASET_CIFAR10:
    case DATASET_CIFAR100:
        return (tl_augment_config){.crop_padding = 4, .horizontal_flip = true};
    case DATASET_FASHION_MNIST:
        return (tl_augment_config){.crop_padding = 2, .horizontal_flip = true};
    case DATASET_MNIST:
        return (tl_augment_config){.crop_padding = 2};
    case DATASET_LONG_RANGE:
        break; /* every image is new enough, and the task knows no symmetry it could lose */
    }
    return (tl_augment_config){0};
}
