/* The procedural task: what its images hold, that they repeat, that the class is not to be had
 * from a small window. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { SIDE = 32, PIXELS = SIDE * SIDE, COLOURS = 6 };

static tl_context *context;
static tl_error error;

static void setup(void) {
    context = tl_context_create(NULL);
    error = (tl_error){TL_OK, ""};
}

static void teardown(void) {
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}

static tl_dataset *create(tl_long_range_config config) {
    tl_dataset *dataset = tl_dataset_create_long_range(context, &config, &error);
    ck_assert_msg(dataset != NULL, "%s", error.message);
    return dataset;
}

static unsigned long checksum(const tl_dataset *dataset) {
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    const size_t pixels = (size_t)(info->count * info->height * info->width);
    unsigned long sum = crc32(0, info->images, (unsigned)(pixels * 3));
    sum = crc32(sum, info->masks, (unsigned)pixels);
    for (int64_t i = 0; i < info->count; i++) {
        const uint8_t label = (uint8_t)info->labels[i];
        sum = crc32(sum, &label, 1);
    }
    return sum;
}

/* Which of the six colours a pixel has, -1 for the background. Noise moves a value by 15 at most,
 * colours' channels are below 112 or above 190, the background's below 48. */
static int colour_of(const uint8_t *pixel) {
    static const int bits[8] = {-1, 0, 1, 3, 2, 4, 5, -2}; /* red 1, green 2, blue 4 */
    int key = 0;
    int brightest = 0;
    for (int c = 0; c < 3; c++) {
        key |= (pixel[c] > 150) << c;
        brightest = pixel[c] > brightest ? pixel[c] : brightest;
    }
    ck_assert(bits[key] >= 0 || (key == 0 && brightest < 48));
    return bits[key];
}

/* The values as documented in docs/datasets.md; a change of the generator changes the task. */
START_TEST(known_answer) {
    tl_dataset *train = create((tl_long_range_config){.count = 16, .seed = 1});
    tl_dataset *test =
        create((tl_long_range_config){.count = 16, .seed = 1, .split = TL_SPLIT_TEST});
    ck_assert_uint_eq(checksum(train), 893943466);
    ck_assert_uint_eq(checksum(test), 3651723457);
    tl_dataset_free(train);
    tl_dataset_free(test);
}
END_TEST

START_TEST(images_depend_on_seed_split_and_index_alone) {
    tl_dataset *few = create((tl_long_range_config){.count = 10, .seed = 7});
    tl_dataset *many = create((tl_long_range_config){.count = 30, .seed = 7});
    const tl_dataset_info *a = tl_dataset_describe(few);
    const tl_dataset_info *b = tl_dataset_describe(many);
    ck_assert_mem_eq(a->images, b->images, 10 * PIXELS * 3);
    ck_assert_mem_eq(a->masks, b->masks, 10 * PIXELS);
    ck_assert_mem_eq(a->labels, b->labels, 10 * sizeof(int32_t));
    tl_dataset *test = create((tl_long_range_config){.count = 30, .seed = 7, .split = 1});
    tl_dataset *other = create((tl_long_range_config){.count = 30, .seed = 8});
    for (int i = 0; i < 30; i++) {
        const size_t at = (size_t)i * PIXELS * 3;
        ck_assert_mem_ne(b->images + at, tl_dataset_describe(test)->images + at, PIXELS * 3);
        ck_assert_mem_ne(b->images + at, tl_dataset_describe(other)->images + at, PIXELS * 3);
    }
    tl_dataset_free(few);
    tl_dataset_free(many);
    tl_dataset_free(test);
    tl_dataset_free(other);
}
END_TEST

START_TEST(classes_are_balanced) {
    tl_dataset *dataset = create((tl_long_range_config){.count = 5000, .seed = 3});
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    ck_assert_int_eq(info->classes, 10);
    ck_assert_int_eq(info->mask_classes, 2);
    int counts[10] = {0};
    for (int i = 0; i < 5000; i++) {
        counts[info->labels[i]]++;
    }
    for (int c = 0; c < 10; c++) {
        ck_assert_int_gt(counts[c], 400); /* 500 expected, deviation 21 */
        ck_assert_int_lt(counts[c], 600);
        ck_assert_ptr_nonnull(info->class_names[c]);
    }
    tl_dataset_free(dataset);
}
END_TEST

/* Four colours appear; the ring's twice, on the target (the mask) and, `separation` pixels away at
 * least, on the ring, which is alike in all images. */
static void assert_scene(const uint8_t *image, const uint8_t *mask, int side, int separation) {
    int per_colour[COLOURS] = {0};
    int ring_colour = -1;
    for (int i = 0; i < side * side; i++) {
        const int colour = colour_of(image + 3 * i);
        if (colour >= 0) {
            per_colour[colour]++;
        }
        if (mask[i] == 1) {
            ck_assert_int_ge(colour, 0);
            ck_assert(ring_colour == -1 || ring_colour == colour);
            ring_colour = colour;
        }
    }
    int present = 0;
    for (int c = 0; c < COLOURS; c++) {
        present += per_colour[c] > 0;
    }
    ck_assert_int_eq(present, 4);
    int ring_pixels = 0;
    /* glyphs' pixels in the square of that many pixels around one of the ring's */
    int too_near = 0;
    for (int i = 0; i < side * side; i++) {
        if (colour_of(image + 3 * i) != ring_colour || mask[i] == 1) {
            continue;
        }
        ring_pixels++;
        for (int y = i / side - separation; y <= i / side + separation; y++) {
            for (int x = i % side - separation; x <= i % side + separation; x++) {
                if (y >= 0 && y < side && x >= 0 && x < side) {
                    const int near = y * side + x;
                    const int colour = colour_of(image + 3 * near);
                    too_near += colour != -1 && (colour != ring_colour || mask[near] == 1);
                }
            }
        }
    }
    ck_assert_int_eq(ring_pixels, 48);
    ck_assert_int_eq(too_near, 0);
}

