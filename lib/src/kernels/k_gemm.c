/* Matrix products.
 *
 * C is cut into blocks of block_m x block_n, each one task. A task walks k in steps of block_k;
 * per step it packs the parts of A and B that need it into its thread's scratch, then multiplies
 * register blocks of micro_rows x micro_vectors: for every panel of B (kept in the first-level
 * cache) all panels of A (from the second level). A thread makes a step for several tasks below
 * each other before the next one, so that their part of B is packed once. A register block adds
 * block_k products, then goes to C: sums of any length have two levels.
 *
 * Packing costs a pass over the matrix and pays where panels are read often or where the rows of
 * the source lie so far apart that they fall into few cache sets. A is left alone if the block has
 * few columns, B if its part of block_k rows fits the first-level cache as it lies; training small
 * networks is full of such shapes. Packing is per thread, with no barrier between threads, and
 * costs 1/block_n and 1/block_m of the FMAs. B may come from far away, in rows too far apart for
 * the processor to foresee: a thread packs it a step ahead, a few rows after each register block,
 * which has asked for them.
 *
 * Where C has too few blocks for the threads and k is long, k is cut into pieces (by shape, never
 * by threads) that are summed in order at the end.
 *
 * FLOPs: 2 m n k. Bytes moved at least: A, B once, C once or (beta != 0) twice.
 */
#include "kernels/kernels.h"
#include "kernels/k_gemm_blocks.h"
#include "kernels/k_gemm_pack.h"
#include "kernels/shares.h"

enum {
    BLOCK_K = 256,
    /* A's panels of BLOCK_K stay in the second level; a multiple of all counts of rows */
    BLOCK_M = TL_VECTOR_REGISTERS >= 32 ? 256 : 168,
    BLOCK_N = 512,
    GROUP_BLOCKS = 8, /* of BLOCK_M rows: their part of C stays in the last-level cache */
    FEW_ROWS = 64,    /* of C: blocks are then WIDE_BLOCK_N wide, if the second level is large */
    WIDE_BLOCK_N = TL_VECTOR_REGISTERS >= 32 ? 2 * BLOCK_N : BLOCK_N,
    DOT_BLOCK_K = 2048, /* per lane 2048 / LANES products in a row */
    TASKS_WANTED = 8,   /* enough for a few threads; more only where there is much work */
    FIRST_LEVEL_BYTES = 32 * 1024, /* of cache */
    PIECES_BYTES = 4 * 1024 * 1024 /* most scratch for partial sums */
};
static const double TASK_FLOPS = 4e6;     /* a task is not cut below about this */
static const double PARALLEL_FLOPS = 1e6; /* less work is done by one thread */

static int64_t smaller(int64_t x, int64_t y) {
    return x < y ? x : y;
}

static int64_t divide_up(int64_t x, int64_t y) {
    return (x + y - 1) / y;
}

static int64_t round_up(int64_t x, int64_t y) {
    return divide_up(x, y) * y;
}

/* ------------------------------------------------------------------ the plan */

/* Fills in strides and batch, and turns matrix-vector products into the form that the kernels like:
 * a single column of C into a single row, a vector into one that runs along k. */
static tl_gemm_problem normalized(const tl_gemm_problem *problem) {
    tl_gemm_problem g = *problem;
    g.row_stride_a = g.row_stride_a ? g.row_stride_a : g.transpose_a ? g.m : g.k;
    g.row_stride_b = g.row_stride_b ? g.row_stride_b : g.transpose_b ? g.k : g.n;
    g.row_stride_c = g.row_stride_c ? g.row_stride_c : g.n;
    g.batch = g.batch ? g.batch : 1;
    if (g.n == 1 && !g.transpose_b && g.row_stride_b == 1) {
        g.transpose_b = true;
        g.row_stride_b = g.k;
    }
    if (g.n == 1 && g.transpose_a && g.transpose_b && g.row_stride_c == 1 && !g.bias) {
        /* C' [1, m] = b' [1, k] A' [k, m], and A is stored just so */
        const tl_real *vector = g.b;
        const int64_t batch_stride = g.batch_stride_b;
        g.b = g.a;
        g.row_stride_b = g.row_stride_a;
        g.batch_stride_b = g.batch_stride_a;
        g.transpose_b = false;
        g.a = vector;
        g.row_stride_a = g.k;
        g.batch_stride_a = batch_stride;
        g.transpose_a = false;
        g.n = g.m;
        g.m = 1;
        g.row_stride_c = g.n;
    }
    if (g.m == 1 && g.transpose_a && g.row_stride_a == 1) {
        g.transpose_a = false;
        g.row_stride_a = g.k;
    }
    return g;
}

