#include "data/augment.h"

#include <string.h>

#include <tapeline/random.h>

/* The draws for one image in one epoch. */
typedef struct draws {
    int64_t shift_y, shift_x; /* output row y shows row y + shift_y */
    bool flip;
    int64_t cutout_y, cutout_x; /* the centre */
} draws;

/* Random numbers an epoch may take from an image's stream. */
enum { NUMBERS_PER_EPOCH = 1 << 16 };

static int64_t draw_shift(tl_random *random, int padding) {
    return (int64_t)tl_random_below(random, 2 * (uint32_t)padding + 1) - padding;
}

static draws draw(const tl_augment_plan *plan, int64_t epoch, int64_t index) {
    const tl_augment_config *config = &plan->config;
    tl_random random = tl_random_create(plan->seed, TL_RANDOM_AUGMENT, (uint32_t)index);
    random.position = (uint64_t)epoch * NUMBERS_PER_EPOCH;
    draws drawn = {0};
    if (config->crop_padding > 0) {
        drawn.shift_y = draw_shift(&random, config->crop_padding);
        drawn.shift_x = draw_shift(&random, config->crop_padding);
    }
    if (config->horizontal_flip) {
        drawn.flip = tl_random_below(&random, 2) == 1;
    }
    if (config->cutout_size > 0) {
        drawn.cutout_y = tl_random_below(&random, (uint32_t)plan->info->height);
        drawn.cutout_x = tl_random_below(&random, (uint32_t)plan->info->width);
    }
    return drawn;
}

/* One row of the crop: `width` pixels of `bytes` bytes, from `image` (whose rows follow one
 * another) at row y, black where the image has none. The result is in `image` itself or in
 * `scratch`. */
static const uint8_t *crop_row(const tl_dataset_info *info, const draws *drawn,
                               const uint8_t *image, int64_t y, size_t bytes, uint8_t *scratch) {
    const int64_t width = info->width;
    const size_t row_bytes = (size_t)width * bytes;
    const int64_t source_y = y + drawn->shift_y;
    if (source_y < 0 || source_y >= info->height) {
        memset(scratch, 0, row_bytes);
        return scratch;
    }
    const uint8_t *row = image + (size_t)source_y * row_bytes;
    const int64_t shift = drawn->shift_x;
    if (shift == 0 && !drawn->flip) {
        return row;
    }
    const int64_t first = shift < 0 ? -shift : 0; /* columns that lie within the image */
    const int64_t last = shift > 0 ? width - shift : width;
    if (last <= first) {
        memset(scratch, 0, row_bytes);
        return scratch;
    }
    if (!drawn->flip) {
        memset(scratch, 0, (size_t)first * bytes);
        memcpy(scratch + (size_t)first * bytes, row + (size_t)(first + shift) * bytes,
               (size_t)(last - first) * bytes);
        memset(scratch + (size_t)last * bytes, 0, (size_t)(width - last) * bytes);
        return scratch;
    }
    memset(scratch, 0, row_bytes);
    for (int64_t x = first; x < last; x++) {
        for (size_t c = 0; c < bytes; c++) {
            scratch[(size_t)(width - 1 - x) * bytes + c] = row[(size_t)(x + shift) * bytes + c];
        }
    }
    return scratch;
}

static void normalize_row(const uint8_t *restrict row, const tl_real *restrict scale,
                          const tl_real *restrict offset, int64_t values, tl_real *restrict out) {
    for (int64_t i = 0; i < values; i++) {
        out[i] = (tl_real)row[i] * scale[i] + offset[i];
    }
}

/* Zero is the mean. */
static void cut_out(const tl_augment_plan *plan, const draws *drawn, tl_real *image) {
    const tl_dataset_info *info = plan->info;
    const int64_t size = plan->config.cutout_size;
    const int64_t top = drawn->cutout_y - size / 2;
    const int64_t left = drawn->cutout_x - size / 2;
    const int64_t first_x = left > 0 ? left : 0;
    const int64_t end_x = left + size < info->width ? left + size : info->width;
    for (int64_t y = top > 0 ? top : 0; y < top + size && y < info->height; y++) {
        tl_real *row = image + y * info->width * info->channels;
        for (int64_t i = first_x * info->channels; i < end_x * info->channels; i++) {
            row[i] = 0;
        }
    }
}

size_t tl_augment_scratch_bytes(const tl_dataset_info *info) {
    return (size_t)(info->width * info->channels);
}

void tl_augment_fill_normalization(const tl_dataset_info *info, tl_real *scale, tl_real *offset) {
    for (int64_t i = 0; i < info->width * info->channels; i++) {
        const int64_t c = i % info->channels;
        scale[i] = (tl_real)(1.0 / (255.0 * info->deviation[c]));
        offset[i] = (tl_real)(-info->mean[c] / info->deviation[c]);
    }
}

void tl_augment_sample(const tl_augment_plan *plan, int64_t epoch, int64_t index, uint8_t *scratch,
                       tl_real *image, uint8_t *mask) {
    const tl_dataset_info *info = plan->info;
    const draws drawn = draw(plan, epoch, index);
    const int64_t row_values = info->width * info->channels;
    const int64_t pixels = info->height * info->width;
    const uint8_t *source = info->images + index * info->height * row_values;
    for (int64_t y = 0; y < info->height; y++) {
        const uint8_t *row = crop_row(info, &drawn, source, y, (size_t)info->channels, scratch);
        normalize_row(row, plan->scale, plan->offset, row_values, image + y * row_values);
    }
    if (plan->config.cutout_size > 0) {
        cut_out(plan, &drawn, image);
    }
    if (info->masks != NULL) {
        for (int64_t y = 0; y < info->height; y++) {
            const uint8_t *row =
                crop_row(info, &drawn, info->masks + index * pixels, y, 1, scratch);
            memcpy(mask + y * info->width, row, (size_t)info->width);
        }
    }
}
