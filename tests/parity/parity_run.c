#include "parity_run.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WATCHED = 512, MAX_DEFERRED = 1024, MAX_OUTPUTS = 8 };

typedef struct watched {
    char group[32]; /* of the expected values */
    char name[PARITY_NAME_SIZE];
    tl_tensor *tensor;
    parity_layout layout;
} watched;

typedef struct deferred {
    void (*release)(void *);
    void *object;
} deferred;

struct parity_run {
    parity_case *c;
    tl_context *context;
    tl_tape *tape;
    bool verbose;
    parity_result result;
    watched gradients[MAX_WATCHED];
    int gradient_count;
    watched buffers[MAX_WATCHED];
    int buffer_count;
    watched outputs[MAX_OUTPUTS];
    int output_count;
    deferred deferred[MAX_DEFERRED];
    int deferred_count;
};

const parity_case *parity_run_case(const parity_run *run) {
    return run->c;
}

tl_context *parity_run_context(const parity_run *run) {
    return run->context;
}

tl_tape *parity_run_tape(const parity_run *run) {
    return run->tape;
}

void parity_fail(parity_run *run, const char *format, ...) {
    if (run->result.problem[0] == '\0') {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(run->result.problem, sizeof run->result.problem, format, arguments);
        va_end(arguments);
    }
}

bool parity_failed(const parity_run *run) {
    return run->result.problem[0] != '\0';
}

bool parity_ok(parity_run *run, tl_status status, const tl_error *error) {
    if (status != TL_OK) {
        parity_fail(run, "%s: %s", tl_status_name(status), error->message);
    }
    return status == TL_OK;
}

void parity_defer(parity_run *run, void (*release)(void *), void *object) {
    if (run->deferred_count == MAX_DEFERRED) {
        parity_fail(run, "the case has more tensors than the runner can hold");
        release(object);
        return;
    }
    run->deferred[run->deferred_count++] = (deferred){.release = release, .object = object};
}

static void release_tensor(void *tensor) {
    tl_tensor_free(tensor);
}

/* ------------------------------------------------------------------ arguments */

static const parity_argument *argument_of(parity_run *run, const char *name) {
    const parity_argument *argument = parity_argument_find(run->c, name);
    if (argument == NULL) {
        parity_fail(run, "the argument %s is missing", name);
    }
    return argument;
}

int64_t parity_int(parity_run *run, const char *name) {
    const parity_argument *argument = argument_of(run, name);
    return argument && argument->count > 0 ? argument->ints[0] : 0;
}

double parity_number(parity_run *run, const char *name) {
    const parity_argument *argument = argument_of(run, name);
    return argument ? argument->number : 0;
}

const char *parity_text(parity_run *run, const char *name) {
    const parity_argument *argument = argument_of(run, name);
    return argument ? argument->text : "";
}

int parity_ints(parity_run *run, const char *name, int count, int64_t *values) {
    const parity_argument *argument = argument_of(run, name);
    const int found = argument ? argument->count : 0;
    if (count >= 0 && found != count) {
        parity_fail(run, "the argument %s has %d values, expected %d", name, found, count);
        memset(values, 0, (size_t)count * sizeof *values);
        return count;
    }
    if (found > 0) {
        memcpy(values, argument->ints, (size_t)found * sizeof *values);
    }
    return found;
}

/* ------------------------------------------------------------------ layouts */

/* The shape of `rank` dimensions in our layout, and the file's stride of each of our dimensions. */
static void our_layout(int rank, const int64_t *file_shape, parity_layout layout, int64_t *shape,
                       int64_t *file_stride) {
    int64_t strides[PARITY_MAX_RANK];
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= file_shape[i];
    }
    for (int i = 0; i < rank; i++) {
        const int from = layout == PARITY_AS_IS || i == 0 || rank < 3 ? i
                         : i == rank - 1                              ? 1
                                                                      : i + 1;
        shape[i] = file_shape[from];
        file_stride[i] = strides[from];
    }
}

