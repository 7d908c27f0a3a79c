/* k_attention_plan.h - what the efficient attention kernels will do for a shape: which products
 * are folded, how the work is cut, what is saved, how many FLOPs it takes. The same for every
 * instruction set and number of threads; kernels, operation and cost estimate all ask here.
 *
 * n positions, C channels, K key channels, V value channels, h heads, d = K/h, e = V/h; one
 * multiplication and addition count as 2 FLOPs, softmaxes are not counted.
 *
 * Two places can be folded, each by itself:
 *  - values: H = keys^T X (d x C a head), then G = H Wv^T + s bv^T, instead of values for every
 *    position and G = keys^T values;
 *  - output: M = G Wr^T (d x C a head), then queries M, instead of (queries G) Wr^T.
 * Forward and backward together, folding costs 6 n C K and a few K e C for each, and saves
 * 8 n C V + 6 n K e for the values and 6 n C V + 8 n K e for the output; the cheaper form wins.
 */
#ifndef TL_K_ATTENTION_PLAN_H
#define TL_K_ATTENTION_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include <tapeline/real.h>

typedef struct tl_attention_shape {
    int64_t batch, positions;                       /* N, n */
    int64_t channels, key_channels, value_channels; /* C, K, V */
    int64_t heads;                                  /* h divides K and V */
    bool scaling;                                   /* instead of the two softmaxes */
    bool reprojection, residual;
    double temperature; /* the logits of both softmaxes are divided by it */
} tl_attention_shape;

/* Positions in a tile: a multiple of every vector length and of the block heights. */
enum { TL_ATTENTION_TILE = 96 };

/* Samples are cut into pieces of positions so that there are about this many units of work. */
enum { TL_ATTENTION_UNITS = 32 };

/* The width of the output: C, or V without reprojection. */
static inline int64_t tl_attention_output_channels(const tl_attention_shape *s) {
    return s->reprojection ? s->channels : s->value_channels;
}

/* Under softmax with one key channel a head every query is 1 (k_attention_constant.h): queries are
 * not computed, and the output costs nothing per position. */
static inline bool tl_attention_constant_queries(const tl_attention_shape *s) {
    return !s->scaling && s->key_channels == s->heads;
}

static inline bool tl_attention_folds_values(const tl_attention_shape *s) {
    const double n = (double)s->positions, C = (double)s->channels, K = (double)s->key_channels;
    const double V = (double)s->value_channels, e = V / (double)s->heads;
    return n * 6 * C * K + 6 * K * e * C <= n * (8 * C * V + 6 * K * e);
}

static inline bool tl_attention_folds_output(const tl_attention_shape *s) {
    const double n = (double)s->positions, C = (double)s->channels, K = (double)s->key_channels;
    const double V = (double)s->value_channels, e = V / (double)s->heads;
    return s->reprojection && (tl_attention_constant_queries(s) ||
                               n * 6 * C * K + 8 * K * e * C <= n * (6 * C * V + 8 * K * e));
}

/* Few key channels, both places folded: with channels in the lanes of a vector most lanes would be
 * empty, so positions are put there (k_attention_narrow.h). `lanes`: of the instruction set. */
static inline bool tl_attention_is_narrow(const tl_attention_shape *s, int64_t lanes) {
    return 2 * s->key_channels <= lanes && tl_attention_folds_values(s) &&
           (tl_attention_folds_output(s) || tl_attention_constant_queries(s));
}

/* Saved for backward, per sample: H [K, C] where values are folded, G [K, e], and per key channel
 * the maximum of the logits and the sum of their exponentials (scaling: the sum of the keys). */
static inline int64_t tl_attention_saved_per_sample(const tl_attention_shape *s) {
    const int64_t context = s->key_channels * (s->value_channels / s->heads);
    const int64_t folded =
        tl_attention_folds_values(s) ? s->key_channels * s->channels : (int64_t)0;
    return folded + context + 2 * s->key_channels;
}

/* FLOPs of the definition: projections, context, output and reprojection per position; backward
 * twice that. */
static inline double tl_attention_algorithm_flops(const tl_attention_shape *s) {
    const double n = (double)s->positions * (double)s->batch, C = (double)s->channels;
    const double K = (double)s->key_channels, V = (double)s->value_channels;
    const double e = V / (double)s->heads;
    return n * (4 * C * K + 2 * C * V + 4 * K * e + (s->reprojection ? 2 * C * V : 0));
}

static inline double tl_attention_forward_flops(const tl_attention_shape *s) {
    const double n = (double)s->positions, C = (double)s->channels, K = (double)s->key_channels;
    const double V = (double)s->value_channels, e = V / (double)s->heads;
    const bool constant = tl_attention_constant_queries(s);
    double flops = n * (constant ? 2 : 4) * C * K;
    flops +=
        tl_attention_folds_values(s) ? n * 2 * C * K + 2 * K * e * C : n * (2 * C * V + 2 * K * e);
    if (tl_attention_folds_output(s)) {
        flops += (constant ? 0 : n * 2 * C * K) + 2 * K * e * C;
    } else if (!constant) {
        flops += n * (2 * K * e + (s->reprojection ? 2 * C * V : 0));
    }
    return (double)s->batch * flops;
}

/* Queries and keys are computed again; every gradient is wanted. */
static inline double tl_attention_backward_flops(const tl_attention_shape *s) {
    const double n = (double)s->positions, C = (double)s->channels, K = (double)s->key_channels;
    const double V = (double)s->value_channels, e = V / (double)s->heads;
    const bool constant = tl_attention_constant_queries(s);
    /* queries and keys again, their part of dx, their weights */
    double flops = n * (constant ? 6 : 12) * C * K;
    flops +=
        tl_attention_folds_values(s) ? n * 4 * C * K + 4 * K * e * C : n * (6 * C * V + 4 * K * e);
    if (tl_attention_folds_output(s)) {
        flops += (constant ? 0 : n * 4 * C * K) + 6 * K * e * C;
    } else if (!constant) {
        flops += n * (4 * K * e + (s->reprojection ? 4 * C * V + 2 * K * e : 0));
    }
    return (double)s->batch * flops;
}

/* How the work is cut: each sample into `pieces` runs of tiles; a unit is one piece of one sample.
 * Units are worked in `groups`, each with its own sums of parameter gradients. With several pieces
 * every unit is a group, with one piece a group is a run of samples. */
typedef struct tl_attention_cut {
    int64_t tiles;  /* of a sample */
    int64_t pieces; /* of a sample */
    int64_t units;
    int64_t groups;
} tl_attention_cut;

static inline tl_attention_cut tl_attention_cut_of(const tl_attention_shape *s) {
    tl_attention_cut cut = {.tiles = (s->positions + TL_ATTENTION_TILE - 1) / TL_ATTENTION_TILE,
                            .pieces = 1};
    if (s->batch < TL_ATTENTION_UNITS) {
        const int64_t wanted = (TL_ATTENTION_UNITS + s->batch - 1) / s->batch;
        const int64_t possible = cut.tiles / 2;
        cut.pieces = wanted < possible ? wanted : possible;
        cut.pieces = cut.pieces < 1 ? 1 : cut.pieces;
    }
    cut.units = s->batch * cut.pieces;
    cut.groups = cut.units;
    if (cut.pieces == 1 && cut.groups > TL_ATTENTION_UNITS) {
        cut.groups = TL_ATTENTION_UNITS;
    }
    return cut;
}

#endif
