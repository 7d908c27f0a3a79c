/* Checkpoints when things go wrong: every call to the operating system fails once, memory runs out
 * at every allocation, the disk is full, the folder is read-only, the process is killed. At all
 * times the name holds the old checkpoint or the new one, whole, and afterwards all works again.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interpose/system_calls.h"
#include "support/checkpoint_files.h"
#include "support/failing_allocator.h"

static tl_context *context;
static failing_allocator memory;
static int64_t swept; /* failures */
static tl_error error;
static char folder[TEST_PATH_BYTES];
static char path[TEST_PATH_BYTES];
static char temporary[TEST_PATH_BYTES];

static void set_up(void) {
    memory = (failing_allocator){0};
    const tl_context_config config = {.threads = 1, .allocator = failing_allocator_with(&memory)};
    context = tl_context_create(&config);
    ck_assert_ptr_nonnull(context);
    make_folder(folder);
    set_path(path, folder, "model.h5");
    set_path(temporary, folder, "model.h5.tmp");
}

static void tear_down(void) {
    remove_folder(folder);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}

static tl_status try_save(int variant) {
    tl_state *state = sample_state(context, variant);
    const tl_status status = tl_checkpoint_save(context, path, state, &error);
    tl_state_free(state);
    return status;
}

/* ------------------------------------------------------------------ tests */

/* Each system call, each time it is made while saving. */
static int sweep_saving(system_call which, int error_number, bool after_rename) {
    int found = 0;
    for (int n = 1;; n++) {
        save_sample(context, path, 1);
        system_fault_armed =
            (system_fault){.which = which, .countdown = n, .error_number = error_number};
        const tl_status status = try_save(2);
        const bool happened = system_fault_armed.happened;
        system_fault_armed = (system_fault){0};
        if (!happened) {
            ck_assert_int_eq(status, TL_OK);
            swept += found;
            return found;
        }
        found++;
        ck_assert_msg(status == TL_ERROR_IO, "%s %d: %s", system_call_names[which], n,
                      error.message);
        ck_assert_msg(strstr(error.message, strerror(error_number)) != NULL, "%s", error.message);
        ck_assert_msg(!file_exists(temporary), "%s %d", system_call_names[which], n);
        const int variant = sample_variant(context, path);
        ck_assert_msg(variant == 1 || after_rename, "%s %d", system_call_names[which], n);
        assert_holds_sample(context, path, variant);
    }
}

/* Each system call from the n-th time on, whatever comes of it: the name holds a whole checkpoint,
 * the new one if the save says so, and the next save works. */
static void sweep_for_good(system_call which) {
    for (int n = 1;; n++) {
        save_sample(context, path, 1);
        system_fault_armed =
            (system_fault){.which = which, .countdown = n, .error_number = EIO, .for_good = true};
        const tl_status status = try_save(2);
        const bool happened = system_fault_armed.happened;
        system_fault_armed = (system_fault){0};
        const int variant = sample_variant(context, path);
        ck_assert_msg(status == TL_OK ? variant == 2 : status == TL_ERROR_IO && variant >= 1,
                      "%s %d: %s", system_call_names[which], n, error.message);
        assert_holds_sample(context, path, variant);
        ck_assert_int_le(folder_count(folder), 2);
        save_sample(context, path, 3);
        ck_assert_int_eq(folder_count(folder), 1);
        if (!happened) {
            return;
        }
        swept++;
    }
}

START_TEST(every_system_call_fails_once) {
    ck_assert_int_ge(sweep_saving(CALL_WRITE, ENOSPC, false), 1);
    ck_assert_int_ge(sweep_saving(CALL_WRITE, EIO, false), 1);
    ck_assert_int_ge(sweep_saving(CALL_FSYNC, EIO, true), 2); /* of the file and of the folder */
    ck_assert_int_ge(sweep_saving(CALL_RENAME, EACCES, false), 1);
    ck_assert_int_ge(sweep_saving(CALL_FTRUNCATE, EIO, false), 1);
    for (system_call which = 0; which < CALLS; which++) {
        sweep_for_good(which);
    }
}
END_TEST

