#include "core/profile_internal.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

int64_t tl_profile_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * INT64_C(1000000000) + (int64_t)now.tv_nsec;
}

tl_profile *tl_profile_create(tl_context *context, int64_t max_events, tl_error *error) {
    tl_error_clear(error);
    if (max_events < 0) {
        (void)tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                      "profile: max_events must be 0 or more, found %" PRId64, max_events);
        return NULL;
    }
    tl_profile *profile = tl_memory_allocate_zeroed(context, 1, sizeof *profile);
    if (profile == NULL) {
        (void)tl_memory_fail(context, error, "profile", sizeof *profile);
        return NULL;
    }
    profile->context = context;
    profile->max_events = max_events;
    profile->created = tl_profile_now();
    return profile;
}

void tl_profile_free(tl_profile *profile) {
    if (profile == NULL) {
        return;
    }
    tl_context *context = profile->context;
    tl_memory_release(context, profile->events,
                      (size_t)profile->event_capacity * sizeof *profile->events);
    tl_memory_release(context, profile->entries,
                      (size_t)profile->entry_capacity * sizeof *profile->entries);
    tl_memory_release(context, profile->spans,
                      (size_t)profile->span_capacity * sizeof *profile->spans);
    tl_memory_release(context, profile, sizeof *profile);
}

void tl_tape_set_profile(tl_tape *tape, tl_profile *profile) {
    tape->profile = profile;
}

/* ------------------------------------------------------------------ recording */

/* Twice the room, or NULL. */
static void *grow(tl_profile *profile, void *array, size_t size, int64_t capacity, int64_t wanted) {
    return tl_memory_reallocate(profile->context, array, (size_t)capacity * size,
                                (size_t)wanted * size);
}

static void add_event(tl_profile *profile, const tl_profile_event *event) {
    if (profile->event_count == profile->event_capacity &&
        profile->event_capacity < profile->max_events) {
        int64_t wanted = profile->event_capacity == 0 ? 1024 : 2 * profile->event_capacity;
        wanted = wanted < profile->max_events ? wanted : profile->max_events;
        tl_profile_event *grown =
            grow(profile, profile->events, sizeof *grown, profile->event_capacity, wanted);
        if (grown != NULL) {
            profile->events = grown;
            profile->event_capacity = wanted;
        }
    }
    if (profile->event_count == profile->event_capacity) {
        profile->dropped++;
        return;
    }
    profile->events[profile->event_count++] = *event;
}

/* The row of an operation; NULL if memory fails. */
static tl_profile_entry *entry_of(tl_profile *profile, const char *operation) {
    for (int i = 0; i < profile->entry_count; i++) {
        if (strcmp(profile->entries[i].operation, operation) == 0) {
            return &profile->entries[i];
        }
    }
    if (profile->entry_count == profile->entry_capacity) {
        const int wanted = profile->entry_capacity == 0 ? 32 : 2 * profile->entry_capacity;
        tl_profile_entry *grown =
            grow(profile, profile->entries, sizeof *grown, profile->entry_capacity, wanted);
        if (grown == NULL) {
            return NULL;
        }
        profile->entries = grown;
        profile->entry_capacity = wanted;
    }
    tl_profile_entry *entry = &profile->entries[profile->entry_count++];
    *entry = (tl_profile_entry){.operation = operation};
    return entry;
}

static void add_work(tl_profile *profile, const tl_node *node, tl_profile_phase phase,
                     int64_t started, double bytes) {
    const int64_t ended = tl_profile_now();
    const bool again = phase == TL_PROFILE_RECOMPUTE; /* its FLOPs are none of the algorithm's */
    /* a result that was left unmade is made while others go forward, where its FLOPs were counted
     */
    const bool late = again && !node->tape->backward_done;
    const bool forward = phase == TL_PROFILE_FORWARD || late;
    const double flops = again ? 0 : forward ? node->cost.forward_flops : node->cost.backward_flops;
    double executed = late      ? 0
                      : again   ? node->recompute_flops
                      : forward ? node->cost.forward_flops_executed
                                : node->cost.backward_flops_executed;
    if (phase == TL_PROFILE_BACKWARD && node->parts_maker != NULL) {
        executed += node->parts_maker->recompute_flops;
    }
    tl_profile_entry *entry = entry_of(profile, node->operation);
    if (entry != NULL) {
        tl_profile_work *work = forward ? &entry->forward : &entry->backward;
        work->calls += !again;
        work->seconds += 1e-9 * (double)(ended - started);
        work->flops += flops;
        work->flops_executed += executed;
        work->bytes += bytes;
    }
    add_event(profile, &(tl_profile_event){.name = node->operation,
                                           .phase = late ? TL_PROFILE_FORWARD : phase,
                                           .started = started,
                                           .ended = ended,
                                           .flops = flops,
                                           .bytes = bytes});
}

