/* How a file is replaced. The temporary file has one fixed name, "<path>.tmp", so that crashes
 * leave at most one; who holds its lock (flock) may write it. A lock may turn out to be on a file
 * that its writer has renamed meanwhile, so after locking the name must still lead to the same
 * file. Only the holder renames, so from then on it does.
 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/user_block.h"

static const char suffix[] = ".tmp";

static tl_status fail(tl_error *error, const char *path, const char *what) {
    return tl_fail(error, TL_ERROR_IO, "checkpoint '" TL_SHOWN_PATH "': cannot %s: %s", path, what,
                   strerror(errno));
}

/* ------------------------------------------------------------------ writing */

enum lock_result { LOCKED, LOCK_AGAIN, LOCK_FAILED };

/* Opens and locks the temporary file. File systems without locks are written to without. */
static enum lock_result lock_temporary(const char *temporary, const char *path, int *descriptor,
                                       tl_error *error) {
    struct stat opened;
    struct stat named;
    *descriptor = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (*descriptor < 0) {
        (void)fail(error, path, "create its temporary file");
        return LOCK_FAILED;
    }
    if (flock(*descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        (void)tl_fail(error, TL_ERROR_IO,
                      "checkpoint '" TL_SHOWN_PATH "': another save to it is under way", path);
    } else if (fstat(*descriptor, &opened) != 0 || !S_ISREG(opened.st_mode)) {
        (void)tl_fail(error, TL_ERROR_IO,
                      "checkpoint '" TL_SHOWN_PATH "': its temporary file is no regular file",
                      path);
    } else if (stat(temporary, &named) != 0 || named.st_ino != opened.st_ino ||
               named.st_dev != opened.st_dev) {
        (void)close(*descriptor);
        return LOCK_AGAIN;
    } else {
        return LOCKED;
    }
    (void)close(*descriptor);
    return LOCK_FAILED;
}

static tl_status open_temporary(const char *temporary, const char *path, int *descriptor,
                                tl_error *error) {
    enum { TRIES = 16 };
    for (int i = 0; i < TRIES; i++) {
        const enum lock_result result = lock_temporary(temporary, path, descriptor, error);
        if (result != LOCK_AGAIN) {
            return result == LOCKED ? TL_OK : TL_ERROR_IO;
        }
    }
    return tl_fail(error, TL_ERROR_IO,
                   "checkpoint '" TL_SHOWN_PATH "': other saves to it are under way", path);
}

static bool write_all(int descriptor, const unsigned char *data, size_t bytes) {
    while (bytes > 0) {
        const ssize_t written = write(descriptor, data, bytes);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            errno = written == 0 ? ENOSPC : errno;
            return false;
        }
        data += written;
        bytes -= (size_t)written;
    }
    return true;
}

