/* k_channel_norm.c - see k_channel_norm.h; channel_rows.h says how rows are walked.
 *
 * Passes that write go over groups of four wide rows, vector by vector: coefficients are loaded
 * once for four rows, memory is read in few sequential streams. Passes that sum do so with groups
 * of eight, the sums of up to 128 wide rows in an array in the first-level cache, which is then
 * added to the piece's sums in double. Pieces are merged in their order.
 */
#include "kernels/kernels.h"

#include "kernels/channel_rows.h"
#include "kernels/shares.h"

enum { APPLY_GROUP = 4, SUM_GROUP = 8, COEFFICIENTS = 5 };

static channel_rows rows_of(tl_channel_norm_shape shape) {
    return channel_rows_of(shape.sets, shape.rows, shape.channels);
}

/* Of the coefficients repeated for a wide row, if that is more than a row. */
static size_t repeated_bytes(const channel_rows *r) {
    return r->repeat == 1 ? 0 : (size_t)(r->sets * r->width) * COEFFICIENTS * sizeof(tl_real);
}

static size_t scratch_bytes(tl_channel_norm_shape shape) {
    const channel_rows r = rows_of(shape);
    return repeated_bytes(&r) + (size_t)(r.sets * r.pieces) * channel_piece_bytes(&r);
}

/* The repeated coefficient arrays lie in front of the pieces; this one is number `index`. */
static const tl_real *repeat_coefficient(const channel_rows *r, const tl_real *values,
                                         void *scratch, int index) {
    return channel_rows_repeat(r, values, (tl_real *)scratch + (int64_t)index * r->sets * r->width);
}

/* The same once it has been repeated. */
static const tl_real *repeated_coefficient(const channel_rows *r, const tl_real *values,
                                           const void *scratch, int index) {
    return r->repeat == 1 || values == NULL
               ? values
               : (const tl_real *)scratch + (int64_t)index * r->sets * r->width;
}

static void *pieces_behind_coefficients(const channel_rows *r, void *scratch) {
    return (char *)scratch + repeated_bytes(r);
}

/* ------------------------------------------------------------------ moments */

TL_INLINE void add_shifted_squares(int rows, int64_t width, const tl_real *x, channel_piece p) {
    for (int64_t i = 0; i < width; i += TL_LANES) {
        const tl_v shift = tl_v_load(p.shift + i);
        tl_v sum = tl_v_load(p.block_first + i);
        tl_v squares = tl_v_load(p.block_second + i);
        for (int row = 0; row < rows; row++) {
            const tl_v d = tl_v_load(x + row * width + i) - shift;
            sum += d;
            squares += d * d;
        }
        tl_v_store(p.block_first + i, sum);
        tl_v_store(p.block_second + i, squares);
    }
}

/* Adds `count` values of mean m and squared deviations s to `before` values with (mean, squares):
 * mean += (m - mean) count / (before + count),
 * squares += s + (m - mean)^2 before count / (before + count). */
typedef struct merge_weights {
    double mean;
    double squares;
} merge_weights;

static merge_weights weights_of(int64_t before, int64_t count) {
    const double share = (double)count / (double)(before + count);
    return (merge_weights){.mean = share, .squares = share * (double)before};
}

/* The block's sums go into the piece's mean and squares; its mean is the next block's shift. */
static void merge_block(int64_t width, int64_t before, int64_t count, channel_piece p) {
    const merge_weights weight = weights_of(before, count);
    const double inverse_count = 1.0 / (double)count;
    for (int64_t i = 0; i < width; i++) {
        const double sum = (double)p.block_first[i];
        const double mean = (double)p.shift[i] + sum * inverse_count;
        const double squares = (double)p.block_second[i] - sum * sum * inverse_count;
        const double delta = mean - p.first[i];
        p.first[i] += delta * weight.mean;
        p.second[i] += (squares > 0 ? squares : 0) + delta * delta * weight.squares;
        p.shift[i] = (tl_real)mean;
    }
}

