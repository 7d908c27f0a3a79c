#include "common/training.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/fail.h"
#include "common/interrupt.h"
#include "common/model_input.h"
#include "common/options_state.h"
#include "common/process_memory.h"
#include "common/profiling.h"
#include "common/progress.h"
#include "common/ranks.h"

/* ------------------------------------------------------------------ evaluation */

static tl_status copy_tape_error(const tl_tape *tape, tl_error *error) {
    *error = *tl_tape_error(tape);
    return error->status != TL_OK ? error->status
                                  : fail_with(error, TL_ERROR_OUT_OF_MEMORY, "out of memory");
}

static tl_status evaluate_batch(training *t, const tl_batch *batch, double *loss_sum,
                                double sums[TASK_SUMS], tl_error *error) {
    tl_tensor *output = tl_model_forward(t->model, t->tape, tl_input(t->tape, &batch->images));
    tl_tensor *loss = t->task->loss(t->tape, output, batch, 0.0, &t->scratch);
    if (loss == NULL) {
        return copy_tape_error(t->tape, error);
    }
    *loss_sum += (double)tl_tensor_item(loss) * (double)batch->count;
    t->task->add(output, batch, sums);
    return TL_OK;
}

/* The metrics' values from their sums. */
static void compute_metrics(const task *t, const double sums[TASK_SUMS],
                            double values[TASK_METRICS]) {
    for (int i = 0; i < t->metric_count; i++) {
        values[i] = task_metric_value(&t->metrics[i], sums);
    }
}

/* What a rank found in its part of a batch or test set; added up over the ranks. */
typedef struct part_sums {
    double loss; /* over what is counted */
    double count;
    double interrupted; /* ranks that were asked to stop */
    double metrics[TASK_SUMS];
} part_sums;

static tl_status add_up(training *t, part_sums *sums, tl_error *error) {
    double values[3 + TASK_SUMS] = {sums->loss, sums->count, sums->interrupted};
    memcpy(values + 3, sums->metrics, sizeof sums->metrics);
    const tl_status status = tl_parallel_sum(t->parallel, values, 3 + TASK_SUMS, error);
    *sums = (part_sums){.loss = values[0], .count = values[1], .interrupted = values[2]};
    memcpy(sums->metrics, values + 3, sizeof sums->metrics);
    return status;
}

/* This rank's part. */
static tl_status evaluate_part(training *t, tl_loader *loader, part_sums *part, tl_error *error) {
    tl_batch batch;
    tl_status status = TL_OK;
    while (status == TL_OK && !interrupt_requested() && tl_loader_next(loader, &batch)) {
        if (batch.count > 0) {
            status = evaluate_batch(t, &batch, &part->loss, part->metrics, error);
        }
        part->count += (double)batch.count;
        tl_tape_reset(t->tape);
    }
    part->interrupted = interrupt_requested();
    return status;
}

/* One of `shares` parts of the test set. */
static tl_status evaluate_share(training *t, int shares, int share, part_sums *sums,
                                tl_error *error) {
    const int64_t batch_size = (t->batch_size + shares - 1) / shares * shares;
    tl_loader *loader = tl_loader_create(
        t->context, t->test,
        &(tl_loader_config){.batch_size = batch_size, .shares = shares, .share = share}, error);
    if (loader == NULL) {
        return error->status;
    }
    tl_tape_set_recording(t->tape, false);
    tl_tape_set_training(t->tape, false);
    const tl_status status = evaluate_part(t, loader, sums, error);
    tl_tape_set_recording(t->tape, true);
    tl_tape_set_training(t->tape, true);
    tl_loader_free(loader);
    return status;
}

tl_status evaluate(training *t, evaluation *result, tl_error *error) {
    part_sums sums = {0};
    tl_status status = evaluate_share(t, tl_parallel_ranks(t->parallel),
                                      tl_parallel_rank(t->parallel), &sums, error);
    if (status == TL_OK) {
        status = add_up(t, &sums, error);
    }
    *result = (evaluation){.loss = sums.loss / (sums.count > 0 ? sums.count : 1),
                           .count = (int64_t)sums.count,
                           .interrupted = sums.interrupted > 0};
    compute_metrics(t->task, sums.metrics, result->metrics);
    return status;
}

