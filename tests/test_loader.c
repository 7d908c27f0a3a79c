/* The loader: order, batches, resuming, threads. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

enum { COUNT = 53, SIDE = 6, PIXELS = SIDE * SIDE, BATCH = 8 };

static tl_context *context;
static tl_dataset *dataset;
static tl_error error;

/* Image i has the value i + 1 in its first pixel and random ones elsewhere; its label is i mod 7.
 */
static void setup(void) {
    static uint8_t images[COUNT * PIXELS];
    static uint8_t masks[COUNT * PIXELS];
    static int32_t labels[COUNT];
    tl_random random = tl_random_create(1, 1000, 0);
    for (int i = 0; i < COUNT * PIXELS; i++) {
        images[i] =
            (uint8_t)(i % PIXELS == 0 ? i / PIXELS + 1 : (int)tl_random_below(&random, 256));
        masks[i] = (uint8_t)(images[i] % 5);
    }
    for (int i = 0; i < COUNT; i++) {
        labels[i] = i % 7;
    }
    context = tl_context_create(NULL);
    const tl_dataset_info info = {.count = COUNT,
                                  .height = SIDE,
                                  .width = SIDE,
                                  .channels = 1,
                                  .classes = 7,
                                  .images = images,
                                  .labels = labels,
                                  .masks = masks,
                                  .mask_classes = 5,
                                  .deviation = {1.0 / 255}};
    dataset = tl_dataset_create(context, &info, &error);
    ck_assert_msg(dataset != NULL, "%s", error.message);
}

static void teardown(void) {
    tl_dataset_free(dataset);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}

static tl_loader *create(tl_loader_config config) {
    tl_loader *loader = tl_loader_create(context, dataset, &config, &error);
    ck_assert_msg(loader != NULL, "%s", error.message);
    return loader;
}

/* Batches to the end of the epoch, appended to a record of all that was in them. */
typedef struct record {
    int count;
    int64_t indices[COUNT];
    tl_real images[COUNT * PIXELS];
    uint8_t masks[COUNT * PIXELS];
} record;

static void take(tl_loader *loader, record *seen, int most_batches) {
    tl_batch batch;
    while (most_batches-- > 0 && tl_loader_next(loader, &batch)) {
        ck_assert_int_eq(batch.images.rank, 4);
        ck_assert_int_eq(batch.images.shape[0], batch.count);
        ck_assert_int_eq(batch.images.shape[1], SIDE);
        ck_assert_int_eq(batch.images.shape[3], 1);
        for (int i = 0; i < batch.count; i++) {
            ck_assert_int_eq(batch.labels[i], batch.indices[i] % 7);
        }
        const size_t values = (size_t)batch.count * PIXELS;
        memcpy(seen->indices + seen->count, batch.indices, (size_t)batch.count * sizeof(int64_t));
        memcpy(seen->images + seen->count * PIXELS, batch.images.data, values * sizeof(tl_real));
        memcpy(seen->masks + seen->count * PIXELS, batch.masks, values);
        seen->count += (int)batch.count;
    }
}

static const tl_loader_config all_options = {
    .batch_size = BATCH,
    .shuffle = true,
    .seed = 42,
    .augment = {.crop_padding = 2, .horizontal_flip = true, .cutout_size = 2}};

START_TEST(batches_come_in_the_datasets_order) {
    tl_loader *loader = create((tl_loader_config){.batch_size = BATCH});
    ck_assert_int_eq(tl_loader_batches(loader), 7);
    tl_batch batch;
    for (int k = 0; k < 7; k++) {
        ck_assert_int_eq(tl_loader_position(loader), k * BATCH);
        ck_assert(tl_loader_next(loader, &batch));
        ck_assert_int_eq(batch.count, k < 6 ? BATCH : COUNT - 6 * BATCH);
        for (int i = 0; i < batch.count; i++) {
            ck_assert_int_eq(batch.indices[i], k * BATCH + i);
            ck_assert_double_eq_tol((double)batch.images.data[i * PIXELS], k * BATCH + i + 1, 1e-4);
        }
    }
    ck_assert_int_eq(tl_loader_position(loader), COUNT);
    ck_assert(!tl_loader_next(loader, &batch));
    ck_assert(!tl_loader_next(loader, &batch));
    ck_assert_int_eq(tl_loader_start_epoch(loader, 1), TL_OK);
    ck_assert_int_eq(tl_loader_epoch(loader), 1);
    ck_assert(tl_loader_next(loader, &batch));
    ck_assert_int_eq(batch.indices[0], 0);
    tl_loader_free(loader);
}
END_TEST

