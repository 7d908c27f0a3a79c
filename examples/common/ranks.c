#include "common/ranks.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/options.h"

tl_parallel *ranks_join(const char *program) {
    tl_error error;
    tl_parallel *parallel = tl_parallel_create(&error);
    if (parallel == NULL) {
        (void)work_error(program, "%s", error.message);
        return NULL;
    }
    const int rank = tl_parallel_rank(parallel);
    if (rank > 0) {
        char origin[32];
        (void)snprintf(origin, sizeof origin, "rank %d: ", rank);
        errors_set_origin(origin);
    }
    if (rank > 0 && freopen("/dev/null", "w", stdout) == NULL) {
        tl_parallel_abort(parallel, work_error(program, "cannot open /dev/null"));
    }
    if (tl_parallel_ranks(parallel) > 1) {
        errors_hold();
    }
    return parallel;
}

int ranks_agree(tl_parallel *parallel, const char *program, int code) {
    const int ranks = tl_parallel_ranks(parallel);
    if (ranks == 1) {
        errors_release(true);
        return code;
    }
    double *codes = calloc((size_t)ranks, sizeof *codes);
    tl_error error = {.message = "out of memory"};
    if (codes != NULL) {
        codes[tl_parallel_rank(parallel)] = (double)code;
    }
    if (codes == NULL || tl_parallel_sum(parallel, codes, ranks, &error) != TL_OK) {
        free(codes);
        errors_release(true);
        code = work_error(program, "%s", error.message);
        tl_parallel_abort(parallel, code);
        return code;
    }
    int first = 0;
    while (first < ranks - 1 && codes[first] == EXIT_DONE) {
        first++;
    }
    code = (int)codes[first];
    free(codes);
    errors_release(first == tl_parallel_rank(parallel));
    return code;
}

int ranks_default_threads(const tl_parallel *parallel) {
    const int share = omp_get_max_threads() / tl_parallel_local_ranks(parallel);
    return share > 0 ? share : 1;
}
