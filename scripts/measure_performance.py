#!/usr/bin/env python3
"""Measures where the time of a training step goes, and what threads and instruction sets bring.

    scripts/measure_performance.py [--build build] [--data-dir CIFAR10] [--output FILE.md]

Trains one epoch of a ResNet-20 with efficient attention under --profile (on CIFAR-10 if --data-dir
says where it is, else on as many images of the long-range task) and reads the trace; runs the
benchmark on one and two threads and with every instruction set that the processor has. Takes some
six minutes; with --output the tables become a section of that file.
"""
import argparse
import collections
import csv
import json
import math
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import report  # noqa: E402

STEP = "^resnet20_step[/](none|efficient)$"
SCALING = ("^(resnet20_step[/].*|small_cnn_step|gemm[/]1024.*|non_local[/]tiled[/]b=1,n=4096.*|"
           "efficient_attention[/]b=1,n=(4096|65536),c=64,k=32.*h=1)$")
MEMORY = "^((batch_norm_relu.*|relu|add)[/].*128x(32x32x16|64x64x64)|(sgd|adamw)[/].*|loader[/](p|a).*)$"
ATTENTION = "^(efficient_attention|non_local)"
CONVOLUTIONS = "^(conv2d|gemm)[/]"
STEPS_OF_AN_EPOCH = 50000 // 128


def one_epoch(build, data_dir):
    """The trace's events and the epoch's seconds."""
    data = (["--dataset", "cifar10", "--data-dir", data_dir] if data_dir else
            ["--dataset", "long-range", "--model", "resnet", "--train-images", "50000",
             "--test-images", "10000"])
    with tempfile.TemporaryDirectory() as folder:
        trace, log = os.path.join(folder, "trace.json"), os.path.join(folder, "log.csv")
        command = [f"{build}/examples/train_classifier", *data, "--depth", "20", "--attention",
                   "efficient", "--attention-stages", "1,2", "--epochs", "1", "--threads", "2",
                   "--profile", trace, "--log", log]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"train_classifier failed: {done.stderr.strip()}")
        with open(trace) as file:
            events = [e for e in json.load(file)["traceEvents"] if e["ph"] == "X"]
        with open(log, newline="") as file:
            seconds = float(next(csv.DictReader(file))["seconds"])
    return events, seconds


def profile_table(events, peak):
    totals = collections.defaultdict(lambda: [0.0, 0.0, 0.0])
    spans = collections.defaultdict(float)
    steps = sum(1 for e in events if e["cat"] == "span" and e["name"] == "step")
    for e in events:
        if e["cat"] == "span":
            spans[e["name"]] += e["dur"] * 1e-6
        else:
            sums = totals[e["name"], e["cat"]]
            sums[0] += e["dur"] * 1e-6
            sums[1] += e["args"]["flops"]
            sums[2] += e["args"]["bytes"]
    rows = []
    for (name, phase), (seconds, flops, size) in sorted(totals.items(), key=lambda x: -x[1][0]):
        rate = flops / seconds * 1e-9
        rows.append((f"{name}, {phase}", f"{1e3 * seconds / steps:.3f}",
                     f"{100 * seconds / spans['step']:.1f}", f"{rate:.0f}",
                     f"{100 * rate / peak:.0f}", f"{size / seconds * 1e-9:.0f}"))
    inside = sum(t[0] for t in totals.values())
    for name in ("gradient norm", "optimizer"):
        inside += spans[name]
        rows.append((name, f"{1e3 * spans[name] / steps:.3f}",
                     f"{100 * spans[name] / spans['step']:.1f}", "", "", ""))
    rows.append(("between operations", f"{1e3 * (spans['step'] - inside) / steps:.3f}",
                 f"{100 * (spans['step'] - inside) / spans['step']:.1f}", "", "", ""))
    flops = sum(t[1] for t in totals.values())
    rate = flops / spans["step"] * 1e-9
    rows.append(("**the step**", f"**{1e3 * spans['step'] / steps:.1f}**", "100", f"{rate:.0f}",
                 f"{100 * rate / peak:.0f}", ""))
    text = report.table(["operation", "ms a step", "% of the step", "GFLOP/s", "% of peak",
                         "GB/s"], rows)
    return text, spans


