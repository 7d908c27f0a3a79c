/* task.h - what a network is trained for: its loss, and the numbers it is judged by. */
#ifndef EXAMPLE_TASK_H
#define EXAMPLE_TASK_H

#include <tapeline/tapeline.h>

enum { TASK_METRICS = 2, TASK_SUMS = 4 };

/* A number of a whole epoch or test set: sums[over] / sums[under], 0 where there was nothing. */
typedef struct task_metric {
    const char *name; /* "accuracy"; the log has train_accuracy and test_accuracy */
    int over;
    int under;
    bool percent; /* how it is printed; logs have the ratio itself */
} task_metric;

/* Memory that a task reuses from batch to batch; all zero at first. */
typedef struct task_scratch {
    int32_t *labels;
    int64_t capacity;
} task_scratch;

typedef struct task {
    const char *unit; /* what is counted: "images", "pairs" */
    int metric_count;
    task_metric metrics[TASK_METRICS];
    /* The loss of a network's output on a batch. NULL after an error, which is the tape's but for
     * memory that `scratch` lacks. */
    tl_tensor *(*loss)(tl_tape *tape, tl_tensor *output, const tl_batch *batch,
                       double label_smoothing, task_scratch *scratch);
    /* Adds what the batch contributes to the metrics. Counts are exact: below 2^53. */
    void (*add)(tl_tensor *output, const tl_batch *batch, double sums[TASK_SUMS]);
} task;

/* logits [N, classes]; cross-entropy; accuracy. */
extern const task task_classify;
/* logits [N, H, W, 2] of background and figure; cross-entropy over the pixels; intersection over
 * union of the figure's pixels in all images together, and the accuracy of pixels. */
extern const task task_segment;
/* disparities [N, H, W]; smooth L1 (beta = 1 pixel) against the targets; the end-point error
 * |output
 * - target| in pixels, and the share of pixels where it exceeds 3. All pixels count, hidden ones
 * too. */
extern const task task_stereo;

double task_metric_value(const task_metric *metric, const double sums[TASK_SUMS]);

/* "accuracy 91.20%  ..." of the metrics. */
void task_text(const task *t, const double values[TASK_METRICS], char *text, size_t size);

void task_scratch_free(task_scratch *scratch);

#endif
