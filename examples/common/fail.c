#include "common/fail.h"

#include <stdarg.h>
#include <stdio.h>

tl_status(fail_with)(tl_error *error, tl_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    error->status = status;
    (void)vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return status;
}
