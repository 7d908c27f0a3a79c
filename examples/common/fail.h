/* fail.h - how functions of the examples report failures: as the library's do, in a tl_error. */
#ifndef EXAMPLE_FAIL_H
#define EXAMPLE_FAIL_H

#include <tapeline/error.h>

/* Fills `error` and returns `status`: `return fail_with(error, TL_ERROR_IO, "%s: ...", path)`. */
tl_status fail_with(tl_error *error, tl_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#ifdef TL_ANALYSIS /* as the library's tl_fail */
#define fail_with(error, status, ...) ((void)fail_with(error, status, __VA_ARGS__), (status))
#endif

#endif