static void plan_micro(const tl_gemm_problem *g, tl_gemm_plan *plan) {
    const int64_t vectors = divide_up(g->n, TL_LANES);
    plan->micro_vectors = vectors == 1 ? 1 : 2;
    plan->micro_rows = vectors == 1 ? TL_MICRO_ROWS_1 : TL_MICRO_ROWS_2;
#if TL_VECTOR_REGISTERS >= 32
    if (vectors == 3 || (vectors > 4 && (vectors % 3 != 1 || vectors > 12))) {
        plan->micro_vectors = 3;
        plan->micro_rows = TL_MICRO_ROWS_3;
    }
#endif
}

static void plan_blocks(const tl_gemm_problem *g, tl_gemm_plan *plan) {
    const int64_t width = plan->micro_vectors * TL_LANES;
    const double flops = 2.0 * (double)g->m * (double)g->n * (double)g->k * (double)g->batch;
    plan->blocks_m = divide_up(g->m, BLOCK_M);
    /* few rows use a part of B up soon: longer runs of its rows come faster */
    plan->blocks_n = divide_up(g->n, plan->sweep || g->m > FEW_ROWS ? BLOCK_N : WIDE_BLOCK_N);
    for (;;) {
        plan->block_m = round_up(divide_up(g->m, plan->blocks_m), plan->micro_rows);
        plan->block_n = round_up(divide_up(g->n, plan->blocks_n), width);
        plan->blocks_m = divide_up(g->m, plan->block_m);
        plan->blocks_n = divide_up(g->n, plan->block_n);
        const int64_t tasks = plan->blocks_m * plan->blocks_n * g->batch;
        const bool can_cut_m = plan->block_m >= 2 * plan->micro_rows;
        const bool can_cut_n = plan->block_n >= 2 * width;
        if (tasks >= TASKS_WANTED || flops / (double)tasks < 2 * TASK_FLOPS ||
            !(can_cut_m || can_cut_n)) {
            break;
        }
        if (can_cut_n && (plan->block_n >= plan->block_m || !can_cut_m)) {
            plan->blocks_n *= 2;
        } else {
            plan->blocks_m *= 2;
        }
    }
    plan->pieces = 1;
    const int64_t tasks = plan->blocks_m * plan->blocks_n * g->batch;
    if (tasks < TASKS_WANTED && flops > PARALLEL_FLOPS) {
        const int64_t partial_bytes = g->m * g->n * g->batch * (int64_t)sizeof(tl_real);
        plan->pieces = smaller(divide_up(TASKS_WANTED, tasks), divide_up(g->k, BLOCK_K));
        plan->pieces = smaller(plan->pieces, PIECES_BYTES / partial_bytes);
        plan->pieces = plan->pieces > 1 ? plan->pieces : 1;
    }
}

static tl_gemm_plan plan_normalized(const tl_gemm_problem *g) {
    tl_gemm_plan plan = {0};
    plan_micro(g, &plan);
    plan.dot = !g->transpose_a && g->transpose_b && (g->m <= 4 || g->n <= 4);
    plan.sweep = !g->transpose_b && g->m <= 2;
    plan_blocks(g, &plan);
    const int64_t block_k = plan.dot ? DOT_BLOCK_K : BLOCK_K;
    const int64_t piece_k = divide_up(g->k, plan.pieces);
    plan.block_k = piece_k ? divide_up(piece_k, divide_up(piece_k, block_k)) : 1;
    if (plan.dot || plan.sweep) {
        return plan;
    }
    const int64_t rows_fitting = FIRST_LEVEL_BYTES / (int64_t)sizeof(tl_real) / plan.block_k;
    plan.pack_a = plan.block_n > 3 * plan.micro_vectors * TL_LANES ||
                  (g->transpose_a && g->row_stride_a > rows_fitting);
    plan.pack_b = g->transpose_b || g->row_stride_b > rows_fitting;
    return plan;
}

