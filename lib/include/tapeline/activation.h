/* activation.h - elementwise nonlinearities.
 *
 * x of any shape -> y of the same shape. At a kink the derivative is that of the case that
 * includes the point. Results and gradients are finite for all finite x up to 1e18 in magnitude.
 * What each keeps for backward (x or y, one value an element, shared with other operations that
 * keep the same) is said beside it. A parameter outside its range is TL_ERROR_INVALID_ARGUMENT.
 */
#ifndef TL_ACTIVATION_H
#define TL_ACTIVATION_H

#include <tapeline/tape.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y = x if x > 0, else 0. Keeps y, which the next operation mostly keeps as well. */
TL_API tl_tensor *tl_relu(tl_tape *tape, tl_tensor *x);

/* y = x if x > 0, else negative_slope x. Keeps y; x if negative_slope < 0. */
TL_API tl_tensor *tl_leaky_relu(tl_tape *tape, tl_tensor *x, double negative_slope);

typedef enum tl_gelu_form {
    TL_GELU_EXACT = 0, /* y = x/2 (1 + erf(x / sqrt 2)) */
    TL_GELU_TANH = 1,  /* y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
} tl_gelu_form;

/* Hendrycks and Gimpel 2016, arXiv 1606.08415. Keeps x. */
TL_API tl_tensor *tl_gelu(tl_tape *tape, tl_tensor *x, tl_gelu_form form);

/* y = x / (1 + exp(-x)). Keeps x. */
TL_API tl_tensor *tl_silu(tl_tape *tape, tl_tensor *x);

/* y = 1 / (1 + exp(-x)). Keeps y. */
TL_API tl_tensor *tl_sigmoid(tl_tape *tape, tl_tensor *x);

/* y = tanh x. Keeps y. */
TL_API tl_tensor *tl_tanh(tl_tape *tape, tl_tensor *x);

/* y = x if x > 0, else alpha (exp(x) - 1); alpha >= 0. Keeps y. */
TL_API tl_tensor *tl_elu(tl_tape *tape, tl_tensor *x, double alpha);

/* y = x if beta x > threshold, else log(1 + exp(beta x)) / beta; beta > 0 (1 and 20 are usual).
 * Keeps x. */
TL_API tl_tensor *tl_softplus(tl_tape *tape, tl_tensor *x, double beta, double threshold);

#ifdef __cplusplus
}
#endif

#endif
