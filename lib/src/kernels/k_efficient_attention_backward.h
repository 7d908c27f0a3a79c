/* k_efficient_attention_backward.h - the backward half of the family, in a file of its own: the
 * names k_efficient_attention.c puts into the family's struct. */
#ifndef TL_K_EFFICIENT_ATTENTION_BACKWARD_H
#define TL_K_EFFICIENT_ATTENTION_BACKWARD_H

#include "kernels/kernels.h"

size_t TL_PER_ISA(tl_efficient_attention_backward_scratch_bytes)(const tl_attention_shape *shape,
                                                                 int threads);

void TL_PER_ISA(tl_efficient_attention_backward)(const tl_attention_shape *shape,
                                                 const tl_attention_parameters *parameters,
                                                 const tl_real *x, const tl_real *dy,
                                                 const tl_real *saved,
                                                 const tl_attention_gradients *gradients,
                                                 void *scratch, int threads);

#endif
