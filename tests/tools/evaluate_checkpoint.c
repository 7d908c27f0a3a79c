/* evaluate_checkpoint MODEL.h5 INPUT.h5 OUTPUT.h5 - runs a model in evaluation mode on the array
 * /model/x of INPUT.h5, channels-last, and writes what it predicts as /model/y. The model is of any
 * kind that the library knows, or a bare efficient attention module ("efficient_attention"). */
#include <stdio.h>
#include <string.h>

#include <tapeline/tapeline.h>

typedef struct evaluation {
    tl_context *context;
    tl_tape *tape;
    tl_state *model_state, *input, *output;
    tl_model *model;
    tl_parameters *module_parameters;
} evaluation;

static int finish(evaluation *e, const char *message) {
    if (message != NULL) {
        fprintf(stderr, "evaluate_checkpoint: %s\n", message);
    }
    tl_state_free(e->model_state);
    tl_state_free(e->input);
    tl_state_free(e->output);
    tl_model_free(e->model);
    tl_parameters_free(e->module_parameters);
    tl_tape_free(e->tape);
    tl_context_free(e->context);
    return message != NULL ? 1 : 0;
}

static tl_tensor *module_forward(evaluation *e, tl_tensor *x, tl_error *error) {
    tl_efficient_attention_config config = tl_efficient_attention_config_default();
    const char *normalization;
    const struct {
        const char *path;
        int64_t *value;
    } fields[] = {{"model/in_channels", &config.in_channels},
                  {"model/key_channels", &config.key_channels},
                  {"model/value_channels", &config.value_channels},
                  {"model/heads", &config.heads}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (tl_state_read_integer(e->model_state, fields[i].path, 1, 1 << 20, fields[i].value,
                                  error) != TL_OK) {
            return NULL;
        }
    }
    if (tl_state_read_string(e->model_state, "model/normalization", &normalization, error) !=
        TL_OK) {
        return NULL;
    }
    config.normalization =
        strcmp(normalization, "scaling") == 0 ? TL_NORMALIZATION_SCALING : TL_NORMALIZATION_SOFTMAX;
    tl_efficient_attention_layer layer;
    tl_random random = tl_random_create(0, TL_RANDOM_INITIALIZE, 0);
    e->module_parameters = tl_parameters_create(e->context, error);
    if (e->module_parameters == NULL ||
        tl_efficient_attention_layer_init(&layer, e->module_parameters, "", &config, &random,
                                          error) != TL_OK ||
        tl_parameters_load_state(e->module_parameters, e->model_state, "model", error) != TL_OK) {
        return NULL;
    }
    return tl_efficient_attention_layer_forward(&layer, e->tape, x);
}

static tl_tensor *forward(evaluation *e, tl_tensor *x, tl_error *error) {
    const char *kind;
    if (tl_state_read_string(e->model_state, "model/kind", &kind, error) != TL_OK) {
        return NULL;
    }
    if (strcmp(kind, "efficient_attention") == 0) {
        return module_forward(e, x, error);
    }
    e->model = tl_model_create_from_state(e->context, e->model_state, error);
    return e->model != NULL ? tl_model_forward(e->model, e->tape, x) : NULL;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: evaluate_checkpoint MODEL.h5 INPUT.h5 OUTPUT.h5\n");
        return 2;
    }
    tl_error error = {0};
    evaluation e = {.context = tl_context_create(NULL)};
    e.tape = tl_tape_create(e.context);
    e.model_state = tl_checkpoint_load(e.context, argv[1], &error);
    e.input = e.model_state != NULL ? tl_checkpoint_load(e.context, argv[2], &error) : NULL;
    if (e.input == NULL) {
        return finish(&e, error.message);
    }
    const tl_state_array *x = tl_state_find_array(e.input, "model/x");
    if (x == NULL || x->type != TL_ELEMENT_REAL) {
        return finish(&e, "the input has no float32 array /model/x");
    }
    tl_array array = {.rank = x->rank, .data = (tl_real *)x->data};
    memcpy(array.shape, x->shape, sizeof array.shape);
    tl_tape_set_training(e.tape, false);
    tl_tape_set_recording(e.tape, false);
    tl_tensor *y = forward(&e, tl_input(e.tape, &array), &error);
    if (y == NULL) {
        return finish(&e, error.status != TL_OK ? error.message : tl_tape_error(e.tape)->message);
    }
    tl_state_array result = {
        .type = TL_ELEMENT_REAL, .rank = tl_tensor_rank(y), .data = tl_tensor_data(y)};
    memcpy(result.shape, tl_tensor_shape(y), (size_t)result.rank * sizeof *result.shape);
    e.output = tl_state_create(e.context, &error);
    if (e.output == NULL || tl_state_borrow_array(e.output, "model/y", &result, &error) != TL_OK ||
        tl_checkpoint_save(e.context, argv[3], e.output, &error) != TL_OK) {
        return finish(&e, error.message);
    }
    return finish(&e, NULL);
}
