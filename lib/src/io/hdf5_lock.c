#include "io/hdf5_lock.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

tl_hdf5_quiet tl_hdf5_lock(void) {
    (void)pthread_mutex_lock(&lock);
    tl_hdf5_quiet quiet = {0};
    unsigned is_version_2 = 0;
    /* a program that uses the old H5Eset_auto1 prints through that: it cannot be told apart by
     * H5Eget_auto2, which then fails */
    if (H5Eauto_is_v2(H5E_DEFAULT, &is_version_2) >= 0 && is_version_2 != 0 &&
        H5Eget_auto2(H5E_DEFAULT, &quiet.function, &quiet.data) >= 0) {
        quiet.saved = H5Eset_auto2(H5E_DEFAULT, NULL, NULL) >= 0;
    }
    return quiet;
}

void tl_hdf5_unlock(tl_hdf5_quiet quiet) {
    if (quiet.saved) {
        (void)H5Eset_auto2(H5E_DEFAULT, quiet.function, quiet.data);
    }
    (void)pthread_mutex_unlock(&lock);
}

tl_status tl_hdf5_require_memory(tl_error *error) {
    const size_t needed = (size_t)16 << 20;
    void *memory = mmap(NULL, needed, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return tl_fail(
            error, TL_ERROR_OUT_OF_MEMORY,
            "checkpoint: out of memory: the system refused 16 MiB that libhdf5 may need");
    }
    (void)munmap(memory, needed);
    return TL_OK;
}

const char *tl_hdf5_new_name(char name[TL_HDF5_NAME_SIZE]) {
    static uint64_t count;
    (void)snprintf(name, TL_HDF5_NAME_SIZE, "tapeline-%" PRIu64, count++);
    return name;
}
