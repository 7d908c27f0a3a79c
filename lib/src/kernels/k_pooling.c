/* k_pooling.c - see k_pooling.h.
 *
 * Forward goes over output rows (image, depth, height), backward over input rows: every value
 * written has one writer, which gathers in a fixed order. Within a row, position by position and
 * there vector by vector over the channels; what a window reads stays in the first-level cache.
 */
#include "kernels/kernels.h"

#include <math.h>

#include "kernels/simd.h"

typedef uint8_t vector_bytes
    __attribute__((vector_size(TL_VECTOR_BYTES / sizeof(tl_real)), aligned(1), may_alias));

enum { LANES = TL_VECTOR_BYTES / sizeof(tl_real) };

/* LANES bytes to integers and back. The compiler would take them apart one by one. */
TL_INLINE tl_vi widen(const uint8_t *p) {
#if defined(TL_SIMD_AVX512) && !defined(TL_REAL_DOUBLE)
    return (tl_vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
#elif defined(TL_SIMD_AVX2) && !defined(TL_REAL_DOUBLE)
    return (tl_vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
#else
    return __builtin_convertvector(*(const vector_bytes *)p, tl_vi);
#endif
}

TL_INLINE void narrow(uint8_t *p, tl_vi v) {
#if defined(TL_SIMD_AVX512) && !defined(TL_REAL_DOUBLE)
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(TL_SIMD_AVX2) && !defined(TL_REAL_DOUBLE)
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v),
                                           _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(words, words));
#else
    *(vector_bytes *)p = __builtin_convertvector(v, vector_bytes);
#endif
}

TL_INLINE tl_vi load_offsets(const uint8_t *p, int64_t count) {
    if (count == LANES) {
        return widen(p);
    }
    uint8_t bytes[LANES] = {0};
    memcpy(bytes, p, (size_t)count);
    return widen(bytes);
}

TL_INLINE void store_offsets(uint8_t *p, tl_vi offsets, int64_t count) {
    if (count == LANES) {
        narrow(p, offsets);
        return;
    }
    uint8_t bytes[LANES];
    narrow(bytes, offsets);
    memcpy(p, bytes, (size_t)count);
}

/* A half-open range along one dimension. */
typedef struct range {
    int64_t begin;
    int64_t end;
} range;

static range clip(int64_t begin, int64_t end, int64_t extent) {
    return (range){.begin = begin > 0 ? begin : 0, .end = end < extent ? end : extent};
}

/* The input positions in the window of output t along dimension d. */
static range window_of(const tl_pooling_shape *s, int d, int64_t t) {
    const int64_t begin = t * s->stride[d] - s->padding[d];
    return clip(begin, begin + s->kernel[d], s->in[d]);
}

/* The outputs whose window covers input position i along dimension d. */
static range windows_over(const tl_pooling_shape *s, int d, int64_t i) {
    const int64_t last = i + s->padding[d];
    const int64_t before = last - s->kernel[d]; /* a window that begins here ends before i */
    const int64_t begin = before < 0 ? 0 : before / s->stride[d] + 1;
    return clip(begin, last / s->stride[d] + 1, s->out[d]);
}

/* The offset of input position i in the window of output t along dimension d. */
TL_INLINE int64_t offset_in(const tl_pooling_shape *s, int d, int64_t i, int64_t t) {
    return i + s->padding[d] - t * s->stride[d];
}

static int team_of(const tl_pooling_shape *s, int threads) {
    const int64_t in = s->images * s->in[0] * s->in[1] * s->in[2] * s->channels;
    return in > TL_PARALLEL_MINIMUM ? threads : 1;
}

static int64_t length_of(range r) {
    return r.end - r.begin;
}

static tl_real window_share(const tl_pooling_shape *s, bool count_padding, const range window[3]) {
    const int64_t positions =
        count_padding ? s->kernel[0] * s->kernel[1] * s->kernel[2]
                      : length_of(window[0]) * length_of(window[1]) * length_of(window[2]);
    return (tl_real)1 / (tl_real)positions;
}

/* ------------------------------------------------------------------ forward */

