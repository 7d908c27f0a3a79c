#include "common/model_input.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/fail.h"

/* One string: the names, each on a line. False if they are too long together. */
static bool join_names(const tl_dataset_info *info, char names[MODEL_INPUT_NAMES_SIZE]) {
    size_t length = 0;
    names[0] = '\0';
    for (int i = 0; info->class_names != NULL && i < info->classes; i++) {
        const int added =
            snprintf(names + length, MODEL_INPUT_NAMES_SIZE - length, "%s\n", info->class_names[i]);
        if (added < 0 || (size_t)added >= MODEL_INPUT_NAMES_SIZE - length) {
            names[0] = '\0';
            return false;
        }
        length += (size_t)added;
    }
    return true;
}

tl_status model_input_save(const tl_dataset_info *training, tl_state *state, tl_error *error) {
    const struct {
        const char *path;
        int64_t value;
    } sizes[] = {{"input/height", training->height},
                 {"input/width", training->width},
                 {"input/channels", training->channels}};
    tl_status status = TL_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && status == TL_OK; i++) {
        status = tl_state_put_integer(state, sizes[i].path, sizes[i].value, error);
    }
    for (int64_t c = 0; c < training->channels && status == TL_OK; c++) {
        char path[64];
        (void)snprintf(path, sizeof path, "input/mean_%" PRId64, c);
        status = tl_state_put_number(state, path, training->mean[c], error);
        if (status == TL_OK) {
            (void)snprintf(path, sizeof path, "input/deviation_%" PRId64, c);
            status = tl_state_put_number(state, path, training->deviation[c], error);
        }
    }
    char names[MODEL_INPUT_NAMES_SIZE];
    if (status == TL_OK && join_names(training, names)) {
        status = tl_state_put_string(state, "input/class_names", names, error);
    }
    return status;
}

tl_status model_input_load(model_input *input, const tl_state *state, tl_error *error) {
    *input = (model_input){0};
    int64_t unused;
    if (!tl_state_find_integer(state, "input/height", &unused)) {
        return fail_with(error, TL_ERROR_FORMAT,
                         "the checkpoint does not say what images its model takes (no group "
                         "\"input\"): it was saved by an earlier version (resume its training for "
                         "an epoch), or converted without --like");
    }
    int64_t channels = 0;
    tl_status status =
        tl_state_read_integer(state, "input/height", 1, PICTURE_MAX_SIDE, &input->height, error);
    if (status == TL_OK) {
        status =
            tl_state_read_integer(state, "input/width", 1, PICTURE_MAX_SIDE, &input->width, error);
    }
    if (status == TL_OK) {
        status = tl_state_read_integer(state, "input/channels", 1, 3, &channels, error);
    }
    if (status == TL_OK && channels == 2) {
        status = fail_with(error, TL_ERROR_FORMAT, "input/channels: expected 1 or 3, found 2");
    }
    input->channels = (int)channels;
    for (int c = 0; c < input->channels && status == TL_OK; c++) {
        char path[64];
        (void)snprintf(path, sizeof path, "input/mean_%d", c);
        status = tl_state_read_number(state, path, -1e6, 1e6, &input->mean[c], error);
        if (status == TL_OK) {
            (void)snprintf(path, sizeof path, "input/deviation_%d", c);
            status = tl_state_read_number(state, path, 1e-9, 1e6, &input->deviation[c], error);
        }
    }
    const char *names = tl_state_find_string(state, "input/class_names");
    if (names != NULL && strlen(names) < sizeof input->class_names) {
        memcpy(input->class_names, names, strlen(names) + 1);
    }
    return status;
}

const char *model_input_class_name(const model_input *input, int64_t index, char *text,
                                   size_t size) {
    const char *name = input->class_names;
    for (int64_t i = 0; i < index && name != NULL; i++) {
        name = strchr(name, '\n');
        name = name != NULL ? name + 1 : NULL;
    }
    const char *end = name != NULL ? strchr(name, '\n') : NULL;
    if (end != NULL) {
        (void)snprintf(text, size, "%.*s", (int)(end - name), name);
    } else {
        (void)snprintf(text, size, "class %" PRId64, index);
    }
    return text;
}

tl_status model_input_fit(const model_input *input, const picture *image, picture *fitted,
                          tl_error *error) {
    tl_status status = picture_resize(image, input->height, input->width, fitted, error);
    if (status == TL_OK) {
        status = picture_convert(fitted, input->channels, error);
    }
    if (status != TL_OK) {
        picture_free(fitted);
    }
    return status;
}

void model_input_values(const model_input *input, const picture *fitted, tl_real *values) {
    const int64_t count = fitted->height * fitted->width * fitted->channels;
    for (int64_t i = 0; i < count; i++) {
        const int c = (int)(i % fitted->channels);
        values[i] = (tl_real)((fitted->pixels[i] / 255.0 - input->mean[c]) / input->deviation[c]);
    }
}
