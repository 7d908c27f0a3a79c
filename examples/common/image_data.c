#include "common/image_data.h"

#include "common/fail.h"

static const char fashion_mnist_folder[] = "/usr/share/datasets/fashion-mnist";

tl_dataset *image_data_load(tl_context *context, const image_data_config *config, tl_split split,
                            tl_error *error) {
    const char *folder = config->folder;
    if (folder == NULL && config->dataset == DATASET_FASHION_MNIST) {
        folder = fashion_mnist_folder;
    }
    if (folder == NULL && config->dataset != DATASET_LONG_RANGE) {
        (void)fail_with(error, TL_ERROR_INVALID_ARGUMENT,
                        "this dataset is read from files: give their folder with --data-dir "
                        "(datasets/README.md says where to get them)");
        return NULL;
    }
    switch (config->dataset) {
    case DATASET_CIFAR10:
        return tl_dataset_load_cifar(context, folder, 10, split, error);
    case DATASET_CIFAR100:
        return tl_dataset_load_cifar(context, folder, 100, split, error);
    case DATASET_FASHION_MNIST:
        return tl_dataset_load_mnist(context, folder, TL_MNIST_FASHION, split, error);
    case DATASET_MNIST:
        return tl_dataset_load_mnist(context, folder, TL_MNIST_DIGITS, split, error);
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
