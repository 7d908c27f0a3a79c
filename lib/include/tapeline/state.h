/* state.h - named arrays and values: how objects hand over what a checkpoint must hold.
 *
 * A path names each: components separated by slashes, "optimizer/momentum_buffer/stem/conv/weight".
 * Arrays have a type and a shape. Values are integers, numbers or strings; a value whose parent
 * path is that of an array belongs to that array (".../weight/axes"), else to a group. In a
 * checkpoint arrays become datasets, values attributes (checkpoint.h).
 *
 * Paths have 1 to TL_PATH_SIZE - 1 bytes and no empty component, "." or "..". Each is there once.
 */
#ifndef TL_STATE_H
#define TL_STATE_H

#include <tapeline/parameters.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_state tl_state;

enum { TL_PATH_SIZE = 256 };

typedef enum tl_element_type {
    TL_FLOAT32 = 0,
    TL_FLOAT64 = 1,
    TL_INT32 = 2,
    TL_INT64 = 3,
    TL_UINT8 = 4,
} tl_element_type;

/* The type of tl_real. */
#ifdef TL_REAL_DOUBLE
#define TL_ELEMENT_REAL TL_FLOAT64
#else
#define TL_ELEMENT_REAL TL_FLOAT32
#endif

/* Bytes of one element; 0 for an unknown type. */
TL_API size_t tl_element_size(tl_element_type type);
/* "float32" ...; "unknown type". */
TL_API const char *tl_element_name(tl_element_type type);

typedef struct tl_state_array {
    tl_element_type type;
    int rank;                   /* 0: a scalar */
    int64_t shape[TL_MAX_RANK]; /* extents may be 0 */
    const void *data;           /* row-major, native byte order */
} tl_state_array;

typedef enum tl_state_kind {
    TL_STATE_ARRAY = 0,
    TL_STATE_INTEGER = 1,
    TL_STATE_NUMBER = 2,
    TL_STATE_STRING = 3,
} tl_state_kind;

/* One entry; the field that `kind` names is set. */
typedef struct tl_state_entry {
    const char *path;
    tl_state_kind kind;
    tl_state_array array;
    int64_t integer;
    double number;
    const char *string;
} tl_state_entry;

/* An empty state. NULL if memory fails. */
TL_API tl_state *tl_state_create(tl_context *context, tl_error *error);
/* NULL is fine. */
TL_API void tl_state_free(tl_state *state);

/* Copies the array. TL_ERROR_INVALID_ARGUMENT, as of the other tl_state_put functions, on a bad or
 * taken path or a bad shape. */
TL_API tl_status tl_state_put_array(tl_state *state, const char *path, const tl_state_array *array,
                                    tl_error *error);
/* Does not copy it: the data must stay until the state is freed. */
TL_API tl_status tl_state_borrow_array(tl_state *state, const char *path,
                                       const tl_state_array *array, tl_error *error);
TL_API tl_status tl_state_put_integer(tl_state *state, const char *path, int64_t value,
                                      tl_error *error);
TL_API tl_status tl_state_put_number(tl_state *state, const char *path, double value,
                                     tl_error *error);
/* Copies the string. */
TL_API tl_status tl_state_put_string(tl_state *state, const char *path, const char *value,
                                     tl_error *error);

/* NULL if there is no array of that path. The data belong to the state. */
TL_API const tl_state_array *tl_state_find_array(const tl_state *state, const char *path);
/* False if there is none of that path and kind; an integer is also a number. */
TL_API bool tl_state_find_integer(const tl_state *state, const char *path, int64_t *value);
TL_API bool tl_state_find_number(const tl_state *state, const char *path, double *value);
/* NULL if there is none. */
TL_API const char *tl_state_find_string(const tl_state *state, const char *path);

/* The same for what must be there: TL_ERROR_FORMAT with a message if it is not, or is outside
 * [minimum, maximum]. */
TL_API tl_status tl_state_read_integer(const tl_state *state, const char *path, int64_t minimum,
                                       int64_t maximum, int64_t *value, tl_error *error);
/* NaN is outside every range. */
TL_API tl_status tl_state_read_number(const tl_state *state, const char *path, double minimum,
                                      double maximum, double *value, tl_error *error);
TL_API tl_status tl_state_read_string(const tl_state *state, const char *path, const char **value,
                                      tl_error *error);
/* An array of this type, rank and shape; an extent of -1 fits any. */
TL_API tl_status tl_state_read_array(const tl_state *state, const char *path, tl_element_type type,
                                     int rank, const int64_t *shape, const tl_state_array **array,
                                     tl_error *error);

/* All entries, in the order they were put. */
TL_API int tl_state_count(const tl_state *state);
TL_API tl_state_entry tl_state_at(const tl_state *state, int index);

/* ---- parameters
 *
 * The tensor named "stages.1.conv.weight" is the array "<prefix>/stages/1/conv/weight" (prefix
 * "model"), with its axes as the string ".../weight/axes". Running statistics lie beside the
 * parameters. The values are borrowed. */
TL_API tl_status tl_parameters_save_state(const tl_parameters *parameters, tl_state *state,
                                          const char *prefix, tl_error *error);
/* First checks that the arrays below the prefix are those of the registry, no more and no fewer,
 * with its shapes, of type float32 or float64 and finite; changes nothing if they are not. */
TL_API tl_status tl_parameters_load_state(tl_parameters *parameters, const tl_state *state,
                                          const char *prefix, tl_error *error);
/* The checks alone, to check several objects before any is changed. */
TL_API tl_status tl_parameters_check_state(const tl_parameters *parameters, const tl_state *state,
                                           const char *prefix, tl_error *error);

#ifdef __cplusplus
}
#endif

#endif
