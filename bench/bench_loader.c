/* The loader: one batch of 128 images of 32x32x3, shuffled, alone and beside the work of a step.
 *
 *     loader/plain, loader/augmented   a batch made inside tl_loader_next
 *     loader/step_alone                the work of a step (4 square products of 1024), no batch
 *     loader/step_threads_0, _1        the same with a batch before it, made in the step or by a
 *                                      background thread meanwhile
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { COUNT = 20000, STEP_SIDE = 1024, STEP_PRODUCTS = 4, BATCH_VALUES = 128 * 32 * 32 * 3 };

enum { AUGMENT = 0, THREADS = 1, PRODUCTS = 2, FETCH = 3 }; /* of a case's numbers */

typedef struct loader_state {
    tl_dataset *dataset;
    tl_loader *loader; /* NULL: the step fetches no batch */
    int64_t epoch;
    int64_t products;
    tl_tape *tape;
    tl_tensor *a, *b;
} loader_state;

static void destroy(void *state) {
    loader_state *s = state;
    tl_tape_free(s->tape);
    tl_tensor_free(s->a);
    tl_tensor_free(s->b);
    tl_loader_free(s->loader);
    tl_dataset_free(s->dataset);
    free(s);
}

static bool create_loader(loader_state *s, const bench_case *c, tl_context *context,
                          tl_error *error) {
    const bool augment = c->numbers[AUGMENT] != 0;
    s->dataset = tl_dataset_create_long_range(
        context, &(tl_long_range_config){.count = COUNT, .seed = 1}, error);
    if (s->dataset == NULL) {
        return false;
    }
    const tl_loader_config config = {.shuffle = true,
                                     .drop_last = true,
                                     .seed = 1,
                                     .threads = (int)c->numbers[THREADS],
                                     .augment = {.crop_padding = augment ? 4 : 0,
                                                 .horizontal_flip = augment,
                                                 .cutout_size = augment ? 8 : 0}};
    s->loader = tl_loader_create(context, s->dataset, &config, error);
    return s->loader != NULL;
}

static void *create(const bench_case *c, tl_context *context, tl_error *error) {
    loader_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    const int64_t shape[2] = {STEP_SIDE, STEP_SIDE};
    s->products = c->numbers[PRODUCTS];
    s->tape = tl_tape_create(context);
    s->a = tl_tensor_create(context, 2, shape, false, error);
    s->b = tl_tensor_create(context, 2, shape, false, error);
    if (s->tape == NULL || s->a == NULL || s->b == NULL ||
        (c->numbers[FETCH] != 0 && !create_loader(s, c, context, error))) {
        destroy(s);
        return NULL;
    }
    bench_fill(tl_tensor_data(s->a), tl_tensor_size(s->a), 1);
    bench_fill(tl_tensor_data(s->b), tl_tensor_size(s->b), 2);
    return s;
}

static bool run(void *state, tl_error *error) {
    loader_state *s = state;
    tl_batch batch;
    if (s->loader != NULL && !tl_loader_next(s->loader, &batch)) {
        (void)tl_loader_start_epoch(s->loader, ++s->epoch);
        (void)tl_loader_next(s->loader, &batch);
    }
    for (int64_t i = 0; i < s->products; i++) {
        (void)tl_matmul(s->tape, s->a, s->b);
        *error = *tl_tape_error(s->tape);
        tl_tape_reset(s->tape);
    }
    return error->status == TL_OK;
}

void bench_loader_cases(bench_list *list) {
    static const struct {
        const char *name;
        int64_t numbers[4];
    } cases[] = {
        {"loader/plain", {0, 0, 0, 1}},
        {"loader/augmented", {1, 0, 0, 1}},
        {"loader/step_alone", {0, 0, STEP_PRODUCTS, 0}},
        {"loader/step_threads_0", {1, 0, STEP_PRODUCTS, 1}},
        {"loader/step_threads_1", {1, 1, STEP_PRODUCTS, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bool work = cases[i].numbers[PRODUCTS] != 0;
        const double side = STEP_SIDE;
        bench_case c = {.flops = work ? STEP_PRODUCTS * 2 * side * side * side : 0,
                        .bytes = work ? 0 : BATCH_VALUES * (1 + sizeof(tl_real)),
                        .create = create,
                        .run = run,
                        .destroy = destroy};
        snprintf(c.name, sizeof c.name, "%s", cases[i].name);
        memcpy(c.numbers, cases[i].numbers, sizeof cases[i].numbers);
        bench_add(list, &c);
    }
}
