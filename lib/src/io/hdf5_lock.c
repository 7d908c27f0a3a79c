#include "io/hdf5_lock.h"

#include <pthread.h>

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
