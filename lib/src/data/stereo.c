/* stereo.c - pairs of images of the same scene from two eyes, made by a program.
 *
 * A scene is a set of surfaces. A surface is a region of the left image (all of it, a rectangle, an
 * ellipse) with a texture, both functions of the left image's coordinates, and a disparity that is
 * linear in them: d(x, y) = d0 + a (x - cx) + b (y - cy). The left eye sees at (x, y) the surface
 * of the greatest disparity there. The right eye sees at (u, y) a point of a surface where u = x -
 * d(x, y), so x = cx + (u - cx + d0 + b (y - cy)) / (1 - a), of which again the one of the greatest
 * disparity: both views and the disparities are exact, and what is hidden follows.
 *
 * All draws of pair i come from the Philox stream (seed, synthetic, i + 2^31 split): the scene from
 * its first blocks, the noise from block 2^32 on, the table of texture from block 2^33 on.
 */
#include <math.h>

#include "core/context_internal.h"
#include "data/dataset_internal.h"
#include "data/synthetic_noise.h"

#include <tapeline/random.h>

enum {
    COLOURS = 3,
    CHANNELS = 2 * COLOURS,
    FEWEST_OBJECTS = 3,
    MOST_OBJECTS = 6,
    MOST_SURFACES = 1 + MOST_OBJECTS,
    TABLE_SIDE = 64, /* cells of the texture's table, which is repeated */
    TABLE_VALUES = TABLE_SIDE * TABLE_SIDE,
    DEFAULT_HEIGHT = 64,
    DEFAULT_WIDTH = 128,
    DEFAULT_DISPARITY = 32,
    DEFAULT_TRAIN = 2000,
    DEFAULT_TEST = 200,
    DARKEST = 16,
    BRIGHTEST = 239 /* noise keeps within 0 ... 255 */
};

static const double plain_share = 0.4; /* of objects: those without texture */

static const char *const class_names[] = {"scene"};

typedef enum outline { EVERYWHERE, RECTANGLE, ELLIPSE } outline;

typedef struct surface {
    outline outline;
    double x, y; /* the centre, in pixels of the left image */
    double half_width, half_height;
    double disparity, slope_x, slope_y; /* at the centre, and per pixel */
    double colour[COLOURS];
    double contrast; /* of the texture; 0: none */
    double cell;     /* pixels of a cell of the fine texture; the coarse one has four times that */
    double shift_x, shift_y; /* where in the table */
} surface;

typedef struct stereo_scene {
    int count;
    surface surfaces[MOST_SURFACES];
    uint8_t table[TABLE_VALUES];
} stereo_scene;

static double draw(tl_random *random, double low, double high) {
    return low + (high - low) * (double)tl_random_uniform(random);
}

/* Slopes that change the disparity by at most `change` over the surface's extent. */
static void draw_slopes(tl_random *random, double change, surface *s) {
    s->slope_x = draw(random, -0.5, 0.5) * change / s->half_width;
    s->slope_y = draw(random, -0.5, 0.5) * change / s->half_height;
}

static void draw_surface(tl_random *random, const tl_stereo_config *config, bool background,
                         surface *s) {
    const double range = config->max_disparity;
    if (background) {
        s->outline = EVERYWHERE;
        s->x = 0.5 * config->width;
        s->y = 0.5 * config->height;
        s->half_width = s->x;
        s->half_height = s->y;
        s->disparity = draw(random, 0.12, 0.28) * range;
        draw_slopes(random, 0.08 * range, s);
    } else {
        s->outline = tl_random_below(random, 2) == 0 ? RECTANGLE : ELLIPSE;
        s->x = draw(random, 0.1, 1.0) * config->width;
        s->y = draw(random, 0.1, 0.9) * config->height;
        s->half_width = draw(random, 0.06, 0.16) * config->width;
        s->half_height = draw(random, 0.14, 0.36) * config->height;
        s->disparity = draw(random, 0.42, 0.88) * range;
        draw_slopes(random, 0.05 * range, s);
    }
    for (int c = 0; c < COLOURS; c++) {
        s->colour[c] = draw(random, 60, 196);
    }
    s->contrast = draw(random, 40, 80);
    s->cell = draw(random, 1.8, 4.0);
    s->shift_x = draw(random, 0, TABLE_SIDE);
    s->shift_y = draw(random, 0, TABLE_SIDE);
    if (draw(random, 0, 1) < plain_share && !background) {
        s->contrast = 0;
    }
}

