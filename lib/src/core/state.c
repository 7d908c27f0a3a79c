#include "core/state_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Entries are allocated apart, so that what was found stays where it is, and are found through a
 * hash table with linear probing, at most half full. */
typedef struct entry {
    tl_state_entry shown;
    char *path;
    void *owned; /* array data or string; NULL if borrowed or none */
    size_t owned_bytes;
} entry;

struct tl_state {
    tl_context *context;
    entry **entries;
    int count;
    int capacity;
    int *slots; /* index + 1 of an entry; 0: free; 2 * capacity of them */
};

enum { FIRST_CAPACITY = 64 };

/* ------------------------------------------------------------------ types and paths */

typedef struct element_kind {
    const char *name;
    size_t size;
} element_kind;

static const element_kind element_kinds[] = {
    [TL_FLOAT32] = {"float32", 4}, [TL_FLOAT64] = {"float64", 8}, [TL_INT32] = {"int32", 4},
    [TL_INT64] = {"int64", 8},     [TL_UINT8] = {"uint8", 1},
};
enum { ELEMENT_KIND_COUNT = sizeof element_kinds / sizeof element_kinds[0] };
_Static_assert(ELEMENT_KIND_COUNT == TL_UINT8 + 1, "a row for every element type");

size_t tl_element_size(tl_element_type type) {
    return (unsigned)type < ELEMENT_KIND_COUNT ? element_kinds[type].size : 0;
}

const char *tl_element_name(tl_element_type type) {
    return (unsigned)type < ELEMENT_KIND_COUNT ? element_kinds[type].name : "unknown type";
}

bool tl_state_array_bytes(tl_element_type type, int rank, const int64_t *shape, size_t *bytes) {
    size_t product = tl_element_size(type);
    if (product == 0 || rank < 0 || rank > TL_MAX_RANK) {
        return false;
    }
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || !tl_multiply_size(product, (size_t)shape[i], &product)) {
            return false;
        }
    }
    *bytes = product;
    return product <= PTRDIFF_MAX;
}

static bool path_is_valid(const char *path) {
    const size_t length = strlen(path);
    if (length == 0 || length >= TL_PATH_SIZE) {
        return false;
    }
    const char *component = path;
    for (;;) {
        const size_t size = strcspn(component, "/");
        const bool dots = (size == 1 && component[0] == '.') ||
                          (size == 2 && component[0] == '.' && component[1] == '.');
        if (size == 0 || dots) {
            return false;
        }
        if (component[size] == '\0') {
            return true;
        }
        component += size + 1;
    }
}

bool tl_state_is_below(const char *path, const char *prefix) {
    if (prefix == NULL || prefix[0] == '\0') {
        return true;
    }
    const size_t length = strlen(prefix);
    return strncmp(path, prefix, length) == 0 && path[length] == '/';
}

tl_status tl_state_compose(char path[TL_PATH_SIZE], const char *prefix, const char *middle,
                           const char *name, tl_error *error) {
    const char *parts[3] = {prefix, middle, name};
    size_t length = 0;
    for (int i = 0; i < 3; i++) {
        if (parts[i] == NULL || parts[i][0] == '\0') {
            continue;
        }
        const size_t start = length + (length > 0 ? 1 : 0);
        const size_t size = strlen(parts[i]);
        if (start + size >= TL_PATH_SIZE) {
            return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                           "state: the path of '%s' has more than %d bytes", name,
                           TL_PATH_SIZE - 1);
        }
        if (length > 0) {
            path[length] = '/';
        }
        memcpy(path + start, parts[i], size);
        if (i == 2) {
            for (size_t k = start; k < start + size; k++) {
                path[k] = path[k] == '.' ? '/' : path[k];
            }
        }
        length = start + size;
    }
    path[length] = '\0';
    return TL_OK;
}

/* ------------------------------------------------------------------ the table */

/* FNV-1a, 64 bits. */
static uint64_t hash_path(const char *path) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *path != '\0'; path++) {
        hash = (hash ^ (unsigned char)*path) * 0x100000001B3u;
    }
    return hash;
}

