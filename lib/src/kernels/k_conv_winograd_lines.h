/* k_conv_winograd_lines.h - Winograd's transforms of one line, for F(2, 3) and F(4, 3).
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
 * precision is six times that of the definition; a and b around a b = 1 bring it down to twice
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
 */
#ifndef TL_K_CONV_WINOGRAD_LINES_H
#define TL_K_CONV_WINOGRAD_LINES_H

#include "kernels/simd.h"

enum { TL_WINOGRAD_LINE = 6 }; /* most values of a line: m + 2 */

#define TL_WINOGRAD_A ((tl_real)0.625)
#define TL_WINOGRAD_B ((tl_real)1.5)
#define TL_WINOGRAD_P (TL_WINOGRAD_A * TL_WINOGRAD_A)
#define TL_WINOGRAD_Q (TL_WINOGRAD_B * TL_WINOGRAD_B)
#define TL_WINOGRAD_PQ (TL_WINOGRAD_P * TL_WINOGRAD_Q)
#define TL_WINOGRAD_F_INVERSE (1 / (2 * TL_WINOGRAD_P * (TL_WINOGRAD_P - TL_WINOGRAD_Q)))
#define TL_WINOGRAD_H_INVERSE (1 / (2 * TL_WINOGRAD_Q * (TL_WINOGRAD_Q - TL_WINOGRAD_P)))

/* v = B^T d, of inputs. */
TL_INLINE void tl_winograd_input_line(const int m, const tl_v *d, tl_v *v) {
    if (m == 2) {
        v[0] = d[0] - d[2];
        v[1] = d[1] + d[2];
        v[2] = d[2] - d[1];
        v[3] = d[1] - d[3];
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
TL_INLINE void tl_winograd_weight_line(const int m, const tl_v *g, tl_v *u) {
    if (m == 2) {
        const tl_real half = (tl_real)0.5;
        const tl_v even = (g[0] + g[2]) * half;
        const tl_v odd = g[1] * half;
        u[0] = g[0];
        u[1] = even + odd;
        u[2] = even - odd;
        u[3] = g[2];
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
TL_INLINE void tl_winograd_output_line(const int m, const tl_v *t, tl_v *y) {
    if (m == 2) {
        y[0] = t[0] + t[1] + t[2];
        y[1] = t[1] - t[2] - t[3];
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
TL_INLINE void tl_winograd_gradient_line(const int m, const tl_v *dy, tl_v *t) {
    if (m == 2) {
        t[0] = dy[0];
        t[1] = dy[0] + dy[1];
        t[2] = dy[0] - dy[1];
        t[3] = tl_v_zero() - dy[1];
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
TL_INLINE void tl_winograd_back_line(const int m, const tl_v *du, tl_v *dg) {
    if (m == 2) {
        const tl_real half = (tl_real)0.5;
        const tl_v even = (du[1] + du[2]) * half;
        dg[0] = du[0] + even;
        dg[1] = (du[1] - du[2]) * half;
        dg[2] = even + du[3];
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

/* FLOPs of a tile's transforms, a channel: of its n = m + 2 columns and n rows, of n and m, or of m
 * and n lines. */
static inline double tl_winograd_input_flops(int m) {
    return m == 2 ? 8 * 4 : 12 * 24;
}

static inline double tl_winograd_output_flops(int m) {
    return m == 2 ? 6 * 4 : 10 * 16;
}

static inline double tl_winograd_gradient_flops(int m) {
    return m == 2 ? 6 * 2 : 10 * 16;
}

#endif
