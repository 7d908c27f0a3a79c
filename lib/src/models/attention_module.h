/* attention_module.h - the attention module a network was configured with, whichever it is. */
#ifndef TL_ATTENTION_MODULE_H
#define TL_ATTENTION_MODULE_H

#include <tapeline/efficient_attention.h>
#include <tapeline/model.h>
#include <tapeline/non_local.h>

typedef struct tl_attention_module_config {
    tl_attention_kind kind;
    int channels;
    int key_channels_divisor;
    int heads;
    tl_normalization normalization;
    tl_pairwise pairwise;
    bool use_scale;
    tl_attention_implementation implementation;
} tl_attention_module_config;

/* Who wants to see modules before they run; all zero: nobody. */
typedef struct tl_attention_watch {
    tl_attention_visitor visit;
    void *user;
} tl_attention_watch;

typedef struct tl_attention_module {
    char name[TL_NAME_SIZE];
    tl_attention_kind kind;
    union {
        tl_efficient_attention_layer efficient;
        tl_non_local_layer non_local;
    } layer;
} tl_attention_module;

/* `kind` must not be TL_ATTENTION_NONE. */
tl_status tl_attention_module_init(tl_attention_module *module, tl_parameters *parameters,
                                   const char *prefix, const tl_attention_module_config *config,
                                   tl_random *random, tl_error *error);

/* x [N, spatial..., C] -> the same shape, residual included. Releases x. `watch` is the model's. */
tl_tensor *tl_attention_module_forward(const tl_attention_module *module,
                                       const tl_attention_watch *watch, tl_tape *tape,
                                       tl_tensor *x);

#endif
