/* Pictures and PNG files: what is written is read, every kind of file becomes 8-bit grey or colour,
 * and every damage is an error. */
#include "support/support.h"

#include <math.h>
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "common/png_image.h"
#include "support/files.h"

static char folder[TEST_PATH_BYTES];

static void make(void) {
    make_folder(folder);
}

static void clear(void) {
    remove_folder(folder);
}

static picture noise(int64_t height, int64_t width, int channels) {
    picture image;
    ck_assert_int_eq(picture_create(&image, height, width, channels, &(tl_error){0}), TL_OK);
    uint32_t state = 12345;
    for (int64_t i = 0; i < height * width * channels; i++) {
        state = state * 1664525u + 1013904223u;
        image.pixels[i] = (uint8_t)(state >> 24);
    }
    return image;
}

static void assert_same(const picture *a, const picture *b) {
    ck_assert_int_eq(a->height, b->height);
    ck_assert_int_eq(a->width, b->width);
    ck_assert_int_eq(a->channels, b->channels);
    ck_assert_int_eq(memcmp(a->pixels, b->pixels, (size_t)(a->height * a->width * a->channels)), 0);
}

START_TEST(what_is_written_is_read) {
    const int64_t sizes[][2] = {{1, 1}, {1, 7}, {5, 1}, {17, 33}, {64, 64}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int channels = 1; channels <= 3; channels += 2) {
            picture out = noise(sizes[i][0], sizes[i][1], channels), in;
            tl_error error;
            ck_assert_int_eq(png_image_write(&out, in_folder(folder, "a.png"), &error), TL_OK);
            ck_assert_int_eq(png_image_read(&in, in_folder(folder, "a.png"), &error), TL_OK);
            assert_same(&out, &in);
            picture_free(&out);
            picture_free(&in);
        }
    }
}
END_TEST

/* One file of a kind that png_image_write does not write. */
typedef struct kind {
    int color, bits, interlace;
    png_byte row[8]; /* of 2 pixels */
    int channels;
    uint8_t want[6];
} kind;

static const kind kinds[] = {
    {PNG_COLOR_TYPE_GRAY, 1, PNG_INTERLACE_NONE, {0x80}, 1, {255, 0}},
    {PNG_COLOR_TYPE_GRAY, 4, PNG_INTERLACE_ADAM7, {0x3f}, 1, {51, 255}},
    {PNG_COLOR_TYPE_GRAY, 16, PNG_INTERLACE_NONE, {0x12, 0x34, 0xfe, 0xff}, 1, {0x12, 0xfe}},
    {PNG_COLOR_TYPE_GRAY_ALPHA, 8, PNG_INTERLACE_NONE, {200, 255, 200, 0}, 1, {200, 0}},
    {PNG_COLOR_TYPE_RGB_ALPHA,
     8,
     PNG_INTERLACE_ADAM7,
     {1, 2, 3, 255, 4, 5, 6, 0},
     3,
     {1, 2, 3, 0, 0, 0}},
    {PNG_COLOR_TYPE_PALETTE, 8, PNG_INTERLACE_NONE, {1, 0}, 3, {40, 50, 60, 10, 20, 30}},
};

static void write_kind(const kind *k, const char *path) {
    FILE *stream = fopen(path, "wb");
    ck_assert_ptr_nonnull(stream);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, stream);
    png_set_IHDR(png, info, 2, 1, k->bits, k->color, k->interlace, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    const png_color palette[2] = {{10, 20, 30}, {40, 50, 60}};
    if (k->color == PNG_COLOR_TYPE_PALETTE) {
        png_set_PLTE(png, info, palette, 2);
    }
    png_write_info(png, info);
    png_byte row[8];
    memcpy(row, k->row, sizeof row);
    png_write_image(png, (png_bytep[]){row});
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    ck_assert_int_eq(fclose(stream), 0);
}

START_TEST(every_kind_is_expanded) {
    const char *path = in_folder(folder, "kind.png");
    write_kind(&kinds[_i], path);
    picture image;
    tl_error error = {0};
    ck_assert_msg(png_image_read(&image, path, &error) == TL_OK, "%s", error.message);
    ck_assert_int_eq(image.channels, kinds[_i].channels);
    ck_assert_int_eq(image.height, 1);
    ck_assert_int_eq(image.width, 2);
    for (int i = 0; i < 2 * image.channels; i++) {
        ck_assert_int_eq(image.pixels[i], kinds[_i].want[i]);
    }
    picture_free(&image);
}
END_TEST

