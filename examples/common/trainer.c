#include "common/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/fail.h"
#include "common/interrupt.h"
#include "common/options_state.h"
#include "common/ranks.h"
#include "common/training.h"

/* Everything the program holds. */
typedef struct session {
    trainer *t;
    tl_parallel *parallel;
    tl_context *context;
    tl_state *state; /* of --resume or --evaluate */
    tl_dataset *train, *test;
    training training;
} session;

static void session_free(session *x) {
    training_free(&x->training);
    tl_dataset_free(x->train);
    tl_dataset_free(x->test);
    tl_state_free(x->state);
    tl_parallel_free(x->parallel);
    tl_context_free(x->context);
    options_free(&x->t->table);
}

/* What was asked for cannot be: exit code 2; it went wrong: 1. */
static int explain(const trainer *t, const tl_error *error) {
    return error->status == TL_ERROR_INVALID_ARGUMENT
               ? usage_error(t->program, "%s", error->message)
               : work_error(t->program, "%s", error->message);
}

static tl_status prepare_training(session *x, tl_error *error) {
    const trainer *t = x->t;
    const training_settings *s = t->settings;
    training *run = &x->training;
    const tl_dataset_info *info = tl_dataset_describe(x->train);
    const int ranks = tl_parallel_ranks(x->parallel);
    if (ranks > 1 && info->count < s->batch_size) {
        return fail_with(error, TL_ERROR_INVALID_ARGUMENT,
                         "several ranks want at least one whole batch: --batch-size is %" PRId64
                         ", there are %" PRId64 " training %s",
                         s->batch_size, info->count, t->task->unit);
    }
    run->loader = tl_loader_create(x->context, x->train,
                                   &(tl_loader_config){.batch_size = s->batch_size,
                                                       .shuffle = true,
                                                       .drop_last = info->count >= s->batch_size,
                                                       .seed = (uint64_t)s->seed,
                                                       .augment = t->augment,
                                                       .shares = ranks,
                                                       .share = tl_parallel_rank(x->parallel),
                                                       .threads = (int)s->loader_threads},
                                   error);
    if (run->loader == NULL) {
        return error->status;
    }
    if (run->model == NULL) {
        run->model = t->create(x->t, x->context, info, error);
    }
    if (run->model == NULL) {
        return error->status;
    }
    run->optimizer = training_create_optimizer(s, tl_model_parameters(run->model), error);
    if (run->optimizer == NULL) {
        return error->status;
    }
    run->schedule = training_schedule(s, tl_loader_batches(run->loader));
    if (tl_schedule_check(&run->schedule, error) != TL_OK) {
        return error->status;
    }
    tl_tape_set_random(run->tape, (uint64_t)s->seed, 0);
    run->synchronize_batch_norm = s->batch_norm == BATCH_NORM_SYNCHRONIZED;
    run->input = info;
    run->options = &x->t->table;
    run->epochs = s->epochs;
    run->stop_after = s->stop_after;
    run->label_smoothing = t->label_smoothing;
    run->clip_norm = s->clip_norm;
    run->checkpoint = s->checkpoint;
    run->log = s->log;
    run->profile_path = s->profile;
    if (x->state == NULL) {
        return TL_OK;
    }
    tl_error reason = {0};
    const tl_status status = training_restore(run, x->state, &reason);
    run->good_checkpoint = s->resume;
    return status == TL_OK ? TL_OK
                           : fail_with(error, status, "%.200s: %.300s", s->resume, reason.message);
}

static int load_state(session *x, const char *path) {
    const char *program = x->t->program;
    tl_error error;
    x->state = tl_checkpoint_load(x->context, path, &error);
    if (x->state == NULL) {
        return work_error(program, "%s", error.message);
    }
    /* another program's options would only confuse */
    const char *writer = tl_state_find_string(x->state, "training/program");
    if (writer != NULL && strcmp(writer, program) != 0) {
        return usage_error(program, "%s: a checkpoint of %s", path, writer);
    }
    if (options_restore(&x->t->table, x->state, &error) != TL_OK) {
        return error.status == TL_ERROR_INVALID_ARGUMENT
                   ? usage_error(program, "%s: %s", path, error.message)
                   : work_error(program, "%s: %s", path, error.message);
    }
    x->t->restored = true;
    x->training.model = tl_model_create_from_state(x->context, x->state, &error);
    return x->training.model != NULL ? EXIT_DONE
                                     : work_error(program, "%s: %s", path, error.message);
}

static void print_head(const session *x) {
    const training *run = &x->training;
    const tl_dataset_info *info = tl_dataset_describe(x->train);
    char optimizer[32];
    option_value_text(options_find(&x->t->table, "optimizer"), optimizer, sizeof optimizer);
    printf("%s: %" PRId64 " parameters, %" PRId64 " training and %" PRId64 " test %s of "
           "%" PRId64 "x%" PRId64 "x%" PRId64 "; %s, %s, ",
           tl_model_kind(run->model), tl_parameters_trainable_size(tl_model_parameters(run->model)),
           info->count, tl_dataset_describe(x->test)->count, x->t->task->unit, info->height,
           info->width, info->channels, optimizer, tl_context_isa(x->context));
    if (tl_parallel_ranks(x->parallel) > 1) {
        printf("%d ranks of %d threads, batch norm %s\n", tl_parallel_ranks(x->parallel),
               tl_context_threads(x->context),
               run->synchronize_batch_norm ? "synchronized" : "local");
    } else {
        printf("%d threads\n", tl_context_threads(x->context));
    }
    if (run->epoch > 0 || run->step > 0) {
        printf("resumed %s after %" PRId64 " epochs, %" PRId64 " steps\n", x->t->settings->resume,
               run->epoch, run->step);
    }
    (void)fflush(stdout);
}

