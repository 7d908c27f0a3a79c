/* op.h - what an operation is written with.
 *
 *   tl_tensor *tl_relu(tl_tape *tape, tl_tensor *x) {
 *       tl_op op;
 *       if (!tl_op_begin(&op, tape, "relu", 1, (tl_tensor *[]){x}, 0)) {
 *           return NULL;                                  // NULL input or an earlier error
 *       }
 *       tl_tensor *y = tl_op_output(&op, x->rank, x->shape);
 *       if (y == NULL) {
 *           return NULL;                                  // out of memory: already on the tape
 *       }
 *       ... compute y->storage->data ...
 *       tl_op_set_flops(&op, (double)x->size, (double)x->size);
 *       tl_op_save_output(&op);                           // backward reads y
 *       return tl_op_finish(&op, relu_backward);
 *   }
 *
 *   static void relu_backward(tl_node *node) {
 *       bool accumulate;
 *       tl_real *dx = tl_node_grad(node, 0, &accumulate); // NULL: not wanted, or out of memory
 *       if (dx != NULL) { ... tl_node_output_grad(node), tl_node_output(node) ... }
 *   }
 *
 * Everything an operation allocates this way is given back for it, also when it fails: it just
 * returns NULL after an error. Do not use a tl_op after tl_op_finish, tl_op_fail or a NULL.
 */
#ifndef TL_OP_H
#define TL_OP_H

#include "core/tape_internal.h"

typedef struct tl_op {
    tl_tape *tape;
    tl_node *node;
    bool recorded;   /* a gradient will be wanted: keep what backward needs */
    int64_t started; /* if there is a profile */
} tl_op;

/* Starts operation `name` (a string literal). Bit i of `optional` says that inputs[i] may be NULL.
 * False if the tape has an error, an input is missing, was released or is another tape's. */
bool tl_op_begin(tl_op *op, tl_tape *tape, const char *name, int count, tl_tensor *const *inputs,
                 unsigned optional);

/* The same for an operation that takes inputs[0] in parts if it can: it then calls one of
 * tl_op_input_parts (if tl_op_input_is_unmade) and tl_op_make_input before it reads that input. */
bool tl_op_begin_with_parts(tl_op *op, tl_tape *tape, const char *name, int count,
                            tl_tensor *const *inputs, unsigned optional);
bool tl_op_input_is_unmade(const tl_op *op);
bool tl_op_input_parts(tl_op *op, tl_parts *parts);
bool tl_op_make_input(tl_op *op);

/* Records an error, prefixed with the operation's name, and returns NULL. */
tl_tensor *tl_op_fail(tl_op *op, tl_status status, const char *format, ...) TL_PRINTF(3, 4);

/* The result; NULL (with the error recorded) if memory fails or an extent is below 1. */
tl_tensor *tl_op_output(tl_op *op, int rank, const int64_t *shape);
/* A result that is left to be made: whoever reads it makes it, whole or in parts, by what
 * tl_op_set_recompute and tl_op_set_recompute_parts say, which must be called. Only for what is
 * recorded (op->recorded), from saved inputs that are not themselves made again. */
tl_tensor *tl_op_output_unmade(tl_op *op, int rank, const int64_t *shape);
/* A result that shares the values of inputs[index] (reshape). */
tl_tensor *tl_op_output_view(tl_op *op, int index, int rank, const int64_t *shape);

/* Memory until tl_op_finish. NULL with the error recorded; 0 bytes give a valid pointer. */
void *tl_op_scratch(tl_op *op, size_t bytes);
/* Memory until the node's backward function has run (until tl_op_finish if nothing is recorded). */
void *tl_op_keep(tl_op *op, size_t bytes);
/* A zeroed struct for the backward function to find in node->state (sizes, config, pointers). */
void *tl_op_state(tl_op *op, size_t bytes);

/* Keeps values for backward. Nothing happens if nothing is recorded. */
void tl_op_save_input(tl_op *op, int index);
void tl_op_save_output(tl_op *op);

/* Says that the result can be computed again from the inputs that were saved, for so many FLOPs.
 * Once the caller has released it, it is then not kept for backward functions that read it but made
 * again when the first of them runs. */
void tl_op_set_recompute(tl_op *op, tl_recompute_function recompute, double flops);