static void expect_failure(const char *name, const bytes *content, tl_status status,
                           const char *part) {
    if (content != NULL) {
        write_bytes(in_folder(folder, name), content);
    }
    picture image;
    tl_error error = {0};
    ck_assert_int_ne(png_image_read(&image, in_folder(folder, name), &error), TL_OK);
    ck_assert_ptr_null(image.pixels);
    ck_assert_msg(strstr(error.message, name) != NULL, "%s", error.message);
    assert_error(&error, status, part);
}

/* Every bit that is turned and every place at which the file is cut. */
START_TEST(every_damage_is_found) {
    picture out = noise(6, 5, 3);
    tl_error error;
    ck_assert_int_eq(png_image_write(&out, in_folder(folder, "good.png"), &error), TL_OK);
    picture_free(&out);
    bytes good = read_file(in_folder(folder, "good.png"));
    for (size_t i = 0; i < good.count * 8; i++) {
        good.data[i / 8] ^= (uint8_t)(1u << i % 8);
        expect_failure("turned.png", &good, TL_ERROR_FORMAT, "");
        good.data[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t length = 0; length < good.count; length++) {
        expect_failure("cut.png", &(bytes){good.data, length}, TL_ERROR_FORMAT,
                       length < 8 ? "not a PNG file" : "damaged PNG file: it ends too early");
    }
    bytes_free(&good);
}
END_TEST

/* A valid header with sizes that are not to be believed. */
static bytes header_of(uint32_t width, uint32_t height) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    bytes file = {0};
    bytes_append(&file, signature, sizeof signature);
    bytes_append_big_endian(&file, 13);
    bytes_append(&file, "IHDR", 4);
    bytes_append_big_endian(&file, width);
    bytes_append_big_endian(&file, height);
    bytes_append(&file, "\x08\x02\0\0\0", 5);
    bytes_append_big_endian(&file, (uint32_t)crc32(0, file.data + 12, 17));
    bytes_append_big_endian(&file, 0);
    bytes_append(&file, "IDAT", 4);
    bytes_append_big_endian(&file, (uint32_t)crc32(0, (const Bytef *)"IDAT", 4));
    return file;
}

START_TEST(sizes_are_not_trusted) {
    const struct {
        uint32_t width, height;
        const char *part;
    } claims[] = {
        {0x7fffffff, 1, "expected sides of up to 16384"},
        {1, 20000, "expected sides of up to 16384"},
        {16384, 16384, "expected sides of up to 16384 and 67108864 pixels in all"},
        {8000, 8000, "8000x8000 pixels cannot be in 45 bytes"},
        {0, 5, "damaged PNG file"},
    };
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        bytes file = header_of(claims[i].width, claims[i].height);
        expect_failure("claim.png", &file, TL_ERROR_FORMAT, claims[i].part);
        bytes_free(&file);
    }
}
END_TEST

START_TEST(what_is_no_png_file) {
    expect_failure("missing.png", NULL, TL_ERROR_IO, "No such file");
    expect_failure("text.png", &(bytes){(uint8_t[]){"hello, this is text"}, 19}, TL_ERROR_FORMAT,
                   "not a PNG file");
    make_subfolder(folder, "folder.png");
    expect_failure("folder.png", NULL, TL_ERROR_IO, "not a regular file");
    picture image = noise(3, 3, 1);
    tl_error error;
    ck_assert_int_eq(png_image_write(&image, in_folder(folder, "no/such.png"), &error),
                     TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "No such file");
    picture_free(&image);
    picture large = noise(300, 300, 3);
    ck_assert_int_eq(png_image_write(&large, "/dev/full", &error), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "/dev/full: No space left");
    ck_assert(file_exists("/dev/full"));
    picture_free(&large);
}
END_TEST

/* ------------------------------------------------------------------ pictures */

