/* Datasets of the caller's own images, and their normalisation. */
#include "support/support.h"

#include <math.h>

enum { COUNT = 4, HEIGHT = 2, WIDTH = 3, CHANNELS = 2, VALUES = COUNT * HEIGHT * WIDTH * CHANNELS };

static tl_context *context;
static tl_error error;
static uint8_t images[VALUES];
static uint8_t masks[VALUES / CHANNELS];
static int32_t labels[COUNT];

static void setup(void) {
    context = tl_context_create(NULL);
    error = (tl_error){TL_OK, ""};
    for (int i = 0; i < VALUES; i++) {
        images[i] = (uint8_t)(i % CHANNELS == 0 ? 5 * i : 77);
    }
    for (int i = 0; i < VALUES / CHANNELS; i++) {
        masks[i] = (uint8_t)(i % 3);
    }
    for (int i = 0; i < COUNT; i++) {
        labels[i] = (i + 1) % 3;
    }
}

static void teardown(void) {
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}

static tl_dataset_info complete(void) {
    return (tl_dataset_info){.count = COUNT,
                             .height = HEIGHT,
                             .width = WIDTH,
                             .channels = CHANNELS,
                             .classes = 3,
                             .images = images,
                             .labels = labels,
                             .masks = masks,
                             .mask_classes = 3};
}

static void expect_failure(const tl_dataset_info *info, tl_status status, const char *part) {
    ck_assert_ptr_null(tl_dataset_create(context, info, &error));
    assert_error(&error, status, part);
}

START_TEST(arrays_are_copied) {
    const tl_dataset_info wanted = complete();
    tl_dataset *dataset = tl_dataset_create(context, &wanted, &error);
    ck_assert_msg(dataset != NULL, "%s", error.message);
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    ck_assert_ptr_ne(info->images, images);
    ck_assert_ptr_ne(info->labels, labels);
    ck_assert_ptr_ne(info->masks, masks);
    ck_assert_int_eq(info->count, COUNT);
    ck_assert_mem_eq(info->images, images, sizeof images);
    ck_assert_mem_eq(info->labels, labels, sizeof labels);
    ck_assert_mem_eq(info->masks, masks, sizeof masks);
    tl_dataset_free(dataset);
}
END_TEST

START_TEST(normalization_is_computed) {
    const tl_dataset_info wanted = complete();
    tl_dataset *dataset = tl_dataset_create(context, &wanted, &error);
    ck_assert_ptr_nonnull(dataset);
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    double sum = 0;
    double squares = 0;
    for (int i = 0; i < VALUES; i += CHANNELS) {
        sum += images[i] / 255.0;
        squares += images[i] / 255.0 * (images[i] / 255.0);
    }
    const double mean = sum / (VALUES / CHANNELS);
    ck_assert_double_eq_tol(info->mean[0], mean, 1e-12);
    ck_assert_double_eq_tol(info->deviation[0], sqrt(squares / (VALUES / CHANNELS) - mean * mean),
                            1e-12);
    ck_assert_double_eq_tol(info->mean[1], 77 / 255.0, 1e-12);
    ck_assert_double_eq(info->deviation[1], 1); /* a constant channel */

    ck_assert_int_eq(
        tl_dataset_set_normalization(dataset, (double[]){0.5, 0.25}, (double[]){2, 4}, &error),
        TL_OK);
    ck_assert_double_eq(info->mean[1], 0.25);
    ck_assert_double_eq(info->deviation[1], 4);
    ck_assert_int_eq(
        tl_dataset_set_normalization(dataset, (double[]){0.5, NAN}, (double[]){2, 4}, &error),
        TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "channel 1: expected a finite mean");
    ck_assert_int_eq(
        tl_dataset_set_normalization(dataset, (double[]){0.5, 0.5}, (double[]){0, 4}, NULL),
        TL_ERROR_INVALID_ARGUMENT);
    ck_assert_double_eq(info->deviation[0], 2);
    tl_dataset_free(dataset);
}
END_TEST

START_TEST(given_normalization_is_kept) {
    tl_dataset_info wanted = complete();
    wanted.mean[1] = 0.5;
    wanted.deviation[0] = 0.125;
    wanted.deviation[1] = 0.25;
    tl_dataset *dataset = tl_dataset_create(context, &wanted, &error);
    ck_assert_ptr_nonnull(dataset);
    ck_assert_double_eq(tl_dataset_describe(dataset)->mean[1], 0.5);
    ck_assert_double_eq(tl_dataset_describe(dataset)->deviation[0], 0.125);
    tl_dataset_free(dataset);
    wanted.deviation[1] = 0;
    expect_failure(&wanted, TL_ERROR_INVALID_ARGUMENT, "a deviation above 0, found 0.5 and 0");
}
END_TEST

START_TEST(wrong_arguments_are_named) {
    tl_dataset_info wrong = complete();
    wrong.count = 0;
    expect_failure(&wrong, TL_ERROR_INVALID_ARGUMENT, "expected at least one image");
    wrong = complete();
    wrong.labels = NULL;
    expect_failure(&wrong, TL_ERROR_INVALID_ARGUMENT, "found 4 (NULL arrays)");
    wrong = complete();
    wrong.channels = 7;
    expect_failure(&wrong, TL_ERROR_SHAPE, "1 to 6 channels, found [2, 3, 7]");
    wrong = complete();
    wrong.width = 0;
    expect_failure(&wrong, TL_ERROR_SHAPE, "found [2, 0, 2]");
    wrong = complete();
    wrong.classes = 2;
    expect_failure(&wrong, TL_ERROR_INVALID_ARGUMENT, "image 1: expected a label from 0 to 1");
    wrong = complete();
    wrong.mask_classes = 2;
    expect_failure(&wrong, TL_ERROR_INVALID_ARGUMENT, "mask 0: expected classes from 0 to 1");
    wrong = complete();
    wrong.masks = NULL;
    expect_failure(&wrong, TL_ERROR_INVALID_ARGUMENT, "mask classes");
    tl_context_set_memory_limit(context, 1);
    wrong = complete();
    expect_failure(&wrong, TL_ERROR_OUT_OF_MEMORY, "dataset: out of memory");
    tl_context_set_memory_limit(context, sizeof(tl_dataset_info) + 100);
    expect_failure(&wrong, TL_ERROR_OUT_OF_MEMORY, "dataset: images and labels: out of memory");
    tl_dataset_free(NULL);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("dataset", &test_case);
    tcase_add_checked_fixture(test_case, setup, teardown);
    tcase_add_test(test_case, arrays_are_copied);
    tcase_add_test(test_case, normalization_is_computed);
    tcase_add_test(test_case, given_normalization_is_kept);
    tcase_add_test(test_case, wrong_arguments_are_named);
    return run_suite(suite);
}
