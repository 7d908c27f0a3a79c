/* system_calls.h - the calls by which files are read and written, made to fail. A program that is
 * linked with system_calls.c uses these; what is linked statically to it does so too. */
#ifndef TEST_SYSTEM_CALLS_H
#define TEST_SYSTEM_CALLS_H

#include <stdbool.h>

typedef enum system_call {
    CALL_OPEN,
    CALL_FSTAT,
    CALL_STAT,
    CALL_READ,
    CALL_WRITE,
    CALL_FSYNC,
    CALL_RENAME,
    CALL_FTRUNCATE,
    CALL_CLOSE,
    CALL_FLOCK,
    CALL_UNLINK,
    CALLS
} system_call;

extern const char *const system_call_names[CALLS];

/* What is to happen; all zero: nothing. `close` closes even when it fails. */
typedef struct system_fault {
    system_call which;
    int countdown; /* the call that fails, counted from 1; 0: none */
    int error_number;
    bool for_good;        /* all calls after it fail too */
    bool short_transfers; /* reads and writes move at most 100 bytes */
    bool happened;
} system_fault;

extern system_fault system_fault_armed;

#endif
