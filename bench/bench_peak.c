/* The FMA peak: twelve independent chains of multiply-adds in registers, on all threads at once. */
#include <omp.h>
#include <string.h>
#include <time.h>

#include "bench.h"

enum { ITERATIONS = 200000, CHAINS = 12, REPETITIONS = 15 };

/* Constants that keep the values in range; volatile, so that nothing is computed ahead. */
static volatile float factor = 0.999f, summand = 1e-3f;
static volatile float sink;

#define STEP(v) v = v * x + y;
#define DEFINE_LOOP(name, bytes, attributes)                                                       \
    typedef float name##_vector __attribute__((vector_size(bytes)));                               \
    attributes static void name(void) {                                                            \
        const name##_vector x = (name##_vector){0} + factor, y = (name##_vector){0} + summand;     \
        name##_vector a = y, b = y + 1, c = y + 2, d = y + 3, e = y + 4, f = y + 5, g = y + 6,     \
                      h = y + 7, i = y + 8, j = y + 9, k = y + 10, l = y + 11;                     \
        for (int n = 0; n < ITERATIONS; n++) {                                                     \
            STEP(a)                                                                                \
            STEP(b)                                                                                \
            STEP(c)                                                                                \
            STEP(d)                                                                                \
            STEP(e)                                                                                \
            STEP(f)                                                                                \
            STEP(g)                                                                                \
            STEP(h)                                                                                \
            STEP(i)                                                                                \
            STEP(j)                                                                                \
            STEP(k)                                                                                \
            STEP(l)                                                                                \
        }                                                                                          \
        a += b + c + d + e + f + g + h + i + j + k + l;                                            \
        sink = a[0];                                                                               \
    }

DEFINE_LOOP(loop_baseline, 16, __attribute__((noinline)))
#ifdef __x86_64__
DEFINE_LOOP(loop_avx2, 32, __attribute__((noinline, target("avx2,fma"))))
DEFINE_LOOP(loop_avx512, 64, __attribute__((noinline, target("avx512f,fma"))))
#endif

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double bench_peak_gflops(const char *isa, int threads) {
    void (*loop)(void) = loop_baseline;
    int lanes = 4;
#ifdef __x86_64__
    if (strcmp(isa, "avx2") == 0 || strcmp(isa, "avx512") == 0) {
        loop = loop_avx2;
        lanes = 8;
    }
    if (strcmp(isa, "avx512") == 0 && __builtin_cpu_supports("avx512f")) {
        loop = loop_avx512;
        lanes = 16;
    }
#else
    (void)isa;
#endif
    double best = 0;
    for (int r = 0; r < REPETITIONS; r++) {
        double slowest = 0;
#pragma omp parallel num_threads(threads) reduction(max : slowest)
        {
#pragma omp barrier
            const double start = seconds_now();
            loop();
            slowest = seconds_now() - start;
        }
        const double rate = 2.0 * lanes * CHAINS * ITERATIONS * threads / slowest * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}
