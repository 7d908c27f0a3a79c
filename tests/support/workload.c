#include "support/workload.h"

#include <stdlib.h>
#include <string.h>

enum { IMAGES = 24, BATCH = 8, SEED = 11 };

static tl_model *create_resnet(tl_context *context, const tl_dataset_info *info, int kind,
                               tl_error *error) {
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.input_channels = (int)info->channels;
    config.classes = info->classes;
    config.depth = 8;
    config.width = 8;
    config.attention = kind == 0 ? TL_ATTENTION_EFFICIENT : TL_ATTENTION_NON_LOCAL;
    config.attention_stages = 1u << 1 | 1u << 2;
    config.heads = 2;
    return tl_resnet_cifar_create(context, &config, SEED, error);
}

static tl_model *create_local(tl_context *context, const tl_dataset_info *info, tl_error *error) {
    tl_local_resnet_config config = tl_local_resnet_config_default();
    config.input_channels = (int)info->channels;
    config.classes = info->classes;
    config.width = 8;
    config.dense = true;
    config.attention = TL_ATTENTION_NON_LOCAL;
    config.attention_blocks = 1u << 1;
    config.implementation = TL_ATTENTION_MATERIALIZED;
    return tl_local_resnet_create(context, &config, SEED, error);
}

static tl_optimizer *create_optimizer(const workload *w, tl_error *error) {
    tl_parameters *parameters = tl_model_parameters(w->model);
    tl_adam_config adamw = tl_adamw_config_default();
    tl_rmsprop_config rmsprop = tl_rmsprop_config_default();
    rmsprop.momentum = 0.5;
    switch (w->kind) {
    case 0:
        return tl_sgd_create(
            parameters,
            &(tl_sgd_config){
                .learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-4, .nesterov = true},
            error);
    case 1:
        return tl_adamw_create(parameters, &adamw, error);
    default:
        return tl_rmsprop_create(parameters, &rmsprop, error);
    }
}

tl_status workload_new_tape(workload *w, tl_error *error) {
    uint64_t position = 0;
    if (w->tape != NULL) {
        position = tl_tape_random_position(w->tape);
    }
    tl_tape_free(w->tape);
    w->tape = tl_tape_create(w->context);
    if (w->tape == NULL) {
        *error = (tl_error){TL_ERROR_OUT_OF_MEMORY, "tape: out of memory"};
        return error->status;
    }
    tl_tape_set_random(w->tape, SEED, position);
    return TL_OK;
}

tl_status workload_create(workload *w, tl_context *context, int kind, tl_error *error) {
    *w = (workload){.kind = kind, .context = context};
    w->dataset = tl_dataset_create_long_range(
        context, &(tl_long_range_config){.count = IMAGES, .seed = SEED}, error);
    if (w->dataset == NULL) {
        return error->status;
    }
    const tl_dataset_info *info = tl_dataset_describe(w->dataset);
    w->loader = tl_loader_create(
        context, w->dataset,
        &(tl_loader_config){.batch_size = BATCH,
                            .shuffle = true,
                            .seed = SEED,
                            .augment = {.crop_padding = 2, .horizontal_flip = true}},
        error);
    if (w->loader != NULL) {
        w->model = kind == 2 ? create_local(context, info, error)
                             : create_resnet(context, info, kind, error);
    }
    if (w->model != NULL) {
        w->optimizer = create_optimizer(w, error);
    }
    const tl_status status = w->optimizer != NULL ? workload_new_tape(w, error) : error->status;
    if (status != TL_OK) {
        workload_free(w);
    }
    return status;
}

void workload_free(workload *w) {
    tl_tape_free(w->tape);
    tl_optimizer_free(w->optimizer);
    tl_model_free(w->model);
    tl_loader_free(w->loader);
    tl_dataset_free(w->dataset);
    *w = (workload){0};
}

/* The loss of a batch, on the tape. */
static tl_tensor *forward(const workload *w, const tl_batch *batch) {
    tl_tensor *logits = tl_model_forward(w->model, w->tape, tl_input(w->tape, &batch->images));
    if (w->kind != 2) {
        tl_tensor *dropped = tl_dropout(w->tape, logits, 0.1);
        return tl_cross_entropy(w->tape, dropped, batch->labels, NULL);
    }
    int32_t pixels[BATCH * 32 * 32];
    const int64_t area = batch->images.shape[1] * batch->images.shape[2];
    for (int64_t i = 0; i < batch->count * area; i++) {
        pixels[i] = batch->masks[i] != 0 ? batch->labels[i / area] : 0;
    }
    return tl_cross_entropy(w->tape, logits, pixels, NULL);
}

