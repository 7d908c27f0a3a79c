"""What the measuring scripts share: the machine, runs of the benchmark, tables, sections of docs."""
import csv
import datetime
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def machine():
    """Family and model tell apart processors whose names a host shortens."""
    told = {"model name": "unknown processor", "cpu family": "?", "model": "?", "flags": ""}
    with open("/proc/cpuinfo") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name.strip() in told:
                told[name.strip()] = value.strip()
    flags = f" {told['flags']} "
    isa = "AVX-512" if " avx512f " in flags else "AVX2" if " avx2 " in flags else "no AVX2"
    model = f"{told['model name']} (family {told['cpu family']}, model {told['model']})"
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {isa}"


def commit():
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run(git + ["rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(git + ["status", "--porcelain", "-uno", "lib", "bench", "scripts"],
                             capture_output=True, text=True)
    return (name.stdout.strip() or "unknown") + (" with changes" if changed.stdout.strip() else "")


def head(command):
    return (f"{datetime.date.today()}, commit {commit()}, {machine()}; load before: "
            f"{os.getloadavg()[0]:.2f}. Command: `{command}`.")


def busy_share(seconds):
    def read():
        with open("/proc/stat") as stat:
            numbers = [int(n) for n in stat.readline().split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    total, idle = read()
    time.sleep(seconds)
    now_total, now_idle = read()
    return 1 - (now_idle - idle) / max(1, now_total - total)


def wait_for_quiet(limit=60):
    """Until the machine does little else; False if it has not within `limit` seconds."""
    start = time.monotonic()
    while busy_share(0.5) > 0.1:
        if time.monotonic() - start > limit:
            return False
    return True


def escaped(case):
    return "^" + case.replace("/", "[/]") + "$"


def run_bench(bench, pattern, threads, environment=None):
    """Rows of the CSV by case, numbers as floats, and the measured peak in GFLOP/s."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.csv")
        done = subprocess.run([bench, "--filter", pattern, "--threads", str(threads), "--csv", path],
                              capture_output=True, text=True,
                              env={**os.environ, **(environment or {})})
        if done.returncode != 0:
            raise SystemExit(f"{bench} failed: {done.stderr.strip()}")
        peak = float(done.stdout.split("FMA peak ")[1].split()[0])
        with open(path, newline="") as file:
            rows = {row["case"]: {k: float(v) for k, v in row.items() if k != "case"}
                    for row in csv.DictReader(file)}
    return rows, peak


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |",
             "|" + "|".join("---" if i == 0 else "---:" for i in range(len(header))) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_section(path, name, text):
    """Puts `text` between the markers of that name, or with new ones at the end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    path = pathlib.Path(path)
    old = path.read_text() if path.exists() else ""
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in old and end in old:
        new = old[:old.index(begin)] + section + old[old.index(end) + len(end):]
    else:
        new = old.rstrip() + "\n\n" + section + "\n"
    path.write_text(new)