START_TEST(glyphs_lie_far_from_the_ring) {
    static const int sides[] = {32, 23, 40, 64, 128};
    static const int separations[] = {10, 1, 18, 10, 30};
    for (int k = 0; k < 5; k++) {
        tl_dataset *dataset = create((tl_long_range_config){.count = 30,
                                                            .image_size = sides[k],
                                                            .separation = separations[k],
                                                            .seed = 5,
                                                            .split = (tl_split)(k % 2)});
        const tl_dataset_info *info = tl_dataset_describe(dataset);
        ck_assert_int_eq(info->height, sides[k]);
        ck_assert_int_eq(info->width, sides[k]);
        for (int i = 0; i < 30; i++) {
            const int pixels = sides[k] * sides[k];
            assert_scene(info->images + (size_t)i * (size_t)pixels * 3,
                         info->masks + (size_t)i * (size_t)pixels, sides[k], separations[k]);
        }
        tl_dataset_free(dataset);
    }
}
END_TEST

/* The mask shows the glyph of the label: all masks of a class are the same figure. */
START_TEST(masks_show_the_class) {
    tl_dataset *dataset = create((tl_long_range_config){.count = 300, .seed = 9});
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    uint8_t figures[10][PIXELS] = {{0}};
    bool known[10] = {false};
    for (int i = 0; i < 300; i++) {
        const uint8_t *mask = info->masks + (size_t)i * PIXELS;
        int top = SIDE;
        int left = SIDE;
        for (int p = 0; p < PIXELS; p++) {
            if (mask[p] != 0) {
                top = p / SIDE < top ? p / SIDE : top;
                left = p % SIDE < left ? p % SIDE : left;
            }
        }
        uint8_t figure[PIXELS] = {0};
        for (int p = 0; p < PIXELS; p++) {
            if (mask[p] != 0) {
                figure[(p / SIDE - top) * SIDE + p % SIDE - left] = 1;
            }
        }
        const int label = info->labels[i];
        if (known[label]) {
            ck_assert_mem_eq(figures[label], figure, PIXELS);
        }
        memcpy(figures[label], figure, PIXELS);
        known[label] = true;
    }
    for (int a = 0; a < 10; a++) {
        ck_assert(known[a]);
        for (int b = 0; b < a; b++) {
            ck_assert_mem_ne(figures[a], figures[b], PIXELS);
        }
        /* left and right halves are mirror images: a flip keeps the class */
        for (int y = 0; y < 7; y++) {
            for (int x = 0; x < 7; x++) {
                ck_assert_int_eq(figures[a][y * SIDE + x], figures[a][y * SIDE + 6 - x]);
            }
        }
    }
    tl_dataset_free(dataset);
}
END_TEST

static void expect_failure(tl_long_range_config config, tl_status status, const char *part) {
    ck_assert_ptr_null(tl_dataset_create_long_range(context, &config, &error));
    assert_error(&error, status, part);
}

START_TEST(wrong_arguments_are_named) {
    expect_failure((tl_long_range_config){.count = -1}, TL_ERROR_INVALID_ARGUMENT,
                   "long-range: count: expected 1 to 2147483647 images, found -1");
    expect_failure((tl_long_range_config){.image_size = 31}, TL_ERROR_INVALID_ARGUMENT,
                   "long-range: image size: expected 32 (separation 10 + 22) to 512, found 31");
    expect_failure((tl_long_range_config){.image_size = 513}, TL_ERROR_INVALID_ARGUMENT,
                   "to 512, found 513");
    expect_failure((tl_long_range_config){.separation = -1}, TL_ERROR_INVALID_ARGUMENT,
                   "long-range: separation: expected 1 to 490 pixels, found -1");
    expect_failure((tl_long_range_config){.split = 2}, TL_ERROR_INVALID_ARGUMENT,
                   "long-range: split: expected 0 or 1, found 2");
    tl_context_set_memory_limit(context, 100000);
    expect_failure((tl_long_range_config){.count = 1000}, TL_ERROR_OUT_OF_MEMORY, "dataset");
}
END_TEST

START_TEST(defaults_are_those_documented) {
    tl_dataset *dataset = tl_dataset_create_long_range(context, NULL, &error);
    ck_assert_ptr_nonnull(dataset);
    ck_assert_int_eq(tl_dataset_describe(dataset)->count, 20000);
    ck_assert_int_eq(tl_dataset_describe(dataset)->height, SIDE);
    tl_dataset_free(dataset);
    dataset = create((tl_long_range_config){.split = TL_SPLIT_TEST});
    ck_assert_int_eq(tl_dataset_describe(dataset)->count, 2000);
    tl_dataset_free(dataset);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("long_range", &test_case);
    tcase_add_checked_fixture(test_case, setup, teardown);
    tcase_add_test(test_case, known_answer);
    tcase_add_test(test_case, images_depend_on_seed_split_and_index_alone);
    tcase_add_test(test_case, classes_are_balanced);
    tcase_add_test(test_case, glyphs_lie_far_from_the_ring);
    tcase_add_test(test_case, masks_show_the_class);
    tcase_add_test(test_case, wrong_arguments_are_named);
    tcase_add_test(test_case, defaults_are_those_documented);
    return run_suite(suite);
}