static double kept_bytes(const tl_node *node) {
    double bytes = 0;
    for (const tl_node_memory *m = node->kept; m != NULL; m = m->next) {
        bytes += (double)m->bytes;
    }
    return bytes;
}

static double tensor_bytes(const tl_tensor *tensor) {
    return (double)tensor->size * (double)sizeof(tl_real);
}

/* Inputs, the result, and what is kept; nothing for a view. */
static double forward_bytes(const tl_node *node) {
    double bytes = tensor_bytes(node->output) + kept_bytes(node);
    for (int i = 0; i < node->input_count; i++) {
        const tl_tensor *input = node->inputs[i];
        if (input != NULL && input->storage == node->output->storage) {
            return 0;
        }
        bytes += input != NULL ? tensor_bytes(input) : 0;
    }
    return bytes;
}

/* What was saved of the inputs, and the result. */
static double recompute_bytes(const tl_node *node) {
    double bytes = tensor_bytes(node->output);
    for (int i = 0; i < node->input_count; i++) {
        bytes += node->saved_inputs[i] != NULL ? tensor_bytes(node->inputs[i]) : 0;
    }
    return bytes;
}

/* The gradient that flows in, what was saved, and the gradients that are written. Where the only
 * one of them is the one that flows in, passed on, nothing moves. */
static double backward_bytes(const tl_node *node) {
    double written = 0;
    double saved = kept_bytes(node);
    for (int i = 0; i < node->input_count; i++) {
        const tl_tensor *input = node->inputs[i];
        if (input == NULL) {
            continue;
        }
        const bool passed = node->grad_unmoved && input->grad == node->output->grad;
        written += input->requires_grad && !passed ? tensor_bytes(input) : 0;
        saved += node->saved_inputs[i] != NULL ? tensor_bytes(input) : 0;
    }
    saved += node->saved_output != NULL ? tensor_bytes(node->output) : 0;
    return written > 0 || saved > 0 ? written + saved + tensor_bytes(node->output) : 0;
}

void tl_profile_add_forward(tl_profile *profile, const tl_node *node, int64_t started) {
    add_work(profile, node, TL_PROFILE_FORWARD, started, forward_bytes(node));
}

void tl_profile_add_backward(tl_profile *profile, const tl_node *node, int64_t started) {
    add_work(profile, node, TL_PROFILE_BACKWARD, started, backward_bytes(node));
}

void tl_profile_add_recompute(tl_profile *profile, const tl_node *node, int64_t started) {
    add_work(profile, node, TL_PROFILE_RECOMPUTE, started, recompute_bytes(node));
}

/* ------------------------------------------------------------------ spans */

static tl_profile_span *span_of(tl_profile *profile, const char *name) {
    for (int i = 0; i < profile->span_count; i++) {
        if (strcmp(profile->spans[i].name, name) == 0) {
            return &profile->spans[i];
        }
    }
    if (profile->span_count == profile->span_capacity) {
        const int wanted = profile->span_capacity == 0 ? 16 : 2 * profile->span_capacity;
        tl_profile_span *grown =
            grow(profile, profile->spans, sizeof *grown, profile->span_capacity, wanted);
        if (grown == NULL) {
            return NULL;
        }
        profile->spans = grown;
        profile->span_capacity = wanted;
    }
    tl_profile_span *span = &profile->spans[profile->span_count++];
    *span = (tl_profile_span){.name = name};
    return span;
}

void tl_profile_begin(tl_profile *profile, const char *name) {
    if (profile == NULL) {
        return;
    }
    if (profile->depth < PROFILE_DEPTH) {
        profile->open[profile->depth].name = name;
        profile->open[profile->depth].started = tl_profile_now();
    }
    profile->depth++;
}

void tl_profile_end(tl_profile *profile) {
    if (profile == NULL || profile->depth == 0) {
        return;
    }
    profile->depth--;
    if (profile->depth >= PROFILE_DEPTH) {
        return;
    }
    const tl_profile_event event = {.name = profile->open[profile->depth].name,
                                    .phase = TL_PROFILE_SPAN,
                                    .started = profile->open[profile->depth].started,
                                    .ended = tl_profile_now()};
    tl_profile_span *span = span_of(profile, event.name);
    if (span != NULL) {
        span->calls++;
        span->seconds += 1e-9 * (double)(event.ended - event.started);
    }
    add_event(profile, &event);
}

/* ------------------------------------------------------------------ reading */

const tl_profile_entry *tl_profile_entries(const tl_profile *profile, int *count) {
    *count = profile->entry_count;
    return profile->entries;
}

const tl_profile_span *tl_profile_spans(const tl_profile *profile, int *count) {
    *count = profile->span_count;
    return profile->spans;
}

int64_t tl_profile_event_count(const tl_profile *profile, int64_t *dropped) {
    if (dropped != NULL) {
        *dropped = profile->dropped;
    }
    return profile->event_count;
}
