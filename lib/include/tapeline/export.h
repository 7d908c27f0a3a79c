/* export.h - marks what the shared library exports. */
#ifndef TL_EXPORT_H
#define TL_EXPORT_H

#if defined(__GNUC__)
#define TL_API __attribute__((visibility("default")))
#else
#define TL_API
#endif

#endif
