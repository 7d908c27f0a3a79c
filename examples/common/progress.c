#include "common/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double terminal_interval = 0.1;
static const double pipe_interval = 10.0;

double seconds_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_start(progress *p, int64_t done) {
    const double now = seconds_now();
    *p = (progress){.terminal = isatty(STDOUT_FILENO) == 1,
                    .started = now,
                    .last_shown = now,
                    .done_at_start = done};
}

void progress_update(progress *p, const char *label, int64_t done, int64_t total,
                     double units_per_step, const char *unit, const char *text) {
    const double now = seconds_now();
    if (now - p->last_shown < (p->terminal ? terminal_interval : pipe_interval)) {
        return;
    }
    p->last_shown = now;
    const double elapsed = now - p->started;
    const int64_t fresh = done - p->done_at_start;
    const double rate = elapsed > 0.0 ? (double)fresh / elapsed : 0.0;
    const int64_t left = rate > 0.0 ? (int64_t)((double)(total - done) / rate + 0.5) : 0;
    const int percent = total > 0 ? (int)(100 * done / total) : 100;
    char tail[160];
    (void)snprintf(tail, sizeof tail, "%3d%%  %s  %.0f %s/s  ETA %" PRId64 ":%02" PRId64, percent,
                   text, rate * units_per_step, unit, left / 60, left % 60);
    if (!p->terminal) {
        printf("%s %s\n", label, tail);
        (void)fflush(stdout);
        return;
    }
    enum { WIDTH = 20 };
    char bar[WIDTH + 1];
    const int filled = WIDTH * percent / 100;
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '.', (size_t)(WIDTH - filled));
    bar[WIDTH] = '\0';
    printf("\r\033[K%s [%s] %s", label, bar, tail);
    (void)fflush(stdout);
    p->drawn = true;
}

void progress_clear(progress *p) {
    if (p->drawn) {
        printf("\r\033[K");
        (void)fflush(stdout);
        p->drawn = false;
    }
}
