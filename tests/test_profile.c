/* The profile: what it counts, that it changes nothing, and that its trace is JSON. */
#include "support/failing_allocator.h"
#include "support/files.h"
#include "support/support.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 4, INPUTS = 6, OUTPUTS = 5 };

typedef struct net {
    tl_tape *tape;
    tl_tensor *weight, *bias;
    tl_real x[BATCH * INPUTS];
    int32_t labels[BATCH];
    tl_real loss;
} net;

static void net_init(net *n, tl_context *context) {
    n->tape = tl_tape_create(context);
    n->weight = tl_tensor_create(context, 2, (int64_t[]){OUTPUTS, INPUTS}, true, NULL);
    n->bias = tl_tensor_create(context, 1, (int64_t[]){OUTPUTS}, true, NULL);
    ck_assert_ptr_nonnull(n->tape);
    ck_assert_ptr_nonnull(n->weight);
    ck_assert_ptr_nonnull(n->bias);
    fill_uniform(tl_tensor_data(n->weight), OUTPUTS * INPUTS, 1, -1, 1);
    fill_uniform(n->x, BATCH * INPUTS, 2, -1, 1);
    for (int i = 0; i < BATCH; i++) {
        n->labels[i] = i;
    }
}

static void net_clear(net *n) {
    tl_tape_free(n->tape);
    tl_tensor_free(n->weight);
    tl_tensor_free(n->bias);
}

/* linear, reshape, relu, add to itself, cross-entropy; leaves the tape as it is. */
static tl_status net_step(net *n) {
    tl_tensor *x = tl_input(n->tape, ARRAY_POINTER(n->x, BATCH, INPUTS));
    tl_tensor *h = tl_linear(n->tape, x, n->weight, n->bias);
    tl_tensor *flat = tl_reshape(n->tape, h, 1, (int64_t[]){BATCH * OUTPUTS});
    tl_tensor *active = tl_relu(n->tape, flat);
    tl_tensor *twice = tl_add(n->tape, active, active);
    tl_tensor *logits = tl_reshape(n->tape, twice, 2, (int64_t[]){BATCH, OUTPUTS});
    tl_tensor *loss = tl_cross_entropy(n->tape, logits, n->labels, NULL);
    const tl_status status = tl_backward(n->tape, loss);
    n->loss = tl_tensor_item(loss);
    return status;
}

