/* k_efficient_attention_backward.c - backward of efficient attention.
 *
 * Nothing per position was saved: queries and keys are computed again, tile by tile, in two passes
 * over the positions of a sample.
 *
 *   1. queries: forward: Y = X + queries M + br, so
 *                   dM += queries^T dY,   dqueries = dY M^T,   dX = dY,   dbr += dY;
 *               softmax over the channels a of a head: dlogit = p (dp - sum over a of p dp);
 *               logit = X Wq^T + bq: dWq += dlogit^T X, dbq += dlogit, dX += dlogit Wq.
 *      context: forward: M = G Wr^T, G = H Wv^T + s bv^T, so
 *                   dG = dM Wr, dWr += dM^T G, dH = dG Wv, dWv += dG^T H, dbv += s^T dG.
 *   2. keys:    forward: H = keys^T X, so dkeys = X dH^T, dX += keys dH;
 *               softmax over the positions i: dlogit = p (dp - sum over i of p dp), and that sum is
 *               <dH, H> per key channel: it needs no pass of its own, and what bv adds to dp is the
 *               same for all positions and cancels; dWk += dlogit^T X, dX += dlogit Wk. The sum of
 *               dlogit over the positions is zero: so is the gradient of the key bias.
 *      Under scaling keys are linear: dkeys = X dH^T + dG bv, dbk += dlogit.
 *
 * Where values are not folded dG takes the place of dH and values that of X in pass 2; where the
 * output is not folded dG is summed in pass 1 from dOut = dY Wr.
 *
 * 20 n C K FLOPs when all is folded. Sums over positions run in registers within a tile, over the
 * tiles of a group in scratch, then over the groups in order.
 */
#include "kernels/k_efficient_attention_backward.h"

#include "kernels/k_attention_backward_work.h"
#include "kernels/shares.h"

/* ------------------------------------------------------------------ pass 1: queries */

/* sum [rows, C] += left^T right over `count` positions; left's value (p, i) at p * step + i * row
 */
static void add_outer(int64_t rows, int64_t columns, int64_t count, const tl_real *left,
                      int64_t left_row, int64_t left_step, const tl_real *right, int64_t right_row,
                      tl_real *sum, int64_t sum_row) {
    tile_multiply((tile_product){.rows = rows,
                                 .columns = tile_columns(columns),
                                 .inner = count,
                                 .a = left,
                                 .a_row = left_row,
                                 .a_step = left_step,
                                 .b = right,
                                 .b_row = right_row,
                                 .out = sum,
                                 .out_row = sum_row,
                                 .start = sum,
                                 .start_row = sum_row});
}

/* Gradients of the queries [K, tile], from those of the normalised queries, in place. */
static void queries_gradient(const attention_sizes *s, int64_t rows, const tl_real *queries,
                             tl_real *dqueries) {
    const tl_real scale = s->gradient_scale;
    for (int64_t head = 0; head < s->heads; head++) {
        for (int64_t i = 0; i < rows; i += TL_LANES) {
            const tl_real *q = queries + head * s->d * TL_ATTENTION_TILE + i;
            tl_real *dq = dqueries + head * s->d * TL_ATTENTION_TILE + i;
            tl_v dot = tl_v_zero();
            for (int64_t a = 0; a < s->d && !s->scaling; a++) {
                dot += tl_v_load(q + a * TL_ATTENTION_TILE) * tl_v_load(dq + a * TL_ATTENTION_TILE);
            }
            for (int64_t a = 0; a < s->d; a++) {
                const tl_v incoming = tl_v_load(dq + a * TL_ATTENTION_TILE);
                const tl_v p = tl_v_load(q + a * TL_ATTENTION_TILE);
                const tl_v logit = s->scaling ? incoming : p * (incoming - dot);
                tl_v_store(dq + a * TL_ATTENTION_TILE, logit * scale);
            }
        }
    }
}

/* One tile, as the passes see it. */
typedef struct tile_view {
    attention_rows x, dy;
    tl_real *dx; /* the caller's; NULL if not wanted */
} tile_view;

