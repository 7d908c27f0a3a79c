#include "common/picture.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/fail.h"

tl_status picture_create(picture *image, int64_t height, int64_t width, int channels,
                         tl_error *error) {
    *image = (picture){0};
    if (height < 1 || width < 1 || height > PICTURE_MAX_SIDE || width > PICTURE_MAX_SIDE ||
        height * width > PICTURE_MAX_PIXELS || (channels != 1 && channels != 3)) {
        return fail_with(
            error, TL_ERROR_INVALID_ARGUMENT,
            "a picture has sides of 1 to %d, up to %d pixels and 1 or 3 channels, found "
            "%" PRId64 "x%" PRId64 "x%d",
            PICTURE_MAX_SIDE, PICTURE_MAX_PIXELS, height, width, channels);
    }
    image->pixels = calloc((size_t)(height * width), (size_t)channels);
    if (image->pixels == NULL) {
        return fail_with(error, TL_ERROR_OUT_OF_MEMORY,
                         "out of memory for a picture of %" PRId64 "x%" PRId64, height, width);
    }
    image->height = height;
    image->width = width;
    image->channels = channels;
    return TL_OK;
}

void picture_free(picture *image) {
    free(image->pixels);
    *image = (picture){0};
}

/* One pixel with another number of channels. */
static void convert_pixel(const uint8_t *from, int from_channels, uint8_t *to, int to_channels) {
    if (from_channels == to_channels) {
        memcpy(to, from, (size_t)to_channels);
    } else if (to_channels == 3) {
        memset(to, from[0], 3);
    } else {
        to[0] = (uint8_t)lround(0.299 * from[0] + 0.587 * from[1] + 0.114 * from[2]);
    }
}

tl_status picture_convert(picture *image, int channels, tl_error *error) {
    if (channels == image->channels) {
        return TL_OK;
    }
    picture converted;
    const tl_status status =
        picture_create(&converted, image->height, image->width, channels, error);
    if (status != TL_OK) {
        return status;
    }
    for (int64_t i = 0; i < image->height * image->width; i++) {
        convert_pixel(image->pixels + i * image->channels, image->channels,
                      converted.pixels + i * channels, channels);
    }
    picture_free(image);
    *image = converted;
    return TL_OK;
}

/* The pixels of one side that make a new one, with weights that sum to 1: `count` from `first`. */
typedef struct span {
    int64_t first, count;
    double start, length; /* of the area, in old pixels */
} span;

static span span_of(int64_t index, int64_t old_side, int64_t new_side) {
    const double scale = (double)old_side / (double)new_side;
    /* growing: linear between the centres is the mean over one old pixel */
    const double length = scale > 1 ? scale : 1;
    double start = ((double)index + 0.5) * scale - 0.5 * length;
    start = start < 0 ? 0 : start;
    start = start > (double)old_side - length ? (double)old_side - length : start;
    span s = {.first = (int64_t)start, .start = start, .length = length};
    const int64_t end = (int64_t)ceil(start + length);
    s.count = (end < old_side ? end : old_side) - s.first;
    return s;
}

static double weight(const span *s, int64_t i) {
    const double low = fmax(s->start, (double)(s->first + i));
    const double high = fmin(s->start + s->length, (double)(s->first + i + 1));
    return high > low ? (high - low) / s->length : 0;
}

tl_status picture_resize(const picture *image, int64_t height, int64_t width, picture *resized,
                         tl_error *error) {
    const tl_status status = picture_create(resized, height, width, image->channels, error);
    if (status != TL_OK) {
        return status;
    }
    uint8_t *to = resized->pixels;
    for (int64_t y = 0; y < height; y++) {
        const span rows = span_of(y, image->height, height);
        for (int64_t x = 0; x < width; x++) {
            const span columns = span_of(x, image->width, width);
            for (int c = 0; c < image->channels; c++) {
                double sum = 0;
                for (int64_t i = 0; i < rows.count; i++) {
                    const uint8_t *from =
                        image->pixels +
                        ((rows.first + i) * image->width + columns.first) * image->channels + c;
                    double row = 0;
                    for (int64_t j = 0; j < columns.count; j++) {
                        row += weight(&columns, j) * from[j * image->channels];
                    }
                    sum += weight(&rows, i) * row;
                }
                *to++ = (uint8_t)lround(sum);
            }
        }
    }
    return TL_OK;
}

tl_status picture_magnify(const picture *image, int factor, picture *magnified, tl_error *error) {
    const tl_status status = picture_create(magnified, image->height * factor,
                                            image->width * factor, image->channels, error);
    if (status != TL_OK) {
        return status;
    }
    const int channels = image->channels;
    for (int64_t y = 0; y < magnified->height; y++) {
        for (int64_t x = 0; x < magnified->width; x++) {
            memcpy(magnified->pixels + (y * magnified->width + x) * channels,
                   image->pixels + (y / factor * image->width + x / factor) * channels,
                   (size_t)channels);
        }
    }
    return TL_OK;
}

void picture_put(picture *sheet, const picture *image, int64_t top, int64_t left) {
    for (int64_t y = 0; y < image->height; y++) {
        for (int64_t x = 0; x < image->width; x++) {
            if (top + y >= 0 && top + y < sheet->height && left + x >= 0 &&
                left + x < sheet->width) {
                convert_pixel(
                    image->pixels + (y * image->width + x) * image->channels, image->channels,
                    sheet->pixels + ((top + y) * sheet->width + left + x) * sheet->channels,
                    sheet->channels);
            }
        }
    }
}
