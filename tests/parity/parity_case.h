/* parity_case.h - one case of the parity format, as it lies in its file (dimensions in the file's
 * order: N, C, spatial...). */
#ifndef PARITY_CASE_H
#define PARITY_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PARITY_NAME_SIZE = 128, PARITY_MAX_RANK = 8, PARITY_MAX_INTS = 64 };

typedef struct parity_tensor {
    char group[32]; /* "inputs", "grads/params", ... */
    char name[PARITY_NAME_SIZE];
    int rank;
    int64_t shape[PARITY_MAX_RANK];
    int64_t size;
    double *values;
    bool used; /* an expected tensor that was compared */
} parity_tensor;

typedef struct parity_argument {
    char name[PARITY_NAME_SIZE];
    char text[PARITY_NAME_SIZE]; /* of strings */
    double number;               /* of scalars */
    int64_t ints[PARITY_MAX_INTS];
    int count; /* of arrays and integer scalars */
} parity_argument;

typedef struct parity_case {
    char op[PARITY_NAME_SIZE];
    double rtol, atol;
    parity_argument *arguments;
    int argument_count;
    parity_tensor *tensors;
    int tensor_count;
} parity_case;

/* False with a reason in `reason` if the file is no case; parity_case_clear is due in any case. */
bool parity_case_load(parity_case *c, const char *path, char *reason, size_t reason_size);
void parity_case_clear(parity_case *c);

/* NULL if there is none. */
parity_tensor *parity_find(const parity_case *c, const char *group, const char *name);
const parity_argument *parity_argument_find(const parity_case *c, const char *name);

#endif