def positions(case):
    """Of all samples together."""
    return math.prod(int(n) for n in re.findall(r"\b[bn]=(\d+)", case))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(report.ROOT / "build"))
    parser.add_argument("--data-dir")
    parser.add_argument("--output")
    options = parser.parse_args()
    bench = f"{options.build}/bench/bench"
    text = [report.head(shlex.join([os.path.relpath(sys.argv[0], report.ROOT)] + sys.argv[1:])), ""]

    report.wait_for_quiet()
    events, epoch = one_epoch(options.build, options.data_dir)
    steps, peak = report.run_bench(bench, STEP, 2)
    table, spans = profile_table(events, peak)
    text += ["### Where the time of a step goes", "",
             f"ResNet-20 with efficient attention, batch 128, two threads; FMA peak {peak:.0f} "
             "GFLOP/s. FLOPs by the algorithm's formula: convolutions count directly, so that "
             "Winograd can exceed what it computes; what is computed again counts none.", "", table]
    step = steps["resnet20_step/efficient"]["median_ms"] * 1e-3
    steps_time = STEPS_OF_AN_EPOCH * step
    text += ["", "### An epoch", "",
             f"{'CIFAR-10' if options.data_dir else 'long-range, 50,000 and 10,000 images'}, "
             f"augmentation and evaluation included, under --profile: {epoch:.1f} s (loading "
             f"{spans['load batch']:.2f} s, evaluation {spans['evaluation']:.2f} s). "
             f"{STEPS_OF_AN_EPOCH} steps of {1e3 * step:.1f} ms (`resnet20_step/efficient`) are "
             f"{steps_time:.1f} s: the epoch takes **{epoch / steps_time:.2f}** times that.", ""]

    report.wait_for_quiet()
    one, _ = report.run_bench(bench, SCALING, 1)
    two, _ = report.run_bench(bench, SCALING, 2)
    text += ["### Two threads against one", "", report.table(
        ["case", "one, ms", "two, ms", "times as fast", "GFLOP/s on two", "% of peak"],
        [(f"`{case}`", report.number(one[case]["median_ms"]),
          report.number(two[case]["median_ms"]),
          f"{one[case]['median_ms'] / two[case]['median_ms']:.2f}",
          f"{two[case]['gflops']:.0f}", f"{two[case]['percent_peak']:.0f}") for case in two]), ""]

    report.wait_for_quiet()
    rows = []
    best = {}
    for isa in ("avx512", "avx2", "baseline"):
        try:
            found, isa_peak = report.run_bench(bench, STEP, 2, {"TL_ISA": isa})
        except SystemExit:
            rows.append((isa, "not on this processor", "", "", ""))
            continue
        best = best or found
        for case, row in found.items():
            rows.append((f"{isa}, peak {isa_peak:.0f} GFLOP/s", f"`{case}`",
                         report.number(row["median_ms"]), f"{row['percent_peak']:.0f}",
                         f"{row['median_ms'] / best[case]['median_ms']:.2f}"))
    text += ["### Instruction sets", "", report.table(
        ["TL_ISA", "case", "ms", "% of its peak", "times the best's time"], rows), ""]

    report.wait_for_quiet()
    attention, _ = report.run_bench(bench, ATTENTION, 2)
    text += ["### Attention", "", "Forward and backward, executed FLOPs; peak memory holds x, y and "
             "their gradients too.", "", report.table(
                 ["case", "ms", "% of peak", "ns a position", "peak MB"],
                 [(f"`{case}`", report.number(row["median_ms"]), f"{row['percent_peak']:.0f}",
                   f"{1e6 * row['median_ms'] / positions(case):.0f}",
                   f"{row['peak_bytes'] * 1e-6:.1f}") for case, row in attention.items()]), ""]

    report.wait_for_quiet()
    products, _ = report.run_bench(bench, CONVOLUTIONS, 2)
    text += ["### Products and convolutions", "", report.table(
        ["case", "ms", "GFLOP/s", "% of peak"],
        [(f"`{case}`", report.number(row["median_ms"]), f"{row['gflops']:.0f}",
          f"{row['percent_peak']:.0f}") for case, row in products.items()]), ""]

    report.wait_for_quiet()
    memory, _ = report.run_bench(bench, MEMORY, 2)
    text += ["### Where memory is the limit", "", report.table(
        ["case", "ms", "GB/s"], [(f"`{case}`", report.number(row["median_ms"]),
                                 f"{row['gbytes_per_s']:.0f}") for case, row in memory.items()])]
    print("\n".join(text))
    if options.output:
        report.write_section(options.output, "measured", "\n".join(text))


if __name__ == "__main__":
    main()
