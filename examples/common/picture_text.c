#include "common/picture_text.h"

#include <ctype.h>
#include <string.h>

enum { ROWS = 5, COLUMNS = 3, ADVANCE = COLUMNS + 1 };

/* A letter as five octal digits, the rows from above; the bits of a digit are its dots. */
static unsigned dots_of(char letter) {
    static const char names[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-:=/";
    static const unsigned dots[] = {
        025755, 065656, 034443, 065556, 074647, 074644, 034553, 055755, 072227, 011152, 055655,
        044447, 057755, 065555, 025552, 065644, 025563, 065655, 034216, 072222, 055557, 055552,
        055775, 055255, 055222, 071247, 075557, 026227, 071747, 071317, 055711, 074717, 074757,
        071222, 075757, 075717, 000002, 000024, 000700, 002020, 007070, 011244};
    _Static_assert(sizeof names - 1 == sizeof dots / sizeof dots[0], "a pattern for every name");
    const char *at = letter != '\0' ? strchr(names, toupper((unsigned char)letter)) : NULL;
    return at != NULL ? dots[at - names] : 0;
}

int64_t picture_text_width(const char *text, int scale) {
    return (int64_t)strlen(text) * ADVANCE * scale;
}

int64_t picture_text_height(int scale) {
    return (int64_t)ROWS * scale;
}

void picture_text_draw(picture *image, const char *text, int64_t top, int64_t left, int scale,
                       uint8_t grey) {
    for (; *text != '\0'; text++, left += (int64_t)ADVANCE * scale) {
        const unsigned dots = dots_of(*text);
        for (int64_t y = 0; y < (int64_t)ROWS * scale; y++) {
            for (int64_t x = 0; x < (int64_t)COLUMNS * scale; x++) {
                const int bit =
                    (ROWS - 1 - (int)y / scale) * COLUMNS + COLUMNS - 1 - (int)x / scale;
                const int64_t row = top + y, column = left + x;
                if ((dots >> bit & 1u) != 0 && row >= 0 && row < image->height && column >= 0 &&
                    column < image->width) {
                    memset(image->pixels + (row * image->width + column) * image->channels, grey,
                           (size_t)image->channels);
                }
            }
        }
    }
}
