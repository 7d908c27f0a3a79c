/* version.h - which Tapeline this is.
 *
 * Versions are semantic (major.minor.patch): from 1.0.0 on a new major version may break programs,
 * a new minor one adds, a new patch mends. Before 1.0.0 a new minor version may break programs; the
 * name of the shared library then carries both numbers (libtapeline.so.0.1).
 */
#ifndef TL_VERSION_H
#define TL_VERSION_H

#include <tapeline/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the headers. CMakeLists.txt reads it from here. */
#define TL_VERSION_MAJOR 0
#define TL_VERSION_MINOR 1
#define TL_VERSION_PATCH 0

/* The three as one number that can be compared: 1.2.3 is 10203. */
#define TL_VERSION_NUMBER (TL_VERSION_MAJOR * 10000 + TL_VERSION_MINOR * 100 + TL_VERSION_PATCH)

/* The version of the library that the program runs with, e.g. "0.1.0". */
TL_API const char *tl_version(void);
/* The same as TL_VERSION_NUMBER. */
TL_API int tl_version_number(void);

#ifdef __cplusplus
}
#endif

#endif