static void draw_scene(tl_random *random, const tl_stereo_config *config, stereo_scene *scene) {
    scene->count =
        1 + FEWEST_OBJECTS + (int)tl_random_below(random, MOST_OBJECTS - FEWEST_OBJECTS + 1);
    for (int i = 0; i < scene->count; i++) {
        draw_surface(random, config, i == 0, &scene->surfaces[i]);
    }
    for (int i = 0; i < TABLE_VALUES; i += 16) {
        uint32_t block[4];
        tl_random_block(random->seed, random->stream, (UINT64_C(1) << 33) + (uint64_t)(i / 16),
                        block);
        for (int k = 0; k < 16; k++) {
            scene->table[i + k] = (uint8_t)(block[k / 4] >> (8 * (k % 4)) & 0xff);
        }
    }
}

static bool covers(const surface *s, double x, double y) {
    const double u = (x - s->x) / s->half_width;
    const double v = (y - s->y) / s->half_height;
    switch (s->outline) {
    case EVERYWHERE:
        return true;
    case RECTANGLE:
        return u >= -1 && u <= 1 && v >= -1 && v <= 1;
    case ELLIPSE:
        return u * u + v * v <= 1;
    }
    return false;
}

/* The surface that an eye sees at (column, y), and the left column of the point it sees. */
static const surface *look(const stereo_scene *scene, bool left_eye, double column, double y,
                           double *left_column, double *disparity) {
    const surface *nearest = NULL;
    *disparity = -HUGE_VAL;
    *left_column = column;
    for (int i = 0; i < scene->count; i++) {
        const surface *s = &scene->surfaces[i];
        const double here = s->disparity + s->slope_y * (y - s->y);
        const double x = left_eye ? column : s->x + (column - s->x + here) / (1 - s->slope_x);
        const double d = here + s->slope_x * (x - s->x);
        if (d > *disparity && covers(s, x, y)) {
            nearest = s;
            *disparity = d;
            *left_column = x;
        }
    }
    return nearest;
}

static double table_at(const stereo_scene *scene, int64_t x, int64_t y) {
    return (double)scene->table[(y & (TABLE_SIDE - 1)) * TABLE_SIDE + (x & (TABLE_SIDE - 1))];
}

/* The table at (x, y) in cells, interpolated: -1 to 1. */
static double texture(const stereo_scene *scene, double x, double y) {
    const double left = floor(x);
    const double top = floor(y);
    const int64_t i = (int64_t)left;
    const int64_t j = (int64_t)top;
    const double u = x - left;
    const double v = y - top;
    const double upper = (1 - u) * table_at(scene, i, j) + u * table_at(scene, i + 1, j);
    const double lower = (1 - u) * table_at(scene, i, j + 1) + u * table_at(scene, i + 1, j + 1);
    return ((1 - v) * upper + v * lower) / 127.5 - 1;
}

static void paint(const stereo_scene *scene, const surface *s, double x, double y, uint8_t *pixel) {
    double bright = 0;
    if (s->contrast > 0) {
        bright =
            0.65 * texture(scene, x / s->cell + s->shift_x, y / s->cell + s->shift_y) +
            0.35 * texture(scene, x / (4 * s->cell) + s->shift_y, y / (4 * s->cell) + s->shift_x);
    }
    for (int c = 0; c < COLOURS; c++) {
        const double value = s->colour[c] + s->contrast * bright;
        pixel[c] = (uint8_t)fmin(fmax(value, DARKEST), BRIGHTEST);
    }
}

