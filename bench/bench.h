/* bench.h - what the cases of the benchmark are written with.
 *
 * A family of cases is one file bench_<family>.c with a function bench_<family>_cases(list) that
 * adds them; bench.c lists the families. A case builds what it needs (create), is run many times,
 * and is taken down. Only the public API is used, but for convolutions, whose kernels are called,
 * and optimizers, whose gradients are put back. Names never change, so that runs can be compared.
 */
#ifndef BENCH_H
#define BENCH_H

#include <tapeline/tapeline.h>

enum { BENCH_NAME_SIZE = 128, BENCH_NUMBERS = 12 };

/* What one run did, by its case's own account. */
typedef struct bench_account {
    double seconds; /* 0: the clock around the run counts */
    double flops;   /* 0: not stated; convolutions direct, attention as executed */
    double bytes;   /* moved at least, where memory is the limit; or 0 */
} bench_account;

typedef struct bench_case bench_case;
struct bench_case {
    char name[BENCH_NAME_SIZE];
    double flops, bytes;            /* of one run, as in bench_account, unless there is `account` */
    int64_t numbers[BENCH_NUMBERS]; /* for the case's own use: sizes, choices */
    /* NULL means that it failed, with the reason in *error. Memory comes from the context. */
    void *(*create)(const bench_case *c, tl_context *context, tl_error *error);
    /* False with the reason in *error. */
    bool (*run)(void *state, tl_error *error);
    bench_account (*account)(void *state); /* of the last run; NULL: `flops` and `bytes` stand */
    void (*destroy)(void *state);
};

typedef struct bench_list bench_list;

/* Copies the case. */
void bench_add(bench_list *list, const bench_case *c);

/* Values in [-1, 1) that are the same every time. */
void bench_fill(tl_real *values, int64_t count, uint64_t seed);

/* Single-precision FMAs count as two: GFLOP/s of the instruction set on that many threads. */
double bench_peak_gflops(const char *isa, int threads);

void bench_attention_cases(bench_list *list);
void bench_convolution_cases(bench_list *list);
void bench_gemm_cases(bench_list *list);
void bench_loader_cases(bench_list *list);
void bench_operation_cases(bench_list *list);
void bench_optimizer_cases(bench_list *list);
void bench_training_cases(bench_list *list);

#endif
