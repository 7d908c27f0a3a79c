"""Real test images as PNG files, and what attention looks at in them."""
import gzip
import pathlib
import tarfile

import numpy
from matplotlib import image as png

COUNT = 4


def fashion_mnist(folder):
    with gzip.open(pathlib.Path(folder) / "t10k-images-idx3-ubyte.gz") as file:
        data = numpy.frombuffer(file.read(16 + COUNT * 784), numpy.uint8)
    return data[16:].reshape(COUNT, 28, 28)


def cifar10(path):
    path = pathlib.Path(path)
    size = 3073
    member = "cifar-10-batches-bin/test_batch.bin"
    for place in (path / "test_batch.bin", path / member):
        if place.exists():
            raw = place.read_bytes()[:COUNT * size]
            break
    else:
        zipped = [p for p in (path / "test_batch.bin.gz", path / (member + ".gz")) if p.exists()]
        if zipped:
            with gzip.open(zipped[0]) as file:
                raw = file.read(COUNT * size)
        else:
            archive = path if path.is_file() else path / "cifar-10-binary.tar.gz"
            with tarfile.open(archive) as file:
                raw = file.extractfile(member).read(COUNT * size)
    pixels = numpy.frombuffer(raw, numpy.uint8).reshape(COUNT, size)[:, 1:]
    return pixels.reshape(COUNT, 3, 32, 32).transpose(0, 2, 3, 1)


def write_tests(source, folder):
    """PNG files of the first test images; none where there are no files to read them from."""
    kind, place = source
    if kind == "none":
        return []
    pictures = fashion_mnist(place) if kind == "fashion-mnist" else cifar10(place)
    paths = []
    for i, picture in enumerate(pictures):
        if picture.ndim == 2:
            picture = numpy.repeat(picture[:, :, None], 3, axis=2)
        paths.append(folder / f"test-image-{i}.png")
        png.imsave(paths[-1], picture)
    return paths


def attention_maps(runner, results, folder):
    """Sheets of the first seed's networks of claim 1: (path, caption) pairs."""
    made = []
    group = results.groups("claim1")[0]
    pictures = write_tests(results.plan.classifier_images, folder)
    for kind in ("efficient", "non-local"):
        run = results.runs_of("claim1", group, kind)[0]
        checkpoint = runner.output / "checkpoints" / f"{run.key}.h5"
        if results.rows[run.key] is None or not checkpoint.exists():
            continue
        for i, picture in enumerate(pictures):
            sheet = folder / f"attention-{kind}-{i}.png"
            command = [runner.programs / "show_attention", "--checkpoint", checkpoint, "--image",
                       picture, "--output", sheet, "--maps", "16"]
            text = runner.output / "logs" / "show_attention.txt"
            code, _, _ = runner.call(command, text)
            if code == 0:
                made.append((sheet, f"{group}, test image {i}, {kind}: show_attention --checkpoint "
                                    f"checkpoints/{run.key}.h5 --image test-image-{i}.png --maps "
                                    "16"))
    return made
