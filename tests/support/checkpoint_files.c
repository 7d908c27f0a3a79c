#include "support/checkpoint_files.h"

#include <math.h>
#include <string.h>

static void put(tl_state *state, const char *path, tl_element_type type, int rank,
                const int64_t *shape, const void *data) {
    tl_state_array array = {.type = type, .rank = rank, .data = data};
    for (int i = 0; i < rank; i++) {
        array.shape[i] = shape[i];
    }
    ck_assert_int_eq(tl_state_put_array(state, path, &array, NULL), TL_OK);
}

tl_state *sample_state(tl_context *context, int variant) {
    tl_state *state = tl_state_create(context, NULL);
    const float v = (float)variant;
    const float floats[6] = {v, -0.0f, INFINITY, -1e-42f, NAN, 0.1f};
    const double doubles[4] = {v + 1e-15, -0.0, 5e-324, 1.0 / 3};
    const int32_t integers[3] = {INT32_MIN, variant, INT32_MAX};
    const int64_t longs[2] = {INT64_MIN, INT64_MAX - variant};
    const unsigned char octets[5] = {0, 255, 7, 7, (unsigned char)variant};
    put(state, "model/stages/0/weight", TL_FLOAT32, 2, (int64_t[]){2, 3}, floats);
    put(state, "model/stages/0/deep", TL_FLOAT64, 8, (int64_t[]){1, 2, 1, 1, 2, 1, 1, 1}, doubles);
    put(state, "model/integers", TL_INT32, 1, (int64_t[]){3}, integers);
    put(state, "training/longs", TL_INT64, 1, (int64_t[]){2}, longs);
    put(state, "training/bytes", TL_UINT8, 2, (int64_t[]){5, 1}, octets);
    put(state, "training/scalar", TL_FLOAT64, 0, NULL, doubles);
    put(state, "training/nothing", TL_FLOAT32, 2, (int64_t[]){0, 4}, NULL);
    (void)tl_state_put_string(state, "model/stages/0/weight/axes", "out in", NULL);
    (void)tl_state_put_integer(state, "model/stages/0/weight/steps", INT64_MIN, NULL);
    (void)tl_state_put_string(state, "model/kind", "", NULL);
    (void)tl_state_put_string(state, "training/note", "gr\xc3\xbc\xc3\x9f dich / a.b \"c\"", NULL);
    (void)tl_state_put_number(state, "training/rate", 0.1 + variant, NULL);
    (void)tl_state_put_number(state, "training/nan", (double)NAN, NULL);
    (void)tl_state_put_integer(state, "training/only/values/here", -variant, NULL);
    (void)tl_state_put_integer(state, "variant", variant, NULL);
    ck_assert_int_eq(tl_state_count(state), 15);
    return state;
}

void save_sample(tl_context *context, const char *path, int variant) {
    tl_error error;
    tl_state *state = sample_state(context, variant);
    const tl_status status = tl_checkpoint_save(context, path, state, &error);
    ck_assert_msg(status == TL_OK, "%s", error.message);
    tl_state_free(state);
}

static void assert_same_array(const char *path, const tl_state_array *a, const tl_state_array *b) {
    ck_assert_msg(b != NULL, "%s is missing", path);
    ck_assert_msg(a->type == b->type && a->rank == b->rank, "%s has another type or rank", path);
    size_t size = tl_element_size(a->type);
    for (int i = 0; i < a->rank; i++) {
        ck_assert_int_eq(a->shape[i], b->shape[i]);
        size *= (size_t)a->shape[i];
    }
    ck_assert_msg(size == 0 || memcmp(a->data, b->data, size) == 0, "%s has other bits", path);
}

static void assert_same_entry(const tl_state_entry *want, const tl_state *state) {
    int64_t integer = 0;
    double number = 0;
    switch (want->kind) {
    case TL_STATE_ARRAY:
        assert_same_array(want->path, &want->array, tl_state_find_array(state, want->path));
        break;
    case TL_STATE_INTEGER:
        ck_assert(tl_state_find_integer(state, want->path, &integer) && integer == want->integer);
        break;
    case TL_STATE_NUMBER:
        ck_assert(tl_state_find_number(state, want->path, &number));
        ck_assert_msg(memcmp(&number, &want->number, sizeof number) == 0, "%s", want->path);
        break;
    case TL_STATE_STRING:
        ck_assert_str_eq(tl_state_find_string(state, want->path), want->string);
        break;
    }
}

void assert_holds_sample(tl_context *context, const char *path, int variant) {
    enum { OWN_ATTRIBUTES = 4 };
    tl_error error;
    tl_state *want = sample_state(context, variant);
    tl_state *got = tl_checkpoint_load(context, path, &error);
    ck_assert_msg(got != NULL, "%s", error.message);
    ck_assert_int_eq(tl_state_count(got), tl_state_count(want) + OWN_ATTRIBUTES);
    for (int i = 0; i < tl_state_count(want); i++) {
        const tl_state_entry entry = tl_state_at(want, i);
        assert_same_entry(&entry, got);
    }
    tl_state_free(want);
    tl_state_free(got);
}

int sample_variant(tl_context *context, const char *path) {
    tl_error error;
    tl_state *state = tl_checkpoint_load(context, path, &error);
    ck_assert_msg(state != NULL, "%s", error.message);
    int64_t variant = -1;
    ck_assert(tl_state_find_integer(state, "variant", &variant));
    tl_state_free(state);
    return (int)variant;
}