static tl_gemm_plan plan(const tl_gemm_problem *problem) {
    const tl_gemm_problem g = normalized(problem);
    return plan_normalized(&g);
}

/* ------------------------------------------------------------------ scratch */

/* In elements. A panel is followed by one vector that packing may spill into; it also keeps the
 * panels from starting a power of two apart. */
static int64_t panel_size(int64_t width, int64_t block_k) {
    return width * block_k + TL_LANES;
}

static int64_t packed_a_size(const tl_gemm_plan *p) {
    return p->pack_a ? p->block_m / p->micro_rows * panel_size(p->micro_rows, p->block_k) : 0;
}

/* Without pack_b there is room for one panel: the ragged edge. */
static int64_t packed_b_size(const tl_gemm_plan *p) {
    const int64_t width = p->micro_vectors * TL_LANES;
    return p->dot || p->sweep
               ? 0
               : (p->pack_b ? p->block_n / width : 1) * panel_size(width, p->block_k);
}

/* What a thread needs: A's panels, B's of this step and of the next. */
static int64_t thread_size(const tl_gemm_plan *p) {
    return round_up(packed_a_size(p), 16) + 2 * round_up(packed_b_size(p), 16);
}

static int64_t partial_size(const tl_gemm_problem *g, const tl_gemm_plan *p) {
    return p->pieces > 1 ? round_up(p->pieces * g->batch * g->m * g->n, 16) : 0;
}

static size_t scratch_bytes(const tl_gemm_problem *problem, int threads) {
    const tl_gemm_problem g = normalized(problem);
    const tl_gemm_plan p = plan_normalized(&g);
    return (size_t)(partial_size(&g, &p) + threads * thread_size(&p)) * sizeof(tl_real);
}

/* ------------------------------------------------------------------ one task */

/* Rows i0 ... i1 - 1, columns j0 ... j1 - 1, products k0 ... k1 - 1 of one item of the batch. */
typedef struct task {
    int64_t i0, i1, j0, j1, k0, k1;
    const tl_real *a, *b; /* the item's matrices */
    tl_real *c;           /* of the item, or the piece's partial sums */
    int64_t c_row;
    epilogue end; /* bias from column 0 on */
    tl_real *packed_a;
} task;

/* Rows are spread evenly over the panels, so that none is left with very few. */
static int64_t panel_start(int64_t rows, int64_t panels, int64_t panel) {
    const int64_t extra = rows % panels;
    return rows / panels * panel + (panel < extra ? panel : extra);
}

static void pack_a(const tl_gemm_problem *g, const tl_gemm_plan *plan, const task *t, int64_t p0,
                   int64_t steps) {
    const int64_t rows = t->i1 - t->i0;
    const int64_t width = plan->micro_rows;
    const int64_t panels = divide_up(rows, width);
    const int64_t stride = panel_size(width, plan->block_k);
    if (g->transpose_a) {
        for (int64_t p = 0; p < steps; p++) {
            const tl_real *row = t->a + (p0 + p) * g->row_stride_a + t->i0;
            for (int64_t i = 0; i < panels; i++) {
                const int64_t start = panel_start(rows, panels, i);
                tl_pack_step(t->packed_a + i * stride + p * width, width, row + start,
                             rows - start);
            }
        }
        return;
    }
    for (int64_t i = 0; i < panels; i++) {
        const int64_t start = panel_start(rows, panels, i);
        const int64_t count = panel_start(rows, panels, i + 1) - start;
        tl_pack_transposed(t->packed_a + i * stride, width,
                           t->a + (t->i0 + start) * g->row_stride_a + p0, g->row_stride_a, count,
                           steps);
    }
}

