/* k_conv_winograd_lines.h - Winograd's transforms of one line, for strides of 1 and 2.
 *
 * m outputs of a correlation with three taps are y = A^T [ (G g) * (B^T d) ], with * elementwise
 * and d the m + 2 inputs that they read: m + 2 products where the definition needs 3 m (Lavin and
 * Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; the construction is Toom's
 * and Cook's). A tile of m x m outputs is transformed line by line in both directions.
 *
 * F(2, 3) takes the points 0, 1, -1 and infinity:
 *
 *         1  0 -1  0            1   0   0
 *   B^T = 0  1  1  0      G =  1/2 1/2 1/2      A^T = 1 1  1  0
 *         0 -1  1  0           1/2 -1/2 1/2           0 1 -1 -1
 *         0  1  0 -1            0   0   1
 *
 * F(4, 3) takes 0, a, -a, b, -b and infinity. With the usual a = 1, b = 2 the error in single
 * precision is four times that of the definition; a and b around a b = 1 bring it down to twice
 * (Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
 * Neural Networks", ACM TOMS 2020, search for such points). With a = 5/8 and b = 3/2 all of A and B
 * is exact. p = a^2, q = b^2, f = 2 p (p - q), h = 2 q (q - p):
 *
 *          pq   0  -p-q   0   1  0             1/pq    0    0
 *           0 -aq  -q     a   1  0              1/f  a/f  p/f          1 1  1  1  1  0
 *   B^T =   0  aq  -q    -a   1  0       G =    1/f -a/f  p/f   A^T =  0 a -a  b -b  0
 *           0 -bp  -p     b   1  0              1/h  b/h  q/h          0 p  p  q  q  0
 *           0  bp  -p    -b   1  0              1/h -b/h  q/h          0 ap -ap bq -bq 1
 *           0  pq   0  -p-q   0  1               0    0    1
 *
 * Rows of a pair differ in the sign of their odd part, which is computed once.
 *
 * With stride 2, outputs are the sum of two correlations: of every other input with the outer taps,
 * by F(4, 2) with the points a, -a, b, -b and infinity (a = 1/2, b = 5/4, f = 2 a (p - q),
 * h = 2 b (q - p)), and of the inputs between them with the middle tap, of one product an output:
 *
 *          -aq  -q   a  1  0             1/f  a/f
 *           aq  -q  -a  1  0            -1/f  a/f          1 1  1  1  0
 *   B^T =  -bp  -p   b  1  0       G =   1/h  b/h   A^T =  a -a  b -b  0
 *           bp  -p  -b  1  0            -1/h  b/h          p p  q  q  0
 *           pq   0 -p-q 0  1              0    1          ap -ap bq -bq 1
 *
 * which is 9 products a line where the definition needs 12. The gradient of the input is the
 * adjoint: 8 outputs from 5 inputs, alternately of the middle tap and of the outer ones.
 */
#ifndef TL_K_CONV_WINOGRAD_LINES_H
#define TL_K_CONV_WINOGRAD_LINES_H

#include "kernels/simd.h"

typedef enum tl_winograd_kind {
    TL_WINOGRAD_2 = 0,           /* F(2, 3) */
    TL_WINOGRAD_4 = 1,           /* F(4, 3) */
    TL_WINOGRAD_STRIDED = 2,     /* stride 2 */
    TL_WINOGRAD_STRIDED_BACK = 3 /* the gradient of its input */
} tl_winograd_kind;

/* A line's numbers. Elements that have the same weights share them: there are fewer of these. */
typedef struct tl_winograd_line {
    int inputs;
    int elements;
    int weights;
    int outputs;
    int advance; /* from a line's first input to the next line's */
} tl_winograd_line;

TL_INLINE tl_winograd_line tl_winograd_line_of(tl_winograd_kind kind) {
    switch (kind) {
    case TL_WINOGRAD_2:
        return (tl_winograd_line){4, 4, 4, 2, 2};
    case TL_WINOGRAD_4:
        return (tl_winograd_line){6, 6, 6, 4, 4};
    case TL_WINOGRAD_STRIDED:
        return (tl_winograd_line){9, 9, 6, 4, 8};
    case TL_WINOGRAD_STRIDED_BACK:
        break;
    }
    return (tl_winograd_line){5, 9, 6, 8, 4};
}

/* The most of each. */
enum { TL_WINOGRAD_ELEMENTS = 9, TL_WINOGRAD_WEIGHTS = 6, TL_WINOGRAD_OUTPUTS = 8 };

/* ------------------------------------------------------------------ two taps: F(4, 2) */