static int evaluate_checkpoint(session *x) {
    const trainer *t = x->t;
    tl_error error;
    evaluation result;
    if (evaluate(&x->training, &result, &error) != TL_OK) {
        return work_error(t->program, "evaluation: %s", error.message);
    }
    if (result.interrupted) {
        (void)work_error(t->program, "interrupted");
        return EXIT_INTERRUPTED;
    }
    if (!isfinite(result.loss)) {
        return work_error(t->program, "%s: the loss on the test images is %g",
                          t->settings->evaluate, result.loss);
    }
    char text[96];
    task_text(t->task, result.metrics, text, sizeof text);
    printf("%s: test loss %.4f %s on %" PRId64 " %s\n", t->settings->evaluate, result.loss, text,
           result.count, t->task->unit);
    return EXIT_DONE;
}

/* Combinations that no single option can see, of all trainers. */
static int check_settings(const session *x) {
    const trainer *t = x->t;
    const training_settings *s = t->settings;
    if (s->resume != NULL && s->evaluate != NULL) {
        return usage_error(t->program, "--resume and --evaluate exclude each other");
    }
    if (s->profile != NULL && s->evaluate != NULL) {
        return usage_error(t->program, "--profile is of training; --evaluate does none");
    }
    return EXIT_DONE;
}

/* The batch size may come from a checkpoint. */
static int check_shares(const session *x) {
    const training_settings *s = x->t->settings;
    const int ranks = tl_parallel_ranks(x->parallel);
    if (s->evaluate == NULL && s->batch_size % ranks != 0) {
        return usage_error(x->t->program,
                           "--batch-size %" PRId64 " does not divide among %d ranks; %" PRId64
                           " would",
                           s->batch_size, ranks, (s->batch_size + ranks - 1) / ranks * ranks);
    }
    return EXIT_DONE;
}

/* All that comes before the first image is looked at; each rank by itself. */
static int prepare(session *x) {
    trainer *t = x->t;
    const training_settings *s = t->settings;
    training *run = &x->training;
    tl_error error = {0};
    int code = check_settings(x);
    if (code != EXIT_DONE) {
        return code;
    }
    x->context = tl_context_create(&(tl_context_config){
        .threads = s->threads > 0 ? (int)s->threads : ranks_default_threads(x->parallel),
        .memory_limit = s->memory_limit,
        .error = &error});
    if (x->context == NULL) {
        return usage_error(t->program, "%s", error.message);
    }
    run->program = t->program;
    run->task = t->task;
    run->history.task = t->task;
    run->context = x->context;
    run->parallel = x->parallel;
    run->tape = tl_tape_create(x->context);
    if (run->tape == NULL) {
        return work_error(t->program, "out of memory");
    }
    const char *source = s->resume != NULL ? s->resume : s->evaluate;
    code = source != NULL ? load_state(x, source) : EXIT_DONE;
    code = code == EXIT_DONE ? check_shares(x) : code;
    code = code == EXIT_DONE ? t->check(t) : code;
    if (code != EXIT_DONE) {
        return code;
    }
    run->batch_size = s->batch_size;
    x->test = t->load(t, x->context, TL_SPLIT_TEST, &error);
    if (x->test != NULL && s->evaluate == NULL) {
        x->train = t->load(t, x->context, TL_SPLIT_TRAIN, &error);
    }
    if (x->test == NULL || (s->evaluate == NULL && x->train == NULL)) {
        return explain(t, &error);
    }
    run->test = x->test;
    if (run->model != NULL &&
        t->require_fit(run->model, tl_dataset_describe(x->test), &error) != TL_OK) {
        return usage_error(t->program, "%s: %s", source, error.message);
    }
    if (s->evaluate == NULL && prepare_training(x, &error) != TL_OK) {
        return explain(t, &error);
    }
    tl_state_free(x->state);
    x->state = NULL;
    return EXIT_DONE;
}

static int run(session *x, int argc, char **argv) {
    trainer *t = x->t;
    int code;
    const bool parsed = options_parse(&t->table, argc, argv, &code);
    if (parsed) {
        interrupt_install();
        code = prepare(x);
    }
    code = ranks_agree(x->parallel, t->program, code);
    if (!parsed || code != EXIT_DONE) {
        return code;
    }
    if (t->settings->evaluate != NULL) {
        code = evaluate_checkpoint(x);
    } else {
        print_head(x);
        code = training_run(&x->training);
    }
    if (code == EXIT_FAILED) {
        tl_parallel_abort(x->parallel, code); /* the others may be waiting for this rank */
    }
    return code;
}

int trainer_main(trainer *t, int argc, char **argv) {
    t->table = (option_table){.program = t->program,
                              .summary = t->summary,
                              .options = t->options,
                              .count = t->option_count};
    session x = {.t = t, .parallel = ranks_join(t->program)};
    const int code = x.parallel != NULL ? run(&x, argc, argv) : EXIT_FAILED;
    session_free(&x);
    return code;
}