static attention_rows dy_rows(const backward_work *work, const backward_tile *tile, int64_t count,
                              const tl_real *dy) {
    const attention_sizes *s = &work->size;
    if (!s->reprojection && s->e % TL_LANES != 0) { /* heads are read by themselves: slack */
        tile_pad_rows(count, s->out, dy, s->out, tile->dy, s->out_row);
        return (attention_rows){.count = count, .values = tile->dy, .row = s->out_row};
    }
    return attention_rows_of(s, count, s->out, dy, tile->dy, s->out_row, tile->dy_t);
}

static tile_view view_of(const backward_work *work, const backward_tile *tile, attention_run run,
                         int64_t first, bool with_dy) {
    const attention_sizes *s = &work->size;
    const int64_t left = run.end - first, position = run.sample * s->n + first;
    const int64_t count = left < TL_ATTENTION_TILE ? left : TL_ATTENTION_TILE;
    tl_real *dx = work->gradients->x.values;
    tile_view view = {.dx = dx == NULL ? NULL : dx + position * s->c};
    fetch_forget();
    tile_fetch_next(work->x + position * s->c, left, s->c);
    if (with_dy) {
        tile_fetch_next(work->dy + position * s->out, left, s->out);
    }
    if (view.dx != NULL) {
        tile_fetch_next(view.dx, left, s->c);
    }
    view.x =
        attention_rows_of(s, count, s->c, work->x + position * s->c, tile->x, s->c_row, tile->x_t);
    if (with_dy) {
        view.dy = dy_rows(work, tile, count, work->dy + position * s->out);
    }
    return view;
}

/* dx = dY + dlogit Wq, or added to dx. */
static void queries_dx(const backward_work *work, const tile_view *view,
                       const backward_tile *tile) {
    const attention_sizes *s = &work->size;
    const bool direct = s->c % TL_LANES == 0, accumulate = work->gradients->x.accumulate;
    tile_product product = {.rows = view->x.count,
                            .columns = tile_columns(s->c),
                            .inner = s->k,
                            .a = tile->dqueries,
                            .a_row = 1,
                            .a_step = TL_ATTENTION_TILE,
                            .b = work->query,
                            .b_row = s->c_row,
                            .out = direct ? view->dx : tile->dx,
                            .out_row = direct ? s->c : s->c_row,
                            .start = s->residual ? view->dy.values : NULL,
                            .start_row = view->dy.row};
    if (direct && accumulate) {
        for (int64_t i = 0; s->residual && i < view->x.count; i++) {
            tile_add(s->c, view->dy.values + i * view->dy.row, view->dx + i * s->c);
        }
        product.start = view->dx;
        product.start_row = s->c;
    }
    tile_multiply(product);
    if (!direct) {
        tile_unpad_rows(view->x.count, s->c, tile->dx, s->c_row, view->dx, accumulate);
    }
}

/* Output not folded: dOut = dY Wr, dG += queries^T dOut, dqueries = dOut G^T, head by head. */
static void outputs_backward(const backward_work *work, const tile_view *view,
                             const backward_tile *tile, const backward_sample *sample,
                             const parameter_sums *sums, tl_real *query_sums) {
    const attention_sizes *s = &work->size;
    const tl_real *dout = view->dy.values;
    int64_t dout_row = view->dy.row;
    if (s->reprojection) {
        attention_apply_context(s, view->x.count, tile->queries, sample->context, NULL, 0,
                                tile->values, s->v_row);
        add_outer(s->v, s->c, view->x.count, tile->values, 1, s->v_row, view->dy.values,
                  view->dy.row, sums->reprojection, s->c_row);
        tile_multiply_rows(view->x.count, s->v, s->c, view->dy.values, view->dy.row,
                           work->reprojection, s->v_row, NULL, tile->dvalues, s->v_row);
        dout = tile->dvalues;
        dout_row = s->v_row;
    }
    for (int64_t head = 0; head < s->heads; head++) {
        add_outer(s->d, s->e, view->x.count, tile->queries + head * s->d * TL_ATTENTION_TILE,
                  TL_ATTENTION_TILE, 1, dout + head * s->e, dout_row,
                  query_sums + head * s->d * s->e_row, s->e_row);
        tile_multiply_rows(view->x.count, s->d, s->e, dout + head * s->e, dout_row,
                           sample->context_t + head * s->d, s->k_row, NULL,
                           tile->dprojected + head * s->d, s->k_row);
    }
}

