#include "ops/cost_plan.h"

#include <assert.h>

static const double real_bytes = sizeof(tl_real);

static void hold(tl_cost_plan *plan, double bytes) {
    plan->held += bytes;
    plan->peak = plan->held > plan->peak ? plan->held : plan->peak;
}

static void drop(tl_cost_plan *plan, double bytes) {
    plan->held -= bytes;
}

void tl_plan_begin(tl_cost_plan *plan, bool recording, int64_t parameters, int64_t buffers) {
    *plan = (tl_cost_plan){.recording = recording};
    hold(plan, real_bytes * ((double)buffers + (double)parameters * (recording ? 2 : 1)));
    plan->callers = plan->held;
}

static int add_value(tl_cost_plan *plan, int64_t size, bool external) {
    assert(plan->value_count < TL_PLAN_VALUES);
    tl_plan_value *value = &plan->values[plan->value_count];
    *value =
        (tl_plan_value){.bytes = real_bytes * (double)size, .references = 1, .external = external};
    hold(plan, value->bytes);
    return plan->value_count++;
}

int tl_plan_input(tl_cost_plan *plan, int64_t size) {
    plan->callers += real_bytes * (double)size;
    return add_value(plan, size, true);
}

void tl_plan_release(tl_cost_plan *plan, int index) {
    tl_plan_value *value = &plan->values[index];
    value->references--;
    if (value->references == 0 && !value->external) {
        drop(plan, value->bytes);
    }
}

static void save(tl_cost_plan *plan, int index) {
    tl_plan_value *value = &plan->values[index];
    value->references++;
    if (!value->saved) {
        value->saved = true;
        plan->saved_bytes += value->bytes;
    }
}

int tl_plan_apply(tl_cost_plan *plan, const tl_plan_step *step) {
    const tl_footprint *footprint = &step->footprint;
    plan->forward_flops += footprint->forward_flops;
    plan->forward_flops_executed += footprint->forward_flops_executed;
    const int output = add_value(plan, step->output_size, false);
    const double kept =
        plan->recording || !footprint->keeps_only_recorded ? footprint->kept_bytes : 0;
    hold(plan, kept);
    hold(plan, footprint->forward_scratch);
    drop(plan, footprint->forward_scratch);
    if (!plan->recording) {
        drop(plan, kept);
        return output;
    }
    plan->backward_flops += footprint->backward_flops;
    plan->backward_flops_executed += footprint->backward_flops_executed;
    plan->saved_bytes += kept;
    for (int i = 0; i < step->input_count; i++) {
        if ((step->saves >> i & 1u) != 0) {
            save(plan, step->inputs[i]);
        }
    }
    if (step->saves_output) {
        save(plan, output);
    }
    assert(plan->node_count < TL_PLAN_NODES);
    plan->nodes[plan->node_count++] = (tl_plan_node){.step = *step, .output = output};
    return output;
}

static void take_grad(tl_cost_plan *plan, int index) {
    tl_plan_value *value = &plan->values[index];
    if (!value->has_grad) {
        value->has_grad = true;
        hold(plan, value->bytes);
    }
}

static void node_backward(tl_cost_plan *plan, const tl_plan_node *node) {
    const tl_plan_step *step = &node->step;
    bool passed = false;
    for (int i = 0; i < step->input_count; i++) {
        tl_plan_value *input = &plan->values[step->inputs[i]];
        if ((step->hands_over >> i & 1u) != 0 && !input->has_grad && !passed) {
            input->has_grad = true;
            passed = true;
        }
        take_grad(plan, step->inputs[i]);
    }
    hold(plan, step->footprint.backward_scratch);
    drop(plan, step->footprint.backward_scratch);
    drop(plan, step->footprint.kept_bytes);
    for (int i = 0; i < step->input_count; i++) {
        if ((step->saves >> i & 1u) != 0) {
            tl_plan_release(plan, step->inputs[i]);
        }
    }
    if (step->saves_output) {
        tl_plan_release(plan, node->output);
    }
    if (!passed) {
        drop(plan, plan->values[node->output].bytes);
    }
}

void tl_plan_backward(tl_cost_plan *plan, int output) {
    take_grad(plan, output);
    for (int i = plan->node_count - 1; i >= 0; i--) {
        node_backward(plan, &plan->nodes[i]);
    }
}