START_TEST(the_last_batch_can_be_dropped) {
    for (int threads = 0; threads < 2; threads++) {
        tl_loader *loader =
            create((tl_loader_config){.batch_size = BATCH, .drop_last = true, .threads = threads});
        ck_assert_int_eq(tl_loader_batches(loader), 6);
        record *seen = calloc(1, sizeof *seen);
        take(loader, seen, 100);
        ck_assert_int_eq(seen->count, 6 * BATCH);
        ck_assert_int_eq(tl_loader_position(loader), 6 * BATCH);
        free(seen);
        tl_loader_free(loader);
    }
}
END_TEST

START_TEST(epochs_are_different_permutations) {
    tl_loader *loader = create(all_options);
    record *seen = calloc(3, sizeof *seen);
    for (int epoch = 0; epoch < 3; epoch++) {
        ck_assert_int_eq(tl_loader_start_epoch(loader, epoch), TL_OK);
        take(loader, &seen[epoch], 100);
        ck_assert_int_eq(seen[epoch].count, COUNT);
        bool found[COUNT] = {false};
        for (int i = 0; i < COUNT; i++) {
            const int64_t index = seen[epoch].indices[i];
            ck_assert(index >= 0 && index < COUNT && !found[index]);
            found[index] = true;
        }
        for (int before = 0; before < epoch; before++) {
            ck_assert_mem_ne(seen[before].indices, seen[epoch].indices, sizeof seen->indices);
        }
    }
    free(seen);
    tl_loader_free(loader);
}
END_TEST

/* What is in an epoch is the same bits with any number of threads and from any batch on. */
START_TEST(threads_and_resuming_change_nothing) {
    record *whole = calloc(1, sizeof *whole);
    record *part = calloc(1, sizeof *part);
    tl_loader *loader = create(all_options);
    ck_assert_int_eq(tl_loader_start_epoch(loader, 3), TL_OK);
    take(loader, whole, 100);
    tl_loader_free(loader);
    for (int threads = 0; threads <= 3; threads++) {
        tl_loader_config config = all_options;
        config.threads = threads;
        for (int stop = 0; stop <= 7; stop++) {
            memset(part, 0, sizeof *part);
            tl_loader *before = create(config);
            ck_assert_int_eq(tl_loader_start_epoch(before, 3), TL_OK);
            take(before, part, stop);
            const int64_t epoch = tl_loader_epoch(before);
            const int64_t position = tl_loader_position(before);
            ck_assert_int_eq(position, part->count);
            tl_loader_free(before);
            tl_loader *after = create(config);
            ck_assert_int_eq(tl_loader_seek(after, epoch, position), TL_OK);
            take(after, part, 2);
            ck_assert_int_eq(tl_loader_seek(after, epoch, tl_loader_position(after)), TL_OK);
            take(after, part, 100);
            ck_assert_int_eq(tl_loader_position(after), COUNT);
            tl_loader_free(after);
            ck_assert_int_eq(part->count, COUNT);
            ck_assert_mem_eq(part, whole, sizeof *whole);
        }
    }
    free(whole);
    free(part);
}
END_TEST

