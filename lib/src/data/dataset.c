#include "data/dataset_internal.h"

#include <math.h>
#include <string.h>

#include "core/context_internal.h"

enum { LONGEST_SIDE = 1 << 15, FIRST_BYTES = 1 << 20 };

static size_t image_pixels(const tl_dataset *dataset) {
    return (size_t)(dataset->info.height * dataset->info.width);
}

static size_t image_bytes(const tl_dataset *dataset) {
    return image_pixels(dataset) * (size_t)dataset->info.channels;
}

tl_dataset *tl_dataset_create_empty(tl_context *context, const tl_dataset_info *shape,
                                    tl_error *error) {
    tl_dataset *dataset = tl_memory_allocate(context, sizeof *dataset);
    if (dataset == NULL) {
        (void)tl_memory_fail(context, error, "dataset", sizeof *dataset);
        return NULL;
    }
    *dataset = (tl_dataset){.context = context, .info = *shape};
    dataset->info.count = 0;
    dataset->info.images = NULL;
    dataset->info.labels = NULL;
    dataset->info.masks = NULL;
    dataset->info.targets = NULL;
    return dataset;
}

static void release_arrays(tl_context *context, const tl_dataset *dataset) {
    const size_t capacity = (size_t)dataset->capacity;
    tl_memory_release(context, dataset->images, capacity * image_bytes(dataset));
    tl_memory_release(context, dataset->labels, capacity * sizeof(int32_t));
    tl_memory_release(context, dataset->masks, capacity * image_pixels(dataset));
    tl_memory_release(context, dataset->targets, capacity * image_pixels(dataset) * sizeof(float));
}

void tl_dataset_free(tl_dataset *dataset) {
    if (dataset == NULL) {
        return;
    }
    release_arrays(dataset->context, dataset);
    tl_memory_release(dataset->context, dataset, sizeof *dataset);
}

/* Moves the content to arrays of exactly `capacity` images, at least as many as there are. */
static tl_status resize(tl_dataset *dataset, int64_t capacity, tl_error *error) {
    const size_t bytes = image_bytes(dataset);
    const size_t pixels = image_pixels(dataset);
    if (capacity > INT64_MAX / (int64_t)(bytes + pixels * (1 + sizeof(float)) + sizeof(int32_t))) {
        return tl_fail(error, TL_ERROR_OUT_OF_MEMORY,
                       "dataset: %lld images of %zu bytes are too many", (long long)capacity,
                       bytes);
    }
    const size_t room = (size_t)capacity;
    tl_dataset moved = *dataset;
    moved.capacity = capacity;
    moved.images = tl_memory_allocate(dataset->context, room * bytes);
    moved.labels = tl_memory_allocate(dataset->context, room * sizeof(int32_t));
    const bool wants_masks = dataset->info.mask_classes > 0;
    moved.masks = wants_masks ? tl_memory_allocate(dataset->context, room * pixels) : NULL;
    moved.targets = dataset->has_targets
                        ? tl_memory_allocate(dataset->context, room * pixels * sizeof(float))
                        : NULL;
    if (moved.images == NULL || moved.labels == NULL || (wants_masks && moved.masks == NULL) ||
        (dataset->has_targets && moved.targets == NULL)) {
        release_arrays(dataset->context, &moved);
        return tl_memory_fail(dataset->context, error, "dataset: images and labels",
                              room * (bytes + sizeof(int32_t)));
    }
    const size_t count = (size_t)dataset->info.count;
    if (count > 0) {
        memcpy(moved.images, dataset->images, count * bytes);
        memcpy(moved.labels, dataset->labels, count * sizeof(int32_t));
        if (wants_masks) {
            memcpy(moved.masks, dataset->masks, count * pixels);
        }
        if (dataset->has_targets) {
            memcpy(moved.targets, dataset->targets, count * pixels * sizeof(float));
        }
    }
    release_arrays(dataset->context, dataset);
    moved.info.images = moved.images;
    moved.info.labels = moved.labels;
    moved.info.masks = moved.masks;
    moved.info.targets = moved.targets;
    *dataset = moved;
    return TL_OK;
}

tl_status tl_dataset_reserve(tl_dataset *dataset, int64_t capacity, tl_error *error) {
    return capacity > dataset->capacity ? resize(dataset, capacity, error) : TL_OK;
}

tl_status tl_dataset_grow(tl_dataset *dataset, int64_t most, tl_error *error) {
    if (dataset->info.count < dataset->capacity) {
        return TL_OK;
    }
    int64_t capacity = 2 * dataset->capacity;
    if (capacity == 0) {
        capacity = 1 + FIRST_BYTES / (int64_t)image_bytes(dataset);
    }
    return resize(dataset, capacity < most ? capacity : most, error);
}

tl_status tl_dataset_trim(tl_dataset *dataset, tl_error *error) {
    const int64_t unused = dataset->capacity - dataset->info.count;
    return unused > dataset->capacity / 8 ? resize(dataset, dataset->info.count, error) : TL_OK;
}