#define TL_WINOGRAD_A2 ((tl_real)0.5)
#define TL_WINOGRAD_B2 ((tl_real)1.25)
#define TL_WINOGRAD_P2 (TL_WINOGRAD_A2 * TL_WINOGRAD_A2)
#define TL_WINOGRAD_Q2 (TL_WINOGRAD_B2 * TL_WINOGRAD_B2)
#define TL_WINOGRAD_F2_INVERSE (1 / (2 * TL_WINOGRAD_A2 * (TL_WINOGRAD_P2 - TL_WINOGRAD_Q2)))
#define TL_WINOGRAD_H2_INVERSE (1 / (2 * TL_WINOGRAD_B2 * (TL_WINOGRAD_Q2 - TL_WINOGRAD_P2)))

TL_INLINE void tl_winograd_input_two(tl_v d0, tl_v d1, tl_v d2, tl_v d3, tl_v d4, tl_v *v) {
    const tl_v even_a = d3 - d1 * TL_WINOGRAD_Q2;
    const tl_v odd_a = d2 - d0 * TL_WINOGRAD_Q2;
    const tl_v even_b = d3 - d1 * TL_WINOGRAD_P2;
    const tl_v odd_b = d2 - d0 * TL_WINOGRAD_P2;
    v[0] = even_a + odd_a * TL_WINOGRAD_A2;
    v[1] = even_a - odd_a * TL_WINOGRAD_A2;
    v[2] = even_b + odd_b * TL_WINOGRAD_B2;
    v[3] = even_b - odd_b * TL_WINOGRAD_B2;
    v[4] = d4 - d2 * (TL_WINOGRAD_P2 + TL_WINOGRAD_Q2) + d0 * (TL_WINOGRAD_P2 * TL_WINOGRAD_Q2);
}

TL_INLINE void tl_winograd_weight_two(tl_v first, tl_v second, tl_v *u) {
    const tl_v even_a = second * (TL_WINOGRAD_A2 * TL_WINOGRAD_F2_INVERSE);
    const tl_v odd_a = first * TL_WINOGRAD_F2_INVERSE;
    const tl_v even_b = second * (TL_WINOGRAD_B2 * TL_WINOGRAD_H2_INVERSE);
    const tl_v odd_b = first * TL_WINOGRAD_H2_INVERSE;
    u[0] = even_a + odd_a;
    u[1] = even_a - odd_a;
    u[2] = even_b + odd_b;
    u[3] = even_b - odd_b;
    u[4] = second;
}

TL_INLINE void tl_winograd_output_two(const tl_v *t, tl_v y[4]) {
    const tl_v even_a = t[0] + t[1];
    const tl_v odd_a = t[0] - t[1];
    const tl_v even_b = t[2] + t[3];
    const tl_v odd_b = t[2] - t[3];
    y[0] = even_a + even_b;
    y[1] = odd_a * TL_WINOGRAD_A2 + odd_b * TL_WINOGRAD_B2;
    y[2] = even_a * TL_WINOGRAD_P2 + even_b * TL_WINOGRAD_Q2;
    y[3] = t[4] + odd_a * (TL_WINOGRAD_A2 * TL_WINOGRAD_P2) +
           odd_b * (TL_WINOGRAD_B2 * TL_WINOGRAD_Q2);
}

TL_INLINE void tl_winograd_gradient_two(const tl_v *dy, tl_v *t) {
    const tl_v even_a = dy[0] + dy[2] * TL_WINOGRAD_P2;
    const tl_v odd_a = dy[1] + dy[3] * TL_WINOGRAD_P2;
    const tl_v even_b = dy[0] + dy[2] * TL_WINOGRAD_Q2;
    const tl_v odd_b = dy[1] + dy[3] * TL_WINOGRAD_Q2;
    t[0] = even_a + odd_a * TL_WINOGRAD_A2;
    t[1] = even_a - odd_a * TL_WINOGRAD_A2;
    t[2] = even_b + odd_b * TL_WINOGRAD_B2;
    t[3] = even_b - odd_b * TL_WINOGRAD_B2;
    t[4] = dy[3];
}

TL_INLINE void tl_winograd_back_two(const tl_v *du, tl_v *first, tl_v *second) {
    const tl_v even_a = (du[0] + du[1]) * TL_WINOGRAD_F2_INVERSE;
    const tl_v odd_a = (du[0] - du[1]) * TL_WINOGRAD_F2_INVERSE;
    const tl_v even_b = (du[2] + du[3]) * TL_WINOGRAD_H2_INVERSE;
    const tl_v odd_b = (du[2] - du[3]) * TL_WINOGRAD_H2_INVERSE;
    *first = odd_a + odd_b;
    *second = du[4] + even_a * TL_WINOGRAD_A2 + even_b * TL_WINOGRAD_B2;
}

