#include "common/task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ------------------------------------------------------------------ classification */

enum { CORRECT, COUNT };

static tl_tensor *classify_loss(tl_tape *tape, tl_tensor *output, const tl_batch *batch,
                                double label_smoothing, task_scratch *scratch) {
    (void)scratch;
    return tl_cross_entropy(tape, output, batch->labels,
                            &(tl_cross_entropy_config){.label_smoothing = label_smoothing});
}

static void classify_add(tl_tensor *output, const tl_batch *batch, double sums[TASK_SUMS]) {
    sums[CORRECT] += (double)tl_count_correct(output, batch->labels);
    sums[COUNT] += (double)batch->count;
}

const task task_classify = {
    .unit = "images",
    .metric_count = 1,
    .metrics = {{.name = "accuracy", .over = CORRECT, .under = COUNT, .percent = true}},
    .loss = classify_loss,
    .add = classify_add,
};

/* ------------------------------------------------------------------ segmentation */

enum { INTERSECTION, UNION, RIGHT_PIXELS, PIXELS };

static int64_t pixels_of(const tl_batch *batch) {
    return batch->count * batch->images.shape[1] * batch->images.shape[2];
}

static tl_tensor *segment_loss(tl_tape *tape, tl_tensor *output, const tl_batch *batch,
                               double label_smoothing, task_scratch *scratch) {
    const int64_t pixels = pixels_of(batch);
    if (scratch->capacity < pixels) {
        int32_t *grown = realloc(scratch->labels, (size_t)pixels * sizeof *grown);
        if (grown == NULL) {
            return NULL;
        }
        scratch->labels = grown;
        scratch->capacity = pixels;
    }
    for (int64_t i = 0; i < pixels; i++) {
        scratch->labels[i] = batch->masks[i];
    }
    return tl_cross_entropy(tape, output, scratch->labels,
                            &(tl_cross_entropy_config){.label_smoothing = label_smoothing});
}

static void segment_add(tl_tensor *output, const tl_batch *batch, double sums[TASK_SUMS]) {
    const tl_real *logits = tl_tensor_data(output);
    const int64_t pixels = pixels_of(batch);
    int64_t both = 0;
    int64_t either = 0;
    int64_t right = 0;
    for (int64_t i = 0; i < pixels; i++) {
        const bool found = logits[2 * i + 1] > logits[2 * i];
        const bool there = batch->masks[i] != 0;
        both += found && there;
        either += found || there;
        right += found == there;
    }
    sums[INTERSECTION] += (double)both;
    sums[UNION] += (double)either;
    sums[RIGHT_PIXELS] += (double)right;
    sums[PIXELS] += (double)pixels;
}

const task task_segment = {
    .unit = "images",
    .metric_count = 2,
    .metrics = {{.name = "iou", .over = INTERSECTION, .under = UNION, .percent = true},
                {.name = "pixel_accuracy", .over = RIGHT_PIXELS, .under = PIXELS, .percent = true}},
    .loss = segment_loss,
    .add = segment_add,
};

/* ------------------------------------------------------------------ stereo */

enum { ERROR, BAD_PIXELS, TARGETS };

static const double bad_from = 3.0;

static tl_tensor *stereo_loss(tl_tape *tape, tl_tensor *output, const tl_batch *batch,
                              double label_smoothing, task_scratch *scratch) {
    (void)label_smoothing;
    (void)scratch;
    return tl_smooth_l1_loss(tape, output, tl_input(tape, &batch->targets), 1.0);
}

static void stereo_add(tl_tensor *output, const tl_batch *batch, double sums[TASK_SUMS]) {
    const tl_real *found = tl_tensor_data(output);
    const int64_t pixels = pixels_of(batch);
    for (int64_t i = 0; i < pixels; i++) {
        const double distance = fabs((double)found[i] - (double)batch->targets.data[i]);
        sums[ERROR] += distance;
        sums[BAD_PIXELS] += distance > bad_from ? 1.0 : 0.0;
    }
    sums[TARGETS] += (double)pixels;
}

const task task_stereo = {
    .unit = "pairs",
    .metric_count = 2,
    .metrics = {{.name = "end_point_error", .over = ERROR, .under = TARGETS},
                {.name = "bad_3", .over = BAD_PIXELS, .under = TARGETS, .percent = true}},
    .loss = stereo_loss,
    .add = stereo_add,
};

/* ------------------------------------------------------------------ all */

double task_metric_value(const task_metric *metric, const double sums[TASK_SUMS]) {
    return sums[metric->under] > 0.0 ? sums[metric->over] / sums[metric->under] : 0.0;
}

void task_text(const task *t, const double values[TASK_METRICS], char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < t->metric_count && used < size; i++) {
        const task_metric *metric = &t->metrics[i];
        const int written = snprintf(
            text + used, size - used, metric->percent ? "%s%s %.2f%%" : "%s%s %.4f",
            i > 0 ? " " : "", metric->name, metric->percent ? 100.0 * values[i] : values[i]);
        used += written > 0 ? (size_t)written : 0;
    }
}

void task_scratch_free(task_scratch *scratch) {
    free(scratch->labels);
    *scratch = (task_scratch){0};
}
