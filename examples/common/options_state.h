/* options_state.h - options in checkpoints: saved as text, restored and compared on --resume. */
#ifndef EXAMPLE_OPTIONS_STATE_H
#define EXAMPLE_OPTIONS_STATE_H

#include <tapeline/tapeline.h>

#include "common/options.h"

/* Writes every option with a saved value (`keep` not OPTION_NOT_KEPT) under "training/options". */
tl_status options_save(const option_table *table, tl_state *state, tl_error *error);

/* Takes over the saved values. An option on the command line overrides it where `keep` is
 * OPTION_MAY_DIFFER; where it is OPTION_MUST_AGREE and the values differ, it is an error. */
tl_status options_restore(option_table *table, const tl_state *state, tl_error *error);

#endif
