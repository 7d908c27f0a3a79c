/* cost_volume.h - how well the places of two images match, for every shift between them: the
 * heart of networks that see depth with two eyes. Results belong to the tape.
 */
#ifndef TL_COST_VOLUME_H
#define TL_COST_VOLUME_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Group-wise correlation (Guo et al. 2019, arXiv 1903.04025) of the feature maps of a rectified
 * stereo pair: left [N, H, W, C], right [N, H, W, C] -> y [N, H, W, D, G], D disparities from 0 to
 * D - 1 and G groups of C / G consecutive channels. Channel c of group g is g C/G <= c < (g+1) C/G;
 *     y[n, i, j, d, g] = G/C sum over the channels c of group g of left[n, i, j, c]
 *                        right[n, i, j - d, c],
 * and 0 where j < d. G = 1 is plain correlation; G = C leaves the sum to the network. The result
 * has the shape that tl_conv3d wants, with H, W and D as its spatial dimensions.
 * TL_ERROR_SHAPE if the operands are not of rank 4 and equal shape; TL_ERROR_INVALID_ARGUMENT if D
 * is not 1 to W or G does not divide C. Keeps both operands for backward. */
TL_API tl_tensor *tl_cost_volume(tl_tape *tape, tl_tensor *left, tl_tensor *right,
                                 int64_t disparities, int64_t groups);

#ifdef __cplusplus
}
#endif

#endif
