/* loader.c - batches in the order of an epoch, made in tl_loader_next or ahead of it by threads.
 *
 * Batch k of the epoch (counted from where the epoch was entered) is made in slot k modulo the
 * number of slots. With threads, each takes the next batch that nobody makes yet, as long as its
 * slot is free; tl_loader_next frees the slot of the batch before, and waits for its own. What is
 * in a batch depends on (seed, epoch, position) alone, never on who made it.
 */
#include <tapeline/loader.h>

#include <pthread.h>
#include <signal.h>

#include "core/context_internal.h"
#include "data/augment.h"

#include <tapeline/random.h>

enum { DEFAULT_BATCH = 128, MOST_THREADS = 16, SPARE_SLOTS = 2 };

static const int64_t epochs_end = INT64_C(1) << 32;

typedef struct loader_slot {
    int64_t ready; /* the batch in it, -1: none */
    int64_t count;
    tl_real *images;
    int32_t *labels;
    int64_t *indices;
    uint8_t *masks;   /* NULL if the dataset has none */
    tl_real *targets; /* likewise */
} loader_slot;

typedef struct loader_worker {
    tl_loader *loader;
    pthread_t thread;
    uint8_t *scratch;
} loader_worker;

struct tl_loader {
    tl_context *context;
    tl_loader_config config;
    tl_augment_plan plan;
    tl_real *normalization; /* the plan's scale and offset */
    int64_t *order;         /* [count]: the epoch's permutation */
    int64_t epoch;
    int64_t start;   /* the position where the epoch was entered */
    int64_t batches; /* from there to the epoch's end */
    int64_t taken;   /* batches handed out */
    int slot_count;
    loader_slot slots[MOST_THREADS + SPARE_SLOTS];
    int worker_count; /* 1 without threads: the caller */
    loader_worker workers[MOST_THREADS];
    /* With threads, what follows and `batches`, `slots[].ready` are guarded by the mutex. */
    int running;      /* threads that were started */
    int64_t next;     /* the next batch that nobody makes yet */
    int64_t released; /* batches below this were handed out and are no longer read */
    int making;       /* threads that are making a batch */
    bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t work; /* there may be something to make */
    pthread_cond_t done; /* a batch was finished */
};

/* ---- batches */

static void make_batch(tl_loader *loader, int64_t number, uint8_t *scratch) {
    const tl_dataset_info *info = loader->plan.info;
    loader_slot *slot = &loader->slots[number % loader->slot_count];
    const int64_t first = loader->start + number * loader->config.batch_size;
    const int64_t left = info->count - first;
    const int64_t whole = left < loader->config.batch_size ? left : loader->config.batch_size;
    const int64_t begin = whole * loader->config.share / loader->config.shares;
    const int64_t pixels = info->height * info->width;
    slot->count = whole * (loader->config.share + 1) / loader->config.shares - begin;
    for (int64_t i = 0; i < slot->count; i++) {
        const int64_t index = loader->order[first + begin + i];
        slot->indices[i] = index;
        slot->labels[i] = info->labels[index];
        tl_augment_sample(&loader->plan, loader->epoch, index, scratch,
                          slot->images + i * pixels * info->channels,
                          slot->masks != NULL ? slot->masks + i * pixels : NULL);
        for (int64_t p = 0; p < pixels && slot->targets != NULL; p++) {
            slot->targets[i * pixels + p] = (tl_real)info->targets[index * pixels + p];
        }
    }
}

/* Fisher and Yates, from the stream (seed, shuffle, epoch). */
static void draw_order(tl_loader *loader) {
    const int64_t count = loader->plan.info->count;
    for (int64_t i = 0; i < count; i++) {
        loader->order[i] = i;
    }
    if (!loader->config.shuffle) {
        return;
    }
    tl_random random =
        tl_random_create(loader->config.seed, TL_RANDOM_SHUFFLE, (uint32_t)loader->epoch);
    for (int64_t i = count - 1; i > 0; i--) {
        const int64_t other = tl_random_below(&random, (uint32_t)(i + 1));
        const int64_t kept = loader->order[i];
        loader->order[i] = loader->order[other];
        loader->order[other] = kept;
    }
}

