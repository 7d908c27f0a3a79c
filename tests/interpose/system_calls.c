#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* AT_EMPTY_PATH */
#endif
#include "interpose/system_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const system_call_names[CALLS] = {"open",  "fstat", "stat",   "read",
                                              "write", "fsync", "rename", "ftruncate",
                                              "close", "flock", "unlink"};

system_fault system_fault_armed;

static bool fails(system_call which) {
    system_fault *armed = &system_fault_armed;
    if (armed->which != which || armed->countdown == 0) {
        return false;
    }
    if (armed->countdown > 1) {
        armed->countdown--;
        return false;
    }
    if (armed->happened && !armed->for_good) {
        return false;
    }
    armed->happened = true;
    errno = armed->error_number;
    return true;
}

static size_t limit(size_t count) {
    return system_fault_armed.short_transfers && count > 100 ? 100 : count;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
    va_end(arguments);
    return fails(CALL_OPEN) ? -1 : openat(AT_FDCWD, path, flags, mode);
}

int fstat(int descriptor, struct stat *status) {
    return fails(CALL_FSTAT) ? -1 : fstatat(descriptor, "", status, AT_EMPTY_PATH);
}

int stat(const char *restrict path, struct stat *restrict status) {
    return fails(CALL_STAT) ? -1 : fstatat(AT_FDCWD, path, status, 0);
}

ssize_t read(int descriptor, void *buffer, size_t count) {
    return fails(CALL_READ) ? -1 : (ssize_t)syscall(SYS_read, descriptor, buffer, limit(count));
}

ssize_t write(int descriptor, const void *buffer, size_t count) {
    return fails(CALL_WRITE) ? -1 : (ssize_t)syscall(SYS_write, descriptor, buffer, limit(count));
}

int fsync(int descriptor) {
    return fails(CALL_FSYNC) ? -1 : (int)syscall(SYS_fsync, descriptor);
}

int rename(const char *from, const char *to) {
    return fails(CALL_RENAME) ? -1 : renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int ftruncate(int descriptor, off_t length) {
    return fails(CALL_FTRUNCATE) ? -1 : (int)syscall(SYS_ftruncate, descriptor, length);
}

int close(int descriptor) {
    const int result = (int)syscall(SYS_close, descriptor);
    return fails(CALL_CLOSE) ? -1 : result;
}

int flock(int descriptor, int operation) {
    return fails(CALL_FLOCK) ? -1 : (int)syscall(SYS_flock, descriptor, operation);
}

int unlink(const char *path) {
    return fails(CALL_UNLINK) ? -1 : unlinkat(AT_FDCWD, path, 0);
}
