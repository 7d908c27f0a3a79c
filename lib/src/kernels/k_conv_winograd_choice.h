/* k_conv_winograd_choice.h - which of Winograd's algorithms a convolution takes, if any. */
#ifndef TL_K_CONV_WINOGRAD_CHOICE_H
#define TL_K_CONV_WINOGRAD_CHOICE_H

#include "kernels/k_conv_common.h"
#include "kernels/k_conv_winograd_lines.h"

enum {
    /* Fewer channels than this and the transforms outweigh the products that Winograd saves. */
    TL_WINOGRAD_LEAST_CHANNELS = 16,
    TL_WINOGRAD_LEAST_STRIDED = 32, /* of the weight's gradient, whose transforms are two */
    /* What the transforms of weights cost, in tiles: few tiles do not repay a larger transform. */
    TL_WINOGRAD_WEIGHT_TILES = 16,
};

/* Tiles of that kind that cover a batch of images of `wanted` extents. */
static inline double tl_winograd_tiles(const tl_conv_shape *s, const int64_t *wanted,
                                       tl_winograd_kind kind) {
    const int outputs = tl_winograd_line_of(kind).outputs;
    return (double)(s->batch * wanted[0]) *
           (double)(tl_conv_ceiling(wanted[1], outputs) * tl_conv_ceiling(wanted[2], outputs));
}

/* The products of channels that these take, the weights' transforms included. */
static inline double tl_winograd_work(const tl_conv_shape *s, const int64_t *wanted,
                                      tl_winograd_kind kind) {
    const tl_winograd_line line = tl_winograd_line_of(kind);
    return line.elements * line.elements *
           (tl_winograd_tiles(s, wanted, kind) + TL_WINOGRAD_WEIGHT_TILES);
}

/* Images (any depth of them) with a 3x3 kernel, one group and whole vectors of channels, that are
 * large enough for tiles of 2x2 or, with stride 2, of 4x4 outputs. Odd paddings with stride 2:
 * the gradient of the input alternates alike in all tiles then. */
static inline bool tl_winograd_suits(const tl_conv_shape *s, tl_conv_direction direction) {
    static const int64_t kernel[3] = {1, 3, 3};
    const int64_t stride = s->stride[1];
    for (int d = 0; d < 3; d++) {
        if (s->kernel[d] != kernel[d] || (s->dilation[d] != 1 && s->kernel[d] > 1) ||
            s->stride[d] != (d == 0 ? 1 : stride)) {
            return false;
        }
    }
    const int64_t least = stride == 2 && direction == TL_CONV_BACKWARD_WEIGHT
                              ? TL_WINOGRAD_LEAST_STRIDED
                              : TL_WINOGRAD_LEAST_CHANNELS;
    if (s->padding[0] != 0 || s->groups != 1 || s->in_channels % TL_LANES != 0 ||
        s->out_channels % TL_LANES != 0 || s->in_channels < least || s->out_channels < least) {
        return false;
    }
    const double outputs = (double)(s->batch * s->out[0]) * (double)s->out[1] * (double)s->out[2];
    if (stride == 1) { /* odd extents compute a row or column too much */
        const int64_t even = (s->out[1] + s->out[1] % 2) * (s->out[2] + s->out[2] % 2);
        return (double)even <= 1.5 * (double)(s->out[1] * s->out[2]);
    }
    return stride == 2 && s->padding[1] % 2 == 1 && s->padding[2] % 2 == 1 &&
           tl_winograd_work(s, s->out, TL_WINOGRAD_STRIDED) < 0.75 * 9 * outputs;
}

static inline tl_winograd_kind tl_winograd_choose(const tl_conv_shape *s,
                                                  tl_conv_direction direction) {
    const bool back = direction == TL_CONV_BACKWARD_INPUT;
    if (s->stride[1] == 2) {
        return back ? TL_WINOGRAD_STRIDED_BACK : TL_WINOGRAD_STRIDED;
    }
    const int64_t *wanted = back ? s->in : s->out;
    return tl_winograd_work(s, wanted, TL_WINOGRAD_4) < tl_winograd_work(s, wanted, TL_WINOGRAD_2)
               ? TL_WINOGRAD_4
               : TL_WINOGRAD_2;
}

#endif
