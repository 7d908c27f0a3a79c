/* k_optimizer.h - the update rules: one pass over a parameter, its gradient and its state.
 *
 * Memory-bound. Every element is computed alone, so bits depend on nothing but its values. The
 * formulas are in tapeline/optimizer.h; what does not differ from element to element is computed
 * once, in double, by the caller.
 */
#ifndef TL_K_OPTIMIZER_H
#define TL_K_OPTIMIZER_H

typedef struct tl_sgd_coefficients {
    tl_real learning_rate;
    tl_real momentum;
    tl_real gradient_share; /* 1 - dampening; 1 in a parameter's first step */
    tl_real weight_decay;
    bool nesterov;
} tl_sgd_coefficients;

typedef struct tl_adam_coefficients {
    tl_real beta1;
    tl_real beta2;
    tl_real beta1_rest;         /* 1 - beta1 */
    tl_real beta2_rest;         /* 1 - beta2 */
    tl_real step_size;          /* learning rate / (1 - beta1^t) */
    tl_real second_moment_root; /* 1 / sqrt(1 - beta2^t) */
    tl_real epsilon;
    tl_real gradient_decay;    /* Adam: weight decay, added to the gradient */
    tl_real weight_decay_step; /* AdamW: learning rate * weight decay, the share the weight loses */
} tl_adam_coefficients;

typedef struct tl_rmsprop_coefficients {
    tl_real learning_rate;
    tl_real alpha;
    tl_real alpha_rest; /* 1 - alpha */
    tl_real epsilon;
    tl_real weight_decay;
    tl_real momentum;
} tl_rmsprop_coefficients;

typedef struct tl_optimizer_kernels {
    /* Updates the n weights p by the gradient g. `buffer` holds the momentum; NULL: none. Moves
     * 5 n values (3 n without momentum). */
    void (*sgd)(int threads, int64_t n, const tl_sgd_coefficients *coefficients, const tl_real *g,
                tl_real *buffer, tl_real *p);
    /* `m` and `v` are the first and second moment. Moves 7 n values. */
    void (*adam)(int threads, int64_t n, const tl_adam_coefficients *coefficients, const tl_real *g,
                 tl_real *m, tl_real *v, tl_real *p);
    /* `v` is the mean square; `buffer` holds the momentum; NULL: none. Moves 7 n (5 n) values. */
    void (*rmsprop)(int threads, int64_t n, const tl_rmsprop_coefficients *coefficients,
                    const tl_real *g, tl_real *v, tl_real *buffer, tl_real *p);
} tl_optimizer_kernels;

TL_DECLARE_KERNELS(tl_optimizer_kernels);

#endif
