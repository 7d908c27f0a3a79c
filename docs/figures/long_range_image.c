/* long_range_image INDEX FILE.png - test image INDEX of the long-range task with seed 1. */
#include <stdio.h>
#include <stdlib.h>

#include <tapeline/tapeline.h>

#include "common/png_image.h"

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: long_range_image INDEX FILE.png\n");
        return 2;
    }
    const int index = (int)strtol(argv[1], NULL, 10);
    tl_error error = {0};
    tl_context *context = tl_context_create(NULL);
    tl_dataset *data = tl_dataset_create_long_range(
        context, &(tl_long_range_config){.count = index + 1, .seed = 1, .split = TL_SPLIT_TEST},
        &error);
    if (data == NULL) {
        fprintf(stderr, "long_range_image: %s\n", error.message);
        return 1;
    }
    const tl_dataset_info *info = tl_dataset_describe(data);
    const int64_t bytes = info->height * info->width * info->channels;
    const picture image = {.height = info->height,
                           .width = info->width,
                           .channels = (int)info->channels,
                           .pixels = (uint8_t *)info->images + index * bytes};
    if (png_image_write(&image, argv[2], &error) != TL_OK) {
        fprintf(stderr, "long_range_image: %s\n", error.message);
        return 1;
    }
    printf("%s: %s\n", argv[2], info->class_names[info->labels[index]]);
    return 0;
}
