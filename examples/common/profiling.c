#include "common/profiling.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fail.h"

static tl_profile_span find_span(const tl_profile *profile, const char *name) {
    int count;
    const tl_profile_span *spans = tl_profile_spans(profile, &count);
    for (int i = 0; i < count; i++) {
        if (strcmp(spans[i].name, name) == 0) {
            return spans[i];
        }
    }
    return (tl_profile_span){.name = name};
}

static double total_seconds(const tl_profile_entry *entry) {
    return entry->forward.seconds + entry->backward.seconds;
}

static int slower_first(const void *a, const void *b) {
    const double x = total_seconds(a);
    const double y = total_seconds(b);
    return (x < y) - (x > y);
}

/* ms a step, percent of the step, GFLOP/s, GB/s. */
static void print_work(const tl_profile_work *work, int64_t steps, double step_seconds) {
    if (work->calls == 0) {
        printf(" %9s %6s %8s %7s", "-", "", "", "");
        return;
    }
    const double seconds = work->seconds > 0 ? work->seconds : 1e-9;
    printf(" %9.3f %5.1f%% %8.1f %7.1f", 1e3 * work->seconds / (double)steps,
           100 * work->seconds / step_seconds, 1e-9 * work->flops / seconds,
           1e-9 * work->bytes / seconds);
}

static void print_share(const char *name, double seconds, int64_t steps, double step_seconds) {
    printf("%-22s %7s %9.3f %5.1f%%\n", name, "", 1e3 * seconds / (double)steps,
           100 * seconds / step_seconds);
}

static void add_work(tl_profile_work *sum, const tl_profile_work *work) {
    sum->calls += work->calls;
    sum->seconds += work->seconds;
    sum->flops += work->flops;
    sum->bytes += work->bytes;
}

static void print_table(const tl_profile_entry *entries, int count, const tl_profile *profile,
                        const tl_profile_span *step) {
    printf("%-22s %7s %s %s\n", "", "", "------------- forward -------------",
           "------------ backward -------------");
    printf("%-22s %7s", "operation", "calls");
    for (int direction = 0; direction < 2; direction++) {
        printf(" %9s %6s %8s %7s", "ms", "", "GFLOP/s", "GB/s");
    }
    printf("\n");
    tl_profile_work forward = {0};
    tl_profile_work backward = {0};
    for (int i = 0; i < count; i++) {
        printf("%-22s %7.1f", entries[i].operation,
               (double)entries[i].forward.calls / (double)step->calls);
        print_work(&entries[i].forward, step->calls, step->seconds);
        print_work(&entries[i].backward, step->calls, step->seconds);
        printf("\n");
        add_work(&forward, &entries[i].forward);
        add_work(&backward, &entries[i].backward);
    }
    printf("%-22s %7.1f", "all operations", (double)forward.calls / (double)step->calls);
    print_work(&forward, step->calls, step->seconds);
    print_work(&backward, step->calls, step->seconds);
    printf("\n");
    const double norm = find_span(profile, PROFILING_NORM).seconds;
    const double optimizer = find_span(profile, PROFILING_OPTIMIZER).seconds;
    print_share(PROFILING_NORM, norm, step->calls, step->seconds);
    print_share(PROFILING_OPTIMIZER, optimizer, step->calls, step->seconds);
    print_share("between operations",
                step->seconds - forward.seconds - backward.seconds - norm - optimizer, step->calls,
                step->seconds);
}

static void print_spans(const tl_profile *profile) {
    int count;
    const tl_profile_span *spans = tl_profile_spans(profile, &count);
    for (int i = 0; i < count; i++) {
        printf("%-22s %7" PRId64 " calls %12.3f ms each %10.3f s\n", spans[i].name, spans[i].calls,
               1e3 * spans[i].seconds / (double)spans[i].calls, spans[i].seconds);
    }
}

static tl_status print_report(const tl_profile *profile, tl_error *error) {
    int count;
    const tl_profile_entry *entries = tl_profile_entries(profile, &count);
    const tl_profile_span step = find_span(profile, PROFILING_STEP);
    if (step.calls == 0) {
        return TL_OK;
    }
    tl_profile_entry *sorted = malloc((size_t)(count > 0 ? count : 1) * sizeof *sorted);
    if (sorted == NULL) {
        return fail_with(error, TL_ERROR_OUT_OF_MEMORY, "profile: out of memory");
    }
    if (count > 0) {
        memcpy(sorted, entries, (size_t)count * sizeof *sorted);
        qsort(sorted, (size_t)count, sizeof *sorted, slower_first);
    }
    printf("profile of %" PRId64 " steps, %.3f ms each\n", step.calls,
           1e3 * step.seconds / (double)step.calls);
    print_table(sorted, count, profile, &step);
    print_spans(profile);
    free(sorted);
    return TL_OK;
}

tl_status profiling_report(const tl_profile *profile, const char *path, tl_error *error) {
    if (print_report(profile, error) != TL_OK ||
        tl_profile_write_trace(profile, path, error) != TL_OK) {
        return error->status;
    }
    int64_t dropped;
    const int64_t events = tl_profile_event_count(profile, &dropped);
    printf("wrote %" PRId64 " events to %s", events, path);
    if (dropped > 0) {
        printf("; %" PRId64 " later ones are in the table only", dropped);
    }
    printf("\n");
    (void)fflush(stdout);
    return TL_OK;
}
