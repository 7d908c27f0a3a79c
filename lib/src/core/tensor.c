#include "core/tensor_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/tape_internal.h"

const char *tl_shape_text(int rank, const int64_t *shape, char text[TL_SHAPE_TEXT_SIZE]) {
    size_t length = 0;
    text[length++] = '[';
    for (int i = 0; i < rank && i < TL_MAX_RANK; i++) {
        const int written = snprintf(text + length, TL_SHAPE_TEXT_SIZE - length, "%s%" PRId64,
                                     i == 0 ? "" : ", ", shape[i]);
        length += (size_t)written;
    }
    text[length++] = ']';
    text[length] = '\0';
    return text;
}

bool tl_shape_size(int rank, const int64_t *shape, int64_t *size) {
    if (rank < 0 || rank > TL_MAX_RANK) {
        return false;
    }
    int64_t product = 1;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 1 || __builtin_mul_overflow(product, shape[i], &product)) {
            return false;
        }
    }
    int64_t bytes;
    if (__builtin_mul_overflow(product, (int64_t)sizeof(tl_real), &bytes)) {
        return false;
    }
    *size = product;
    return true;
}

tl_tensor *tl_tensor_create(tl_context *context, int rank, const int64_t *shape, bool requires_grad,
                            tl_error *error) {
    tl_error_clear(error);
    int64_t size;
    if (!tl_shape_size(rank, shape, &size)) {
        char text[TL_SHAPE_TEXT_SIZE];
        (void)tl_fail(error, TL_ERROR_SHAPE,
                      "tensor: wants a rank of 0 to %d and extents of at least 1, found rank %d %s",
                      TL_MAX_RANK, rank, tl_shape_text(rank, shape, text));
        return NULL;
    }
    const size_t bytes = (size_t)size * sizeof(tl_real);
    tl_tensor *tensor = tl_memory_allocate_zeroed(context, 1, sizeof *tensor);
    tl_real *data = tl_memory_allocate_zeroed(context, 1, bytes);
    if (tensor == NULL || data == NULL) {
        tl_memory_release(context, tensor, sizeof *tensor);
        tl_memory_release(context, data, bytes);
        (void)tl_memory_fail(context, error, "tensor", bytes);
        return NULL;
    }
    tensor->context = context;
    tensor->own_storage = (tl_storage){.data = data, .bytes = bytes, .references = 1};
    tensor->storage = &tensor->own_storage;
    tensor->requires_grad = requires_grad;
    tensor->keeps_grad = true;
    tensor->rank = rank;
    for (int i = 0; i < rank; i++) {
        tensor->shape[i] = shape[i];
    }
    tensor->size = size;
    return tensor;
}

void tl_tensor_free(tl_tensor *tensor) {
    if (tensor == NULL || tensor->tape != NULL) {
        return;
    }
    if (tensor->changed_by != NULL) {
        tl_tape_forget_change(tensor->changed_by, tensor);
    }
    tl_context *context = tensor->context;
    tl_memory_release(context, tensor->grad, tensor->own_storage.bytes);
    tl_memory_release(context, tensor->own_storage.data, tensor->own_storage.bytes);
    tl_memory_release(context, tensor, sizeof *tensor);
}

int tl_tensor_rank(const tl_tensor *tensor) {
    return tensor->rank;
}

const int64_t *tl_tensor_shape(const tl_tensor *tensor) {
    return tensor->shape;
}

int64_t tl_tensor_size(const tl_tensor *tensor) {
    return tensor->size;
}

tl_real *tl_tensor_data(tl_tensor *tensor) {
    if (tensor->storage == NULL) {
        return NULL;
    }
    if (tensor->tape != NULL) {
        (void)tl_tape_make_values(tensor->tape, tensor->storage);
    }
    return tensor->storage->data;
}

tl_real tl_tensor_item(tl_tensor *tensor) {
    if (tensor == NULL || tensor->storage == NULL || tensor->size != 1) {
        return (tl_real)NAN;
    }
    const tl_real *data = tl_tensor_data(tensor);
    return data != NULL ? data[0] : (tl_real)NAN;
}

const tl_real *tl_tensor_grad(const tl_tensor *tensor) {
    return tensor->has_grad ? tensor->grad : NULL;
}

bool tl_tensor_requires_grad(const tl_tensor *tensor) {
    return tensor->requires_grad;
}

void tl_tensor_set_requires_grad(tl_tensor *tensor, bool requires_grad) {
    if (tensor->tape == NULL) {
        tensor->requires_grad = requires_grad;
    }
}

void tl_tensor_clear_grad(tl_tensor *tensor) {
    tensor->has_grad = false;
}
