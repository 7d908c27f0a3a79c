/* error.h - status codes and messages.
 *
 * Functions that can fail return a tl_status, or NULL where they create something; the reason is
 * then in a tl_error the caller passed (NULL is allowed), or sticks to the tape (tape.h). The
 * library never prints, aborts or exits.
 */
#ifndef TL_ERROR_H
#define TL_ERROR_H

#include <tapeline/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers never change. */
typedef enum tl_status {
    TL_OK = 0,
    TL_ERROR_INVALID_ARGUMENT = 1, /* a value outside what is documented */
    TL_ERROR_SHAPE = 2,            /* shapes that do not fit together */
    TL_ERROR_OUT_OF_MEMORY = 3,    /* the allocator said no, or the budget did */
    TL_ERROR_IO = 4,               /* a file could not be opened, read, written or renamed */
    TL_ERROR_FORMAT = 5,           /* a file's content is not what it should be */
    TL_ERROR_UNSUPPORTED = 6,      /* valid, but not built in or not possible here */
    TL_ERROR_NOT_FINITE = 7,       /* NaN or infinity where numbers are needed */
    TL_ERROR_STATE = 8,            /* called at the wrong time, e.g. backward without recording */
} tl_status;

enum { TL_ERROR_MESSAGE_SIZE = 512 };

typedef struct tl_error {
    tl_status status;
    char message[TL_ERROR_MESSAGE_SIZE]; /* one line, without a newline; "" if there is no error */
} tl_error;

/* The name of a status, e.g. "out of memory"; "unknown status" for anything else. */
TL_API const char *tl_status_name(tl_status status);

#ifdef __cplusplus
}
#endif

#endif
