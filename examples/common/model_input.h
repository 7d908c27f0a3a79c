/* model_input.h - what a trained model expects of an image: its size, how pixels are normalised,
 * and what the classes are called. A checkpoint has it under "input", so that programs without the
 * dataset can use the model.
 */
#ifndef EXAMPLE_MODEL_INPUT_H
#define EXAMPLE_MODEL_INPUT_H

#include <tapeline/tapeline.h>

#include "common/picture.h"

enum { MODEL_INPUT_NAMES_SIZE = 4096 };

typedef struct model_input {
    int64_t height, width;
    int channels;                         /* 1 or 3 */
    double mean[TL_DATASET_MAX_CHANNELS]; /* per channel, where white is 1 */
    double deviation[TL_DATASET_MAX_CHANNELS];
    char class_names[MODEL_INPUT_NAMES_SIZE]; /* one a line; "" where they are unknown */
} model_input;

/* What the training images of a dataset are like. */
tl_status model_input_save(const tl_dataset_info *training, tl_state *state, tl_error *error);

/* TL_ERROR_FORMAT if the checkpoint does not say it, or cannot mean it. */
tl_status model_input_load(model_input *input, const tl_state *state, tl_error *error);

/* The name of a class, or "class 7" in `text` where names are unknown. */
const char *model_input_class_name(const model_input *input, int64_t index, char *text,
                                   size_t size);

/* Resizes a picture to the model's size and channels. */
tl_status model_input_fit(const model_input *input, const picture *image, picture *fitted,
                          tl_error *error);

/* The values [height, width, channels] of a picture of the model's size, normalised as in training.
 */
void model_input_values(const model_input *input, const picture *fitted, tl_real *values);

#endif