static void render(const stereo_scene *scene, const tl_stereo_config *config, uint8_t *image,
                   float *disparities) {
    for (int y = 0; y < config->height; y++) {
        for (int x = 0; x < config->width; x++) {
            const int64_t at = (int64_t)y * config->width + x;
            double column;
            double disparity;
            const surface *s = look(scene, false, x, y, &column, &disparity);
            paint(scene, s, column, y, image + at * CHANNELS + COLOURS);
            s = look(scene, true, x, y, &column, &disparity);
            paint(scene, s, column, y, image + at * CHANNELS);
            disparities[at] = (float)disparity;
        }
    }
}

static tl_status check_range(const char *what, int value, int low, int high, tl_error *error) {
    return value >= low && value <= high
               ? TL_OK
               : tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                         "stereo: %s: expected %d to %d pixels, found %d", what, low, high, value);
}

/* Fills in the defaults and checks. */
static tl_status resolve(tl_stereo_config *config, tl_error *error) {
    if (config->split != TL_SPLIT_TRAIN && config->split != TL_SPLIT_TEST) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT, "stereo: split: expected 0 or 1, found %d",
                       (int)config->split);
    }
    if (config->count == 0) {
        config->count = config->split == TL_SPLIT_TRAIN ? DEFAULT_TRAIN : DEFAULT_TEST;
    }
    if (config->count < 1 || config->count > INT32_MAX) {
        return tl_fail(error, TL_ERROR_INVALID_ARGUMENT,
                       "stereo: count: expected 1 to %d pairs, found %lld", INT32_MAX,
                       (long long)config->count);
    }
    config->height = config->height == 0 ? DEFAULT_HEIGHT : config->height;
    config->width = config->width == 0 ? DEFAULT_WIDTH : config->width;
    config->max_disparity = config->max_disparity == 0 ? DEFAULT_DISPARITY : config->max_disparity;
    TL_TRY(check_range("max disparity", config->max_disparity, 8, 256, error));
    TL_TRY(check_range("height", config->height, 16, 1024, error));
    const int narrowest = 2 * config->max_disparity > 32 ? 2 * config->max_disparity : 32;
    return check_range("width", config->width, narrowest, 2048, error);
}

tl_dataset *tl_dataset_create_stereo(tl_context *context, const tl_stereo_config *config,
                                     tl_error *error) {
    tl_stereo_config resolved = config != NULL ? *config : (tl_stereo_config){0};
    if (resolve(&resolved, error) != TL_OK) {
        return NULL;
    }
    const tl_dataset_info info = {
        .height = resolved.height,
        .width = resolved.width,
        .channels = CHANNELS,
        .classes = 1,
        .class_names = class_names,
        .mean = {0.5, 0.5, 0.5, 0.5, 0.5, 0.5},
        .deviation = {0.2, 0.2, 0.2, 0.2, 0.2, 0.2},
    };
    tl_dataset *dataset = tl_dataset_create_empty(context, &info, error);
    if (dataset == NULL) {
        return NULL;
    }
    dataset->has_targets = true;
    if (tl_dataset_reserve(dataset, resolved.count, error) != TL_OK) {
        tl_dataset_free(dataset);
        return NULL;
    }
    const int64_t pixels = (int64_t)resolved.height * resolved.width;
    for (int64_t i = 0; i < resolved.count; i++) {
        const uint32_t index = (uint32_t)i | (uint32_t)resolved.split << 31;
        tl_random random = tl_random_create(resolved.seed, TL_RANDOM_SYNTHETIC, index);
        uint8_t *image = dataset->images + i * pixels * CHANNELS;
        stereo_scene drawn;
        draw_scene(&random, &resolved, &drawn);
        render(&drawn, &resolved, image, dataset->targets + i * pixels);
        tl_synthetic_noise(&random, pixels * CHANNELS, image);
        dataset->labels[i] = 0;
    }
    dataset->info.count = resolved.count;
    return dataset;
}
