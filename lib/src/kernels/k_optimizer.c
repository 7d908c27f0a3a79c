#include "kernels/kernels.h"
#include "kernels/simd.h"

/* Work is cut into pieces of this many values, whatever the number of threads. A piece ends in a
 * partial vector, which goes through the same arithmetic as the full ones. */
enum { PIECE = 1 << 15 };

static int64_t piece_count(int64_t n) {
    return (n + PIECE - 1) / PIECE;
}

static int64_t piece_size(int64_t piece, int64_t n) {
    const int64_t rest = n - piece * PIECE;
    return rest < PIECE ? rest : PIECE;
}

/* ------------------------------------------------------------------ sgd */

TL_INLINE tl_v sgd_decayed(const tl_sgd_coefficients *c, tl_v g, tl_v p) {
    return g + p * c->weight_decay;
}

TL_INLINE tl_v sgd_buffer(const tl_sgd_coefficients *c, tl_v g, tl_v buffer) {
    return buffer * c->momentum + g * c->gradient_share;
}

TL_INLINE tl_v sgd_direction(const tl_sgd_coefficients *c, tl_v g, tl_v buffer) {
    return c->nesterov ? g + buffer * c->momentum : buffer;
}

static void sgd_plain_range(int64_t n, const tl_sgd_coefficients *coefficients, const tl_real *g,
                            tl_real *p) {
    const tl_sgd_coefficients c = *coefficients;
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const tl_v weights = tl_v_load(p + i);
        const tl_v direction = sgd_decayed(&c, tl_v_load(g + i), weights);
        tl_v_store(p + i, weights - direction * c.learning_rate);
    }
    if (i < n) {
        const tl_v weights = tl_v_load_partial(p + i, n - i);
        const tl_v direction = sgd_decayed(&c, tl_v_load_partial(g + i, n - i), weights);
        tl_v_store_partial(p + i, weights - direction * c.learning_rate, n - i);
    }
}

static void sgd_momentum_range(int64_t n, const tl_sgd_coefficients *coefficients, const tl_real *g,
                               tl_real *buffer, tl_real *p) {
    const tl_sgd_coefficients c = *coefficients;
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const tl_v weights = tl_v_load(p + i);
        const tl_v decayed = sgd_decayed(&c, tl_v_load(g + i), weights);
        const tl_v next = sgd_buffer(&c, decayed, tl_v_load(buffer + i));
        tl_v_store(buffer + i, next);
        tl_v_store(p + i, weights - sgd_direction(&c, decayed, next) * c.learning_rate);
    }
    if (i < n) {
        const int64_t rest = n - i;
        const tl_v weights = tl_v_load_partial(p + i, rest);
        const tl_v decayed = sgd_decayed(&c, tl_v_load_partial(g + i, rest), weights);
        const tl_v next = sgd_buffer(&c, decayed, tl_v_load_partial(buffer + i, rest));
        tl_v_store_partial(buffer + i, next, rest);
        tl_v_store_partial(p + i, weights - sgd_direction(&c, decayed, next) * c.learning_rate,
                           rest);
    }
}

static void sgd(int threads, int64_t n, const tl_sgd_coefficients *coefficients, const tl_real *g,
                tl_real *buffer, tl_real *p) {
    const int64_t pieces = piece_count(n);
#pragma omp parallel for num_threads(threads) schedule(static) if (n > TL_PARALLEL_MINIMUM)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        const int64_t size = piece_size(piece, n);
        if (buffer != NULL) {
            sgd_momentum_range(size, coefficients, g + start, buffer + start, p + start);
        } else {
            sgd_plain_range(size, coefficients, g + start, p + start);
        }
    }
}

/* ------------------------------------------------------------------ adam */

typedef struct adam_values {
    tl_v m;
    tl_v v;
    tl_v p;
} adam_values;

TL_INLINE adam_values adam_update(const tl_adam_coefficients *c, tl_v g, adam_values old) {
    const tl_v decayed = g + old.p * c->gradient_decay;
    adam_values new;
    new.m = old.m * c->beta1 + decayed * c->beta1_rest;
    new.v = old.v * c->beta2 + decayed *decayed * c->beta2_rest;
    const tl_v divisor = tl_v_sqrt(new.v) * c->second_moment_root + c->epsilon;
    new.p = old.p - old.p * c->weight_decay_step - new.m * c->step_size / divisor;
    return new;
}

