/* optimizer.h - update rules, and the norm of the gradient.
 *
 * An optimizer is created from a parameter registry and holds its state (momentum, moments) for
 * every trainable parameter in it; the registry must be complete by then and outlive it. Each step
 * updates the parameters that have a gradient and are not frozen, counts t for each of them from
 * 1, and then clears the gradients. Nothing is allocated after creation.
 *
 * Weight decay acts on parameters of TL_GROUP_WEIGHT only; TL_GROUP_NO_DECAY (gains, shifts,
 * biases) is spared unless `decay_all_parameters` is set.
 *
 * Hyperparameters are doubles; what is constant over a step is computed in double.
 */
#ifndef TL_OPTIMIZER_H
#define TL_OPTIMIZER_H

#include <tapeline/parameters.h>
#include <tapeline/state.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_optimizer tl_optimizer;

/* Stochastic gradient descent, optionally with momentum (the learning rate is outside the buffer,
 * as in Sutskever et al., ICML 2013, eq. 3-4 up to that), for weight p and gradient g:
 *
 *     g += weight_decay p
 *     without momentum:  p -= learning_rate g
 *     with:              b = g at t = 1, later momentum b + (1 - dampening) g
 *                        p -= learning_rate (nesterov ? g + momentum b : b)
 *
 * Fields left 0 mean 0. Ranges: learning_rate, weight_decay >= 0; momentum, dampening in [0, 1];
 * nesterov wants a momentum and no dampening. */
typedef struct tl_sgd_config {
    double learning_rate;
    double momentum;
    double dampening;
    double weight_decay;
    bool nesterov;
    bool decay_all_parameters;
} tl_sgd_config;

/* learning_rate 0.1, momentum 0.9. */
TL_API tl_sgd_config tl_sgd_config_default(void);

/* Adam and AdamW (Kingma and Ba, arXiv 1412.6980, algorithm 1; Loshchilov and Hutter, arXiv
 * 1711.05101, algorithm 2):
 *
 *     Adam:   g += weight_decay p
 *     AdamW:  p -= learning_rate weight_decay p
 *     m = beta1 m + (1 - beta1) g
 *     v = beta2 v + (1 - beta2) g^2
 *     p -= learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
 *
 * Fields left 0 mean 0: start from a default. Ranges: learning_rate, weight_decay, epsilon >= 0;
 * betas in [0, 1). */
typedef struct tl_adam_config {
    double learning_rate;
    double beta1;
    double beta2;
    double epsilon;
    double weight_decay;
    bool decay_all_parameters;
} tl_adam_config;

/* learning_rate 1e-3, beta1 0.9, beta2 0.999, epsilon 1e-8; weight_decay 0 for Adam, 0.01 for
 * AdamW. */
TL_API tl_adam_config tl_adam_config_default(void);
TL_API tl_adam_config tl_adamw_config_default(void);

/* RMSprop (Tieleman and Hinton, Coursera lecture 6.5, 2012):
 *
 *     g += weight_decay p
 *     v = alpha v + (1 - alpha) g^2
 *     d = g / (sqrt(v) + epsilon)
 *     without momentum:  p -= learning_rate d
 *     with:              b = momentum b + d,  p -= learning_rate b
 *
 * Fields left 0 mean 0: start from the default. Ranges: learning_rate, weight_decay, epsilon >= 0;
 * alpha, momentum in [0, 1]. */
typedef struct tl_rmsprop_config {
    double learning_rate;
    double alpha;
    double epsilon;
    double weight_decay;
    double momentum;
    bool decay_all_parameters;
} tl_rmsprop_config;

/* learning_rate 0.01, alpha 0.99, epsilon 1e-8. */
TL_API tl_rmsprop_config tl_rmsprop_config_default(void);

/* A config of NULL is the default. NULL on a value out of range (TL_ERROR_INVALID_ARGUMENT, the
 * message names it) or failed allocation; `error` may be NULL. */
TL_API tl_optimizer *tl_sgd_create(tl_parameters *parameters, const tl_sgd_config *config,
                                   tl_error *error);
TL_API tl_optimizer *tl_adam_create(tl_parameters *parameters, const tl_adam_config *config,
                                    tl_error *error);
TL_API tl_optimizer *tl_adamw_create(tl_parameters *parameters, const tl_adam_config *config,
                                     tl_error *error);
TL_API tl_optimizer *tl_rmsprop_create(tl_parameters *parameters, const tl_rmsprop_config *config,
                                       tl_error *error);
/* NULL is fine. */
TL_API void tl_optimizer_free(tl_optimizer *optimizer);

/* "sgd", "adam", "adamw" or "rmsprop". */
TL_API const char *tl_optimizer_kind(const tl_optimizer *optimizer);

/* Updates the parameters from their gradients and clears the gradients. TL_ERROR_INVALID_ARGUMENT,
 * with nothing changed, if the learning rate is negative or not finite. Gradients are not looked
 * at for NaN: see tl_clip_grad_norm and tl_tape_set_check_finite. */
TL_API tl_status tl_optimizer_step(tl_optimizer *optimizer);

/* The learning rate of the steps that follow, e.g. from a schedule (schedule.h). */
TL_API void tl_optimizer_set_learning_rate(tl_optimizer *optimizer, double learning_rate);
TL_API double tl_optimizer_learning_rate(const tl_optimizer *optimizer);

/* Hands the state over to `state`, below the path `prefix` ("optimizer"): the kind, the
 * hyperparameters, and per parameter the buffers (borrowed: the state must be freed or written
 * before the next step) with the number of its steps. */
TL_API tl_status tl_optimizer_save_state(const tl_optimizer *optimizer, tl_state *state,
                                         const char *prefix, tl_error *error);
/* Takes the state back, hyperparameters included: training goes on as if never interrupted. First
 * checks that kind, names, shapes and finiteness fit, and changes nothing if they do not. */
TL_API tl_status tl_optimizer_load_state(tl_optimizer *optimizer, const tl_state *state,
                                         const char *prefix, tl_error *error);
/* The checks alone. */
TL_API tl_status tl_optimizer_check_state(const tl_optimizer *optimizer, const tl_state *state,
                                          const char *prefix, tl_error *error);

/* The Euclidean norm of all gradients together, summed in double; 0 where there is none. NaN or
 * infinite if a gradient is. */
TL_API double tl_grad_norm(const tl_parameters *parameters);

/* Multiplies all gradients by min(1, max_norm / (norm + 1e-6)). `*total_norm` (NULL is allowed)
 * receives the norm before. TL_ERROR_NOT_FINITE if the norm is NaN or infinite,
 * TL_ERROR_INVALID_ARGUMENT unless max_norm > 0 (INFINITY is fine): no gradient is changed then.
 * Pascanu et al., arXiv 1211.5063, algorithm 1. */
TL_API tl_status tl_clip_grad_norm(tl_parameters *parameters, double max_norm, double *total_norm);

#ifdef __cplusplus
}
#endif

#endif
