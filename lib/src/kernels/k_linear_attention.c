/* k_linear_attention.c - causal linear attention in chunks of B positions.
 *
 * With features f(q), f(k) [B, D] of a chunk and values V' = [v, 1] [B, E + 1], whose last column
 * makes the sum of the weights one more channel:
 *
 *     A = lower triangle of f(q) f(k)^T,   Y' = A V' + f(q) S,   then S += f(k)^T V'
 *     y = Y'[: E] / (Y'[E] + epsilon)
 *
 * Backward, with G' = [dy / sum, -dy . y / sum] the gradient of Y': first once more from the front,
 *     dA = lower triangle of G' V'^T,      df(q) = dA f(k) + G' S^T
 * then from the back, with R the sum of f(q)^T G' over the later chunks,
 *     df(k) = dA^T f(q) + V' R^T,          dV' = A^T G' + f(k) R,   then R += f(q)^T G'.
 * The derivative of f(u) = elu(u) + 1 is min(f(u), 1).
 *
 * 4 D E + 2 B (D + E) FLOPs a position forward. Every sample and head is worked by one thread.
 */
#include "kernels/kernels.h"

#include "kernels/k_attention_tiles.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum { CHUNK = TL_LINEAR_ATTENTION_CHUNK };
static const tl_real epsilon = (tl_real)1e-6;

/* One thread's scratch; D_row and E_row are padded rows of D and E + 1 values. */
typedef struct chunk_scratch {
    int64_t D_row, E_row;
    tl_real *fq, *fk;            /* [B, D_row] */
    tl_real *v, *g;              /* [B, E_row]: V', G' */
    tl_real *transposed;         /* [D or E + 1, B] */
    tl_real *weights, *dweights; /* [B, B]: A, dA */
    tl_real *result;             /* [B, D_row or E_row] */
    tl_real *state, *state_t;    /* S or R [D, E_row]; [E + 1, D_row] */
} chunk_scratch;

static tl_real *take(tl_real *base, size_t *used, int64_t count) {
    tl_real *at = base == NULL ? NULL : base + *used;
    *used += (size_t)TL_ATTENTION_PADDED(count);
    return at;
}

static chunk_scratch scratch_at(const tl_linear_attention_shape *s, tl_real *base, size_t *used) {
    const int64_t D_row = TL_ATTENTION_PADDED(s->key_channels);
    const int64_t E_row = TL_ATTENTION_PADDED(s->value_channels + 1);
    const int64_t widest = D_row > E_row ? D_row : E_row;
    return (chunk_scratch){
        .D_row = D_row,
        .E_row = E_row,
        .fq = take(base, used, CHUNK * D_row),
        .fk = take(base, used, CHUNK * D_row),
        .v = take(base, used, CHUNK * E_row),
        .g = take(base, used, CHUNK * E_row),
        .transposed = take(base, used, CHUNK * widest),
        .weights = take(base, used, CHUNK * CHUNK),
        .dweights = take(base, used, CHUNK * CHUNK),
        .result = take(base, used, CHUNK * widest),
        .state = take(base, used, D_row * E_row),
        .state_t = take(base, used, D_row * E_row),
    };
}

static size_t values_per_thread(const tl_linear_attention_shape *s) {
    size_t used = 0;
    scratch_at(s, NULL, &used);
    return used;
}

static size_t scratch_bytes(const tl_linear_attention_shape *shape, int threads) {
    return values_per_thread(shape) * (size_t)threads * sizeof(tl_real);
}

static chunk_scratch thread_scratch(const tl_linear_attention_shape *shape, void *scratch) {
#ifdef _OPENMP
    const size_t thread = (size_t)omp_get_thread_num();
#else
    const size_t thread = 0;
#endif
    size_t used = thread * values_per_thread(shape);
    return scratch_at(shape, scratch, &used);
}

/* ------------------------------------------------------------------ steps */

