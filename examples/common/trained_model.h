/* trained_model.h - a model from a checkpoint, with what it expects of images, ready to predict. */
#ifndef EXAMPLE_TRAINED_MODEL_H
#define EXAMPLE_TRAINED_MODEL_H

#include <tapeline/tapeline.h>

#include "common/model_input.h"

/* Start from {0}. */
typedef struct trained_model {
    tl_model *model;
    model_input input;
} trained_model;

/* Every message begins with the file's name. */
tl_status trained_model_load(trained_model *trained, tl_context *context, const char *path,
                             tl_error *error);
void trained_model_free(trained_model *trained);

/* A class and how likely the model finds it. */
typedef struct ranked_class {
    int64_t index;
    double probability; /* softmax of the logits */
} ranked_class;

/* The most likely classes of logits [classes], the likeliest first, of equal ones that of the lower
 * index. Fills in at most `most`; returns how many. */
int rank_classes(const tl_real *logits, int64_t classes, int most, ranked_class *ranked);

#endif
