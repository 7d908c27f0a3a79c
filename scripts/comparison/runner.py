"""Runs units of work: each appends its row as it ends; what has a row is not run again; a run that
takes long is cut into slices, from checkpoint to checkpoint; Ctrl-C stops cleanly."""
import csv
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time

SLICE_SECONDS = 14 * 60

RUN_COLUMNS = ["key", "status", "part", "group", "kind", "seed", "metric", "value", "epochs_done",
               "epochs", "steps", "step_seconds", "total_seconds", "context_peak_bytes",
               "system_peak_bytes", "parameters", "step_gflop", "step_gflop_executed", "message",
               "command", "commit", "date"]
RESOURCE_COLUMNS = ["key", "status", "setting", "size", "module", "positions", "forward_flops",
                    "training_flops", "forward_flops_executed", "training_flops_executed",
                    "inference_peak_bytes", "peak_bytes", "measured_forward_seconds",
                    "measured_training_seconds", "measured_peak_bytes",
                    "measured_system_peak_bytes", "message", "command", "commit", "date"]


class Interrupted(Exception):
    pass


class Failed(Exception):
    pass


def die_with_parent():
    """In the child: SIGTERM (a clean stop) when this script is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Store:
    """A CSV file that rows are appended to."""

    def __init__(self, path, columns):
        self.path = pathlib.Path(path)
        self.columns = columns
        self.rows = {}
        if self.path.exists():
            with open(self.path, newline="") as file:
                for row in csv.DictReader(file):
                    if row.get("date"):  # else the row was cut off
                        self.rows[row["key"]] = row

    def find(self, unit):
        row = self.rows.get(unit.key)
        return row if row is not None and row["command"] == unit.command else None

    def append(self, row):
        row = {name: str(row.get(name, "")) for name in self.columns}
        self.rows[row["key"]] = row
        whole = self.path.exists() and self.path.read_bytes()[-1:] == b"\n"
        with open(self.path, "a", newline="") as file:
            if self.path.stat().st_size > 0 and not whole:
                file.write("\n")  # after a row that was cut off
            writer = csv.DictWriter(file, self.columns)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())


class Runner:
    def __init__(self, programs, output, stamp, data_dir):
        self.data_dir = data_dir  # what DIR in commands stands for
        self.programs = pathlib.Path(programs)
        self.output = pathlib.Path(output)
        self.stamp = stamp  # commit and date, for the rows
        self.stopping = False
        for name in ("logs", "checkpoints"):
            (self.output / name).mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)

    def stop(self, *_):
        self.stopping = True

    def call(self, command, text_path, seconds=0):
        """Runs a command with its output to a file. Returns (exit code, peak bytes, seconds); the
        code is 130 if it was asked to stop, by the user or because `seconds` were over."""
        started = time.monotonic()
        peak = 0
        asked = False
        with open(text_path, "ab") as text:
            child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL,
                                     stdout=text, stderr=subprocess.STDOUT,
                                     start_new_session=True, preexec_fn=die_with_parent)
            while True:
                peak = max(peak, system_peak(child.pid))
                try:
                    code = child.wait(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    late = seconds and time.monotonic() - started > seconds
                    if (self.stopping or late) and not asked:
                        child.send_signal(signal.SIGINT)
                        asked = True
        if self.stopping:
            raise Interrupted
        return code, peak, time.monotonic() - started

    def train(self, run):
        """The row of a training run."""
        log = self.output / "logs" / f"{run.key}.csv"
        text = self.output / "logs" / f"{run.key}.txt"
        checkpoint = self.output / "checkpoints" / f"{run.key}.h5"
        marker = self.output / "checkpoints" / f"{run.key}.command"
        if checkpoint.exists() and (not marker.exists() or marker.read_text() != run.command):
            checkpoint.unlink()  # of another plan
        if not checkpoint.exists():
            text.unlink(missing_ok=True)
            log.unlink(missing_ok=True)
        marker.write_text(run.command)
        total = spent(text)
        peak = 0
        while True:
            arguments = [self.data_dir if a == "DIR" else a for a in run.arguments]
            command = [self.programs / run.program, *arguments, "--seed", run.seed,
                       "--checkpoint", checkpoint, "--log", log]
            if checkpoint.exists():
                command += ["--resume", checkpoint]
            left = max(run.cap - total, 1) if run.cap else SLICE_SECONDS
            code, used, seconds = self.call(command, text, min(left, SLICE_SECONDS))
            peak = max(peak, used)
            total += seconds
            with open(text, "a") as file:
                file.write(f"\n[exit code {code} after {seconds:.1f} s, peak {peak} bytes]\n")
            if code != 130 or (run.cap and total >= run.cap):
                return self.row_of(run, code, peak, total, log, text)

    def row_of(self, run, code, peak, total, log, text):
        said = text.read_text(errors="replace")
        status, message = "done", ""
        if code == 130:
            status, message = "stopped", f"stopped after {run.cap} s"
        elif code != 0:
            message = last_error(said, run.program)
            if "out of memory" not in message and "of the limit of" not in message:
                raise Failed(f"{run.command}\n  exit code {code}: {message}\n  see {text}")
            status = "does not fit"
        rows = read_csv(log)
        last = rows[-1] if rows and status != "does not fit" else {}
        steps = re.findall(r"interrupted after step (\d+)", said)
        head = re.search(r": (\d+) parameters", said)
        cost = re.search(r"a step: (\S+) GFLOP by the algorithms, (\S+) executed", said)
        times = sorted(float(row["step_seconds"]) for row in rows)
        step = times[len(times) // 2] if times else ""
        if not times and steps:
            step = total / int(steps[-1])
        return {"key": run.key, "status": status, "part": run.part, "group": run.group,
                "kind": run.kind, "seed": run.seed, "metric": run.metric,
                "value": last.get(run.metric, ""), "epochs_done": len(rows),
                "epochs": argument_of(run, "--epochs"), "steps": steps[-1] if steps else "",
                "step_seconds": step, "total_seconds": f"{total:.1f}",
                "context_peak_bytes": max((int(float(r["peak_bytes"])) for r in rows), default=""),
                "system_peak_bytes": peak if status != "does not fit" else "",
                "parameters": head.group(1) if head else "",
                "step_gflop": cost.group(1) if cost else "",
                "step_gflop_executed": cost.group(2) if cost else "", "message": message,
                "command": run.command, **self.stamp}

    def measure(self, unit):
        """The row of an attention module: estimated, and measured where it fits the caps."""
        table = self.output / "logs" / f"{unit.key}.csv"
        text = self.output / "logs" / f"{unit.key}.txt"
        text.unlink(missing_ok=True)
        command = [self.programs / "attention_cost", *unit.arguments, "--csv", table]
        self.attention_cost(command, text)
        estimate = module_row(table, unit.module)
        status, message = "measured", ""
        training = float(estimate["forward_flops_executed"]) + float(
            estimate["backward_flops_executed"])
        if estimate["fits"] == "no":
            status = "does not fit"
            message = f"needs {scaled(float(estimate['peak_bytes']), 'B')}"
        elif training > unit.flop_cap:
            status = "too slow"
        else:
            self.attention_cost(command + ["--measure", "--seconds", "0.5"], text)
            estimate = module_row(table, unit.module)
        positions = 1
        for extent in unit.size.split("x"):
            positions *= int(extent)
        row = {"key": unit.key, "status": status, "setting": unit.setting, "size": unit.size,
               "module": unit.module, "positions": positions, "message": message,
               "training_flops": float(estimate["forward_flops"]) + float(
                   estimate["backward_flops"]),
               "training_flops_executed": training, "command": unit.command, **self.stamp}
        for name in RESOURCE_COLUMNS:
            if name in estimate and name not in row:
                row[name] = estimate[name]
        return row

    def attention_cost(self, command, text):
        code, _, _ = self.call(command, text)
        if code != 0:
            raise Failed(f"{' '.join(map(str, command))}\n  exit code {code}, see {text}")


def scaled(value, unit):
    """12.3 M of a unit."""
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {prefix}{unit}".rstrip()
    return f"{value:.3g} {unit}".rstrip()


def module_row(table, module):
    name = module if module == "efficient" else f"non-local {module}"
    return next(row for row in read_csv(table) if row["module"] == name)


def argument_of(run, name):
    return run.arguments[run.arguments.index(name) + 1] if name in run.arguments else ""


def read_csv(path):
    if not pathlib.Path(path).exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def system_peak(pid):
    """The most memory that a process ever had resident, in bytes; 0 if the system does not say."""
    try:
        with open(f"/proc/{pid}/status") as file:
            found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
    except OSError:
        return 0
    return 1024 * int(found.group(1)) if found else 0


def spent(text):
    """Seconds of the slices before."""
    if not text.exists():
        return 0.0
    return sum(float(s) for s in re.findall(r"\[exit code \d+ after (\S+) s",
                                            text.read_text(errors="replace")))


def last_error(text, program):
    lines = [line for line in text.splitlines() if line.startswith(program + ":")]
    return lines[-1][len(program) + 2:] if lines else "no message"
