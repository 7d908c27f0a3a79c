"""test_damaged_files.py SOURCE TRAIN_CLASSIFIER [PREDICT SHOW_ATTENTION] - damaged and hostile files
of every format, fed to the programs: CIFAR (plain, gzip, tar), IDX, PNG and checkpoints, those with a
right checksum over a wrong content among them. Each meets exit code 1 or 2 and one line of plain text
on standard error, which names the file if it is not about options, soon and without much memory;
files that are only unusual are read. TAPELINE_SWEEP=full in the environment: every change of every
value of a checkpoint instead of a sample of them; TAPELINE_FIGURES=1: prints what was said. Exit code
77 where h5py is missing."""

import os
import random
import shutil
import subprocess
import sys

try:
    import h5py  # noqa: F401
    import numpy  # noqa: F401
except ImportError as problem:
    print(f"skipped: {problem} (apt-get install python3-h5py)")
    sys.exit(77)

sys.path.insert(0, os.path.join(sys.argv[1], "scripts"))
from damaged import checkpoints, cifar, idx, options, png  # noqa: E402
from damaged.programs import FOLDER, FULL, PREDICT, TRAIN, counts, failures  # noqa: E402

random.seed(20261124)
try:
    model = os.path.join(FOLDER, "model.h5")
    made = subprocess.run(
        [TRAIN, "--dataset", "long-range", "--train-images", "32", "--test-images", "32", "--depth",
         "4", "--width", "4", "--attention", "efficient", "--batch-size", "16", "--threads", "1",
         "--epochs", "3", "--stop-after", "2", "--checkpoint", model], capture_output=True, text=True)
    if made.returncode != 0:
        print(f"FAILED: the model: {made.stderr}")
        sys.exit(1)
    options.cases()
    cifar.cases(FOLDER)
    cifar.tar_cases(FOLDER)
    idx.cases(FOLDER)
    if PREDICT is not None:
        png.cases(FOLDER, model)
    checkpoints.cases(FOLDER, model)
finally:
    shutil.rmtree(FOLDER, ignore_errors=True)
for failure in failures[: len(failures) if FULL else 100]:
    print(f"FAILED: {failure}")
print(f"{counts['refused']} files refused, {counts['read']} read, {len(failures)} failed, "
      f"the largest program held {counts['MiB']} MiB")
sys.exit(1 if failures else 0)