/* The slot of the path, or the free one where it would go. */
static size_t find_slot(const tl_state *state, const char *path) {
    const size_t slots = 2 * (size_t)state->capacity;
    size_t slot = (size_t)(hash_path(path) % slots);
    while (state->slots[slot] != 0 &&
           strcmp(state->entries[state->slots[slot] - 1]->path, path) != 0) {
        slot = (slot + 1) % slots;
    }
    return slot;
}

static const entry *find(const tl_state *state, const char *path) {
    if (state->capacity == 0) {
        return NULL;
    }
    const int index = state->slots[find_slot(state, path)];
    return index != 0 ? state->entries[index - 1] : NULL;
}

bool tl_state_contains(const tl_state *state, const char *path) {
    return find(state, path) != NULL;
}

static bool reserve(tl_state *state) {
    if (state->count < state->capacity) {
        return true;
    }
    const int capacity = state->capacity == 0 ? FIRST_CAPACITY : 2 * state->capacity;
    const size_t old = (size_t)state->capacity;
    const size_t new = (size_t)capacity;
    entry **entries = tl_memory_allocate_zeroed(state->context, new, sizeof(entry *));
    int *slots = tl_memory_allocate_zeroed(state->context, 2 * new, sizeof(int));
    if (entries == NULL || slots == NULL) {
        tl_memory_release(state->context, entries, new * sizeof(entry *));
        tl_memory_release(state->context, slots, 2 * new * sizeof(int));
        return false;
    }
    if (state->count > 0) {
        memcpy(entries, state->entries, old * sizeof(entry *));
    }
    tl_memory_release(state->context, state->entries, old * sizeof(entry *));
    tl_memory_release(state->context, state->slots, 2 * old * sizeof(int));
    state->entries = entries;
    state->slots = slots;
    state->capacity = capacity;
    for (int i = 0; i < state->count; i++) {
        state->slots[find_slot(state, entries[i]->path)] = i + 1;
    }
    return true;
}

tl_state *tl_state_create(tl_context *context, tl_error *error) {
    tl_error_clear(error);
    tl_state *state = tl_memory_allocate_zeroed(context, 1, sizeof *state);
    if (state == NULL) {
        (void)tl_memory_fail(context, error, "state", sizeof *state);
        return NULL;
    }
    state->context = context;
    return state;
}

static void free_entry(tl_context *context, entry *e) {
    tl_memory_release(context, e->owned, e->owned_bytes);
    tl_memory_release(context, e->path, strlen(e->path) + 1);
    tl_memory_release(context, e, sizeof *e);
}

void tl_state_free(tl_state *state) {
    if (state == NULL) {
        return;
    }
    tl_context *context = state->context;
    for (int i = 0; i < state->count; i++) {
        free_entry(context, state->entries[i]);
    }
    const size_t capacity = (size_t)state->capacity;
    tl_memory_release(context, state->entries, capacity * sizeof(entry *));
    tl_memory_release(context, state->slots, 2 * capacity * sizeof(int));
    tl_memory_release(context, state, sizeof *state);
}

/* A new entry with `owned_bytes` of memory of its own (0: none). */
static tl_status add(tl_state *state, const char *path, tl_state_kind kind, size_t owned_bytes,
                     entry **added, tl_error *error) {
    tl_error_clear(error);
    if (!path_is_valid(path)) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "state: a path has 1 to %d bytes and no empty component, '.' or '..'; found "
                       "'%.300s'",
                       TL_PATH_SIZE - 1, path);
    }
    if (find(state, path) != NULL) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "state: '%s' is already there", path);
    }
    const size_t path_bytes = strlen(path) + 1;
    entry *e = reserve(state) ? tl_memory_allocate_zeroed(state->context, 1, sizeof *e) : NULL;
    if (e == NULL) {
        return tl_memory_fail(state->context, error, path, sizeof *e);
    }
    e->path = tl_memory_allocate(state->context, path_bytes);
    e->owned = owned_bytes > 0 ? tl_memory_allocate(state->context, owned_bytes) : NULL;
    e->owned_bytes = owned_bytes;
    if (e->path == NULL || (e->owned == NULL && owned_bytes > 0)) {
        tl_memory_release(state->context, e->path, path_bytes);
        tl_memory_release(state->context, e->owned, owned_bytes);
        tl_memory_release(state->context, e, sizeof *e);
        return tl_memory_fail(state->context, error, path, owned_bytes + path_bytes);
    }
    memcpy(e->path, path, path_bytes);
    e->shown.path = e->path;
    e->shown.kind = kind;
    state->slots[find_slot(state, path)] = state->count + 1;
    state->entries[state->count++] = e;
    *added = e;
    return TL_OK;
}

