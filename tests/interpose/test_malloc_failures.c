/* Every call of malloc and its kin in the process fails once, and then with all that follow: in our
 * code, in zlib, libpng, libgomp, libhdf5 and the C library. Each case runs in a child. It must end
 * in a clean error or in success, and when memory is there again the same call must succeed.
 *
 * Two libraries do not survive everything (docs/reliability.md): libgomp ends the process when it
 * has no memory for a team of threads, and libhdf5 1.10 may crash or keep a file open. For them
 * what is asserted is that a checkpoint under the old name is whole afterwards; the rest is
 * counted. Of the many calls below checkpoints, every 101st is tried, or all with
 * TAPELINE_SWEEP=full in the environment. */
#include <fcntl.h>
#include <hdf5.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interpose/memory_calls.h"
#include "support/data_files.h"
#include "support/workload.h"
#ifdef TEST_WITH_PNG
#include "common/png_image.h"
#endif

/* Names are made beforehand: Check's assertions allocate. */
static char old_path[TEST_PATH_BYTES];
static char new_path[TEST_PATH_BYTES];
static char archive_path[TEST_PATH_BYTES];
static char picture_path[TEST_PATH_BYTES];
static char folder[TEST_PATH_BYTES];
static workload w;
static tl_context *context;
static tl_error error;

/* ------------------------------------------------------------------ what is swept */

static tl_status save(void) {
    return workload_save(&w, new_path, &error);
}

static tl_status load(void) {
    return workload_load(&w, old_path, &error);
}

static tl_status step(void) {
    tl_status status = workload_new_tape(&w, &error);
    return status == TL_OK ? workload_step(&w, 1, NULL, &error) : status;
}

static tl_status build(void) {
    workload other;
    tl_error *reason = &error;
    tl_context *own = tl_context_create(&(tl_context_config){.threads = 1, .error = reason});
    if (own == NULL) {
        return error.status;
    }
    const tl_status status = workload_create(&other, own, 0, &error);
    workload_free(&other);
    tl_context_free(own);
    return status;
}

static tl_status read_archive(void) {
    tl_dataset *dataset = tl_dataset_load_cifar(context, archive_path, 10, TL_SPLIT_TEST, &error);
    const tl_status status = dataset != NULL ? TL_OK : error.status;
    tl_dataset_free(dataset);
    return status;
}

static tl_status loader_with_threads(void) {
    tl_loader *loader = tl_loader_create(
        context, w.dataset, &(tl_loader_config){.batch_size = 8, .threads = 2}, &error);
    if (loader == NULL) {
        return error.status;
    }
    tl_batch batch;
    while (tl_loader_next(loader, &batch)) {
    }
    tl_loader_free(loader);
    return TL_OK;
}

#ifdef TEST_WITH_PNG
static tl_status write_and_read_png(void) {
    picture image = {0};
    tl_status status = picture_create(&image, 20, 30, 3, &error);
    if (status == TL_OK) {
        status = png_image_write(&image, picture_path, &error);
    }
    picture_free(&image);
    if (status == TL_OK) {
        status = png_image_read(&image, picture_path, &error);
        picture_free(&image);
    }
    return status;
}
#endif

typedef struct subject {
    const char *name;
    tl_status (*run)(void);
    int least;                /* so many calls at least */
    const char *may_be_ended; /* by this library; NULL: it survives */
    int stride;               /* of the calls that are tried; 0: all */
} subject;

static const subject subjects[] = {
    {.name = "building a model", .run = build, .least = 100},
    {.name = "a training step", .run = step, .least = 3, .may_be_ended = "libgomp"},
    {.name = "reading CIFAR from .tar.gz", .run = read_archive, .least = 4},
    {.name = "a loader with two threads", .run = loader_with_threads, .least = 3},
    {.name = "saving a checkpoint",
     .run = save,
     .least = 500,
     .may_be_ended = "libhdf5",
     .stride = 101},
    {.name = "loading a checkpoint",
     .run = load,
     .least = 500,
     .may_be_ended = "libhdf5",
     .stride = 101},
#ifdef TEST_WITH_PNG
    {.name = "writing and reading PNG", .run = write_and_read_png, .least = 10},
#endif
};
enum { SUBJECTS = sizeof subjects / sizeof subjects[0] };