/* ------------------------------------------------------------------ checkpoints */

static tl_status save_position(const training *t, tl_state *state, tl_error *error) {
    const struct {
        const char *path;
        int64_t value;
    } integers[] = {
        {"training/epoch", t->epoch},
        {"training/step", t->step},
        {"training/loader/epoch", tl_loader_epoch(t->loader)},
        {"training/loader/position", tl_loader_position(t->loader)},
        {"training/loader/examples", t->input->count},
        {"training/random/seed", (int64_t)tl_tape_random_seed(t->tape)},
        {"training/random/position", (int64_t)tl_tape_random_position(t->tape)},
        {"training/partial_epoch/seen", t->seen},
        {"training/partial_epoch/grad_norm_count", t->grad_norm_count},
        {"training/history_rows", t->history.count},
    };
    const struct {
        const char *path;
        double value;
    } numbers[] = {
        {"training/partial_epoch/loss_sum", t->loss_sum},
        {"training/partial_epoch/grad_norm_sum", t->grad_norm_sum},
        {"training/partial_epoch/seconds", t->seconds},
        {"training/partial_epoch/step_seconds", t->step_seconds},
        {"training/partial_epoch/sum_0", t->sums[0]},
        {"training/partial_epoch/sum_1", t->sums[1]},
        {"training/partial_epoch/sum_2", t->sums[2]},
        {"training/partial_epoch/sum_3", t->sums[3]},
    };
    tl_status status = TL_OK;
    for (size_t i = 0; i < sizeof integers / sizeof integers[0] && status == TL_OK; i++) {
        status = tl_state_put_integer(state, integers[i].path, integers[i].value, error);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && status == TL_OK; i++) {
        status = tl_state_put_number(state, numbers[i].path, numbers[i].value, error);
    }
    return status;
}

static tl_status fill_state(const training *t, tl_state *state, tl_error *error) {
    tl_status status = tl_model_save_state(t->model, state, error);
    if (status == TL_OK) {
        status = tl_state_put_string(state, "training/program", t->program, error);
    }
    if (status == TL_OK) {
        status = model_input_save(t->input, state, error);
    }
    if (status == TL_OK) {
        status = tl_optimizer_save_state(t->optimizer, state, "optimizer", error);
    }
    if (status == TL_OK) {
        status = tl_schedule_save_state(&t->schedule, state, "training/schedule", error);
    }
    if (status == TL_OK) {
        status = save_position(t, state, error);
    }
    if (status == TL_OK) {
        status = history_save(&t->history, state, error);
    }
    return status == TL_OK ? options_save(t->options, state, error) : status;
}

/* What is left when training cannot go on. */
static const char *last_checkpoint(const training *t, char text[TL_ERROR_MESSAGE_SIZE]) {
    if (t->good_checkpoint == NULL) {
        return "no checkpoint was saved";
    }
    (void)snprintf(text, TL_ERROR_MESSAGE_SIZE, "the last good checkpoint is %s",
                   t->good_checkpoint);
    return text;
}

/* What could not be loaded again (weights that are not finite) must not replace a good checkpoint.
 */
static tl_status check_state(const training *t, const tl_state *state, tl_error *error) {
    tl_status status =
        tl_parameters_check_state(tl_model_parameters(t->model), state, "model", error);
    if (status == TL_OK) {
        status = tl_optimizer_check_state(t->optimizer, state, "optimizer", error);
    }
    if (status != TL_OK) {
        char reason[TL_ERROR_MESSAGE_SIZE];
        char left[TL_ERROR_MESSAGE_SIZE];
        (void)snprintf(reason, sizeof reason, "%s", error->message);
        (void)snprintf(error->message, sizeof error->message,
                       "epoch %" PRId64 ", step %" PRId64 ": not saved: %.250s; %.150s", t->epoch,
                       t->step, reason, last_checkpoint(t, left));
    }
    return status;
}