/* Calls for each of our elements in order: file_index[i] of element i. */
static int64_t *file_indices(int rank, const int64_t *file_shape, parity_layout layout,
                             int64_t size) {
    int64_t shape[PARITY_MAX_RANK], stride[PARITY_MAX_RANK];
    our_layout(rank, file_shape, layout, shape, stride);
    int64_t *indices = malloc((size_t)size * sizeof *indices);
    for (int64_t i = 0; indices != NULL && i < size; i++) {
        int64_t rest = i;
        int64_t at = 0;
        for (int d = rank - 1; d >= 0; d--) {
            at += rest % shape[d] * stride[d];
            rest /= shape[d];
        }
        indices[i] = at;
    }
    return indices;
}

/* A tensor's part `index` along the first dimension, or all of it if that is negative. */
static int part_of(const parity_tensor *tensor, int64_t index, const int64_t **shape, int64_t *size,
                   const double **values) {
    const int skipped = index >= 0 && tensor->rank > 0 ? 1 : 0;
    *shape = tensor->shape + skipped;
    *size = skipped ? tensor->size / tensor->shape[0] : tensor->size;
    *values = tensor->values + (skipped ? index * *size : 0);
    return tensor->rank - skipped;
}

const parity_tensor *parity_tensor_of(parity_run *run, const char *group, const char *name) {
    const parity_tensor *tensor = parity_find(run->c, group, name);
    if (tensor == NULL) {
        parity_fail(run, "/%s/%s is missing", group, name);
    }
    return tensor;
}

tl_real *parity_values(parity_run *run, int64_t count) {
    tl_real *values = calloc((size_t)count, sizeof *values);
    if (values == NULL) {
        parity_fail(run, "out of memory");
        return NULL;
    }
    parity_defer(run, free, values);
    return values;
}

bool parity_copy_in(parity_run *run, const parity_tensor *from, int64_t index, parity_layout layout,
                    int64_t size, tl_real *to) {
    const int64_t *shape;
    const double *values;
    int64_t part_size;
    const int rank = part_of(from, index, &shape, &part_size, &values);
    if (part_size != size) {
        parity_fail(run, "/%s/%s has %lld values, expected %lld", from->group, from->name,
                    (long long)part_size, (long long)size);
        return false;
    }
    int64_t *indices = file_indices(rank, shape, layout, size);
    for (int64_t i = 0; indices != NULL && i < size; i++) {
        to[i] = (tl_real)values[indices[i]];
    }
    free(indices);
    return true;
}

/* ------------------------------------------------------------------ tensors */

static tl_tensor *on_tape(parity_run *run, const parity_tensor *tensor, parity_layout layout,
                          bool with_grad) {
    tl_real *values = tensor ? parity_values(run, tensor->size) : NULL;
    if (values == NULL || !parity_copy_in(run, tensor, -1, layout, tensor->size, values)) {
        return NULL;
    }
    tl_array array = {.rank = tensor->rank, .data = values};
    int64_t strides[PARITY_MAX_RANK];
    our_layout(tensor->rank, tensor->shape, layout, array.shape, strides);
    return with_grad ? tl_input_with_grad(run->tape, &array) : tl_input(run->tape, &array);
}

static void watch(parity_run *run, watched *list, int *count, const char *group, const char *name,
                  tl_tensor *tensor, parity_layout layout) {
    if (*count == MAX_WATCHED) {
        parity_fail(run, "the case has more tensors than the runner can hold");
        return;
    }
    watched *w = &list[(*count)++];
    snprintf(w->group, sizeof w->group, "%s", group);
    snprintf(w->name, sizeof w->name, "%s", name);
    w->tensor = tensor;
    w->layout = layout;
}

static tl_tensor *differentiable(parity_run *run, const char *group, const char *grads,
                                 const char *name, parity_layout layout) {
    tl_tensor *tensor = on_tape(run, parity_tensor_of(run, group, name), layout, true);
    if (tensor != NULL) {
        watch(run, run->gradients, &run->gradient_count, grads, name, tensor, layout);
    }
    return tensor;
}

tl_tensor *parity_input(parity_run *run, const char *name, parity_layout layout) {
    return differentiable(run, "inputs", "grads/inputs", name, layout);
}

tl_tensor *parity_param(parity_run *run, const char *name, parity_layout layout) {
    return differentiable(run, "params", "grads/params", name, layout);
}

tl_tensor *parity_optional_param(parity_run *run, const char *name, parity_layout layout) {
    return parity_find(run->c, "params", name) ? parity_param(run, name, layout) : NULL;
}