START_TEST(close_and_flock_fail_once) {
    save_sample(context, path, 1);
    system_fault_armed = (system_fault){.which = CALL_CLOSE, .countdown = 1, .error_number = EIO};
    ck_assert_int_eq(try_save(2), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "cannot close its temporary file");
    system_fault_armed = (system_fault){0};
    assert_holds_sample(context, path, 2); /* flushed and renamed by then */
    /* a file system without locks does not keep us from saving; somebody's lock does */
    system_fault_armed =
        (system_fault){.which = CALL_FLOCK, .countdown = 1, .error_number = ENOLCK};
    ck_assert_int_eq(try_save(3), TL_OK);
    system_fault_armed =
        (system_fault){.which = CALL_FLOCK, .countdown = 1, .error_number = EWOULDBLOCK};
    ck_assert_int_eq(try_save(4), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "another save to it is under way");
    assert_holds_sample(context, path, 3);
}
END_TEST

START_TEST(every_read_fails_once) {
    save_sample(context, path, 1);
    for (int n = 1;; n++) {
        system_fault_armed =
            (system_fault){.which = CALL_READ, .countdown = n, .error_number = EIO};
        tl_state *state = tl_checkpoint_load(context, path, &error);
        const bool happened = system_fault_armed.happened;
        system_fault_armed = (system_fault){0};
        ck_assert_int_eq(state == NULL, happened);
        tl_state_free(state);
        if (!happened) {
            ck_assert_int_ge(n, 3);
            return;
        }
        swept++;
        assert_error(&error, TL_ERROR_IO, "cannot read it: Input/output error");
    }
}
END_TEST

START_TEST(interrupted_and_short_transfers_go_on) {
    system_fault_armed = (system_fault){.short_transfers = true};
    save_sample(context, path, 1);
    assert_holds_sample(context, path, 1);
    const system_call calls[] = {CALL_WRITE, CALL_FSYNC, CALL_READ};
    for (int i = 0; i < 3; i++) {
        system_fault_armed =
            (system_fault){.which = calls[i], .countdown = 1, .error_number = EINTR};
        save_sample(context, path, 2 + i);
        assert_holds_sample(context, path, 2 + i);
        ck_assert(system_fault_armed.happened);
    }
    system_fault_armed = (system_fault){0};
}
END_TEST

START_TEST(every_allocation_fails_once) {
    save_sample(context, path, 1);
    tl_state *state = sample_state(context, 2);
    for (int n = 1;; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        const tl_status status = tl_checkpoint_save(context, path, state, &error);
        const bool happened = memory.calls >= n;
        memory.fail_at = 0;
        swept += happened;
        if (!happened) {
            ck_assert_int_eq(status, TL_OK);
            ck_assert_int_ge(n, 3);
            break;
        }
        ck_assert_msg(status == TL_ERROR_OUT_OF_MEMORY, "allocation %d: %s", n, error.message);
        assert_holds_sample(context, path, 1);
        ck_assert(!file_exists(temporary));
    }
    tl_state_free(state);
    for (int n = 1;; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        state = tl_checkpoint_load(context, path, &error);
        const bool happened = memory.calls >= n;
        memory.fail_at = 0;
        swept += happened;
        ck_assert_int_eq(state == NULL, happened);
        tl_state_free(state);
        if (!happened) {
            ck_assert_int_ge(n, 20);
            break;
        }
        ck_assert_uint_eq(tl_context_memory(context).current, 0);
        assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "out of memory");
    }
    assert_holds_sample(context, path, 2);
}
END_TEST

START_TEST(memory_limits_at_every_size) {
    save_sample(context, path, 1);
    tl_state *state = sample_state(context, 2);
    const size_t held = tl_context_memory(context).current;
    tl_status status = TL_ERROR_OUT_OF_MEMORY;
    for (size_t extra = 16; status != TL_OK; extra *= 2) {
        tl_context_set_memory_limit(context, held + extra);
        status = tl_checkpoint_save(context, path, state, &error);
        ck_assert(status == TL_OK || status == TL_ERROR_OUT_OF_MEMORY);
        tl_context_set_memory_limit(context, 0);
        assert_holds_sample(context, path, status == TL_OK ? 2 : 1);
    }
    tl_state_free(state);
}
END_TEST