static tl_status write_checkpoint(training *t, tl_error *error) {
    tl_state *state = tl_state_create(t->context, error);
    if (state == NULL) {
        return error->status;
    }
    tl_profile_begin(t->profile, PROFILING_CHECKPOINT);
    tl_status status = fill_state(t, state, error);
    if (status == TL_OK) {
        status = check_state(t, state, error);
    }
    if (status == TL_OK) {
        status = tl_checkpoint_save(t->context, t->checkpoint, state, error);
    }
    tl_profile_end(t->profile);
    tl_state_free(state);
    return status;
}

/* Makes sure that all ranks hold the same network, running statistics included. The exit code; the
 * message was printed, once if all ranks found a difference. */
static int unite(training *t) {
    tl_parameters *parameters = tl_model_parameters(t->model);
    tl_error error;
    tl_status status = TL_OK;
    if (!t->synchronize_batch_norm) {
        status = tl_parallel_average_buffers(t->parallel, parameters, &error);
    }
    if (status == TL_OK) {
        status = tl_parallel_check_equal(t->parallel, parameters, &error);
    }
    if (status == TL_OK) {
        return EXIT_DONE;
    }
    if (status != TL_ERROR_STATE) {
        return work_error(t->program, "%s", error.message);
    }
    errors_hold();
    return ranks_agree(t->parallel, t->program, work_error(t->program, "%s", error.message));
}

/* Rank 0 writes; all learn whether it could. The exit code; the message was printed. */
static int save_checkpoint(training *t) {
    tl_error error;
    int code = EXIT_DONE;
    if (tl_parallel_rank(t->parallel) == 0 && write_checkpoint(t, &error) != TL_OK) {
        code = work_error(t->program, "%s", error.message);
    }
    code = ranks_agree(t->parallel, t->program, code);
    t->good_checkpoint = code == EXIT_DONE ? t->checkpoint : t->good_checkpoint;
    return code;
}

/* Steps and epochs are of the data they were counted on. */
static tl_status check_examples(const training *t, const tl_state *state, tl_error *error) {
    int64_t examples;
    if (tl_state_find_integer(state, "training/loader/examples", &examples) &&
        examples != t->input->count) {
        return fail_with(error, TL_ERROR_INVALID_ARGUMENT,
                         "it was trained on %" PRId64 " %s, the data set has %" PRId64, examples,
                         t->task->unit, t->input->count);
    }
    return TL_OK; /* checkpoints of earlier versions do not say */
}

