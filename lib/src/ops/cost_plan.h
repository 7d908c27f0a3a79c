/* cost_plan.h - operations played through on paper: what a tape would report and hold, step by
 * step, for tensors that need not exist.
 *
 * The rules are the tape's: an operation takes its output, what it keeps and its scratch at once;
 * inputs that it saved live until its backward function has run; a gradient lives from its first
 * contribution to its last use. Blocks of memory are counted without the pool's rounding.
 */
#ifndef TL_COST_PLAN_H
#define TL_COST_PLAN_H

#include "ops/footprint.h"

enum { TL_PLAN_VALUES = 16, TL_PLAN_NODES = 16, TL_PLAN_INPUTS = 3 };

typedef struct tl_plan_value {
    double bytes;
    int references; /* the caller's handle, and the nodes that saved it */
    bool external;  /* the caller's memory, there to the end */
    bool saved;     /* counted as kept for backward */
    bool has_grad;
} tl_plan_value;

typedef struct tl_plan_step {
    int inputs[TL_PLAN_INPUTS]; /* values; parameters are not among them */
    int input_count;
    unsigned saves; /* bit i: inputs[i] is saved for backward */
    bool saves_output;
    unsigned hands_over; /* bit i: the output's gradient buffer may become that of inputs[i] */
    int64_t output_size;
    tl_footprint footprint;
} tl_plan_step;

typedef struct tl_plan_node {
    tl_plan_step step;
    int output;
} tl_plan_node;

typedef struct tl_cost_plan {
    bool recording;
    tl_plan_value values[TL_PLAN_VALUES];
    int value_count;
    tl_plan_node nodes[TL_PLAN_NODES];
    int node_count;
    double held, peak; /* bytes */
    double callers;    /* of them: inputs and parameters with what is theirs from the step before */
    double saved_bytes;
    double forward_flops, backward_flops;
    double forward_flops_executed, backward_flops_executed;
} tl_cost_plan;

/* `parameters` values want a gradient, which is there from the step before; `buffers` do not. */
void tl_plan_begin(tl_cost_plan *plan, bool recording, int64_t parameters, int64_t buffers);
/* The caller's tensor, which wants a gradient. Returns the value's number. */
int tl_plan_input(tl_cost_plan *plan, int64_t size);
/* Runs an operation; returns the number of its output. */
int tl_plan_apply(tl_cost_plan *plan, const tl_plan_step *step);
/* As tl_release. */
void tl_plan_release(tl_cost_plan *plan, int value);
void tl_plan_backward(tl_cost_plan *plan, int output);

#endif
