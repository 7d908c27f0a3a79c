#!/usr/bin/env python3
"""Rounding errors of Winograd's algorithms in single precision, by the points they are built from.

Builds A^T, G and B^T of F(m, r) from rational points (Toom and Cook), convolves random images of
unit variance with each, and prints the errors against double precision beside those of the
definition summed in single precision. `--matrices` prints the matrices themselves: those that
lib/src/kernels/k_conv_winograd_lines.h writes out.

Needs NumPy.
"""
import argparse
from fractions import Fraction

import numpy as np


def polynomial_product(roots):
    """Coefficients, lowest first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0)] + coefficients
        scaled = [-root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled)]
    return coefficients


def winograd_matrices(points, outputs, taps):
    """A^T [outputs, n], G [n, taps] and B^T [n, n] for n - 1 points and infinity."""
    n = outputs + taps - 1
    assert len(points) == n - 1
    a, g, b = [], [], []
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1:]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        a.append([point**k for k in range(outputs)])
        g.append([point**k / scale for k in range(taps)])
        b.append(polynomial_product(others) + [Fraction(0)])
    a.append([Fraction(0)] * (outputs - 1) + [Fraction(1)])
    g.append([Fraction(0)] * (taps - 1) + [Fraction(1)])
    b.append(polynomial_product(points))
    return np.array(a).T, np.array(g), np.array(b)


def strided_matrices(points):
    """The line of stride 2: outer taps by F(4, 2) on every other input, the middle tap by itself."""
    a2, g2, b2 = winograd_matrices(points, 4, 2)
    zero = Fraction(0)
    b = np.full((9, 9), zero)
    b[:5, ::2] = b2
    g = np.full((9, 3), zero)
    g[:5, 0] = g2[:, 0]
    g[:5, 2] = g2[:, 1]
    a = np.full((4, 9), zero)
    a[:, :5] = a2
    for i in range(4):
        b[5 + i, 2 * i + 1] = Fraction(1)
        g[5 + i, 1] = Fraction(1)
        a[i, 5 + i] = Fraction(1)
    return a, g, b


def errors(matrices, stride, channels, tiles, rng):
    """Largest error over largest output, and root mean squares, of Winograd and of the sum."""
    a, g, b = (np.array(m, dtype=np.float64).astype(np.float32) for m in matrices)
    m, n = a.shape[0], b.shape[0]
    x = rng.standard_normal((tiles, channels, n, n)).astype(np.float32)
    w = rng.standard_normal((4, channels, 3, 3)).astype(np.float32)
    v = np.einsum("ij,tcjk,lk->tcil", b, x, b)
    u = np.einsum("ij,ocjk,lk->ocil", g, w, g)
    products = np.zeros((tiles, 4, n, n), np.float32)
    want = np.zeros((tiles, 4, m, m))
    summed = np.zeros((tiles, 4, m, m), np.float32)
    for c in range(channels):
        products += v[:, None, c] * u[None, :, c]
        for i in range(3):
            for j in range(3):
                part = x[:, None, c, i:i + stride * m:stride, j:j + stride * m:stride][..., :m, :m]
                tap = w[None, :, c, i, j][..., None, None]
                want += part.astype(np.float64) * tap
                summed += part * tap
    got = np.einsum("ij,tojk,lk->toil", a, products, a)

    def measure(values):
        error = values - want
        return (np.abs(error).max() / np.abs(want).max(),
                np.sqrt(np.mean(error**2) / np.mean(want**2)))

    return measure(got), measure(summed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--tiles", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--matrices", action="store_true", help="print the matrices as well")
    options = parser.parse_args()
    f = Fraction
    cases = [
        ("F(2, 3)", "0 1 -1", 1, winograd_matrices([f(0), f(1), f(-1)], 2, 3)),
        ("F(4, 3), usual", "0 1 -1 2 -2", 1,
         winograd_matrices([f(0), f(1), f(-1), f(2), f(-2)], 4, 3)),
        ("F(4, 3), ours", "0 5/8 -5/8 3/2 -3/2", 1,
         winograd_matrices([f(0), f(5, 8), f(-5, 8), f(3, 2), f(-3, 2)], 4, 3)),
        ("stride 2, ours", "1/2 -1/2 5/4 -5/4", 2,
         strided_matrices([f(1, 2), f(-1, 2), f(5, 4), f(-5, 4)])),
    ]
    print(f"{options.channels} channels, single precision; errors relative to the outputs")
    print(f"{'algorithm':<16} {'points':<20} {'largest':>9} {'rms':>9}   "
          f"{'definition: largest':>19} {'rms':>9}")
    for name, points, stride, matrices in cases:
        rng = np.random.default_rng(options.seed)
        ours, plain = errors(matrices, stride, options.channels, options.tiles, rng)
        print(f"{name:<16} {points:<20} {ours[0]:9.1e} {ours[1]:9.1e}   "
              f"{plain[0]:19.1e} {plain[1]:9.1e}")
        if options.matrices:
            for label, matrix in zip(("A^T", "G", "B^T"), matrices):
                print(f"  {label}")
                for row in matrix:
                    print("    " + " ".join(f"{str(value):>9}" for value in row))


if __name__ == "__main__":
    main()
