/* lesson7_crossover [SECONDS] - from how many positions on efficient attention takes less time than
 * the non-local block, by count and by the clock. docs/lessons/7-when-it-pays.md */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <tapeline/tapeline.h>

enum { CHANNELS = 64 };

static double seconds_now(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef enum module { EFFICIENT, TILED, MATERIALIZED, MODULES } module;

/* Forward and backward of a module on x, once. False, with the reason printed, if it fails. */
static bool step(module which, tl_tape *tape, tl_parameters *parameters, const void *layer,
                 const tl_array *x) {
    tl_tensor *input = tl_input_with_grad(tape, x);
    tl_tensor *y = which == EFFICIENT ? tl_efficient_attention_layer_forward(layer, tape, input)
                                      : tl_non_local_layer_forward(layer, tape, input);
    const bool done = tl_backward_from(tape, 1, &y, NULL) == TL_OK;
    if (!done) {
        fprintf(stderr, "lesson7_crossover: %s\n", tl_tape_error(tape)->message);
    }
    tl_parameters_clear_grads(parameters);
    tl_tape_reset(tape);
    return done;
}

/* The best of a module's times in milliseconds, NaN if it fails. */
static double milliseconds(module which, const tl_array *x, double seconds) {
    tl_context *context = tl_context_create(NULL);
    tl_tape *tape = tl_tape_create(context);
    tl_parameters *parameters = tl_parameters_create(context, NULL);
    tl_random random = tl_random_create(1, TL_RANDOM_INITIALIZE, 0);
    tl_efficient_attention_config efficient_config = tl_efficient_attention_config_default();
    tl_non_local_config non_local_config = tl_non_local_config_default();
    tl_efficient_attention_layer efficient;
    tl_non_local_layer non_local;
    efficient_config.in_channels = non_local_config.in_channels = CHANNELS;
    non_local_config.implementation =
        which == TILED ? TL_ATTENTION_TILED : TL_ATTENTION_MATERIALIZED;
    (void)tl_efficient_attention_layer_init(&efficient, parameters, "efficient", &efficient_config,
                                            &random, NULL);
    (void)tl_non_local_layer_init(&non_local, parameters, "non_local", &non_local_config, &random,
                                  NULL);
    const void *layer = which == EFFICIENT ? (const void *)&efficient : (const void *)&non_local;
    double best = INFINITY;
    const double end = seconds_now() + seconds;
    for (int run = 0; run < 3 || seconds_now() < end; run++) { /* the first allocates */
        const double start = seconds_now();
        if (!step(which, tape, parameters, layer, x)) {
            best = NAN;
            break;
        }
        best = fmin(best, 1e3 * (seconds_now() - start));
    }
    tl_parameters_free(parameters);
    tl_tape_free(tape);
    tl_context_free(context);
    return best;
}

int main(int argc, char **argv) {
    const double seconds = argc > 1 ? strtod(argv[1], NULL) : 0.02;
    static tl_real values[4096 * CHANNELS];
    tl_random random = tl_random_create(1, TL_RANDOM_SYNTHETIC, 0);
    for (int i = 0; i < 4096 * CHANNELS; i++) {
        values[i] = (tl_real)tl_random_normal(&random);
    }
    tl_crossover counted;
    tl_error error;
    if (tl_attention_crossover(NULL, NULL, 1, CHANNELS, 0, &counted, &error) != TL_OK) {
        fprintf(stderr, "lesson7_crossover: %s\n", error.message);
        return EXIT_FAILURE;
    }
    printf("cheaper by count from n = %lld (tiled), %lld (materialized) on\n",
           (long long)counted.time_tiled, (long long)counted.time_materialized);
    printf("     n  efficient ms   tiled ms  materialized ms\n");
    for (int64_t n = 16; n <= 4096; n *= 2) {
        const tl_array x = {.rank = 3, .shape = {1, n, CHANNELS}, .data = values};
        double ms[MODULES];
        for (module m = 0; m < MODULES; m++) {
            ms[m] = milliseconds(m, &x, seconds);
        }
        if (!(ms[EFFICIENT] > 0 && ms[TILED] > 0 && ms[MATERIALIZED] > 0)) {
            return EXIT_FAILURE;
        }
        printf("%6lld  %12.4f  %9.4f  %15.4f\n", (long long)n, ms[EFFICIENT], ms[TILED],
               ms[MATERIALIZED]);
    }
    return EXIT_SUCCESS;
}
