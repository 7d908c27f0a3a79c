/* checkpoint_files.h - what the checkpoint tests share: a state to save and to find again. */
#ifndef TEST_CHECKPOINT_FILES_H
#define TEST_CHECKPOINT_FILES_H

#include "support/files.h"
#include "support/support.h"

/* A state with arrays and values of every kind; all numbers in it depend on `variant`. */
tl_state *sample_state(tl_context *context, int variant);
/* Saves sample_state(variant). */
void save_sample(tl_context *context, const char *path, int variant);
/* The file loads, and holds sample_state(variant) bit for bit. */
void assert_holds_sample(tl_context *context, const char *path, int variant);
/* The variant in the file, which must load. */
int sample_variant(tl_context *context, const char *path);

#endif
