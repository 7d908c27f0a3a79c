/* Reading data sets when the operating system fails: every open, stat and read fails once, and with
 * all that follow; reads are short or interrupted. Each time there is an error that names the file
 * and the reason, nothing leaks, no descriptor stays open, and afterwards the same file is read. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "interpose/system_calls.h"
#include "support/data_files.h"

static char folder[TEST_PATH_BYTES];
static tl_context *context;
static tl_error error;
static int swept;

static void set_up(void) {
    make_folder(folder);
    context = context_with(1, NULL);
    write_data_files(folder);
}

static void tear_down(void) {
    system_fault_armed = (system_fault){0};
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
    remove_folder(folder);
}

static void sweep(int index, system_call which, bool for_good) {
    const int descriptors = folder_count("/proc/self/fd");
    for (int n = 1;; n++) {
        system_fault_armed = (system_fault){
            .which = which, .countdown = n, .error_number = EIO, .for_good = for_good};
        tl_dataset *dataset = load_data_file(context, folder, index, &error);
        const bool happened = system_fault_armed.happened;
        system_fault_armed = (system_fault){0};
        if (!happened) {
            ck_assert_ptr_nonnull(dataset);
            tl_dataset_free(dataset);
            ck_assert_int_ge(n, which == CALL_CLOSE ? 1 : 2);
            return;
        }
        swept++;
        /* stat only looks for one of several names; what close says of a file that was read does
         * not matter */
        if (which == CALL_STAT || which == CALL_CLOSE) {
            tl_dataset_free(dataset);
        } else {
            ck_assert_ptr_null(dataset);
            assert_error(&error, TL_ERROR_IO, strerror(EIO));
            ck_assert_msg(strstr(error.message, folder) != NULL, "%s", error.message);
        }
        ck_assert_int_eq(folder_count("/proc/self/fd"), descriptors);
        assert_data_file_loads(context, folder, index);
    }
}

START_TEST(every_call_fails) {
    assert_data_file_loads(context, folder, _i);
    const system_call calls[] = {CALL_OPEN, CALL_FSTAT, CALL_READ, CALL_CLOSE};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        sweep(_i, calls[i], false);
        sweep(_i, calls[i], true);
    }
    if (_i < 3) { /* CIFAR */
        sweep(_i, CALL_STAT, false);
        sweep(_i, CALL_STAT, true);
    }
}
END_TEST

START_TEST(short_and_interrupted_reads_go_on) {
    const int index = _i;
    system_fault_armed = (system_fault){.short_transfers = true};
    assert_data_file_loads(context, folder, index);
    for (int n = 1; n < 4; n++) {
        system_fault_armed =
            (system_fault){.which = CALL_READ, .countdown = n, .error_number = EINTR};
        assert_data_file_loads(context, folder, index);
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("dataset_faults", &test_case);
    tcase_add_checked_fixture(test_case, set_up, tear_down);
    tcase_add_loop_test(test_case, every_call_fails, 0, DATA_FILES);
    tcase_add_loop_test(test_case, short_and_interrupted_reads_go_on, 0, DATA_FILES);
    const int code = run_suite(suite);
    printf("failures of system calls: %d\n", swept);
    return code;
}