/* ------------------------------------------------------------------ packing B, little by little */

/* Columns first ... j1-1 of one step of a task. What is left to do is counted in rows of B, or in
 * panels where B is transposed. */
typedef struct packing {
    tl_real *to;
    const tl_real *from; /* B at the step's first product and column 0 */
    int64_t first, end;
    int64_t steps;
    int64_t units, done;
} packing;

/* Packs until `until` units are done. */
static void pack_b(const tl_gemm_problem *g, const tl_gemm_plan *plan, packing *pack,
                   int64_t until) {
    const int64_t width = plan->micro_vectors * TL_LANES;
    const int64_t stride = panel_size(width, plan->block_k);
    for (; pack->done < until; pack->done++) {
        if (g->transpose_b) {
            const int64_t j = pack->first + pack->done * width;
            tl_pack_transposed(pack->to + pack->done * stride, width,
                               pack->from + j * g->row_stride_b, g->row_stride_b,
                               smaller(width, pack->end - j), pack->steps);
            continue;
        }
        /* a long sweep along the row */
        const tl_real *row = pack->from + pack->done * g->row_stride_b;
        tl_real *at = pack->to + pack->done * width;
        for (int64_t j = pack->first; j < pack->end; j += width, at += stride) {
            tl_pack_step(at, width, row + j, pack->end - j);
        }
    }
}

/* Of the columns of a task, the first that is packed: a ragged last panel of B is in any case, for
 * full vectors are read from it. */
static int64_t first_packed(const tl_gemm_plan *plan, const task *t) {
    const int64_t width = plan->micro_vectors * TL_LANES;
    const int64_t columns = t->j1 - t->j0;
    const int64_t ragged = columns % TL_LANES ? t->j0 + columns / width * width : t->j1;
    return plan->pack_b ? t->j0 : ragged;
}

/* What a register block of `steps` products asks for: `rows` rows, which are packed after it. */
TL_INLINE fetching fetching_of(const packing *pack, int64_t row_stride, int64_t rows,
                               int64_t steps) {
    const int64_t half = (pack->end - pack->first) / 2;
    return (fetching){
        .from = pack->from + pack->done * row_stride + pack->first,
        .row_stride = row_stride,
        .rows = rows,
        .half = half,
        .step = divide_up(half, steps / rows),
    };
}

/* One step along k: everything of it is in cache after packing. Meanwhile, `next` is packed. */
static void multiply_step(const tl_gemm_problem *g, const tl_gemm_plan *plan, const task *t,
                          int64_t p0, int64_t steps, const epilogue *step_end,
                          const tl_real *packed_b, packing *next) {
    const int64_t width = plan->micro_vectors * TL_LANES;
    const int64_t rows = t->i1 - t->i0;
    const int64_t panels = divide_up(rows, plan->micro_rows);
    const int64_t packed_from = first_packed(plan, t);
    if (plan->pack_a) {
        pack_a(g, plan, t, p0, steps);
    }
    const bool along_steps = plan->pack_a || g->transpose_a;
    const int64_t a_stride = plan->pack_a ? plan->micro_rows : g->row_stride_a;
    const bool may_fetch = plan->pack_a && !g->transpose_b && plan->micro_vectors > 1;
    const int64_t blocks = divide_up(t->j1 - t->j0, width) * panels;
    int64_t done = 0;
    for (int64_t j = t->j0; j < t->j1; j += width) {
        const int64_t columns = smaller(width, t->j1 - j);
        const bool packed = j >= packed_from;
        const tl_real *b =
            packed ? packed_b + (j - packed_from) / width * panel_size(width, plan->block_k)
                   : t->b + p0 * g->row_stride_b + j;
        const int64_t b_step = packed ? width : g->row_stride_b;
        micro_function *const *micro =
            (along_steps ? micro_along_steps : micro_along_rows)[divide_up(columns, TL_LANES)];
        epilogue end = *step_end;
        end.bias = end.bias ? end.bias + j : NULL;
        for (int64_t i = 0; i < panels; i++) {
            const int64_t start = panel_start(rows, panels, i);
            const int64_t count = panel_start(rows, panels, i + 1) - start;
            const int64_t row = t->i0 + start;
            const tl_real *a = plan->pack_a
                                   ? t->packed_a + i * panel_size(plan->micro_rows, plan->block_k)
                               : g->transpose_a ? t->a + p0 * g->row_stride_a + row
                                                : t->a + row * g->row_stride_a + p0;
            tl_real *c = t->c + row * t->c_row + j;
            done++;
            /* of the next step's B, what is packed after this block */
            const int64_t due = next->units == 0 ? 0 : next->units * done / blocks;
            const int64_t due_rows = due - next->done;
            if (may_fetch && due_rows > 0 && due_rows <= steps && packed && columns == width) {
                const fetching fetch = fetching_of(next, g->row_stride_b, due_rows, steps);
                micro_fetching[plan->micro_vectors][count](steps, a, a_stride, b, c, t->c_row, &end,
                                                           &fetch);
            } else {
                micro[count](steps, a, a_stride, b, b_step, c, t->c_row, columns, &end);
            }
            pack_b(g, plan, next, due);
        }
    }
}