static void piece_moments(int64_t width, int64_t count, const tl_real *x, channel_piece p) {
    const size_t bytes = (size_t)width * sizeof(tl_real);
    memset(p.first, 0, (size_t)width * sizeof(double));
    memset(p.second, 0, (size_t)width * sizeof(double));
    /* the first shift: the mean of the first group. Squares about it are at most
     * (1 + CHANNEL_ROWS_BLOCK / SUM_GROUP) times those about the block's own mean. */
    const int64_t sample = channel_rows_minimum(count, SUM_GROUP);
    memset(p.shift, 0, bytes);
    for (int64_t row = 0; row < sample; row++) {
        for (int64_t i = 0; i < width; i++) {
            p.shift[i] += x[row * width + i] / (tl_real)sample;
        }
    }
    for (int64_t begin = 0; begin < count; begin += CHANNEL_ROWS_BLOCK) {
        const int64_t end = channel_rows_minimum(begin + CHANNEL_ROWS_BLOCK, count);
        memset(p.block_first, 0, bytes);
        memset(p.block_second, 0, bytes);
        int64_t row = begin;
        for (; row + SUM_GROUP <= end; row += SUM_GROUP) {
            add_shifted_squares(SUM_GROUP, width, x + row * width, p);
        }
        for (; row < end; row++) {
            add_shifted_squares(1, width, x + row * width, p);
        }
        merge_block(width, begin, end - begin, p);
    }
}

/* One set's mean and variance from its pieces (merged into the first) and its tail. */
static void merge_moments(const channel_rows *r, const tl_real *tail, void *scratch, int64_t set,
                          double *mean, double *variance) {
    const channel_piece total = channel_piece_at(r, scratch, set * r->pieces);
    for (int64_t piece = 1; piece < r->pieces; piece++) {
        const channel_piece p = channel_piece_at(r, scratch, set * r->pieces + piece);
        const int64_t before = piece * r->piece_rows;
        const int64_t count = channel_rows_minimum(r->piece_rows, r->wide - before);
        const merge_weights weight = weights_of(before, count);
        for (int64_t i = 0; i < r->width; i++) {
            const double delta = p.first[i] - total.first[i];
            total.first[i] += delta * weight.mean;
            total.second[i] += p.second[i] + delta * delta * weight.squares;
        }
    }
    for (int64_t c = 0; c < r->channels; c++) {
        double m = 0;
        double squares = 0;
        int64_t before = 0;
        for (int64_t i = c; r->wide > 0 && i < r->width; i += r->channels) {
            const merge_weights weight = weights_of(before, r->wide);
            const double delta = total.first[i] - m;
            m += delta * weight.mean;
            squares += total.second[i] + delta * delta * weight.squares;
            before += r->wide;
        }
        for (int64_t i = c; i < r->tail; i += r->channels) {
            const merge_weights weight = weights_of(before, 1);
            const double delta = (double)tail[i] - m;
            m += delta * weight.mean;
            squares += delta * delta * weight.squares;
            before += 1;
        }
        mean[c] = m;
        variance[c] = squares / (double)r->rows;
    }
}

static void moments(tl_channel_norm_shape shape, const tl_real *x, double *mean, double *variance,
                    void *scratch, int threads) {
    const channel_rows r = rows_of(shape);
    const int64_t set_values = r.rows * r.channels;
    const int64_t tasks = r.sets * r.pieces;
    const int team = channel_rows_threads(&r, threads);
    tl_shares shares = tl_shares_of(tasks, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t task; tl_shares_take(&shares, &task);) {
        const int64_t first = task % r.pieces * r.piece_rows;
        piece_moments(r.width, channel_rows_minimum(r.piece_rows, r.wide - first),
                      x + task / r.pieces * set_values + first * r.width,
                      channel_piece_at(&r, scratch, task));
    }
    for (int64_t set = 0; set < r.sets; set++) {
        merge_moments(&r, x + set * set_values + r.wide * r.width, scratch, set,
                      mean + set * r.channels, variance + set * r.channels);
    }
}

/* ------------------------------------------------------------------ apply */