static int64_t batches_from(const tl_loader *loader, int64_t position) {
    const int64_t left = loader->plan.info->count - position;
    const int64_t size = loader->config.batch_size;
    return loader->config.drop_last ? left / size : left / size + (left % size != 0);
}

static void enter(tl_loader *loader, int64_t epoch, int64_t position) {
    loader->epoch = epoch;
    loader->start = position;
    loader->batches = batches_from(loader, position);
    loader->taken = 0;
    loader->next = 0;
    loader->released = 0;
    for (int i = 0; i < loader->slot_count; i++) {
        loader->slots[i].ready = -1;
    }
    draw_order(loader);
}

/* ---- threads */

static bool can_make(const tl_loader *loader) {
    return loader->next < loader->batches && loader->next < loader->released + loader->slot_count;
}

static void *work(void *argument) {
    loader_worker *worker = argument;
    tl_loader *loader = worker->loader;
    pthread_mutex_lock(&loader->mutex);
    while (!loader->stop) {
        if (!can_make(loader)) {
            pthread_cond_wait(&loader->work, &loader->mutex);
            continue;
        }
        const int64_t number = loader->next++;
        loader->making++;
        pthread_mutex_unlock(&loader->mutex);
        make_batch(loader, number, worker->scratch);
        pthread_mutex_lock(&loader->mutex);
        loader->making--;
        loader->slots[number % loader->slot_count].ready = number;
        pthread_cond_signal(&loader->done);
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

/* Signals are for the program's own threads. */
static tl_status start_threads(tl_loader *loader, tl_error *error) {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = 0;
    while (result == 0 && loader->running < loader->config.threads) {
        loader_worker *worker = &loader->workers[loader->running];
        result = pthread_create(&worker->thread, NULL, work, worker);
        loader->running += result == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result == 0 ? TL_OK
                       : tl_fail(error, TL_ERROR_OUT_OF_MEMORY,
                                 "loader: the system refused thread %d of %d", loader->running + 1,
                                 loader->config.threads);
}

static void stop_threads(tl_loader *loader) {
    pthread_mutex_lock(&loader->mutex);
    loader->stop = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->mutex);
    for (int i = 0; i < loader->running; i++) {
        pthread_join(loader->workers[i].thread, NULL);
    }
}

/* ---- creation */

static tl_status resolve(tl_loader_config *config, const tl_dataset_info *info, tl_error *error) {
    if (config->batch_size == 0) {
        config->batch_size = DEFAULT_BATCH;
    }
    if (config->batch_size < 0 || config->batch_size > UINT32_MAX) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: batch size: expected at least 1, found %lld",
                       (long long)config->batch_size);
    }
    if (info->count > UINT32_MAX) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: expected a dataset of less than 2^32 images, found %lld",
                       (long long)info->count);
    }
    if (config->shares == 0) {
        config->shares = 1;
    }
    if (config->shares < 1 || config->share < 0 || config->share >= config->shares) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: share: expected one of the %d parts of a batch, found number %d",
                       config->shares, config->share);
    }
    if (config->batch_size % config->shares != 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: batches of %lld cannot be cut into %d equal parts",
                       (long long)config->batch_size, config->shares);
    }
    if (config->drop_last && config->batch_size > info->count) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: no batch: the batch size is %lld, the dataset has %lld images, and "
                       "the last batch is to be dropped",
                       (long long)config->batch_size, (long long)info->count);
    }
    if (config->threads < 0 || config->threads > MOST_THREADS) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: threads: expected 0 to %d, found %d", MOST_THREADS,
                       config->threads);
    }
    const tl_augment_config *augment = &config->augment;
    if (info->targets != NULL && (augment->crop_padding != 0 || augment->horizontal_flip)) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: a dataset with targets can be neither cropped nor flipped");
    }
    const int64_t side = info->height < info->width ? info->height : info->width;
    if (augment->crop_padding < 0 || augment->crop_padding > side) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: crop padding: expected 0 to %lld, found %d", (long long)side,
                       augment->crop_padding);
    }
    if (augment->cutout_size < 0) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "loader: cutout size: expected at least 0, found %d", augment->cutout_size);
    }
    return TL_OK;
}

