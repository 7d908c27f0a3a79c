/* The procedural stereo pairs: that both eyes see the same scene, what is hidden, what has no
 * texture, that pairs repeat; and that loaders hand out their disparities. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { HEIGHT = 64, WIDTH = 128, PIXELS = HEIGHT * WIDTH, CHANNELS = 6 };

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

static tl_dataset *create(tl_stereo_config config) {
    tl_dataset *dataset = tl_dataset_create_stereo(context, &config, &error);
    ck_assert_msg(dataset != NULL, "%s", error.message);
    return dataset;
}

#ifdef __x86_64__ /* elsewhere a product and a sum may be rounded once */
/* The values as documented in docs/datasets.md; a change of the generator changes the task. */
START_TEST(known_answer) {
    static const unsigned long sums[] = {929411824, 1486161834};
    for (int split = 0; split < 2; split++) {
        tl_dataset *dataset =
            create((tl_stereo_config){.count = 8, .seed = 1, .split = (tl_split)split});
        const tl_dataset_info *info = tl_dataset_describe(dataset);
        unsigned long sum = crc32(0, info->images, 8 * PIXELS * CHANNELS);
        for (int i = 0; i < 8 * PIXELS; i++) {
            const uint16_t value = (uint16_t)lrintf(1024 * info->targets[i]);
            const uint8_t bytes[2] = {(uint8_t)(value & 0xff), (uint8_t)(value >> 8)};
            sum = crc32(sum, bytes, 2);
        }
        ck_assert_uint_eq(sum, sums[split]);
        tl_dataset_free(dataset);
    }
}
END_TEST
#endif

START_TEST(pairs_depend_on_seed_split_and_index_alone) {
    tl_dataset *few = create((tl_stereo_config){.count = 4, .seed = 7});
    tl_dataset *many = create((tl_stereo_config){.count = 9, .seed = 7});
    const tl_dataset_info *a = tl_dataset_describe(few);
    const tl_dataset_info *b = tl_dataset_describe(many);
    ck_assert_mem_eq(a->images, b->images, 4 * PIXELS * CHANNELS);
    ck_assert_mem_eq(a->targets, b->targets, 4 * PIXELS * sizeof(float));
    tl_dataset *test = create((tl_stereo_config){.count = 9, .seed = 7, .split = 1});
    tl_dataset *other = create((tl_stereo_config){.count = 9, .seed = 8});
    for (size_t i = 0; i < 9; i++) {
        const size_t at = i * PIXELS;
        ck_assert_mem_ne(b->targets + at, tl_dataset_describe(test)->targets + at,
                         PIXELS * sizeof(float));
        ck_assert_mem_ne(b->targets + at, tl_dataset_describe(other)->targets + at,
                         PIXELS * sizeof(float));
    }
    tl_dataset_free(few);
    tl_dataset_free(many);
    tl_dataset_free(test);
    tl_dataset_free(other);
}
END_TEST

/* Whether something nearer hides from the right eye what the left one sees at column x. */
static bool is_hidden(const float *row, int width, int x) {
    const float u = (float)x - row[x];
    for (int other = 0; other < width; other++) {
        if (row[other] > row[x] + 1 && fabsf((float)other - row[other] - u) <= 1) {
            return true;
        }
    }
    return false;
}

/* How far the two eyes' values are apart if the disparity is taken to be `error_` more than it is,
 * at pixel x of a row. */
static double difference(const uint8_t *row, const float *disparities, int x, double error_) {
    const double u = x - (double)disparities[x] - error_;
    const int low = (int)floor(u);
    const double part = u - low;
    double sum = 0;
    for (int c = 0; c < 3; c++) {
        const double right =
            (1 - part) * row[low * CHANNELS + 3 + c] + part * row[(low + 1) * CHANNELS + 3 + c];
        sum += fabs(row[x * CHANNELS + c] - right);
    }
    return sum / 3;
}

