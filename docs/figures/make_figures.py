#!/usr/bin/env python3
"""Makes the figures of the documentation from what lies beside this script: graphviz (dot) for
*.dot, gnuplot for curves and maps, plain SVG for the boxes. Debian: apt-get install graphviz
gnuplot-nox. The figures from measurements read the tables in this folder.

    make_figures.py [BUILD CHECKPOINT]     with a network of lesson 6: its maps too
"""

import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGES = os.path.join(HERE, "..", "images")
LESSONS = os.path.join(HERE, "..", "lessons", "images")


def dot(name, folder):
    target = os.path.join(folder, f"{name}.svg")
    subprocess.run(["dot", "-Tsvg", os.path.join(HERE, f"{name}.dot"), "-o", target], check=True)


def gnuplot(folder, name, size, commands):
    head = f"""
set terminal svg size {size} font "DejaVu Sans,13" background "white"
set output "{os.path.join(folder, name)}.svg"
set grid lc rgb "#dddddd"
set border lc rgb "#555555"
"""
    subprocess.run(["gnuplot"], input=head + commands, text=True, check=True)


def block(name, rows):
    """A gnuplot data block."""
    lines = "\n".join(" ".join(str(value) for value in row) for row in rows)
    return f"${name} << EOD\n{lines}\nEOD\n"


# ------------------------------------------------------------------ lesson 2


def single(value):
    """The nearest float32."""
    return struct.unpack("f", struct.pack("f", value))[0]


def in_float(x):
    return single(math.exp(single(math.sin(single(x)))))


def difference_error():
    """The error of a central difference of exp(sin x) at 1, over the step."""
    exact = math.cos(1.0) * math.exp(math.sin(1.0))
    rows = []
    for tenth in range(-100, 1):
        h = 10.0 ** (tenth / 10.0)
        up, down = single(1.0 + h), single(1.0 - h)
        error_float = math.nan
        if up != down:
            slope = single(single(in_float(up) - in_float(down)) / single(up - down))
            error_float = abs(slope - exact)
        f = [math.exp(math.sin(1.0 + s * h)) for s in (1, -1)]
        error_double = abs((f[0] - f[1]) / (2 * h) - exact)
        rows.append((h, error_float, max(error_double, 1e-16)))
    gnuplot(
        LESSONS,
        "difference-error",
        "720,400",
        block("data", rows)
        + """
set logscale xy
set format "10^{%L}"
set xlabel "step h"
set ylabel "error of the difference quotient"
set xrange [1e-10:1]
set yrange [1e-13:10]
set key bottom left
plot $data using 1:2 with lines lw 2 lc rgb "#c0504d" title "in float", \\
     $data using 1:3 with lines lw 2 lc rgb "#2f6eba" title "in double", \\
     0.6 * x**2 with lines dt 2 lc rgb "#777777" title "truncation, as h²"
""",
    )


# ------------------------------------------------------------------ lesson 3


def box(x, y, width, height, label, colour):
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}" '
        f'stroke="#555555"/><text x="{x + width / 2}" y="{y + height / 2 + 4}" '
        f'text-anchor="middle">{label}</text>\n'
    )