/* out [rows, D_row] = elu(in) + 1, zeros behind. */
static void features(int64_t rows, int64_t count, const tl_real *in, int64_t in_row, tl_real *out,
                     int64_t out_row) {
    tile_pad_rows(rows, count, in, in_row, out, out_row);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < count; j += TL_LANES) {
            tl_real *at = out + i * out_row + j;
            const tl_v u = tl_v_load(at);
            const tl_v one = tl_v_set(1);
            tl_v_store(at, tl_v_select(u > tl_v_zero(), u + one, tl_v_exp(u)));
        }
        memset(out + i * out_row + count, 0, (size_t)(out_row - count) * sizeof(tl_real));
    }
}

/* V' */
static void values_and_one(int64_t rows, int64_t count, const tl_real *v, int64_t v_row,
                           tl_real *out, int64_t out_row) {
    tile_pad_rows(rows, count, v, v_row, out, out_row);
    for (int64_t i = 0; i < rows; i++) {
        out[i * out_row + count] = 1;
    }
}

static void multiply(int64_t rows, int64_t columns, int64_t inner, const tl_real *a, int64_t a_row,
                     int64_t a_step, const tl_real *b, int64_t b_row, tl_real *out, int64_t out_row,
                     bool add) {
    tile_multiply((tile_product){.rows = rows,
                                 .columns = tile_columns(columns),
                                 .inner = inner,
                                 .a = a,
                                 .a_row = a_row,
                                 .a_step = a_step,
                                 .b = b,
                                 .b_row = b_row,
                                 .out = out,
                                 .out_row = out_row,
                                 .start = add ? out : NULL,
                                 .start_row = out_row});
}

/* out [rows, B] = the lower triangle (diagonal included) of a b^T, zeros above. */
static void lower_triangle(int64_t rows, int64_t count, const tl_real *a, const tl_real *b,
                           int64_t row, tl_real *transposed, tl_real *out) {
    tile_transpose(rows, count, b, row, transposed, CHUNK);
    multiply(rows, rows, count, a, row, 1, transposed, CHUNK, out, CHUNK, false);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = i + 1; j < rows; j++) {
            out[i * CHUNK + j] = 0;
        }
    }
}

/* to [rows, count] = or += from * min(feature, 1); feature NULL: from alone. */
static void put(int64_t rows, int64_t count, const tl_real *from, const tl_real *feature,
                int64_t from_row, tl_real *to, int64_t to_row, bool accumulate) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < count; j++) {
            const int64_t at = i * from_row + j;
            tl_real value = from[at];
            if (feature != NULL && feature[at] < 1) {
                value *= feature[at];
            }
            to[i * to_row + j] = accumulate ? to[i * to_row + j] + value : value;
        }
    }
}

/* G' from dy, y and the sums of the weights. */
static void output_gradient(int64_t rows, int64_t count, const tl_real *dy, const tl_real *y,
                            int64_t y_row, const tl_real *sums, int64_t heads, tl_real *g,
                            int64_t g_row) {
    for (int64_t i = 0; i < rows; i++) {
        const tl_real inverse = 1 / sums[i * heads];
        tl_real dot = 0;
        for (int64_t j = 0; j < count; j++) {
            dot += dy[i * y_row + j] * y[i * y_row + j];
            g[i * g_row + j] = dy[i * y_row + j] * inverse;
        }
        g[i * g_row + count] = -dot * inverse;
        memset(g + i * g_row + count + 1, 0, (size_t)(g_row - count - 1) * sizeof(tl_real));
    }
}

/* ------------------------------------------------------------------ one sample and head */

/* Where its rows begin, and how far apart they are. */
typedef struct head_view {
    int64_t keys, values, sums;   /* offsets of its first row */
    int64_t keys_row, values_row; /* distance between rows */
} head_view;

static head_view view_of(const tl_linear_attention_shape *s, int64_t index) {
    const int64_t sample = index / s->heads, head = index % s->heads;
    const int64_t keys_row = s->heads * s->key_channels, values_row = s->heads * s->value_channels;
    return (head_view){.keys = sample * s->length * keys_row + head * s->key_channels,
                       .values = sample * s->length * values_row + head * s->value_channels,
                       .sums = sample * s->length * s->heads + head,
                       .keys_row = keys_row,
                       .values_row = values_row};
}