START_TEST(resizing) {
    tl_error error;
    picture image = noise(12, 9, 3), same, half, large;
    ck_assert_int_eq(picture_resize(&image, 12, 9, &same, &error), TL_OK);
    assert_same(&image, &same);
    ck_assert_int_eq(picture_resize(&image, 6, 3, &half, &error), TL_OK);
    for (int y = 0; y < 6; y++) {
        for (int x = 0; x < 3; x++) {
            for (int c = 0; c < 3; c++) {
                double sum = 0;
                for (int i = 0; i < 6; i++) {
                    sum += image.pixels[((2 * y + i / 3) * 9 + 3 * x + i % 3) * 3 + c];
                }
                ck_assert(fabs(half.pixels[(y * 3 + x) * 3 + c] - sum / 6) <= 0.5 + 1e-9);
            }
        }
    }
    memset(image.pixels, 77, 12 * 9 * 3);
    ck_assert_int_eq(picture_resize(&image, 40, 31, &large, &error), TL_OK);
    for (int i = 0; i < 40 * 31 * 3; i++) {
        ck_assert_int_eq(large.pixels[i], 77);
    }
    picture_free(&image);
    picture_free(&same);
    picture_free(&half);
    picture_free(&large);
    ck_assert_int_eq(picture_create(&image, 0, 5, 3, &error), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_int_eq(picture_create(&image, 5, 1 << 20, 3, &error), TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "found 5x1048576x3");
}
END_TEST

/* Growing is linear between the centres of pixels, which stay where they were. */
START_TEST(growing_is_linear) {
    tl_error error;
    picture image, large;
    ck_assert_int_eq(picture_create(&image, 1, 2, 1, &error), TL_OK);
    image.pixels[1] = 200;
    ck_assert_int_eq(picture_resize(&image, 1, 8, &large, &error), TL_OK);
    const uint8_t want[8] = {0, 0, 25, 75, 125, 175, 200, 200};
    ck_assert_int_eq(memcmp(large.pixels, want, sizeof want), 0);
    picture_free(&image);
    picture_free(&large);
}
END_TEST

START_TEST(sheets) {
    tl_error error;
    picture sheet, grey = noise(2, 3, 1), big;
    ck_assert_int_eq(picture_create(&sheet, 8, 9, 3, &error), TL_OK);
    ck_assert_int_eq(picture_magnify(&grey, 3, &big, &error), TL_OK);
    picture_put(&sheet, &big, 4, -3);
    for (int y = 0; y < 8; y++) {
        for (int x = 0; x < 9; x++) {
            const bool inside = y >= 4 && x < 6;
            const int want = inside ? grey.pixels[(y - 4) / 3 * 3 + (x + 3) / 3] : 0;
            for (int c = 0; c < 3; c++) {
                ck_assert_int_eq(sheet.pixels[(y * 9 + x) * 3 + c], want);
            }
        }
    }
    ck_assert_int_eq(picture_convert(&grey, 3, &error), TL_OK);
    ck_assert_int_eq(picture_convert(&grey, 1, &error), TL_OK);
    picture again = noise(2, 3, 1);
    assert_same(&again, &grey);
    picture colour;
    ck_assert_int_eq(picture_create(&colour, 1, 1, 3, &error), TL_OK);
    memcpy(colour.pixels, (uint8_t[]){200, 100, 50}, 3);
    ck_assert_int_eq(picture_convert(&colour, 1, &error), TL_OK);
    ck_assert_int_eq(colour.pixels[0], 124);
    picture_free(&colour);
    picture_free(&again);
    picture_free(&sheet);
    picture_free(&grey);
    picture_free(&big);
}
END_TEST

int main(void) {
    TCase *tests;
    Suite *suite = suite_with_case("png images", &tests);
    tcase_add_unchecked_fixture(tests, make, clear);
    tcase_add_test(tests, what_is_written_is_read);
    tcase_add_loop_test(tests, every_kind_is_expanded, 0, sizeof kinds / sizeof kinds[0]);
    tcase_add_test(tests, every_damage_is_found);
    tcase_add_test(tests, sizes_are_not_trusted);
    tcase_add_test(tests, what_is_no_png_file);
    tcase_add_test(tests, resizing);
    tcase_add_test(tests, growing_is_linear);
    tcase_add_test(tests, sheets);
    return run_suite(suite);
}