typedef struct apply_arrays {
    const tl_real *x;
    const tl_real *residual;
    const tl_real *center;
    const tl_real *scale;
    const tl_real *offset;
    tl_real *y;
} apply_arrays;

TL_INLINE tl_v apply_vector(tl_v x, tl_v residual, tl_v center, tl_v scale, tl_v offset,
                            bool relu) {
    const tl_v z = (x - center) * scale + offset + residual;
    return relu ? tl_v_max(tl_v_zero(), z) : z;
}

/* `rows` rows of `width` values; only a single row (a tail) may end within a vector. */
TL_INLINE void apply_group(int rows, int64_t width, apply_arrays a, bool relu, bool add) {
    int64_t i = 0;
    for (; i + TL_LANES <= width; i += TL_LANES) {
        const tl_v center = tl_v_load(a.center + i);
        const tl_v scale = tl_v_load(a.scale + i);
        const tl_v offset = tl_v_load(a.offset + i);
        for (int row = 0; row < rows; row++) {
            const int64_t at = row * width + i;
            const tl_v residual = add ? tl_v_load(a.residual + at) : tl_v_zero();
            tl_v_store(a.y + at,
                       apply_vector(tl_v_load(a.x + at), residual, center, scale, offset, relu));
        }
    }
    if (rows == 1 && i < width) {
        const int64_t count = width - i;
        const tl_v residual = add ? tl_v_load_partial(a.residual + i, count) : tl_v_zero();
        tl_v_store_partial(a.y + i,
                           apply_vector(tl_v_load_partial(a.x + i, count), residual,
                                        tl_v_load_partial(a.center + i, count),
                                        tl_v_load_partial(a.scale + i, count),
                                        tl_v_load_partial(a.offset + i, count), relu),
                           count);
    }
}

static apply_arrays apply_at(apply_arrays a, int64_t offset) {
    a.x += offset;
    a.y += offset;
    a.residual = a.residual == NULL ? NULL : a.residual + offset;
    return a;
}

TL_INLINE void apply_groups(int64_t count, int64_t width, apply_arrays a, bool relu, bool add) {
    int64_t row = 0;
    for (; row + APPLY_GROUP <= count; row += APPLY_GROUP) {
        apply_group(APPLY_GROUP, width, apply_at(a, row * width), relu, add);
    }
    for (; row < count; row++) {
        apply_group(1, width, apply_at(a, row * width), relu, add);
    }
}

static void apply_range(int64_t count, int64_t width, apply_arrays a, bool relu) {
    if (relu && a.residual != NULL) {
        apply_groups(count, width, a, true, true);
    } else if (relu) {
        apply_groups(count, width, a, true, false);
    } else if (a.residual != NULL) {
        apply_groups(count, width, a, false, true);
    } else {
        apply_groups(count, width, a, false, false);
    }
}

static void apply(tl_channel_norm_shape shape, const tl_real *x, const tl_real *residual,
                  tl_channel_affine affine, bool relu, tl_real *y, void *scratch, int threads) {
    const channel_rows r = rows_of(shape);
    const int64_t set_values = r.rows * r.channels;
    const int64_t tasks = r.sets * (r.pieces + 1); /* the last of each set is its tail */
    const apply_arrays all = {.x = x,
                              .residual = residual,
                              .center = repeat_coefficient(&r, affine.center, scratch, 0),
                              .scale = repeat_coefficient(&r, affine.scale, scratch, 1),
                              .offset = repeat_coefficient(&r, affine.offset, scratch, 2),
                              .y = y};
    const int team = channel_rows_threads(&r, threads);
    tl_shares shares = tl_shares_of(tasks, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t task; tl_shares_take(&shares, &task);) {
        const int64_t set = task / (r.pieces + 1);
        const int64_t piece = task % (r.pieces + 1);
        const int64_t first = channel_rows_minimum(piece * r.piece_rows, r.wide);
        apply_arrays a = apply_at(all, set * set_values + first * r.width);
        a.center += set * r.width;
        a.scale += set * r.width;
        a.offset += set * r.width;
        if (piece < r.pieces) {
            apply_range(channel_rows_minimum(r.piece_rows, r.wide - first), r.width, a, relu);
        } else if (r.tail > 0) {
            apply_range(1, r.tail, a, relu);
        }
    }
}

