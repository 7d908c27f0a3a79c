/* operation_list.h - every operation of the public headers, ready to run, for tests that walk them
 * all. tests/test_every_operation.sh compares the list with the headers. */
#ifndef TEST_OPERATION_LIST_H
#define TEST_OPERATION_LIST_H

#include "support/support.h"

enum { OPERATION_MAX_INPUTS = 9 };

typedef struct operation_input {
    int rank;
    int64_t shape[TL_MAX_RANK];
} operation_input;

typedef struct operation_case {
    const char *function; /* tl_conv2d */
    const char *reports;  /* "conv2d": its name in errors; "": it is composed of others */
    tl_tensor *(*compute)(tl_tape *tape, tl_tensor *const *x);
    int input_count;
    /* Large enough that several threads take part. */
    operation_input inputs[OPERATION_MAX_INPUTS];
} operation_case;

extern const operation_case operation_list[];
extern const int operation_count;

int64_t operation_input_size(const operation_case *c, int index);

#endif
