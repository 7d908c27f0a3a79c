/* sha256.h - the SHA-256 digest (FIPS 180-4). */
#ifndef TL_SHA256_H
#define TL_SHA256_H

#include <stddef.h>

enum { TL_SHA256_SIZE = 32 };

void tl_sha256(const void *data, size_t bytes, unsigned char digest[TL_SHA256_SIZE]);

#endif
