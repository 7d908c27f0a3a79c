"""Checkpoints: damaged, and changed under a right checksum."""

import os
import random
import struct

import h5py
import numpy

import convert_checkpoint as convert

from damaged.programs import FULL, PREDICT, run, SHOW, SOURCE, TRAIN, write


def walk(file):
    """(path, attribute or None) of everything in it."""
    found = []

    def visit(name, item):
        found.extend((name, attribute) for attribute in item.attrs)
        found.append((name, None))

    file.visititems(visit)
    return sorted(found + [("/", name) for name in file.attrs], key=str)


VALUES = {"text": "none\x1b[31m\nof these", "long text": "a" * 70000, "no text": "", "-1": numpy.int64(-1),
          "0": numpy.int64(0), "10^9": numpy.int64(10**9), "2^62": numpy.int64(2**62),
          "-2^63": numpy.int64(-(2**63)), "1e300": 1e300, "NaN": float("nan"),
          "infinity": float("inf"), "0.5": 0.5, "-0.5": -0.5, "2^64-1": numpy.uint64(2**64 - 1),
          "an array": numpy.arange(3), "half precision": numpy.float16(1),
          "a compound": numpy.zeros((), [("a", "i4"), ("b", "f4")]), "bytes": numpy.void(b"abc")}
SHAPES = {"shorter": lambda a: a[..., :-1] if a.ndim else a, "of one more dimension": lambda a: a[None],
          "transposed": lambda a: a.T, "a scalar": lambda a: numpy.float32(1),
          "empty": lambda a: a[..., :0] if a.ndim else a,
          "of NaN": lambda a: a * numpy.array(float("nan"), "f4"),
          "of infinity": lambda a: numpy.full_like(a, numpy.inf) if a.dtype.kind == "f" else a,
          "of 1e38": lambda a: numpy.full_like(a, 1e38) if a.dtype.kind == "f" else a,
          "of int16": lambda a: a.astype("i2"), "of float64": lambda a: a.astype("f8"),
          "of big-endian floats": lambda a: a.astype(">f4"), "of int64": lambda a: a.astype("i8"),
          "of complex numbers": lambda a: a.astype("c8"),
          "of text": lambda a: numpy.full(a.shape, b"abc"),
          "of rank 9": lambda a: a.reshape((1,) * (9 - a.ndim) + a.shape)}


def uses_of(path):
    uses = [[TRAIN, "--evaluate", path],
            [TRAIN, "--resume", path, "--threads", 1, "--stop-after", 3]]
    if PREDICT is not None:
        uses.append([PREDICT, "--checkpoint", path, os.path.join(SOURCE, "docs/images/ankle-boot.png")])
        uses.append([SHOW, "--checkpoint", path, "--image",
                     os.path.join(SOURCE, "docs/images/ankle-boot.png"), "--output",
                     path + ".png"])
    return uses