/* ------------------------------------------------------------------ products along k */

enum { DOT_ROWS = 2, DOT_COLUMNS = 4 };

/* Row i of A times columns j ... j + `columns` - 1 of B, both running along k: with `rows` x
 * `columns` sums held in one vector each. */
TL_INLINE void dot_tile(const int rows, const int columns, const tl_real *a, int64_t a_row,
                        const tl_real *b, int64_t b_row, int64_t k, tl_real *c, int64_t c_row,
                        const epilogue *end) {
    tl_v acc[DOT_ROWS][DOT_COLUMNS];
    TL_UNROLL
    for (int i = 0; i < rows; i++) {
        TL_UNROLL
        for (int j = 0; j < columns; j++) {
            acc[i][j] = tl_v_zero();
        }
    }
    for (int64_t p = 0; p < k; p += TL_LANES) {
        const int64_t count = k - p;
        tl_v av[DOT_ROWS];
        TL_UNROLL
        for (int i = 0; i < rows; i++) {
            av[i] = count >= TL_LANES ? tl_v_load(a + i * a_row + p)
                                      : tl_v_load_partial(a + i * a_row + p, count);
        }
        TL_UNROLL
        for (int j = 0; j < columns; j++) {
            const tl_v bv = count >= TL_LANES ? tl_v_load(b + j * b_row + p)
                                              : tl_v_load_partial(b + j * b_row + p, count);
            TL_UNROLL
            for (int i = 0; i < rows; i++) {
                acc[i][j] += av[i] * bv;
            }
        }
    }
    TL_UNROLL
    for (int i = 0; i < rows; i++) {
        TL_UNROLL
        for (int j = 0; j < columns; j++) {
            tl_real *at = c + i * c_row + j;
            const tl_real sum = end->alpha * tl_v_sum(acc[i][j]) + (end->bias ? end->bias[j] : 0);
            *at = end->beta != 0 ? end->beta * *at + sum : sum;
        }
    }
}

static void dot_2x4(const tl_real *a, int64_t a_row, const tl_real *b, int64_t b_row, int64_t k,
                    tl_real *c, int64_t c_row, const epilogue *end) {
    dot_tile(2, 4, a, a_row, b, b_row, k, c, c_row, end);
}

static void dot_1x4(const tl_real *a, int64_t a_row, const tl_real *b, int64_t b_row, int64_t k,
                    tl_real *c, int64_t c_row, const epilogue *end) {
    dot_tile(1, 4, a, a_row, b, b_row, k, c, c_row, end);
}

static void dot_2x1(const tl_real *a, int64_t a_row, const tl_real *b, int64_t b_row, int64_t k,
                    tl_real *c, int64_t c_row, const epilogue *end) {
    dot_tile(2, 1, a, a_row, b, b_row, k, c, c_row, end);
}