static int64_t rows_from(const tl_linear_attention_shape *s, int64_t first) {
    return s->length - first < CHUNK ? s->length - first : CHUNK;
}

static void clear_state(const tl_linear_attention_shape *s, const chunk_scratch *c) {
    memset(c->state, 0, (size_t)(s->key_channels * c->E_row) * sizeof(tl_real));
}

static void forward_head(const tl_linear_attention_shape *s, int64_t index, const tl_real *q,
                         const tl_real *k, const tl_real *v, tl_real *y, tl_real *sums,
                         const chunk_scratch *c) {
    const head_view h = view_of(s, index);
    const int64_t D = s->key_channels, E = s->value_channels;
    clear_state(s, c);
    for (int64_t first = 0; first < s->length; first += CHUNK) {
        const int64_t rows = rows_from(s, first);
        const int64_t keys = h.keys + first * h.keys_row, values = h.values + first * h.values_row;
        features(rows, D, q + keys, h.keys_row, c->fq, c->D_row);
        features(rows, D, k + keys, h.keys_row, c->fk, c->D_row);
        values_and_one(rows, E, v + values, h.values_row, c->v, c->E_row);
        lower_triangle(rows, D, c->fq, c->fk, c->D_row, c->transposed, c->weights);
        multiply(rows, E + 1, rows, c->weights, CHUNK, 1, c->v, c->E_row, c->result, c->E_row,
                 false);
        multiply(rows, E + 1, D, c->fq, c->D_row, 1, c->state, c->E_row, c->result, c->E_row, true);
        multiply(D, E + 1, rows, c->fk, 1, c->D_row, c->v, c->E_row, c->state, c->E_row, true);
        for (int64_t i = 0; i < rows; i++) {
            const tl_real sum = c->result[i * c->E_row + E] + epsilon, inverse = 1 / sum;
            sums[h.sums + (first + i) * s->heads] = sum;
            for (int64_t j = 0; j < E; j++) {
                y[values + i * h.values_row + j] = c->result[i * c->E_row + j] * inverse;
            }
        }
    }
}

/* What both directions of backward need of a chunk: f(q), f(k), V', G'. */
static void load_chunk(const tl_linear_attention_shape *s, const head_view *h, int64_t first,
                       const tl_real *const tensors[6], const chunk_scratch *c) {
    const int64_t rows = rows_from(s, first);
    const int64_t keys = h->keys + first * h->keys_row, values = h->values + first * h->values_row;
    features(rows, s->key_channels, tensors[0] + keys, h->keys_row, c->fq, c->D_row);
    features(rows, s->key_channels, tensors[1] + keys, h->keys_row, c->fk, c->D_row);
    values_and_one(rows, s->value_channels, tensors[2] + values, h->values_row, c->v, c->E_row);
    output_gradient(rows, s->value_channels, tensors[5] + values, tensors[3] + values,
                    h->values_row, tensors[4] + h->sums + first * s->heads, s->heads, c->g,
                    c->E_row);
}

static void backward_queries(const tl_linear_attention_shape *s, const head_view *h,
                             const tl_real *const tensors[6],
                             const tl_linear_attention_gradients *gradients,
                             const chunk_scratch *c) {
    const int64_t D = s->key_channels, E1 = s->value_channels + 1;
    clear_state(s, c);
    for (int64_t first = 0; first < s->length; first += CHUNK) {
        const int64_t rows = rows_from(s, first);
        load_chunk(s, h, first, tensors, c);
        lower_triangle(rows, E1, c->g, c->v, c->E_row, c->transposed, c->dweights);
        multiply(rows, D, rows, c->dweights, CHUNK, 1, c->fk, c->D_row, c->result, c->D_row, false);
        tile_transpose(D, E1, c->state, c->E_row, c->state_t, c->D_row);
        multiply(rows, D, E1, c->g, c->E_row, 1, c->state_t, c->D_row, c->result, c->D_row, true);
        multiply(D, E1, rows, c->fk, 1, c->D_row, c->v, c->E_row, c->state, c->E_row, true);
        put(rows, D, c->result, c->fq, c->D_row, gradients->q + h->keys + first * h->keys_row,
            h->keys_row, gradients->accumulate_q);
    }
}

