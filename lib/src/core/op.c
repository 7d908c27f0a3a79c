#include "core/op.h"

#include <stdio.h>
#include <string.h>

#include "core/profile_internal.h"

static bool begin(tl_op *op, tl_tape *tape, const char *name, int count, tl_tensor *const *inputs,
                  unsigned optional) {
    *op = (tl_op){.tape = tape};
    if (tape == NULL || tape->error.status != TL_OK) {
        return false;
    }
    op->started = tape->profile != NULL ? tl_profile_now() : 0;
    bool wants = false;
    for (int i = 0; i < count; i++) {
        const tl_tensor *input = inputs[i];
        if (input == NULL) {
            if (i < 32 && (optional >> i & 1u) != 0) {
                continue;
            }
            (void)tl_tape_fail(tape, TL_ERROR_INVALID_ARGUMENT, "%s: input %d is NULL", name, i);
            return false;
        }
        if (input->tape != NULL && input->tape != tape) {
            (void)tl_tape_fail(tape, TL_ERROR_INVALID_ARGUMENT,
                               "%s: input %d belongs to another tape", name, i);
            return false;
        }
        if (input->storage == NULL) {
            (void)tl_tape_fail(tape, TL_ERROR_STATE, "%s: input %d was released before", name, i);
            return false;
        }
        wants = wants || input->requires_grad;
    }
    if (tape->backward_done && tape->recording) {
        (void)tl_tape_fail(tape, TL_ERROR_STATE,
                           "%s: the backward pass has run; reset the tape before the next step",
                           name);
        return false;
    }
    const size_t slots = (size_t)count;
    tl_node *node = tl_tape_arena(tape, sizeof *node);
    tl_tensor **copied = tl_tape_arena(tape, slots * sizeof *copied + 1);
    tl_storage **saved = tl_tape_arena(tape, slots * sizeof *saved + 1);
    if (node == NULL || copied == NULL || saved == NULL) {
        (void)tl_tape_fail_memory(tape, name, sizeof *node);
        return false;
    }
    for (int i = 0; i < count; i++) {
        copied[i] = inputs[i];
    }
    node->tape = tape;
    node->operation = name;
    node->input_count = count;
    node->inputs = copied;
    node->saved_inputs = saved;
    op->node = node;
    op->recorded = tape->recording && wants;
    return true;
}

static bool make_inputs(tl_op *op, int first) {
    for (int i = first; i < op->node->input_count; i++) {
        const tl_tensor *input = op->node->inputs[i];
        if (input != NULL && !tl_tape_make_values(op->tape, input->storage)) {
            return false;
        }
    }
    return true;
}

bool tl_op_begin(tl_op *op, tl_tape *tape, const char *name, int count, tl_tensor *const *inputs,
                 unsigned optional) {
    return begin(op, tape, name, count, inputs, optional) && make_inputs(op, 0);
}

bool tl_op_begin_with_parts(tl_op *op, tl_tape *tape, const char *name, int count,
                            tl_tensor *const *inputs, unsigned optional) {
    return begin(op, tape, name, count, inputs, optional) && make_inputs(op, 1);
}

bool tl_op_input_is_unmade(const tl_op *op) {
    return op->node->inputs[0]->storage->data == NULL;
}

bool tl_op_make_input(tl_op *op) {
    return tl_tape_make_values(op->tape, op->node->inputs[0]->storage);
}

bool tl_op_input_parts(tl_op *op, tl_parts *parts) {
    tl_node *maker = op->node->inputs[0]->storage->maker;
    op->node->parts_maker = maker;
    return maker->recompute_parts(maker, parts);
}

static void memory_release(tl_tape *tape, tl_node_memory **list) {
    for (tl_node_memory *m = *list; m != NULL; m = m->next) {
        tl_pool_release(tape->pool, m->memory);
    }
    *list = NULL;
}

