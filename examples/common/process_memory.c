#include "common/process_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A line "VmRSS:     1234 kB" of /proc/self/status. */
static double status_bytes(const char *name) {
    FILE *file = fopen("/proc/self/status", "r");
    if (file == NULL) {
        return 0;
    }
    const size_t length = strlen(name);
    char line[256];
    double bytes = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            bytes = 1024 * strtod(line + length + 1, NULL);
        }
    }
    (void)fclose(file);
    return bytes;
}

double process_memory_now(void) {
    return status_bytes("VmRSS");
}

double process_memory_peak(void) {
    return status_bytes("VmHWM");
}