tl_status training_restore(training *t, const tl_state *state, tl_error *error) {
    int64_t loader_epoch = 0;
    int64_t loader_position = 0;
    int64_t random_seed = 0;
    int64_t random_position = 0;
    int64_t rows = 0;
    const struct {
        const char *path;
        int64_t *value;
    } integers[] = {
        {"training/epoch", &t->epoch},
        {"training/step", &t->step},
        {"training/loader/epoch", &loader_epoch},
        {"training/loader/position", &loader_position},
        {"training/random/seed", &random_seed},
        {"training/random/position", &random_position},
        {"training/partial_epoch/seen", &t->seen},
        {"training/partial_epoch/grad_norm_count", &t->grad_norm_count},
        {"training/history_rows", &rows},
    };
    const struct {
        const char *path;
        double *value;
    } numbers[] = {
        {"training/partial_epoch/loss_sum", &t->loss_sum},
        {"training/partial_epoch/grad_norm_sum", &t->grad_norm_sum},
        {"training/partial_epoch/seconds", &t->seconds},
        {"training/partial_epoch/step_seconds", &t->step_seconds},
        {"training/partial_epoch/sum_0", &t->sums[0]},
        {"training/partial_epoch/sum_1", &t->sums[1]},
        {"training/partial_epoch/sum_2", &t->sums[2]},
        {"training/partial_epoch/sum_3", &t->sums[3]},
    };
    tl_status status = TL_OK;
    for (size_t i = 0; i < sizeof integers / sizeof integers[0] && status == TL_OK; i++) {
        /* counts: far from where sums of them overflow */
        const bool any = integers[i].value == &random_seed;
        status =
            tl_state_read_integer(state, integers[i].path, any ? INT64_MIN : 0,
                                  any ? INT64_MAX : (int64_t)1 << 53, integers[i].value, error);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && status == TL_OK; i++) {
        status =
            tl_state_read_number(state, numbers[i].path, -1e300, 1e300, numbers[i].value, error);
    }
    if (status == TL_OK) {
        status = check_examples(t, state, error);
    }
    if (status == TL_OK && rows > t->epoch) {
        error->status = status = TL_ERROR_FORMAT;
        (void)snprintf(error->message, sizeof error->message,
                       "training/history_rows: expected at most %" PRId64 ", found %" PRId64,
                       t->epoch, rows);
    }
    if (status == TL_OK) {
        status = history_load(&t->history, state, rows, error);
    }
    if (status == TL_OK) {
        status = tl_schedule_load_state(&t->schedule, state, "training/schedule", error);
    }
    if (status == TL_OK) {
        status = tl_optimizer_load_state(t->optimizer, state, "optimizer", error);
    }
    if (status == TL_OK && tl_loader_seek(t->loader, loader_epoch, loader_position) != TL_OK) {
        error->status = status = TL_ERROR_FORMAT;
        (void)snprintf(error->message, sizeof error->message,
                       "training/loader: epoch %" PRId64 ", position %" PRId64
                       " is outside the data set",
                       loader_epoch, loader_position);
    }
    if (status == TL_OK) {
        tl_tape_set_random(t->tape, (uint64_t)random_seed, (uint64_t)random_position);
    }
    return status;
}

/* ------------------------------------------------------------------ steps */

/* Runs a batch again with checks on, to name the operation that first gave NaN or infinity. All
 * ranks do, each by itself, and the lowest says what it found. */
static void explain_not_finite(training *t, const tl_batch *batch, double loss) {
    tl_tape_reset(t->tape);
    tl_parallel_attach(NULL, t->tape, false);
    errors_hold();
    tl_tape_set_check_finite(t->tape, true);
    tl_tensor *output = tl_model_forward(t->model, t->tape, tl_input(t->tape, &batch->images));
    tl_tensor *again = t->task->loss(t->tape, output, batch, t->label_smoothing, &t->scratch);
    (void)tl_backward(t->tape, again);
    const tl_error *error = tl_tape_error(t->tape);
    char left[TL_ERROR_MESSAGE_SIZE];
    (void)work_error(t->program,
                     "epoch %" PRId64 ", step %" PRId64 ": the loss is %g, or its gradient is not "
                     "finite (%s); %s; try a smaller --lr or --clip-norm",
                     t->epoch + 1, t->step, loss,
                     error->status != TL_OK ? error->message : "no single operation is to blame",
                     last_checkpoint(t, left));
    (void)ranks_agree(t->parallel, t->program, EXIT_FAILED);
    tl_tape_set_check_finite(t->tape, false);
    tl_tape_reset(t->tape);
}

static bool gradient_norm(training *t, double *norm) {
    tl_parameters *parameters = tl_model_parameters(t->model);
    tl_profile_begin(t->profile, PROFILING_NORM);
    if (t->clip_norm > 0.0) {
        (void)tl_clip_grad_norm(parameters, t->clip_norm, norm);
    } else {
        *norm = tl_grad_norm(parameters);
    }
    tl_profile_end(t->profile);
    return isfinite(*norm);
}

