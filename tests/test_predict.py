"""test_predict.py SOURCE PREDICT TRAIN_CLASSIFIER EVALUATE - the example predict: probabilities are
those that the model gives for the same pixels, pictures of any size and kind are taken, messages
and exit codes. Exit code 77 where h5py is missing."""

import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib

try:
    import h5py
    import numpy
except ImportError as problem:
    print(f"skipped: {problem} (apt-get install python3-h5py)")
    sys.exit(77)

SOURCE, PREDICT, TRAIN, EVALUATE = sys.argv[1:5]
sys.path.insert(0, os.path.join(SOURCE, "scripts"))
import convert_checkpoint as convert  # noqa: E402

checked = 0


def check(condition, text):
    global checked
    checked += 1
    if not condition:
        print(f"FAILED: {text}")
        sys.exit(1)


def write_png(path, pixels):
    """pixels [H, W] grey or [H, W, 3], 8 bits."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + pixels[y].tobytes() for y in range(height))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head))
        file.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def predict(*arguments):
    done = subprocess.run([PREDICT, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def expected_probabilities(model, pixels, folder):
    """What the model says about pixels of its own size, by way of evaluate_checkpoint."""
    with h5py.File(model, "r") as file:
        told = file["input"].attrs
        mean = [told[f"mean_{c}"] for c in range(3)]
        deviation = [told[f"deviation_{c}"] for c in range(3)]
        names = told["class_names"].split("\n")[:-1]
    x = ((pixels / 255.0 - mean) / deviation).astype(numpy.float32)[None]
    given, made = os.path.join(folder, "x.h5"), os.path.join(folder, "y.h5")
    convert.write_checkpoint(given, {}, {"x": x}, {})
    subprocess.run([EVALUATE, model, given, made], check=True)
    with h5py.File(made, "r") as file:
        logits = file["model/y"][0].astype(float)
    odds = numpy.exp(logits - logits.max())
    return odds / odds.sum(), names


def probabilities(model, folder):
    random = numpy.random.default_rng(1)
    pixels = random.integers(0, 256, (32, 32, 3), dtype=numpy.uint8)
    image = os.path.join(folder, 'a "picture"\\.png')
    write_png(image, pixels)
    want, names = expected_probabilities(model, pixels, folder)
    code, out, err = predict("--checkpoint", model, "--json", "--top", "99", image)
    check(code == 0 and err == "", f"exit code {code}: {err}")
    (told,) = json.loads(out)
    check(told["image"] == image, "the picture's name")
    check((told["height"], told["width"], told["channels"]) == (32, 32, 3), "the picture's size")
    classes = told["classes"]
    check(len(classes) == len(want), f"{len(classes)} classes instead of {len(want)}")
    order = [entry["class"] for entry in classes]
    check(sorted(order) == list(range(len(want))), "every class once")
    for entry in classes:
        error = abs(entry["probability"] - want[entry["class"]])
        check(error < 1e-5, f"class {entry['class']}: the probability is off by {error}")
        check(entry["name"] == names[entry["class"]], f"the name of class {entry['class']}")
    falling = [entry["probability"] for entry in classes]
    check(falling == sorted(falling, reverse=True), "the likeliest class comes first")
    check(max(want) - min(want) > 1e-3, "all classes are equally likely: nothing was compared")


def sizes(model, folder):
    grey = os.path.join(folder, "grey.png")
    write_png(grey, numpy.arange(70 * 20, dtype=numpy.uint32).reshape(70, 20).astype(numpy.uint8))
    code, out, _ = predict("--checkpoint", model, grey)
    check(code == 0, "a grey picture of another size")
    first, *classes = out.splitlines()
    check("70x20 grey" in first and "resized to 32x32" in first, first)
    check("proportions change" in first and "made colour" in first, first)
    check(len(classes) == 3, f"three classes by default, found {len(classes)}")
    # a uniform picture looks the same at every size
    tables = []
    for side in (1, 32, 200):
        path = os.path.join(folder, "uniform.png")
        write_png(path, numpy.full((side, side, 3), (200, 40, 90), dtype=numpy.uint8))
        tables.append(predict("--checkpoint", model, "--top", "10", path)[1].splitlines()[1:])
    check(tables[0] == tables[1] == tables[2], "a uniform picture depends on its size")


def failures(model, folder):
    good, bad = os.path.join(folder, "good.png"), os.path.join(folder, "bad.png")
    write_png(good, numpy.zeros((8, 8), dtype=numpy.uint8))
    with open(bad, "w") as file:
        file.write("no picture")
    code, out, err = predict("--checkpoint", model, "--json", bad, good)
    check(code == 1 and "bad.png" in err and err.count("\n") == 1, f"exit code {code}: {err}")
    told = json.loads(out)
    check([entry["image"] for entry in told] == [good], "one bad picture stops the others")
    code, _, err = predict("--checkpoint", os.path.join(folder, "none.h5"), good)
    check(code == 1 and "none.h5" in err and err.count("\n") == 1, err)
    for arguments in ([good], ["--checkpoint", model], ["--checkpoint", model, "--top", "0", good]):
        code, _, err = predict(*arguments)
        check(code == 2 and err.count("\n") == 1, f"{arguments}: exit code {code}, {err}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.h5")
        subprocess.run(
            [TRAIN, "--dataset", "long-range", "--train-images", "256", "--test-images", "32"]
            + ["--attention", "efficient", "--width", "8", "--batch-size", "32", "--epochs", "2"]
            + ["--checkpoint", model],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        probabilities(model, folder)
        sizes(model, folder)
        failures(model, folder)
    print(f"{checked} passed, 0 failed")


main()