static void backward_keys_values(const tl_linear_attention_shape *s, const head_view *h,
                                 const tl_real *const tensors[6],
                                 const tl_linear_attention_gradients *gradients,
                                 const chunk_scratch *c) {
    const int64_t D = s->key_channels, E = s->value_channels;
    clear_state(s, c);
    for (int64_t first = (s->length - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
        const int64_t rows = rows_from(s, first);
        load_chunk(s, h, first, tensors, c);
        if (gradients->k != NULL) {
            lower_triangle(rows, E + 1, c->g, c->v, c->E_row, c->transposed, c->dweights);
            multiply(rows, D, rows, c->dweights, 1, CHUNK, c->fq, c->D_row, c->result, c->D_row,
                     false);
            tile_transpose(D, E + 1, c->state, c->E_row, c->state_t, c->D_row);
            multiply(rows, D, E + 1, c->v, c->E_row, 1, c->state_t, c->D_row, c->result, c->D_row,
                     true);
            put(rows, D, c->result, c->fk, c->D_row, gradients->k + h->keys + first * h->keys_row,
                h->keys_row, gradients->accumulate_k);
        }
        if (gradients->v != NULL) {
            lower_triangle(rows, D, c->fq, c->fk, c->D_row, c->transposed, c->weights);
            multiply(rows, E, rows, c->weights, 1, CHUNK, c->g, c->E_row, c->result, c->E_row,
                     false);
            multiply(rows, E, D, c->fk, c->D_row, 1, c->state, c->E_row, c->result, c->E_row, true);
            put(rows, E, c->result, NULL, c->E_row,
                gradients->v + h->values + first * h->values_row, h->values_row,
                gradients->accumulate_v);
        }
        multiply(D, E + 1, rows, c->fq, 1, c->D_row, c->g, c->E_row, c->state, c->E_row, true);
    }
}

/* ------------------------------------------------------------------ the whole */

static void forward(const tl_linear_attention_shape *shape, const tl_real *q, const tl_real *k,
                    const tl_real *v, tl_real *y, tl_real *sums, void *scratch, int threads) {
    const int64_t heads = shape->batch * shape->heads;
    const bool parallel =
        threads > 1 && tl_linear_attention_flops(shape, false) > TL_PARALLEL_MINIMUM;
#pragma omp parallel for num_threads(threads) schedule(static) if (parallel)
    for (int64_t index = 0; index < heads; index++) {
        const chunk_scratch c = thread_scratch(shape, scratch);
        forward_head(shape, index, q, k, v, y, sums, &c);
    }
}

static void backward(const tl_linear_attention_shape *shape, const tl_real *q, const tl_real *k,
                     const tl_real *v, const tl_real *y, const tl_real *sums, const tl_real *dy,
                     const tl_linear_attention_gradients *gradients, void *scratch, int threads) {
    const int64_t heads = shape->batch * shape->heads;
    const bool parallel =
        threads > 1 && tl_linear_attention_flops(shape, true) > TL_PARALLEL_MINIMUM;
    const tl_real *const tensors[6] = {q, k, v, y, sums, dy};
#pragma omp parallel for num_threads(threads) schedule(static) if (parallel)
    for (int64_t index = 0; index < heads; index++) {
        const chunk_scratch c = thread_scratch(shape, scratch);
        const head_view h = view_of(shape, index);
        if (gradients->q != NULL) {
            backward_queries(shape, &h, tensors, gradients, &c);
        }
        if (gradients->k != NULL || gradients->v != NULL) {
            backward_keys_values(shape, &h, tensors, gradients, &c);
        }
    }
}

const tl_linear_attention_kernels TL_PER_ISA(tl_linear_attention_kernels) = {
    .scratch_bytes = scratch_bytes,
    .forward = forward,
    .backward = backward,
};