tl_tensor *parity_constant(parity_run *run, const char *group, const char *name,
                           parity_layout layout) {
    return on_tape(run, parity_tensor_of(run, group, name), layout, false);
}

tl_tensor *parity_buffer(parity_run *run, const char *name) {
    const parity_tensor *from = parity_tensor_of(run, "buffers", name);
    if (from == NULL) {
        return NULL;
    }
    tl_error error;
    tl_tensor *tensor = tl_tensor_create(run->context, from->rank, from->shape, false, &error);
    if (tensor == NULL) {
        parity_fail(run, "%s", error.message);
        return NULL;
    }
    parity_defer(run, release_tensor, tensor);
    parity_copy_in(run, from, -1, PARITY_AS_IS, from->size, tl_tensor_data(tensor));
    watch(run, run->buffers, &run->buffer_count, "buffers_after", name, tensor, PARITY_AS_IS);
    return tensor;
}

const int32_t *parity_integers(parity_run *run, const char *group, const char *name,
                               int64_t *count) {
    const parity_tensor *from = parity_tensor_of(run, group, name);
    int32_t *values = from ? malloc((size_t)from->size * sizeof *values) : NULL;
    if (values == NULL) {
        return NULL;
    }
    parity_defer(run, free, values);
    for (int64_t i = 0; i < from->size; i++) {
        values[i] = (int32_t)from->values[i];
    }
    if (count != NULL) {
        *count = from->size;
    }
    return values;
}

void parity_output(parity_run *run, const char *name, tl_tensor *tensor, parity_layout layout) {
    if (tensor == NULL) {
        const tl_error *error = tl_tape_error(run->tape);
        parity_fail(run, "%s", error->message[0] ? error->message : "there is no result");
        return;
    }
    watched *w = &run->outputs[run->output_count];
    if (run->output_count == MAX_OUTPUTS) {
        parity_fail(run, "too many outputs");
        return;
    }
    run->output_count++;
    snprintf(w->group, sizeof w->group, "outputs");
    snprintf(w->name, sizeof w->name, "%s", name);
    w->tensor = tensor;
    w->layout = layout;
}

void parity_load_parameters(parity_run *run, tl_parameters *parameters) {
    int found = 0;
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter p = tl_parameters_at(parameters, i);
        const parity_tensor *from =
            parity_tensor_of(run, p.group == TL_GROUP_BUFFER ? "buffers" : "params", p.name);
        if (from == NULL) {
            return;
        }
        parity_copy_in(run, from, -1, PARITY_CHANNELS, tl_tensor_size(p.tensor),
                       tl_tensor_data(p.tensor));
        found += p.group != TL_GROUP_BUFFER;
    }
    for (int i = 0; i < run->c->tensor_count; i++) {
        found -= strcmp(run->c->tensors[i].group, "params") == 0;
    }
    if (found != 0) {
        parity_fail(run, "the case has %d parameters that the network does not have", -found);
    }
}

void parity_watch_parameters(parity_run *run, tl_parameters *parameters) {
    for (int i = 0; i < tl_parameters_count(parameters); i++) {
        const tl_parameter p = tl_parameters_at(parameters, i);
        if (p.group == TL_GROUP_BUFFER) {
            watch(run, run->buffers, &run->buffer_count, "buffers_after", p.name, p.tensor,
                  PARITY_CHANNELS);
        } else {
            watch(run, run->gradients, &run->gradient_count, "grads/params", p.name, p.tensor,
                  PARITY_CHANNELS);
        }
    }
}

/* ------------------------------------------------------------------ comparing */