/* With tl_op_set_recompute: says that the result can also be made in parts. */
void tl_op_set_recompute_parts(tl_op *op, tl_recompute_parts_function recompute_parts);
/* Says that backward would like to see the gradient that flows in as it is completed, where the
 * node that completes it can show it. */
void tl_op_set_watch_grad(tl_op *op, tl_watch_grad_function watch_grad);
/* Says that backward reads inputs[0], which is saved, by tl_node_input_parts and the gradient that
 * flows in by tl_node_output_grad_parts. */
void tl_op_set_reads_parts(tl_op *op);

/* FLOPs of the algorithm; `executed` is the same unless set apart. */
void tl_op_set_flops(tl_op *op, double forward, double backward);
void tl_op_set_flops_executed(tl_op *op, double forward, double backward);

/* Ends the operation: puts it on the tape and returns its result (NULL if an error occurred). */
tl_tensor *tl_op_finish(tl_op *op, tl_backward_function backward);

/* True if inputs[index] is there and wants a gradient. */
bool tl_op_wants(const tl_op *op, int index);

/* ---- in backward functions */

/* True if inputs[index] is there and wants a gradient. */
bool tl_node_wants(const tl_node *node, int index);
/* Saved values. */
const tl_real *tl_node_input(const tl_node *node, int index);
const tl_real *tl_node_output(const tl_node *node);
/* The gradient that flows in. */
const tl_real *tl_node_output_grad(const tl_node *node);

/* Of a node that reads parts: inputs[0] and the gradient that flows in. False after an error. */
bool tl_node_input_parts(tl_node *node, tl_parts *parts);
tl_parts tl_node_output_grad_parts(const tl_node *node);

/* Before the gradient of inputs[0] is written, which the node must then show: false if nobody wants
 * to see it, or if other nodes will add to it. */
bool tl_node_input_grad_watch(tl_node *node, tl_watch *watch);

/* A backward function may leave the gradient of one input to be made by the node that computed this
 * input, in parts, if that node is the next to run and reads parts, and nobody else reads or adds
 * to the gradient: all that tl_node_can_defer_grad tells. What `parts` needs (saved values,
 * scratch, the gradient that flowed in) stays until that node has run. */
bool tl_node_can_defer_grad(const tl_node *node, int index);
void tl_node_defer_grad(tl_node *node, int index, const tl_parts *parts);
/* The gradient that flows in, to be changed in place; NULL if somebody keeps it. */
tl_real *tl_node_own_output_grad(tl_node *node);

/* Where to put the gradient of inputs[index]: to be added to if *accumulate, else to be written in
 * full. NULL if it is not wanted, or memory failed (the error is then recorded: just return). */
tl_real *tl_node_grad(tl_node *node, int index, bool *accumulate);
/* The same, but where possible the buffer that tl_node_output_grad returns is handed over and
 * written in place: read each value of that gradient before writing the one at its place. At most
 * the first call for a node can hand over; sizes must be equal. */
tl_real *tl_node_grad_in_place(tl_node *node, int index, bool *accumulate);
/* The same with zeros put in first, for code that only adds. */
tl_real *tl_node_grad_zeroed(tl_node *node, int index);
/* For an operation whose gradient is that of its result (add, reshape): hands the buffer over, or
 * adds it. At most the first call for a node can hand over; sizes must be equal. */
void tl_node_pass_grad(tl_node *node, int index);
/* True if tl_node_pass_grad would hand the buffer over. */
bool tl_node_can_pass_grad(const tl_node *node, int index);

/* Memory until the node's backward function has run: for another node's call before. */
void *tl_node_keep(tl_node *node, size_t bytes);
/* Memory until the backward function returns; NULL with the error recorded. */
void *tl_node_scratch(tl_node *node, size_t bytes);

/* Gives back all scratch that the node holds, before the call ends: what comes next needs none of
 * it, and takes memory itself. */
void tl_node_release_scratch(tl_node *node);

#define TL_OP_KERNELS(op) ((op)->tape->context->kernels)
#define TL_OP_THREADS(op) ((op)->tape->context->threads)
#define TL_NODE_KERNELS(node) ((node)->tape->context->kernels)
#define TL_NODE_THREADS(node) ((node)->tape->context->threads)

#endif
