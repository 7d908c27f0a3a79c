/* parameters.h - the registry of a model's parameters and buffers, by name.
 *
 * Layers add their tensors when they are created; the registry owns them. Names are paths with
 * dots, as in "stages.1.attention.keys.weight". Optimizers walk the trainable ones, checkpoints
 * all.
 *
 * All layers have the same form. A layer is a small struct that its user owns and embeds; its
 * tensors belong to the registry, so that there is nothing to free:
 *
 *     tl_status tl_linear_layer_init(tl_linear_layer *layer, tl_parameters *parameters,
 *                                    const char *prefix, const tl_linear_layer_config *config,
 *                                    tl_random *random, tl_error *error);
 *     tl_tensor *tl_linear_layer_forward(const tl_linear_layer *layer, tl_tape *tape, tl_tensor
 * *x);
 *
 * init adds "prefix.weight" and so on with their initial values drawn from `random`; forward does
 * not release x.
 */
#ifndef TL_PARAMETERS_H
#define TL_PARAMETERS_H

#include <tapeline/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_parameters tl_parameters;

enum { TL_NAME_SIZE = 128 };

typedef enum tl_parameter_group {
    TL_GROUP_WEIGHT = 0,   /* trained, with weight decay */
    TL_GROUP_NO_DECAY = 1, /* trained, without: gains and shifts of normalisations, biases */
    TL_GROUP_BUFFER = 2,   /* not trained: running statistics */
} tl_parameter_group;

typedef struct tl_parameter {
    const char *name;
    const char *axes; /* what each dimension is, e.g. "out kh kw in" */
    tl_parameter_group group;
    tl_tensor *tensor;
} tl_parameter;

/* An empty registry. NULL if memory fails. */
TL_API tl_parameters *tl_parameters_create(tl_context *context, tl_error *error);
/* Frees all its tensors too. NULL is fine. */
TL_API void tl_parameters_free(tl_parameters *parameters);
TL_API tl_context *tl_parameters_context(const tl_parameters *parameters);

/* Adds a tensor of zeros named "prefix.name" (or "name" where the prefix is NULL or ""). Returns
 * it; NULL if the name is taken, empty, too long or has a slash, or if memory fails. The name and
 * the axes are copied. */
TL_API tl_tensor *tl_parameters_add(tl_parameters *parameters, const char *prefix, const char *name,
                                    tl_parameter_group group, const char *axes, int rank,
                                    const int64_t *shape, tl_error *error);

/* All tensors in it, buffers included. */
TL_API int tl_parameters_count(const tl_parameters *parameters);
/* In order of addition; index 0 ... count-1. */
TL_API tl_parameter tl_parameters_at(const tl_parameters *parameters, int index);
/* NULL if there is none of that name. */
TL_API tl_tensor *tl_parameters_find(const tl_parameters *parameters, const char *name);

/* Elements in trainable tensors. */
TL_API int64_t tl_parameters_trainable_size(const tl_parameters *parameters);

/* Sets all gradients to zero. */
TL_API void tl_parameters_clear_grads(tl_parameters *parameters);

#ifdef __cplusplus
}
#endif

#endif
