#include "common/attention_sheet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fail.h"
#include "common/picture_text.h"

enum {
    CELL_SIDE = 64, /* at least so many pixels for the longer side of a cell */
    GAP = 4,        /* pixels between cells */
    TEXT_SCALE = 2,
    FRAME = 2, /* width of the mark around a position */
    BACKGROUND = 255,
    INK = 40
};

typedef enum entry_kind { ENTRY_TITLE, ENTRY_LINE, ENTRY_CELL } entry_kind;

typedef struct entry {
    entry_kind kind;
    char title[SHEET_TITLE_SIZE];
    picture cell;
} entry;

struct attention_sheet {
    picture image; /* [height * factor, width * factor, 3] */
    picture grey;  /* the same, darkened, without colours */
    int factor;
    entry *entries;
    size_t count, capacity;
};

/* Room for one more entry, zeroed. */
static entry *add_entry(attention_sheet *sheet, entry_kind kind, tl_error *error) {
    if (sheet->count == sheet->capacity) {
        const size_t capacity = sheet->capacity == 0 ? 64 : 2 * sheet->capacity;
        entry *grown = realloc(sheet->entries, capacity * sizeof *grown);
        if (grown == NULL) {
            (void)fail_with(error, TL_ERROR_OUT_OF_MEMORY, "out of memory for the sheet");
            return NULL;
        }
        sheet->entries = grown;
        sheet->capacity = capacity;
    }
    entry *added = &sheet->entries[sheet->count++];
    *added = (entry){.kind = kind};
    return added;
}

attention_sheet *attention_sheet_create(const picture *image, tl_error *error) {
    attention_sheet *sheet = calloc(1, sizeof *sheet);
    if (sheet == NULL) {
        (void)fail_with(error, TL_ERROR_OUT_OF_MEMORY, "out of memory for the sheet");
        return NULL;
    }
    const int64_t longer = image->height > image->width ? image->height : image->width;
    sheet->factor = longer < CELL_SIDE ? (int)((CELL_SIDE + longer - 1) / longer) : 1;
    tl_status status = picture_magnify(image, sheet->factor, &sheet->image, error);
    if (status == TL_OK) {
        status = picture_convert(&sheet->image, 3, error);
    }
    if (status == TL_OK) {
        status = picture_magnify(&sheet->image, 1, &sheet->grey, error);
    }
    if (status == TL_OK) {
        status = picture_convert(&sheet->grey, 1, error);
    }
    if (status != TL_OK) {
        attention_sheet_free(sheet);
        return NULL;
    }
    return sheet;
}

void attention_sheet_free(attention_sheet *sheet) {
    if (sheet == NULL) {
        return;
    }
    for (size_t i = 0; i < sheet->count; i++) {
        picture_free(&sheet->entries[i].cell);
    }
    picture_free(&sheet->image);
    picture_free(&sheet->grey);
    free(sheet->entries);
    free(sheet);
}

tl_status attention_sheet_title(attention_sheet *sheet, const char *title, tl_error *error) {
    entry *added = add_entry(sheet, ENTRY_TITLE, error);
    if (added == NULL) {
        return error->status;
    }
    (void)snprintf(added->title, sizeof added->title, "%s", title);
    return TL_OK;
}

/* ------------------------------------------------------------------ cells */

static void set_pixel(picture *image, int64_t y, int64_t x, uint8_t red, uint8_t green,
                      uint8_t blue) {
    if (y >= 0 && y < image->height && x >= 0 && x < image->width) {
        uint8_t *at = image->pixels + (y * image->width + x) * 3;
        at[0] = red;
        at[1] = green;
        at[2] = blue;
    }
}

/* A green frame around one pixel of the image. */
static void mark(picture *cell, int factor, int64_t row, int64_t column) {
    const int64_t top = row * factor - FRAME, bottom = (row + 1) * factor + FRAME;
    const int64_t left = column * factor - FRAME, right = (column + 1) * factor + FRAME;
    for (int64_t y = top; y < bottom; y++) {
        for (int64_t x = left; x < right; x++) {
            if (y < top + FRAME || y >= bottom - FRAME || x < left + FRAME || x >= right - FRAME) {
                set_pixel(cell, y, x, 0, 220, 60);
            }
        }
    }
}

tl_status attention_sheet_line(attention_sheet *sheet, int64_t row, int64_t column,
                               tl_error *error) {
    if (add_entry(sheet, ENTRY_LINE, error) == NULL) {
        return error->status;
    }
    entry *added = add_entry(sheet, ENTRY_CELL, error);
    if (added == NULL || picture_magnify(&sheet->image, 1, &added->cell, error) != TL_OK) {
        return error->status;
    }
    if (row >= 0) {
        mark(&added->cell, sheet->factor, row, column);
    }
    return TL_OK;
}

static uint8_t ramp(double value) {
    return (uint8_t)lround(255 * fmin(fmax(value, 0), 1));
}

