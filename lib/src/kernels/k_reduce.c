#include "kernels/kernels.h"
#include "kernels/pieces.h"
#include "kernels/simd.h"

enum {
    ROW_RUN = 32,       /* rows added in vectors before the sum goes to double */
    COLUMN_CHUNK = 512, /* columns of a task */
    SEGMENT = 4096,     /* neighbouring values added in vectors */
    TASK_VALUES = 1 << 15,
    MOST_PIECES = 64,
};

/* Some of the dimensions, walked in row-major order. */
typedef struct walk {
    int rank;
    int64_t count;
    int64_t extents[TL_REDUCTION_RANK];
    int64_t strides[TL_REDUCTION_RANK];
} walk;

static int64_t walk_offset(const walk *w, int64_t index) {
    if (w->rank <= 1) {
        return w->rank == 0 ? 0 : index * w->strides[0];
    }
    int64_t offset = 0;
    for (int d = w->rank - 1; d >= 0; d--) {
        offset += index % w->extents[d] * w->strides[d];
        index /= w->extents[d];
    }
    return offset;
}

static void walk_add(walk *w, int64_t extent, int64_t stride) {
    w->extents[w->rank] = extent;
    w->strides[w->rank] = stride;
    w->count *= extent;
    w->rank++;
}

typedef struct plan {
    walk kept;    /* outputs, without the innermost dimension */
    walk reduced; /* summands of an output, without the innermost dimension */
    bool inner_is_reduced;
    int64_t length; /* of the innermost dimension */
    int64_t runs;   /* rows (inner kept) or segments (inner reduced) that one output adds */
    int64_t pieces;
    int64_t runs_per_piece;
} plan;

static plan make_plan(const tl_reduction *shape) {
    plan p = {.kept = {.count = 1}, .reduced = {.count = 1}, .length = 1};
    int64_t strides[TL_REDUCTION_RANK];
    int64_t stride = 1;
    for (int d = shape->rank - 1; d >= 0; d--) {
        strides[d] = stride;
        stride *= shape->extents[d];
    }
    for (int d = 0; d < shape->rank - 1; d++) {
        walk_add(shape->is_reduced[d] ? &p.reduced : &p.kept, shape->extents[d], strides[d]);
    }
    if (shape->rank > 0) {
        p.inner_is_reduced = shape->is_reduced[shape->rank - 1];
        p.length = shape->extents[shape->rank - 1];
    }
    int64_t run_values;
    if (p.inner_is_reduced) {
        p.runs = p.reduced.count * tl_piece_count(p.length, SEGMENT);
        run_values = p.length < SEGMENT ? p.length : SEGMENT;
    } else {
        p.runs = p.reduced.count;
        run_values = p.length < COLUMN_CHUNK ? p.length : COLUMN_CHUNK;
    }
    const int64_t least = tl_piece_count(TASK_VALUES, run_values);
    const int64_t share = tl_piece_count(p.runs, MOST_PIECES);
    p.runs_per_piece = least > share ? least : share;
    p.pieces = tl_piece_count(p.runs, p.runs_per_piece);
    return p;
}

static size_t sum_scratch_bytes(const tl_reduction *shape) {
    const plan p = make_plan(shape);
    const int64_t outputs = p.kept.count * (p.inner_is_reduced ? 1 : p.length);
    return p.pieces == 1 ? 0 : (size_t)(outputs * p.pieces) * sizeof(double);
}

TL_INLINE void put(tl_real *y, double sum, double scale, bool accumulate) {
    const tl_real v = (tl_real)(sum * scale);
    *y = accumulate ? *y + v : v;
}

