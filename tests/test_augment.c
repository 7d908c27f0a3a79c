/* One image of a batch, against a naive reference: every output pixel is looked up on its own. */
#include "data/augment.h"
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 3, HEIGHT = 6, WIDTH = 7, CHANNELS = 3, PIXELS = HEIGHT * WIDTH };

static uint8_t images[COUNT * PIXELS * CHANNELS];
static uint8_t masks[COUNT * PIXELS];
static int32_t labels[COUNT];
static tl_context *context;
static tl_dataset *dataset;
static tl_augment_plan plan;
static tl_real normalization[2][WIDTH * CHANNELS];

static void setup(void) {
    for (int i = 0; i < COUNT * PIXELS * CHANNELS; i++) {
        images[i] = (uint8_t)(1 + i * 37 % 255); /* never black */
    }
    for (int i = 0; i < COUNT * PIXELS; i++) {
        masks[i] = (uint8_t)(1 + i % 7);
    }
    context = tl_context_create(NULL);
    const tl_dataset_info info = {.count = COUNT,
                                  .height = HEIGHT,
                                  .width = WIDTH,
                                  .channels = CHANNELS,
                                  .classes = 1,
                                  .images = images,
                                  .labels = labels,
                                  .masks = masks,
                                  .mask_classes = 8,
                                  .mean = {0.5, 0.25, 0.125},
                                  .deviation = {0.5, 1, 2}};
    dataset = tl_dataset_create(context, &info, NULL);
    ck_assert_ptr_nonnull(dataset);
    plan = (tl_augment_plan){.info = tl_dataset_describe(dataset),
                             .seed = 11,
                             .scale = normalization[0],
                             .offset = normalization[1]};
    tl_augment_fill_normalization(plan.info, normalization[0], normalization[1]);
}

static void teardown(void) {
    tl_dataset_free(dataset);
    tl_context_free(context);
}

/* The value of one pixel of image `index`, shifted and perhaps flipped; black outside. */
static double expected_value(int index, int y, int x, int c, int shift_y, int shift_x, bool flip) {
    const tl_dataset_info *info = plan.info;
    const int source_y = y + shift_y;
    const int source_x = (flip ? WIDTH - 1 - x : x) + shift_x;
    double value = 0;
    if (source_y >= 0 && source_y < HEIGHT && source_x >= 0 && source_x < WIDTH) {
        value = images[((index * HEIGHT + source_y) * WIDTH + source_x) * CHANNELS + c];
    }
    return (value / 255 - info->mean[c]) / info->deviation[c];
}

static int expected_mask(int index, int y, int x, int shift_y, int shift_x, bool flip) {
    const int source_y = y + shift_y;
    const int source_x = (flip ? WIDTH - 1 - x : x) + shift_x;
    const bool inside = source_y >= 0 && source_y < HEIGHT && source_x >= 0 && source_x < WIDTH;
    return inside ? masks[(index * HEIGHT + source_y) * WIDTH + source_x] : 0;
}

static bool matches(const tl_real *image, const uint8_t *mask, int index, int shift_y, int shift_x,
                    bool flip) {
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            for (int c = 0; c < CHANNELS; c++) {
                const double got = (double)image[(y * WIDTH + x) * CHANNELS + c];
                const double want = expected_value(index, y, x, c, shift_y, shift_x, flip);
                if (!(fabs(got - want) <= 1e-6)) {
                    return false;
                }
            }
            if (mask[y * WIDTH + x] != expected_mask(index, y, x, shift_y, shift_x, flip)) {
                return false;
            }
        }
    }
    return true;
}

static void sample(int64_t epoch, int64_t index, tl_real *image, uint8_t *mask) {
    uint8_t scratch[WIDTH * CHANNELS];
    ck_assert_uint_eq(tl_augment_scratch_bytes(plan.info), sizeof scratch);
    memset(mask, 99, PIXELS);
    tl_augment_sample(&plan, epoch, index, scratch, image, mask);
}

START_TEST(without_augmentation_images_are_normalised) {
    tl_real image[PIXELS * CHANNELS];
    uint8_t mask[PIXELS];
    for (int index = 0; index < COUNT; index++) {
        sample(index, index, image, mask);
        ck_assert(matches(image, mask, index, 0, 0, false));
    }
}
END_TEST