/* ------------------------------------------------------------------ children */

/* Bytes mapped now. */
static rlim_t address_space(void) {
    char text[64] = {0};
    const int descriptor = open("/proc/self/statm", O_RDONLY);
    const ssize_t got = read(descriptor, text, sizeof text - 1);
    (void)close(descriptor);
    return got > 0 ? (rlim_t)strtoull(text, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE) : 0;
}

enum { SURVIVED = 40, REFUSED, NO_MESSAGE, LEAKED, NOT_AGAIN, NOT_REACHED };

/* What a child does. Only numbers come back, for it must not need memory. */
static int child(const subject *s, int64_t k, bool for_good) {
    const size_t held = tl_context_memory(context).current;
    error = (tl_error){0};
    (void)H5garbage_collect(); /* libhdf5 keeps what it freed */
    memory_calls_arm(k, for_good);
    const tl_status status = s->run();
    const int64_t calls = memory_calls_disarm();
    if (calls < k) {
        return status == TL_OK ? NOT_REACHED : NOT_AGAIN;
    }
    if (status != TL_OK && (error.status != status || error.message[0] == '\0')) {
        return NO_MESSAGE;
    }
    if (s->run != step && s->run != load && tl_context_memory(context).current > held) {
        return LEAKED;
    }
    if (s->run() != TL_OK) {
        return NOT_AGAIN;
    }
    return status == TL_OK ? SURVIVED : REFUSED;
}

