/* Checkpoints: what was saved comes back bit for bit; what is damaged, foreign or forged is a clear
 * error. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <hdf5.h>

#include "io/sha256.h"
#include "io/user_block.h"
#include "support/checkpoint_files.h"

static tl_context *context;
static tl_error error;
static char folder[TEST_PATH_BYTES];
static char path[TEST_PATH_BYTES];

static void set_up(void) {
    context = context_with(1, NULL);
    make_folder(folder);
    set_path(path, folder, "model.h5");
}

static void tear_down(void) {
    remove_folder(folder);
    ck_assert_uint_eq(tl_context_memory(context).current, 0);
    tl_context_free(context);
}

START_TEST(digests_are_the_standard_s) {
    unsigned char digest[TL_SHA256_SIZE];
    /* FIPS 180-2, appendix B.1 and B.2, and the empty message */
    static const unsigned char abc[4] = {0xba, 0x78, 0x16, 0xbf};
    static const unsigned char two_blocks[4] = {0x24, 0x8d, 0x6a, 0x61};
    static const unsigned char empty[4] = {0xe3, 0xb0, 0xc4, 0x42};
    tl_sha256("abc", 3, digest);
    ck_assert(memcmp(digest, abc, 4) == 0);
    tl_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, digest);
    ck_assert(memcmp(digest, two_blocks, 4) == 0);
    tl_sha256("", 0, digest);
    ck_assert(memcmp(digest, empty, 4) == 0);
}
END_TEST

START_TEST(round_trip) {
    save_sample(context, path, 3);
    assert_holds_sample(context, path, 3);
    save_sample(context, path, 4); /* over the old one */
    assert_holds_sample(context, path, 4);
    ck_assert_int_eq(folder_count(folder), 1);
    tl_state *loaded = tl_checkpoint_load(context, path, &error);
    ck_assert_str_eq(tl_state_find_string(loaded, "format"), "tapeline-checkpoint");
    ck_assert_str_eq(tl_state_find_string(loaded, "model/stages/0/weight/axes"), "out in");
    /* what was loaded can be saved again */
    ck_assert_int_eq(tl_checkpoint_save(context, path, loaded, &error), TL_OK);
    assert_holds_sample(context, path, 4);
    tl_state_free(loaded);
}
END_TEST

/* More than one chunk, with a ragged end. */
START_TEST(large_arrays) {
    const int64_t size = 5 * 300001;
    float *values = malloc((size_t)size * sizeof *values);
    for (int64_t i = 0; i < size; i++) {
        values[i] = (float)(i * 7919 % 100003);
    }
    const tl_state_array array = {
        .type = TL_FLOAT32, .rank = 2, .shape = {5, 300001}, .data = values};
    tl_state *state = tl_state_create(context, NULL);
    (void)tl_state_borrow_array(state, "large", &array, NULL);
    ck_assert_int_eq(tl_checkpoint_save(context, path, state, &error), TL_OK);
    tl_state_free(state);
    state = tl_checkpoint_load(context, path, &error);
    ck_assert_msg(state != NULL, "%s", error.message);
    ck_assert(memcmp(tl_state_find_array(state, "large")->data, values,
                     (size_t)size * sizeof *values) == 0);
    tl_state_free(state);
    free(values);
}
END_TEST

static bool output_has(const char *command, const char *line) {
    char buffer[1 << 14];
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    const size_t length = fread(buffer, 1, sizeof buffer - 1, pipe);
    buffer[length] = '\0';
    (void)pclose(pipe);
    return strstr(buffer, line) != NULL;
}

/* By a program that knows nothing of us. */
START_TEST(other_programs_read_it) {
    if (system("h5dump --version > /dev/null 2>&1") != 0) {
        return;
    }
    save_sample(context, path, 3);
    char command[2 * TEST_PATH_BYTES];
    (void)snprintf(command, sizeof command, "h5dump -n '%s' 2>&1", path);
    ck_assert(output_has(command, " group      /model/stages/0\n"));
    ck_assert(output_has(command, " dataset    /model/stages/0/weight\n"));
    (void)snprintf(command, sizeof command, "h5dump -a /training/note '%s' 2>&1", path);
    ck_assert(output_has(command, "H5T_CSET_UTF8"));
    (void)snprintf(command, sizeof command, "h5dump -p -H -d /model/integers '%s' 2>&1", path);
    ck_assert(output_has(command, "COMPRESSION DEFLATE"));
    ck_assert(output_has(command, "CHECKSUM FLETCHER32"));
    (void)snprintf(command, sizeof command, "tail -c +513 '%s' | sha256sum", path);
    bytes file = read_file(path);
    char digits[9];
    (void)snprintf(digits, sizeof digits, "%02x%02x%02x%02x", file.data[24], file.data[25],
                   file.data[26], file.data[27]);
    ck_assert(output_has(command, digits));
    bytes_free(&file);
}
END_TEST