static const tl_profile_entry *entry_named(const tl_profile *profile, const char *operation) {
    int count;
    const tl_profile_entry *entries = tl_profile_entries(profile, &count);
    for (int i = 0; i < count; i++) {
        if (strcmp(entries[i].operation, operation) == 0) {
            return &entries[i];
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ counting */

START_TEST(agrees_with_the_cost_report) {
    tl_context *context = context_with(1, NULL);
    net n;
    net_init(&n, context);
    tl_profile *profile = tl_profile_create(context, 100, NULL);
    tl_tape_set_profile(n.tape, profile);
    ck_assert_int_eq(net_step(&n), TL_OK);
    int rows, count;
    const tl_cost_entry *costs = tl_tape_cost_entries(n.tape, &rows);
    (void)tl_profile_entries(profile, &count);
    ck_assert_int_eq(count, rows);
    for (int i = 0; i < rows; i++) {
        const tl_profile_entry *entry = entry_named(profile, costs[i].operation);
        ck_assert_ptr_nonnull(entry);
        ck_assert_int_eq(entry->forward.calls, costs[i].calls);
        ck_assert_int_eq(entry->backward.calls, costs[i].calls);
        ck_assert(entry->forward.flops == costs[i].cost.forward_flops);
        ck_assert(entry->backward.flops == costs[i].cost.backward_flops);
        ck_assert(entry->forward.flops_executed == costs[i].cost.forward_flops_executed);
        ck_assert(entry->backward.flops_executed == costs[i].cost.backward_flops_executed);
        ck_assert(entry->forward.seconds > 0);
        ck_assert(entry->backward.seconds > 0);
    }
    int64_t dropped = -1;
    ck_assert_int_eq(tl_profile_event_count(profile, &dropped), 2 * 6);
    ck_assert_int_eq(dropped, 0);
    net_clear(&n);
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

START_TEST(counts_bytes) {
    tl_context *context = context_with(1, NULL);
    net n;
    net_init(&n, context);
    tl_profile *profile = tl_profile_create(context, 0, NULL);
    tl_tape_set_profile(n.tape, profile);
    ck_assert_int_eq(net_step(&n), TL_OK);
    const double value = sizeof(tl_real);
    const double y = BATCH * OUTPUTS * value;
    const double x = BATCH * INPUTS * value;
    const double parameters = (OUTPUTS * INPUTS + OUTPUTS) * value;
    const tl_profile_entry *linear = entry_named(profile, "linear");
    ck_assert(linear->forward.bytes == x + parameters + y);
    /* dy and x are read, the gradients of weight and bias written; x wants none */
    ck_assert(linear->backward.bytes == y + x + parameters);
    const tl_profile_entry *relu = entry_named(profile, "relu");
    ck_assert(relu->forward.bytes == 2 * y);
    ck_assert(relu->backward.bytes == 3 * y);
    /* views and gradients that are passed on move nothing */
    const tl_profile_entry *reshape = entry_named(profile, "reshape");
    ck_assert_int_eq(reshape->forward.calls, 2);
    ck_assert(reshape->forward.bytes == 0);
    ck_assert(reshape->backward.bytes == 0);
    const tl_profile_entry *add = entry_named(profile, "add");
    ck_assert(add->forward.bytes == 3 * y);
    net_clear(&n);
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

/* What is computed again for the backward pass is part of its maker's backward. */
START_TEST(counts_what_is_computed_again) {
    tl_context *context = context_with(1, NULL);
    net n;
    net_init(&n, context);
    tl_profile *profile = tl_profile_create(context, 100, NULL);
    tl_tape_set_profile(n.tape, profile);
    tl_tensor *x = tl_input_with_grad(n.tape, ARRAY_POINTER(n.x, BATCH, INPUTS));
    tl_tensor *h = tl_batch_norm_relu(n.tape, x, NULL, NULL, NULL, NULL, NULL, NULL);
    tl_tensor *y = tl_linear(n.tape, h, n.weight, n.bias);
    tl_release(n.tape, h);
    ck_assert_int_eq(tl_backward(n.tape, tl_cross_entropy(n.tape, y, n.labels, NULL)), TL_OK);
    int rows;
    const tl_cost_entry *cost = tl_tape_cost_entries(n.tape, &rows);
    const tl_profile_entry *norm = entry_named(profile, cost[0].operation);
    ck_assert(cost[0].cost.backward_flops_executed > cost[0].cost.backward_flops);
    ck_assert(norm->backward.flops_executed == cost[0].cost.backward_flops_executed);
    ck_assert(norm->backward.flops == cost[0].cost.backward_flops);
    ck_assert_int_eq(norm->backward.calls, 1);
    /* the norm's result is left to whom reads it first: made once forward and once backward */
    ck_assert_int_eq(tl_profile_event_count(profile, NULL), 3 * 2 + 2);
    ck_assert_int_eq(norm->forward.calls, 1);
    ck_assert(norm->forward.flops_executed == cost[0].cost.forward_flops_executed);
    net_clear(&n);
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

START_TEST(changes_nothing) {
    tl_context *context = context_with(2, NULL);
    net plain, timed;
    net_init(&plain, context);
    net_init(&timed, context);
    tl_profile *profile = tl_profile_create(context, 100, NULL);
    tl_tape_set_profile(timed.tape, profile);
    ck_assert_int_eq(net_step(&plain), TL_OK);
    ck_assert_int_eq(net_step(&timed), TL_OK);
    assert_same_bits("loss", 1, &plain.loss, &timed.loss);
    assert_same_bits("gradient", OUTPUTS * INPUTS, tl_tensor_grad(plain.weight),
                     tl_tensor_grad(timed.weight));
    net_clear(&plain);
    net_clear(&timed);
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

START_TEST(counts_only_while_set) {
    tl_context *context = context_with(1, NULL);
    net n;
    net_init(&n, context);
    tl_profile *profile = tl_profile_create(context, 100, NULL);
    int count;
    ck_assert_int_eq(net_step(&n), TL_OK);
    (void)tl_profile_entries(profile, &count);
    ck_assert_int_eq(count, 0);
    tl_tape_reset(n.tape);
    tl_tape_set_profile(n.tape, profile);
    ck_assert_int_eq(net_step(&n), TL_OK);
    tl_tape_reset(n.tape);
    tl_tape_set_profile(n.tape, NULL);
    ck_assert_int_eq(net_step(&n), TL_OK);
    ck_assert_int_eq(entry_named(profile, "linear")->forward.calls, 1);
    ck_assert_int_eq(entry_named(profile, "linear")->backward.calls, 1);
    net_clear(&n);
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

START_TEST(failed_operations_do_not_count) {
    tl_context *context = context_with(1, NULL);
    net n;
    net_init(&n, context);
    tl_profile *profile = tl_profile_create(context, 100, NULL);
    tl_tape_set_profile(n.tape, profile);
    tl_tensor *x = tl_input(n.tape, ARRAY_POINTER(n.x, BATCH, INPUTS));
    ck_assert_ptr_null(tl_reshape(n.tape, x, 1, (int64_t[]){7}));
    ck_assert_ptr_null(tl_relu(n.tape, x));
    ck_assert_int_eq(tl_profile_event_count(profile, NULL), 0);
    net_clear(&n);
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

START_TEST(without_gradients_forward_only) {
    tl_context *context = context_with(1, NULL);
    net n;
    net_init(&n, context);
    tl_profile *profile = tl_profile_create(context, 100, NULL);
    tl_tape_set_profile(n.tape, profile);
    tl_tape_set_recording(n.tape, false);
    tl_tensor *x = tl_input(n.tape, ARRAY_POINTER(n.x, BATCH, INPUTS));
    ck_assert_ptr_nonnull(tl_linear(n.tape, x, n.weight, n.bias));
    const tl_profile_entry *linear = entry_named(profile, "linear");
    ck_assert_int_eq(linear->forward.calls, 1);
    ck_assert_int_eq(linear->backward.calls, 0);
    ck_assert(linear->backward.flops == 0);
    net_clear(&n);
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

/* ------------------------------------------------------------------ limits and spans */

START_TEST(events_have_a_limit_and_totals_none) {
    tl_context *context = context_with(1, NULL);
    net n;
    net_init(&n, context);
    tl_profile *profile = tl_profile_create(context, 20, NULL);
    tl_tape_set_profile(n.tape, profile);
    for (int step = 0; step < 3; step++) {
        ck_assert_int_eq(net_step(&n), TL_OK);
        tl_tape_reset(n.tape);
    }
    int64_t dropped;
    ck_assert_int_eq(tl_profile_event_count(profile, &dropped), 20);
    ck_assert_int_eq(dropped, 3 * 2 * 6 - 20);
    ck_assert_int_eq(entry_named(profile, "linear")->backward.calls, 3);
    net_clear(&n);
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

START_TEST(spans) {
    enum { TOO_DEEP = 40 };
    tl_context *context = context_with(1, NULL);
    tl_profile *profile = tl_profile_create(context, 1000, NULL);
    tl_profile_end(profile);
    for (int i = 0; i < 2; i++) {
        tl_profile_begin(profile, "outer");
        tl_profile_begin(profile, "inner");
        tl_profile_end(profile);
        tl_profile_end(profile);
    }
    int count;
    const tl_profile_span *all = tl_profile_spans(profile, &count);
    ck_assert_int_eq(count, 2);
    ck_assert_str_eq(all[0].name, "inner");
    ck_assert_str_eq(all[1].name, "outer");
    ck_assert_int_eq(all[0].calls, 2);
    ck_assert_int_eq(all[1].calls, 2);
    ck_assert(all[1].seconds >= all[0].seconds);
    for (int i = 0; i < TOO_DEEP; i++) {
        tl_profile_begin(profile, "deep");
    }
    for (int i = 0; i < TOO_DEEP; i++) {
        tl_profile_end(profile);
    }
    all = tl_profile_spans(profile, &count);
    ck_assert_int_eq(all[2].calls, 16);
    /* without a profile they do nothing */
    tl_profile_begin(NULL, "none");
    tl_profile_end(NULL);
    tl_profile_free(profile);
    tl_profile_free(NULL);
    tl_context_free(context);
}
END_TEST

START_TEST(bad_arguments) {
    tl_context *context = context_with(1, NULL);
    tl_error error;
    ck_assert_ptr_null(tl_profile_create(context, -1, &error));
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "max_events must be 0 or more, found -1");
    tl_profile *profile = tl_profile_create(context, 0, &error);
    ck_assert_int_eq(tl_profile_write_trace(profile, "/nonexistent/trace.json", &error),
                     TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "/nonexistent/trace.json: cannot write the trace: No such");
    ck_assert_int_eq(tl_profile_write_trace(profile, "/dev/full", &error), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "/dev/full: cannot write the trace: No space");
    tl_profile_free(profile);
    tl_context_free(context);
}
END_TEST

/* Memory that fails costs rows and events, never the step. */
START_TEST(failing_allocations) {
    int failed_in_step = 0;
    for (int fail_at = 1; fail_at < 60; fail_at++) {
        failing_allocator allocator = {0};
        tl_context *context = tl_context_create(
            &(tl_context_config){.threads = 1, .allocator = failing_allocator_with(&allocator)});
        net n;
        net_init(&n, context);
        ck_assert_int_eq(net_step(&n), TL_OK);
        tl_tape_reset(n.tape);
        allocator.calls = 0;
        allocator.fail_at = fail_at;
        tl_profile *profile = tl_profile_create(context, 100000, NULL);
        ck_assert(profile != NULL || fail_at == 1);
        tl_tape_set_profile(n.tape, profile);
        ck_assert_int_eq(net_step(&n), TL_OK);
        if (profile != NULL) {
            int64_t dropped;
            const int64_t kept = tl_profile_event_count(profile, &dropped);
            ck_assert_int_eq(kept + dropped, 12);
            int count;
            (void)tl_profile_entries(profile, &count);
            failed_in_step += dropped > 0 || count < 5;
        }
        net_clear(&n);
        tl_profile_free(profile);
        tl_context_free(context);
        ck_assert_int_eq(allocator.live, 0);
    }
    ck_assert_int_gt(failed_in_step, 0);
}
END_TEST

/* ------------------------------------------------------------------ the trace */

/* A reader of JSON that only says whether the text is well-formed: each function returns where the
 * value ends, or NULL. */
static const char *skip_value(const char *at);

static const char *skip_space(const char *at) {
    while (*at != '\0' && isspace((unsigned char)*at) != 0) {
        at++;
    }
    return at;
}

static const char *skip_string(const char *at) {
    if (*at++ != '"') {
        return NULL;
    }
    for (; *at != '"'; at++) {
        if ((unsigned char)*at < 0x20) {
            return NULL; /* the text's end included */
        }
        if (*at == '\\') {
            at++;
            if (*at == 'u') {
                for (int i = 0; i < 4; i++) {
                    if (isxdigit((unsigned char)*++at) == 0) {
                        return NULL;
                    }
                }
            } else if (strchr("\"\\/bfnrt", *at) == NULL || *at == '\0') {
                return NULL;
            }
        }
    }
    return at + 1;
}

static const char *skip_members(const char *at, char close, bool named) {
    at = skip_space(at + 1);
    if (*at == close) {
        return at + 1;
    }
    for (;;) {
        if (named) {
            at = skip_string(skip_space(at));
            at = at != NULL ? skip_space(at) : NULL;
            if (at == NULL || *at++ != ':') {
                return NULL;
            }
        }
        at = skip_value(at);
        if (at == NULL) {
            return NULL;
        }
        at = skip_space(at);
        if (*at == close) {
            return at + 1;
        }
        if (*at++ != ',') {
            return NULL;
        }
    }
}

static const char *skip_value(const char *at) {
    at = skip_space(at);
    if (*at == '{' || *at == '[') {
        return skip_members(at, *at == '{' ? '}' : ']', *at == '{');
    }
    if (*at == '"') {
        return skip_string(at);
    }
    char *end;
    const double value = strtod(at, &end);
    return end != at && isfinite(value) ? end : NULL;
}

static int occurrences(const char *text, const char *part) {
    int count = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        count++;
    }
    return count;
}

START_TEST(the_reader_of_json_tells) {
    const char *good[] = {"{}", "[1, -2.5e3, \"a\\u00e4\\n\", {\"x\": []}]"};
    const char *bad[] = {"{", "[1,]", "{\"x\" 1}", "\"a\\q\"", "\"line\n\"", "[nan]", "{1:2}"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        const char *end = skip_value(good[i]);
        ck_assert_msg(end != NULL && *end == '\0', "refused: %s", good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(skip_value(bad[i]) == NULL, "accepted: %s", bad[i]);
    }
}
END_TEST

START_TEST(trace_is_json) {
    char folder[TEST_PATH_BYTES];
    make_folder(folder);
    const char *path = in_folder(folder, "trace.json");
    tl_context *context = context_with(1, NULL);
    net n;
    net_init(&n, context);
    tl_profile *profile = tl_profile_create(context, TL_PROFILE_EVENTS, NULL);
    tl_error error;
    ck_assert_int_eq(tl_profile_write_trace(profile, path, &error), TL_OK);
    bytes empty = read_file(path);
    bytes_append(&empty, "", 1);
    ck_assert_ptr_nonnull(skip_value((const char *)empty.data));
    bytes_free(&empty);

    tl_tape_set_profile(n.tape, profile);
    tl_profile_begin(profile, "a \"step\"\\\n");
    ck_assert_int_eq(net_step(&n), TL_OK);
    tl_profile_end(profile);
    ck_assert_int_eq(tl_profile_write_trace(profile, path, &error), TL_OK);
    bytes file = read_file(path);
    bytes_append(&file, "", 1);
    const char *text = (const char *)file.data;
    const char *end = skip_value(text);
    ck_assert_ptr_nonnull(end);
    ck_assert(*skip_space(end) == '\0');
    ck_assert_int_eq(occurrences(text, "\"ph\":\"X\""), 13);
    ck_assert_int_eq(occurrences(text, "\"name\":\"linear\""), 2);
    ck_assert_int_eq(occurrences(text, "\"cat\":\"backward\""), 6);
    ck_assert_int_eq(occurrences(text, "\"name\":\"a \\\"step\\\"\\\\\\u000a\""), 1);
    bytes_free(&file);
    net_clear(&n);
    tl_profile_free(profile);
    tl_context_free(context);
    remove_folder(folder);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("profile", &test_case);
    tcase_add_test(test_case, agrees_with_the_cost_report);
    tcase_add_test(test_case, counts_bytes);
    tcase_add_test(test_case, counts_what_is_computed_again);
    tcase_add_test(test_case, changes_nothing);
    tcase_add_test(test_case, counts_only_while_set);
    tcase_add_test(test_case, failed_operations_do_not_count);
    tcase_add_test(test_case, without_gradients_forward_only);
    tcase_add_test(test_case, events_have_a_limit_and_totals_none);
    tcase_add_test(test_case, spans);
    tcase_add_test(test_case, bad_arguments);
    tcase_add_test(test_case, failing_allocations);
    tcase_add_test(test_case, the_reader_of_json_tells);
    tcase_add_test(test_case, trace_is_json);
    return run_suite(suite);
}