/* ------------------------------------------------------------------ backward */

/* The arrays of tl_channel_norm_gradient with their coefficients repeated. */
typedef struct gradient_arrays {
    const tl_real *dy;
    const tl_real *x;
    const tl_real *y;
    const tl_real *center;
    const tl_real *scale;
    const tl_real *offset;
    const tl_real *slope;
    const tl_real *constant;
    tl_real *masked;
    tl_real *dx;
    tl_real *dresidual;
} gradient_arrays;

static gradient_arrays gradient_of(const channel_rows *r, const tl_channel_norm_gradient *gradient,
                                   void *scratch) {
    return (gradient_arrays){.dy = gradient->dy,
                             .x = gradient->x,
                             .y =
                                 gradient->mask == TL_CHANNEL_NORM_FROM_OUTPUT ? gradient->y : NULL,
                             .center = repeat_coefficient(r, gradient->affine.center, scratch, 0),
                             .scale = repeat_coefficient(r, gradient->affine.scale, scratch, 1),
                             .offset = repeat_coefficient(r, gradient->affine.offset, scratch, 2)};
}

static gradient_arrays gradient_at(gradient_arrays a, int64_t offset) {
    a.dy += offset;
    a.x += offset;
    a.y = a.y == NULL ? NULL : a.y + offset;
    a.masked = a.masked == NULL ? NULL : a.masked + offset;
    a.dx = a.dx == NULL ? NULL : a.dx + offset;
    a.dresidual = a.dresidual == NULL ? NULL : a.dresidual + offset;
    return a;
}

/* Moves to the coefficients of one set. */
static gradient_arrays gradient_of_set(gradient_arrays a, int64_t offset) {
    a.center += offset;
    a.scale += offset;
    a.offset += offset;
    a.slope = a.slope == NULL ? NULL : a.slope + offset;
    a.constant = a.constant == NULL ? NULL : a.constant + offset;
    return a;
}

TL_INLINE void add_gradient(int rows, int64_t width, gradient_arrays a, channel_piece p,
                            tl_channel_norm_mask mask, bool store) {
    for (int64_t i = 0; i < width; i += TL_LANES) {
        const tl_v center = tl_v_load(a.center + i);
        const tl_v scale = tl_v_load(a.scale + i);
        const tl_v offset = tl_v_load(a.offset + i);
        tl_v sum = tl_v_load(p.block_first + i);
        tl_v sum_centered = tl_v_load(p.block_second + i);
        for (int row = 0; row < rows; row++) {
            const int64_t at = row * width + i;
            const tl_v centered = tl_v_load(a.x + at) - center;
            tl_v g = tl_v_load(a.dy + at);
            if (mask == TL_CHANNEL_NORM_RECOMPUTE) {
                g = tl_v_select(centered * scale + offset > 0, g, tl_v_zero());
            } else if (mask == TL_CHANNEL_NORM_FROM_OUTPUT) {
                g = tl_v_select(tl_v_load(a.y + at) > 0, g, tl_v_zero());
            }
            if (store) {
                tl_v_store(a.masked + at, g);
            }
            sum += g;
            sum_centered += g * centered;
        }
        tl_v_store(p.block_first + i, sum);
        tl_v_store(p.block_second + i, sum_centered);
    }
}

TL_INLINE void piece_gradient(int64_t count, int64_t width, gradient_arrays a, channel_piece p,
                              tl_channel_norm_mask mask, bool store) {
    const size_t bytes = (size_t)width * sizeof(tl_real);
    memset(p.first, 0, (size_t)width * sizeof(double));
    memset(p.second, 0, (size_t)width * sizeof(double));
    for (int64_t begin = 0; begin < count; begin += CHANNEL_ROWS_BLOCK) {
        const int64_t end = channel_rows_minimum(begin + CHANNEL_ROWS_BLOCK, count);
        memset(p.block_first, 0, bytes);
        memset(p.block_second, 0, bytes);
        int64_t row = begin;
        for (; row + SUM_GROUP <= end; row += SUM_GROUP) {
            add_gradient(SUM_GROUP, width, gradient_at(a, row * width), p, mask, store);
        }
        for (; row < end; row++) {
            add_gradient(1, width, gradient_at(a, row * width), p, mask, store);
        }
        for (int64_t i = 0; i < width; i++) {
            p.first[i] += (double)p.block_first[i];
            p.second[i] += (double)p.block_second[i];
        }
    }
}

