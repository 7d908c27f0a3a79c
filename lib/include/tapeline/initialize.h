/* initialize.h - initial values of parameters.
 *
 * fan_in and fan_out are numbers of values that meet in one output and that one input feeds:
 * for a convolution kernel area x input channels (of the group) and kernel area x output channels.
 */
#ifndef TL_INITIALIZE_H
#define TL_INITIALIZE_H

#include <tapeline/random.h>
#include <tapeline/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Normal with deviation sqrt(2 / fan), for layers before a ReLU (He et al. 2015,
 * arXiv 1502.01852). */
TL_API void tl_initialize_he_normal(tl_tensor *tensor, int64_t fan, tl_random *random);
/* Uniform in +-sqrt(6 / fan) with the same variance. */
TL_API void tl_initialize_he_uniform(tl_tensor *tensor, int64_t fan, tl_random *random);
/* Normal with variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010). */
TL_API void tl_initialize_xavier_normal(tl_tensor *tensor, int64_t fan_in, int64_t fan_out,
                                        tl_random *random);
/* Uniform in +-sqrt(6 / (fan_in + fan_out)). */
TL_API void tl_initialize_xavier_uniform(tl_tensor *tensor, int64_t fan_in, int64_t fan_out,
                                         tl_random *random);
TL_API void tl_initialize_normal(tl_tensor *tensor, double mean, double deviation,
                                 tl_random *random);
TL_API void tl_initialize_uniform(tl_tensor *tensor, double low, double high, tl_random *random);
TL_API void tl_initialize_constant(tl_tensor *tensor, double value);

#ifdef __cplusplus
}
#endif

#endif