START_TEST(both_eyes_see_the_same_scene) {
    tl_dataset *dataset = create((tl_stereo_config){.count = 20, .seed = 3});
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    double right_sum = 0;
    double wrong_sum = 0;
    int compared = 0;
    int hidden = 0;
    for (int i = 0; i < 20 * HEIGHT; i++) {
        const float *row = info->targets + i * WIDTH;
        const uint8_t *image = info->images + (size_t)i * WIDTH * CHANNELS;
        for (int x = 0; x < WIDTH; x++) {
            ck_assert(row[x] > 0 && row[x] < 32);
            if (is_hidden(row, WIDTH, x)) {
                hidden++;
            } else if ((float)x - row[x] >= 4) {
                compared++;
                right_sum += difference(image, row, x, 0);
                wrong_sum += difference(image, row, x, 3);
            }
        }
    }
    const double share = (double)hidden / (20 * PIXELS);
    ck_assert_msg(share > 0.05 && share < 0.3, "%g of the pixels are hidden", share);
    right_sum /= compared;
    wrong_sum /= compared;
    /* noise alone makes 7.3 */
    ck_assert_msg(right_sum < 9, "matching pixels differ by %g", right_sum);
    ck_assert_msg(wrong_sum > 2 * right_sum, "wrong matches differ by only %g", wrong_sum);
    tl_dataset_free(dataset);
}
END_TEST

/* Windows of 7x7 of one surface: of some nothing but noise is to be seen, of most there is more. */
START_TEST(some_regions_have_no_texture) {
    tl_dataset *dataset = create((tl_stereo_config){.count = 40, .seed = 5});
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    int windows = 0;
    int plain = 0;
    for (int k = 0; k < 40 * 24; k++) {
        const int image = k / 24;
        const int top = (k % 24 / 6) * 15;
        const int left = (k % 6) * 20;
        double sum = 0;
        double squares = 0;
        float low = 1e9f;
        float high = -1e9f;
        for (int p = 0; p < 49; p++) {
            const int at = image * PIXELS + (top + p / 7) * WIDTH + left + p % 7;
            const double value = info->images[(size_t)at * CHANNELS];
            sum += value;
            squares += value * value;
            low = fminf(low, info->targets[at]);
            high = fmaxf(high, info->targets[at]);
        }
        const double variance = squares / 49 - sum / 49 * (sum / 49);
        if (high - low < 2) {
            windows++;
            plain += variance < 80; /* noise: 42.5 */
        }
    }
    ck_assert_int_gt(windows, 200);
    ck_assert_msg(plain > windows / 20 && plain < windows / 3, "%d of %d windows are plain", plain,
                  windows);
    tl_dataset_free(dataset);
}
END_TEST

START_TEST(sizes_are_free) {
    tl_dataset *dataset = create(
        (tl_stereo_config){.count = 6, .height = 16, .width = 48, .max_disparity = 24, .seed = 2});
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    ck_assert_int_eq(info->height, 16);
    ck_assert_int_eq(info->width, 48);
    ck_assert_int_eq(info->channels, CHANNELS);
    ck_assert_ptr_null(info->masks);
    float most = 0;
    for (int i = 0; i < 6 * 16 * 48; i++) {
        most = fmaxf(most, info->targets[i]);
    }
    ck_assert(most > 12 && most < 24);
    tl_dataset_free(dataset);
    dataset = tl_dataset_create_stereo(context, NULL, &error);
    ck_assert_int_eq(tl_dataset_describe(dataset)->count, 2000);
    tl_dataset_free(dataset);
}
END_TEST

static void expect_failure(tl_stereo_config config, tl_status status, const char *part) {
    ck_assert_ptr_null(tl_dataset_create_stereo(context, &config, &error));
    assert_error(&error, status, part);
}

