/* memory_calls.h - malloc and its kin, made to fail: for the libraries underneath, which know
 * nothing of our allocators. A program that is linked with memory_calls.c uses these. */
#ifndef TEST_MEMORY_CALLS_H
#define TEST_MEMORY_CALLS_H

#include <stdbool.h>
#include <stdint.h>

/* From now on the call number `fail_at` (counted from 1) returns NULL; for_good: all after it too.
 * 0: none, calls are counted only. */
void memory_calls_arm(int64_t fail_at, bool for_good);
/* Back to normal. Returns how many calls there were. */
int64_t memory_calls_disarm(void);

#endif
