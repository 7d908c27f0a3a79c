#include "core/tape_internal.h"

#include <stdio.h>
#include <string.h>

enum { ARENA_CHUNK_BYTES = 64 * 1024, ARENA_ALIGNMENT = 16 };

static const size_t arena_header =
    (sizeof(tl_arena_chunk) + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;

tl_tape *tl_tape_create(tl_context *context) {
    const bool owns_context = context == NULL;
    if (owns_context) {
        context = tl_context_create(NULL);
        if (context == NULL) {
            return NULL;
        }
    }
    tl_tape *tape = tl_memory_allocate_zeroed(context, 1, sizeof *tape);
    tl_pool *pool = tl_pool_create(context);
    if (tape == NULL || pool == NULL) {
        tl_memory_release(context, tape, sizeof *tape);
        tl_pool_free(pool);
        if (owns_context) {
            tl_context_free(context);
        }
        return NULL;
    }
    tape->context = context;
    tape->owns_context = owns_context;
    tape->pool = pool;
    tape->recording = true;
    tape->training = true;
    return tape;
}

void tl_tape_free(tl_tape *tape) {
    if (tape == NULL) {
        return;
    }
    tl_tape_reset(tape);
    tl_context *context = tape->context;
    for (tl_arena_chunk *chunk = tape->arena; chunk != NULL;) {
        tl_arena_chunk *next = chunk->next;
        tl_memory_release(context, chunk, arena_header + chunk->capacity);
        chunk = next;
    }
    tl_pool_free(tape->pool);
    tl_memory_release(context, tape->tensors, tape->tensor_capacity * sizeof *tape->tensors);
    tl_memory_release(context, tape->cost_entries,
                      (size_t)tape->cost_capacity * sizeof *tape->cost_entries);
    const bool owns_context = tape->owns_context;
    tl_memory_release(context, tape, sizeof *tape);
    if (owns_context) {
        tl_context_free(context);
    }
}

static void release_node(tl_tape *tape, tl_node *node) {
    for (tl_node_memory *m = node->kept; m != NULL; m = m->next) {
        tl_pool_release(tape->pool, m->memory);
    }
    for (int i = 0; i < node->input_count; i++) {
        tl_storage_drop(tape, node->saved_inputs[i]);
    }
    tl_storage_drop(tape, node->saved_output);
}

void tl_tape_reset(tl_tape *tape) {
    tl_tape_keep_changes(tape);
    for (tl_node *node = tape->last_node; node != NULL; node = node->previous) {
        release_node(tape, node);
    }
    tape->last_node = NULL;
    for (size_t i = 0; i < tape->tensor_count; i++) {
        tl_tensor *tensor = tape->tensors[i];
        tl_pool_release(tape->pool, tensor->grad);
        tl_storage_drop(tape, tensor->storage);
    }
    tape->tensor_count = 0;
    for (tl_arena_chunk *chunk = tape->arena; chunk != NULL; chunk = chunk->next) {
        chunk->used = 0;
    }
    tape->arena_current = tape->arena;
    tape->cost_count = 0;
    tape->backward_done = false;
    tl_error_clear(&tape->error);
    tl_pool_next_step(tape->pool);
}

void tl_tape_trim(tl_tape *tape) {
    tl_pool_trim(tape->pool);
}

tl_context *tl_tape_context(const tl_tape *tape) {
    return tape->context;
}

void tl_tape_set_recording(tl_tape *tape, bool recording) {
    tape->recording = recording;
}

bool tl_tape_is_recording(const tl_tape *tape) {
    return tape->recording;
}

void tl_tape_set_training(tl_tape *tape, bool training) {
    tape->training = training;
}

bool tl_tape_is_training(const tl_tape *tape) {
    return tape->training;
}

void tl_tape_set_random(tl_tape *tape, uint64_t seed, uint64_t position) {
    tape->random_seed = seed;
    tape->random_position = position;
    tape->random_start = position;
}

uint64_t tl_tape_random_seed(const tl_tape *tape) {
    return tape->random_seed;
}

uint64_t tl_tape_random_position(const tl_tape *tape) {
    return tape->random_position;
}

uint64_t tl_tape_next_random(tl_tape *tape) {
    return tape->random_position++;
}

void tl_tape_set_check_finite(tl_tape *tape, bool check) {
    tape->check_finite = check;
}

tl_status tl_tape_status(const tl_tape *tape) {
    return tape->error.status;
}

const tl_error *tl_tape_error(const tl_tape *tape) {
    return &tape->error;
}

/* ------------------------------------------------------------------ failure */

bool tl_tape_will_change(tl_tape *tape, const char *what, tl_tensor *tensor) {
    if (tensor->changed_by != NULL) {
        return true; /* the values from before the step are kept already */
    }
    const size_t bytes = tensor->own_storage.bytes;
    tl_change *change = tl_tape_arena(tape, sizeof *change);
    tl_real *before = change != NULL ? tl_tape_arena(tape, bytes) : NULL;
    if (before == NULL) {
        (void)tl_tape_fail_memory(tape, what, bytes);
        return false;
    }
    memcpy(before, tensor->own_storage.data, bytes);
    *change = (tl_change){.tensor = tensor, .before = before, .previous = tape->last_change};
    tape->last_change = change;
    tensor->changed_by = tape;
    return true;
}

void tl_tape_keep_changes(tl_tape *tape) {
    for (tl_change *change = tape->last_change; change != NULL; change = change->previous) {
        if (change->tensor != NULL) {
            change->tensor->changed_by = NULL;
        }
    }
    tape->last_change = NULL;
    tape->random_start = tape->random_position;
}

void tl_tape_forget_change(tl_tape *tape, const tl_tensor *tensor) {
    for (tl_change *change = tape->last_change; change != NULL; change = change->previous) {
        if (change->tensor == tensor) {
            change->tensor = NULL;
        }
    }
}

/* After the first error: as if the step had not been begun. */
static void undo_changes(tl_tape *tape) {
    for (tl_change *change = tape->last_change; change != NULL; change = change->previous) {
        if (change->tensor != NULL) {
            const tl_storage *storage = &change->tensor->own_storage;
            memcpy(storage->data, change->before, storage->bytes);
        }
    }
    tape->random_position = tape->random_start;
    tl_tape_keep_changes(tape);
}

tl_status tl_tape_fail(tl_tape *tape, tl_status status, const char *format, ...) {
    if (tape->error.status == TL_OK) {
        va_list arguments;
        va_start(arguments, format);
        (void)tl_fail_v(&tape->error, status, format, arguments);
        va_end(arguments);
        undo_changes(tape);
    }
    return tape->error.status;
}

tl_status tl_tape_fail_memory(tl_tape *tape, const char *what, size_t bytes) {
    if (tape->error.status == TL_OK) {
        (void)tl_memory_fail(tape->context, &tape->error, what, bytes);
        undo_changes(tape);
    }
    return tape->error.status;
}

static tl_arena_chunk *arena_chunk_create(tl_tape *tape, size_t capacity) {
    tl_arena_chunk *chunk = tl_memory_allocate(tape->context, arena_header + capacity);
    if (chunk != NULL) {
        *chunk = (tl_arena_chunk){.capacity = capacity};
    }
    return chunk;
}

void *tl_tape_arena(tl_tape *tape, size_t bytes) {
    const size_t rounded = (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    if (rounded < bytes) {
        return NULL;
    }
    tl_arena_chunk *chunk = tape->arena_current;
    tl_arena_chunk *last = NULL;
    while (chunk != NULL && chunk->capacity - chunk->used < rounded) {
        last = chunk;
        chunk = chunk->next;
    }
    if (chunk == NULL) {
        const size_t smallest = ARENA_CHUNK_BYTES;
        chunk = arena_chunk_create(tape, rounded > smallest ? rounded : smallest);
        if (chunk == NULL) {
            return NULL;
        }
        if (last != NULL) {
            last->next = chunk;
        } else {
            tape->arena = chunk;
        }
    }
    tape->arena_current = chunk;
    char *memory = (char *)chunk + arena_header + chunk->used;
    chunk->used += rounded;
    memset(memory, 0, rounded);
    return memory;
}

void tl_storage_drop(tl_tape *tape, tl_storage *storage) {
    if (storage == NULL) {
        return;
    }
    storage->references--;
    if (storage->references == 0 && !storage->borrowed) {
        tl_pool_release(tape->pool, storage->data);
        storage->data = NULL;
    }
}

static bool tensors_reserve(tl_tape *tape) {
    if (tape->tensor_count < tape->tensor_capacity) {
        return true;
    }
    const size_t capacity = tape->tensor_capacity == 0 ? 256 : 2 * tape->tensor_capacity;
    tl_tensor **grown =
        tl_memory_reallocate(tape->context, tape->tensors, tape->tensor_capacity * sizeof *grown,
                             capacity * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    tape->tensors = grown;
    tape->tensor_capacity = capacity;
    return true;
}

tl_tensor *tl_tape_new_tensor(tl_tape *tape, const char *what, int rank, const int64_t *shape) {
    int64_t size;
    if (!tl_shape_size(rank, shape, &size)) {
        char text[TL_SHAPE_TEXT_SIZE];
        (void)tl_tape_fail(tape, TL_ERROR_SHAPE,
                           "%s: a tensor needs a rank of 0 to %d, extents of at least 1 and a size "
                           "that fits in memory, found rank %d %s",
                           what, TL_MAX_RANK, rank, tl_shape_text(rank, shape, text));
        return NULL;
    }
    tl_tensor *tensor = tensors_reserve(tape) ? tl_tape_arena(tape, sizeof *tensor) : NULL;
    if (tensor == NULL) {
        (void)tl_tape_fail_memory(tape, what, sizeof *tensor);
        return NULL;
    }
    tensor->context = tape->context;
    tensor->tape = tape;
    tensor->rank = rank;
    for (int i = 0; i < rank; i++) {
        tensor->shape[i] = shape[i];
    }
    tensor->size = size;
    tape->tensors[tape->tensor_count++] = tensor;
    return tensor;
}

static tl_tensor *input_create(tl_tape *tape, const tl_array *array, bool with_grad) {
    if (tape->error.status != TL_OK) {
        return NULL;
    }
    if (array == NULL || array->data == NULL) {
        (void)tl_tape_fail(tape, TL_ERROR_INVALID_ARGUMENT, "input: the array has no data");
        return NULL;
    }
    tl_tensor *tensor = tl_tape_new_tensor(tape, "input", array->rank, array->shape);
    if (tensor == NULL) {
        return NULL;
    }
    tensor->own_storage = (tl_storage){.data = array->data,
                                       .bytes = (size_t)tensor->size * sizeof(tl_real),
                                       .references = 1,
                                       .holders = 1,
                                       .borrowed = true};
    tensor->storage = &tensor->own_storage;
    tensor->requires_grad = with_grad;
    tensor->keeps_grad = with_grad;
    return tensor;
}

tl_tensor *tl_input(tl_tape *tape, const tl_array *array) {
    return input_create(tape, array, false);
}

tl_tensor *tl_input_with_grad(tl_tape *tape, const tl_array *array) {
    return input_create(tape, array, true);
}

/* Of a result that the caller has released and that is kept for backward only: gives the memory
 * back if its node can compute it again. */
static void storage_forget(tl_tape *tape, tl_storage *storage) {
    if (storage->maker == NULL || storage->holders > 0 || storage->references == 0 ||
        tape->backward_done) {
        return;
    }
    tl_pool_release(tape->pool, storage->data);
    storage->data = NULL;
    if (storage->counter != NULL) {
        tape->cost_entries[storage->counter->cost_entry].cost.saved_bytes -= storage->bytes;
        storage->counter = NULL;
    }
    const tl_node *maker = storage->maker;
    tape->cost_entries[maker->cost_entry].cost.backward_flops_executed += maker->recompute_flops;
}

void tl_release(tl_tape *tape, tl_tensor *tensor) {
    if (tensor == NULL || tensor->tape != tape || tensor->storage == NULL) {
        return;
    }
    tl_storage *storage = tensor->storage;
    tensor->storage = NULL;
    storage->holders--;
    tl_storage_drop(tape, storage);
    storage_forget(tape, storage);
}

void tl_retain_grad(tl_tape *tape, tl_tensor *tensor) {
    if (tensor != NULL && tensor->tape == tape) {
        tensor->keeps_grad = true;
    }
}

tl_cost tl_tape_cost(const tl_tape *tape) {
    tl_cost total = {0};
    for (int i = 0; i < tape->cost_count; i++) {
        const tl_cost *cost = &tape->cost_entries[i].cost;
        total.forward_flops += cost->forward_flops;
        total.backward_flops += cost->backward_flops;
        total.forward_flops_executed += cost->forward_flops_executed;
        total.backward_flops_executed += cost->backward_flops_executed;
        total.saved_bytes += cost->saved_bytes;
    }
    return total;
}

const tl_cost_entry *tl_tape_cost_entries(const tl_tape *tape, int *count) {
    *count = tape->cost_count;
    return tape->cost_entries;
}