/* A child's exit code, or minus the signal that ended it. */
static int result_of(pid_t process) {
    int status = 0;
    ck_assert_int_eq(waitpid(process, &status, 0), process);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int run_child(const subject *s, int64_t k, bool for_good) {
    const pid_t process = fork();
    ck_assert_int_ge(process, 0);
    if (process == 0) {
        /* the last words of a library, and its core files, are no failure of the test */
        (void)freopen("/dev/null", "w", stderr);
        _exit(child(s, k, for_good));
    }
    return result_of(process);
}

static const char *describe(int result) {
    switch (result) {
    case NO_MESSAGE:
        return "an error without a message";
    case LEAKED:
        return "memory leaks";
    case NOT_AGAIN:
        return "it does not work afterwards";
    default:
        return result < 0 ? "killed by a signal" : "the process was ended";
    }
}

/* Whatever became of the child, the name leads to a checkpoint. */
static void assert_checkpoint_is_whole(void) {
    tl_state *state = tl_checkpoint_load(context, new_path, &error);
    ck_assert_msg(state != NULL, "%s", error.message);
    tl_state_free(state);
}

static void sweep(const subject *s, bool for_good) {
    const char *full = getenv("TAPELINE_SWEEP");
    const int64_t stride =
        s->stride == 0 || (full != NULL && strcmp(full, "full") == 0) ? 1 : s->stride;
    int64_t tried = 0;
    int64_t refused = 0;
    int64_t harmless = 0;
    int64_t lost = 0; /* afterwards the library refuses */
    for (int64_t k = 1;; k += stride) {
        const int result = run_child(s, k, for_good);
        if (result == NOT_REACHED) {
            ck_assert_msg(k > s->least, "%s: only %lld calls", s->name, (long long)k - 1);
            break;
        }
        tried++;
        refused += result == REFUSED;
        harmless += result == SURVIVED;
        lost += result == NOT_AGAIN;
        if (result != REFUSED && result != SURVIVED) {
            ck_assert_msg(s->may_be_ended != NULL && result != NO_MESSAGE && result != LEAKED,
                          "%s: call %lld of malloc fails %s: %s (%d)", s->name, (long long)k,
                          for_good ? "for good" : "once", describe(result), result);
            assert_checkpoint_is_whole();
        }
    }
    const int64_t ended = tried - refused - harmless - lost;
    printf("%s, %s: %lld failures of malloc: %lld clean errors, %lld without harm", s->name,
           for_good ? "for good" : "once", (long long)tried, (long long)refused,
           (long long)harmless);
    if (s->may_be_ended != NULL) {
        printf(", %lld refused later, %lld ended by %s", (long long)lost, (long long)ended,
               s->may_be_ended);
    }
    printf("\n");
    (void)fflush(stdout); /* not to be printed once more by a child */
}

/* The same with the address space at its end (ulimit -v), where large requests fail first: here
 * nothing may end the process but libgomp. */
static void run_out_of_address_space(const subject *s) {
    enum { STEP = 64 << 10, MOST = 4000 };
    int64_t refused = 0;
    int64_t succeeded = 0;
    int64_t ended = 0;
    for (int64_t i = 0; i < MOST && succeeded < 8; i++) {
        const pid_t process = fork();
        ck_assert_int_ge(process, 0);
        if (process == 0) {
            (void)freopen("/dev/null", "w", stderr);
            (void)malloc_trim(0);
            const rlim_t limit = address_space() + (rlim_t)(i * STEP);
            struct rlimit before;
            (void)getrlimit(RLIMIT_AS, &before);
            (void)setrlimit(RLIMIT_AS, &(struct rlimit){limit, before.rlim_max});
            error = (tl_error){0};
            const tl_status status = s->run();
            (void)setrlimit(RLIMIT_AS, &before);
            _exit(status == TL_OK            ? SURVIVED
                  : error.message[0] == '\0' ? NO_MESSAGE
                  : s->run() == TL_OK        ? REFUSED
                                             : NOT_AGAIN);
        }
        const int result = result_of(process);
        refused += result == REFUSED;
        succeeded += result == SURVIVED;
        if (result != REFUSED && result != SURVIVED) {
            ck_assert_msg(result == EXIT_FAILURE && s->run == step,
                          "%s: %lld kB of address space left: %s (%d)", s->name,
                          (long long)(i * STEP >> 10), describe(result), result);
            ended++;
        }
    }
    printf("%s, little address space: %lld clean errors, %lld ended by libgomp\n", s->name,
           (long long)refused, (long long)ended);
    (void)fflush(stdout);
    ck_assert_msg(succeeded > 0, "%s never succeeds", s->name);
}

START_TEST(address_space_ends) {
    run_out_of_address_space(&subjects[_i]);
}
END_TEST

START_TEST(malloc_fails) {
    sweep(&subjects[_i], false);
    sweep(&subjects[_i], true);
}
END_TEST

static void set_up(void) {
    make_folder(folder);
    set_path(old_path, folder, "old.h5");
    set_path(new_path, folder, "new.h5");
    set_path(archive_path, folder, "archive.tar.gz");
    set_path(picture_path, folder, "picture.png");
    context = context_with(1, NULL);
    ck_assert_int_eq(workload_create(&w, context, 0, &error), TL_OK);
    ck_assert_int_eq(workload_step(&w, 0, NULL, &error), TL_OK);
    ck_assert_int_eq(workload_save(&w, old_path, &error), TL_OK);
    ck_assert_int_eq(workload_save(&w, new_path, &error), TL_OK);
    write_data_files(folder);
}

static void tear_down(void) {
    workload_free(&w);
    tl_context_free(context);
    remove_folder(folder);
}

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("malloc_failures", &test_case);
    tcase_add_unchecked_fixture(test_case, set_up, tear_down);
    tcase_add_loop_test(test_case, malloc_fails, 0, SUBJECTS);
    tcase_add_loop_test(test_case, address_space_ends, 0, SUBJECTS);
    return run_suite(suite);
}