/* Constant queries: dM (or dG) is the sum of dY, once for every head; dX = dY. */
static void constant_pass(const backward_work *work, attention_run run, const backward_tile *tile,
                          const parameter_sums *sums, tl_real *query_sums) {
    const attention_sizes *s = &work->size;
    const int64_t position = run.sample * s->n + run.first, row = query_sums_row(s);
    const tl_attention_gradient *x = &work->gradients->x;
    tl_real *dx = x->values == NULL ? NULL : x->values + position * s->c;
    tl_real *total = tile->row_sums + constant_room(s->out);
    constant_dx what = CONSTANT_NO_DX;
    if (dx != NULL && s->residual) {
        what = x->accumulate ? CONSTANT_ADD : CONSTANT_SET;
    } else if (dx != NULL && !x->accumulate) {
        memset(dx, 0, (size_t)((run.end - run.first) * s->c) * sizeof(tl_real));
    }
    constant_sum(run.end - run.first, s->out, work->dy + position * s->out, tile->row_sums, total,
                 what, dx);
    for (int64_t a = 0; a < s->k; a++) {
        memcpy(query_sums + a * row, s->fold_output ? total : total + a * s->e,
               (size_t)(s->fold_output ? s->c : s->e) * sizeof(tl_real));
    }
    if (s->reprojection) {
        tile_add(s->c, total, sums->reprojection_bias);
    }
}

static void queries_pass(const backward_work *work, attention_run run, const backward_tile *tile,
                         const backward_sample *sample, const parameter_sums *sums,
                         tl_real *query_sums) {
    const attention_sizes *s = &work->size;
    memset(query_sums, 0, (size_t)(s->k * query_sums_row(s)) * sizeof(tl_real));
    if (s->constant_queries) {
        constant_pass(work, run, tile, sums, query_sums);
        return;
    }
    for (int64_t first = run.first; first < run.end; first += TL_ATTENTION_TILE) {
        const tile_view view = view_of(work, tile, run, first, true);
        attention_queries(s, &work->weights, &view.x, tile->projected, tile->queries);
        if (s->fold_output) {
            add_outer(s->k, s->c, view.x.count, tile->queries, TL_ATTENTION_TILE, 1, view.dy.values,
                      view.dy.row, query_sums, s->c_row);
        } else {
            outputs_backward(work, &view, tile, sample, sums, query_sums);
        }
        if (s->narrow) {
            narrow_product(s->k, view.x.count, s->c, sample->map, s->c_row, view.dy.transposed,
                           tile->dqueries);
        } else {
            if (s->fold_output) {
                tile_multiply_rows(view.x.count, s->k, s->c, view.dy.values, view.dy.row,
                                   sample->map_t, s->k_row, NULL, tile->dprojected, s->k_row);
            }
            tile_transpose(view.x.count, s->k, tile->dprojected, s->k_row, tile->dqueries,
                           TL_ATTENTION_TILE);
        }
        queries_gradient(s, view.x.count, tile->queries, tile->dqueries);
        for (int64_t a = 0; a < s->k; a++) {
            sums->query_bias[a] += narrow_sum(view.x.count, tile->dqueries + a * TL_ATTENTION_TILE);
        }
        if (s->reprojection) {
            tile_add_rows(view.x.count, s->c, view.dy.values, view.dy.row, sums->reprojection_bias);
        }
        if (work->gradients->query_weight.values != NULL) {
            add_outer(s->k, s->c, view.x.count, tile->dqueries, TL_ATTENTION_TILE, 1, view.x.values,
                      view.x.row, sums->query, s->c_row);
        }
        if (view.dx != NULL) {
            queries_dx(work, &view, tile);
        }
    }
}

/* ------------------------------------------------------------------ between the passes */

