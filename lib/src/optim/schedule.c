#include <tapeline/schedule.h>

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/state_internal.h"

static const char *const kind_names[] = {
    [TL_SCHEDULE_CONSTANT] = "constant",   [TL_SCHEDULE_STEP] = "step",
    [TL_SCHEDULE_MULTISTEP] = "multistep", [TL_SCHEDULE_COSINE] = "cosine",
    [TL_SCHEDULE_ONE_CYCLE] = "one-cycle",
};
enum { KIND_COUNT = sizeof kind_names / sizeof kind_names[0] };
_Static_assert(KIND_COUNT == TL_SCHEDULE_ONE_CYCLE + 1, "a name for every kind");

static const double default_gamma = 0.1;
static const double default_pct_start = 0.3;
static const double default_div_factor = 25;
static const double default_final_div_factor = 1e4;

const char *tl_schedule_kind_name(tl_schedule_kind kind) {
    return (unsigned)kind < KIND_COUNT ? kind_names[kind] : NULL;
}

bool tl_schedule_kind_parse(const char *name, tl_schedule_kind *kind) {
    for (int i = 0; i < KIND_COUNT; i++) {
        if (strcmp(name, kind_names[i]) == 0) {
            *kind = (tl_schedule_kind)i;
            return true;
        }
    }
    return false;
}

/* ------------------------------------------------------------------ checks */

static tl_status check_number(const char *field, double value, double minimum, double maximum,
                              tl_error *error) {
    if (value >= minimum && value <= maximum) {
        return TL_OK;
    }
    return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "schedule: %s must be in %g ... %g, found %g",
                   field, minimum, maximum, value);
}

static tl_status check_integer(const char *field, int64_t value, int64_t minimum, tl_error *error) {
    if (value >= minimum) {
        return TL_OK;
    }
    return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                   "schedule: %s must be at least %" PRId64 ", found %" PRId64, field, minimum,
                   value);
}

static tl_status check_milestones(const tl_schedule_config *config, tl_error *error) {
    if (config->milestone_count < 1 || config->milestone_count > TL_SCHEDULE_MAX_MILESTONES) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "schedule: multistep wants 1 to %d milestones, found %d",
                       TL_SCHEDULE_MAX_MILESTONES, config->milestone_count);
    }
    int64_t previous = config->warmup_steps - 1;
    for (int i = 0; i < config->milestone_count; i++) {
        if (config->milestones[i] <= previous) {
            return tl_fail(
                error, TL_ERROR_INVALID_ARGUMENT,
                "schedule: milestones must increase and not lie within the warm-up, found "
                "%" PRId64 " after %" PRId64,
                config->milestones[i], previous);
        }
        previous = config->milestones[i];
    }
    return TL_OK;
}

