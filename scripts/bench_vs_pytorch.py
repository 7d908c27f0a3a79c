#!/usr/bin/env python3
"""Compares Tapeline with PyTorch, and with JAX and NumPy where they are, on this machine.

    scripts/bench_vs_pytorch.py [--python PYTHON]... [--threads T] [--rounds R] [--filter PATTERN]
                                [--compile] [--no-memory] [--output docs/performance.md]

Each interpreter given (default: this one) is asked for what it can import. Our benchmark and every
peer run a case in turn, --rounds times, so that noise meets all of them; what counts is the median
over the rounds of the ratios of medians. Peers get the same shapes, threads and float32, the layout
and formulation they are fastest in, and OpenBLAS as they find it: OPENBLAS_CORETYPE and
OPENBLAS_L2_SIZE, which may pin it to slower kernels, are removed from their environment, and
Debian's OpenMP build of it comes first on their library path. --compile adds rows with
torch.compile, which takes minutes. With --output the tables become a section of that file.
"""
import argparse
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import report  # noqa: E402

PEERS = ("torch", "jax", "numpy")
BLAS = "/usr/lib/x86_64-linux-gnu/openblas-openmp"
CONV = [f"conv2d/{direction}/b=128,hw={shape}" for shape in (
    "32,ci=16,co=16,k=3,s=1", "16,ci=32,co=32,k=3,s=1", "8,ci=64,co=64,k=3,s=1",
    "32,ci=3,co=16,k=3,s=1", "32,ci=16,co=32,k=3,s=2")
    for direction in ("forward", "backward_input", "backward_weight")]
CASES = (
    ["resnet20_step/none", "resnet20_step/efficient", "resnet20_step/non_local", "small_cnn_step"]
    + [f"efficient_attention/b=1,n={n},c=64,k=32,v=64,h=1"
       for n in (1024, 4096, 16384, 65536, 262144)]
    + ["efficient_attention/b=128,n=256,c=64,k=32,v=64,h=4"]
    + [f"non_local/tiled/b=1,n={n},c=64,k=32,v=64,h=1" for n in (1024, 4096, 16384)]
    + [f"gemm/{shape}" for shape in ("1024x1024x1024", "64x16384x576", "64x4096x64", "32x32x4096",
                                     "4096x32x32", "16x16384x144", "256x256x256")]
    + CONV)
IMAGES = {"small_cnn_step": 64, "resnet20_step/none": 128, "resnet20_step/efficient": 128,
          "resnet20_step/non_local": 128}
MEMORY = [case for case in CASES if case.startswith("resnet20_step")] + ["small_cnn_step"]


