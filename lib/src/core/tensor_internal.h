/* tensor_internal.h - the fields of a tensor. */
#ifndef TL_TENSOR_INTERNAL_H
#define TL_TENSOR_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include <tapeline/tape.h>
#include <tapeline/tensor.h>

#include "core/context_internal.h"

struct tl_node;

/* Values that several tensors (reshape) and nodes (saved for backward) may share. */
typedef struct tl_storage {
    tl_real *data; /* NULL while unmade or given up: `maker` can compute it */
    size_t bytes;
    int references;
    int holders;             /* those of the references that are tensors */
    bool borrowed;           /* the caller's memory: never released by us */
    struct tl_node *maker;   /* knows how to compute the values; or NULL */
    struct tl_node *counter; /* the node in whose cost it counts as kept for backward; or NULL */
} tl_storage;

struct tl_tensor {
    tl_context *context;
    tl_tape *tape;       /* NULL: persistent */
    tl_storage *storage; /* NULL once released */
    tl_storage own_storage;
    tl_real *grad;
    bool has_grad; /* grad holds a contribution; otherwise it counts as zero */
    bool requires_grad;
    bool keeps_grad; /* through the backward pass */
    int uses;        /* nodes that will still add to grad, while a backward pass counts them */
    tl_tape
        *changed_by; /* of a persistent tensor: the tape that can put its values back; or NULL */
    int rank;
    int64_t shape[TL_MAX_RANK];
    int64_t size;
};

/* "[2, 3, 5]" in `text`, which is returned. */
enum { TL_SHAPE_TEXT_SIZE = 200 };
const char *tl_shape_text(int rank, const int64_t *shape, char text[TL_SHAPE_TEXT_SIZE]);

/* The product of the extents; false if an extent is below 1, the rank is out of range or the
 * bytes of as many tl_real would overflow. */
bool tl_shape_size(int rank, const int64_t *shape, int64_t *size);

#endif
