/* bench - times the library.
 *
 *     bench [--list] [--filter PATTERN] [--threads T] [--csv FILE]
 *
 * PATTERN is an unanchored POSIX extended regular expression over the names of the cases. Prints
 * per case the median and minimum time, the spread (interquartile range in percent of the median),
 * GFLOP/s, percent of the FMA peak (measured at the start on as many threads), GB/s and the peak of
 * the library's memory. GFLOP/s and GB/s are those of the median. Repetitions during which the
 * process was preempted are dropped; where fewer than five would be left, all are kept and the row
 * is marked with "disturbed". Exit code 0, 1 if a case failed, 2 for wrong usage.
 */
#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "bench.h"

enum { MAX_REPETITIONS = 200, MIN_REPETITIONS = 10, MIN_UNDISTURBED = 5 };
static const double CASE_SECONDS = 1.0; /* of repetitions, unless the minimum takes longer */
static const double REPETITION_SECONDS = 100e-6; /* shorter runs are timed several at once */

struct bench_list {
    bench_case *cases;
    int count;
};

void bench_add(bench_list *list, const bench_case *c) {
    bench_case *grown = realloc(list->cases, (size_t)(list->count + 1) * sizeof *grown);
    if (grown == NULL) {
        fprintf(stderr, "bench: out of memory\n");
        exit(1);
    }
    list->cases = grown;
    list->cases[list->count++] = *c;
}

void bench_fill(tl_real *values, int64_t count, uint64_t seed) {
    tl_random random = tl_random_create(seed, TL_RANDOM_SYNTHETIC, 0);
    for (int64_t i = 0; i < count; i++) {
        values[i] = 2 * (tl_real)tl_random_uniform(&random) - 1;
    }
}

/* ------------------------------------------------------------------ measuring */

typedef struct result {
    double median, minimum, spread; /* seconds, seconds, share of the median */
    double flops, bytes;            /* of one run */
    int repetitions, dropped;
    bool disturbed;
    size_t peak_bytes;
} result;

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static long preemptions(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nivcsw;
}

static int compare_doubles(const void *x, const void *y) {
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Sorts `times` and takes the undisturbed ones, if there are enough. */
static void summarize(int count, double *times, const bool *preempted, result *r) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
        kept += !preempted[i];
    }
    r->disturbed = kept < MIN_UNDISTURBED;
    r->dropped = r->disturbed ? 0 : count - kept;
    r->repetitions = 0;
    for (int i = 0; i < count; i++) {
        if (r->disturbed || !preempted[i]) {
            times[r->repetitions++] = times[i];
        }
    }
    qsort(times, (size_t)r->repetitions, sizeof *times, compare_doubles);
    r->minimum = times[0];
    r->median = times[r->repetitions / 2];
    r->spread = (times[r->repetitions * 3 / 4] - times[r->repetitions / 4]) / r->median;
}

static bool run_times(const bench_case *c, void *state, int64_t times, double *seconds,
                      tl_error *error) {
    const double start = seconds_now();
    double accounted = 0;
    for (int64_t i = 0; i < times; i++) {
        if (!c->run(state, error)) {
            return false;
        }
        accounted += c->account != NULL ? c->account(state).seconds : 0;
    }
    *seconds = (accounted > 0 ? accounted : seconds_now() - start) / (double)times;
    return true;
}

static bool measure_created(const bench_case *c, void *state, result *r, tl_error *error) {
    double once;
    /* the first run allocates, the second is warm */
    if (!run_times(c, state, 1, &once, error) || !run_times(c, state, 1, &once, error)) {
        return false;
    }
    const int64_t inner = once < REPETITION_SECONDS ? (int64_t)(REPETITION_SECONDS / once) + 1 : 1;
    double times[MAX_REPETITIONS];
    bool preempted[MAX_REPETITIONS];
    int count = 0;
    const double start = seconds_now();
    while (count < MAX_REPETITIONS &&
           (count < MIN_REPETITIONS || seconds_now() - start < CASE_SECONDS)) {
        const long before = preemptions();
        if (!run_times(c, state, inner, &times[count], error)) {
            return false;
        }
        preempted[count++] = preemptions() != before;
    }
    summarize(count, times, preempted, r);
    const bench_account done = c->account != NULL
                                   ? c->account(state)
                                   : (bench_account){.flops = c->flops, .bytes = c->bytes};
    r->flops = done.flops;
    r->bytes = done.bytes;
    return true;
}

static bool measure(const bench_case *c, int threads, result *r, tl_error *error) {
    *error = (tl_error){0};
    tl_context *context =
        tl_context_create(&(tl_context_config){.threads = threads, .error = error});
    if (context == NULL) {
        return false;
    }
    void *state = c->create(c, context, error);
    const bool ok = state != NULL && measure_created(c, state, r, error);
    r->peak_bytes = tl_context_memory(context).peak;
    if (state != NULL) {
        c->destroy(state);
    }
    tl_context_free(context);
    return ok;
}

/* ------------------------------------------------------------------ the program */

typedef struct options {
    bool list;
    const char *filter;
    const char *csv;
    int threads;
} options;

static int usage(const char *problem, const char *what) {
    fprintf(stderr, "bench: %s %s\n", problem, what);
    fprintf(stderr, "usage: bench [--list] [--filter PATTERN] [--threads T] [--csv FILE]\n");
    return 2;
}

