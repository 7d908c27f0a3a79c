"""IDX: MNIST and its like."""

import os
import random
import shutil
import struct

from damaged.cifar import gzip_bytes
from damaged.programs import run, train_on, write


def idx(magic, dims, content):
    return struct.pack(">I", magic) + b"".join(struct.pack(">I", d) for d in dims) + content


def cases(folder):
    images = idx(0x803, (6, 28, 28), random.randbytes(6 * 784))
    labels = idx(0x801, (6,), bytes(range(6)))
    names = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}

    def fed(what, refused=True, text="", **changes):
        path = os.path.join(folder, "idx")
        shutil.rmtree(path, ignore_errors=True)
        os.mkdir(path)
        for part in ("train", "t10k"):
            for kind, name in names.items():
                content = changes.get(kind, images if kind == "images" else labels)
                file = os.path.join(path, f"{part}-{name}")
                if callable(content):
                    content(file)
                elif content is not None:
                    write(file + changes.get("suffix", ""), content)
        run(f"IDX, {what}", train_on("mnist", path), refused, text, path)

    fed("good", refused=False)
    fed("gzip", refused=False, images=gzip_bytes(images))
    for kind, good in (("images", images), ("labels", labels)):
        fed(f"{kind} missing", **{kind: None})
        fed(f"{kind} empty", text="empty", **{kind: b""})
        fed(f"{kind}: a folder", text="folder", **{kind: os.mkdir})
        fed(f"{kind}: a pipe", text="regular file", **{kind: os.mkfifo})
        for cut in (1, 3, 4, 7, 8, 11, 15, 16, len(good) - 1):
            if cut < len(good):
                fed(f"{kind} cut at {cut}", **{kind: good[:cut]})
                fed(f"{kind} cut at {cut}, gzip", **{kind: gzip_bytes(good[:cut])})
        fed(f"{kind}: a byte too many", **{kind: good + b"\0"})
        fed(f"{kind}: wrong checksum", **{kind: gzip_bytes(good, crc=5)})
        for magic in (0, 0x804, 0x802, 0xD03, 0x903, 0x08000803, 0x03080000, 0xFFFFFFFF):
            fed(f"{kind}: magic {magic:x}", **{kind: struct.pack(">I", magic) + good[4:]})
    fed("images and labels swapped", images=labels, labels=images)
    for dims in ((0xFFFFFFFF,) * 3, (0x80000000, 28, 28), (6, 0x10000, 0x10000), (6, 0, 28),
                 (6, 28, 0), (0, 28, 28), (0xFFFFFFFF, 1, 1), (6, 1, 784 * 4), (7, 28, 28),
                 (5, 28, 28), (6, 0xFFFFFFFF, 0xFFFFFFFF), (0x10000, 0x10000, 0x10000),
                 (3, 0x55555556, 0x80000000)):
        content = idx(0x803, dims, images[16:])
        fed(f"images of {dims}", images=content)
        fed(f"images of {dims}, gzip", images=gzip_bytes(content))
    for count in (0, 1, 5, 7, 0x7FFFFFFF, 0xFFFFFFFF):
        fed(f"{count} labels", labels=idx(0x801, (count,), labels[8:]))
    fed("a label of 10", labels=labels[:-1] + b"\x0a", text="label")
    fed("a label of 255", labels=labels[:8] + b"\xff" + labels[9:], text="label")
