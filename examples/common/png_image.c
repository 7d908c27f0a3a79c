#include "common/png_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fail.h"

/* Deflate makes at most 1032 bytes of one. */
enum { SIGNATURE_BYTES = 8, LARGEST_RATIO = 1032, LARGEST_CHUNK = 64 << 20 };

/* Paths in messages may be long; the reason behind them must stay. */
#define SHOWN_PATH "%.300s"

/* One file on its way in or out. What changes after setjmp lives here, not on the stack. */
typedef struct png_file {
    const char *path;
    const char *trouble; /* how libpng's complaint is introduced */
    FILE *stream;
    tl_error *error;
    picture *image;
    png_structp png;
    png_infop info;
    png_bytep *rows;
    int64_t bytes; /* of the file */
} png_file;

/* libpng calls this where it cannot go on. */
static void on_error(png_structp png, png_const_charp message) {
    const png_file *file = png_get_error_ptr(png);
    if (ferror(file->stream)) {
        (void)fail_with(file->error, TL_ERROR_IO, SHOWN_PATH ": %s", file->path, strerror(errno));
    } else {
        (void)fail_with(file->error, TL_ERROR_FORMAT, SHOWN_PATH ": %s: %s", file->path,
                        file->trouble, feof(file->stream) ? "it ends too early" : message);
    }
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message; /* what a picture can be read in spite of */
}