void tl_dataset_compute_normalization(tl_dataset *dataset) {
    const tl_dataset_info *info = &dataset->info;
    const size_t channels = (size_t)info->channels;
    const size_t pixels = (size_t)info->count * image_pixels(dataset);
    for (size_t c = 0; c < channels; c++) {
        uint64_t sum = 0; /* exact: below 2^64 for any number of pixels that fits in memory */
        uint64_t squares = 0;
        for (size_t i = 0; i < pixels; i++) {
            const uint64_t value = dataset->images[i * channels + c];
            sum += value;
            squares += value * value;
        }
        const double n = (double)pixels;
        const double mean = (double)sum / n;
        const double variance = (double)squares / n - mean * mean;
        dataset->info.mean[c] = mean / 255.0;
        dataset->info.deviation[c] = variance > 1e-6 ? sqrt(variance) / 255.0 : 1.0;
    }
}

tl_status tl_dataset_set_normalization(tl_dataset *dataset, const double *mean,
                                       const double *deviation, tl_error *error) {
    for (int64_t c = 0; c < dataset->info.channels; c++) {
        if (!isfinite(mean[c]) || !isfinite(deviation[c]) || deviation[c] <= 0) {
            return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                           "dataset: normalization of channel %lld: expected a finite mean "
                           "and a deviation above 0, found %g and %g",
                           (long long)c, mean[c], deviation[c]);
        }
    }
    const size_t bytes = (size_t)dataset->info.channels * sizeof(double);
    memcpy(dataset->info.mean, mean, bytes);
    memcpy(dataset->info.deviation, deviation, bytes);
    return TL_OK;
}

/* ---- datasets of the caller's own images */

static tl_status check_extents(const tl_dataset_info *info, tl_error *error) {
    if (info->count < 1 || info->images == NULL || info->labels == NULL) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "dataset: expected at least one image with a label, found %lld%s",
                       (long long)info->count,
                       info->images == NULL || info->labels == NULL ? " (NULL arrays)" : "");
    }
    if (info->height < 1 || info->height > LONGEST_SIDE || info->width < 1 ||
        info->width > LONGEST_SIDE || info->channels < 1 ||
        info->channels > TL_DATASET_MAX_CHANNELS) {
        return tl_fail(error, TL_ERROR_SHAPE,
                       "dataset: expected sides from 1 to %d and 1 to %d channels, found "
                       "[%lld, %lld, %lld]",
                       LONGEST_SIDE, TL_DATASET_MAX_CHANNELS, (long long)info->height,
                       (long long)info->width, (long long)info->channels);
    }
    if (info->classes < 1 || (info->masks != NULL) != (info->mask_classes > 0) ||
        info->mask_classes < 0 || info->mask_classes > 256) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "dataset: expected at least 1 class, and 1 to 256 mask classes exactly "
                       "if there are masks; found %d and %d",
                       info->classes, info->mask_classes);
    }
    return TL_OK;
}

static tl_status check_values(const tl_dataset_info *info, tl_error *error) {
    for (int64_t i = 0; i < info->count; i++) {
        if (info->labels[i] < 0 || info->labels[i] >= info->classes) {
            return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                           "dataset: image %lld: expected a label from 0 to %d, found %d",
                           (long long)i, info->classes - 1, (int)info->labels[i]);
        }
    }
    const int64_t pixels = info->masks != NULL ? info->height * info->width : 0;
    for (int64_t i = 0; i < info->count * pixels; i++) {
        if (info->masks[i] >= info->mask_classes) {
            return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                           "dataset: mask %lld: expected classes from 0 to %d, found %d",
                           (long long)(i / pixels), info->mask_classes - 1, info->masks[i]);
        }
    }
    const int64_t targets = info->targets != NULL ? info->height * info->width : 0;
    for (int64_t i = 0; i < info->count * targets; i++) {
        if (!isfinite(info->targets[i])) {
            return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                           "dataset: targets %lld: expected finite numbers, found %g",
                           (long long)(i / targets), (double)info->targets[i]);
        }
    }
    return TL_OK;
}

static tl_status fill(tl_dataset *dataset, const tl_dataset_info *info, tl_error *error) {
    dataset->has_targets = info->targets != NULL;
    TL_TRY(tl_dataset_reserve(dataset, info->count, error));
    const size_t count = (size_t)info->count;
    dataset->info.count = info->count;
    memcpy(dataset->images, info->images, count * image_bytes(dataset));
    memcpy(dataset->labels, info->labels, count * sizeof(int32_t));
    if (info->masks != NULL) {
        memcpy(dataset->masks, info->masks, count * image_pixels(dataset));
    }
    if (info->targets != NULL) {
        memcpy(dataset->targets, info->targets, count * image_pixels(dataset) * sizeof(float));
    }
    for (int64_t c = 0; c < info->channels; c++) {
        if (info->deviation[c] != 0) {
            return tl_dataset_set_normalization(dataset, info->mean, info->deviation, error);
        }
    }
    tl_dataset_compute_normalization(dataset);
    return TL_OK;
}

tl_dataset *tl_dataset_create(tl_context *context, const tl_dataset_info *info, tl_error *error) {
    if (check_extents(info, error) != TL_OK || check_values(info, error) != TL_OK) {
        return NULL;
    }
    tl_dataset *dataset = tl_dataset_create_empty(context, info, error);
    if (dataset != NULL && fill(dataset, info, error) != TL_OK) {
        tl_dataset_free(dataset);
        return NULL;
    }
    return dataset;
}

const tl_dataset_info *tl_dataset_describe(const tl_dataset *dataset) {
    return &dataset->info;
}
