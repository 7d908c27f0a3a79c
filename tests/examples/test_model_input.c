/* What checkpoints say of a model's input, and attention maps as pictures. */
#include "support/support.h"

#include <math.h>
#include <string.h>

#include "common/attention_sheet.h"
#include "common/model_input.h"

static tl_dataset_info small_info(const char *const *names) {
    return (tl_dataset_info){.height = 6,
                             .width = 8,
                             .channels = 3,
                             .classes = 2,
                             .class_names = names,
                             .mean = {0.5, 0.25, 0.125},
                             .deviation = {0.5, 1, 2}};
}

START_TEST(a_state_keeps_the_input) {
    static const char *const names[] = {"t-shirt, top", "ankle boot"};
    tl_context *context = tl_context_create(NULL);
    for (int named = 0; named < 2; named++) {
        tl_error error;
        tl_state *state = tl_state_create(context, &error);
        const tl_dataset_info info = small_info(named == 1 ? names : NULL);
        ck_assert_int_eq(model_input_save(&info, state, &error), TL_OK);
        model_input input;
        ck_assert_int_eq(model_input_load(&input, state, &error), TL_OK);
        ck_assert_int_eq(input.height, 6);
        ck_assert_int_eq(input.width, 8);
        ck_assert_int_eq(input.channels, 3);
        for (int c = 0; c < 3; c++) {
            ck_assert(input.mean[c] == info.mean[c]);
            ck_assert(input.deviation[c] == info.deviation[c]);
        }
        char text[64];
        const char *first = model_input_class_name(&input, 0, text, sizeof text);
        ck_assert_str_eq(first, named == 1 ? "t-shirt, top" : "class 0");
        ck_assert_str_eq(model_input_class_name(&input, 1, text, sizeof text),
                         named == 1 ? "ankle boot" : "class 1");
        ck_assert_str_eq(model_input_class_name(&input, 2, text, sizeof text), "class 2");
        tl_state_free(state);
    }
    tl_context_free(context);
}
END_TEST

START_TEST(what_a_state_lacks_is_said) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    model_input input;
    tl_state *state = tl_state_create(context, &error);
    ck_assert_int_eq(model_input_load(&input, state, &error), TL_ERROR_FORMAT);
    assert_error(&error, TL_ERROR_FORMAT, "saved by an earlier version");
    ck_assert_int_eq(tl_state_put_integer(state, "input/height", 28, &error), TL_OK);
    ck_assert_int_eq(tl_state_put_integer(state, "input/width", 1 << 20, &error), TL_OK);
    ck_assert_int_eq(model_input_load(&input, state, &error), TL_ERROR_FORMAT);
    assert_error(&error, TL_ERROR_FORMAT, "input/width");
    tl_state_free(state);
    state = tl_state_create(context, &error);
    tl_dataset_info info = small_info(NULL);
    info.deviation[2] = 0;
    ck_assert_int_eq(model_input_save(&info, state, &error), TL_OK);
    ck_assert_int_eq(model_input_load(&input, state, &error), TL_ERROR_FORMAT);
    assert_error(&error, TL_ERROR_FORMAT, "input/deviation_2");
    tl_state_free(state);
    tl_context_free(context);
}
END_TEST