class Peer:
    """A process of scripts/peers under some interpreter; who is None if it has not the library."""

    def __init__(self, kind, python, options):
        self.kind = kind
        script = pathlib.Path(__file__).resolve().parent / "peers" / f"peer_{kind}.py"
        self.command = [python, str(script), "--threads", str(options.threads)]
        if options.compile:
            self.command.append("--compile")
        self.environment = {k: v for k, v in os.environ.items()
                            if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_WAIT_POLICY")}
        self.environment["OMP_NUM_THREADS"] = str(options.threads)
        self.environment["CUDA_VISIBLE_DEVICES"] = ""
        self.environment["LD_LIBRARY_PATH"] = BLAS
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        env=self.environment)
        self.who = self.read().get("who")

    def read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"missing": "the peer ended"}

    def run(self, case, seconds):
        if self.process.poll() is not None:
            return {"missing": "the peer ended"}
        self.process.stdin.write(json.dumps({"case": case, "seconds": seconds}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def peak_memory(self, case):
        done = subprocess.run(self.command + ["--memory", case], capture_output=True, text=True,
                              env=self.environment)
        return json.loads(done.stdout).get("bytes") if done.returncode == 0 else None

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def our_peak_memory(bench, case, threads):
    """The highest resident set of the benchmark on one case over that on none."""
    peaks = []
    for pattern in ("^$", report.escaped(case)):
        process = subprocess.Popen([bench, "--threads", str(threads), "--filter", pattern],
                                   stdout=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            try:
                with open(f"/proc/{process.pid}/status") as status:
                    found = re.search(r"VmHWM:\s+(\d+)", status.read())
                peak = max(peak, int(found[1]) * 1024 if found else 0)
            except (OSError, ProcessLookupError):
                pass
            time.sleep(0.005)
        peaks.append(peak)
    return peaks[1] - peaks[0]


def compare(bench, peers, case, options):
    """{(who, variant): (our seconds, its seconds, ratio, rounds on a busy machine)}, and what is
    missing."""
    rounds, missing = {}, {}
    for _ in range(options.rounds):
        noisy = not report.wait_for_quiet(options.patience)
        rows, _ = report.run_bench(bench, report.escaped(case), options.threads)
        ours = rows[case]["median_ms"] * 1e-3
        for peer in peers:
            answer = peer.run(case, options.seconds) if peer.who not in missing else {}
            if "missing" in answer:
                missing[peer.who] = answer["missing"]
            for variant, times in answer.get("times", {}).items():
                rounds.setdefault((peer.who, variant), []).append(
                    (ours, statistics.median(times), noisy))
    results = {}
    for key, pairs in rounds.items():
        results[key] = (statistics.median(p[0] for p in pairs),
                        statistics.median(p[1] for p in pairs),
                        statistics.median(p[1] / p[0] for p in pairs),
                        sum(p[2] for p in pairs))
    return results, missing


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help="an interpreter with a peer")
    parser.add_argument("--bench", default=str(report.ROOT / "build" / "bench" / "bench"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a peer's turn")
    parser.add_argument("--patience", type=float, default=30.0,
                        help="seconds to wait for a quiet machine before a round")
    parser.add_argument("--filter", default="", help="only cases that match")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--output", help="the file whose section is written")
    options = parser.parse_args()
    if not os.access(options.bench, os.X_OK):
        parser.error(f"{options.bench}: not there; build it with cmake, or give --bench")
    return options


def main():
    options = parse()
    head = report.head(shlex.join([os.path.relpath(sys.argv[0], report.ROOT)] + sys.argv[1:]))
    peers = []
    for python in options.python or [sys.executable]:
        for kind in PEERS:
            peer = Peer(kind, python, options)
            if peer.who is None:
                print(f"{python} has no {kind}", file=sys.stderr)
            else:
                peers.append(peer)
    if not peers:
        raise SystemExit("no interpreter has PyTorch, JAX or NumPy")
    speed, absent = [], set()
    for case in (c for c in CASES if re.search(options.filter, c)):
        results, missing = compare(options.bench, peers, case, options)
        absent |= {f"{who}: {case}: {why}" for who, why in missing.items()
                   if not why.startswith(("not written", "NumPy only"))}
        for (who, variant), (ours, theirs, ratio, noisy) in results.items():
            images = IMAGES.get(case)
            speed.append((f"`{case}`", f"{who}, {variant.lstrip('+')}", report.number(ours * 1e3),
                          report.number(theirs * 1e3), f"{ratio:.2f}" + ("*" if noisy else ""),
                          f"{images / ours:,.0f} / {images / theirs:,.0f}" if images else ""))
            print("  ".join(speed[-1]), flush=True)
    text = [head, "", f"Peers: {'; '.join(p.who for p in peers)}; {options.threads} threads, "
            f"{options.rounds} rounds in turn. A star: other "
            "work was running during a round, and the figure says little.", "",
            report.table(["case", "peer, its variant", "Tapeline ms", "peer ms", "times as fast",
                          "images/s, ours / its"], speed)]
    memory = []
    for case in (c for c in MEMORY if re.search(options.filter, c) and not options.no_memory):
        ours = our_peak_memory(options.bench, case, options.threads)
        for peer in (p for p in peers if p.kind == "torch"):
            theirs = peer.peak_memory(case)
            memory.append((f"`{case}`", peer.who, f"{ours / 1e6:.0f}",
                           f"{theirs / 1e6:.0f}" if theirs else "failed",
                           f"{ours / theirs:.2f}" if theirs else ""))
            print("  ".join(memory[-1]), flush=True)
    if memory:
        text += ["", "Peak memory of a training step: the highest resident set over that after "
                 "import and start-up.", "",
                 report.table(["case", "peer", "Tapeline MB", "peer MB", "ours / its"], memory)]
    if absent:
        text += ["", "Missing:", ""] + [f"- {line}" for line in sorted(absent)]
    for peer in peers:
        peer.close()
    if options.output:
        report.write_section(options.output, "comparison", "\n".join(text))


if __name__ == "__main__":
    main()