/* ------------------------------------------------------------------ three taps */

#define TL_WINOGRAD_A ((tl_real)0.625)
#define TL_WINOGRAD_B ((tl_real)1.5)
#define TL_WINOGRAD_P (TL_WINOGRAD_A * TL_WINOGRAD_A)
#define TL_WINOGRAD_Q (TL_WINOGRAD_B * TL_WINOGRAD_B)
#define TL_WINOGRAD_PQ (TL_WINOGRAD_P * TL_WINOGRAD_Q)
#define TL_WINOGRAD_F_INVERSE (1 / (2 * TL_WINOGRAD_P * (TL_WINOGRAD_P - TL_WINOGRAD_Q)))
#define TL_WINOGRAD_H_INVERSE (1 / (2 * TL_WINOGRAD_Q * (TL_WINOGRAD_Q - TL_WINOGRAD_P)))

/* v = B^T d, of inputs. */
TL_INLINE void tl_winograd_input_line(tl_winograd_kind kind, const tl_v *d, tl_v *v) {
    if (kind == TL_WINOGRAD_2) {
        v[0] = d[0] - d[2];
        v[1] = d[1] + d[2];
        v[2] = d[2] - d[1];
        v[3] = d[1] - d[3];
        return;
    }
    if (kind == TL_WINOGRAD_STRIDED) {
        tl_winograd_input_two(d[0], d[2], d[4], d[6], d[8], v);
        TL_UNROLL
        for (int i = 0; i < 4; i++) {
            v[5 + i] = d[2 * i + 1];
        }
        return;
    }
    if (kind == TL_WINOGRAD_STRIDED_BACK) {
        tl_winograd_input_two(d[0], d[1], d[2], d[3], d[4], v);
        TL_UNROLL
        for (int i = 0; i < 4; i++) {
            v[5 + i] = d[i];
        }
        return;
    }
    const tl_v even_a = d[4] - d[2] * TL_WINOGRAD_Q;
    const tl_v odd_a = d[3] - d[1] * TL_WINOGRAD_Q;
    const tl_v even_b = d[4] - d[2] * TL_WINOGRAD_P;
    const tl_v odd_b = d[3] - d[1] * TL_WINOGRAD_P;
    v[0] = d[4] - d[2] * (TL_WINOGRAD_P + TL_WINOGRAD_Q) + d[0] * TL_WINOGRAD_PQ;
    v[1] = even_a + odd_a * TL_WINOGRAD_A;
    v[2] = even_a - odd_a * TL_WINOGRAD_A;
    v[3] = even_b + odd_b * TL_WINOGRAD_B;
    v[4] = even_b - odd_b * TL_WINOGRAD_B;
    v[5] = d[5] - d[3] * (TL_WINOGRAD_P + TL_WINOGRAD_Q) + d[1] * TL_WINOGRAD_PQ;
}

/* u = G g, of weights. */
TL_INLINE void tl_winograd_weight_line(tl_winograd_kind kind, const tl_v *g, tl_v *u) {
    if (kind == TL_WINOGRAD_2) {
        const tl_real half = (tl_real)0.5;
        const tl_v even = (g[0] + g[2]) * half;
        const tl_v odd = g[1] * half;
        u[0] = g[0];
        u[1] = even + odd;
        u[2] = even - odd;
        u[3] = g[2];
        return;
    }
    if (kind == TL_WINOGRAD_STRIDED || kind == TL_WINOGRAD_STRIDED_BACK) {
        tl_winograd_weight_two(g[0], g[2], u);
        u[5] = g[1];
        return;
    }
    const tl_v even_a = (g[0] + g[2] * TL_WINOGRAD_P) * TL_WINOGRAD_F_INVERSE;
    const tl_v odd_a = g[1] * (TL_WINOGRAD_A * TL_WINOGRAD_F_INVERSE);
    const tl_v even_b = (g[0] + g[2] * TL_WINOGRAD_Q) * TL_WINOGRAD_H_INVERSE;
    const tl_v odd_b = g[1] * (TL_WINOGRAD_B * TL_WINOGRAD_H_INVERSE);
    u[0] = g[0] * (1 / TL_WINOGRAD_PQ);
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
}