/* The sum of n <= SEGMENT neighbouring values. */
static double segment_sum(int64_t n, const tl_real *x) {
    tl_v sums[4] = {{0}, {0}, {0}, {0}};
    int64_t i = 0;
    for (; i + 4 * TL_LANES <= n; i += 4 * TL_LANES) {
        for (int k = 0; k < 4; k++) {
            sums[k] += tl_v_load(x + i + k * TL_LANES);
        }
    }
    for (; i + TL_LANES <= n; i += TL_LANES) {
        sums[0] += tl_v_load(x + i);
    }
    sums[1] += tl_v_load_partial(x + i, n - i);
    return (double)tl_v_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* Runs first ... last-1 of an output whose innermost dimension is reduced. */
static double sum_segments(const plan *p, const tl_real *x, int64_t first, int64_t last) {
    const int64_t per_row = tl_piece_count(p->length, SEGMENT);
    double sum = 0;
    for (int64_t run = first; run < last; run++) {
        const int64_t segment = run % per_row;
        const tl_real *row = x + walk_offset(&p->reduced, run / per_row);
        sum += segment_sum(tl_piece_size(segment, p->length, SEGMENT), row + segment * SEGMENT);
    }
    return sum;
}

/* sums[0 ... n-1] += rows of n values, at most ROW_RUN of them. */
static void add_rows(int64_t rows, const int64_t *offsets, int64_t n, const tl_real *x,
                     double *sums) {
    for (int64_t i = 0; i < n; i += TL_LANES) {
        const bool whole = i + TL_LANES <= n;
        const int64_t width = whole ? TL_LANES : n - i;
        tl_v even = tl_v_zero();
        tl_v odd = tl_v_zero();
        int64_t r = 0;
        if (whole) {
            for (; r + 2 <= rows; r += 2) {
                even += tl_v_load(x + offsets[r] + i);
                odd += tl_v_load(x + offsets[r + 1] + i);
            }
        }
        for (; r < rows; r++) {
            even += tl_v_load_partial(x + offsets[r] + i, width);
        }
        const tl_v sum = even + odd;
        for (int64_t lane = 0; lane < width; lane++) {
            sums[i + lane] += (double)sum[lane];
        }
    }
}

/* Rows first ... last-1, n <= COLUMN_CHUNK columns of each. */
static void sum_rows(const plan *p, const tl_real *x, int64_t first, int64_t last, int64_t n,
                     double *sums) {
    int64_t offsets[ROW_RUN];
    memset(sums, 0, (size_t)n * sizeof *sums);
    for (int64_t run = first; run < last; run += ROW_RUN) {
        const int64_t rows = last - run < ROW_RUN ? last - run : ROW_RUN;
        for (int64_t r = 0; r < rows; r++) {
            offsets[r] = walk_offset(&p->reduced, run + r);
        }
        add_rows(rows, offsets, n, x, sums);
    }
}

typedef struct job {
    plan plan;
    const tl_real *x;
    double scale;
    bool accumulate;
    tl_real *y;
    double *partial; /* [output, piece] or [output, piece, column]; NULL if there is one piece */
} job;

static void run_segments(const job *j, int64_t output, int64_t piece) {
    const plan *p = &j->plan;
    const int64_t first = piece * p->runs_per_piece;
    const double sum = sum_segments(p, j->x + walk_offset(&p->kept, output), first,
                                    first + tl_piece_size(piece, p->runs, p->runs_per_piece));
    if (j->partial != NULL) {
        j->partial[output * p->pieces + piece] = sum;
    } else {
        put(j->y + output, sum, j->scale, j->accumulate);
    }
}

static void run_columns(const job *j, int64_t output, int64_t piece, int64_t chunk) {
    const plan *p = &j->plan;
    double sums[COLUMN_CHUNK];
    const int64_t column = chunk * COLUMN_CHUNK;
    const int64_t n = tl_piece_size(chunk, p->length, COLUMN_CHUNK);
    const int64_t first = piece * p->runs_per_piece;
    sum_rows(p, j->x + walk_offset(&p->kept, output) + column, first,
             first + tl_piece_size(piece, p->runs, p->runs_per_piece), n, sums);
    if (j->partial != NULL) {
        memcpy(j->partial + (output * p->pieces + piece) * p->length + column, sums,
               (size_t)n * sizeof *sums);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        put(j->y + output * p->length + column + i, sums[i], j->scale, j->accumulate);
    }
}

static void combine_pieces(const job *j, int64_t width) {
    const plan *p = &j->plan;
    for (int64_t output = 0; output < p->kept.count; output++) {
        const double *partial = j->partial + output * p->pieces * width;
        for (int64_t i = 0; i < width; i++) {
            double sum = 0;
            for (int64_t piece = 0; piece < p->pieces; piece++) {
                sum += partial[piece * width + i];
            }
            put(j->y + output * width + i, sum, j->scale, j->accumulate);
        }
    }
}

static void sum(int threads, const tl_reduction *shape, const tl_real *x, double scale,
                bool accumulate, tl_real *y, void *scratch) {
    job j = {make_plan(shape), x, scale, accumulate, y, NULL};
    const plan *p = &j.plan;
    j.partial = p->pieces > 1 ? scratch : NULL;
    const int64_t width = p->inner_is_reduced ? 1 : p->length;
    const int64_t chunks = tl_piece_count(width, COLUMN_CHUNK);
    const int64_t outputs = p->kept.count;
    const int64_t tasks = outputs * p->pieces * chunks;
    const bool parallel = outputs * p->length * p->reduced.count > TL_PARALLEL_MINIMUM;
#pragma omp parallel for num_threads(threads) schedule(static) if (parallel)
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t chunk = task % chunks;
        const int64_t piece = task / chunks % p->pieces;
        const int64_t output = task / chunks / p->pieces;
        if (p->inner_is_reduced) {
            run_segments(&j, output, piece);
        } else {
            run_columns(&j, output, piece, chunk);
        }
    }
    if (j.partial != NULL) {
        combine_pieces(&j, width);
    }
}

const tl_reduce_kernels TL_PER_ISA(tl_reduce_kernels) = {
    .sum_scratch_bytes = sum_scratch_bytes,
    .sum = sum,
};
