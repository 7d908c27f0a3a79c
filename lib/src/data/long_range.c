/* long_range.c - associative recall in images, made by a program.
 *
 * Four glyphs of different shapes and colours, and a ring that has the colour of one of them: the
 * class is that glyph's shape. The four glyphs are drawn and placed alike, then one is chosen, so
 * that nothing but the ring's colour tells which. All draws of image i come from the Philox stream
 * (seed, synthetic, i + 2^31 * split): its layout from the first blocks, its noise from block 2^32
 * on, 16 bytes a block, row-major.
 */
#include "core/context_internal.h"
#include "data/dataset_internal.h"
#include "data/synthetic_noise.h"

#include <tapeline/random.h>

enum {
    CHANNELS = 3,
    SHAPES = 10,
    COLOURS = 6,
    GLYPHS = 4,
    GLYPH_SIDE = 7,
    RING_SIDE = 9,
    GLYPH_GAP = 1, /* empty pixels between two glyphs */
    ROOM = 22,     /* pixels an image needs beyond the separation, to have room for all */
    LARGEST_SIDE = 512,
    DEFAULT_SIDE = 32,
    DEFAULT_SEPARATION = 10,
    DEFAULT_TRAIN = 20000,
    DEFAULT_TEST = 2000,
    PLACING_TRIES = 24, /* for one glyph, before the whole layout starts again */
    BACKGROUND = 32
};

/* Left and right halves are mirror images, so that a horizontal flip keeps every class. */
static const char *const glyph_rows[SHAPES][GLYPH_SIDE] = {
    {"#######", "#######", "#######", "#######", "#######", "#######", "#######"},
    {"...#...", "...#...", "..###..", "..###..", ".#####.", ".#####.", "#######"},
    {"#######", ".#####.", ".#####.", "..###..", "..###..", "...#...", "...#..."},
    {"...#...", "..###..", ".#####.", "#######", ".#####.", "..###..", "...#..."},
    {"..###..", "..###..", "#######", "#######", "#######", "..###..", "..###.."},
    {"##...##", "###.###", ".#####.", "..###..", ".#####.", "###.###", "##...##"},
    {"#######", "#######", "..###..", "..###..", "..###..", "..###..", "..###.."},
    {"##...##", "##...##", "##...##", "##...##", "##...##", "#######", "#######"},
    {"##...##", "##...##", "##...##", "#######", "##...##", "##...##", "##...##"},
    {"#######", ".#####.", "..###..", "...#...", "..###..", ".#####.", "#######"},
};

static const char *const shape_names[SHAPES] = {
    "square", "triangle up", "triangle down", "diamond", "plus",
    "cross",  "tee",         "cup",           "aitch",   "hourglass",
};

static const char *const ring_rows[RING_SIDE] = {
    "..#####..", ".#######.", "###...###", "##.....##", "##.....##",
    "##.....##", "###...###", ".#######.", "..#####..",
};

static const uint8_t colours[COLOURS][CHANNELS] = {
    {224, 48, 48},  {48, 200, 64},  {64, 96, 240},  /* red, green, blue */
    {224, 208, 48}, {216, 64, 208}, {48, 208, 216}, /* yellow, magenta, cyan */
};

typedef struct point {
    int x, y;
} point;

typedef struct layout {
    point ring;
    point places[GLYPHS];
    int shapes[GLYPHS];
    int glyph_colours[GLYPHS];
    int target; /* which glyph has the ring's colour */
} layout;

/* Draws `count` different numbers of 0 ... bound-1 (at most SHAPES), in random order. */
static void draw_distinct(tl_random *random, int bound, int count, int *out) {
    int pool[SHAPES];
    for (int i = 0; i < bound; i++) {
        pool[i] = i;
    }
    for (int i = 0; i < count; i++) {
        const int pick = i + (int)tl_random_below(random, (uint32_t)(bound - i));
        out[i] = pool[pick];
        pool[pick] = pool[i];
    }
}

static point draw_point(tl_random *random, int image_size, int side) {
    const uint32_t bound = (uint32_t)(image_size - side + 1);
    point place;
    place.x = (int)tl_random_below(random, bound);
    place.y = (int)tl_random_below(random, bound);
    return place;
}

/* At least `gap` empty pixels between two squares, in x or in y. */
static bool apart(point a, int side_a, point b, int side_b, int gap) {
    return a.x + side_a + gap <= b.x || b.x + side_b + gap <= a.x || a.y + side_a + gap <= b.y ||
           b.y + side_b + gap <= a.y;
}

static bool place_glyph(tl_random *random, const tl_long_range_config *config, layout *scene,
                        int glyph) {
    for (int tries = 0; tries < PLACING_TRIES; tries++) {
        const point place = draw_point(random, config->image_size, GLYPH_SIDE);
        bool free = apart(place, GLYPH_SIDE, scene->ring, RING_SIDE, config->separation);
        for (int other = 0; free && other < glyph; other++) {
            free = apart(place, GLYPH_SIDE, scene->places[other], GLYPH_SIDE, GLYPH_GAP);
        }
        if (free) {
            scene->places[glyph] = place;
            return true;
        }
    }
    return false;
}