/* ------------------------------------------------------------------ damage */

static void assert_load_fails(tl_status status, const char *part) {
    tl_state *state = tl_checkpoint_load(context, path, &error);
    ck_assert_msg(state == NULL, "a bad file was loaded, expected: %s", part);
    assert_error(&error, status, part);
    ck_assert_msg(strstr(error.message, path) != NULL, "no file name in '%s'", error.message);
    ck_assert_ptr_null(strchr(error.message, '\n'));
}

START_TEST(truncated_and_extended) {
    enum { CUTS = 50 };
    save_sample(context, path, 1);
    bytes file = read_file(path);
    for (size_t i = 0; i < CUTS; i++) {
        const size_t cut = file.count * i / CUTS;
        write_file(path, file.data, cut);
        assert_load_fails(TL_ERROR_FORMAT,
                          cut <= TL_USER_BLOCK_SIZE ? "of more than 512 bytes" : "truncated");
    }
    write_file(path, file.data, file.count - 1);
    assert_load_fails(TL_ERROR_FORMAT, "truncated: expected");
    write_file(path, file.data, file.count + 1); /* there is one to spare */
    assert_load_fails(TL_ERROR_FORMAT, "damaged: expected");
    write_file(path, file.data, file.count);
    assert_holds_sample(context, path, 1);
    bytes_free(&file);
}
END_TEST

/* Every bit of the block in front, and one bit of every 13th byte behind it. */
START_TEST(flipped_bits) {
    save_sample(context, path, 1);
    bytes file = read_file(path);
    for (size_t i = 0; i < file.count; i += i < TL_USER_BLOCK_SIZE ? 1 : 13) {
        for (int bit = 0; bit < 8; bit++) {
            if (i >= TL_USER_BLOCK_SIZE && bit != (int)(i / 13 % 8)) {
                continue;
            }
            file.data[i] ^= (unsigned char)(1 << bit);
            write_file(path, file.data, file.count);
            const char *part = i < 8                     ? "expected a Tapeline checkpoint"
                               : i < 12                  ? "version"
                               : i >= 16 && i < 24       ? "bytes, found"
                               : i >= 24 && i < 56       ? "checksum"
                               : i >= TL_USER_BLOCK_SIZE ? "checksum"
                                                         : "header";
            assert_load_fails(TL_ERROR_FORMAT, part);
            file.data[i] ^= (unsigned char)(1 << bit);
        }
    }
    bytes_free(&file);
}
END_TEST

START_TEST(no_checkpoint_at_all) {
    assert_load_fails(TL_ERROR_IO, "cannot open it: No such file");
    write_file(path, "", 0);
    assert_load_fails(TL_ERROR_FORMAT, "found 0");
    char text[2000];
    memset(text, 'x', sizeof text);
    write_file(path, text, sizeof text);
    assert_load_fails(TL_ERROR_FORMAT, "begins with the bytes 78 78 78 78");
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert_int_ge(H5Fclose(file), 0);
    assert_load_fails(TL_ERROR_FORMAT, "found another HDF5 file");
    ck_assert_int_eq(remove(path), 0);
    ck_assert_int_eq(mkdir(path, 0777), 0);
    assert_load_fails(TL_ERROR_IO, "expected a file, found a folder");
    ck_assert_int_eq(remove(path), 0);
    ck_assert_int_eq(mkfifo(path, 0666), 0);
    assert_load_fails(TL_ERROR_IO, "expected a file, found something else");
}
END_TEST

/* ------------------------------------------------------------------ with a right checksum
 *
 * Files that another program made (docs/checkpoint-format.md says how), or forged. */

static hid_t create_foreign(void) {
    const hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    ck_assert_int_ge(H5Pset_userblock(creation, TL_USER_BLOCK_SIZE), 0);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, H5P_DEFAULT);
    ck_assert(file >= 0);
    (void)H5Pclose(creation);
    return file;
}

static void add_attribute(hid_t object, const char *name, hid_t file_type, hid_t memory_type,
                          const void *value) {
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert_int_ge(H5Awrite(attribute, memory_type, value), 0);
    (void)H5Aclose(attribute);
    (void)H5Sclose(space);
}

