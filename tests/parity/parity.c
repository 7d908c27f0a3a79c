/* parity - runs cases of the parity format and compares.
 *
 *     parity [--verbose] PATH...
 *
 * PATH is a case or a folder of them (*.h5). One line a case: ok, FAIL or skip, the operation, the
 * file, the worst error over its tolerance. Exit code 0 only if all passed; 2 for wrong usage.
 */
#include <dirent.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "parity_run.h"

static const parity_adapter *const families[] = {
    parity_attention,   parity_convolution, parity_efficient_attention,
    parity_elementwise, parity_loss,        parity_matmul,
    parity_model,       parity_non_local,   parity_norm,
    parity_optimizer,   parity_shape,
};

typedef struct counts {
    int passed, failed, skipped;
} counts;

static const parity_adapter *find_adapter(const char *op) {
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        for (const parity_adapter *a = families[f]; a->op != NULL; a++) {
            if (strcmp(a->op, op) == 0) {
                return a;
            }
        }
    }
    return NULL;
}

static void run_file(const char *path, bool verbose, counts *n) {
    parity_case c;
    char reason[256] = "";
    if (!parity_case_load(&c, path, reason, sizeof reason)) {
        printf("FAIL - %s %s\n", path, reason);
        n->failed++;
    } else {
        const parity_adapter *adapter = find_adapter(c.op);
        if (adapter == NULL) {
            printf("skip %s %s the operation is not known here\n", c.op, path);
            n->skipped++;
        } else {
            const parity_result r = parity_run_one(adapter, &c, verbose);
            printf("%s %s %s %.4f%s%s\n", r.ok ? "ok" : "FAIL", c.op, path, r.worst,
                   r.problem[0] ? " " : "", r.problem);
            n->passed += r.ok;
            n->failed += !r.ok;
        }
    }
    fflush(stdout);
    parity_case_clear(&c);
}

static int is_case(const struct dirent *entry) {
    const size_t length = strlen(entry->d_name);
    return length > 3 && strcmp(entry->d_name + length - 3, ".h5") == 0;
}

static void run_path(const char *path, bool verbose, counts *n) {
    struct stat info;
    if (stat(path, &info) != 0) {
        printf("FAIL - %s cannot be found\n", path);
        n->failed++;
        return;
    }
    if (!S_ISDIR(info.st_mode)) {
        run_file(path, verbose, n);
        return;
    }
    struct dirent **entries;
    const int count = scandir(path, &entries, is_case, alphasort);
    if (count <= 0) {
        printf("FAIL - %s holds no cases (*.h5)\n", path);
        n->failed++;
    }
    for (int i = 0; i < count; i++) {
        char full[4096];
        snprintf(full, sizeof full, "%s/%s", path, entries[i]->d_name);
        run_file(full, verbose, n);
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
}

int main(int argc, char **argv) {
    bool verbose = false;
    int paths = 0;
    counts n = {0};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0) {
            verbose = true;
        } else if (argv[i][0] == '-') {
            fprintf(stderr, "parity: unknown option %s\n", argv[i]);
            return 2;
        } else {
            paths++;
        }
    }
    if (paths == 0) {
        fprintf(stderr, "usage: parity [--verbose] PATH...\n");
        return 2;
    }
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            run_path(argv[i], verbose, &n);
        }
    }
    printf("%d passed, %d failed, %d skipped\n", n.passed, n.failed, n.skipped);
    return n.failed == 0 && n.skipped == 0 ? 0 : 1;
}
