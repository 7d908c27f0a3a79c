/* lesson6_maps [CHECKPOINT] - by what colour the maps of a network for the long-range task look;
 * without a checkpoint of one, it trains a small one for a moment. docs/lessons/6-reading-maps.md
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <tapeline/tapeline.h>

enum { COLOURS = 7, CHANNELS = 64 };

static const char *const names[COLOURS] = {"dark",   "red",     "green", "blue",
                                           "yellow", "magenta", "cyan"};

/* Where the weight of the last module's key channels lies, summed over images. */
typedef struct report {
    const uint8_t *image; /* [H, W, 3], the one that is being looked at */
    double weight[CHANNELS][COLOURS];
    double area[COLOURS];
    int channels;
} report;

/* Bit i of a colour's number: channel i is bright. 1 red, 2 green, 4 blue, 3 yellow, ... */
static int colour_of(const uint8_t *pixel) {
    static const int order[8] = {0, 1, 2, 4, 3, 5, 6, 0};
    return order[(pixel[0] > 130) | (pixel[1] > 130) << 1 | (pixel[2] > 130) << 2];
}

static void look(void *user, tl_tape *tape, const tl_attention_site *site) {
    report *r = user;
    if (site->kind != TL_ATTENTION_EFFICIENT) {
        return;
    }
    tl_tensor *maps = tl_efficient_attention_maps(tape, site->x, &site->efficient->weights,
                                                  &site->efficient->config);
    const int64_t channels = site->efficient->config.key_channels;
    r->channels = (int)(channels < CHANNELS ? channels : CHANNELS);
    for (int64_t i = 0; maps != NULL && i < tl_tensor_size(maps); i++) {
        const int64_t position = i / channels;
        if (i % channels < CHANNELS) {
            r->weight[i % channels][colour_of(r->image + 3 * position)] +=
                (double)tl_tensor_data(maps)[i];
        }
        r->area[colour_of(r->image + 3 * position)] += i % channels == 0;
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: lesson6_maps CHECKPOINT\n");
        return 2;
    }
    tl_error error = {0};
    tl_tape *tape = tl_tape_create(NULL);
    tl_context *context = tl_tape_context(tape);
    tl_dataset *data = tl_dataset_create_long_range(
        context, &(tl_long_range_config){.count = 256, .seed = 1, .split = TL_SPLIT_TEST}, &error);
    tl_state *state = data != NULL ? tl_checkpoint_load(context, argv[1], &error) : NULL;
    tl_model *net = state != NULL ? tl_model_create_from_state(context, state, &error) : NULL;
    if (net == NULL) {
        fprintf(stderr, "lesson6_maps: %s\n", error.message);
        return EXIT_FAILURE;
    }
    tl_tape_set_training(tape, false);
    tl_tape_set_recording(tape, false);
    static report r;
    r.image = tl_dataset_describe(data)->images;
    tl_loader *loader = tl_loader_create(context, data, &(tl_loader_config){.batch_size = 1}, NULL);
    tl_batch batch;
    while (tl_loader_next(loader, &batch)) {
        (void)tl_model_visit_attention(net, tape, tl_input(tape, &batch.images), look, &r);
        tl_tape_reset(tape);
        r.image += 32 * 32 * 3;
    }
    printf("weight over area, 1 being even:\nkey channel");
    for (int c = 0; c < COLOURS; c++) {
        printf("%8s", names[c]);
    }
    for (int k = 0; k < r.channels; k++) {
        printf("\n%11d", k);
        for (int c = 0; c < COLOURS; c++) {
            printf("%8.1f", r.weight[k][c] / (r.area[c] / (32 * 32)));
        }
    }
    printf("\n");
    tl_loader_free(loader);
    tl_model_free(net);
    tl_state_free(state);
    tl_dataset_free(data);
    tl_tape_free(tape);
    return r.channels > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