/* y = A^T t, of products. */
TL_INLINE void tl_winograd_output_line(tl_winograd_kind kind, const tl_v *t, tl_v *y) {
    if (kind == TL_WINOGRAD_2) {
        y[0] = t[0] + t[1] + t[2];
        y[1] = t[1] - t[2] - t[3];
        return;
    }
    if (kind == TL_WINOGRAD_STRIDED || kind == TL_WINOGRAD_STRIDED_BACK) {
        tl_v outer[4];
        tl_winograd_output_two(t, outer);
        TL_UNROLL
        for (int i = 0; i < 4; i++) {
            if (kind == TL_WINOGRAD_STRIDED) {
                y[i] = outer[i] + t[5 + i];
            } else {
                y[2 * i] = t[5 + i];
                y[2 * i + 1] = outer[i];
            }
        }
        return;
    }
    const tl_v even_a = t[1] + t[2];
    const tl_v odd_a = t[1] - t[2];
    const tl_v even_b = t[3] + t[4];
    const tl_v odd_b = t[3] - t[4];
    y[0] = t[0] + even_a + even_b;
    y[1] = odd_a * TL_WINOGRAD_A + odd_b * TL_WINOGRAD_B;
    y[2] = even_a * TL_WINOGRAD_P + even_b * TL_WINOGRAD_Q;
    y[3] = t[5] + odd_a * (TL_WINOGRAD_A * TL_WINOGRAD_P) + odd_b * (TL_WINOGRAD_B * TL_WINOGRAD_Q);
}

/* t = A dy, the adjoint of y = A^T t. */
TL_INLINE void tl_winograd_gradient_line(tl_winograd_kind kind, const tl_v *dy, tl_v *t) {
    if (kind == TL_WINOGRAD_2) {
        t[0] = dy[0];
        t[1] = dy[0] + dy[1];
        t[2] = dy[0] - dy[1];
        t[3] = tl_v_zero() - dy[1];
        return;
    }
    if (kind == TL_WINOGRAD_STRIDED) {
        tl_winograd_gradient_two(dy, t);
        TL_UNROLL
        for (int i = 0; i < 4; i++) {
            t[5 + i] = dy[i];
        }
        return;
    }
    const tl_v even_a = dy[0] + dy[2] * TL_WINOGRAD_P;
    const tl_v odd_a = dy[1] + dy[3] * TL_WINOGRAD_P;
    const tl_v even_b = dy[0] + dy[2] * TL_WINOGRAD_Q;
    const tl_v odd_b = dy[1] + dy[3] * TL_WINOGRAD_Q;
    t[0] = dy[0];
    t[1] = even_a + odd_a * TL_WINOGRAD_A;
    t[2] = even_a - odd_a * TL_WINOGRAD_A;
    t[3] = even_b + odd_b * TL_WINOGRAD_B;
    t[4] = even_b - odd_b * TL_WINOGRAD_B;
    t[5] = dy[3];
}

/* dg = G^T du, the adjoint of u = G g. */
TL_INLINE void tl_winograd_back_line(tl_winograd_kind kind, const tl_v *du, tl_v *dg) {
    if (kind == TL_WINOGRAD_2) {
        const tl_real half = (tl_real)0.5;
        const tl_v even = (du[1] + du[2]) * half;
        dg[0] = du[0] + even;
        dg[1] = (du[1] - du[2]) * half;
        dg[2] = even + du[3];
        return;
    }
    if (kind == TL_WINOGRAD_STRIDED) {
        tl_winograd_back_two(du, &dg[0], &dg[2]);
        dg[1] = du[5];
        return;
    }
    const tl_v even_a = (du[1] + du[2]) * TL_WINOGRAD_F_INVERSE;
    const tl_v odd_a = (du[1] - du[2]) * TL_WINOGRAD_F_INVERSE;
    const tl_v even_b = (du[3] + du[4]) * TL_WINOGRAD_H_INVERSE;
    const tl_v odd_b = (du[3] - du[4]) * TL_WINOGRAD_H_INVERSE;
    dg[0] = du[0] * (1 / TL_WINOGRAD_PQ) + even_a + even_b;
    dg[1] = odd_a * TL_WINOGRAD_A + odd_b * TL_WINOGRAD_B;
    dg[2] = du[5] + even_a * TL_WINOGRAD_P + even_b * TL_WINOGRAD_Q;
}

/* FLOPs of a tile's transforms, a channel: of as many lines as it has columns, then rows. */
static inline double tl_winograd_input_flops(tl_winograd_kind kind) {
    static const int line[4] = {4, 24, 20, 20};
    const tl_winograd_line l = tl_winograd_line_of(kind);
    return (l.inputs + l.elements) * line[kind];
}

static inline double tl_winograd_output_flops(tl_winograd_kind kind) {
    static const int line[4] = {4, 16, 19, 15};
    const tl_winograd_line l = tl_winograd_line_of(kind);
    return (l.elements + l.outputs) * line[kind];
}

static inline double tl_winograd_gradient_flops(tl_winograd_kind kind) {
    static const int line[4] = {2, 16, 16, 0};
    const tl_winograd_line l = tl_winograd_line_of(kind);
    return (l.outputs + l.elements) * line[kind];
}

#endif
