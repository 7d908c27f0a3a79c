/* model.h - a network with its parameters, whatever its kind.
 *
 * A model owns its parameters and knows its configuration, which it can write into a state (for a
 * checkpoint, state.h) and be created from again.
 */
#ifndef TL_MODEL_H
#define TL_MODEL_H

#include <tapeline/attention_cost.h>
#include <tapeline/parameters.h>
#include <tapeline/state.h>
#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_model tl_model;

/* NULL is fine. */
TL_API void tl_model_free(tl_model *model);

/* Images [N, H, W, C] -> what the model predicts: logits [N, classes] for classifiers, or
 * [N, H, W, classes] for a dense head, disparities [N, H, W] for pairs of images. Releases its own
 * intermediate results, not x. */
TL_API tl_tensor *tl_model_forward(tl_model *model, tl_tape *tape, tl_tensor *x);

/* An attention module of a model and what it is about to work on. */
typedef struct tl_attention_site {
    const char *name; /* the prefix of its parameters: "stages.1.attention" */
    tl_attention_kind kind;
    const tl_efficient_attention_layer *efficient; /* the one of the kind, the other is NULL */
    const tl_non_local_layer *non_local;
    tl_tensor *x; /* its input [N, spatial..., C]; stays the model's: not to be released */
} tl_attention_site;

typedef void (*tl_attention_visitor)(void *user, tl_tape *tape, const tl_attention_site *site);

/* Does what tl_model_forward does, and calls `visit` for each attention module before it runs, in
 * order. The visitor may use the tape, e.g. for tl_efficient_attention_maps(tape, site->x,
 * &site->efficient->weights, &site->efficient->config) or tl_non_local_map. */
TL_API tl_tensor *tl_model_visit_attention(tl_model *model, tl_tape *tape, tl_tensor *x,
                                           tl_attention_visitor visit, void *user);

/* Its parameters and running statistics; they belong to the model. */
TL_API tl_parameters *tl_model_parameters(const tl_model *model);

/* "resnet_cifar", "local_resnet", "stereo_net". */
TL_API const char *tl_model_kind(const tl_model *model);

/* The value of an integer, boolean or choice field of the configuration ("depth", "classes");
 * -1 if there is no such field. */
TL_API int64_t tl_model_config_value(const tl_model *model, const char *field);

/* Kind, configuration, parameters and running statistics go under "model". */
TL_API tl_status tl_model_save_state(const tl_model *model, tl_state *state, tl_error *error);

/* The model that a state describes, with its parameters. NULL on an unknown kind, fields or tensors
 * that are missing or of the wrong shape, or values that are not finite. */
TL_API tl_model *tl_model_create_from_state(tl_context *context, const tl_state *state,
                                            tl_error *error);

/* Fails with a message that names the first field in which the two models' kinds or configurations
 * differ ("depth: expected 20, found 32"); `expected` is the first. */
TL_API tl_status tl_model_require_same_config(const tl_model *expected, const tl_model *found,
                                              tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