/* 0, or the exit code. */
static int parse(int argc, char **argv, options *o) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--list") == 0) {
            o->list = true;
            continue;
        }
        const bool known = strcmp(name, "--filter") == 0 || strcmp(name, "--threads") == 0 ||
                           strcmp(name, "--csv") == 0;
        if (!known) {
            return usage("unknown option", name);
        }
        if (++i == argc) {
            return usage("a value is missing after", name);
        }
        if (strcmp(name, "--filter") == 0) {
            o->filter = argv[i];
        } else if (strcmp(name, "--csv") == 0) {
            o->csv = argv[i];
        } else {
            char *end;
            const long threads = strtol(argv[i], &end, 10);
            if (*end != '\0' || threads < 1 || threads > 1024) {
                return usage("--threads wants a number from 1 to 1024, found", argv[i]);
            }
            o->threads = (int)threads;
        }
    }
    return 0;
}

static void print_csv(FILE *csv, const bench_case *c, const result *r, double peak) {
    const double gflops = r->flops / r->median * 1e-9;
    fprintf(csv, "\"%s\",%.6f,%.6f,%.3f,%.2f,%.3f,%zu,%d\r\n", c->name, r->median * 1e3,
            r->minimum * 1e3, gflops, 100 * gflops / peak, r->bytes / r->median * 1e-9,
            r->peak_bytes, r->disturbed);
    fflush(csv);
}

static void print_row(const bench_case *c, const result *r, double peak) {
    const double gflops = r->flops / r->median * 1e-9;
    printf("%-56s %9.4f %9.4f %5.1f%% %8.1f %6.1f%% %7.1f %8.1f  ", c->name, r->median * 1e3,
           r->minimum * 1e3, 100 * r->spread, gflops, 100 * gflops / peak,
           r->bytes / r->median * 1e-9, (double)r->peak_bytes / 1e6);
    if (r->disturbed) {
        printf("%d, disturbed\n", r->repetitions);
    } else {
        printf("%d, %d dropped\n", r->repetitions, r->dropped);
    }
    fflush(stdout);
}

static int run_cases(const bench_list *list, const regex_t *filter, const options *o) {
    tl_error error;
    tl_context *context =
        tl_context_create(&(tl_context_config){.threads = o->threads, .error = &error});
    if (context == NULL) {
        fprintf(stderr, "bench: %s\n", error.message);
        return 1;
    }
    FILE *csv = o->csv ? fopen(o->csv, "w") : NULL;
    if (o->csv && csv == NULL) {
        fprintf(stderr, "bench: %s: %s\n", o->csv, strerror(errno));
        tl_context_free(context);
        return 1;
    }
    const int threads = tl_context_threads(context);
    const double peak = bench_peak_gflops(tl_context_isa(context), threads);
    printf("%s, %d threads, FMA peak %.1f GFLOP/s\n", tl_context_isa(context), threads, peak);
    tl_context_free(context);
    printf("%-56s %9s %9s %6s %8s %7s %7s %8s  %s\n", "case", "median ms", "min ms", "spread",
           "GFLOP/s", "of peak", "GB/s", "peak MB", "repetitions");
    if (csv != NULL) {
        fprintf(csv, "case,median_ms,min_ms,gflops,percent_peak,gbytes_per_s,peak_bytes,"
                     "disturbed\r\n");
    }
    int failures = 0;
    for (int i = 0; i < list->count; i++) {
        const bench_case *c = &list->cases[i];
        if (filter != NULL && regexec(filter, c->name, 0, NULL, 0) != 0) {
            continue;
        }
        result r = {0};
        if (!measure(c, threads, &r, &error)) {
            fprintf(stderr, "bench: %s: %s\n", c->name,
                    error.status ? error.message : "out of memory");
            failures++;
            continue;
        }
        print_row(c, &r, peak);
        if (csv != NULL) {
            print_csv(csv, c, &r, peak);
        }
    }
    if (csv != NULL && (ferror(csv) | fclose(csv)) != 0) { /* closed in any case */
        fprintf(stderr, "bench: %s: could not write: %s\n", o->csv, strerror(errno));
        failures++;
    }
    return failures ? 1 : 0;
}

int main(int argc, char **argv) {
    options o = {0};
    const int wrong = parse(argc, argv, &o);
    if (wrong) {
        return wrong;
    }
    regex_t filter;
    if (o.filter != NULL && regcomp(&filter, o.filter, REG_EXTENDED | REG_NOSUB) != 0) {
        return usage("no valid regular expression:", o.filter);
    }
    bench_list list = {0};
    bench_attention_cases(&list);
    bench_convolution_cases(&list);
    bench_gemm_cases(&list);
    bench_loader_cases(&list);
    bench_operation_cases(&list);
    bench_optimizer_cases(&list);
    bench_training_cases(&list);
    int code = 0;
    if (o.list) {
        for (int i = 0; i < list.count; i++) {
            if (o.filter == NULL || regexec(&filter, list.cases[i].name, 0, NULL, 0) == 0) {
                printf("%s\n", list.cases[i].name);
            }
        }
    } else {
        code = run_cases(&list, o.filter ? &filter : NULL, &o);
    }
    if (o.filter != NULL) {
        regfree(&filter);
    }
    free(list.cases);
    return code;
}
