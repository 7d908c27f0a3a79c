/* replay FILE-OR-FOLDER... - runs a fuzzer over inputs that are there, without libFuzzer. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fuzz/fuzz_support.h"
static int replayed;

static void replay_file(const char *path) {
    size_t size;
    uint8_t *input = fuzz_read(path, &size);
    (void)LLVMFuzzerTestOneInput(input, size);
    free(input);
    replayed++;
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static void replay_path(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        replay_file(path);
        return;
    }
    struct dirent **entries;
    const int count = scandir(path, &entries, is_visible, alphasort);
    for (int i = 0; i < count; i++) {
        char full[4096];
        (void)snprintf(full, sizeof full, "%s/%s", path, entries[i]->d_name);
        replay_path(full);
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
}

int main(int argc, char **argv) {
    (void)LLVMFuzzerTestOneInput(NULL, 0);
    for (int i = 1; i < argc; i++) {
        replay_path(argv[i]);
    }
    return replayed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
