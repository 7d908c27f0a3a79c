/* error_internal.h - how library code reports failures. */
#ifndef TL_ERROR_INTERNAL_H
#define TL_ERROR_INTERNAL_H

#include <stdarg.h>
#include <stddef.h>

#include <tapeline/error.h>

#define TL_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))

/* Paths in messages are cut to this length, so that what follows is not. */
#define TL_SHOWN_PATH "%.300s"

/* Fills `error` (NULL is fine) and returns `status`: `return tl_fail(error, TL_ERROR_IO, ...)`. */
tl_status tl_fail(tl_error *error, tl_status status, const char *format, ...) TL_PRINTF(3, 4);
tl_status tl_fail_v(tl_error *error, tl_status status, const char *format, va_list arguments)
    TL_PRINTF(3, 0);

/* For analysers, which see one file at a time (scripts/lint.sh): what it returns is `status`. */
#ifdef TL_ANALYSIS
#define tl_fail(error, status, ...) ((void)tl_fail(error, status, __VA_ARGS__), (status))
#endif

/* Clears `error` (NULL is fine). */
void tl_error_clear(tl_error *error);

/* Passes a failure on. */
#define TL_TRY(call)                                                                               \
    do {                                                                                           \
        const tl_status status_ = (call);                                                          \
        if (status_ != TL_OK) {                                                                    \
            return status_;                                                                        \
        }                                                                                          \
    } while (0)

/* "1.5 MB" in `text`, which is returned. */
enum { TL_BYTES_TEXT_SIZE = 32 };
const char *tl_bytes_text(double bytes, char text[TL_BYTES_TEXT_SIZE]);

#endif