/* What the network's forward and backward pass of the first step needed, said once. */
static void show_cost(training *t, progress *bar) {
    if (t->cost_shown) {
        return;
    }
    t->cost_shown = true;
    const tl_cost cost = tl_tape_cost(t->tape);
    progress_clear(bar);
    printf("a step: %.6g GFLOP by the algorithms, %.6g executed, %.6g MB kept for backward\n",
           1e-9 * (cost.forward_flops + cost.backward_flops),
           1e-9 * (cost.forward_flops_executed + cost.backward_flops_executed),
           1e-6 * (double)cost.saved_bytes);
    (void)fflush(stdout);
}

/* One step. False after a failure, whose message was printed. */
static bool train_step(training *t, const tl_batch *batch, progress *bar) {
    const double started = seconds_now();
    tl_optimizer_set_learning_rate(t->optimizer, tl_schedule_learning_rate(&t->schedule, t->step));
    tl_tensor *output = tl_model_forward(t->model, t->tape, tl_input(t->tape, &batch->images));
    tl_tensor *loss = t->task->loss(t->tape, output, batch, t->label_smoothing, &t->scratch);
    tl_error error;
    tl_status status = loss == NULL ? copy_tape_error(t->tape, &error)
                                    : tl_parallel_backward(t->parallel, t->tape, loss,
                                                           tl_model_parameters(t->model), &error);
    part_sums sums = {.count = (double)batch->count, .interrupted = interrupt_requested()};
    if (status == TL_OK) {
        sums.loss = (double)tl_tensor_item(loss) * (double)batch->count;
        t->task->add(output, batch, sums.metrics);
        status = add_up(t, &sums, &error);
    }
    if (status != TL_OK) {
        (void)work_error(t->program, "step %" PRId64 ": %s", t->step, error.message);
        return false;
    }
    double norm = 0.0;
    if (!isfinite(sums.loss) || !gradient_norm(t, &norm)) {
        explain_not_finite(t, batch, sums.loss / sums.count);
        return false;
    }
    for (int i = 0; i < TASK_SUMS; i++) {
        t->sums[i] += sums.metrics[i];
    }
    t->loss_sum += sums.loss;
    t->seen += (int64_t)sums.count;
    t->grad_norm_sum += norm;
    t->grad_norm_count++;
    t->stopping = sums.interrupted > 0.0;
    tl_profile_begin(t->profile, PROFILING_OPTIMIZER);
    status = tl_optimizer_step(t->optimizer);
    tl_profile_end(t->profile);
    show_cost(t, bar);
    tl_tape_reset(t->tape);
    t->step_seconds += seconds_now() - started;
    t->step++;
    if (status != TL_OK) {
        (void)work_error(t->program, "step %" PRId64 ": the optimizer failed: %s", t->step,
                         tl_status_name(status));
    }
    return status == TL_OK;
}

static double mean(double sum, int64_t count) {
    return count > 0 ? sum / (double)count : 0.0;
}

static void show_progress(training *t, progress *bar) {
    char label[64];
    char text[96];
    double metrics[TASK_METRICS];
    (void)snprintf(label, sizeof label, "epoch %" PRId64 "/%" PRId64, t->epoch + 1, t->epochs);
    const int used = snprintf(text, sizeof text, "loss %.4f  ", mean(t->loss_sum, t->seen));
    compute_metrics(t->task, t->sums, metrics);
    task_text(t->task, metrics, text + used, sizeof text - (size_t)used);
    progress_update(bar, label, t->seen / t->batch_size, tl_loader_batches(t->loader),
                    (double)t->batch_size, t->task->unit, text);
}

/* ------------------------------------------------------------------ epochs */

typedef enum outcome { FINISHED, FAILED, INTERRUPTED } outcome;