void parity_compare(parity_run *run, const char *group, const char *name, int64_t index,
                    int64_t size, const tl_real *got, parity_layout layout) {
    parity_tensor *expected = parity_find(run->c, group, name);
    if (expected == NULL) {
        parity_fail(run, "/%s/%s is missing", group, name);
        return;
    }
    const int64_t *shape;
    const double *want;
    int64_t part_size;
    const int rank = part_of(expected, index, &shape, &part_size, &want);
    if (part_size != size) {
        parity_fail(run, "%s/%s: expected %lld values, got %lld", group, name, (long long)part_size,
                    (long long)size);
        return;
    }
    expected->used = true;
    int64_t *indices = file_indices(rank, shape, layout, size);
    double error = 0, largest = 0;
    for (int64_t i = 0; indices != NULL && i < size; i++) {
        const double value = got ? (double)got[i] : 0; /* no gradient counts as zero */
        const double difference = fabs(value - want[indices[i]]);
        /* written so that NaN sticks */
        error = difference <= error || isnan(error) ? error : difference;
        largest = fmax(largest, fabs(want[indices[i]]));
    }
    free(indices);
    double ratio = error / (run->c->atol + run->c->rtol * largest);
    ratio = isnan(ratio) ? INFINITY : ratio;
    run->result.worst = fmax(run->result.worst, ratio);
    if (run->verbose) {
        printf("     %s/%s error %.3g, tolerance %.3g\n", group, name, error,
               run->c->atol + run->c->rtol * largest);
    }
}

static void start_backward(parity_run *run) {
    tl_tensor *outputs[MAX_OUTPUTS];
    const tl_real *cotangents[MAX_OUTPUTS];
    int count = 0;
    for (int i = 0; i < run->output_count; i++) {
        const watched *w = &run->outputs[i];
        const parity_tensor *from = parity_find(run->c, "grad_outputs", w->name);
        tl_real *values = from ? parity_values(run, from->size) : NULL;
        if (values == NULL ||
            !parity_copy_in(run, from, -1, w->layout, tl_tensor_size(w->tensor), values)) {
            continue;
        }
        outputs[count] = w->tensor;
        cotangents[count++] = values;
    }
    if (count > 0 && !parity_failed(run)) {
        (void)parity_ok(run, tl_backward_from(run->tape, count, outputs, cotangents),
                        tl_tape_error(run->tape));
    }
}

static void compare_all(parity_run *run) {
    for (int i = 0; i < run->output_count; i++) {
        const watched *w = &run->outputs[i];
        parity_compare(run, w->group, w->name, -1, tl_tensor_size(w->tensor),
                       tl_tensor_data(w->tensor), w->layout);
    }
    start_backward(run);
    for (int i = 0; i < run->gradient_count; i++) {
        const watched *w = &run->gradients[i];
        parity_compare(run, w->group, w->name, -1, tl_tensor_size(w->tensor),
                       tl_tensor_grad(w->tensor), w->layout);
    }
    for (int i = 0; i < run->buffer_count; i++) {
        const watched *w = &run->buffers[i];
        if (parity_find(run->c, w->group, w->name) != NULL) {
            parity_compare(run, w->group, w->name, -1, tl_tensor_size(w->tensor),
                           tl_tensor_data(w->tensor), w->layout);
        }
    }
    static const char *const expected[] = {"outputs",       "grads/inputs",    "grads/params",
                                           "buffers_after", "params_per_step", "params_after"};
    for (int i = 0; i < run->c->tensor_count; i++) {
        const parity_tensor *tensor = &run->c->tensors[i];
        for (size_t g = 0; g < sizeof expected / sizeof expected[0]; g++) {
            if (!tensor->used && strcmp(tensor->group, expected[g]) == 0) {
                parity_fail(run, "%s/%s was not computed", tensor->group, tensor->name);
            }
        }
    }
}

parity_result parity_run_one(const parity_adapter *adapter, parity_case *c, bool verbose) {
    parity_run *run = calloc(1, sizeof *run);
    if (run == NULL) {
        return (parity_result){.problem = "out of memory"};
    }
    run->c = c;
    run->verbose = verbose;
    tl_error error = {0};
    run->context = tl_context_create(&(tl_context_config){.error = &error});
    run->tape = run->context ? tl_tape_create(run->context) : NULL;
    if (run->tape == NULL) {
        parity_fail(run, "no tape: %s", error.message);
    } else {
        adapter->function(run);
        if (!parity_failed(run)) {
            (void)parity_ok(run, tl_tape_status(run->tape), tl_tape_error(run->tape));
        }
        if (!parity_failed(run)) {
            compare_all(run);
        }
        tl_tape_free(run->tape);
    }
    for (int i = run->deferred_count - 1; i >= 0; i--) {
        run->deferred[i].release(run->deferred[i].object);
    }
    tl_context_free(run->context);
    run->result.ok = !parity_failed(run) && run->result.worst <= 1;
    const parity_result result = run->result;
    free(run);
    return result;
}
