/* schedule.h - the learning rate as a function of the step.
 *
 * A pure function, so that a resumed run needs the config and the step alone. Steps count from 0:
 * the rate at step t is the one to set before update t. With W = warmup_steps, S = total_steps,
 * and t' = t - W, S' = S - W (the schedule proper begins when the warm-up ends):
 *
 *   t < W:      rate(W) (start + (1 - start) t / W),   start = warmup_start_factor
 *   constant:   base
 *   step:       base gamma^floor(t' / step_size)
 *   multistep:  base gamma^(number of milestones <= t)
 *   cosine:     minimum + (base - minimum) (1 + cos(pi t' / S')) / 2
 *   one cycle:  first = base / div_factor,  last = first / final_div_factor,  e = pct_start S' - 1
 *               t' <= e: from first to base, t' > e: from base to last, both along half a cosine:
 *               anneal(a, b, f) = b + (a - b) (1 + cos(pi f)) / 2
 *               with f = t' / e and f = (t' - e) / (S' - 1 - e), at most 1
 *
 * total_steps and milestones count from the start of training, warm-up included. The cosine is
 * followed beyond total_steps, where the rate rises again. Cosine: Loshchilov and Hutter, arXiv
 * 1608.03983, eq. 5. One cycle: Smith and Topin, arXiv 1708.07120.
 */
#ifndef TL_SCHEDULE_H
#define TL_SCHEDULE_H

#include <tapeline/state.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tl_schedule_kind {
    TL_SCHEDULE_CONSTANT = 0,
    TL_SCHEDULE_STEP = 1,
    TL_SCHEDULE_MULTISTEP = 2,
    TL_SCHEDULE_COSINE = 3,
    TL_SCHEDULE_ONE_CYCLE = 4,
} tl_schedule_kind;

enum { TL_SCHEDULE_MAX_MILESTONES = 32 };

/* Fields that the kind does not use are ignored. */
typedef struct tl_schedule_config {
    tl_schedule_kind kind;
    double base_learning_rate;                      /* >= 0; of one cycle the highest */
    int64_t warmup_steps;                           /* >= 0 */
    double warmup_start_factor;                     /* in [0, 1] */
    int64_t total_steps;                            /* cosine, one cycle: > warmup_steps */
    int64_t step_size;                              /* step: >= 1 */
    int64_t milestones[TL_SCHEDULE_MAX_MILESTONES]; /* multistep: increasing, >= warmup_steps */
    int milestone_count;                            /* >= 1 */
    double gamma;                 /* step, multistep: > 0; 0 means the default, 0.1 */
    double minimum_learning_rate; /* cosine: in [0, base_learning_rate] */
    double pct_start;             /* one cycle: share of the steps that rise, < 1; 0: 0.3 */
    double div_factor;            /* one cycle: > 0; 0: 25 */
    double final_div_factor;      /* one cycle: > 0; 0: 10000 */
} tl_schedule_config;

/* "constant", "step", "multistep", "cosine", "one-cycle"; NULL for any other value. */
TL_API const char *tl_schedule_kind_name(tl_schedule_kind kind);
/* The kind of that name in *kind; false if there is none. */
TL_API bool tl_schedule_kind_parse(const char *name, tl_schedule_kind *kind);

/* TL_ERROR_INVALID_ARGUMENT, with a message that names the field, the expected and the found. */
TL_API tl_status tl_schedule_check(const tl_schedule_config *config, tl_error *error);

/* The rate at step >= 0 of a config that passes tl_schedule_check. */
TL_API double tl_schedule_learning_rate(const tl_schedule_config *config, int64_t step);

/* To and from `state`, below the path `prefix` ("training/schedule"). Loading leaves *config alone
 * if anything is missing or does not pass tl_schedule_check. */
TL_API tl_status tl_schedule_save_state(const tl_schedule_config *config, tl_state *state,
                                        const char *prefix, tl_error *error);
TL_API tl_status tl_schedule_load_state(tl_schedule_config *config, const tl_state *state,
                                        const char *prefix, tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