/* Starts again until all fit: an image of the least size that is allowed has room for them when the
 * ring lies near a corner, so this ends. */
static void draw_layout(tl_random *random, const tl_long_range_config *config, layout *scene) {
    int placed = 0;
    while (placed < GLYPHS) {
        scene->ring = draw_point(random, config->image_size, RING_SIDE);
        placed = 0;
        while (placed < GLYPHS && place_glyph(random, config, scene, placed)) {
            placed++;
        }
    }
    draw_distinct(random, SHAPES, GLYPHS, scene->shapes);
    draw_distinct(random, COLOURS, GLYPHS, scene->glyph_colours);
    scene->target = (int)tl_random_below(random, GLYPHS);
}

static void paint_figure(const char *const *rows, int side, point place, int colour, int image_size,
                         uint8_t *image) {
    for (int y = 0; y < side; y++) {
        for (int x = 0; x < side; x++) {
            if (rows[y][x] == '#') {
                uint8_t *pixel = image + ((place.y + y) * image_size + place.x + x) * CHANNELS;
                for (int c = 0; c < CHANNELS; c++) {
                    pixel[c] = colours[colour][c];
                }
            }
        }
    }
}

static void paint(const tl_random *random, const layout *scene, int image_size, uint8_t *image,
                  uint8_t *mask) {
    const int pixels = image_size * image_size;
    for (int i = 0; i < pixels * CHANNELS; i++) {
        image[i] = BACKGROUND;
    }
    for (int i = 0; i < pixels; i++) {
        mask[i] = 0;
    }
    for (int g = 0; g < GLYPHS; g++) {
        paint_figure(glyph_rows[scene->shapes[g]], GLYPH_SIDE, scene->places[g],
                     scene->glyph_colours[g], image_size, image);
    }
    paint_figure(ring_rows, RING_SIDE, scene->ring, scene->glyph_colours[scene->target], image_size,
                 image);
    const point place = scene->places[scene->target];
    for (int y = 0; y < GLYPH_SIDE; y++) {
        for (int x = 0; x < GLYPH_SIDE; x++) {
            mask[(place.y + y) * image_size + place.x + x] =
                glyph_rows[scene->shapes[scene->target]][y][x] == '#';
        }
    }
    tl_synthetic_noise(random, (int64_t)pixels * CHANNELS, image);
}

/* Fills in the defaults and checks. */
static tl_status resolve(tl_long_range_config *config, tl_error *error) {
    if (config->split != TL_SPLIT_TRAIN && config->split != TL_SPLIT_TEST) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "long-range: split: expected 0 or 1, found %d", (int)config->split);
    }
    if (config->count == 0) {
        config->count = config->split == TL_SPLIT_TRAIN ? DEFAULT_TRAIN : DEFAULT_TEST;
    }
    if (config->count < 1 || config->count > INT32_MAX) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "long-range: count: expected 1 to %d images, found %lld", INT32_MAX,
                       (long long)config->count);
    }
    if (config->separation == 0) {
        config->separation = DEFAULT_SEPARATION;
    }
    if (config->separation < 1 || config->separation > LARGEST_SIDE - ROOM) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "long-range: separation: expected 1 to %d pixels, found %d",
                       LARGEST_SIDE - ROOM, config->separation);
    }
    if (config->image_size == 0) {
        config->image_size = DEFAULT_SIDE;
    }
    if (config->image_size < config->separation + ROOM || config->image_size > LARGEST_SIDE) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "long-range: image size: expected %d (separation %d + %d) to %d, found %d",
                       config->separation + ROOM, config->separation, ROOM, LARGEST_SIDE,
                       config->image_size);
    }
    return TL_OK;
}

tl_dataset *tl_dataset_create_long_range(tl_context *context, const tl_long_range_config *config,
                                         tl_error *error) {
    tl_long_range_config resolved = config != NULL ? *config : (tl_long_range_config){0};
    if (resolve(&resolved, error) != TL_OK) {
        return NULL;
    }
    const int size = resolved.image_size;
    const tl_dataset_info info = {
        .height = size,
        .width = size,
        .channels = CHANNELS,
        .classes = SHAPES,
        .class_names = shape_names,
        .mask_classes = 2,
        .mean = {0.2, 0.2, 0.2},
        .deviation = {0.2, 0.2, 0.2},
    };
    tl_dataset *dataset = tl_dataset_create_empty(context, &info, error);
    if (dataset == NULL) {
        return NULL;
    }
    if (tl_dataset_reserve(dataset, resolved.count, error) != TL_OK) {
        tl_dataset_free(dataset);
        return NULL;
    }
    const int64_t pixels = (int64_t)size * size;
    for (int64_t i = 0; i < resolved.count; i++) {
        const uint32_t index = (uint32_t)i | (uint32_t)resolved.split << 31;
        tl_random random = tl_random_create(resolved.seed, TL_RANDOM_SYNTHETIC, index);
        layout scene;
        draw_layout(&random, &resolved, &scene);
        paint(&random, &scene, size, dataset->images + i * pixels * CHANNELS,
              dataset->masks + i * pixels);
        dataset->labels[i] = scene.shapes[scene.target];
    }
    dataset->info.count = resolved.count;
    return dataset;
}