static void add_fixed_string(hid_t object, const char *name, const char *value) {
    const hid_t type = H5Tcopy(H5T_C_S1);
    (void)H5Tset_size(type, strlen(value));
    (void)H5Tset_strpad(type, H5T_STR_NULLPAD);
    add_attribute(object, name, type, type, value);
    (void)H5Tclose(type);
}

static void add_version(hid_t file, int version) {
    add_fixed_string(file, "format", "tapeline-checkpoint");
    add_attribute(file, "version", H5T_STD_I16BE, H5T_NATIVE_INT, &version);
}

static void seal(hid_t file) {
    ck_assert_int_ge(H5Fclose(file), 0);
    bytes content = read_file(path);
    tl_user_block_fill(content.data, content.count);
    write_file(path, content.data, content.count);
    bytes_free(&content);
}

static void add_dataset(hid_t file, const char *name, hid_t file_type, hid_t memory_type,
                        const void *value) {
    const hsize_t extent = 1;
    const hid_t space = H5Screate_simple(1, &extent, NULL);
    const hid_t dataset =
        H5Dcreate2(file, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert_int_ge(H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value), 0);
    (void)H5Dclose(dataset);
    (void)H5Sclose(space);
}

START_TEST(other_programs_write_it) {
    hid_t file = create_foreign();
    add_version(file, 1);
    const double value = 0.75;
    add_dataset(file, "float", H5T_IEEE_F32BE, H5T_NATIVE_DOUBLE, &value);
    add_attribute(file, "half", H5T_IEEE_F32BE, H5T_NATIVE_DOUBLE, &value);
    seal(file);
    tl_state *state = tl_checkpoint_load(context, path, &error);
    ck_assert_msg(state != NULL, "%s", error.message);
    double number;
    ck_assert(tl_state_find_number(state, "half", &number) && number == 0.75);
    ck_assert(*(const float *)tl_state_find_array(state, "float")->data == 0.75f);
    tl_state_free(state);
}
END_TEST

START_TEST(other_formats_and_versions) {
    hid_t file = create_foreign();
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "expected the format 'tapeline-checkpoint', found 'none'");
    file = create_foreign();
    add_fixed_string(file, "format", "something-else");
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "found 'something-else'");
    file = create_foreign();
    add_fixed_string(file, "format", "tapeline-checkpoint");
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "expected version 1, found none");
    file = create_foreign();
    add_version(file, 2);
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "expected version 1, found 2");
    unsigned char garbage[4096];
    memset(garbage, 0x5a, sizeof garbage);
    tl_user_block_fill(garbage, sizeof garbage);
    write_file(path, garbage, sizeof garbage);
    assert_load_fails(TL_ERROR_FORMAT, "these are no HDF5 data");
}
END_TEST

START_TEST(what_has_no_place_is_refused) {
    const int value = 1;
    hid_t file = create_foreign();
    add_version(file, 1);
    add_dataset(file, "short", H5T_STD_I16LE, H5T_NATIVE_INT, &value);
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "'/short' has a type other than");
    file = create_foreign();
    ck_assert_int_ge(H5Lcreate_soft("/", file, "soft", H5P_DEFAULT, H5P_DEFAULT), 0);
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "'/soft' is a soft or external link");
    file = create_foreign();
    ck_assert_int_ge(H5Lcreate_hard(file, "/", file, "again", H5P_DEFAULT, H5P_DEFAULT), 0);
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "path that is too long");
    file = create_foreign();
    const hid_t type = H5Tcopy(H5T_NATIVE_INT);
    ck_assert_int_ge(H5Tcommit2(file, "type", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), 0);
    (void)H5Tclose(type);
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "'/type' is neither a group nor a dataset");
    file = create_foreign();
    const hsize_t extent = 3;
    hid_t space = H5Screate_simple(1, &extent, NULL);
    hid_t attribute = H5Acreate2(file, "three", H5T_NATIVE_INT, space, H5P_DEFAULT, H5P_DEFAULT);
    (void)H5Aclose(attribute);
    (void)H5Sclose(space);
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "'/three' has more than one value");
    file = create_foreign();
    space = H5Screate(H5S_SCALAR);
    attribute = H5Acreate2(file, "bits", H5T_STD_B8LE, space, H5P_DEFAULT, H5P_DEFAULT);
    (void)H5Aclose(attribute);
    (void)H5Sclose(space);
    seal(file);
    assert_load_fails(TL_ERROR_FORMAT, "'/bits' has a type that is neither");
}
END_TEST