static void dot_1x1(const tl_real *a, int64_t a_row, const tl_real *b, int64_t b_row, int64_t k,
                    tl_real *c, int64_t c_row, const epilogue *end) {
    dot_tile(1, 1, a, a_row, b, b_row, k, c, c_row, end);
}

static void dot_step(const tl_gemm_problem *g, const task *t, int64_t p0, int64_t steps,
                     const epilogue *step_end) {
    int64_t rows, columns;
    for (int64_t j = t->j0; j < t->j1; j += columns) {
        columns = t->j1 - j >= DOT_COLUMNS ? DOT_COLUMNS : 1;
        const tl_real *b = t->b + j * g->row_stride_b + p0;
        epilogue end = *step_end;
        end.bias = end.bias ? end.bias + j : NULL;
        for (int64_t i = t->i0; i < t->i1; i += rows) {
            rows = t->i1 - i >= DOT_ROWS ? DOT_ROWS : 1;
            const tl_real *a = t->a + i * g->row_stride_a + p0;
            tl_real *c = t->c + i * t->c_row + j;
            (rows == 2 ? (columns == 4 ? dot_2x4 : dot_2x1) : (columns == 4 ? dot_1x4 : dot_1x1))(
                a, g->row_stride_a, b, g->row_stride_b, steps, c, t->c_row, &end);
        }
    }
}

/* ------------------------------------------------------------------ one or two rows */

enum { SWEEP_STEPS = 4, SWEEP_COLUMNS = BLOCK_N + TL_MICRO_VECTORS * TL_VECTOR_BYTES };

/* sums[j] += sum over `steps` <= SWEEP_STEPS (constant where inlined) of a[p] b[p][j]. */
TL_INLINE void sweep_rows(const int steps, const tl_real *a, int64_t a_step, const tl_real *b,
                          int64_t b_row, int64_t columns, tl_real *sums) {
    for (int64_t j = 0; j < columns; j += TL_LANES) {
        const bool full = columns - j >= TL_LANES;
        tl_v sum = tl_v_load(sums + j); /* there is room for a full vector */
        TL_UNROLL
        for (int p = 0; p < steps; p++) {
            const tl_real *at = b + p * b_row + j;
            sum += a[p * a_step] * (full ? tl_v_load(at) : tl_v_load_partial(at, columns - j));
        }
        tl_v_store(sums + j, sum);
    }
}

static void sweep_step(const tl_gemm_problem *g, const task *t, int64_t p0, int64_t steps,
                       const epilogue *end) {
    const int64_t columns = t->j1 - t->j0;
    const int64_t a_step = g->transpose_a ? g->row_stride_a : 1;
    const int64_t b_row = g->row_stride_b;
    for (int64_t i = t->i0; i < t->i1; i++) {
        tl_real sums[SWEEP_COLUMNS] = {0};
        const tl_real *a =
            g->transpose_a ? t->a + p0 * a_step + i : t->a + i * g->row_stride_a + p0;
        const tl_real *b = t->b + p0 * b_row + t->j0;
        int64_t p = 0;
        for (; p + SWEEP_STEPS <= steps; p += SWEEP_STEPS) {
            sweep_rows(SWEEP_STEPS, a + p * a_step, a_step, b + p * b_row, b_row, columns, sums);
        }
        for (; p < steps; p++) {
            sweep_rows(1, a + p * a_step, a_step, b + p * b_row, b_row, columns, sums);
        }
        tl_real *c = t->c + i * t->c_row + t->j0;
        for (int64_t j = 0; j < columns; j++) {
            const tl_real sum = end->alpha * sums[j] + (end->bias ? end->bias[t->j0 + j] : 0);
            c[j] = end->beta != 0 ? end->beta * c[j] + sum : sum;
        }
    }
}

/* ------------------------------------------------------------------ all tasks */

