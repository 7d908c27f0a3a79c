/* picture_text.h - short labels in pictures: capitals, digits and a little punctuation in a font of
 * 3 x 5 dots. */
#ifndef EXAMPLE_PICTURE_TEXT_H
#define EXAMPLE_PICTURE_TEXT_H

#include "common/picture.h"

/* The size of text in pixels; a dot is `scale` pixels each way. */
int64_t picture_text_width(const char *text, int scale);
int64_t picture_text_height(int scale);

/* Draws the text (small letters as capitals, what the font lacks as a gap) with its upper left
 * corner at (top, left), in shades of `grey`, 0 to 255. */
void picture_text_draw(picture *image, const char *text, int64_t top, int64_t left, int scale,
                       uint8_t grey);

#endif