/* 4 TB that were never written: nothing of that size is asked for. */
START_TEST(declared_sizes_are_not_trusted) {
    hid_t file = create_foreign();
    const hsize_t extents[2] = {1 << 20, 1 << 20};
    const hsize_t chunk[2] = {1 << 10, 1 << 10};
    const hid_t space = H5Screate_simple(2, extents, NULL);
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    (void)H5Pset_chunk(creation, 2, chunk);
    const hid_t dataset =
        H5Dcreate2(file, "huge", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    ck_assert(dataset >= 0);
    (void)H5Dclose(dataset);
    (void)H5Pclose(creation);
    (void)H5Sclose(space);
    seal(file);
    tl_context_reset_peak(context);
    assert_load_fails(TL_ERROR_FORMAT, "'/huge' declares more data than the file can hold");
    ck_assert_uint_lt(tl_context_memory(context).peak, 1 << 20);
}
END_TEST

/* ------------------------------------------------------------------ manners */

START_TEST(states_that_are_no_tree) {
    const tl_state_array array = {.type = TL_UINT8, .rank = 1, .shape = {1}, .data = "x"};
    save_sample(context, path, 8);
    tl_state *state = tl_state_create(context, NULL);
    (void)tl_state_put_array(state, "a/b", &array, NULL);
    (void)tl_state_put_array(state, "a/b/c", &array, NULL);
    ck_assert_int_eq(tl_checkpoint_save(context, path, state, &error), TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "cannot store the array 'a/b/c'");
    tl_state_free(state);
    state = tl_state_create(context, NULL);
    (void)tl_state_put_array(state, "a/b", &array, NULL);
    (void)tl_state_put_integer(state, "a/b/c/d", 1, NULL);
    ck_assert_int_eq(tl_checkpoint_save(context, path, state, &error), TL_ERROR_INVALID_ARGUMENT);
    assert_error(&error, TL_ERROR_INVALID_ARGUMENT, "cannot store the value 'a/b/c/d'");
    tl_state_free(state);
    assert_holds_sample(context, path, 8);
}
END_TEST

static int printed;

static herr_t count_printing(hid_t stack, void *data) {
    (void)stack;
    (void)data;
    printed++;
    return 0;
}

START_TEST(error_printing_is_left_as_it_was) {
    H5E_auto2_t before;
    void *data;
    ck_assert_int_ge(H5Eget_auto2(H5E_DEFAULT, &before, &data), 0);
    (void)H5Eset_auto2(H5E_DEFAULT, count_printing, &printed);
    unsigned char garbage[4096] = {0};
    tl_user_block_fill(garbage, sizeof garbage);
    write_file(path, garbage, sizeof garbage);
    assert_load_fails(TL_ERROR_FORMAT, "these are no HDF5 data");
    ck_assert_int_eq(printed, 0);
    (void)H5Gopen2(-1, "x", H5P_DEFAULT);
    ck_assert_int_eq(printed, 1);
    (void)H5Eset_auto2(H5E_DEFAULT, before, data);
}
END_TEST

static void *save_and_load(void *user) {
    tl_context *own = context_with(1, NULL);
    const int variant = *(const int *)user;
    char name[32];
    char own_path[TEST_PATH_BYTES];
    (void)snprintf(name, sizeof name, "thread%d.h5", variant);
    set_path(own_path, folder, name);
    for (int i = 0; i < 10; i++) {
        save_sample(own, own_path, variant);
        assert_holds_sample(own, own_path, variant);
    }
    tl_context_free(own);
    return NULL;
}

START_TEST(several_threads) {
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    int variants[THREADS];
    for (int i = 0; i < THREADS; i++) {
        variants[i] = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, save_and_load, &variants[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("checkpoint", &test_case);
    tcase_add_checked_fixture(test_case, set_up, tear_down);
    tcase_add_test(test_case, digests_are_the_standard_s);
    tcase_add_test(test_case, round_trip);
    tcase_add_test(test_case, large_arrays);
    tcase_add_test(test_case, other_programs_read_it);
    tcase_add_test(test_case, truncated_and_extended);
    tcase_add_test(test_case, flipped_bits);
    tcase_add_test(test_case, no_checkpoint_at_all);
    tcase_add_test(test_case, other_programs_write_it);
    tcase_add_test(test_case, other_formats_and_versions);
    tcase_add_test(test_case, what_has_no_place_is_refused);
    tcase_add_test(test_case, declared_sizes_are_not_trusted);
    tcase_add_test(test_case, states_that_are_no_tree);
    tcase_add_test(test_case, error_printing_is_left_as_it_was);
    tcase_add_test(test_case, several_threads);
    return run_suite(suite);
}
