/* data_files.h - small data sets in every format and packing that the library reads. */
#ifndef TEST_DATA_FILES_H
#define TEST_DATA_FILES_H

#include "support/files.h"
#include "support/support.h"

enum { DATA_FILES = 5, DATA_FILE_IMAGES = 40 };

/* "CIFAR, gzip" and the like. */
extern const char *const data_file_names[DATA_FILES];

/* Writes all of them into a folder. */
void write_data_files(const char *folder);
/* Loads one of them; `error` says why it failed. */
tl_dataset *load_data_file(tl_context *context, const char *folder, int index, tl_error *error);
/* It loads, with the right number of images and the right labels. */
void assert_data_file_loads(tl_context *context, const char *folder, int index);

#endif