/* An image is augmented by its index, not by its place in the epoch. */
START_TEST(augmentation_does_not_depend_on_the_order) {
    record *shuffled = calloc(1, sizeof *shuffled);
    record *plain = calloc(1, sizeof *plain);
    tl_loader_config config = all_options;
    tl_loader *loader = create(config);
    take(loader, shuffled, 100);
    tl_loader_free(loader);
    config.shuffle = false;
    config.batch_size = 5;
    loader = create(config);
    take(loader, plain, 100);
    tl_loader_free(loader);
    for (int i = 0; i < COUNT; i++) {
        const int64_t index = shuffled->indices[i];
        ck_assert_mem_eq(shuffled->images + i * PIXELS, plain->images + index * PIXELS,
                         PIXELS * sizeof(tl_real));
        ck_assert_mem_eq(shuffled->masks + i * PIXELS, plain->masks + index * PIXELS, PIXELS);
    }
    free(shuffled);
    free(plain);
}
END_TEST

/* With threads, batches that nobody fetched are dropped at once. */
START_TEST(epochs_can_be_left_early) {
    for (int threads = 0; threads <= 4; threads++) {
        tl_loader_config config = all_options;
        config.threads = threads;
        tl_loader *loader = create(config);
        const uint64_t allocations = tl_context_memory(context).allocations;
        for (int epoch = 0; epoch < 50; epoch++) {
            ck_assert_int_eq(tl_loader_start_epoch(loader, epoch), TL_OK);
            tl_batch batch;
            for (int k = 0; k < epoch % 4; k++) {
                ck_assert(tl_loader_next(loader, &batch));
            }
        }
        ck_assert_uint_eq(tl_context_memory(context).allocations, allocations);
        tl_loader_free(loader);
    }
}
END_TEST

START_TEST(one_batch_may_hold_all) {
    tl_loader *loader = create((tl_loader_config){0}); /* 128 */
    tl_batch batch;
    ck_assert_int_eq(tl_loader_batches(loader), 1);
    ck_assert(tl_loader_next(loader, &batch));
    ck_assert_int_eq(batch.count, COUNT);
    ck_assert(!tl_loader_next(loader, &batch));
    tl_loader_free(loader);
    tl_loader_free(NULL);
}
END_TEST

