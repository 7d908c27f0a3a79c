/* png_image.h - pictures from and to PNG files (with libpng; built only where it is there).
 *
 * Files are not trusted: sizes in the header are held against the limits of a picture and against
 * what a file of that length can hold before memory is taken, checksums are verified to the last
 * chunk, and libpng's complaint becomes one line that names the file.
 */
#ifndef EXAMPLE_PNG_IMAGE_H
#define EXAMPLE_PNG_IMAGE_H

#include "common/picture.h"

/* Reads any PNG file: 1 channel where it is grey, else 3; palettes are expanded, 16 bits rounded to
 * 8, transparent pixels laid over black. The caller frees the picture.
 * TL_ERROR_IO: the file cannot be opened or read; TL_ERROR_FORMAT: it is no PNG file, or a damaged
 * one, or larger than a picture may be; TL_ERROR_OUT_OF_MEMORY. */
tl_status png_image_read(picture *image, const char *path, tl_error *error);

/* Writes the picture; on failure (TL_ERROR_IO) no part of it is left. */
tl_status png_image_write(const picture *image, const char *path, tl_error *error);

#endif
