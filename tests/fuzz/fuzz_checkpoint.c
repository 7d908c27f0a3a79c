/* Fuzzes the checkpoint loader: files as they come, and checkpoints of ours with damage.
 *
 * An input whose first byte is even is a file. One whose first byte is odd is a list of changes to
 * a good checkpoint: triples of a position (4 bytes), what to do there, and a value. Whatever is
 * done, a file either loads, and then it is the good one bit for bit, or is refused: the digest in
 * the user block covers every byte. Files that carry a right digest over malformed HDF5 are not
 * made here; they are outside the promise (docs/reliability.md).
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz_support.h"

enum { CHANGE, TRUNCATE, EXTEND, ACTIONS, MOST_CHANGES = 8 };

static const size_t overhead = 1u << 20;

/* It lives as long as the process. */
static const uint8_t *good_checkpoint(size_t *size) {
    static uint8_t *good;
    static size_t good_size;
    if (good == NULL) {
        tl_context *context = fuzz_context();
        tl_error error = {0};
        tl_state *state = tl_state_create(context, &error);
        const float values[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
        const tl_state_array array = {
            .type = TL_FLOAT32, .rank = 2, .shape = {2, 3}, .data = values};
        fuzz_require(tl_state_put_array(state, "model/weight", &array, &error) == TL_OK &&
                         tl_state_put_string(state, "model/kind", "none", &error) == TL_OK &&
                         tl_state_put_integer(state, "training/step", 12, &error) == TL_OK,
                     error.message);
        const char *path = fuzz_file("good.h5", NULL, 0);
        fuzz_require(tl_checkpoint_save(context, path, state, &error) == TL_OK, error.message);
        tl_state_free(state);
        good = fuzz_read(path, &good_size);
    }
    *size = good_size;
    return good;
}

/* Makes the file; returns whether it is still the good one. */
static bool apply_changes(fuzz_reader *reader, uint8_t *file, size_t *size, size_t capacity) {
    size_t good_size;
    const uint8_t *good = good_checkpoint(&good_size);
    memcpy(file, good, good_size);
    *size = good_size;
    for (int i = 0; i < MOST_CHANGES && reader->left > 0; i++) {
        const size_t position = (size_t)fuzz_number(reader, 4);
        const int action = fuzz_byte(reader) % ACTIONS;
        const uint8_t value = fuzz_byte(reader);
        if (action == CHANGE && *size > 0) {
            file[position % *size] ^= value;
        } else if (action == TRUNCATE) {
            *size -= *size > 0 ? position % *size : 0;
        } else if (*size < capacity) {
            file[(*size)++] = value;
        }
    }
    return *size == good_size && memcmp(file, good, good_size) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    fuzz_reader reader = {data + 1, size - 1};
    const uint8_t *file = reader.data;
    size_t file_size = reader.left;
    uint8_t *copy = NULL;
    bool good = false;
    if (data[0] % 2 == 1) {
        size_t capacity;
        (void)good_checkpoint(&capacity);
        capacity += MOST_CHANGES;
        copy = malloc(capacity);
        fuzz_require(copy != NULL, "out of memory");
        good = apply_changes(&reader, copy, &file_size, capacity);
        file = copy;
    }
    const char *path = fuzz_file("model.h5", file, file_size);
    tl_error error = {0};
    tl_state *state = tl_checkpoint_load(fuzz_context(), path, &error);
    if (data[0] % 2 == 1) {
        fuzz_require((state != NULL) == good,
                     good ? "a good checkpoint was refused" : "a damaged checkpoint was loaded");
    }
    if (state == NULL) {
        fuzz_require_message(&error);
    }
    tl_state_free(state);
    fuzz_require_clean(overhead + 4 * file_size);
    free(copy);
    return 0;
}