static void adam_range(int64_t n, const tl_adam_coefficients *coefficients, const tl_real *g,
                       tl_real *m, tl_real *v, tl_real *p) {
    const tl_adam_coefficients c = *coefficients;
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const adam_values old = {tl_v_load(m + i), tl_v_load(v + i), tl_v_load(p + i)};
        const adam_values new = adam_update(&c, tl_v_load(g + i), old);
        tl_v_store(m + i, new.m);
        tl_v_store(v + i, new.v);
        tl_v_store(p + i, new.p);
    }
    if (i < n) {
        const int64_t rest = n - i;
        const adam_values old = {tl_v_load_partial(m + i, rest), tl_v_load_partial(v + i, rest),
                                 tl_v_load_partial(p + i, rest)};
        const adam_values new = adam_update(&c, tl_v_load_partial(g + i, rest), old);
        tl_v_store_partial(m + i, new.m, rest);
        tl_v_store_partial(v + i, new.v, rest);
        tl_v_store_partial(p + i, new.p, rest);
    }
}

static void adam(int threads, int64_t n, const tl_adam_coefficients *coefficients, const tl_real *g,
                 tl_real *m, tl_real *v, tl_real *p) {
    const int64_t pieces = piece_count(n);
#pragma omp parallel for num_threads(threads) schedule(static) if (n > TL_PARALLEL_MINIMUM)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        adam_range(piece_size(piece, n), coefficients, g + start, m + start, v + start, p + start);
    }
}

/* ------------------------------------------------------------------ rmsprop */

typedef struct rmsprop_values {
    tl_v v;
    tl_v buffer;
    tl_v p;
} rmsprop_values;

TL_INLINE rmsprop_values rmsprop_update(const tl_rmsprop_coefficients *c, tl_v g,
                                        rmsprop_values old) {
    const tl_v decayed = g + old.p * c->weight_decay;
    rmsprop_values new;
    new.v = old.v * c->alpha + decayed *decayed * c->alpha_rest;
    new.buffer = old.buffer * c->momentum + decayed / (tl_v_sqrt(new.v) + c->epsilon);
    new.p = old.p - new.buffer * c->learning_rate;
    return new;
}

/* Without momentum `buffer` is NULL and its value 0, which leaves just the quotient. */
static void rmsprop_range(int64_t n, const tl_rmsprop_coefficients *coefficients, const tl_real *g,
                          tl_real *v, tl_real *buffer, tl_real *p) {
    const tl_rmsprop_coefficients c = *coefficients;
    int64_t i = 0;
    for (; i + TL_LANES <= n; i += TL_LANES) {
        const rmsprop_values old = {tl_v_load(v + i),
                                    buffer != NULL ? tl_v_load(buffer + i) : tl_v_zero(),
                                    tl_v_load(p + i)};
        const rmsprop_values new = rmsprop_update(&c, tl_v_load(g + i), old);
        tl_v_store(v + i, new.v);
        tl_v_store(p + i, new.p);
        if (buffer != NULL) {
            tl_v_store(buffer + i, new.buffer);
        }
    }
    if (i < n) {
        const int64_t rest = n - i;
        const rmsprop_values old = {tl_v_load_partial(v + i, rest),
                                    buffer != NULL ? tl_v_load_partial(buffer + i, rest)
                                                   : tl_v_zero(),
                                    tl_v_load_partial(p + i, rest)};
        const rmsprop_values new = rmsprop_update(&c, tl_v_load_partial(g + i, rest), old);
        tl_v_store_partial(v + i, new.v, rest);
        tl_v_store_partial(p + i, new.p, rest);
        if (buffer != NULL) {
            tl_v_store_partial(buffer + i, new.buffer, rest);
        }
    }
}

static void rmsprop(int threads, int64_t n, const tl_rmsprop_coefficients *coefficients,
                    const tl_real *g, tl_real *v, tl_real *buffer, tl_real *p) {
    const int64_t pieces = piece_count(n);
#pragma omp parallel for num_threads(threads) schedule(static) if (n > TL_PARALLEL_MINIMUM)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t start = piece * PIECE;
        rmsprop_range(piece_size(piece, n), coefficients, g + start, v + start,
                      buffer != NULL ? buffer + start : NULL, p + start);
    }
}

const tl_optimizer_kernels TL_PER_ISA(tl_optimizer_kernels) = {
    .sgd = sgd,
    .adam = adam,
    .rmsprop = rmsprop,
};
