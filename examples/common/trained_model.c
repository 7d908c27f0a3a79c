#include "common/trained_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/fail.h"
#include "common/options.h"

static tl_status load(trained_model *trained, const char *path, tl_error *error) {
    tl_state *state = tl_checkpoint_load(trained->context, path, error);
    if (state == NULL) {
        return error->status; /* it names the file */
    }
    tl_error reason = {0};
    trained->model = tl_model_create_from_state(trained->context, state, &reason);
    tl_status status =
        trained->model != NULL ? model_input_load(&trained->input, state, &reason) : reason.status;
    tl_state_free(state);
    if (status == TL_OK) {
        const int64_t channels = tl_model_config_value(trained->model, "input_channels");
        if (channels != trained->input.channels) {
            status = fail_with(&reason, TL_ERROR_FORMAT,
                               "the model takes %" PRId64 " channels, its input has %d", channels,
                               trained->input.channels);
        }
    }
    return status == TL_OK ? TL_OK
                           : fail_with(error, status, "%.200s: %.300s", path, reason.message);
}

int trained_model_open(trained_model *trained, const char *program, const char *path,
                       int64_t threads) {
    tl_error error = {0};
    trained->context =
        tl_context_create(&(tl_context_config){.threads = (int)threads, .error = &error});
    if (trained->context == NULL) {
        return usage_error(program, "%s", error.message);
    }
    trained->tape = tl_tape_create(trained->context);
    if (trained->tape == NULL) {
        return work_error(program, "out of memory");
    }
    tl_tape_set_recording(trained->tape, false);
    tl_tape_set_training(trained->tape, false);
    tl_tape_set_check_finite(trained->tape, true); /* what it shows would mean nothing */
    if (load(trained, path, &error) != TL_OK) {
        return work_error(program, "%s", error.message);
    }
    const model_input *input = &trained->input;
    trained->values =
        malloc((size_t)(input->height * input->width * input->channels) * sizeof(tl_real));
    return trained->values != NULL ? EXIT_DONE : work_error(program, "out of memory");
}

void trained_model_free(trained_model *trained) {
    free(trained->values);
    tl_model_free(trained->model);
    tl_tape_free(trained->tape);
    tl_context_free(trained->context);
    *trained = (trained_model){0};
}

tl_tensor *trained_model_input(trained_model *trained, const picture *fitted) {
    const model_input *input = &trained->input;
    model_input_values(input, fitted, trained->values);
    const tl_array array = {.rank = 4,
                            .shape = {1, input->height, input->width, input->channels},
                            .data = trained->values};
    tl_tape_reset(trained->tape);
    return tl_input(trained->tape, &array);
}

/* True if class a comes before class b. */
static bool before(const tl_real *logits, int64_t a, int64_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

int rank_classes(const tl_real *logits, int64_t classes, int most, ranked_class *ranked) {
    double highest = -INFINITY;
    for (int64_t i = 0; i < classes; i++) {
        highest = fmax(highest, (double)logits[i]);
    }
    double sum = 0.0;
    for (int64_t i = 0; i < classes; i++) {
        sum += exp((double)logits[i] - highest);
    }
    int count = 0;
    for (; count < most && count < classes; count++) {
        int64_t best = -1;
        for (int64_t i = 0; i < classes; i++) {
            const bool taken = count > 0 && !before(logits, ranked[count - 1].index, i);
            if (!taken && (best < 0 || before(logits, i, best))) {
                best = i;
            }
        }
        if (best < 0) {
            break; /* NaN: no order */
        }
        ranked[count] =
            (ranked_class){.index = best, .probability = exp((double)logits[best] - highest) / sum};
    }
    return count;
}