static void piece_gradient_masked(int64_t count, int64_t width, gradient_arrays a, channel_piece p,
                                  tl_channel_norm_mask mask) {
    if (mask == TL_CHANNEL_NORM_RECOMPUTE) {
        piece_gradient(count, width, a, p, TL_CHANNEL_NORM_RECOMPUTE, false);
    } else if (mask == TL_CHANNEL_NORM_FROM_OUTPUT && a.masked != NULL) {
        piece_gradient(count, width, a, p, TL_CHANNEL_NORM_FROM_OUTPUT, true);
    } else if (mask == TL_CHANNEL_NORM_FROM_OUTPUT) {
        piece_gradient(count, width, a, p, TL_CHANNEL_NORM_FROM_OUTPUT, false);
    } else {
        piece_gradient(count, width, a, p, TL_CHANNEL_NORM_NO_MASK, false);
    }
}

static void add_piece_sums(const channel_rows *r, channel_piece p, double *sum,
                           double *sum_centered) {
    for (int64_t i = 0; i < r->width; i += r->channels) {
        for (int64_t c = 0; c < r->channels; c++) {
            sum[c] += p.first[i + c];
            sum_centered[c] += p.second[i + c];
        }
    }
}

/* `tail` values that fill no wide row, from where `a` points. */
static void add_tail_sums(const channel_rows *r, int64_t tail, gradient_arrays a,
                          tl_channel_norm_mask mask, double *sum, double *sum_centered) {
    for (int64_t i = 0; i < tail; i++) {
        const tl_real centered = a.x[i] - a.center[i];
        const bool kept =
            mask == TL_CHANNEL_NORM_NO_MASK ||
            (mask == TL_CHANNEL_NORM_RECOMPUTE ? centered * a.scale[i] + a.offset[i] > 0
                                               : a.y[i] > 0);
        const tl_real g = kept ? a.dy[i] : 0;
        if (a.masked != NULL) {
            a.masked[i] = g;
        }
        sum[i % r->channels] += (double)g;
        sum_centered[i % r->channels] += (double)g * (double)centered;
    }
}

/* One set's sums from its pieces and its tail; `a` points at the tail. */
static void merge_gradient(const channel_rows *r, gradient_arrays a, tl_channel_norm_mask mask,
                           void *pieces, int64_t set, double *sum, double *sum_centered) {
    memset(sum, 0, (size_t)r->channels * sizeof *sum);
    memset(sum_centered, 0, (size_t)r->channels * sizeof *sum_centered);
    for (int64_t piece = 0; piece < r->pieces; piece++) {
        add_piece_sums(r, channel_piece_at(r, pieces, set * r->pieces + piece), sum, sum_centered);
    }
    add_tail_sums(r, r->tail, a, mask, sum, sum_centered);
}

static void gradient_sums(tl_channel_norm_shape shape, const tl_channel_norm_gradient *gradient,
                          double *sum, double *sum_centered, tl_real *masked, void *scratch,
                          int threads) {
    const channel_rows r = rows_of(shape);
    const int64_t set_values = r.rows * r.channels;
    const int64_t tasks = r.sets * r.pieces;
    gradient_arrays all = gradient_of(&r, gradient, scratch);
    all.masked = masked;
    void *pieces = pieces_behind_coefficients(&r, scratch);
    const int team = channel_rows_threads(&r, threads);
    tl_shares shares = tl_shares_of(tasks, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t task; tl_shares_take(&shares, &task);) {
        const int64_t set = task / r.pieces;
        const int64_t first = task % r.pieces * r.piece_rows;
        const gradient_arrays a = gradient_of_set(all, set * r.width);
        piece_gradient_masked(channel_rows_minimum(r.piece_rows, r.wide - first), r.width,
                              gradient_at(a, set * set_values + first * r.width),
                              channel_piece_at(&r, pieces, task), gradient->mask);
    }
    for (int64_t set = 0; set < r.sets; set++) {
        const gradient_arrays a = gradient_of_set(all, set * r.width);
        merge_gradient(&r, gradient_at(a, set * set_values + r.wide * r.width), gradient->mask,
                       pieces, set, sum + set * r.channels, sum_centered + set * r.channels);
    }
}

