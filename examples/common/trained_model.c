#include "common/trained_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

#include "common/fail.h"

tl_status trained_model_load(trained_model *trained, tl_context *context, const char *path,
                             tl_error *error) {
    *trained = (trained_model){0};
    tl_state *state = tl_checkpoint_load(context, path, error);
    if (state == NULL) {
        return error->status; /* it names the file */
    }
    tl_error reason = {0};
    trained->model = tl_model_create_from_state(context, state, &reason);
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
    if (status != TL_OK) {
        trained_model_free(trained);
        return fail_with(error, status, "%.200s: %.300s", path, reason.message);
    }
    return TL_OK;
}

void trained_model_free(trained_model *trained) {
    tl_model_free(trained->model);
    *trained = (trained_model){0};
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
