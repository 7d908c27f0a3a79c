/* A profile as JSON in the Trace Event Format: complete events ("ph": "X") of one thread, in which
 * viewers draw what lies in each other by its times. */
#include "core/profile_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void write_string(FILE *file, const char *text) {
    (void)fputc('"', file);
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            (void)fprintf(file, "\\%c", c);
        } else if (c < 0x20) {
            (void)fprintf(file, "\\u%04x", c);
        } else {
            (void)fputc(c, file);
        }
    }
    (void)fputc('"', file);
}

static void write_event(FILE *file, const tl_profile_event *event, int64_t created) {
    static const char *const categories[] = {"forward", "backward", "recompute", "span"};
    const int64_t duration = event->ended - event->started;
    const int64_t since = event->started - created;
    (void)fputs(",\n{\"name\":", file);
    write_string(file, event->name);
    (void)fprintf(file,
                  ",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%" PRId64 ".%03d,"
                  "\"dur\":%" PRId64 ".%03d",
                  categories[event->phase], since / 1000, (int)(since % 1000), duration / 1000,
                  (int)(duration % 1000));
    if (event->phase != TL_PROFILE_SPAN) {
        /* FLOPs per nanosecond are GFLOP/s */
        const double rate = duration > 0 ? 1 / (double)duration : 0;
        (void)fprintf(file,
                      ",\"args\":{\"flops\":%.0f,\"bytes\":%.0f,\"GFLOP/s\":%.3f,\"GB/s\":%.3f}",
                      event->flops, event->bytes, event->flops * rate, event->bytes * rate);
    }
    (void)fputc('}', file);
}

tl_status tl_profile_write_trace(const tl_profile *profile, const char *path, tl_error *error) {
    tl_error_clear(error);
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return tl_fail(error, TL_ERROR_IO, "%s: cannot write the trace: %s", path, strerror(errno));
    }
    (void)fprintf(file,
                  "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"dropped_events\":\"%" PRId64
                  "\"},\n"
                  "\"traceEvents\":[\n"
                  "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":"
                  "\"tapeline\"}}",
                  profile->dropped);
    for (int64_t i = 0; i < profile->event_count; i++) {
        write_event(file, &profile->events[i], profile->created);
    }
    (void)fputs("\n]}\n", file);
    const bool written = ferror(file) == 0;
    const int reason = errno;
    if (fclose(file) != 0 || !written) {
        return tl_fail(error, TL_ERROR_IO, "%s: cannot write the trace: %s", path,
                       strerror(written ? errno : reason));
    }
    return TL_OK;
}