tl_status workload_step(workload *w, int64_t step, double *loss, tl_error *error) {
    tl_batch batch;
    const int64_t steps = IMAGES / BATCH;
    if (tl_loader_seek(w->loader, step / steps, step % steps * BATCH) != TL_OK ||
        !tl_loader_next(w->loader, &batch)) {
        *error = (tl_error){TL_ERROR_STATE, "no batch"};
        return error->status;
    }
    tl_tensor *value = forward(w, &batch);
    tl_parameters *parameters = tl_model_parameters(w->model);
    tl_status status = tl_backward(w->tape, value);
    if (status != TL_OK) {
        *error = *tl_tape_error(w->tape);
        tl_parameters_clear_grads(parameters);
    } else {
        if (loss != NULL) {
            *loss = (double)tl_tensor_item(value);
        }
        if (w->kind == 0) {
            status = tl_clip_grad_norm(parameters, 1.0, NULL);
        }
        if (status == TL_OK) {
            status = tl_optimizer_step(w->optimizer);
        }
        if (status != TL_OK) {
            *error = (tl_error){status, "the update failed"};
        }
    }
    tl_tape_reset(w->tape);
    return status;
}

/* ------------------------------------------------------------------ states */

static const char position_path[] = "training/random_position";

tl_status workload_fill_state(const workload *w, tl_state *state, tl_error *error) {
    tl_status status = tl_model_save_state(w->model, state, error);
    if (status == TL_OK) {
        status = tl_optimizer_save_state(w->optimizer, state, "optimizer", error);
    }
    return status == TL_OK ? tl_state_put_integer(state, position_path,
                                                  (int64_t)tl_tape_random_position(w->tape), error)
                           : status;
}

tl_status workload_restore(workload *w, const tl_state *state, tl_error *error) {
    tl_parameters *parameters = tl_model_parameters(w->model);
    int64_t position = 0;
    tl_status status = tl_state_read_integer(state, position_path, 0, INT64_MAX, &position, error);
    if (status == TL_OK) {
        status = tl_parameters_check_state(parameters, state, "model", error);
    }
    if (status == TL_OK) {
        status = tl_optimizer_load_state(w->optimizer, state, "optimizer", error);
    }
    if (status == TL_OK) {
        status = tl_parameters_load_state(parameters, state, "model", error);
        tl_tape_set_random(w->tape, SEED, (uint64_t)position);
    }
    return status;
}

tl_status workload_save(const workload *w, const char *path, tl_error *error) {
    tl_state *state = tl_state_create(w->context, error);
    if (state == NULL) {
        return error->status;
    }
    tl_status status = workload_fill_state(w, state, error);
    if (status == TL_OK) {
        status = tl_checkpoint_save(w->context, path, state, error);
    }
    tl_state_free(state);
    return status;
}

tl_status workload_load(workload *w, const char *path, tl_error *error) {
    tl_state *state = tl_checkpoint_load(w->context, path, error);
    if (state == NULL) {
        return error->status;
    }
    const tl_status status = workload_restore(w, state, error);
    tl_state_free(state);
    return status;
}

/* ------------------------------------------------------------------ copies */

static void append(workload_copy *copy, const void *data, size_t count) {
    copy->data = realloc(copy->data, copy->count + count + 1);
    ck_assert_ptr_nonnull(copy->data);
    memcpy(copy->data + copy->count, data, count);
    copy->count += count;
}

static void append_entry(workload_copy *copy, const tl_state_entry *entry) {
    append(copy, entry->path, strlen(entry->path) + 1);
    switch (entry->kind) {
    case TL_STATE_ARRAY: {
        size_t count = tl_element_size(entry->array.type);
        for (int i = 0; i < entry->array.rank; i++) {
            count *= (size_t)entry->array.shape[i];
        }
        append(copy, entry->array.data, count);
        break;
    }
    case TL_STATE_INTEGER:
        append(copy, &entry->integer, sizeof entry->integer);
        break;
    case TL_STATE_NUMBER:
        append(copy, &entry->number, sizeof entry->number);
        break;
    case TL_STATE_STRING:
        append(copy, entry->string, strlen(entry->string) + 1);
        break;
    }
}

workload_copy workload_remember(const workload *w) {
    tl_error error;
    tl_context *own = context_with(1, NULL);
    tl_state *state = tl_state_create(own, &error);
    ck_assert_ptr_nonnull(state);
    ck_assert_msg(workload_fill_state(w, state, &error) == TL_OK, "%s", error.message);
    workload_copy copy = {0};
    for (int i = 0; i < tl_state_count(state); i++) {
        const tl_state_entry entry = tl_state_at(state, i);
        append_entry(&copy, &entry);
    }
    tl_state_free(state);
    tl_context_free(own);
    return copy;
}

void workload_forget(workload_copy *copy) {
    free(copy->data);
    *copy = (workload_copy){0};
}

void workload_assert_same(const char *what, const workload *w, const workload_copy *copy) {
    workload_copy now = workload_remember(w);
    ck_assert_msg(now.count == copy->count && memcmp(now.data, copy->data, now.count) == 0,
                  "%s: parameters, statistics or the optimizer's state changed", what);
    workload_forget(&now);
}