/* The coefficients of one vector of channels; those not needed stay zero. */
typedef struct gradient_coefficients {
    tl_v center;
    tl_v scale;
    tl_v offset;
    tl_v slope;
    tl_v constant;
} gradient_coefficients;

TL_INLINE gradient_coefficients load_coefficients(const gradient_arrays *a, int64_t i,
                                                  int64_t count, bool statistics) {
    gradient_coefficients c = {.center = tl_v_load_some(a->center + i, count),
                               .scale = tl_v_load_some(a->scale + i, count),
                               .offset = tl_v_load_some(a->offset + i, count)};
    if (statistics) {
        c.slope = tl_v_load_some(a->slope + i, count);
        c.constant = tl_v_load_some(a->constant + i, count);
    }
    return c;
}

/* Which outputs are wanted and how; a value, so that stores cannot alias it. */
typedef struct gradient_wants {
    bool dx;
    bool accumulate_dx;
    bool dresidual;
    bool accumulate_dresidual;
} gradient_wants;

TL_INLINE void gradient_vector(const gradient_arrays *a, int64_t at, int64_t count,
                               gradient_coefficients c, gradient_wants wants,
                               tl_channel_norm_mask mask, bool statistics) {
    tl_v g = tl_v_load_some(a->dy + at, count);
    tl_v centered = tl_v_zero();
    if (mask == TL_CHANNEL_NORM_RECOMPUTE || statistics) {
        centered = tl_v_load_some(a->x + at, count) - c.center;
    }
    if (mask == TL_CHANNEL_NORM_RECOMPUTE) {
        g = tl_v_select(centered * c.scale + c.offset > 0, g, tl_v_zero());
    } else if (mask == TL_CHANNEL_NORM_FROM_OUTPUT) {
        g = tl_v_select(tl_v_load_some(a->y + at, count) > 0, g, tl_v_zero());
    }
    if (wants.dx) {
        tl_v dx = c.scale * g;
        if (statistics) {
            dx += c.slope * centered + c.constant;
        }
        if (wants.accumulate_dx) {
            dx += tl_v_load_some(a->dx + at, count);
        }
        tl_v_store_some(a->dx + at, dx, count);
    }
    if (wants.dresidual) {
        if (wants.accumulate_dresidual) {
            g += tl_v_load_some(a->dresidual + at, count);
        }
        tl_v_store_some(a->dresidual + at, g, count);
    }
}

TL_INLINE void gradient_group(int rows, int64_t width, gradient_arrays a, gradient_wants wants,
                              tl_channel_norm_mask mask, bool statistics) {
    int64_t i = 0;
    for (; i + TL_LANES <= width; i += TL_LANES) {
        const gradient_coefficients c = load_coefficients(&a, i, TL_LANES, statistics);
        for (int row = 0; row < rows; row++) {
            gradient_vector(&a, row * width + i, TL_LANES, c, wants, mask, statistics);
        }
    }
    if (rows == 1 && i < width) {
        const gradient_coefficients c = load_coefficients(&a, i, width - i, statistics);
        gradient_vector(&a, i, width - i, c, wants, mask, statistics);
    }
}

TL_INLINE void gradient_groups(int64_t count, int64_t width, gradient_arrays a,
                               gradient_wants wants, tl_channel_norm_mask mask, bool statistics) {
    int64_t row = 0;
    for (; row + APPLY_GROUP <= count; row += APPLY_GROUP) {
        gradient_group(APPLY_GROUP, width, gradient_at(a, row * width), wants, mask, statistics);
    }
    for (; row < count; row++) {
        gradient_group(1, width, gradient_at(a, row * width), wants, mask, statistics);
    }
}