/* Task `index` of batch x pieces x blocks_n x blocks_m. */
static task task_of(const tl_gemm_problem *g, const tl_gemm_plan *plan, int64_t index,
                    tl_real *partial, tl_real *packed_a) {
    const int64_t block_m = index % plan->blocks_m;
    const int64_t block_n = index / plan->blocks_m % plan->blocks_n;
    const int64_t piece = index / plan->blocks_m / plan->blocks_n % plan->pieces;
    const int64_t item = index / plan->blocks_m / plan->blocks_n / plan->pieces;
    task t = {
        .i0 = block_m * plan->block_m,
        .i1 = smaller(g->m, (block_m + 1) * plan->block_m),
        .j0 = block_n * plan->block_n,
        .j1 = smaller(g->n, (block_n + 1) * plan->block_n),
        .k0 = panel_start(g->k, plan->pieces, piece),
        .k1 = panel_start(g->k, plan->pieces, piece + 1),
        .a = g->a + item * g->batch_stride_a,
        .b = g->b + item * g->batch_stride_b,
        .packed_a = packed_a,
    };
    if (plan->pieces > 1) {
        t.c = partial + (item * plan->pieces + piece) * g->m * g->n;
        t.c_row = g->n;
        t.end = (epilogue){.alpha = 1};
    } else {
        t.c = g->c + item * g->batch_stride_c;
        t.c_row = g->row_stride_c;
        t.end = (epilogue){.alpha = g->alpha, .beta = g->beta, .bias = g->bias};
    }
    return t;
}

/* One step along k of one task. */
typedef struct step {
    int64_t index; /* of the task */
    task t;
    int64_t p0, count;
} step;

/* The rest of its part of B, to be packed into `to`; nothing if there it needs not be packed. */
static packing packing_of(const tl_gemm_problem *g, const tl_gemm_plan *plan, const step *s,
                          tl_real *to) {
    const int64_t width = plan->micro_vectors * TL_LANES;
    const int64_t first = first_packed(plan, &s->t);
    return (packing){
        .to = to,
        .from = s->t.b + s->p0 * (g->transpose_b ? 1 : g->row_stride_b),
        .first = first,
        .end = s->t.j1,
        .steps = s->count,
        .units = plan->dot || plan->sweep || first == s->t.j1 ? 0
                 : g->transpose_b                             ? divide_up(s->t.j1 - first, width)
                                                              : s->count,
    };
}

static void run_step(const tl_gemm_problem *g, const tl_gemm_plan *plan, const step *s,
                     const tl_real *packed_b, packing *next) {
    epilogue end = s->t.end;
    if (s->p0 > s->t.k0) { /* adds to the steps before */
        end.beta = 1;
        end.bias = NULL;
    }
    if (plan->dot) {
        dot_step(g, &s->t, s->p0, s->count, &end);
    } else if (plan->sweep) {
        sweep_step(g, &s->t, s->p0, s->count, &end);
    } else {
        multiply_step(g, plan, &s->t, s->p0, s->count, &end, packed_b, next);
    }
}

/* What one thread works on: tasks first ... end-1 now, which share their part of B, so that a step
 * along k is made for all of them before the next one; and up to `taken`, which come after. */
typedef struct worker {
    const tl_gemm_problem *g;
    const tl_gemm_plan *plan;
    tl_shares *shares;
    int64_t first, end, taken;
    tl_real *partial, *packed_a;
} worker;

/* The step at p0, or (p0 < 0) a task's first. */
static step step_at(const worker *w, int64_t index, int64_t p0) {
    step s = {.index = index, .t = task_of(w->g, w->plan, index, w->partial, w->packed_a)};
    s.p0 = p0 < 0 ? s.t.k0 : p0;
    s.count = smaller(w->plan->block_k, s.t.k1 - s.p0);
    return s;
}

/* Goes to other tasks; false if none is left. */
static bool next_tasks(worker *w) {
    w->first = w->end;
    if (w->first == w->taken) {
        w->taken = tl_shares_take_run(w->shares, &w->first);
        w->taken += w->first;
    }
    const int64_t blocks_m = w->plan->blocks_m;
    w->end =
        smaller(smaller(w->taken, w->first + GROUP_BLOCKS), (w->first / blocks_m + 1) * blocks_m);
    return w->first < w->taken;
}