/* Images of the largest batch, or of the largest part of one; rounded up. */
static size_t slot_images(const tl_loader *loader) {
    const int64_t count = loader->plan.info->count;
    const int64_t whole = loader->config.batch_size < count ? loader->config.batch_size : count;
    return (size_t)((whole + loader->config.shares - 1) / loader->config.shares);
}

static size_t image_pixels(const tl_loader *loader) {
    return (size_t)(loader->plan.info->height * loader->plan.info->width);
}

/* Below 2^64: the dataset itself holds a byte for each value. */
static size_t batch_bytes(const tl_loader *loader) {
    return slot_images(loader) * image_pixels(loader) * (size_t)loader->plan.info->channels *
           sizeof(tl_real);
}

static size_t normalization_bytes(const tl_loader *loader) {
    return 2 * (size_t)(loader->plan.info->width * loader->plan.info->channels) * sizeof(tl_real);
}

static bool allocate_slot(tl_loader *loader, loader_slot *slot) {
    const size_t images = slot_images(loader);
    const bool wants_masks = loader->plan.info->masks != NULL;
    slot->ready = -1;
    slot->images = tl_memory_allocate(loader->context, batch_bytes(loader));
    slot->labels = tl_memory_allocate(loader->context, images * sizeof(int32_t));
    slot->indices = tl_memory_allocate(loader->context, images * sizeof(int64_t));
    if (wants_masks) {
        slot->masks = tl_memory_allocate(loader->context, images * image_pixels(loader));
    }
    const bool wants_targets = loader->plan.info->targets != NULL;
    if (wants_targets) {
        slot->targets =
            tl_memory_allocate(loader->context, images * image_pixels(loader) * sizeof(tl_real));
    }
    return slot->images != NULL && slot->labels != NULL && slot->indices != NULL &&
           (!wants_masks || slot->masks != NULL) && (!wants_targets || slot->targets != NULL);
}

static tl_status allocate(tl_loader *loader, tl_error *error) {
    const tl_dataset_info *info = loader->plan.info;
    tl_context *context = loader->context;
    loader->normalization = tl_memory_allocate(context, normalization_bytes(loader));
    loader->order = tl_memory_allocate(context, (size_t)info->count * sizeof(int64_t));
    bool complete = loader->normalization != NULL && loader->order != NULL;
    for (int i = 0; i < loader->slot_count && complete; i++) {
        complete = allocate_slot(loader, &loader->slots[i]);
    }
    for (int i = 0; i < loader->worker_count && complete; i++) {
        loader->workers[i].loader = loader;
        loader->workers[i].scratch = tl_memory_allocate(context, tl_augment_scratch_bytes(info));
        complete = loader->workers[i].scratch != NULL;
    }
    return complete ? TL_OK
                    : tl_memory_fail(context, error, "loader: batches", batch_bytes(loader));
}

static void release(tl_loader *loader) {
    tl_context *context = loader->context;
    const tl_dataset_info *info = loader->plan.info;
    const size_t images = slot_images(loader);
    for (int i = 0; i < loader->worker_count; i++) {
        tl_memory_release(context, loader->workers[i].scratch, tl_augment_scratch_bytes(info));
    }
    for (int i = 0; i < loader->slot_count; i++) {
        loader_slot *slot = &loader->slots[i];
        tl_memory_release(context, slot->images, batch_bytes(loader));
        tl_memory_release(context, slot->labels, images * sizeof(int32_t));
        tl_memory_release(context, slot->indices, images * sizeof(int64_t));
        tl_memory_release(context, slot->masks, images * image_pixels(loader));
        tl_memory_release(context, slot->targets, images * image_pixels(loader) * sizeof(tl_real));
    }
    tl_memory_release(context, loader->order, (size_t)info->count * sizeof(int64_t));
    tl_memory_release(context, loader->normalization, normalization_bytes(loader));
    tl_memory_release(context, loader, sizeof *loader);
}

void tl_loader_free(tl_loader *loader) {
    if (loader == NULL) {
        return;
    }
    stop_threads(loader);
    pthread_cond_destroy(&loader->done);
    pthread_cond_destroy(&loader->work);
    pthread_mutex_destroy(&loader->mutex);
    release(loader);
}

