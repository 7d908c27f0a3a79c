/* A program of another project: fits y = 2 x - 1 and keeps the result in a checkpoint. Exit code 0
 * if the library that it runs with is the one it was compiled for, and does its work. */
#include <stdio.h>

#include <tapeline/tapeline.h>

static int fail(const char *what) {
    fprintf(stderr, "consumer: %s\n", what);
    return 1;
}

int main(int argc, char **argv) {
    if (tl_version_number() != TL_VERSION_NUMBER) {
        return fail("the headers and the library are of different versions");
    }
    tl_error error = {0};
    tl_context *context = tl_context_create(NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_parameters *parameters = tl_parameters_create(context, &error);
    tl_random random = tl_random_create(1, TL_RANDOM_INITIALIZE, 0);
    tl_linear_layer layer;
    if (tl_linear_layer_init(
            &layer, parameters, "line",
            &(tl_linear_layer_config){.in_features = 1, .out_features = 1, .use_bias = true},
            &random, &error) != TL_OK) {
        return fail(error.message);
    }
    tl_optimizer *sgd = tl_sgd_create(parameters, &(tl_sgd_config){.learning_rate = 0.2}, &error);
    tl_real x[4] = {-1, 0, 1, 2};
    tl_real y[4] = {-3, -1, 1, 3};
    const tl_array inputs = {.rank = 2, .shape = {4, 1}, .data = x};
    const tl_array targets = {.rank = 2, .shape = {4, 1}, .data = y};
    for (int step = 0; step < 200; step++) {
        tl_tensor *line = tl_linear_layer_forward(&layer, tape, tl_input(tape, &inputs));
        tl_tensor *loss = tl_mse_loss(tape, line, tl_input(tape, &targets));
        if (tl_backward(tape, loss) != TL_OK || tl_optimizer_step(sgd) != TL_OK) {
            return fail(tl_tape_error(tape)->message);
        }
        tl_tape_reset(tape);
    }
    const double slope = (double)tl_tensor_data(layer.weight)[0];
    const double shift = (double)tl_tensor_data(layer.bias)[0];
    printf("tapeline %s: y = %.4f x + %.4f\n", tl_version(), slope, shift);
    int code = slope > 1.999 && slope < 2.001 && shift > -1.001 && shift < -0.999
                   ? 0
                   : fail("expected y = 2 x - 1");
    if (argc > 1) {
        tl_state *state = tl_state_create(context, &error);
        if (tl_parameters_save_state(parameters, state, "model", &error) != TL_OK ||
            tl_checkpoint_save(context, argv[1], state, &error) != TL_OK) {
            code = fail(error.message);
        }
        tl_state_free(state);
    }
    tl_optimizer_free(sgd);
    tl_parameters_free(parameters);
    tl_tape_free(tape);
    tl_context_free(context);
    return code;
}
