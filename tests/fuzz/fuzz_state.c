/* Fuzzes what takes a checkpoint's content: a right file may hold anything. The state of a small
 * model, its optimizer and its schedule is taken apart as the input says - values dropped, changed
 * in value, kind, type or shape - and offered to all three. They take it or refuse it; what refused
 * is unchanged. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz_support.h"

enum { KEEP, DROP, INTEGER, NUMBER, STRING, RESHAPE, RETYPE, VALUE, ACTIONS = 16 };

static const size_t most_memory = 64u << 20;

typedef struct subject {
    tl_model *model;
    tl_optimizer *optimizer;
    tl_schedule_config schedule;
} subject;

static subject create_subject(tl_context *context) {
    tl_error error = {0};
    tl_resnet_cifar_config config = tl_resnet_cifar_config_default();
    config.depth = 8;
    config.width = 2;
    config.attention = TL_ATTENTION_EFFICIENT;
    config.attention_stages = 1u << 2;
    subject s = {.schedule = {.kind = TL_SCHEDULE_MULTISTEP,
                              .base_learning_rate = 0.1,
                              .milestones = {3, 5},
                              .milestone_count = 2}};
    s.model = tl_resnet_cifar_create(context, &config, 1, &error);
    fuzz_require(s.model != NULL, error.message);
    tl_adam_config adam = tl_adam_config_default();
    s.optimizer = tl_adam_create(tl_model_parameters(s.model), &adam, &error);
    fuzz_require(s.optimizer != NULL, error.message);
    return s;
}

static void free_subject(subject *s) {
    tl_optimizer_free(s->optimizer);
    tl_model_free(s->model);
}

static tl_state *save(tl_context *context, const subject *s) {
    tl_error error = {0};
    tl_state *state = tl_state_create(context, &error);
    fuzz_require(state != NULL && tl_model_save_state(s->model, state, &error) == TL_OK &&
                     tl_optimizer_save_state(s->optimizer, state, "optimizer", &error) == TL_OK &&
                     tl_schedule_save_state(&s->schedule, state, "schedule", &error) == TL_OK,
                 error.message);
    return state;
}

static void put_string(tl_state *state, const char *path, fuzz_reader *reader) {
    char text[32] = {0};
    const size_t length = fuzz_byte(reader) % sizeof text;
    for (size_t i = 0; i < length; i++) {
        text[i] = (char)(1 + fuzz_byte(reader) % 127);
    }
    (void)tl_state_put_string(state, path, text, NULL);
}

static double some_number(fuzz_reader *reader) {
    const uint64_t bits = fuzz_number(reader, 8);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The array with another shape, type or value; what does not fit into its memory is refused. */
static void put_array(tl_state *state, const tl_state_entry *e, int action, fuzz_reader *reader) {
    tl_state_array array = e->array;
    size_t size = tl_element_size(array.type);
    for (int i = 0; i < array.rank; i++) {
        size *= (size_t)array.shape[i];
    }
    uint8_t *copy = malloc(size + 1);
    fuzz_require(copy != NULL, "out of memory");
    memcpy(copy, array.data, size);
    array.data = copy;
    if (action == RETYPE) {
        static const tl_element_type types[] = {TL_FLOAT32, TL_FLOAT64, TL_INT32, TL_INT64,
                                                TL_UINT8};
        array.type = types[fuzz_byte(reader) % 5];
    } else if (action == RESHAPE) {
        array.rank = fuzz_byte(reader) % (TL_MAX_RANK + 1);
        for (int i = 0; i < array.rank; i++) {
            array.shape[i] = fuzz_byte(reader) % 9;
        }
    } else if (size > 0) {
        const size_t position = (size_t)fuzz_number(reader, 2);
        copy[position % size] = fuzz_byte(reader);
    }
    size_t needed = tl_element_size(array.type);
    for (int i = 0; i < array.rank; i++) {
        needed *= (size_t)array.shape[i];
    }
    if (needed <= size) {
        (void)tl_state_put_array(state, e->path, &array, NULL);
    }
    free(copy);
}

static void put_changed(tl_state *state, const tl_state_entry *e, fuzz_reader *reader) {
    const int action = reader->left > 0 ? fuzz_byte(reader) % ACTIONS : KEEP;
    if (action == DROP) {
        return;
    }
    if (action == INTEGER) {
        (void)tl_state_put_integer(state, e->path, (int64_t)fuzz_number(reader, 8), NULL);
    } else if (action == NUMBER) {
        (void)tl_state_put_number(state, e->path, some_number(reader), NULL);
    } else if (action == STRING) {
        put_string(state, e->path, reader);
    } else if (e->kind == TL_STATE_ARRAY &&
               (action == RESHAPE || action == RETYPE || action == VALUE)) {
        put_array(state, e, action, reader);
    } else if (e->kind == TL_STATE_ARRAY) {
        (void)tl_state_borrow_array(state, e->path, &e->array, NULL);
    } else if (e->kind == TL_STATE_INTEGER) {
        (void)tl_state_put_integer(state, e->path, action == VALUE ? fuzz_byte(reader) : e->integer,
                                   NULL);
    } else if (e->kind == TL_STATE_NUMBER) {
        (void)tl_state_put_number(state, e->path, e->number, NULL);
    } else {
        (void)tl_state_put_string(state, e->path, e->string, NULL);
    }
}

static void offer(tl_context *context, subject *s, const tl_state *changed) {
    tl_error error = {0};
    tl_model *model = tl_model_create_from_state(context, changed, &error);
    if (model == NULL) {
        fuzz_require_message(&error);
    }
    tl_model_free(model);
    const tl_status checked = tl_optimizer_check_state(s->optimizer, changed, "optimizer", &error);
    const tl_status loaded = tl_optimizer_load_state(s->optimizer, changed, "optimizer", &error);
    fuzz_require(checked == loaded, "the check and the loading disagree");
    if (loaded != TL_OK) {
        fuzz_require_message(&error);
    }
    tl_schedule_config schedule = s->schedule;
    if (tl_schedule_load_state(&schedule, changed, "schedule", &error) != TL_OK) {
        fuzz_require_message(&error);
        fuzz_require(memcmp(&schedule, &s->schedule, sizeof schedule) == 0, "a changed schedule");
    } else {
        fuzz_require(tl_schedule_learning_rate(&schedule, 4) >= 0, "a bad learning rate");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_reader reader = {data, size};
    tl_context *context = fuzz_context();
    subject s = create_subject(context);
    tl_state *state = save(context, &s);
    tl_state *changed = tl_state_create(context, NULL);
    fuzz_require(changed != NULL, "no state");
    /* begin somewhere, so that short inputs reach every entry */
    const int count = tl_state_count(state);
    const int first = (int)(fuzz_number(&reader, 2) % (uint64_t)count);
    for (int i = 0; i < count; i++) {
        const tl_state_entry e = tl_state_at(state, (first + i) % count);
        put_changed(changed, &e, &reader);
    }
    offer(context, &s, changed);
    tl_state_free(changed);
    tl_state_free(state);
    free_subject(&s);
    fuzz_require_clean(most_memory);
    return 0;
}