static void expect_failure(tl_loader_config config, const char *part) {
    ck_assert_ptr_null(tl_loader_create(context, dataset, &config, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, part);
}

/* The parts of each batch, in the order of their numbers, are the batch; and a loader of parts
 * stands where one of whole batches does. */
START_TEST(shares_are_parts_of_the_same_batches) {
    enum { SHARES = 4 };
    const bool drop_last = _i == 1;
    tl_loader_config config = all_options;
    config.batch_size = BATCH;
    config.drop_last = drop_last;
    tl_loader *whole = create(config);
    tl_loader *parts[SHARES];
    for (int i = 0; i < SHARES; i++) {
        config.shares = SHARES;
        config.share = i;
        config.threads = i % 2 * 2;
        parts[i] = create(config);
        ck_assert_int_eq(tl_loader_batches(parts[i]), tl_loader_batches(whole));
        ck_assert_int_eq(tl_loader_seek(parts[i], 2, 3), TL_OK);
    }
    ck_assert_int_eq(tl_loader_seek(whole, 2, 3), TL_OK);
    tl_batch batch;
    int batches = 0;
    while (tl_loader_next(whole, &batch)) {
        int64_t seen = 0;
        for (int i = 0; i < SHARES; i++) {
            tl_batch part;
            ck_assert(tl_loader_next(parts[i], &part));
            ck_assert_int_eq(part.images.shape[0], part.count);
            const int64_t least = batch.count / SHARES;
            ck_assert(part.count == least || (batch.count < BATCH && part.count == least + 1));
            const size_t values = (size_t)part.count * PIXELS;
            ck_assert_mem_eq(part.indices, batch.indices + seen, (size_t)part.count * 8);
            ck_assert_mem_eq(part.labels, batch.labels + seen, (size_t)part.count * 4);
            ck_assert_mem_eq(part.masks, batch.masks + seen * PIXELS, values);
            assert_same_bits("images", (int64_t)values, part.images.data,
                             batch.images.data + seen * PIXELS);
            seen += part.count;
            ck_assert_int_eq(tl_loader_position(parts[i]), tl_loader_position(whole));
        }
        ck_assert_int_eq(seen, batch.count);
        batches++;
    }
    ck_assert_int_eq(batches, drop_last ? 6 : 7); /* of 50 images: the last has 2, for 4 parts */
    for (int i = 0; i < SHARES; i++) {
        tl_batch part;
        ck_assert(!tl_loader_next(parts[i], &part));
        tl_loader_free(parts[i]);
    }
    tl_loader_free(whole);
}
END_TEST

START_TEST(wrong_arguments_are_named) {
    expect_failure((tl_loader_config){.batch_size = 8, .shares = 3},
                   "batches of 8 cannot be cut into 3 equal parts");
    expect_failure((tl_loader_config){.shares = 2, .share = 2},
                   "one of the 2 parts of a batch, found number 2");
    expect_failure((tl_loader_config){.shares = -1}, "one of the -1 parts");
    expect_failure((tl_loader_config){.shares = 2, .share = -1}, "found number -1");
    expect_failure((tl_loader_config){.batch_size = -1}, "batch size: expected at least 1");
    expect_failure((tl_loader_config){.batch_size = 54, .drop_last = true},
                   "the batch size is 54, the dataset has 53 images");
    expect_failure((tl_loader_config){.threads = 17}, "threads: expected 0 to 16, found 17");
    expect_failure((tl_loader_config){.threads = -1}, "threads: expected 0 to 16, found -1");
    expect_failure((tl_loader_config){.augment.crop_padding = 7},
                   "crop padding: expected 0 to 6, found 7");
    expect_failure((tl_loader_config){.augment.cutout_size = -1}, "cutout size");
    tl_loader *loader = create((tl_loader_config){0});
    ck_assert_int_eq(tl_loader_start_epoch(loader, -1), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_int_eq(tl_loader_start_epoch(loader, INT64_C(1) << 32), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_int_eq(tl_loader_seek(loader, 0, -1), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_int_eq(tl_loader_seek(loader, 0, COUNT + 1), TL_ERROR_INVALID_ARGUMENT);
    ck_assert_int_eq(tl_loader_seek(loader, 0, COUNT), TL_OK);
    tl_batch batch;
    ck_assert(!tl_loader_next(loader, &batch));
    tl_loader_free(loader);
}
END_TEST

/* Every budget too small by a byte or more is a clean error. */
START_TEST(memory_failures_leave_nothing_behind) {
    const size_t before = tl_context_memory(context).current;
    tl_loader_config config = all_options;
    config.threads = 2;
    int failures = 0;
    for (size_t extra = 1;; extra += 1000) {
        tl_context_set_memory_limit(context, before + extra);
        tl_loader *loader = tl_loader_create(context, dataset, &config, &error);
        if (loader != NULL) {
            tl_loader_free(loader);
            break;
        }
        assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "loader");
        ck_assert_uint_eq(tl_context_memory(context).current, before);
        failures++;
    }
    ck_assert_int_gt(failures, 5);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("loader", &test_case);
    tcase_add_checked_fixture(test_case, setup, teardown);
    tcase_add_test(test_case, batches_come_in_the_datasets_order);
    tcase_add_test(test_case, the_last_batch_can_be_dropped);
    tcase_add_test(test_case, epochs_are_different_permutations);
    tcase_add_test(test_case, threads_and_resuming_change_nothing);
    tcase_add_test(test_case, augmentation_does_not_depend_on_the_order);
    tcase_add_test(test_case, epochs_can_be_left_early);
    tcase_add_test(test_case, one_batch_may_hold_all);
    tcase_add_loop_test(test_case, shares_are_parts_of_the_same_batches, 0, 2);
    tcase_add_test(test_case, wrong_arguments_are_named);
    tcase_add_test(test_case, memory_failures_leave_nothing_behind);
    return run_suite(suite);
}