/* Saves where the run stands, if it saves at all, and says so. */
static outcome stop_after_interrupt(training *t, progress *bar, double started) {
    progress_clear(bar);
    t->seconds += seconds_now() - started;
    if (t->checkpoint == NULL) {
        (void)work_error(t->program, "interrupted; nothing was saved (no --checkpoint)");
        return INTERRUPTED;
    }
    if (unite(t) != EXIT_DONE || save_checkpoint(t) != EXIT_DONE) {
        return FAILED;
    }
    printf("interrupted after step %" PRId64 "; saved %s (go on with --resume %s)\n", t->step,
           t->checkpoint, t->checkpoint);
    return INTERRUPTED;
}

static void print_summary(const training *t, const history_row *row) {
    char train[96];
    char test[96];
    task_text(t->task, row->train_metrics, train, sizeof train);
    task_text(t->task, row->test_metrics, test, sizeof test);
    printf("epoch %.0f/%" PRId64 "  train loss %.4f %s  test loss %.4f %s  %.1f s  peak %.0f MB  "
           "lr %.3g  |g| %.3g\n",
           row->epoch, t->epochs, row->train_loss, train, row->test_loss, test, row->seconds,
           row->peak_bytes / 1e6, row->learning_rate, row->grad_norm);
    (void)fflush(stdout);
}

/* The epoch is complete: row, log, checkpoint. */
static outcome close_epoch(training *t, const evaluation *test, double started) {
    tl_error error;
    history_row row = {
        .epoch = (double)(t->epoch + 1),
        .train_loss = mean(t->loss_sum, t->seen),
        .test_loss = test->loss,
        .seconds = t->seconds + seconds_now() - started,
        .step_seconds = mean(t->step_seconds, t->grad_norm_count),
        .peak_bytes = (double)tl_context_memory(t->context).peak,
        .learning_rate = tl_optimizer_learning_rate(t->optimizer),
        .grad_norm = mean(t->grad_norm_sum, t->grad_norm_count),
        .resident_bytes = process_memory_now(),
    };
    compute_metrics(t->task, t->sums, row.train_metrics);
    memcpy(row.test_metrics, test->metrics, sizeof row.test_metrics);
    if (!history_add(&t->history, &row)) {
        (void)work_error(t->program, "history: out of memory");
        return FAILED;
    }
    t->epoch++;
    t->loss_sum = 0.0;
    memset(t->sums, 0, sizeof t->sums);
    t->seen = 0;
    t->grad_norm_sum = 0.0;
    t->grad_norm_count = 0;
    t->seconds = 0.0;
    t->step_seconds = 0.0;
    (void)tl_loader_start_epoch(t->loader, t->epoch);
    print_summary(t, &row);
    if (t->log != NULL && tl_parallel_rank(t->parallel) == 0 &&
        history_write_csv(&t->history, t->log, &error) != TL_OK) {
        (void)work_error(t->program, "%s", error.message);
        return FAILED;
    }
    return t->checkpoint == NULL || save_checkpoint(t) == EXIT_DONE ? FINISHED : FAILED;
}

static bool next_batch(training *t, tl_batch *batch) {
    tl_profile_begin(t->profile, PROFILING_LOAD);
    const bool found = tl_loader_next(t->loader, batch);
    tl_profile_end(t->profile);
    return found;
}

/* The operations of the evaluation stay out of the profile, which is about steps. */
static tl_status test_model(training *t, evaluation *test, tl_error *error) {
    tl_profile_begin(t->profile, PROFILING_EVALUATION);
    tl_tape_set_profile(t->tape, NULL);
    const tl_status status = evaluate(t, test, error);
    tl_tape_set_profile(t->tape, t->profile);
    tl_profile_end(t->profile);
    return status;
}

/* Asks all ranks whether to stop, where no step has just told. */
static tl_status ask_to_stop(training *t, tl_error *error) {
    double interrupted = interrupt_requested();
    const tl_status status = tl_parallel_sum(t->parallel, &interrupted, 1, error);
    t->stopping = interrupted > 0.0;
    return status;
}

/* Evaluates again with checks on, to name the operation. All ranks do, each the whole test set, and
 * the lowest says what it found. */
