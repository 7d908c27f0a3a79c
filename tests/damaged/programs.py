"""The programs that damaged files are fed to, and what they must keep to: the arguments of
test_damaged_files.py."""

import os
import re
import subprocess
import sys
import tempfile
import threading

SOURCE, TRAIN = sys.argv[1:3]
PREDICT, SHOW = sys.argv[3:5] if len(sys.argv) > 4 else (None, None)
FULL = os.environ.get("TAPELINE_SWEEP") == "full"
SECONDS = 60
MOST_BYTES = 1 << 30  # what a program may hold, under sanitizers as well
FOLDER = tempfile.mkdtemp()
OUTPUT, ERRORS = os.path.join(FOLDER, "out"), os.path.join(FOLDER, "err")
LITTLE = ["--depth", 8, "--width", 2, "--epochs", 1, "--batch-size", 4, "--threads", 1,
          "--no-augmentation"]
counts = {"refused": 0, "read": 0, "MiB": 0}
failures = []


def run(what, command, refused=None, text="", name=None):
    """refused: True, False or None (either, as long as it is clean). text: in the message."""
    with open(OUTPUT, "wb") as output, open(ERRORS, "wb") as errors:
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=errors)
    killer = threading.Timer(SECONDS, process.kill)
    killer.start()
    _, status, usage = os.wait4(process.pid, 0)
    killer.cancel()
    code = process.returncode = os.waitstatus_to_exitcode(status)
    with open(OUTPUT, "rb") as output, open(ERRORS, encoding="utf-8", errors="replace",
                                            newline="") as errors:
        printed, errors = output.read(), errors.read()
    problem = None
    if code == -9:
        problem = f"still running after {SECONDS} s"
    elif code not in (0, 1, 2):
        problem = "it crashed"
    elif refused is not None and (code != 0) != refused:
        problem = "it was read" if refused else "it was refused"
    elif code != 0 and (errors.count("\n") != 1 or len(errors) < 20):
        problem = "more or less than one line"
    elif re.search(r"[\x00-\x09\x0b-\x1f\x7f]", errors):
        problem = "control characters in the message"
    elif code != 0 and not re.search(text, errors):
        problem = f"no '{text}' in the message"
    elif code == 1 and name is not None and name not in errors:
        problem = f"the message does not name {name}"
    elif code == 0 and re.search(rb"\bnan\b|[-+ ]inf\b", printed):
        problem = "NaN or infinity in what it prints"
    elif usage.ru_maxrss << 10 > MOST_BYTES:
        problem = f"it held {usage.ru_maxrss >> 10} MiB"
    if problem is not None:
        failures.append(f"{what}: {problem}: exit code {code}: {errors[:1000]}")
    counts["refused" if code != 0 else "read"] += 1
    counts["MiB"] = max(counts["MiB"], usage.ru_maxrss >> 10)
    if os.environ.get("TAPELINE_FIGURES"):
        print(f"{what}: {code}, {usage.ru_maxrss >> 10} MiB: {errors.strip() or 'read'}")


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)
    return path


def train_on(dataset, path):
    return [TRAIN, "--dataset", dataset, "--data-dir", path, *LITTLE]