static void begin_sample(const backward_work *work, int64_t index, const backward_sample *sample) {
    const attention_sizes *s = &work->size;
    const attention_saved saved = attention_saved_of(s, work->saved, index);
    tile_pad_rows(s->k, s->e, saved.context, s->e, sample->context, s->e_row);
    if (s->fold_values) {
        tile_pad_rows(s->k, s->c, saved.folded, s->c, sample->folded, s->c_row);
    }
    memset(sample->maximum, 0, (size_t)s->k_row * sizeof(tl_real));
    memset(sample->inverse, 0, (size_t)s->k_row * sizeof(tl_real));
    memset(sample->shift, 0, (size_t)s->k_row * sizeof(tl_real));
    for (int64_t a = 0; a < s->k; a++) {
        sample->maximum[a] = saved.maximum[a];
        sample->inverse[a] = s->scaling ? saved.sum[a] : 1 / saved.sum[a];
    }
    if (s->fold_output) {
        attention_fold_output(s, &work->weights, sample->context, sample->map);
        tile_transpose(s->k, s->c, sample->map, s->c_row, sample->map_t, s->k_row);
    } else {
        tile_transpose(s->k, s->e, sample->context, s->e_row, sample->context_t, s->k_row);
    }
}

static tl_real dot(int64_t count, const tl_real *a, const tl_real *b) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return (tl_real)sum;
}

/* dG, and where the output is folded dWr, from the sums of the first pass. */
static void context_gradient(const backward_work *work, const tl_real *query_sums,
                             const backward_sample *sample, const parameter_sums *sums) {
    const attention_sizes *s = &work->size;
    if (!s->fold_output) {
        memcpy(sample->dcontext, query_sums, (size_t)(s->k * s->e_row) * sizeof(tl_real));
        return;
    }
    for (int64_t head = 0; head < s->heads; head++) {
        const tl_real *dmap = query_sums + head * s->d * s->c_row;
        tile_multiply_rows(s->d, s->e, s->c, dmap, s->c_row, work->reprojection + head * s->e,
                           s->v_row, NULL, sample->dcontext + head * s->d * s->e_row, s->e_row);
        add_outer(s->e, s->c, s->d, sample->context + head * s->d * s->e_row, 1, s->e_row, dmap,
                  s->c_row, sums->reprojection + head * s->e * s->c_row, s->c_row);
    }
}

/* dH, dWv and dbv from dG. */
static void folded_gradient(const backward_work *work, const backward_sample *sample,
                            const parameter_sums *sums) {
    const attention_sizes *s = &work->size;
    for (int64_t head = 0; head < s->heads; head++) {
        const tl_real *dcontext = sample->dcontext + head * s->d * s->e_row;
        tile_multiply_rows(s->d, s->c, s->e, dcontext, s->e_row,
                           work->value + head * s->e * s->c_row, s->c_row, NULL,
                           sample->dfolded + head * s->d * s->c_row, s->c_row);
        add_outer(s->e, s->c, s->d, dcontext, 1, s->e_row, sample->folded + head * s->d * s->c_row,
                  s->c_row, sums->value + head * s->e * s->c_row, s->c_row);
        for (int64_t a = 0; a < s->d; a++) {
            const tl_real weight = s->scaling ? sample->inverse[head * s->d + a] : 1;
            for (int64_t j = 0; j < s->e; j++) {
                sums->value_bias[head * s->e + j] += weight * dcontext[a * s->e_row + j];
            }
        }
    }
    tile_transpose(s->k, s->c, sample->dfolded, s->c_row, sample->dfolded_t, s->k_row);
}

static void finish_context(const backward_work *work, const tl_real *query_sums,
                           const backward_sample *sample, const parameter_sums *sums) {
    const attention_sizes *s = &work->size;
    context_gradient(work, query_sums, sample, sums);
    if (s->fold_values) {
        folded_gradient(work, sample, sums);
    } else {
        tile_transpose(s->k, s->e, sample->dcontext, s->e_row, sample->dcontext_t, s->k_row);
    }
    for (int64_t a = 0; a < s->k; a++) {
        const tl_real *dcontext = sample->dcontext + a * s->e_row;
        if (s->scaling) {
            const tl_real *bias = work->weights.value_bias + a / s->d * s->e;
            sample->shift[a] = s->fold_values ? dot(s->e, dcontext, bias) : 0;
        } else if (s->fold_values) {
            sample->shift[a] =
                -dot(s->c, sample->dfolded + a * s->c_row, sample->folded + a * s->c_row);
        } else {
            sample->shift[a] = -dot(s->e, dcontext, sample->context + a * s->e_row);
        }
    }
}

