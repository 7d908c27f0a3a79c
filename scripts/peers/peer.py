"""What the peers share: a peer is a process that is told on stdin what to run and answers on stdout.

Each line in is {"case": NAME, "seconds": S}; the answer is {"times": {variant: [seconds, ...]}} or
{"missing": REASON}. A variant is a way in which the peer can do the case; names that start with "+"
are extra rows, of the others the fastest counts. The first line out says who the peer is.
`--memory CASE` runs a few steps instead and answers {"bytes": B}: the highest resident set over
that after import and start-up.
"""
import argparse
import gc
import json
import sys
import time


class Missing(Exception):
    """The peer cannot do this case."""


def memory(field):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise Missing(f"no {field} in /proc/self/status")


def measure(run, seconds):
    times = []
    start = time.perf_counter()
    while not times or (time.perf_counter() - start < seconds and len(times) < 1000):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return times


def answer(request, cases, prepare):
    name = request["case"]
    try:
        if name not in cases:
            cases.clear()
            gc.collect()
            cases[name] = prepare(name)
            for run in cases[name].values():
                run()  # allocates
                run()  # is warm
        runs = cases[name]
        if len([v for v in runs if v[0] != "+"]) > 1:  # find the best, then keep to it
            best = min((v for v in runs if v[0] != "+"),
                       key=lambda v: min(measure(runs[v], request["seconds"] / 4)))
            for variant in [v for v in runs if v[0] != "+" and v != best]:
                del runs[variant]
        return {"times": {v: measure(run, request["seconds"]) for v, run in runs.items()}}
    except Missing as missing:
        return {"missing": str(missing)}
    except Exception as error:  # said in the table, not hidden
        return {"missing": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def serve(start):
    """start(threads, compiled) -> (who, prepare), prepare(case) -> {variant: run}."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--memory")
    options = parser.parse_args()
    try:
        who, prepare = start(options.threads, options.compile)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    if options.memory:
        before = memory("VmRSS")
        run = next(iter(prepare(options.memory).values()))
        for _ in range(5):
            run()
        print(json.dumps({"bytes": memory("VmHWM") - before}), flush=True)
        return
    print(json.dumps({"who": who}), flush=True)
    cases = {}
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), cases, prepare)), flush=True)