def cases(folder, model):
    with open(model, "rb") as file:
        good = file.read()
    path = os.path.join(folder, "damaged.h5")

    def fed(what, content, refused=True, text="", uses=None):
        if content is not None:
            write(path, content)
        chosen = uses_of(path)
        for use in chosen if uses is None else random.sample(chosen, min(uses, len(chosen))):
            run(f"checkpoint, {what} ({os.path.basename(use[0])} {use[1]})", use, refused, text,
                "damaged.h5")

    fed("good", good, refused=False)
    for cut in (0, 1, 8, 24, 511, 512, 513, 600, 2048, len(good) // 2, len(good) - 1):
        fed(f"cut at {cut}", good[:cut], uses=1)
    fed("a byte too many", good + b"\0")
    for at in sorted(random.sample(range(len(good)), 400 if FULL else 60)) + list(range(0, 130, 7)):
        changed = bytearray(good)
        changed[at] ^= 1 << random.randrange(8)
        fed(f"byte {at} changed", bytes(changed), uses=1)
    fed("text", b"hello\n" * 1000)
    fed("zeros", bytes(len(good)))
    fed("the HDF5 data without the block in front", good[512:], text="another HDF5 file")
    for version in (0, 2, 0xFFFFFFFF):
        fed(f"version {version} of the block", good[:8] + struct.pack("<I", version) + good[12:],
            text="version")
    fed("a block of another size", good[:12] + struct.pack("<I", 1024) + good[16:])
    fed("a length of 2^63", good[:16] + struct.pack("<Q", 1 << 63) + good[24:])
    os.remove(path)
    fed("none", None, text="No such file")
    os.mkdir(path)
    fed("a folder", None, text="folder")
    os.rmdir(path)
    os.mkfifo(path)
    fed("a pipe", None, text="something else")
    os.remove(path)

    def edited(what, edit, refused=None, text="", uses=None):
        """A right checksum over a changed content."""
        write(path, good)
        with h5py.File(path, "r+") as file:
            edit(file)
        convert.seal(path)
        fed(what, None, refused, text, uses)

    edited("nothing changed", lambda file: None, refused=False)

    def version(value):
        def edit(file):
            file.attrs["version"] = value
        return edit

    for value in (0, 2, 1000, "new"):
        edited(f"version {value!r}", version(value), True, "version")
    for group in ("model", "training", "optimizer", "input"):
        def delete(file, group=group):
            del file[group]
        edited(f"no /{group}", delete)

        def dataset(file, group=group):
            del file[group]
            file[group] = numpy.zeros(3, "f4")
        edited(f"/{group} is an array", dataset)

    def links(file):
        file["model/more"] = h5py.SoftLink("/model/stem")
    edited("a soft link", links, True, "link")

    def external(file):
        file["model/more"] = h5py.ExternalLink("/etc/passwd", "/")
    edited("an external link", external, True, "link")

    def cycle(file):
        file["model/self"] = file["model"]
    edited("a group in itself", cycle, True)

    def deep(file):
        group = file["training"]
        for _ in range(200):
            group = group.create_group("deeper")
    edited("200 groups in one another", deep)

    def many(file):
        for i in range(2000):
            file["training"].attrs[f"more_{i}"] = i
    edited("2,000 values that nobody knows", many)

    def strange(file):
        file["model"].create_group("a\x1b[31m\nb")
        file["model"].attrs["c\x1b[31m\nd"] = "e\x1b[31m\nf"
    edited("names with control characters", strange)

    def huge(file):
        file.create_dataset("model/more", (1 << 40,), "f4", chunks=(1 << 16,), compression="gzip")
    edited("4 TB declared, none stored", huge, True, "more data")

    def rank(file):
        file.create_dataset("model/more", (1 << 31,) * 4, "u1", chunks=(1, 1, 1, 1 << 10))
    edited("more bytes than numbers for them", rank, True, "more data")

    def bomb(file):
        file.create_dataset("training/more", data=numpy.zeros(40 << 20, "u1"), chunks=(1 << 20,),
                            compression="gzip", compression_opts=9)
    edited("40 MB of zeros", bomb)

    def nothing(file):
        file["training/more"] = h5py.Empty("f4")
    edited("an array without a shape", nothing, True, "shape")

    def strings(file):
        file.create_dataset("training/more", data=["a", "b"], dtype=h5py.string_dtype())
    edited("an array of text", strings, True, "type")

    def reference(file):
        file.create_dataset("training/more", data=[file["model"].ref], dtype=h5py.ref_dtype)
    edited("an array of references", reference, True, "type")

    def named_type(file):
        file["training/more"] = numpy.dtype("f4")
    edited("a committed type", named_type, True)

    # options: of another type; left out, so that training would go on with other data
    for what, value, text in (("an option that is a number", -0.5, "expected a string"),
                              ("no number of images", None, "trained on 32 images")):
        write(path, good)
        with h5py.File(path, "r+") as file:
            del file["training/options"].attrs["train-images"]
            if value is not None:
                file["training/options"].attrs["train-images"] = value
        convert.seal(path)
        run(f"checkpoint, {what}", [TRAIN, "--resume", path, "--threads", 1], True, text, "damaged.h5")

    # every attribute and every array, deleted and with other content
    with h5py.File(model, "r") as file:
        places = walk(file)
    changes = []
    for place, attribute in places:
        if attribute is not None:
            changes += [(place, attribute, None)] + [(place, attribute, v) for v in VALUES]
        else:
            changes.append((place, None, None))
            with h5py.File(model, "r") as file:
                if isinstance(file[place], h5py.Dataset):
                    changes += [(place, None, s) for s in SHAPES]
    for place, attribute, change in changes if FULL else random.sample(changes, 250):
        def edit(file):
            if attribute is not None:
                del file[place].attrs[attribute]
                if change is not None:
                    file[place].attrs[attribute] = VALUES[change]
            else:
                old = file[place][...] if change is not None else None
                kept = dict(file[place].attrs) if change is not None else {}
                del file[place]
                if change is not None:
                    file[place] = SHAPES[change](old)
                    for name, value in kept.items():
                        file[place].attrs[name] = value
        what = f"/{place}{':' + attribute if attribute else ''} {change or 'deleted'}"
        edited(what, edit, uses=None if FULL else 2)