tl_loader *tl_loader_create(tl_context *context, const tl_dataset *dataset,
                            const tl_loader_config *config, tl_error *error) {
    tl_loader_config resolved = config != NULL ? *config : (tl_loader_config){0};
    const tl_dataset_info *info = tl_dataset_describe(dataset);
    if (resolve(&resolved, info, error) != TL_OK) {
        return NULL;
    }
    tl_loader *loader = tl_memory_allocate_zeroed(context, 1, sizeof *loader);
    if (loader == NULL) {
        (void)tl_memory_fail(context, error, "loader", sizeof *loader);
        return NULL;
    }
    loader->context = context;
    loader->config = resolved;
    loader->slot_count = resolved.threads > 0 ? resolved.threads + SPARE_SLOTS : 1;
    loader->worker_count = resolved.threads > 0 ? resolved.threads : 1;
    loader->plan =
        (tl_augment_plan){.info = info, .config = resolved.augment, .seed = resolved.seed};
    if (allocate(loader, error) != TL_OK) {
        release(loader);
        return NULL;
    }
    tl_real *offset = loader->normalization + info->width * info->channels;
    tl_augment_fill_normalization(info, loader->normalization, offset);
    loader->plan.scale = loader->normalization;
    loader->plan.offset = offset;
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->work, NULL);
    pthread_cond_init(&loader->done, NULL);
    enter(loader, 0, 0);
    if (start_threads(loader, error) != TL_OK) {
        tl_loader_free(loader);
        return NULL;
    }
    return loader;
}

/* ---- use */

/* Waits until batch `taken` is there. */
static void await_batch(tl_loader *loader) {
    const loader_slot *slot = &loader->slots[loader->taken % loader->slot_count];
    pthread_mutex_lock(&loader->mutex);
    loader->released = loader->taken;
    pthread_cond_broadcast(&loader->work);
    while (slot->ready != loader->taken) {
        pthread_cond_wait(&loader->done, &loader->mutex);
    }
    pthread_mutex_unlock(&loader->mutex);
}

bool tl_loader_next(tl_loader *loader, tl_batch *batch) {
    if (loader->taken == loader->batches) {
        return false;
    }
    if (loader->config.threads > 0) {
        await_batch(loader);
    } else {
        make_batch(loader, loader->taken, loader->workers[0].scratch);
    }
    const tl_dataset_info *info = loader->plan.info;
    const loader_slot *slot = &loader->slots[loader->taken % loader->slot_count];
    loader->taken++;
    *batch = (tl_batch){
        .count = slot->count,
        .images = {.rank = 4,
                   .shape = {slot->count, info->height, info->width, info->channels},
                   .data = slot->images},
        .labels = slot->labels,
        .masks = slot->masks,
        .targets = {.rank = 3,
                    .shape = {slot->count, info->height, info->width},
                    .data = slot->targets},
        .indices = slot->indices,
    };
    return true;
}

tl_status tl_loader_seek(tl_loader *loader, int64_t epoch, int64_t position) {
    if (epoch < 0 || epoch >= epochs_end || position < 0 || position > loader->plan.info->count) {
        return TL_ERROR_INVALID_ARGUMENT;
    }
    pthread_mutex_lock(&loader->mutex);
    loader->batches = 0; /* nothing more is begun */
    while (loader->making > 0) {
        pthread_cond_wait(&loader->done, &loader->mutex);
    }
    enter(loader, epoch, position);
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->mutex);
    return TL_OK;
}

tl_status tl_loader_start_epoch(tl_loader *loader, int64_t epoch) {
    return tl_loader_seek(loader, epoch, 0);
}

int64_t tl_loader_epoch(const tl_loader *loader) {
    return loader->epoch;
}

int64_t tl_loader_position(const tl_loader *loader) {
    const int64_t count = loader->plan.info->count;
    const int64_t left = count - loader->start;
    const int64_t size = loader->config.batch_size;
    return loader->taken > left / size ? count : loader->start + loader->taken * size;
}

int64_t tl_loader_batches(const tl_loader *loader) {
    return batches_from(loader, 0);
}