/* ------------------------------------------------------------------ putting */

static tl_status add_array(tl_state *state, const char *path, const tl_state_array *array,
                           bool owned, entry **added, tl_error *error) {
    size_t bytes;
    if (!tl_state_array_bytes(array->type, array->rank, array->shape, &bytes)) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "state: '%.300s' has a bad type, rank or extent (%s, rank %d)", path,
                       tl_element_name(array->type), array->rank);
    }
    /* an array without elements has memory too, so that its data are never NULL */
    TL_TRY(add(state, path, TL_STATE_ARRAY, owned ? bytes + (bytes == 0) : 0, added, error));
    tl_state_array *shown = &(*added)->shown.array;
    shown->type = array->type;
    shown->rank = array->rank;
    for (int i = 0; i < array->rank; i++) {
        shown->shape[i] = array->shape[i];
    }
    shown->data = owned ? (*added)->owned : array->data;
    return TL_OK;
}

tl_status tl_state_put_array(tl_state *state, const char *path, const tl_state_array *array,
                             tl_error *error) {
    entry *added;
    TL_TRY(add_array(state, path, array, true, &added, error));
    size_t bytes;
    if (tl_state_array_bytes(array->type, array->rank, array->shape, &bytes) && bytes > 0) {
        memcpy(added->owned, array->data, bytes);
    }
    return TL_OK;
}

tl_status tl_state_borrow_array(tl_state *state, const char *path, const tl_state_array *array,
                                tl_error *error) {
    entry *added;
    return add_array(state, path, array, false, &added, error);
}

void *tl_state_new_array(tl_state *state, const char *path, tl_element_type type, int rank,
                         const int64_t *shape, tl_error *error) {
    tl_state_array array = {.type = type, .rank = rank};
    for (int i = 0; i < rank && i < TL_MAX_RANK; i++) {
        array.shape[i] = shape[i];
    }
    entry *added;
    return add_array(state, path, &array, true, &added, error) == TL_OK ? added->owned : NULL;
}

tl_status tl_state_put_integer(tl_state *state, const char *path, int64_t value, tl_error *error) {
    entry *added;
    TL_TRY(add(state, path, TL_STATE_INTEGER, 0, &added, error));
    added->shown.integer = value;
    return TL_OK;
}

tl_status tl_state_put_number(tl_state *state, const char *path, double value, tl_error *error) {
    entry *added;
    TL_TRY(add(state, path, TL_STATE_NUMBER, 0, &added, error));
    added->shown.number = value;
    return TL_OK;
}

tl_status tl_state_put_string(tl_state *state, const char *path, const char *value,
                              tl_error *error) {
    const size_t bytes = strlen(value) + 1;
    entry *added;
    TL_TRY(add(state, path, TL_STATE_STRING, bytes, &added, error));
    memcpy(added->owned, value, bytes);
    added->shown.string = added->owned;
    return TL_OK;
}

/* ------------------------------------------------------------------ finding */

static const tl_state_entry *find_kind(const tl_state *state, const char *path,
                                       tl_state_kind kind) {
    const entry *e = find(state, path);
    return e != NULL && e->shown.kind == kind ? &e->shown : NULL;
}

const tl_state_array *tl_state_find_array(const tl_state *state, const char *path) {
    const tl_state_entry *found = find_kind(state, path, TL_STATE_ARRAY);
    return found != NULL ? &found->array : NULL;
}

bool tl_state_find_integer(const tl_state *state, const char *path, int64_t *value) {
    const tl_state_entry *found = find_kind(state, path, TL_STATE_INTEGER);
    if (found != NULL) {
        *value = found->integer;
    }
    return found != NULL;
}

