/* trained_model.h - a model from a checkpoint, with what it expects of images, ready to predict. */
#ifndef EXAMPLE_TRAINED_MODEL_H
#define EXAMPLE_TRAINED_MODEL_H

#include <tapeline/tapeline.h>

#include "common/model_input.h"

/* Start from {0}. */
typedef struct trained_model {
    tl_context *context;
    tl_tape *tape; /* neither records nor trains */
    tl_model *model;
    model_input input;
    tl_real *values; /* of one input */
} trained_model;

/* The exit code; the message, which begins with the file's name if that is to blame, was printed.
 * Free it after an error too. */
int trained_model_open(trained_model *trained, const char *program, const char *path,
                       int64_t threads);
void trained_model_free(trained_model *trained);

/* A picture of the model's size as its input [1, height, width, channels]; the next one takes its
 * place. NULL after an error, which is the tape's. */
tl_tensor *trained_model_input(trained_model *trained, const picture *fitted);

/* A class and how likely the model finds it. */
typedef struct ranked_class {
    int64_t index;
    double probability; /* softmax of the logits */
} ranked_class;

/* The most likely classes of logits [classes], the likeliest first, of equal ones that of the lower
 * index. Fills in at most `most`; returns how many. */
int rank_classes(const tl_real *logits, int64_t classes, int most, ranked_class *ranked);

#endif
