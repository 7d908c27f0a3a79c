/* state_internal.h - what those who hand over state share. */
#ifndef TL_STATE_INTERNAL_H
#define TL_STATE_INTERNAL_H

#include <tapeline/state.h>

#include "core/tensor_internal.h"

/* Adds an array and returns its memory, for the caller to fill; NULL with the error set. */
void *tl_state_new_array(tl_state *state, const char *path, tl_element_type type, int rank,
                         const int64_t *shape, tl_error *error);

/* Whether there is an entry of that path, of whatever kind. */
bool tl_state_contains(const tl_state *state, const char *path);

/* The bytes of an array; false if a shape is bad or the product overflows. */
bool tl_state_array_bytes(tl_element_type type, int rank, const int64_t *shape, size_t *bytes);

/* True if `path` lies below `prefix` (any path does below "" or NULL). */
bool tl_state_is_below(const char *path, const char *prefix);

/* "prefix/middle/stem/conv/weight" of the name "stem.conv.weight" in `path`; NULL or "" leave a
 * part out. TL_ERROR_INVALID_ARGUMENT if it becomes too long. */
tl_status tl_state_compose(char path[TL_PATH_SIZE], const char *prefix, const char *middle,
                           const char *name, tl_error *error);

/* Lends `values`, of the tensor's shape, to the state. */
tl_status tl_state_borrow_reals(tl_state *state, const char *path, const tl_tensor *tensor,
                                const tl_real *values, tl_error *error);
/* Checks that there is a float32 or float64 array of the tensor's shape whose values are finite as
 * tl_real. */
tl_status tl_state_check_reals(const tl_state *state, const char *path, const tl_tensor *tensor,
                               tl_error *error);
/* Copies an array that passed the check. */
void tl_state_copy_reals(const tl_state *state, const char *path, tl_real *values);

#endif