tl_status tl_schedule_check(const tl_schedule_config *config, tl_error *error) {
    tl_error_clear(error);
    if (tl_schedule_kind_name(config->kind) == NULL) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "schedule: kind must be 0 ... %d, found %d", KIND_COUNT - 1,
                       (int)config->kind);
    }
    TL_TRY(check_number("base_learning_rate", config->base_learning_rate, 0, DBL_MAX, error));
    TL_TRY(check_integer("warmup_steps", config->warmup_steps, 0, error));
    TL_TRY(check_number("warmup_start_factor", config->warmup_start_factor, 0, 1, error));
    switch (config->kind) {
    case TL_SCHEDULE_CONSTANT:
        return TL_OK;
    case TL_SCHEDULE_STEP:
        TL_TRY(check_integer("step_size", config->step_size, 1, error));
        return check_number("gamma", config->gamma, 0, DBL_MAX, error);
    case TL_SCHEDULE_MULTISTEP:
        TL_TRY(check_milestones(config, error));
        return check_number("gamma", config->gamma, 0, DBL_MAX, error);
    case TL_SCHEDULE_COSINE:
        TL_TRY(check_integer("total_steps", config->total_steps, config->warmup_steps + 1, error));
        return check_number("minimum_learning_rate", config->minimum_learning_rate, 0,
                            config->base_learning_rate, error);
    case TL_SCHEDULE_ONE_CYCLE:
        TL_TRY(check_integer("total_steps", config->total_steps, config->warmup_steps + 1, error));
        TL_TRY(check_number("pct_start", config->pct_start, 0, 1, error));
        TL_TRY(check_number("div_factor", config->div_factor, 0, DBL_MAX, error));
        return check_number("final_div_factor", config->final_div_factor, 0, DBL_MAX, error);
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ rates */

static double or_default(double value, double if_zero) {
    return value != 0 ? value : if_zero;
}

/* From a (at 0) to b (at 1) along half a cosine; not limited to f <= 1. */
static double anneal(double a, double b, double f) {
    const double pi = 3.14159265358979323846;
    return b + (a - b) * (1 + cos(pi * f)) / 2;
}

static double one_cycle(const tl_schedule_config *config, double t, double total) {
    const double highest = config->base_learning_rate;
    const double first = highest / or_default(config->div_factor, default_div_factor);
    const double last = first / or_default(config->final_div_factor, default_final_div_factor);
    const double end = or_default(config->pct_start, default_pct_start) * total - 1;
    if (t <= end) {
        return end > 0 ? anneal(first, highest, t / end) : highest;
    }
    const double length = total - 1 - end;
    return anneal(highest, last, t - end < length ? (t - end) / length : 1);
}

static int milestones_passed(const tl_schedule_config *config, int64_t step) {
    int passed = 0;
    while (passed < config->milestone_count && config->milestones[passed] <= step) {
        passed++;
    }
    return passed;
}

/* The rate without warm-up, at step >= warmup_steps. */
static double rate(const tl_schedule_config *config, int64_t step) {
    const int64_t since = step - config->warmup_steps;
    const double t = (double)since;
    const double total = (double)(config->total_steps - config->warmup_steps);
    const double base = config->base_learning_rate;
    const double gamma = or_default(config->gamma, default_gamma);
    switch (config->kind) {
    case TL_SCHEDULE_CONSTANT:
        return base;
    case TL_SCHEDULE_STEP:
        return base * pow(gamma, (double)(since / config->step_size));
    case TL_SCHEDULE_MULTISTEP:
        return base * pow(gamma, milestones_passed(config, step));
    case TL_SCHEDULE_COSINE:
        return anneal(base, config->minimum_learning_rate, t / total);
    case TL_SCHEDULE_ONE_CYCLE:
        return one_cycle(config, t, total);
    }
    return NAN;
}

double tl_schedule_learning_rate(const tl_schedule_config *config, int64_t step) {
    if (step >= config->warmup_steps) {
        return rate(config, step);
    }
    const double start = config->warmup_start_factor;
    const double progress = (double)step / (double)config->warmup_steps;
    return rate(config, config->warmup_steps) * (start + (1 - start) * progress);
}

/* ------------------------------------------------------------------ state */

/* The fields by name, so that saving and loading cannot differ. */
typedef struct field {
    const char *name;
    size_t offset;
} field;

static const field integer_fields[] = {
    {"warmup_steps", offsetof(tl_schedule_config, warmup_steps)},
    {"total_steps", offsetof(tl_schedule_config, total_steps)},
    {"step_size", offsetof(tl_schedule_config, step_size)},
};
static const field number_fields[] = {
    {"base_learning_rate", offsetof(tl_schedule_config, base_learning_rate)},
    {"warmup_start_factor", offsetof(tl_schedule_config, warmup_start_factor)},
    {"gamma", offsetof(tl_schedule_config, gamma)},
    {"minimum_learning_rate", offsetof(tl_schedule_config, minimum_learning_rate)},
    {"pct_start", offsetof(tl_schedule_config, pct_start)},
    {"div_factor", offsetof(tl_schedule_config, div_factor)},
    {"final_div_factor", offsetof(tl_schedule_config, final_div_factor)},
};
enum {
    INTEGER_COUNT = sizeof integer_fields / sizeof integer_fields[0],
    NUMBER_COUNT = sizeof number_fields / sizeof number_fields[0],
};

tl_status tl_schedule_save_state(const tl_schedule_config *config, tl_state *state,
                                 const char *prefix, tl_error *error) {
    TL_TRY(tl_schedule_check(config, error));
    char path[TL_PATH_SIZE];
    TL_TRY(tl_state_compose(path, prefix, NULL, "kind", error));
    TL_TRY(tl_state_put_string(state, path, kind_names[config->kind], error));
    for (int i = 0; i < INTEGER_COUNT; i++) {
        int64_t value;
        memcpy(&value, (const char *)config + integer_fields[i].offset, sizeof value);
        TL_TRY(tl_state_compose(path, prefix, NULL, integer_fields[i].name, error));
        TL_TRY(tl_state_put_integer(state, path, value, error));
    }
    for (int i = 0; i < NUMBER_COUNT; i++) {
        double value;
        memcpy(&value, (const char *)config + number_fields[i].offset, sizeof value);
        TL_TRY(tl_state_compose(path, prefix, NULL, number_fields[i].name, error));
        TL_TRY(tl_state_put_number(state, path, value, error));
    }
    if (config->kind != TL_SCHEDULE_MULTISTEP) {
        return TL_OK;
    }
    TL_TRY(tl_state_compose(path, prefix, NULL, "milestones", error));
    const tl_state_array milestones = {.type = TL_INT64,
                                       .rank = 1,
                                       .shape = {config->milestone_count},
                                       .data = config->milestones};
    return tl_state_put_array(state, path, &milestones, error);
}

static tl_status load_milestones(tl_schedule_config *config, const tl_state *state,
                                 const char *prefix, tl_error *error) {
    char path[TL_PATH_SIZE];
    const tl_state_array *milestones;
    TL_TRY(tl_state_compose(path, prefix, NULL, "milestones", error));
    TL_TRY(
        tl_state_read_array(state, path, TL_INT64, 1, (const int64_t[]){-1}, &milestones, error));
    const int64_t count = milestones->shape[0];
    if (count > TL_SCHEDULE_MAX_MILESTONES) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "state: expected at most %d milestones in '%s', found %" PRId64,
                       TL_SCHEDULE_MAX_MILESTONES, path, count);
    }
    memcpy(config->milestones, milestones->data, (size_t)count * sizeof(int64_t));
    config->milestone_count = (int)count;
    return TL_OK;
}

