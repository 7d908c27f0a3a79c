/* Learning rates against values worked out by hand, and the checks of a config. */
#include <math.h>
#include <string.h>

#include "support/support.h"

static double rate(const tl_schedule_config *config, int64_t step) {
    tl_error error;
    ck_assert_msg(tl_schedule_check(config, &error) == TL_OK, "%s", error.message);
    return tl_schedule_learning_rate(config, step);
}

static void assert_rate(const tl_schedule_config *config, int64_t step, double want) {
    const double got = rate(config, step);
    ck_assert_msg(fabs(got - want) <= 1e-14 + 1e-13 * fabs(want),
                  "step %d: expected %.17g, got %.17g", (int)step, want, got);
}

START_TEST(constant_step_and_multistep) {
    const tl_schedule_config constant = {.base_learning_rate = 0.3};
    assert_rate(&constant, 0, 0.3);
    assert_rate(&constant, 1000000, 0.3);
    const tl_schedule_config step = {
        .kind = TL_SCHEDULE_STEP, .base_learning_rate = 0.5, .step_size = 3, .gamma = 0.5};
    const double steps[] = {0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125};
    for (int i = 0; i < 7; i++) {
        assert_rate(&step, i, steps[i]);
    }
    const tl_schedule_config multistep = {.kind = TL_SCHEDULE_MULTISTEP,
                                          .base_learning_rate = 1,
                                          .milestones = {2, 3, 6},
                                          .milestone_count = 3};
    const double gammas[] = {1, 1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001};
    for (int i = 0; i < 8; i++) {
        assert_rate(&multistep, i, gammas[i]);
    }
}
END_TEST

START_TEST(cosine) {
    const tl_schedule_config config = {.kind = TL_SCHEDULE_COSINE,
                                       .base_learning_rate = 0.9,
                                       .minimum_learning_rate = 0.1,
                                       .total_steps = 12};
    assert_rate(&config, 0, 0.9);
    assert_rate(&config, 4, 0.1 + 0.8 * 0.75);
    assert_rate(&config, 6, 0.5);
    assert_rate(&config, 8, 0.1 + 0.8 * 0.25);
    assert_rate(&config, 12, 0.1);
    assert_rate(&config, 18, 0.5); /* rises again beyond the end */
}
END_TEST

START_TEST(warm_up_before_any) {
    tl_schedule_config config = {.kind = TL_SCHEDULE_COSINE,
                                 .base_learning_rate = 0.4,
                                 .warmup_steps = 4,
                                 .warmup_start_factor = 0.5,
                                 .total_steps = 16};
    assert_rate(&config, 0, 0.2);
    assert_rate(&config, 1, 0.25);
    assert_rate(&config, 3, 0.35);
    assert_rate(&config, 4, 0.4);
    assert_rate(&config, 10, 0.2);
    config.kind = TL_SCHEDULE_CONSTANT;
    assert_rate(&config, 2, 0.3);
    assert_rate(&config, 4, 0.4);
    config.kind = TL_SCHEDULE_STEP;
    config.step_size = 2;
    assert_rate(&config, 5, 0.4);
    assert_rate(&config, 6, 0.04);
    config.kind = TL_SCHEDULE_MULTISTEP;
    config.milestones[0] = 6;
    config.milestone_count = 1;
    assert_rate(&config, 3, 0.35);
    assert_rate(&config, 5, 0.4);
    assert_rate(&config, 6, 0.04);
    /* up to one cycle's own first rate, so that nothing jumps */
    config.kind = TL_SCHEDULE_ONE_CYCLE;
    assert_rate(&config, 0, 0.5 * 0.4 / 25);
    assert_rate(&config, 4, 0.4 / 25);
}
END_TEST

START_TEST(one_cycle) {
    const tl_schedule_config config = {.kind = TL_SCHEDULE_ONE_CYCLE,
                                       .base_learning_rate = 1,
                                       .total_steps = 10,
                                       .pct_start = 0.5,
                                       .div_factor = 10,
                                       .final_div_factor = 100};
    /* e = 4: from 0.1 to 1 in steps 0 ... 4, to 0.001 in steps 4 ... 9 */
    assert_rate(&config, 0, 0.1);
    assert_rate(&config, 2, 0.55);
    assert_rate(&config, 4, 1);
    assert_rate(&config, 9, 0.001);
    assert_rate(&config, 50, 0.001);
    ck_assert(rate(&config, 6) < rate(&config, 5) && rate(&config, 5) < 1);
    const tl_schedule_config defaults = {
        .kind = TL_SCHEDULE_ONE_CYCLE, .base_learning_rate = 0.5, .total_steps = 100};
    assert_rate(&defaults, 0, 0.02);
    assert_rate(&defaults, 29, 0.5);
    assert_rate(&defaults, 99, 2e-6);
    /* too short to rise: no division by zero */
    const tl_schedule_config shortest = {
        .kind = TL_SCHEDULE_ONE_CYCLE, .base_learning_rate = 0.5, .total_steps = 1};
    ck_assert(isfinite(rate(&shortest, 0)) && isfinite(rate(&shortest, 1)));
    const tl_schedule_config rising = {
        .kind = TL_SCHEDULE_ONE_CYCLE, .base_learning_rate = 0.5, .total_steps = 1, .pct_start = 1};
    assert_rate(&rising, 0, 0.5);
}
END_TEST