/* Compiles the loops once for each mask, with and without statistics. */
static void gradient_range(int64_t count, int64_t width, gradient_arrays a, gradient_wants wants,
                           tl_channel_norm_mask mask) {
    const bool statistics = a.slope != NULL;
    if (mask == TL_CHANNEL_NORM_RECOMPUTE && statistics) {
        gradient_groups(count, width, a, wants, TL_CHANNEL_NORM_RECOMPUTE, true);
    } else if (mask == TL_CHANNEL_NORM_RECOMPUTE) {
        gradient_groups(count, width, a, wants, TL_CHANNEL_NORM_RECOMPUTE, false);
    } else if (mask == TL_CHANNEL_NORM_FROM_OUTPUT && statistics) {
        gradient_groups(count, width, a, wants, TL_CHANNEL_NORM_FROM_OUTPUT, true);
    } else if (mask == TL_CHANNEL_NORM_FROM_OUTPUT) {
        gradient_groups(count, width, a, wants, TL_CHANNEL_NORM_FROM_OUTPUT, false);
    } else if (statistics) {
        gradient_groups(count, width, a, wants, TL_CHANNEL_NORM_NO_MASK, true);
    } else {
        gradient_groups(count, width, a, wants, TL_CHANNEL_NORM_NO_MASK, false);
    }
}

static void gradient_apply(tl_channel_norm_shape shape, const tl_channel_norm_gradient *gradient,
                           const tl_channel_norm_gradient_out *out, void *scratch, int threads) {
    const channel_rows r = rows_of(shape);
    const int64_t set_values = r.rows * r.channels;
    const int64_t tasks = r.sets * (r.pieces + 1); /* the last of each set is its tail */
    const gradient_wants wants = {.dx = out->dx != NULL,
                                  .accumulate_dx = out->accumulate_dx,
                                  .dresidual = out->dresidual != NULL,
                                  .accumulate_dresidual = out->accumulate_dresidual};
    gradient_arrays all = gradient_of(&r, gradient, scratch);
    all.slope = repeat_coefficient(&r, out->slope, scratch, 3);
    all.constant = repeat_coefficient(&r, out->constant, scratch, 4);
    all.dx = out->dx;
    all.dresidual = out->dresidual;
    const int team = channel_rows_threads(&r, threads);
    tl_shares shares = tl_shares_of(tasks, team);
#pragma omp parallel num_threads(team) if (team > 1)
    for (int64_t task; tl_shares_take(&shares, &task);) {
        const int64_t set = task / (r.pieces + 1);
        const int64_t piece = task % (r.pieces + 1);
        const int64_t first = channel_rows_minimum(piece * r.piece_rows, r.wide);
        const gradient_arrays a =
            gradient_at(gradient_of_set(all, set * r.width), set * set_values + first * r.width);
        if (piece < r.pieces) {
            gradient_range(channel_rows_minimum(r.piece_rows, r.wide - first), r.width, a, wants,
                           gradient->mask);
        } else if (r.tail > 0) {
            gradient_range(1, r.tail, a, wants, gradient->mask);
        }
    }
}

/* ------------------------------------------------------------------ some rows at a time */

static size_t spread_bytes(tl_channel_norm_shape shape) {
    const channel_rows r = rows_of(shape);
    return repeated_bytes(&r);
}

static void spread(tl_channel_norm_shape shape, tl_channel_affine affine, const tl_real *slope,
                   const tl_real *constant, void *spread) {
    const channel_rows r = rows_of(shape);
    const tl_real *values[COEFFICIENTS] = {affine.center, affine.scale, affine.offset, slope,
                                           constant};
    for (int i = 0; i < COEFFICIENTS; i++) {
        (void)repeat_coefficient(&r, values[i], spread, i);
    }
}

