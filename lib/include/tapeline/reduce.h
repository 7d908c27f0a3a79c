/* reduce.h - sums and means over dimensions.
 *
 * `dims` lists `count` distinct dimensions, counted from 0; NULL means all. With `keep_dims` they
 * stay with extent 1, else they vanish (a result without dimensions has rank 0). Sums are formed
 * in double beyond short runs. Nothing is kept for backward. A dimension that does not exist or
 * comes twice is TL_ERROR_INVALID_ARGUMENT.
 */
#ifndef TL_REDUCE_H
#define TL_REDUCE_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The sum over the dimensions listed, or the mean. */
TL_API tl_tensor *tl_sum(tl_tape *tape, tl_tensor *x, int count, const int *dims, bool keep_dims);
TL_API tl_tensor *tl_mean(tl_tape *tape, tl_tensor *x, int count, const int *dims, bool keep_dims);

#ifdef __cplusplus
}
#endif

#endif
