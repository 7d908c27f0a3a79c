/* checkpoint_files.h - what the checkpoint tests share: a folder, files, a state to save. */
#ifndef TEST_CHECKPOINT_FILES_H
#define TEST_CHECKPOINT_FILES_H

#include "support/support.h"

enum { FILE_PATH_SIZE = 512 };

/* A folder of this test's own, and a path in it. */
void folder_create(void);
void folder_remove(void);
extern char folder_path[FILE_PATH_SIZE];
const char *in_folder(const char *name, char path[FILE_PATH_SIZE]);
bool file_exists(const char *path);
/* Entries in the folder. */
int folder_count(void);

/* The whole file; free() it. */
unsigned char *read_bytes(const char *path, size_t *bytes);
void write_bytes(const char *path, const void *data, size_t bytes);

/* A state with arrays and values of every kind; all numbers in it depend on `variant`. */
tl_state *sample_state(tl_context *context, int variant);
/* Saves sample_state(variant). */
void save_sample(tl_context *context, const char *path, int variant);
/* The file loads, and holds sample_state(variant) bit for bit. */
void assert_holds_sample(tl_context *context, const char *path, int variant);
/* The variant in the file, which must load. */
int sample_variant(tl_context *context, const char *path);

#endif