static void apply_rows(tl_channel_norm_shape shape, const tl_real *x, const tl_real *residual,
                       tl_channel_affine affine, bool relu, const void *spread, int64_t first,
                       int64_t count, tl_real *y) {
    const channel_rows r = rows_of(shape);
    const apply_arrays a = {.x = x + first * r.channels,
                            .residual = residual == NULL ? NULL : residual + first * r.channels,
                            .center = repeated_coefficient(&r, affine.center, spread, 0),
                            .scale = repeated_coefficient(&r, affine.scale, spread, 1),
                            .offset = repeated_coefficient(&r, affine.offset, spread, 2),
                            .y = y};
    const int64_t wide = count / r.repeat;
    const int64_t tail = (count - wide * r.repeat) * r.channels;
    apply_range(wide, r.width, a, relu);
    if (tail > 0) {
        apply_range(1, tail, apply_at(a, wide * r.width), relu);
    }
}

static gradient_arrays spread_gradient(const channel_rows *r,
                                       const tl_channel_norm_gradient *gradient, const void *spread,
                                       int64_t first) {
    const int64_t at = first * r->channels;
    return (gradient_arrays){.dy = gradient->dy + at,
                             .x = gradient->x + at,
                             .y = gradient->mask == TL_CHANNEL_NORM_FROM_OUTPUT ? gradient->y + at
                                                                                : NULL,
                             .center = repeated_coefficient(r, gradient->affine.center, spread, 0),
                             .scale = repeated_coefficient(r, gradient->affine.scale, spread, 1),
                             .offset = repeated_coefficient(r, gradient->affine.offset, spread, 2)};
}

static size_t row_sums_bytes(tl_channel_norm_shape shape) {
    const channel_rows r = rows_of(shape);
    return channel_piece_bytes(&r);
}

static void gradient_row_sums(tl_channel_norm_shape shape, const tl_channel_norm_gradient *gradient,
                              const void *spread, int64_t first, int64_t count, tl_real *masked,
                              double *sums, void *room) {
    const channel_rows r = rows_of(shape);
    gradient_arrays a = spread_gradient(&r, gradient, spread, first);
    a.masked = masked == NULL ? NULL : masked + first * r.channels;
    const int64_t wide = count / r.repeat;
    const channel_piece piece = channel_piece_at(&r, room, 0);
    piece_gradient_masked(wide, r.width, a, piece, gradient->mask);
    memset(sums, 0, (size_t)(2 * r.channels) * sizeof *sums);
    add_piece_sums(&r, piece, sums, sums + r.channels);
    add_tail_sums(&r, (count - wide * r.repeat) * r.channels, gradient_at(a, wide * r.width),
                  gradient->mask, sums, sums + r.channels);
}

static void gradient_rows(tl_channel_norm_shape shape, const tl_channel_norm_gradient *gradient,
                          const tl_real *slope, const tl_real *constant, const void *spread,
                          int64_t first, int64_t count, tl_real *dx) {
    const channel_rows r = rows_of(shape);
    gradient_arrays a = spread_gradient(&r, gradient, spread, first);
    a.slope = repeated_coefficient(&r, slope, spread, 3);
    a.constant = repeated_coefficient(&r, constant, spread, 4);
    a.dx = dx;
    const gradient_wants wants = {.dx = true};
    const int64_t wide = count / r.repeat;
    const int64_t tail = (count - wide * r.repeat) * r.channels;
    gradient_range(wide, r.width, a, wants, gradient->mask);
    if (tail > 0) {
        gradient_range(1, tail, gradient_at(a, wide * r.width), wants, gradient->mask);
    }
}

const tl_channel_norm_kernels TL_PER_ISA(tl_channel_norm_kernels) = {
    .scratch_bytes = scratch_bytes,
    .moments = moments,
    .apply = apply,
    .gradient_sums = gradient_sums,
    .gradient_apply = gradient_apply,
    .spread_bytes = spread_bytes,
    .spread = spread,
    .apply_rows = apply_rows,
    .row_sums_bytes = row_sums_bytes,
    .gradient_row_sums = gradient_row_sums,
    .gradient_rows = gradient_rows,
};