/* The maximum of `count` channels over one window, and where it was. */
TL_INLINE void max_vector(const tl_pooling_shape *s, const tl_real *x, const range window[3],
                          int64_t first_code, tl_real *y, uint8_t *offsets, int64_t count) {
    tl_v best = tl_v_set(-(tl_real)INFINITY);
    tl_vi offset = (tl_vi){0};
    bool first = true;
    for (int64_t d = window[0].begin; d < window[0].end; d++) {
        for (int64_t h = window[1].begin; h < window[1].end; h++) {
            for (int64_t w = window[2].begin; w < window[2].end; w++) {
                const int64_t code = first_code + (d * s->kernel[1] + h) * s->kernel[2] + w;
                const tl_vi here = (tl_vi){0} + (tl_lane_int)code;
                const tl_v v =
                    tl_v_load_some(x + ((d * s->in[1] + h) * s->in[2] + w) * s->channels, count);
                const tl_vi better = first ? (tl_vi){0} - 1 : (v > best) | (v != v);
                best = tl_v_select(better, v, best);
                offset = (here & better) | (offset & ~better);
                first = false;
            }
        }
    }
    tl_v_store_some(y, best, count);
    if (offsets != NULL) {
        store_offsets(offsets, offset, count);
    }
}

TL_INLINE void average_vector(const tl_pooling_shape *s, const tl_real *x, const range window[3],
                              tl_real share, tl_real *y, int64_t count) {
    tl_v sum = tl_v_zero();
    for (int64_t d = window[0].begin; d < window[0].end; d++) {
        for (int64_t h = window[1].begin; h < window[1].end; h++) {
            for (int64_t w = window[2].begin; w < window[2].end; w++) {
                sum += tl_v_load_some(x + ((d * s->in[1] + h) * s->in[2] + w) * s->channels, count);
            }
        }
    }
    tl_v_store_some(y, sum * share, count);
}

/* One row of outputs; `x` is the image, `y` and `offsets` the row. */
TL_INLINE void forward_row(const tl_pooling_shape *s, const tl_real *x, int64_t depth,
                           int64_t height, bool maximum, bool count_padding, tl_real *y,
                           uint8_t *offsets) {
    range window[3] = {window_of(s, 0, depth), window_of(s, 1, height), {0, 0}};
    for (int64_t t = 0; t < s->out[2]; t++) {
        window[2] = window_of(s, 2, t);
        const int64_t first_code =
            (offset_in(s, 0, 0, depth) * s->kernel[1] + offset_in(s, 1, 0, height)) * s->kernel[2] +
            offset_in(s, 2, 0, t);
        const tl_real share = window_share(s, count_padding, window);
        for (int64_t c = 0; c < s->channels; c += LANES) {
            const int64_t count = s->channels - c < LANES ? s->channels - c : LANES;
            const int64_t at = t * s->channels + c;
            if (maximum) {
                max_vector(s, x + c, window, first_code, y + at,
                           offsets == NULL ? NULL : offsets + at, count);
            } else {
                average_vector(s, x + c, window, share, y + at, count);
            }
        }
    }
}

static void max_forward(const tl_pooling_shape *shape, const tl_real *x, tl_real *y,
                        uint8_t *offsets, int threads) {
    const tl_pooling_shape s = *shape;
    const int64_t image = s.in[0] * s.in[1] * s.in[2] * s.channels;
    const int64_t rows = s.images * s.out[0] * s.out[1];
    const int team = team_of(&s, threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * s.out[2] * s.channels;
        forward_row(&s, x + row / (s.out[0] * s.out[1]) * image, row / s.out[1] % s.out[0],
                    row % s.out[1], true, false, y + at, offsets == NULL ? NULL : offsets + at);
    }
}

static void average_forward(const tl_pooling_shape *shape, bool count_padding, const tl_real *x,
                            tl_real *y, int threads) {
    const tl_pooling_shape s = *shape;
    const int64_t image = s.in[0] * s.in[1] * s.in[2] * s.channels;
    const int64_t rows = s.images * s.out[0] * s.out[1];
    const int team = team_of(&s, threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < rows; row++) {
        forward_row(&s, x + row / (s.out[0] * s.out[1]) * image, row / s.out[1] % s.out[0],
                    row % s.out[1], false, count_padding, y + row * s.out[2] * s.channels, NULL);
    }
}