/* The map as a grey picture of its own size: 0 to 255 for the magnitudes of one sign. */
static tl_status magnitudes(const attention_map *map, double sign, picture *drawn,
                            tl_error *error) {
    const tl_status status = picture_create(drawn, map->height, map->width, 1, error);
    if (status != TL_OK) {
        return status;
    }
    double largest = 0;
    for (int64_t i = 0; i < map->height * map->width; i++) {
        largest = fmax(largest, fabs((double)map->values[i * map->stride]));
    }
    for (int64_t i = 0; i < map->height * map->width && largest > 0; i++) {
        drawn->pixels[i] = ramp(sign * (double)map->values[i * map->stride] / largest);
    }
    return TL_OK;
}

/* Lays the magnitudes over what is in the cell: they cover it the more, the larger they are. */
static tl_status overlay(const attention_map *map, double sign, picture *cell, tl_error *error) {
    picture small, fitted = {0};
    tl_status status = magnitudes(map, sign, &small, error);
    if (status == TL_OK) {
        status = picture_resize(&small, cell->height, cell->width, &fitted, error);
        picture_free(&small);
    }
    for (int64_t i = 0; status == TL_OK && i < cell->height * cell->width; i++) {
        const double v = fitted.pixels[i] / 255.0;
        const double cover = fmin(1, 1.5 * v);
        const double heat[3] = {fmin(1, 2.2 * v), fmax(0, 1.8 * v - 0.6), fmax(0, 3 * v - 2)};
        for (int c = 0; c < 3; c++) {
            uint8_t *at = &cell->pixels[3 * i + c];
            const double color = sign > 0 ? heat[c] : heat[2 - c];
            *at = ramp((1 - cover) * *at / 255.0 + cover * color);
        }
    }
    picture_free(&fitted);
    return status;
}

/* How many maps stand in the last line. */
static int cells_in_line(const attention_sheet *sheet) {
    int count = 0;
    for (size_t i = sheet->count; i > 0 && sheet->entries[i - 1].kind == ENTRY_CELL; i--) {
        count++;
    }
    return count - 1; /* the image */
}

tl_status attention_sheet_add(attention_sheet *sheet, const attention_map *map, tl_error *error) {
    if (cells_in_line(sheet) == SHEET_CELLS_PER_LINE) {
        /* a line of which the place of the image stays empty */
        entry *line = add_entry(sheet, ENTRY_LINE, error);
        if (line == NULL || add_entry(sheet, ENTRY_CELL, error) == NULL) {
            return error->status;
        }
    }
    entry *added = add_entry(sheet, ENTRY_CELL, error);
    if (added == NULL) {
        return error->status;
    }
    const picture *grey = &sheet->grey;
    tl_status status = picture_create(&added->cell, grey->height, grey->width, 3, error);
    for (int64_t i = 0; status == TL_OK && i < grey->height * grey->width; i++) {
        memset(added->cell.pixels + 3 * i, grey->pixels[i] / 2, 3);
    }
    if (status == TL_OK) {
        status = overlay(map, 1, &added->cell, error);
    }
    return status == TL_OK ? overlay(map, -1, &added->cell, error) : status;
}

/* ------------------------------------------------------------------ the sheet */

static void widen(int64_t *width, int64_t wanted) {
    *width = wanted > *width ? wanted : *width;
}

/* Puts the entries where they belong, or (drawn NULL) only finds out how large the sheet is. */
static void lay_out(const attention_sheet *sheet, picture *drawn, int64_t *height, int64_t *width) {
    const int64_t step = sheet->image.width + GAP;
    int64_t top = GAP, left = GAP;
    *width = 0;
    bool open = false; /* a line stands at `top` */
    for (size_t i = 0; i < sheet->count; i++) {
        const entry *e = &sheet->entries[i];
        if (e->kind != ENTRY_CELL && open) {
            top += sheet->image.height + GAP;
            open = false;
        }
        switch (e->kind) {
        case ENTRY_TITLE:
            top += i > 0 ? 3 * GAP : GAP;
            if (drawn != NULL) {
                picture_text_draw(drawn, e->title, top, GAP, TEXT_SCALE, INK);
            }
            top += picture_text_height(TEXT_SCALE) + 2 * GAP;
            widen(width, picture_text_width(e->title, TEXT_SCALE) + 2 * GAP);
            break;
        case ENTRY_LINE:
            left = GAP;
            open = true;
            break;
        case ENTRY_CELL:
            if (drawn != NULL && e->cell.pixels != NULL) {
                picture_put(drawn, &e->cell, top, left);
            }
            left += step;
            widen(width, left);
            break;
        }
    }
    *height = top + (open ? sheet->image.height + GAP : 0);
}

tl_status attention_sheet_draw(const attention_sheet *sheet, picture *drawn, tl_error *error) {
    int64_t height, width;
    lay_out(sheet, NULL, &height, &width);
    const tl_status status = picture_create(drawn, height, width, 3, error);
    if (status == TL_OK) {
        memset(drawn->pixels, BACKGROUND, (size_t)(height * width * 3));
        lay_out(sheet, drawn, &height, &width);
    }
    return status;
}