/* Goes to the next step; false after the last. */
static bool next_step(worker *w, step *s) {
    if (s->index + 1 < w->end) {
        *s = step_at(w, s->index + 1, s->p0);
    } else if (s->p0 + s->count < s->t.k1) {
        *s = step_at(w, w->first, s->p0 + s->count);
    } else if (next_tasks(w)) {
        *s = step_at(w, w->first, -1);
    } else {
        return false;
    }
    return true;
}

/* Takes tasks until none is left, step by step, by one thread. */
static void run_tasks(const tl_gemm_problem *g, const tl_gemm_plan *plan, tl_shares *shares,
                      tl_real *partial, tl_real *scratch) {
    worker w = {.g = g, .plan = plan, .shares = shares, .partial = partial, .packed_a = scratch};
    if (!next_tasks(&w)) {
        return;
    }
    tl_real *packed = scratch + round_up(packed_a_size(plan), 16);
    tl_real *ahead = packed + round_up(packed_b_size(plan), 16);
    step now = step_at(&w, w.first, -1);
    packing pack = packing_of(g, plan, &now, packed);
    pack_b(g, plan, &pack, pack.units);
    for (bool more = true; more;) {
        step next = now;
        more = next_step(&w, &next);
        const bool same_b = next.t.b == now.t.b && next.t.j0 == now.t.j0 && next.p0 == now.p0;
        pack = (packing){0};
        if (!same_b) {
            pack = packing_of(g, plan, &next, ahead);
        }
        run_step(g, plan, &now, packed, &pack);
        if (!same_b) {
            tl_real *const used = packed;
            packed = ahead;
            ahead = used;
        }
        now = next;
    }
}

/* C = alpha * (sum of the partial sums, in order) + beta * C + bias; with no pieces the sum is 0.
 */
static void add_pieces(const tl_gemm_problem *g, int64_t pieces, const tl_real *partial) {
    for (int64_t row = 0; row < g->batch * g->m; row++) {
        const int64_t item = row / g->m;
        const int64_t first = (item * pieces * g->m + row % g->m) * g->n;
        tl_real *c = g->c + item * g->batch_stride_c + row % g->m * g->row_stride_c;
        for (int64_t j = 0; j < g->n; j++) {
            tl_real sum = 0;
            for (int64_t piece = 0; piece < pieces; piece++) {
                sum += partial[first + piece * g->m * g->n + j];
            }
            sum = g->alpha * sum + (g->bias ? g->bias[j] : 0);
            c[j] = g->beta != 0 ? g->beta * c[j] + sum : sum;
        }
    }
}

static void multiply(const tl_gemm_problem *problem, void *scratch, int threads) {
    const tl_gemm_problem g = normalized(problem);
    if (g.m <= 0 || g.n <= 0) {
        return;
    }
    if (g.k <= 0) {
        add_pieces(&g, 0, NULL);
        return;
    }
    const tl_gemm_plan p = plan_normalized(&g);
    const int64_t tasks = g.batch * p.pieces * p.blocks_m * p.blocks_n;
    const double flops = 2.0 * (double)g.m * (double)g.n * (double)g.k * (double)g.batch;
    const int64_t size = thread_size(&p);
    tl_real *partial = scratch;
    tl_real *packed = partial + partial_size(&g, &p);
    const int team = flops < PARALLEL_FLOPS || tasks == 1 ? 1 : threads;
    tl_shares shares = tl_shares_of(tasks, team);
#pragma omp parallel num_threads(team) if (team > 1)
    run_tasks(&g, &p, &shares, partial, packed + omp_get_thread_num() * size);
    if (p.pieces > 1) {
        add_pieces(&g, p.pieces, partial);
    }
}

const tl_gemm_kernels TL_PER_ISA(tl_gemm_kernels) = {
    .multiply = multiply,
    .scratch_bytes = scratch_bytes,
    .plan = plan,
};