/* ------------------------------------------------------------------ backward */

/* to = (add ? to : 0) + from where offsets == code, over the channels. */
TL_INLINE void receive_maximum(int64_t channels, const tl_real *from, const uint8_t *offsets,
                               int64_t code, tl_real *to, bool add) {
    const tl_vi wanted = (tl_vi){0} + (tl_lane_int)code;
    for (int64_t c = 0; c < channels; c += LANES) {
        const int64_t count = channels - c < LANES ? channels - c : LANES;
        const tl_vi chosen = load_offsets(offsets + c, count) == wanted;
        const tl_v g = tl_v_select(chosen, tl_v_load_some(from + c, count), tl_v_zero());
        tl_v_store_some(to + c, add ? g + tl_v_load_some(to + c, count) : g, count);
    }
}

/* to = (add ? to : 0) + share from, over the channels. */
TL_INLINE void receive_average(int64_t channels, const tl_real *from, tl_real share, tl_real *to,
                               bool add) {
    for (int64_t c = 0; c < channels; c += LANES) {
        const int64_t count = channels - c < LANES ? channels - c : LANES;
        const tl_v g = tl_v_load_some(from + c, count) * share;
        tl_v_store_some(to + c, add ? g + tl_v_load_some(to + c, count) : g, count);
    }
}

/* What one input position receives from the windows over it; `dy` and `offsets` are the image. */
TL_INLINE void gather(const tl_pooling_shape *s, const tl_real *dy, const uint8_t *offsets,
                      const range over[3], const int64_t position[3], bool maximum,
                      bool count_padding, tl_real *dx, bool accumulate) {
    bool add = accumulate;
    for (int64_t d = over[0].begin; d < over[0].end; d++) {
        for (int64_t h = over[1].begin; h < over[1].end; h++) {
            for (int64_t w = over[2].begin; w < over[2].end; w++) {
                const int64_t at = ((d * s->out[1] + h) * s->out[2] + w) * s->channels;
                if (maximum) {
                    const int64_t code = (offset_in(s, 0, position[0], d) * s->kernel[1] +
                                          offset_in(s, 1, position[1], h)) *
                                             s->kernel[2] +
                                         offset_in(s, 2, position[2], w);
                    receive_maximum(s->channels, dy + at, offsets + at, code, dx, add);
                } else {
                    const range window[3] = {window_of(s, 0, d), window_of(s, 1, h),
                                             window_of(s, 2, w)};
                    receive_average(s->channels, dy + at, window_share(s, count_padding, window),
                                    dx, add);
                }
                add = true;
            }
        }
    }
    if (!add) {
        memset(dx, 0, (size_t)s->channels * sizeof *dx);
    }
}

/* One row of inputs; `dx` is the row. */
TL_INLINE void backward_row(const tl_pooling_shape *s, const tl_real *dy, const uint8_t *offsets,
                            int64_t depth, int64_t height, bool maximum, bool count_padding,
                            tl_real *dx, bool accumulate) {
    int64_t position[3] = {depth, height, 0};
    range over[3] = {windows_over(s, 0, depth), windows_over(s, 1, height), {0, 0}};
    for (int64_t i = 0; i < s->in[2]; i++) {
        position[2] = i;
        over[2] = windows_over(s, 2, i);
        gather(s, dy, offsets, over, position, maximum, count_padding, dx + i * s->channels,
               accumulate);
    }
}

static void max_backward(const tl_pooling_shape *shape, const tl_real *dy, const uint8_t *offsets,
                         tl_real *dx, bool accumulate, int threads) {
    const tl_pooling_shape s = *shape;
    const int64_t image = s.out[0] * s.out[1] * s.out[2] * s.channels;
    const int64_t rows = s.images * s.in[0] * s.in[1];
    const int team = team_of(&s, threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t first = row / (s.in[0] * s.in[1]) * image;
        backward_row(&s, dy + first, offsets + first, row / s.in[1] % s.in[0], row % s.in[1], true,
                     false, dx + row * s.in[2] * s.channels, accumulate);
    }
}

