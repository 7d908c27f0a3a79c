/* picture.h - 8-bit images in memory: made, resized, put side by side. */
#ifndef EXAMPLE_PICTURE_H
#define EXAMPLE_PICTURE_H

#include <stdint.h>

#include <tapeline/tapeline.h>

/* The longest side and the most pixels of a picture. */
enum { PICTURE_MAX_SIDE = 16384, PICTURE_MAX_PIXELS = 1 << 26 };

/* Start from {0}; picture_free gives the pixels back. */
typedef struct picture {
    int64_t height, width;
    int channels;    /* 1: grey, 3: red, green, blue */
    uint8_t *pixels; /* [height, width, channels] */
} picture;

/* A black picture. TL_ERROR_INVALID_ARGUMENT beyond the limits above, TL_ERROR_OUT_OF_MEMORY. */
tl_status picture_create(picture *image, int64_t height, int64_t width, int channels,
                         tl_error *error);
/* Leaves {0}. */
void picture_free(picture *image);

/* The same picture with that many channels, in place: grey is 0.299 red + 0.587 green + 0.114 blue.
 */
tl_status picture_convert(picture *image, int channels, tl_error *error);

/* A copy of another size. Each pixel is the mean of the area that it covers where the picture
 * shrinks, and linear between the centres of pixels where it grows. */
tl_status picture_resize(const picture *image, int64_t height, int64_t width, picture *resized,
                         tl_error *error);

/* The same with every pixel repeated `factor` times each way: magnified, and sharp. */
tl_status picture_magnify(const picture *image, int factor, picture *magnified, tl_error *error);

/* Copies `image` into `sheet` with its upper left corner at (top, left); what lies outside is cut
 * off. Grey is put into a colour sheet as grey. */
void picture_put(picture *sheet, const picture *image, int64_t top, int64_t left);

#endif