def text(x, y, label, anchor="middle", weight="normal"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{label}</text>\n'


def orders():
    """The shapes of (Q K^T) V and Q (K^T V), n = 120, k = 24, v = 40 in pixels."""
    n, k, v = 120, 24, 40
    blue, green, red = "#dbe9f6", "#e2efda", "#fbe5d6"
    out = '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="370" '
    out += 'font-family="DejaVu Sans" font-size="13"><rect width="760" height="370" fill="white"/>\n'
    y = 40
    out += text(20, 24, "(Q K′) V: the map of all pairs is formed", "start", "bold")
    out += box(40, y, k, n, "Q", blue) + text(78, y + n / 2, "×")
    out += box(92, y + n / 2 - k / 2, n, k, "K′", blue) + text(232, y + n / 2 + 4, "=")
    out += box(252, y, n, n, "n × n", red) + text(388, y + n / 2, "×")
    out += box(402, y, v, n, "V", blue) + text(462, y + n / 2 + 4, "=")
    out += box(482, y, v, n, "n × v", green)
    out += text(550, y + 45, "2 n² (k + v) FLOPs", "start")
    out += text(550, y + 70, "n² numbers in between", "start")
    y = 220
    out += text(20, 204, "Q (K′ V): the context is formed", "start", "bold")
    out += box(40, y + n / 2 - k / 2, n, k, "K′", blue) + text(174, y + n / 2, "×")
    out += box(188, y, v, n, "V", blue) + text(246, y + n / 2 + 4, "=")
    out += box(264, y + n / 2 - k / 2, v, k, "k × v", red)
    out += text(326, y + n / 2 + 4, "then")
    out += box(362, y, k, n, "Q", blue) + text(398, y + n / 2, "×")
    out += box(410, y + n / 2 - k / 2, v, k, "", red) + text(465, y + n / 2 + 4, "=")
    out += box(482, y, v, n, "n × v", green)
    out += text(550, y + 45, "4 n k v FLOPs", "start")
    out += text(550, y + 70, "k v numbers in between", "start")
    out += "</svg>\n"
    with open(os.path.join(LESSONS, "orders.svg"), "w", encoding="utf-8") as file:
        file.write(out)


# ------------------------------------------------------------------ lesson 4


def softmax(values):
    largest = max(values)
    odds = [math.exp(value - largest) for value in values]
    return [o / sum(odds) for o in odds]


def two_maps():
    """Weights between 32 positions: softmax of all pairs, and efficient attention with k = 4."""
    n, k, factor = 32, 4, 3.0
    draw = random.Random(3)
    queries = [[factor * draw.gauss(0, 1) for _ in range(k)] for _ in range(n)]
    keys = [[factor * draw.gauss(0, 1) for _ in range(k)] for _ in range(n)]
    pairs = [
        softmax([sum(q[a] * key[a] for a in range(k)) / math.sqrt(k) for key in keys])
        for q in queries
    ]
    by_position = [softmax([key[a] for key in keys]) for a in range(k)]
    by_channel = [softmax(q) for q in queries]
    efficient = [
        [sum(q[a] * by_position[a][j] for a in range(k)) for j in range(n)] for q in by_channel
    ]
    blocks = ""
    for name, weights in (("pairs", pairs), ("efficient", efficient)):
        rows = [(j, i, weights[i][j]) for i in range(n) for j in range(n)]
        blocks += block(name, rows)
    gnuplot(
        LESSONS,
        "two-maps",
        "760,390",
        blocks
        + """
set multiplot layout 1,2
unset grid
set xrange [-0.5:31.5]
set yrange [31.5:-0.5]
set size ratio 1
set xtics 8
set ytics 8
set xlabel "position attended to"
set cbrange [0:0.6]
set palette defined (0 "#ffffff", 0.3 "#2f6eba", 1 "#10254a")
set ylabel "query position"
set title "softmax of all pairs"
plot $pairs with image pixels notitle
set title "efficient attention, k = 4"
plot $efficient with image pixels notitle
""",
    )


# ------------------------------------------------------------------ lesson 7


def crossover():
    path = os.path.join(HERE, "crossover.txt")
    gnuplot(
        LESSONS,
        "crossover",
        "720,420",
        f"""
set logscale xy
set xlabel "positions n"
set ylabel "forward and backward, ms"
set xrange [16:4096]
set format x "%.0f"
set xtics 4
set key top left
plot "{path}" using 1:2 with linespoints lw 2 pt 7 ps 0.6 lc rgb "#2f6eba" title "efficient", \\
     "" using 1:3 with linespoints lw 2 pt 7 ps 0.6 lc rgb "#c0504d" title "non-local, tiled", \\
     "" using 1:4 with linespoints lw 2 pt 7 ps 0.6 lc rgb "#e0a030" title "non-local, materialized"
""",
    )


# ------------------------------------------------------------------ lesson 6


def maps(build, checkpoint):
    """The maps of a network for the long-range task on the first of its test images."""
    examples = os.path.join(HERE, "..", "..", "examples")
    include = os.path.join(HERE, "..", "..", "lib", "include")
    with open(os.path.join(build, "cmake", "tapeline.pc"), encoding="utf-8") as file:
        private = re.search(r"^Libs.private: (.*)$", file.read(), re.M).group(1).split()
    with tempfile.TemporaryDirectory() as folder:
        program, image = os.path.join(folder, "program"), os.path.join(folder, "image.png")
        subprocess.run(
            ["cc", f"-I{include}", f"-I{examples}", os.path.join(HERE, "long_range_image.c")]
            + ["-o", program, os.path.join(build, "examples", "libexample_common.a")]
            + [os.path.join(build, "libtapeline.a"), "-lpng", *private],
            check=True,
        )
        subprocess.run([program, "0", image], check=True)
        subprocess.run(
            [os.path.join(build, "examples", "show_attention"), "--checkpoint", checkpoint]
            + ["--image", image, "--output", os.path.join(LESSONS, "maps.png")],
            check=True,
        )


def main():
    os.makedirs(LESSONS, exist_ok=True)
    dot("architecture", IMAGES)
    dot("tape", LESSONS)
    difference_error()
    orders()
    two_maps()
    crossover()
    if len(sys.argv) == 3:
        maps(sys.argv[1], sys.argv[2])


if __name__ == "__main__":
    main()