/* A row pointer for each row of the picture. */
static tl_status make_rows(png_file *file) {
    picture *image = file->image;
    file->rows = malloc((size_t)image->height * sizeof *file->rows);
    if (file->rows == NULL) {
        return fail_with(file->error, TL_ERROR_OUT_OF_MEMORY, SHOWN_PATH ": out of memory",
                         file->path);
    }
    for (int64_t y = 0; y < image->height; y++) {
        file->rows[y] = image->pixels + y * image->width * image->channels;
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ reading */

/* Whether the chunks, up to the last, are in the file: libpng would reserve memory for what they
 * promise. Leaves the stream behind the signature. */
static tl_status check_chunks(const png_file *file) {
    enum { HEAD = 8, AROUND = 12 }; /* bytes: length and type; with the checksum */
    png_byte head[HEAD] = {0};
    int64_t at = SIGNATURE_BYTES;
    while (file->bytes - at >= AROUND && memcmp(head + 4, "IEND", 4) != 0) {
        if (fseeko(file->stream, (off_t)at, SEEK_SET) != 0 ||
            fread(head, 1, sizeof head, file->stream) < sizeof head) {
            break; /* libpng will say it */
        }
        const int64_t length = png_get_uint_32(head);
        if (length > file->bytes - at - AROUND) {
            return fail_with(file->error, TL_ERROR_FORMAT,
                             SHOWN_PATH ": damaged PNG file: it ends too early: %" PRId64
                                        " bytes, a chunk at byte %" PRId64 " promises %" PRId64,
                             file->path, file->bytes, at, length);
        }
        at += AROUND + length;
    }
    if (fseeko(file->stream, SIGNATURE_BYTES, SEEK_SET) != 0) {
        return fail_with(file->error, TL_ERROR_IO, SHOWN_PATH ": %s", file->path, strerror(errno));
    }
    return TL_OK;
}

static tl_status open_to_read(png_file *file) {
    /* O_NONBLOCK: a pipe of that name must not make us wait */
    const int descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    file->stream = descriptor >= 0 ? fdopen(descriptor, "rb") : NULL;
    struct stat status;
    if (file->stream == NULL || fstat(descriptor, &status) != 0) {
        if (file->stream == NULL && descriptor >= 0) {
            (void)close(descriptor);
        }
        return fail_with(file->error, TL_ERROR_IO, SHOWN_PATH ": %s", file->path, strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        return fail_with(file->error, TL_ERROR_IO, SHOWN_PATH ": not a regular file", file->path);
    }
    file->bytes = (int64_t)status.st_size;
    png_byte signature[SIGNATURE_BYTES];
    const size_t got = fread(signature, 1, sizeof signature, file->stream);
    if (got < sizeof signature || png_sig_cmp(signature, 0, sizeof signature) != 0) {
        return fail_with(file->error, TL_ERROR_FORMAT,
                         SHOWN_PATH ": not a PNG file (expected the signature 89 50 4E 47 ...)",
                         file->path);
    }
    return check_chunks(file);
}

/* Whether the size that the header states is a picture's and can be in so short a file. */
static tl_status check_size(const png_file *file) {
    const int64_t height = png_get_image_height(file->png, file->info);
    const int64_t width = png_get_image_width(file->png, file->info);
    if (height > PICTURE_MAX_SIDE || width > PICTURE_MAX_SIDE ||
        height * width > PICTURE_MAX_PIXELS) {
        return fail_with(file->error, TL_ERROR_FORMAT,
                         SHOWN_PATH
                         ": expected sides of up to %d and %d pixels in all, found %" PRId64
                         "x%" PRId64,
                         file->path, PICTURE_MAX_SIDE, PICTURE_MAX_PIXELS, height, width);
    }
    const int64_t raw = height * (int64_t)png_get_rowbytes(file->png, file->info);
    if (raw / LARGEST_RATIO > file->bytes) {
        return fail_with(file->error, TL_ERROR_FORMAT,
                         SHOWN_PATH ": damaged PNG file: %" PRId64 "x%" PRId64
                                    " pixels cannot be in %" PRId64 " bytes",
                         file->path, height, width, file->bytes);
    }
    return TL_OK;
}

/* Asks libpng for 8 bits and 1 or 3 channels; returns which. */
static int set_transformations(const png_file *file) {
    const png_byte color = png_get_color_type(file->png, file->info);
    png_set_expand(file->png);
    png_set_scale_16(file->png);
    if ((color & PNG_COLOR_MASK_ALPHA) != 0 ||
        png_get_valid(file->png, file->info, PNG_INFO_tRNS) != 0) {
        const png_color_16 black = {0};
        png_set_background_fixed(file->png, &black, PNG_BACKGROUND_GAMMA_SCREEN, 0, PNG_FP_1);
    }
    (void)png_set_interlace_handling(file->png);
    return (color & PNG_COLOR_MASK_COLOR) != 0 ? 3 : 1;
}

/* The part of reading that libpng may leave by a jump; all it holds is in *file. */
static tl_status read_pixels(png_file *file) {
    if (setjmp(png_jmpbuf(file->png)) != 0) {
        return file->error->status;
    }
    png_set_user_limits(file->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_malloc_max(file->png, LARGEST_CHUNK);
    png_init_io(file->png, file->stream);
    png_set_sig_bytes(file->png, SIGNATURE_BYTES);
    png_read_info(file->png, file->info);
    tl_status status = check_size(file);
    if (status != TL_OK) {
        return status;
    }
    const int channels = set_transformations(file);
    png_read_update_info(file->png, file->info);
    status = picture_create(file->image, png_get_image_height(file->png, file->info),
                            png_get_image_width(file->png, file->info), channels, file->error);
    if (status == TL_OK) {
        status = make_rows(file);
    }
    if (status != TL_OK) {
        return status;
    }
    const size_t row_bytes = (size_t)(file->image->width * channels);
    if (png_get_rowbytes(file->png, file->info) != row_bytes) {
        return fail_with(file->error, TL_ERROR_UNSUPPORTED, SHOWN_PATH ": an unusual pixel format",
                         file->path);
    }
    png_read_image(file->png, file->rows);
    png_read_end(file->png, NULL); /* to the last chunk's checksum */
    return TL_OK;
}

tl_status png_image_read(picture *image, const char *path, tl_error *error) {
    tl_error own;
    *image = (picture){0};
    png_file file = {.path = path,
                     .trouble = "damaged PNG file",
                     .error = error != NULL ? error : &own,
                     .image = image};
    tl_status status = open_to_read(&file);
    if (status == TL_OK) {
        file.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &file, on_error, on_warning);
        file.info = file.png != NULL ? png_create_info_struct(file.png) : NULL;
        status = file.info != NULL ? read_pixels(&file)
                                   : fail_with(file.error, TL_ERROR_OUT_OF_MEMORY,
                                               SHOWN_PATH ": out of memory", path);
    }
    png_destroy_read_struct(&file.png, &file.info, NULL);
    free(file.rows);
    if (file.stream != NULL) {
        (void)fclose(file.stream);
    }
    if (status != TL_OK) {
        picture_free(image);
    }
    return status;
}

/* ------------------------------------------------------------------ writing */

static tl_status write_pixels(png_file *file) {
    if (setjmp(png_jmpbuf(file->png)) != 0) {
        return file->error->status;
    }
    const picture *image = file->image;
    png_init_io(file->png, file->stream);
    png_set_IHDR(file->png, file->info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 image->channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(file->png, file->info);
    const tl_status status = make_rows(file);
    if (status != TL_OK) {
        return status;
    }
    png_write_image(file->png, file->rows);
    png_write_end(file->png, NULL);
    return TL_OK;
}

tl_status png_image_write(const picture *image, const char *path, tl_error *error) {
    tl_error own;
    picture source = *image;
    png_file file = {.path = path,
                     .trouble = "cannot be written",
                     .error = error != NULL ? error : &own,
                     .image = &source};
    file.stream = fopen(path, "wb");
    if (file.stream == NULL) {
        return fail_with(file.error, TL_ERROR_IO, SHOWN_PATH ": %s", path, strerror(errno));
    }
    struct stat kind;
    const bool regular = fstat(fileno(file.stream), &kind) == 0 && S_ISREG(kind.st_mode);
    file.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &file, on_error, on_warning);
    file.info = file.png != NULL ? png_create_info_struct(file.png) : NULL;
    tl_status status = file.info != NULL ? write_pixels(&file)
                                         : fail_with(file.error, TL_ERROR_OUT_OF_MEMORY,
                                                     SHOWN_PATH ": out of memory", path);
    png_destroy_write_struct(&file.png, &file.info);
    free(file.rows);
    errno = 0;
    if (fclose(file.stream) != 0 && status == TL_OK) {
        status = fail_with(file.error, TL_ERROR_IO, SHOWN_PATH ": %s", path, strerror(errno));
    }
    if (status != TL_OK && regular) {
        (void)remove(path);
    }
    return status;
}
