#include "core/error_internal.h"

#include <stdio.h>
#include <string.h>

const char *tl_status_name(tl_status status) {
    switch (status) {
    case TL_OK:
        return "ok";
    case TL_ERROR_INVALID_ARGUMENT:
        return "invalid argument";
    case TL_ERROR_SHAPE:
        return "shape mismatch";
    case TL_ERROR_OUT_OF_MEMORY:
        return "out of memory";
    case TL_ERROR_IO:
        return "input/output error";
    case TL_ERROR_FORMAT:
        return "format error";
    case TL_ERROR_UNSUPPORTED:
        return "unsupported";
    case TL_ERROR_NOT_FINITE:
        return "not finite";
    case TL_ERROR_STATE:
        return "wrong state";
    }
    return "unknown status";
}

/* Names from files may hold anything: a message is one line and no commands for a terminal. */
static void blank_control_characters(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++) {
        *c = *c < ' ' || *c == 0x7f ? '?' : *c;
    }
}

tl_status tl_fail_v(tl_error *error, tl_status status, const char *format, va_list arguments) {
    if (error != NULL) {
        error->status = status;
        (void)vsnprintf(error->message, sizeof error->message, format, arguments);
        blank_control_characters(error->message);
    }
    return status;
}

tl_status(tl_fail)(tl_error *error, tl_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)tl_fail_v(error, status, format, arguments);
    va_end(arguments);
    return status;
}

void tl_error_clear(tl_error *error) {
    if (error != NULL) {
        error->status = TL_OK;
        error->message[0] = '\0';
    }
}

const char *tl_bytes_text(double bytes, char text[TL_BYTES_TEXT_SIZE]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    size_t unit = 0;
    while (bytes >= 1000.0 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1000.0;
        unit++;
    }
    (void)snprintf(text, TL_BYTES_TEXT_SIZE, unit == 0 ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
    return text;
}