static void *memory_add(tl_node *node, tl_node_memory **list, size_t bytes) {
    tl_tape *tape = node->tape;
    if (tape->error.status != TL_OK) {
        return NULL;
    }
    tl_node_memory *m = tl_tape_arena(tape, sizeof *m);
    void *memory = m != NULL ? tl_pool_allocate(tape->pool, bytes) : NULL;
    if (memory == NULL) {
        (void)tl_tape_fail_memory(tape, node->operation, bytes);
        return NULL;
    }
    *m = (tl_node_memory){.memory = memory, .bytes = bytes, .next = *list};
    *list = m;
    return memory;
}

/* Gives back what the node that made inputs[0] in parts took for that. */
static void release_parts(tl_node *node) {
    if (node->parts_maker != NULL) {
        memory_release(node->tape, &node->parts_maker->scratch);
    }
}

/* Gives back all that an operation took when it does not make it onto the tape. */
static void node_discard(tl_node *node) {
    tl_tape *tape = node->tape;
    memory_release(tape, &node->scratch);
    memory_release(tape, &node->kept);
    for (int i = 0; i < node->input_count; i++) {
        tl_storage_drop(tape, node->saved_inputs[i]);
        node->saved_inputs[i] = NULL;
    }
    tl_storage_drop(tape, node->saved_output);
    node->saved_output = NULL;
}