static void explain_test_not_finite(training *t, double loss) {
    tl_error error = {0};
    part_sums sums = {0};
    errors_hold();
    tl_tape_set_check_finite(t->tape, true);
    const tl_status status = evaluate_share(t, 1, 0, &sums, &error);
    tl_tape_set_check_finite(t->tape, false);
    char left[TL_ERROR_MESSAGE_SIZE];
    (void)work_error(t->program,
                     "epoch %" PRId64 ", step %" PRId64 ": the loss on the test images is %g (%s); "
                     "%s; try a smaller --lr or --clip-norm",
                     t->epoch + 1, t->step, loss,
                     status != TL_OK ? error.message : "no single operation is to blame",
                     last_checkpoint(t, left));
    (void)ranks_agree(t->parallel, t->program, EXIT_FAILED);
}

static outcome run_epoch(training *t) {
    const double started = seconds_now();
    progress bar;
    tl_error error;
    if (ask_to_stop(t, &error) != TL_OK) {
        (void)work_error(t->program, "%s", error.message);
        return FAILED;
    }
    progress_start(&bar, t->seen / t->batch_size);
    tl_batch batch;
    while (!t->stopping && next_batch(t, &batch)) {
        tl_profile_begin(t->profile, PROFILING_STEP);
        const bool done = train_step(t, &batch, &bar);
        tl_profile_end(t->profile);
        if (!done) {
            return FAILED;
        }
        show_progress(t, &bar);
    }
    evaluation test = {0};
    if (!t->stopping && unite(t) != EXIT_DONE) {
        return FAILED;
    }
    if (!t->stopping && test_model(t, &test, &error) != TL_OK) {
        progress_clear(&bar);
        (void)work_error(t->program, "evaluation: %s", error.message);
        return FAILED;
    }
    if (t->stopping || test.interrupted) {
        return stop_after_interrupt(t, &bar, started);
    }
    progress_clear(&bar);
    if (!isfinite(test.loss)) {
        explain_test_not_finite(t, test.loss);
        return FAILED;
    }
    return close_epoch(t, &test, started);
}

static int run_epochs(training *t) {
    const int64_t stop = t->stop_after > 0 && t->stop_after < t->epochs ? t->stop_after : t->epochs;
    if (t->epoch >= stop) {
        printf("nothing to do: %" PRId64 " of %" PRId64 " epochs are done\n", t->epoch, t->epochs);
    }
    while (t->epoch < stop) {
        switch (run_epoch(t)) {
        case FINISHED:
            break;
        case FAILED:
            return EXIT_FAILED;
        case INTERRUPTED:
            return EXIT_INTERRUPTED;
        }
    }
    return EXIT_DONE;
}

int training_run(training *t) {
    tl_error error;
    tl_parallel_attach(t->parallel, t->tape, t->synchronize_batch_norm);
    if (t->profile_path != NULL && tl_parallel_rank(t->parallel) == 0) {
        t->profile = tl_profile_create(t->context, TL_PROFILE_EVENTS, &error);
        if (t->profile == NULL) {
            return work_error(t->program, "%s", error.message);
        }
        /* a path that cannot be written is found now, not when all is done */
        if (tl_profile_write_trace(t->profile, t->profile_path, &error) != TL_OK) {
            return work_error(t->program, "%s", error.message);
        }
        tl_tape_set_profile(t->tape, t->profile);
    }
    int code = unite(t);
    code = code == EXIT_DONE ? run_epochs(t) : code;
    if (t->profile != NULL && code != EXIT_FAILED &&
        profiling_report(t->profile, t->profile_path, &error) != TL_OK) {
        return work_error(t->program, "%s", error.message);
    }
    return code;
}

void training_free(training *t) {
    task_scratch_free(&t->scratch);
    history_free(&t->history);
    tl_loader_free(t->loader);
    tl_optimizer_free(t->optimizer);
    tl_model_free(t->model);
    tl_tape_free(t->tape);
    tl_profile_free(t->profile);
}