static void average_backward(const tl_pooling_shape *shape, bool count_padding, const tl_real *dy,
                             tl_real *dx, bool accumulate, int threads) {
    const tl_pooling_shape s = *shape;
    const int64_t image = s.out[0] * s.out[1] * s.out[2] * s.channels;
    const int64_t rows = s.images * s.in[0] * s.in[1];
    const int team = team_of(&s, threads);
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < rows; row++) {
        backward_row(&s, dy + row / (s.in[0] * s.in[1]) * image, NULL, row / s.in[1] % s.in[0],
                     row % s.in[1], false, count_padding, dx + row * s.in[2] * s.channels,
                     accumulate);
    }
}

/* ------------------------------------------------------------------ global average */

enum { GLOBAL_VECTORS = 4, GLOBAL_CHANNELS = GLOBAL_VECTORS * LANES, GLOBAL_BLOCK = 128 };

/* The sum of `vectors` vectors of channels over up to GLOBAL_BLOCK positions, added to `total`. */
TL_INLINE void add_block(int vectors, int64_t positions, int64_t channels, const tl_real *x,
                         int64_t last_count, double *total) {
    tl_v sum[GLOBAL_VECTORS] = {{0}};
    for (int64_t p = 0; p < positions; p++) {
        for (int v = 0; v < vectors; v++) {
            sum[v] +=
                tl_v_load_some(x + p * channels + v * LANES, v + 1 < vectors ? LANES : last_count);
        }
    }
    for (int v = 0; v < vectors; v++) {
        for (int lane = 0; lane < LANES; lane++) {
            total[v * LANES + lane] += (double)sum[v][lane];
        }
    }
}

static void global_tile(int64_t positions, int64_t channels, const tl_real *x, int64_t count,
                        tl_real *y) {
    double total[GLOBAL_CHANNELS] = {0};
    for (int64_t begin = 0; begin < positions; begin += GLOBAL_BLOCK) {
        const int64_t rest = positions - begin;
        const int64_t block = rest < GLOBAL_BLOCK ? rest : GLOBAL_BLOCK;
        const tl_real *from = x + begin * channels;
        if (count == GLOBAL_CHANNELS) {
            add_block(GLOBAL_VECTORS, block, channels, from, LANES, total);
            continue;
        }
        for (int64_t c = 0; c < count; c += LANES) {
            const int64_t lanes = count - c < LANES ? count - c : LANES;
            add_block(1, block, channels, from + c, lanes, total + c);
        }
    }
    for (int64_t c = 0; c < count; c++) {
        y[c] = (tl_real)(total[c] / (double)positions);
    }
}

static void global_average_forward(int64_t images, int64_t positions, int64_t channels,
                                   const tl_real *x, tl_real *y, int threads) {
    const int64_t tiles = (channels + GLOBAL_CHANNELS - 1) / GLOBAL_CHANNELS;
    const int team = images * positions * channels > TL_PARALLEL_MINIMUM ? threads : 1;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t task = 0; task < images * tiles; task++) {
        const int64_t image = task / tiles;
        const int64_t c = task % tiles * GLOBAL_CHANNELS;
        const int64_t count = channels - c < GLOBAL_CHANNELS ? channels - c : GLOBAL_CHANNELS;
        global_tile(positions, channels, x + image * positions * channels + c, count,
                    y + image * channels + c);
    }
}

static void global_average_backward(int64_t images, int64_t positions, int64_t channels,
                                    const tl_real *dy, tl_real *dx, bool accumulate, int threads) {
    const tl_real share = (tl_real)1 / (tl_real)positions;
    const int team = images * positions * channels > TL_PARALLEL_MINIMUM ? threads : 1;
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t row = 0; row < images * positions; row++) {
        const tl_real *from = dy + row / positions * channels;
        tl_real *to = dx + row * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
            const int64_t count = channels - c < LANES ? channels - c : LANES;
            const tl_v g = tl_v_load_some(from + c, count) * share;
            tl_v_store_some(to + c, accumulate ? g + tl_v_load_some(to + c, count) : g, count);
        }
    }
}

const tl_pooling_kernels TL_PER_ISA(tl_pooling_kernels) = {
    .max_forward = max_forward,
    .max_backward = max_backward,
    .average_forward = average_forward,
    .average_backward = average_backward,
    .global_average_forward = global_average_forward,
    .global_average_backward = global_average_backward,
};