START_TEST(bad_configs_are_named) {
    const tl_schedule_config good = {.kind = TL_SCHEDULE_COSINE,
                                     .base_learning_rate = 0.1,
                                     .total_steps = 10,
                                     .step_size = 1,
                                     .milestones = {3, 5},
                                     .milestone_count = 2};
    tl_error error;
    tl_schedule_config bad = good;
    bad.kind = (tl_schedule_kind)9;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "kind must be 0 ... 4, found 9");
    ck_assert(isnan(tl_schedule_learning_rate(&bad, 0)));
    bad = good;
    bad.base_learning_rate = NAN;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "base_learning_rate");
    bad = good;
    bad.warmup_steps = -1;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "warmup_steps must be at least 0, found -1");
    bad = good;
    bad.warmup_steps = 10;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "total_steps must be at least 11, found 10");
    bad = good;
    bad.warmup_start_factor = 2;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "warmup_start_factor");
    bad = good;
    bad.minimum_learning_rate = 0.2;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "minimum_learning_rate must be in 0 ... 0.1");
    bad = good;
    bad.kind = TL_SCHEDULE_STEP;
    bad.step_size = 0;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "step_size must be at least 1, found 0");
    bad = good;
    bad.kind = TL_SCHEDULE_MULTISTEP;
    bad.milestones[1] = 3;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "milestones must increase");
    bad.milestone_count = 0;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "wants 1 to 32 milestones, found 0");
    bad = good;
    bad.kind = TL_SCHEDULE_ONE_CYCLE;
    bad.pct_start = 1.5;
    (void)tl_schedule_check(&bad, &error);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "pct_start");
}
END_TEST

START_TEST(names) {
    for (int i = 0; i <= TL_SCHEDULE_ONE_CYCLE; i++) {
        tl_schedule_kind kind;
        ck_assert(tl_schedule_kind_parse(tl_schedule_kind_name((tl_schedule_kind)i), &kind));
        ck_assert_int_eq((int)kind, i);
    }
    tl_schedule_kind kind;
    ck_assert(!tl_schedule_kind_parse("linear", &kind));
    ck_assert_ptr_null(tl_schedule_kind_name((tl_schedule_kind)-1));
}
END_TEST

START_TEST(state_keeps_every_rate) {
    const tl_schedule_config configs[] = {
        {.base_learning_rate = 0.3, .warmup_steps = 3},
        {.kind = TL_SCHEDULE_STEP, .base_learning_rate = 0.5, .step_size = 3, .total_steps = -7},
        {.kind = TL_SCHEDULE_MULTISTEP,
         .base_learning_rate = 1,
         .milestones = {2, 3, 6},
         .milestone_count = 3},
        {.kind = TL_SCHEDULE_COSINE,
         .base_learning_rate = 0.9,
         .minimum_learning_rate = 0.1,
         .total_steps = 12},
        {.kind = TL_SCHEDULE_ONE_CYCLE,
         .base_learning_rate = 1,
         .total_steps = 10,
         .pct_start = 0.4,
         .div_factor = 3,
         .final_div_factor = 7},
    };
    tl_context *context = context_with(1, NULL);
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        tl_error error;
        tl_state *state = tl_state_create(context, NULL);
        ck_assert_int_eq(tl_schedule_save_state(&configs[i], state, "training/schedule", &error),
                         TL_OK);
        tl_schedule_config loaded;
        const tl_status status =
            tl_schedule_load_state(&loaded, state, "training/schedule", &error);
        ck_assert_msg(status == TL_OK, "%s", error.message);
        for (int step = 0; step < 15; step++) {
            ck_assert(tl_schedule_learning_rate(&loaded, step) ==
                      tl_schedule_learning_rate(&configs[i], step));
        }
        tl_state_free(state);
    }
    tl_error error;
    tl_state *state = tl_state_create(context, NULL);
    tl_schedule_config untouched = {.base_learning_rate = 7};
    (void)tl_schedule_load_state(&untouched, state, "s", &error);
    assert_error(&error, TL_ERROR_FORMAT, "expected a string 's/kind'");
    (void)tl_state_put_string(state, "s/kind", "sawtooth", NULL);
    (void)tl_schedule_load_state(&untouched, state, "s", &error);
    assert_error(&error, TL_ERROR_FORMAT, "found 'sawtooth'");
    ck_assert(untouched.base_learning_rate == 7);
    tl_state_free(state);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("schedule", &test_case);
    tcase_add_test(test_case, constant_step_and_multistep);
    tcase_add_test(test_case, cosine);
    tcase_add_test(test_case, warm_up_before_any);
    tcase_add_test(test_case, one_cycle);
    tcase_add_test(test_case, bad_configs_are_named);
    tcase_add_test(test_case, names);
    tcase_add_test(test_case, state_keeps_every_rate);
    return run_suite(suite);
}