bool tl_state_find_number(const tl_state *state, const char *path, double *value) {
    const tl_state_entry *found = find_kind(state, path, TL_STATE_NUMBER);
    int64_t integer;
    if (found != NULL) {
        *value = found->number;
        return true;
    }
    if (tl_state_find_integer(state, path, &integer)) {
        *value = (double)integer;
        return true;
    }
    return false;
}

const char *tl_state_find_string(const tl_state *state, const char *path) {
    const tl_state_entry *found = find_kind(state, path, TL_STATE_STRING);
    return found != NULL ? found->string : NULL;
}

static tl_status fail_missing(const tl_state *state, const char *path, const char *wanted,
                              tl_error *error) {
    static const char *const kinds[] = {
        [TL_STATE_ARRAY] = "an array",
        [TL_STATE_INTEGER] = "an integer",
        [TL_STATE_NUMBER] = "a number",
        [TL_STATE_STRING] = "a string",
    };
    const entry *e = find(state, path);
    return tl_fail(error, TL_ERROR_FORMAT, "state: expected %s '%s', found %s", wanted, path,
                   e != NULL ? kinds[e->shown.kind] : "nothing of that name");
}

tl_status tl_state_read_integer(const tl_state *state, const char *path, int64_t minimum,
                                int64_t maximum, int64_t *value, tl_error *error) {
    int64_t found;
    if (!tl_state_find_integer(state, path, &found)) {
        return fail_missing(state, path, "an integer", error);
    }
    if (found < minimum || found > maximum) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "state: expected '%s' in %" PRId64 " ... %" PRId64 ", found %" PRId64, path,
                       minimum, maximum, found);
    }
    *value = found;
    return TL_OK;
}

tl_status tl_state_read_number(const tl_state *state, const char *path, double minimum,
                               double maximum, double *value, tl_error *error) {
    double found;
    if (!tl_state_find_number(state, path, &found)) {
        return fail_missing(state, path, "a number", error);
    }
    if (!(found >= minimum && found <= maximum)) {
        return tl_fail(error, TL_ERROR_FORMAT, "state: expected '%s' in %g ... %g, found %g", path,
                       minimum, maximum, found);
    }
    *value = found;
    return TL_OK;
}

tl_status tl_state_read_string(const tl_state *state, const char *path, const char **value,
                               tl_error *error) {
    const char *found = tl_state_find_string(state, path);
    if (found == NULL) {
        return fail_missing(state, path, "a string", error);
    }
    *value = found;
    return TL_OK;
}

static bool shapes_fit(const tl_state_array *array, int rank, const int64_t *shape) {
    bool fit = array->rank == rank;
    for (int i = 0; i < rank && fit; i++) {
        fit = shape[i] == -1 || shape[i] == array->shape[i];
    }
    return fit;
}

tl_status tl_state_read_array(const tl_state *state, const char *path, tl_element_type type,
                              int rank, const int64_t *shape, const tl_state_array **array,
                              tl_error *error) {
    const tl_state_array *found = tl_state_find_array(state, path);
    if (found == NULL) {
        return fail_missing(state, path, "an array", error);
    }
    if (found->type != type) {
        return tl_fail(error, TL_ERROR_FORMAT, "state: expected '%s' of type %s, found %s", path,
                       tl_element_name(type), tl_element_name(found->type));
    }
    if (!shapes_fit(found, rank, shape)) {
        char expected_text[TL_SHAPE_TEXT_SIZE];
        char found_text[TL_SHAPE_TEXT_SIZE];
        return tl_fail(error, TL_ERROR_SHAPE, "state: expected '%s' of shape %s, found %s", path,
                       tl_shape_text(rank, shape, expected_text),
                       tl_shape_text(found->rank, found->shape, found_text));
    }
    *array = found;
    return TL_OK;
}

int tl_state_count(const tl_state *state) {
    return state->count;
}

tl_state_entry tl_state_at(const tl_state *state, int index) {
    return state->entries[index]->shown;
}
