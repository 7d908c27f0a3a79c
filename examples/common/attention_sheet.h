/* attention_sheet.h - attention maps laid over an image, many on one sheet.
 *
 * A sheet has blocks, each with a title; a block has lines of cells. A cell is the image, or the
 * image in grey under a map: red, yellow, white where the map's positive values are large, blue
 * where negative ones are. Each map is scaled by its own largest magnitude.
 */
#ifndef EXAMPLE_ATTENTION_SHEET_H
#define EXAMPLE_ATTENTION_SHEET_H

#include "common/picture.h"

enum { SHEET_CELLS_PER_LINE = 16, SHEET_TITLE_SIZE = 128 };

typedef struct attention_sheet attention_sheet;

/* The values of one map [height, width], `stride` apart. */
typedef struct attention_map {
    const tl_real *values;
    int64_t height, width, stride;
} attention_map;

/* `image` is copied, magnified so that a cell is easy to see. NULL if memory fails. */
attention_sheet *attention_sheet_create(const picture *image, tl_error *error);
void attention_sheet_free(attention_sheet *sheet);

/* Starts a block. */
tl_status attention_sheet_title(attention_sheet *sheet, const char *title, tl_error *error);
/* Starts a line of the block; it begins with the image, where (row, column) is marked by a frame if
 * row is not negative. */
tl_status attention_sheet_line(attention_sheet *sheet, int64_t row, int64_t column,
                               tl_error *error);
/* Adds a map to the line; after SHEET_CELLS_PER_LINE of them a new line begins by itself. */
tl_status attention_sheet_add(attention_sheet *sheet, const attention_map *map, tl_error *error);

/* All of it as one picture, which the caller frees. */
tl_status attention_sheet_draw(const attention_sheet *sheet, picture *drawn, tl_error *error);

#endif