static bool flush(int descriptor) {
    int result;
    do {
        result = fsync(descriptor);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

/* So that the new name survives a power cut. Where a folder cannot be opened or flushed by itself
 * (no permission to read it, some network file systems) there is nothing more to do. */
static tl_status flush_folder(char *path, tl_error *error) {
    char *slash = strrchr(path, '/');
    const char *folder = slash == NULL ? "." : slash == path ? "/" : path;
    if (slash != NULL) {
        *slash = '\0';
    }
    const int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) {
        return TL_OK;
    }
    const bool flushed = flush(descriptor) || errno == EINVAL || errno == EROFS;
    const tl_status status = flushed ? TL_OK
                                     : tl_fail(error, TL_ERROR_IO,
                                               "checkpoint: saved, but the folder '" TL_SHOWN_PATH
                                               "' cannot be flushed: %s",
                                               folder, strerror(errno));
    (void)close(descriptor);
    return status;
}

/* `temporary` is also overwritten: at the end it names the folder. */
static tl_status replace(const char *path, char *temporary, const unsigned char *data, size_t bytes,
                         tl_error *error) {
    int descriptor;
    TL_TRY(open_temporary(temporary, path, &descriptor, error));
    tl_status status = TL_OK;
    if (ftruncate(descriptor, 0) != 0 || !write_all(descriptor, data, bytes)) {
        status = fail(error, path, "write its temporary file");
    } else if (!flush(descriptor)) {
        status = fail(error, path, "flush its temporary file to the disk");
    } else if (rename(temporary, path) != 0) {
        status = fail(error, path, "rename its temporary file");
    }
    if (status != TL_OK) {
        (void)unlink(temporary);
    }
    /* after fsync nothing hangs on this; a failure is reported all the same */
    if (close(descriptor) != 0 && status == TL_OK) {
        status = fail(error, path, "close its temporary file");
    }
    return status == TL_OK ? flush_folder(temporary, error) : status;
}

tl_status tl_file_replace(tl_context *context, const char *path, const unsigned char *data,
                          size_t bytes, tl_error *error) {
    const size_t length = strlen(path);
    char *temporary = tl_memory_allocate(context, length + sizeof suffix);
    if (temporary == NULL) {
        return tl_memory_fail(context, error, "checkpoint: a file name", length + sizeof suffix);
    }
    memcpy(temporary, path, length);
    memcpy(temporary + length, suffix, sizeof suffix);
    const tl_status status = replace(path, temporary, data, bytes, error);
    tl_memory_release(context, temporary, length + sizeof suffix);
    return status;
}

/* ------------------------------------------------------------------ reading */

static tl_status read_all(int descriptor, unsigned char *data, size_t bytes, const char *path,
                          tl_error *error) {
    while (bytes > 0) {
        const ssize_t got = read(descriptor, data, bytes);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail(error, path, "read it");
        }
        if (got == 0) {
            return tl_fail(error, TL_ERROR_IO,
                           "checkpoint '" TL_SHOWN_PATH "': it changed while it was read", path);
        }
        data += got;
        bytes -= (size_t)got;
    }
    return TL_OK;
}

static tl_status read_checkpoint(tl_context *context, int descriptor, const char *path,
                                 unsigned char **data, size_t *bytes, tl_error *error) {
    struct stat status;
    if (fstat(descriptor, &status) != 0) {
        return fail(error, path, "read its status");
    }
    if (!S_ISREG(status.st_mode)) {
        return tl_fail(error, TL_ERROR_IO,
                       "checkpoint '" TL_SHOWN_PATH "': expected a file, found %s", path,
                       S_ISDIR(status.st_mode) ? "a folder" : "something else");
    }
    if (status.st_size <= TL_USER_BLOCK_SIZE) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH
                       "': expected a Tapeline checkpoint of more than %d bytes, "
                       "found %" PRId64,
                       path, TL_USER_BLOCK_SIZE, (int64_t)status.st_size);
    }
    const size_t size = (size_t)status.st_size;
    unsigned char head[TL_USER_BLOCK_SIZE];
    TL_TRY(read_all(descriptor, head, sizeof head, path, error));
    TL_TRY(tl_user_block_check_head(head, size, path, error));
    unsigned char *buffer = tl_memory_allocate(context, size);
    if (buffer == NULL) {
        return tl_memory_fail(context, error, "checkpoint: the file's content", size);
    }
    memcpy(buffer, head, sizeof head);
    tl_status result = read_all(descriptor, buffer + sizeof head, size - sizeof head, path, error);
    if (result == TL_OK) {
        result = tl_user_block_check(buffer, size, path, error);
    }
    if (result != TL_OK) {
        tl_memory_release(context, buffer, size);
        return result;
    }
    *data = buffer;
    *bytes = size;
    return TL_OK;
}

tl_status tl_file_read(tl_context *context, const char *path, unsigned char **data, size_t *bytes,
                       tl_error *error) {
    /* O_NONBLOCK: a pipe of that name must not make us wait */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
        return fail(error, path, "open it");
    }
    const tl_status status = read_checkpoint(context, descriptor, path, data, bytes, error);
    (void)close(descriptor);
    return status;
}
