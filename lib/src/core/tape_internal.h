/* tape_internal.h - the fields of a tape and its nodes. Operations use op.h. */
#ifndef TL_TAPE_INTERNAL_H
#define TL_TAPE_INTERNAL_H

#include "core/pool.h"
#include "core/ranks.h"
#include "core/tensor_internal.h"

typedef struct tl_node tl_node;

typedef void (*tl_backward_function)(tl_node *node);
/* Computes a node's result once more, into `output`, from the inputs that it saved. */
typedef void (*tl_recompute_function)(tl_node *node, tl_real *output);

/* The same in parts, for a reader that then asks for them. False after an error. */
typedef bool (*tl_recompute_parts_function)(tl_node *node, tl_parts *parts);

/* Prepares to see the gradient of the node's result as it is completed. False if there is nothing
 * to see, or after an error. */
typedef bool (*tl_watch_grad_function)(tl_node *node, tl_watch *watch);

/* A piece of pool memory that goes with a node. */
typedef struct tl_node_memory {
    void *memory;
    size_t bytes;
    struct tl_node_memory *next;
} tl_node_memory;

struct tl_node {
    tl_tape *tape;
    const char *operation;
    tl_backward_function backward;
    tl_recompute_function recompute;             /* NULL: the result cannot be had again */
    tl_recompute_parts_function recompute_parts; /* or NULL */
    double recompute_flops;
    tl_watch_grad_function watch_grad; /* or NULL */
    bool reads_parts;     /* backward takes the result's gradient and inputs[0] in parts */
    tl_parts grad_parts;  /* of the input whose gradient the node has deferred */
    tl_node *parts_maker; /* the node that makes inputs[0] in parts; or NULL */
    void *state;
    int input_count;
    tl_tensor **inputs;
    tl_storage **saved_inputs; /* NULL where backward does not read the input */
    tl_storage *saved_output;
    tl_tensor *output;
    tl_node_memory *kept;    /* until backward has run */
    tl_node_memory *scratch; /* until the current call ends */
    tl_cost cost;
    int cost_entry; /* its row in the tape's report */
    bool executed_set;
    bool grad_passed;  /* the output's gradient buffer was handed to an input */
    bool grad_unmoved; /* ... with the values that it had */
    tl_node *previous; /* on the tape */
};

/* What a persistent tensor held before an operation of this step changed it. */
typedef struct tl_change {
    tl_tensor *tensor;
    tl_real *before;
    struct tl_change *previous;
} tl_change;

/* Small things that live until the reset: nodes, tensors, states. */
typedef struct tl_arena_chunk {
    struct tl_arena_chunk *next;
    size_t capacity;
    size_t used;
} tl_arena_chunk;

struct tl_tape {
    tl_context *context;
    bool owns_context;
    bool recording;
    bool training;
    bool check_finite;
    bool backward_done;
    uint64_t random_seed;
    uint64_t random_position;
    uint64_t random_start; /* where the step began */
    tl_change *last_change;
    tl_error error;
    tl_pool *pool;
    tl_arena_chunk *arena;         /* first chunk */
    tl_arena_chunk *arena_current; /* chunk that is being filled */
    tl_tensor **tensors;           /* all tensors of the step */
    size_t tensor_count;
    size_t tensor_capacity;
    tl_node *last_node;
    tl_node *deferred; /* whose input's gradient the next node of a backward pass makes; or NULL */
    tl_cost_entry *cost_entries;
    int cost_count;
    int cost_capacity;
    struct tl_profile *profile; /* NULL: nothing is timed */
    const tl_ranks *ranks;      /* NULL: this process works alone */
    bool synchronize_batch_norm;
    /* NULL, or is told in the backward pass of each parameter whose gradient is complete */
    void (*gradient_ready)(void *user, tl_tensor *parameter);
    void *gradient_user;
};

/* The tape's first error wins. Returns `status`. */
tl_status tl_tape_fail(tl_tape *tape, tl_status status, const char *format, ...) TL_PRINTF(3, 4);
tl_status tl_tape_fail_memory(tl_tape *tape, const char *what, size_t bytes);

/* Memory until the reset, zeroed; NULL if it fails (no error is recorded). */
void *tl_tape_arena(tl_tape *tape, size_t bytes);

/* A new tensor without values, or NULL with the error recorded. */
tl_tensor *tl_tape_new_tensor(tl_tape *tape, const char *what, int rank, const int64_t *shape);

/* An operation is about to change a persistent tensor (running statistics). Should the step fail
 * before its backward pass is through, the tape puts the values back. False, with the error
 * recorded, if memory fails. */
bool tl_tape_will_change(tl_tape *tape, const char *what, tl_tensor *tensor);
/* From here on the step's changes stand. */
void tl_tape_keep_changes(tl_tape *tape);
/* The tensor is about to be freed. */
void tl_tape_forget_change(tl_tape *tape, const tl_tensor *tensor);

/* Makes the values of a result that was left unmade or given up, if they are not there. False after
 * an error. */
bool tl_tape_make_values(tl_tape *tape, tl_storage *storage);

/* Drops a reference; memory of the pool goes back with the last one. */
void tl_storage_drop(tl_tape *tape, tl_storage *storage);

/* The next stream of the tape's random numbers. */
uint64_t tl_tape_next_random(tl_tape *tape);

#endif