START_TEST(wrong_arguments_are_named) {
    expect_failure((tl_stereo_config){.count = -1}, TL_ERROR_INVALID_ARGUMENT,
                   "stereo: count: expected 1 to 2147483647 pairs, found -1");
    expect_failure((tl_stereo_config){.height = 15}, TL_ERROR_INVALID_ARGUMENT,
                   "stereo: height: expected 16 to 1024 pixels, found 15");
    expect_failure((tl_stereo_config){.width = 63}, TL_ERROR_INVALID_ARGUMENT,
                   "stereo: width: expected 64 to 2048 pixels, found 63");
    expect_failure((tl_stereo_config){.max_disparity = 257}, TL_ERROR_INVALID_ARGUMENT,
                   "stereo: max disparity: expected 8 to 256 pixels, found 257");
    expect_failure((tl_stereo_config){.split = 2}, TL_ERROR_INVALID_ARGUMENT,
                   "stereo: split: expected 0 or 1, found 2");
    tl_context_set_memory_limit(context, 1000000);
    expect_failure((tl_stereo_config){.count = 100}, TL_ERROR_OUT_OF_MEMORY, "dataset");
}
END_TEST

START_TEST(loaders_hand_out_disparities) {
    tl_dataset *dataset = create((tl_stereo_config){.count = 7, .seed = 4});
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    for (int threads = 0; threads < 2; threads++) {
        tl_loader *loader = tl_loader_create(
            context, dataset,
            &(tl_loader_config){.batch_size = 3, .shuffle = true, .seed = 1, .threads = threads},
            &error);
        ck_assert_msg(loader != NULL, "%s", error.message);
        tl_batch batch;
        int seen = 0;
        while (tl_loader_next(loader, &batch)) {
            ck_assert_int_eq(batch.targets.rank, 3);
            ck_assert_int_eq(batch.targets.shape[0], batch.count);
            ck_assert_int_eq(batch.targets.shape[2], WIDTH);
            for (int64_t i = 0; i < batch.count * PIXELS; i++) {
                const int64_t at = batch.indices[i / PIXELS] * PIXELS + i % PIXELS;
                ck_assert(batch.targets.data[i] == (tl_real)info->targets[at]);
            }
            seen += (int)batch.count;
        }
        ck_assert_int_eq(seen, 7);
        tl_loader_free(loader);
    }
    ck_assert_ptr_null(tl_loader_create(
        context, dataset, &(tl_loader_config){.augment = {.horizontal_flip = true}}, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "can be neither cropped nor flipped");
    tl_dataset_free(dataset);
}
END_TEST

/* The caller's own images with a number per pixel. */
START_TEST(targets_are_copied_and_checked) {
    uint8_t images[2 * 2 * 3] = {0};
    const int32_t labels[2] = {0, 0};
    float targets[2 * 2 * 3];
    for (int i = 0; i < 12; i++) {
        targets[i] = (float)i;
    }
    tl_dataset_info info = {.count = 2,
                            .height = 2,
                            .width = 3,
                            .channels = 1,
                            .classes = 1,
                            .images = images,
                            .labels = labels,
                            .targets = targets};
    tl_dataset *dataset = tl_dataset_create(context, &info, &error);
    ck_assert_msg(dataset != NULL, "%s", error.message);
    ck_assert_ptr_ne(tl_dataset_describe(dataset)->targets, targets);
    ck_assert_mem_eq(tl_dataset_describe(dataset)->targets, targets, sizeof targets);
    tl_dataset_free(dataset);
    targets[7] = NAN;
    ck_assert_ptr_null(tl_dataset_create(context, &info, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "targets 1: expected finite numbers");
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("stereo", &test_case);
    tcase_add_checked_fixture(test_case, setup, teardown);
#ifdef __x86_64__
    tcase_add_test(test_case, known_answer);
#endif
    tcase_add_test(test_case, pairs_depend_on_seed_split_and_index_alone);
    tcase_add_test(test_case, both_eyes_see_the_same_scene);
    tcase_add_test(test_case, some_regions_have_no_texture);
    tcase_add_test(test_case, sizes_are_free);
    tcase_add_test(test_case, wrong_arguments_are_named);
    tcase_add_test(test_case, loaders_hand_out_disparities);
    tcase_add_test(test_case, targets_are_copied_and_checked);
    return run_suite(suite);
}
