/* dropout.c - y = m x with m = 1 / (1 - p) where a value is kept, 0 where it is dropped.
 *
 * dx = m dy. The mask is a function of the tape's seed, the operation's random stream and the place
 * in x, and is computed again in backward. Saved: nothing.
 */
#include <tapeline/dropout.h>

#include <tapeline/random.h>

#include "core/op.h"

typedef struct dropout_state {
    uint64_t seed;
    uint64_t stream;
    uint64_t first_group; /* of 64 random numbers */
    uint32_t threshold;   /* random numbers below it drop */
    tl_real scale;
} dropout_state;

static void identity_backward(tl_node *node) {
    tl_node_pass_grad(node, 0);
}

static void dropout_backward(tl_node *node) {
    const dropout_state *state = node->state;
    bool accumulate;
    tl_real *dx = tl_node_grad_in_place(node, 0, &accumulate);
    if (dx != NULL) {
        TL_NODE_KERNELS(node)->dropout->apply(node->output->size, tl_node_output_grad(node),
                                              state->seed, state->stream, state->first_group,
                                              state->threshold, state->scale, dx, accumulate,
                                              TL_NODE_THREADS(node));
    }
}

/* Where the random numbers of this rank's part of a batch begin: behind those of the ranks before.
 * Parts of whole groups get the mask that the whole batch would get in one process. */
static uint64_t first_group(const tl_tape *tape, int64_t size) {
    const int64_t groups = (size + TL_DROPOUT_GROUP - 1) / TL_DROPOUT_GROUP;
    return tape->ranks != NULL ? (uint64_t)(tape->ranks->rank * groups) : 0;
}

tl_tensor *tl_dropout(tl_tape *tape, tl_tensor *x, double probability) {
    tl_op op;
    if (!tl_op_begin(&op, tape, "dropout", 1, (tl_tensor *[]){x}, 0)) {
        return NULL;
    }
    if (!(probability >= 0.0 && probability < 1.0)) {
        return tl_op_fail(&op, TL_ERROR_INVALID_ARGUMENT,
                          "probability must lie in [0, 1), found %g", probability);
    }
    if (!tape->training || probability == 0.0) {
        return tl_op_output_view(&op, 0, x->rank, x->shape) != NULL
                   ? tl_op_finish(&op, identity_backward)
                   : NULL;
    }
    tl_tensor *y = tl_op_output(&op, x->rank, x->shape);
    dropout_state *state = y != NULL ? tl_op_state(&op, sizeof *state) : NULL;
    if (state == NULL) {
        return NULL;
    }
    const tl_random random =
        tl_random_create(tape->random_seed, TL_RANDOM_DROPOUT, (uint32_t)tl_tape_next_random(tape));
    *state = (dropout_state){.seed = random.seed,
                             .stream = random.stream,
                             .first_group = first_group(tape, x->size),
                             .threshold = (uint32_t)(probability * 4294967296.0),
                             .scale = (tl_real)(1.0 / (1.0 - probability))};
    TL_OP_KERNELS(&op)->dropout->apply(x->size, x->storage->data, state->seed, state->stream,
                                       state->first_group, state->threshold, state->scale,
                                       y->storage->data, false, TL_OP_THREADS(&op));
    tl_op_set_flops(&op, (double)x->size, (double)x->size);
    return tl_op_finish(&op, dropout_backward);
}