/* A file of 8 megabytes, more than each of the limits. */
START_TEST(large_states_under_a_limit) {
    const int64_t size = 700001;
    tl_real *values = random_values(size, 1, -1, 1);
    const tl_state_array array = {
        .type = TL_ELEMENT_REAL, .rank = 1, .shape = {size}, .data = values};
    save_sample(context, path, 1);
    tl_state *state = tl_state_create(context, NULL);
    (void)tl_state_borrow_array(state, "a", &array, NULL);
    (void)tl_state_borrow_array(state, "b", &array, NULL);
    (void)tl_state_borrow_array(state, "c", &array, NULL);
    const size_t held = tl_context_memory(context).current;
    for (size_t megabytes = 0; megabytes < 8; megabytes++) {
        tl_context_set_memory_limit(context, held + (megabytes << 20) + 100);
        tl_context_reset_peak(context);
        ck_assert_int_eq(tl_checkpoint_save(context, path, state, &error), TL_ERROR_OUT_OF_MEMORY);
        assert_error(&error, TL_ERROR_OUT_OF_MEMORY, "checkpoint: the file's content");
        ck_assert_uint_eq(tl_context_memory(context).current, held);
        tl_context_set_memory_limit(context, 0);
        assert_holds_sample(context, path, 1);
    }
    ck_assert_int_eq(tl_checkpoint_save(context, path, state, &error), TL_OK);
    tl_state_free(state);
    free(values);
}
END_TEST

START_TEST(files_that_must_not_grow) {
    struct rlimit before;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    save_sample(context, path, 1);
    for (rlim_t count = 0; count < 4000; count += 999) {
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = count,
                                                                  .rlim_max = before.rlim_max}),
                         0);
        const tl_status status = try_save(2);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
        ck_assert_int_eq(status, TL_ERROR_IO);
        assert_error(&error, TL_ERROR_IO, "cannot write its temporary file: File too large");
        ck_assert(!file_exists(temporary));
        assert_holds_sample(context, path, 1);
    }
}
END_TEST