/* Every result is one shift and flip of the image; all of them occur, about equally often. */
static void check_crops(int padding, bool flip) {
    enum { EPOCHS = 4000, MOST = 2 * 6 + 1 };
    plan.config = (tl_augment_config){.crop_padding = padding, .horizontal_flip = flip};
    const int side = 2 * padding + 1;
    const int kinds = side * side * (flip ? 2 : 1);
    int seen[MOST * MOST * 2] = {0};
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        tl_real image[PIXELS * CHANNELS];
        uint8_t mask[PIXELS];
        sample(epoch, 1, image, mask);
        int found = -1;
        for (int k = 0; k < kinds && found < 0; k++) {
            const int shift = k % (side * side);
            if (matches(image, mask, 1, shift / side - padding, shift % side - padding,
                        k >= side * side)) {
                found = k;
            }
        }
        ck_assert_int_ge(found, 0);
        seen[found]++;
    }
    const double expected = (double)EPOCHS / kinds;
    for (int k = 0; k < kinds; k++) {
        ck_assert_msg(fabs(seen[k] - expected) < 6 * sqrt(expected), "case %d: %d times, not %g", k,
                      seen[k], expected);
    }
}

START_TEST(crops_and_flips_are_uniform) {
    check_crops(0, true);
    check_crops(1, false);
    check_crops(2, true);
}
END_TEST

START_TEST(large_shifts_leave_black) {
    plan.config = (tl_augment_config){.crop_padding = HEIGHT};
    int empty = 0;
    for (int epoch = 0; epoch < 200; epoch++) {
        tl_real image[PIXELS * CHANNELS];
        uint8_t mask[PIXELS];
        sample(epoch, 0, image, mask);
        bool found = false;
        for (int shift = 0; shift < 13 * 13 && !found; shift++) {
            found = matches(image, mask, 0, shift / 13 - 6, shift % 13 - 6, false);
        }
        ck_assert(found);
        int set = 0;
        for (int i = 0; i < PIXELS; i++) {
            set += mask[i] != 0;
        }
        empty += set == 0;
    }
    ck_assert_int_gt(empty, 0);
}
END_TEST

/* A square of zeros, clipped at the borders, around any pixel; the rest is untouched. */
START_TEST(cutout_sets_a_square_to_the_mean) {
    enum { SIZE = 3 };
    tl_real whole[PIXELS * CHANNELS];
    tl_real image[PIXELS * CHANNELS];
    uint8_t mask[PIXELS];
    sample(0, 2, whole, mask);
    bool centres[PIXELS] = {false};
    plan.config = (tl_augment_config){.cutout_size = SIZE};
    for (int epoch = 0; epoch < 1000; epoch++) {
        sample(epoch, 2, image, mask);
        int found = -1;
        for (int centre = 0; centre < PIXELS && found < 0; centre++) {
            bool same = true;
            for (int i = 0; i < PIXELS * CHANNELS; i++) {
                const int y = i / CHANNELS / WIDTH - centre / WIDTH;
                const int x = i / CHANNELS % WIDTH - centre % WIDTH;
                const bool cut = y >= -1 && y <= 1 && x >= -1 && x <= 1;
                same = same && image[i] == (cut ? (tl_real)0 : whole[i]);
            }
            found = same ? centre : -1;
        }
        ck_assert_int_ge(found, 0);
        centres[found] = true;
    }
    for (int centre = 0; centre < PIXELS; centre++) {
        ck_assert(centres[centre]);
    }
    plan.config.cutout_size = 100;
    sample(0, 2, image, mask);
    for (int i = 0; i < PIXELS * CHANNELS; i++) {
        ck_assert(image[i] == 0);
    }
}
END_TEST

START_TEST(draws_depend_on_seed_epoch_and_index) {
    plan.config = (tl_augment_config){.crop_padding = 4, .horizontal_flip = true, .cutout_size = 2};
    tl_real first[PIXELS * CHANNELS];
    tl_real image[PIXELS * CHANNELS];
    uint8_t mask[PIXELS];
    int same_epoch = 0;
    int same_seed = 0;
    for (int epoch = 0; epoch < 50; epoch++) {
        sample(epoch, 1, first, mask);
        sample(epoch + 1, 1, image, mask);
        same_epoch += memcmp(first, image, sizeof first) == 0;
        plan.seed++;
        sample(epoch, 1, image, mask);
        plan.seed--;
        same_seed += memcmp(first, image, sizeof first) == 0;
        sample(epoch, 1, image, mask);
        ck_assert_mem_eq(first, image, sizeof first);
    }
    ck_assert_int_lt(same_epoch, 3);
    ck_assert_int_lt(same_seed, 3);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("augment", &test_case);
    tcase_add_checked_fixture(test_case, setup, teardown);
    tcase_add_test(test_case, without_augmentation_images_are_normalised);
    tcase_add_test(test_case, crops_and_flips_are_uniform);
    tcase_add_test(test_case, large_shifts_leave_black);
    tcase_add_test(test_case, cutout_sets_a_square_to_the_mean);
    tcase_add_test(test_case, draws_depend_on_seed_epoch_and_index);
    return run_suite(suite);
}