tl_tensor *tl_op_fail(tl_op *op, tl_status status, const char *format, ...) {
    char message[TL_ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    (void)tl_tape_fail(op->tape, status, "%s: %s", op->node->operation, message);
    (void)tl_op_finish(op, NULL);
    return NULL;
}

tl_tensor *tl_op_output_unmade(tl_op *op, int rank, const int64_t *shape) {
    tl_tensor *output = tl_tape_new_tensor(op->tape, op->node->operation, rank, shape);
    if (output == NULL) {
        (void)tl_op_finish(op, NULL);
        return NULL;
    }
    output->own_storage = (tl_storage){
        .bytes = (size_t)output->size * sizeof(tl_real), .references = 1, .holders = 1};
    output->storage = &output->own_storage;
    output->requires_grad = op->recorded;
    op->node->output = output;
    return output;
}

tl_tensor *tl_op_output(tl_op *op, int rank, const int64_t *shape) {
    tl_tensor *output = tl_op_output_unmade(op, rank, shape);
    if (output == NULL) {
        return NULL;
    }
    tl_storage *storage = output->storage;
    storage->data = tl_pool_allocate(op->tape->pool, storage->bytes);
    if (storage->data == NULL) {
        (void)tl_tape_fail_memory(op->tape, op->node->operation, storage->bytes);
        (void)tl_op_finish(op, NULL);
        return NULL;
    }
    return output;
}

tl_tensor *tl_op_output_view(tl_op *op, int index, int rank, const int64_t *shape) {
    tl_tensor *output = tl_tape_new_tensor(op->tape, op->node->operation, rank, shape);
    if (output == NULL) {
        (void)tl_op_finish(op, NULL);
        return NULL;
    }
    output->storage = op->node->inputs[index]->storage;
    output->storage->references++;
    output->storage->holders++;
    output->requires_grad = op->recorded;
    op->node->output = output;
    return output;
}

void *tl_op_scratch(tl_op *op, size_t bytes) {
    void *memory = memory_add(op->node, &op->node->scratch, bytes);
    if (memory == NULL) {
        (void)tl_op_finish(op, NULL);
    }
    return memory;
}

void *tl_op_keep(tl_op *op, size_t bytes) {
    void *memory = memory_add(op->node, &op->node->kept, bytes);
    if (memory == NULL) {
        (void)tl_op_finish(op, NULL);
    }
    return memory;
}

void *tl_op_state(tl_op *op, size_t bytes) {
    void *state = tl_tape_arena(op->tape, bytes);
    if (state == NULL) {
        (void)tl_tape_fail_memory(op->tape, op->node->operation, bytes);
        (void)tl_op_finish(op, NULL);
    }
    op->node->state = state;
    return state;
}

void tl_op_save_input(tl_op *op, int index) {
    if (!op->recorded || op->node->saved_inputs[index] != NULL) {
        return;
    }
    const tl_tensor *input = op->node->inputs[index];
    tl_storage *storage = input->storage;
    if (input->tape == NULL) { /* a parameter may be freed before the tape is reset */
        storage = tl_tape_arena(op->tape, sizeof *storage);
        if (storage == NULL) {
            (void)tl_tape_fail_memory(op->tape, op->node->operation, sizeof *storage);
            return;
        }
        *storage = (tl_storage){
            .data = input->storage->data, .bytes = input->storage->bytes, .borrowed = true};
    }
    storage->references++;
    op->node->saved_inputs[index] = storage;
}

void tl_op_save_output(tl_op *op) {
    if (op->recorded && op->node->saved_output == NULL) {
        op->node->saved_output = op->node->output->storage;
        op->node->saved_output->references++;
    }
}

void tl_op_set_recompute(tl_op *op, tl_recompute_function recompute, double flops) {
    if (op->recorded) {
        op->node->recompute = recompute;
        op->node->recompute_flops = flops;
        op->node->output->storage->maker = op->node;
    }
}

void tl_op_set_recompute_parts(tl_op *op, tl_recompute_parts_function recompute_parts) {
    op->node->recompute_parts = recompute_parts;
}

void tl_op_set_watch_grad(tl_op *op, tl_watch_grad_function watch_grad) {
    op->node->watch_grad = watch_grad;
}

void tl_op_set_reads_parts(tl_op *op) {
    op->node->reads_parts = true;
}

void tl_op_set_flops(tl_op *op, double forward, double backward) {
    tl_cost *cost = &op->node->cost;
    cost->forward_flops = forward;
    cost->backward_flops = backward;
    if (!op->node->executed_set) {
        cost->forward_flops_executed = forward;
        cost->backward_flops_executed = backward;
    }
}

void tl_op_set_flops_executed(tl_op *op, double forward, double backward) {
    op->node->executed_set = true;
    op->node->cost.forward_flops_executed = forward;
    op->node->cost.backward_flops_executed = backward;
}

static void count_saved(tl_node *node, tl_storage *storage, uint64_t *bytes) {
    if (storage != NULL && storage->counter == NULL) {
        storage->counter = node;
        *bytes += storage->bytes;
    }
}

/* Bytes this node keeps for backward, beyond what other nodes keep already. Parameters, which live
 * anyway, do not count. */
static uint64_t saved_bytes(tl_node *node) {
    uint64_t bytes = 0;
    for (int i = 0; i < node->input_count; i++) {
        if (node->saved_inputs[i] != NULL && node->inputs[i]->tape != NULL) {
            count_saved(node, node->saved_inputs[i], &bytes);
        }
    }
    count_saved(node, node->saved_output, &bytes);
    for (const tl_node_memory *m = node->kept; m != NULL; m = m->next) {
        bytes += m->bytes;
    }
    return bytes;
}

static void count_cost(tl_tape *tape, tl_node *node) {
    tl_cost_entry *entry = NULL;
    for (int i = 0; i < tape->cost_count && entry == NULL; i++) {
        if (strcmp(tape->cost_entries[i].operation, node->operation) == 0) {
            entry = &tape->cost_entries[i];
        }
    }
    if (entry == NULL) {
        if (tape->cost_count == tape->cost_capacity) {
            const int capacity = tape->cost_capacity == 0 ? 32 : 2 * tape->cost_capacity;
            tl_cost_entry *grown = tl_memory_reallocate(tape->context, tape->cost_entries,
                                                        (size_t)tape->cost_capacity * sizeof *grown,
                                                        (size_t)capacity * sizeof *grown);
            if (grown == NULL) {
                (void)tl_tape_fail_memory(tape, "cost report", sizeof *grown);
                return;
            }
            tape->cost_entries = grown;
            tape->cost_capacity = capacity;
        }
        entry = &tape->cost_entries[tape->cost_count++];
        *entry = (tl_cost_entry){.operation = node->operation};
    }
    node->cost_entry = (int)(entry - tape->cost_entries);
    entry->calls++;
    entry->cost.forward_flops += node->cost.forward_flops;
    entry->cost.backward_flops += node->cost.backward_flops;
    entry->cost.forward_flops_executed += node->cost.forward_flops_executed;
    entry->cost.backward_flops_executed += node->cost.backward_flops_executed;
    entry->cost.saved_bytes += node->cost.saved_bytes;
}

static bool all_finite(const tl_node *node, const tl_real *values, int64_t count) {
    return TL_NODE_KERNELS(node)->vector->is_finite(TL_NODE_THREADS(node), count, values);
}

tl_tensor *tl_op_finish(tl_op *op, tl_backward_function backward) {
    tl_tape *tape = op->tape;
    tl_node *node = op->node;
    tl_tensor *output = node->output;
    memory_release(tape, &node->scratch);
    release_parts(node);
    if (tape->error.status == TL_OK && tape->check_finite &&
        !all_finite(node, output->storage->data, output->size)) {
        (void)tl_tape_fail(tape, TL_ERROR_NOT_FINITE, "%s: the result has a NaN or an infinity",
                           node->operation);
    }
    if (tape->error.status != TL_OK) {
        node_discard(node);
        return NULL;
    }
    if (op->recorded) {
        node->parts_maker = NULL; /* backward asks for parts of its own */
        node->cost.saved_bytes = saved_bytes(node);
        node->backward = backward;
        node->previous = tape->last_node;
        tape->last_node = node;
    } else {
        node_discard(node);
        node->cost.backward_flops = 0.0;
        node->cost.backward_flops_executed = 0.0;
    }
    count_cost(tape, node);
    if (tape->profile != NULL) {
        tl_profile_add_forward(tape->profile, node, op->started);
    }
    return tape->error.status == TL_OK ? output : NULL;
}

bool tl_op_wants(const tl_op *op, int index) {
    return tl_node_wants(op->node, index);
}

bool tl_node_wants(const tl_node *node, int index) {
    return node->inputs[index] != NULL && node->inputs[index]->requires_grad;
}

const tl_real *tl_node_input(const tl_node *node, int index) {
    return node->saved_inputs[index]->data;
}

const tl_real *tl_node_output(const tl_node *node) {
    return node->saved_output->data;
}

const tl_real *tl_node_output_grad(const tl_node *node) {
    return node->output->grad;
}

bool tl_node_input_parts(tl_node *node, tl_parts *parts) {
    tl_storage *storage = node->saved_inputs[0];
    if (storage->data != NULL) {
        *parts = (tl_parts){.values = storage->data};
        return true;
    }
    node->parts_maker = storage->maker;
    return storage->maker->recompute_parts(storage->maker, parts);
}

tl_parts tl_node_output_grad_parts(const tl_node *node) {
    const tl_node *deferred = node->tape->deferred;
    return deferred != NULL ? deferred->grad_parts : (tl_parts){.values = node->output->grad};
}

bool tl_node_can_defer_grad(const tl_node *node, int index) {
    const tl_node *next = node->previous;
    const tl_tensor *input = node->inputs[index];
    return tl_node_wants(node, index) && next != NULL && next->output == input &&
           next->reads_parts && !input->has_grad && input->grad == NULL && !input->keeps_grad &&
           !node->tape->check_finite && node->tape->error.status == TL_OK;
}

void tl_node_defer_grad(tl_node *node, int index, const tl_parts *parts) {
    node->inputs[index]->has_grad = true;
    node->grad_parts = *parts;
    node->tape->deferred = node;
}

tl_real *tl_node_own_output_grad(tl_node *node) {
    return node->output->keeps_grad ? NULL : node->output->grad;
}

/* Makes sure that a tensor has a gradient buffer. */
static bool ensure_grad(tl_node *node, tl_tensor *tensor) {
    if (tensor->grad != NULL) {
        return true;
    }
    tl_tape *tape = node->tape;
    const size_t bytes = (size_t)tensor->size * sizeof(tl_real);
    tensor->grad = tensor->tape == NULL ? tl_memory_allocate(tensor->context, bytes)
                                        : tl_pool_allocate(tape->pool, bytes);
    if (tensor->grad == NULL) {
        (void)tl_tape_fail_memory(tape, node->operation, bytes);
        return false;
    }
    return true;
}

tl_real *tl_node_grad(tl_node *node, int index, bool *accumulate) {
    if (!tl_node_wants(node, index) || node->tape->error.status != TL_OK) {
        return NULL;
    }
    tl_tensor *input = node->inputs[index];
    if (!ensure_grad(node, input)) {
        return NULL;
    }
    *accumulate = input->has_grad;
    input->has_grad = true;
    return input->grad;
}

/* Whether the input may get the output's gradient buffer: if nobody else needs either. */
static bool can_hand_over(const tl_node *node, const tl_tensor *input) {
    return input->tape != NULL && input->grad == NULL && !node->output->keeps_grad &&
           !node->grad_passed;
}

static bool hand_over_grad(tl_node *node, tl_tensor *input) {
    if (!can_hand_over(node, input)) {
        return false;
    }
    node->grad_passed = true;
    input->grad = node->output->grad;
    input->has_grad = true;
    return true;
}

tl_real *tl_node_grad_in_place(tl_node *node, int index, bool *accumulate) {
    if (!tl_node_wants(node, index) || node->tape->error.status != TL_OK) {
        return NULL;
    }
    if (hand_over_grad(node, node->inputs[index])) {
        *accumulate = false;
        return node->inputs[index]->grad;
    }
    return tl_node_grad(node, index, accumulate);
}

tl_real *tl_node_grad_zeroed(tl_node *node, int index) {
    bool accumulate = true;
    tl_real *grad = tl_node_grad(node, index, &accumulate);
    if (grad != NULL && !accumulate) {
        memset(grad, 0, (size_t)node->inputs[index]->size * sizeof(tl_real));
    }
    return grad;
}

bool tl_node_can_pass_grad(const tl_node *node, int index) {
    return tl_node_wants(node, index) && can_hand_over(node, node->inputs[index]);
}

void tl_node_pass_grad(tl_node *node, int index) {
    if (!tl_node_wants(node, index) || node->tape->error.status != TL_OK) {
        return;
    }
    tl_tensor *input = node->inputs[index];
    if (hand_over_grad(node, input)) {
        node->grad_unmoved = true;
        return;
    }
    bool accumulate;
    tl_real *grad = tl_node_grad(node, index, &accumulate);
    if (grad == NULL) {
        return;
    }
    const tl_real *from = node->output->grad;
    if (grad == from) {
        /* both inputs are the same tensor, which already owns the buffer: twice the gradient */
        for (int64_t i = 0; i < input->size; i++) {
            grad[i] += from[i];
        }
    } else if (accumulate) {
        TL_NODE_KERNELS(node)->vector->add(TL_NODE_THREADS(node), input->size, from, grad);
    } else {
        memcpy(grad, from, (size_t)input->size * sizeof(tl_real));
    }
}

void *tl_node_keep(tl_node *node, size_t bytes) {
    return memory_add(node, &node->kept, bytes);
}

void *tl_node_scratch(tl_node *node, size_t bytes) {
    return memory_add(node, &node->scratch, bytes);
}

void tl_node_release_scratch(tl_node *node) {
    memory_release(node->tape, &node->scratch);
}

/* ------------------------------------------------------------------ the backward pass */

static void run_recompute(tl_node *node, tl_real *output) {
    tl_profile *profile = node->tape->profile;
    const int64_t started = profile != NULL ? tl_profile_now() : 0;
    node->recompute(node, output);
    if (profile != NULL) {
        tl_profile_add_recompute(profile, node, started);
    }
}

static void restore_inputs(tl_node *node);

/* Makes a value again, and for that the inputs that its maker has saved. */
static void restore(tl_tape *tape, tl_storage *storage) {
    if (storage == NULL || storage->data != NULL || tape->error.status != TL_OK) {
        return;
    }
    tl_node *maker = storage->maker;
    restore_inputs(maker);
    storage->data = tl_pool_allocate(tape->pool, storage->bytes);
    if (storage->data == NULL) {
        (void)tl_tape_fail_memory(tape, maker->operation, storage->bytes);
        return;
    }
    if (tape->error.status == TL_OK) {
        run_recompute(maker, storage->data);
    }
    memory_release(tape, &maker->scratch);
}

/* A value that only this node reads is not brought back if it can be made in parts. */
static bool is_made_in_parts(const tl_node *node, int index) {
    const tl_storage *storage = node->saved_inputs[index];
    return node->reads_parts && index == 0 && storage->data == NULL && storage->references == 1 &&
           storage->maker->recompute_parts != NULL;
}

static void restore_inputs(tl_node *node) {
    for (int i = 0; i < node->input_count; i++) {
        if (is_made_in_parts(node, i)) {
            restore_inputs(node->saved_inputs[i]->maker);
        } else {
            restore(node->tape, node->saved_inputs[i]);
        }
    }
}

bool tl_tape_make_values(tl_tape *tape, tl_storage *storage) {
    restore(tape, storage);
    return storage->data != NULL;
}

static void restore_saved(tl_node *node) {
    restore_inputs(node);
    restore(node->tape, node->saved_output);
}

/* The node before this one on the tape runs next; all others that read its result have run. */
bool tl_node_input_grad_watch(tl_node *node, tl_watch *watch) {
    tl_node *next = node->previous;
    if (next == NULL || next->output != node->inputs[0] || next->watch_grad == NULL) {
        return false;
    }
    restore_saved(next);
    return node->tape->error.status == TL_OK && next->watch_grad(next, watch);
}

static void backward_release(tl_node *node) {
    tl_tape *tape = node->tape;
    tl_tensor *output = node->output;
    if (output->storage != NULL && output->storage->maker == node) {
        (void)tl_tape_make_values(tape, output->storage); /* the caller may still read it */
    }
    release_parts(node);
    node_discard(node);
    if (node->grad_passed) {
        output->grad = NULL;
        output->has_grad = false;
    } else if (!output->keeps_grad) {
        tl_pool_release(tape->pool, output->grad);
        output->grad = NULL;
        output->has_grad = false;
    }
}

/* The node that had left a gradient to the one that has just run. */
static void release_deferred(tl_tape *tape) {
    if (tape->deferred != NULL) {
        backward_release(tape->deferred);
        tape->deferred = NULL;
    }
}

static void check_gradients(const tl_node *node) {
    for (int i = 0; i < node->input_count; i++) {
        const tl_tensor *input = node->inputs[i];
        if (tl_node_wants(node, i) && input->has_grad &&
            !all_finite(node, input->grad, input->size)) {
            (void)tl_tape_fail(node->tape, TL_ERROR_NOT_FINITE,
                               "%s: the gradient of input %d has a NaN or an infinity",
                               node->operation, i);
        }
    }
}

static tl_status start_gradient(tl_tape *tape, tl_tensor *output, const tl_real *cotangent) {
    if (output == NULL) {
        return tl_tape_fail(tape, TL_ERROR_INVALID_ARGUMENT, "backward: the result is NULL");
    }
    if (output->tape != tape) {
        return tl_tape_fail(tape, TL_ERROR_INVALID_ARGUMENT,
                            "backward: the result is not of this tape");
    }
    if (!output->requires_grad) {
        return tl_tape_fail(tape, TL_ERROR_STATE,
                            "backward: nothing that the result depends on wants a gradient (or the "
                            "tape was not recording)");
    }
    const size_t bytes = (size_t)output->size * sizeof(tl_real);
    if (output->grad == NULL) {
        output->grad = tl_pool_allocate(tape->pool, bytes);
        if (output->grad == NULL) {
            return tl_tape_fail_memory(tape, "backward", bytes);
        }
    }
    if (cotangent == NULL) {
        for (int64_t i = 0; i < output->size; i++) {
            output->grad[i] = output->has_grad ? output->grad[i] + 1 : 1;
        }
    } else {
        const tl_copy all = {
            .rank = 1, .extents = {output->size}, .x_strides = {1}, .y_strides = {1}};
        tape->context->kernels->copy->copy(tape->context->threads, &all, cotangent,
                                           output->has_grad, output->grad);
    }
    output->has_grad = true;
    return TL_OK;
}

static void run_backward(tl_node *node) {
    tl_profile *profile = node->tape->profile;
    const int64_t started = profile != NULL ? tl_profile_now() : 0;
    node->backward(node);
    if (profile != NULL) {
        tl_profile_add_backward(profile, node, started);
    }
}

/* Inputs that live longer than the tape: parameters. */
static bool is_parameter(const tl_node *node, int index) {
    return tl_node_wants(node, index) && node->inputs[index]->tape == NULL;
}

static void count_uses(const tl_tape *tape) {
    for (const tl_node *node = tape->last_node; node != NULL; node = node->previous) {
        for (int i = 0; i < node->input_count; i++) {
            if (is_parameter(node, i)) {
                node->inputs[i]->uses++;
            }
        }
    }
}

/* `node` is done: tells of the parameters that no other node will add to. */
static void announce_gradients(tl_node *node) {
    const tl_tape *tape = node->tape;
    for (int i = 0; i < node->input_count; i++) {
        if (is_parameter(node, i) && --node->inputs[i]->uses == 0 && node->inputs[i]->has_grad &&
            tape->error.status == TL_OK) {
            tape->gradient_ready(tape->gradient_user, node->inputs[i]);
        }
    }
}

tl_status tl_backward_from(tl_tape *tape, int count, tl_tensor *const *outputs,
                           const tl_real *const *cotangents) {
    TL_TRY(tape->error.status);
    if (tape->backward_done) {
        return tl_tape_fail(tape, TL_ERROR_STATE,
                            "backward: has run already; reset the tape before the next step");
    }
    for (int i = 0; i < count; i++) {
        TL_TRY(start_gradient(tape, outputs[i], cotangents != NULL ? cotangents[i] : NULL));
    }
    tape->backward_done = true;
    if (tape->gradient_ready != NULL) {
        count_uses(tape);
    }
    for (tl_node *node = tape->last_node; node != NULL; node = node->previous) {
        if (node->output->has_grad) {
            restore_saved(node);
        }
        if (node->output->has_grad && tape->error.status == TL_OK) {
            run_backward(node);
            if (tape->check_finite && tape->error.status == TL_OK) {
                check_gradients(node);
            }
        }
        if (tape->deferred != node) {
            backward_release(node);
            release_deferred(tape);
        }
        if (tape->gradient_ready != NULL) {
            announce_gradients(node);
        }
    }
    tape->last_node = NULL;
    if (tape->error.status == TL_OK) {
        tl_tape_keep_changes(tape);
    }
    return tape->error.status;
}

tl_status tl_backward(tl_tape *tape, tl_tensor *loss) {
    TL_TRY(tape->error.status);
    if (loss != NULL && loss->size != 1) {
        char text[TL_SHAPE_TEXT_SIZE];
        return tl_tape_fail(tape, TL_ERROR_SHAPE,
                            "backward: the loss must have one element, found %s",
                            tl_shape_text(loss->rank, loss->shape, text));
    }
    return tl_backward_from(tape, 1, &loss, NULL);
}