/* Where this process may mount a small file system. */
START_TEST(full_disk) {
    char disk[TEST_PATH_BYTES];
    set_path(disk, folder, "disk");
    ck_assert_int_eq(mkdir(disk, 0777), 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=64k") != 0) {
        return;
    }
    char filler[TEST_PATH_BYTES];
    set_path(path, folder, "disk/model.h5");
    set_path(temporary, folder, "disk/model.h5.tmp");
    set_path(filler, folder, "disk/filler");
    save_sample(context, path, 1);
    unsigned char block[4096] = {0};
    const int descriptor = open(filler, O_WRONLY | O_CREAT, 0666);
    while (write(descriptor, block, sizeof block) > 0) {
    }
    (void)close(descriptor);
    ck_assert_int_eq(try_save(2), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "No space left on device");
    ck_assert(!file_exists(temporary));
    assert_holds_sample(context, path, 1);
    ck_assert_int_eq(remove(filler), 0);
    save_sample(context, path, 2);
    assert_holds_sample(context, path, 2);
    /* the same file system, read-only */
    ck_assert_int_eq(mount("tmpfs", disk, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    ck_assert_int_eq(try_save(3), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "cannot create its temporary file: Read-only file system");
    assert_holds_sample(context, path, 2);
    ck_assert_int_eq(umount(disk), 0);
}
END_TEST

/* In a child that is not root, for root may write anywhere. */
START_TEST(folder_without_permission) {
    save_sample(context, path, 1);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    const pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0) {
            _exit(0);
        }
        const bool refused =
            try_save(2) == TL_ERROR_IO &&
            strstr(error.message, "cannot create its temporary file: Permission denied") != NULL;
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(chmod(folder, 0755), 0);
    assert_holds_sample(context, path, 1);
}
END_TEST

START_TEST(places_that_cannot_be) {
    set_path(path, folder, "missing/model.h5");
    ck_assert_int_eq(try_save(1), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "cannot create its temporary file: No such file");
    set_path(path, folder, "model.h5");
    ck_assert_int_eq(mkdir(path, 0777), 0);
    ck_assert_int_eq(try_save(1), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "cannot rename its temporary file: Is a directory");
    ck_assert(!file_exists(temporary));
    ck_assert_int_eq(remove(path), 0);
    ck_assert_int_eq(mkfifo(temporary, 0666), 0);
    ck_assert_int_eq(try_save(1), TL_ERROR_IO);
    ck_assert_int_eq(remove(temporary), 0);
    ck_assert_int_eq(symlink("elsewhere", temporary), 0);
    ck_assert_int_eq(try_save(1), TL_ERROR_IO);
    ck_assert_int_eq(remove(temporary), 0);
    /* a name without a folder is in the current one */
    char before[TEST_PATH_BYTES];
    ck_assert_ptr_nonnull(getcwd(before, sizeof before));
    ck_assert_int_eq(chdir(folder), 0);
    save_sample(context, "plain.h5", 5);
    assert_holds_sample(context, "plain.h5", 5);
    ck_assert_int_eq(chdir(before), 0);
}
END_TEST

/* What a crash left behind is taken over; what another process is writing is not. */
START_TEST(temporary_files_of_others) {
    char junk[100000] = {1};
    write_file(temporary, junk, sizeof junk);
    save_sample(context, path, 1);
    assert_holds_sample(context, path, 1);
    ck_assert(!file_exists(temporary));
    const int descriptor = open(temporary, O_WRONLY | O_CREAT, 0666);
    ck_assert_int_eq(flock(descriptor, LOCK_EX), 0);
    ck_assert_int_eq(try_save(2), TL_ERROR_IO);
    assert_error(&error, TL_ERROR_IO, "another save to it is under way");
    ck_assert(file_exists(temporary));
    (void)close(descriptor);
    save_sample(context, path, 2);
    assert_holds_sample(context, path, 2);
}
END_TEST

START_TEST(killed_at_random_moments) {
    enum { KILLS = 60, SAVES = 64, MOST_ROUNDS = 20 };
    tl_random random = tl_random_create(1, 1000, 0);
    save_sample(context, path, 0);
    int last = 0;
    /* on a busy machine, until one save at least came through: later ones get more time */
    for (int i = 0; i < KILLS || (last == 0 && i < KILLS * MOST_ROUNDS); i++) {
        /* made here: a child that is killed amid a check's message would garble what Check reads */
        tl_state *states[SAVES];
        for (int k = 0; k < SAVES; k++) {
            states[k] = sample_state(context, last + k);
        }
        const pid_t child = fork();
        if (child == 0) {
            for (int k = 0;; k = k + 1 < SAVES ? k + 1 : k) {
                (void)tl_checkpoint_save(context, path, states[k], &error);
            }
        }
        for (int k = 0; k < SAVES; k++) {
            tl_state_free(states[k]);
        }
        (void)usleep(tl_random_below(&random, 12000u * (1u + (uint32_t)(i / KILLS))));
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        ck_assert_int_eq(waitpid(child, NULL, 0), child);
        const int variant = sample_variant(context, path);
        ck_assert_int_ge(variant, last);
        assert_holds_sample(context, path, variant);
        ck_assert_int_le(folder_count(folder), 2);
        last = variant;
    }
    ck_assert_int_gt(last, 0);
    save_sample(context, path, 7);
    ck_assert_int_eq(folder_count(folder), 1);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("checkpoint_faults", &test_case);
    tcase_add_checked_fixture(test_case, set_up, tear_down);
    tcase_add_test(test_case, every_system_call_fails_once);
    tcase_add_test(test_case, close_and_flock_fail_once);
    tcase_add_test(test_case, every_read_fails_once);
    tcase_add_test(test_case, interrupted_and_short_transfers_go_on);
    tcase_add_test(test_case, every_allocation_fails_once);
    tcase_add_test(test_case, memory_limits_at_every_size);
    tcase_add_test(test_case, large_states_under_a_limit);
    tcase_add_test(test_case, files_that_must_not_grow);
    tcase_add_test(test_case, full_disk);
    tcase_add_test(test_case, folder_without_permission);
    tcase_add_test(test_case, places_that_cannot_be);
    tcase_add_test(test_case, temporary_files_of_others);
    tcase_add_test(test_case, killed_at_random_moments);
    const int code = run_suite(suite);
    printf("failures of system calls and of memory: %lld\n", (long long)swept);
    return code;
}