/* The values are those of a loader on the same pixels. */
START_TEST(normalised_as_in_training) {
    tl_context *context = tl_context_create(NULL);
    tl_error error;
    uint8_t pixels[6 * 8 * 3];
    for (int i = 0; i < 6 * 8 * 3; i++) {
        pixels[i] = (uint8_t)(i * 37);
    }
    const int32_t label = 1;
    tl_dataset_info info = small_info(NULL);
    info.count = 1;
    info.images = pixels;
    info.labels = &label;
    tl_dataset *dataset = tl_dataset_create(context, &info, &error);
    ck_assert_msg(dataset != NULL, "%s", error.message);
    tl_loader *loader = tl_loader_create(context, dataset, NULL, &error);
    tl_batch batch;
    ck_assert(tl_loader_next(loader, &batch));
    tl_state *state = tl_state_create(context, &error);
    model_input input;
    ck_assert_int_eq(model_input_save(tl_dataset_describe(dataset), state, &error), TL_OK);
    ck_assert_int_eq(model_input_load(&input, state, &error), TL_OK);
    picture image = {.height = 6, .width = 8, .channels = 3, .pixels = pixels}, fitted;
    ck_assert_int_eq(model_input_fit(&input, &image, &fitted, &error), TL_OK);
    tl_real values[6 * 8 * 3];
    model_input_values(&input, &fitted, values);
    for (int i = 0; i < 6 * 8 * 3; i++) {
        ck_assert(fabs((double)(values[i] - batch.images.data[i])) < 1e-6);
    }
    picture_free(&fitted);
    input.channels = 1;
    ck_assert_int_eq(model_input_fit(&input, &image, &fitted, &error), TL_OK);
    ck_assert_int_eq(fitted.channels, 1);
    picture_free(&fitted);
    tl_state_free(state);
    tl_loader_free(loader);
    tl_dataset_free(dataset);
    tl_context_free(context);
}
END_TEST

/* The strongest position is bright, a negative one blue, the rest the darkened image. */
START_TEST(maps_are_drawn) {
    tl_error error;
    picture image, drawn;
    ck_assert_int_eq(picture_create(&image, 64, 64, 1, &error), TL_OK);
    memset(image.pixels, 100, 64 * 64);
    attention_sheet *sheet = attention_sheet_create(&image, &error);
    ck_assert_ptr_nonnull(sheet);
    tl_real values[2 * 16] = {0};
    values[0] = 3;       /* upper left */
    values[2 * 15] = -3; /* lower right; every second value is another map's */
    values[1] = 100;
    const attention_map map = {.values = values, .height = 4, .width = 4, .stride = 2};
    ck_assert_int_eq(attention_sheet_title(sheet, "maps", &error), TL_OK);
    ck_assert_int_eq(attention_sheet_line(sheet, 1, 1, &error), TL_OK);
    for (int i = 0; i <= SHEET_CELLS_PER_LINE; i++) { /* one more than a line holds */
        ck_assert_int_eq(attention_sheet_add(sheet, &map, &error), TL_OK);
    }
    ck_assert_int_eq(attention_sheet_draw(sheet, &drawn, &error), TL_OK);
    const int64_t step = 64 + 4;
    ck_assert_int_eq(drawn.width, 4 + (SHEET_CELLS_PER_LINE + 1) * step);
    const int64_t top = drawn.height - 2 * step; /* of the first line's cells */
    for (int line = 0; line < 2; line++) {
        const uint8_t *cell = drawn.pixels + ((top + line * step) * drawn.width + 4 + step) * 3;
        const uint8_t *bright = cell;
        const uint8_t *dark = cell + (32 * drawn.width + 32) * 3;
        const uint8_t *blue = cell + (63 * drawn.width + 63) * 3;
        ck_assert(bright[0] == 255 && bright[1] == 255 && bright[2] == 255);
        ck_assert(dark[0] == 50 && dark[1] == 50 && dark[2] == 50);
        ck_assert(blue[2] == 255);
    }
    const uint8_t *framed = drawn.pixels + (top * drawn.width + 4) * 3;
    ck_assert(framed[0] == 0 && framed[1] == 220);
    const uint8_t *empty = drawn.pixels + ((top + step + 32) * drawn.width + 4 + 32) * 3;
    ck_assert(empty[0] == 255); /* the second line repeats no image */
    picture_free(&drawn);
    picture_free(&image);
    attention_sheet_free(sheet);
}
END_TEST

int main(void) {
    TCase *tests;
    Suite *suite = suite_with_case("model input", &tests);
    tcase_add_test(tests, a_state_keeps_the_input);
    tcase_add_test(tests, what_a_state_lacks_is_said);
    tcase_add_test(tests, normalised_as_in_training);
    tcase_add_test(tests, maps_are_drawn);
    return run_suite(suite);
}