tl_status tl_schedule_load_state(tl_schedule_config *config, const tl_state *state,
                                 const char *prefix, tl_error *error) {
    tl_error_clear(error);
    tl_schedule_config loaded = {0};
    char path[TL_PATH_SIZE];
    const char *kind;
    TL_TRY(tl_state_compose(path, prefix, NULL, "kind", error));
    TL_TRY(tl_state_read_string(state, path, &kind, error));
    if (!tl_schedule_kind_parse(kind, &loaded.kind)) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "state: expected '%s' to be constant, step, multistep, cosine or one-cycle, "
                       "found '%.100s'",
                       path, kind);
    }
    for (int i = 0; i < INTEGER_COUNT; i++) {
        int64_t value;
        TL_TRY(tl_state_compose(path, prefix, NULL, integer_fields[i].name, error));
        TL_TRY(tl_state_read_integer(state, path, INT64_MIN, INT64_MAX, &value, error));
        memcpy((char *)&loaded + integer_fields[i].offset, &value, sizeof value);
    }
    for (int i = 0; i < NUMBER_COUNT; i++) {
        double value;
        TL_TRY(tl_state_compose(path, prefix, NULL, number_fields[i].name, error));
        TL_TRY(tl_state_read_number(state, path, -DBL_MAX, DBL_MAX, &value, error));
        memcpy((char *)&loaded + number_fields[i].offset, &value, sizeof value);
    }
    if (loaded.kind == TL_SCHEDULE_MULTISTEP) {
        TL_TRY(load_milestones(&loaded, state, prefix, error));
    }
    TL_TRY(tl_schedule_check(&loaded, error));
    *config = loaded;
    return TL_OK;
}