/* ------------------------------------------------------------------ pass 2: keys */

/* dkeys: gradients of the normalised keys on entry, of the logits on return. */
static void keys_gradient(const attention_sizes *s, int64_t rows, const backward_sample *sample,
                          attention_keys keys, attention_keys dkeys) {
    const tl_real scale = s->gradient_scale;
    if (s->narrow) {
        narrow_keys_gradient(s->k, rows, sample->shift, scale, s->scaling ? NULL : keys.values,
                             dkeys.values);
        return;
    }
    for (int64_t column = 0; column < s->k; column += TL_LANES) {
        const tl_v shift = tl_v_load(sample->shift + column);
        for (int64_t i = 0; i < rows; i++) {
            tl_real *at = dkeys.values + i * s->k_row + column;
            const tl_v shifted = (tl_v_load(at) + shift) * scale;
            const tl_v p = tl_v_load(keys.values + i * s->k_row + column);
            tl_v_store(at, s->scaling ? shifted : p * shifted);
        }
    }
}

static void add_key_bias(const attention_sizes *s, int64_t rows, attention_keys dkeys,
                         tl_real *sums) {
    if (!s->narrow) {
        tile_add_rows(rows, s->k, dkeys.values, s->k_row, sums);
        return;
    }
    for (int64_t a = 0; a < s->k; a++) {
        sums[a] += narrow_sum(rows, dkeys.values + a * TL_ATTENTION_TILE);
    }
}

/* Values not folded: dkeys = values dG^T and dvalues = keys dG, head by head. */
static void values_backward(const backward_work *work, const tile_view *view,
                            const backward_tile *tile, const backward_sample *sample,
                            const parameter_sums *sums) {
    const attention_sizes *s = &work->size;
    attention_values(s, &work->weights, &view->x, tile->values);
    for (int64_t head = 0; head < s->heads; head++) {
        tile_multiply_rows(view->x.count, s->d, s->e, tile->values + head * s->e, s->v_row,
                           sample->dcontext_t + head * s->d, s->k_row, NULL,
                           tile->dprojected + head * s->d, s->k_row);
        tile_multiply_rows(view->x.count, s->e, s->d, tile->projected + head * s->d, s->k_row,
                           sample->dcontext + head * s->d * s->e_row, s->e_row, NULL,
                           tile->dvalues + head * s->e, s->v_row);
    }
    add_outer(s->v, s->c, view->x.count, tile->dvalues, 1, s->v_row, view->x.values, view->x.row,
              sums->value, s->c_row);
    tile_add_rows(view->x.count, s->v, tile->dvalues, s->v_row, sums->value_bias);
}

/* dx += dlogit Wk + keys dH (or dvalues Wv). */
static void keys_dx(const backward_work *work, const tile_view *view, const backward_tile *tile,
                    attention_keys keys, attention_keys dkeys, const backward_sample *sample) {
    const attention_sizes *s = &work->size;
    const bool direct = s->c % TL_LANES == 0;
    tile_product product = {.rows = view->x.count,
                            .columns = tile_columns(s->c),
                            .inner = s->k,
                            .a = dkeys.values,
                            .a_row = dkeys.row,
                            .a_step = dkeys.step,
                            .b = work->key,
                            .b_row = s->c_row,
                            .out = direct ? view->dx : tile->dx,
                            .out_row = direct ? s->c : s->c_row,
                            .start = direct ? view->dx : NULL,
                            .start_row = s->c};
    tile_multiply(product);
    product.start = product.out;
    product.start_row = product.out_row;
    if (s->fold_values) {
        product.a = keys.values;
        product.a_row = keys.row;
        product.a_step = keys.step;
        product.b = sample->dfolded;
    } else {
        product.a = tile->dvalues;
        product.a_row = s->v_row;
        product.a_step = 1;
        product.inner = s->v;
        product.b = work->value;
    }
    tile_multiply(product);
    if (!direct) {
        tile_unpad_rows(view->x.count, s->c, tile->dx, s->c_row, view->dx, true);
    }
}

static void keys_pass(const backward_work *work, attention_run run, const backward_tile *tile,
                      const backward_sample *sample, const parameter_sums *sums) {
    const attention_sizes *s = &work->size;
    const attention_keys keys = attention_keys_in(s, tile->projected, tile->queries);
    const attention_keys dkeys = attention_keys_in(s, tile->dprojected, tile->dqueries);
    for (int64_t first = run.first; first < run.end; first += TL_ATTENTION_TILE) {
        const tile_view view = view_of(work, tile, run, first, false);
        const int64_t rows = view.x.count;
        attention_key_logits(s, &work->weights, &view.x, keys);
        if (!s->scaling) {
            attention_normalize_keys(s, rows, sample->maximum, sample->inverse, keys);
        }
        if (s->narrow) {
            narrow_product(s->k, rows, s->c, sample->dfolded, s->c_row, view.x.transposed,
                           dkeys.values);
        } else if (s->fold_values) {
            tile_multiply_rows(rows, s->k, s->c, view.x.values, view.x.row, sample->dfolded_t,
                               s->k_row, NULL, dkeys.values, s->k_row);
        } else {
            values_backward(work, &view, tile, sample, sums);
        }
        keys_gradient(s, rows, sample, keys, dkeys);
        if (s->scaling) {
            add_key_bias(s, rows, dkeys, sums->key_bias);
        }
        if (work->gradients->key_weight.values != NULL) {
            add_outer(s->k, s->c, rows, dkeys.values, dkeys.step, dkeys.row, view.x.values,
                      view.x.row, sums->key, s->c_row);
        }
        if (view.dx != NULL) {
            keys_dx(work, &view, tile, keys, dkeys, sample);
        }
    }
}

/* ------------------------------------------------------------------ the whole */

static void backward_whole_samples(const backward_work *work, int threads) {
    const attention_sizes *s = &work->size;
    const int64_t groups = s->cut.groups, units = s->cut.units;
    tl_shares shares = tl_shares_of(groups, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t group; tl_shares_take(&shares, &group);) {
        const int thread = attention_thread();
        const backward_tile tile = backward_tile_of(work, thread);
        const backward_sample sample = backward_sample_of(work, thread);
        const parameter_sums sums = parameter_sums_of(work, group);
        tl_real *query_sums = query_sums_of(work, thread);
        memset(sums.query, 0, work->group_bytes);
        for (int64_t unit = group * units / groups; unit < (group + 1) * units / groups; unit++) {
            const attention_run run = attention_run_of(s, unit);
            begin_sample(work, unit, &sample);
            queries_pass(work, run, &tile, &sample, &sums, query_sums);
            finish_context(work, query_sums, &sample, &sums);
            keys_pass(work, run, &tile, &sample, &sums);
        }
    }
}

static void backward_in_pieces(const backward_work *work, int threads) {
    const attention_sizes *s = &work->size;
    const int64_t units = s->cut.units, pieces = s->cut.pieces, samples = units / pieces;
    for (int64_t index = 0; index < samples; index++) {
        const backward_sample sample = backward_sample_of(work, index);
        begin_sample(work, index, &sample);
    }
    tl_shares shares = tl_shares_of(units, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t unit; tl_shares_take(&shares, &unit);) {
        const backward_tile tile = backward_tile_of(work, attention_thread());
        const backward_sample sample = backward_sample_of(work, unit / pieces);
        const parameter_sums sums = parameter_sums_of(work, unit);
        memset(sums.query, 0, work->group_bytes);
        queries_pass(work, attention_run_of(s, unit), &tile, &sample, &sums,
                     query_sums_of(work, unit));
    }
    for (int64_t index = 0; index < samples; index++) {
        tl_real *total = query_sums_of(work, index * pieces);
        for (int64_t piece = 1; piece < pieces; piece++) {
            tile_add(s->k * query_sums_row(s), query_sums_of(work, index * pieces + piece), total);
        }
        const backward_sample sample = backward_sample_of(work, index);
        const parameter_sums sums = parameter_sums_of(work, index);
        finish_context(work, total, &sample, &sums);
    }
    tl_shares again = tl_shares_of(units, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t unit; tl_shares_take(&again, &unit);) {
        const backward_tile tile = backward_tile_of(work, attention_thread());
        const backward_sample sample = backward_sample_of(work, unit / pieces);
        const parameter_sums sums = parameter_sums_of(work, unit);
        keys_pass(work, attention_run_of(s, unit), &tile, &sample, &sums);
    }
}

/* Adds the sums of all groups, in order, to those of the first. */
static void add_groups(const backward_work *work, int threads) {
    const int64_t count = (int64_t)(work->group_bytes / sizeof(tl_real)), chunk = 1024;
    const int64_t chunks = (count + chunk - 1) / chunk;
    tl_real *total = parameter_sums_of(work, 0).query;
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (threads > 1 && count * work->size.cut.groups > TL_PARALLEL_MINIMUM)
    for (int64_t index = 0; index < chunks; index++) {
        const int64_t first = index * chunk;
        const int64_t length = count - first < chunk ? count - first : chunk;
        for (int64_t group = 1; group < work->size.cut.groups; group++) {
            tile_add(length, total + group * count + first, total + first);
        }
    }
}

static void put_gradient(const tl_attention_gradient *gradient, int64_t rows, int64_t columns,
                         const tl_real *sums, int64_t row, int64_t step) {
    for (int64_t i = 0; gradient->values != NULL && i < rows; i++) {
        tl_real *to = gradient->values + i * columns;
        for (int64_t j = 0; j < columns; j++) {
            const tl_real sum = sums[i * row + j * step];
            to[j] = gradient->accumulate ? to[j] + sum : sum;
        }
    }
}

static void put_gradients(const backward_work *work) {
    const attention_sizes *s = &work->size;
    const tl_attention_gradients *g = work->gradients;
    const parameter_sums sums = parameter_sums_of(work, 0);
    put_gradient(&g->query_weight, s->k, s->c, sums.query, s->c_row, 1);
    put_gradient(&g->query_bias, 1, s->k, sums.query_bias, 0, 1);
    put_gradient(&g->key_weight, s->k, s->c, sums.key, s->c_row, 1);
    put_gradient(&g->key_bias, 1, s->k, sums.key_bias, 0, 1);
    put_gradient(&g->value_weight, s->v, s->c, sums.value, s->c_row, 1);
    put_gradient(&g->value_bias, 1, s->v, sums.value_bias, 0, 1);
    if (s->reprojection) {
        put_gradient(&g->reprojection_weight, s->c, s->v, sums.reprojection, 1, s->c_row);
        put_gradient(&g->reprojection_bias, 1, s->c, sums.reprojection_bias, 0, 1);
    }
}

size_t TL_PER_ISA(tl_efficient_attention_backward_scratch_bytes)(const tl_attention_shape *shape,
                                                                 int threads) {
    backward_work work = {.size = attention_sizes_of(shape)};
    return lay_out_backward(&work, NULL, threads);
}

void TL_PER_ISA(tl_efficient_attention_backward)(const tl_attention_shape *shape,
                                                 const tl_attention_parameters *parameters,
                                                 const tl_real *x, const tl_real *dy,
                                                 const tl_real *saved,
                                                 const tl_attention_gradients *gradients,
                                                 void *scratch, int threads) {
    backward_work work = {.size = attention_sizes_of(shape),
                          .x = x,
                          .dy = dy,
                          .saved = (tl_real *)(uintptr_t)saved, /* only read */
                          .gradients = gradients};
    const attention_sizes *s = &work.size;
    lay_out_backward(&work, scratch, threads);
    attention_pack(s, parameters, &work.weights);
    tile_pad_rows(s->k, s->c, parameters->query_weight, s->c, work.query, s->c_row);
    tile_pad_rows(s->k, s->c, parameters->key_weight, s->c, work.key, s->c_row);
    tile_pad_rows(s->v, s->c, parameters->value_weight, s->c, work.value, s->c_row);
    if (s->reprojection) {
        tile_pad_rows(s->c, s->v, parameters->reprojection_weight, s->v, work.reprojection,
                      s->v_row);
    }
    const int used = tl_attention_backward_flops(shape) < TL_PARALLEL_MINIMUM ? 1 : threads;
    if (s->cut.pieces == 1) {
        backward_whole_samples(&work, used);
    } else {
        backward_in_pieces(&work, used);
    }
    add_groups(&work, used);
    put_gradients(&work);
}
