"""test_damaged_files.py SOURCE TRAIN_CLASSIFIER [PREDICT SHOW_ATTENTION] - damaged and hostile files
of every format, fed to the programs: CIFAR (plain, gzip, tar), IDX, PNG and checkpoints, those with a
right checksum over a wrong content among them. Each meets exit code 1 or 2 and one line of plain text
on standard error, which names the file if it is not about options, soon and without much memory;
files that are only unusual are read. TAPELINE_SWEEP=full in the environment: every change of every
value of a checkpoint instead of a sample of them; TAPELINE_FIGURES=1: prints what was said. Exit code
77 where h5py is missing."""

import gzip
import io
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import zlib

try:
    import h5py
    import numpy
except ImportError as problem:
    print(f"skipped: {problem} (apt-get install python3-h5py)")
    sys.exit(77)

SOURCE, TRAIN = sys.argv[1:3]
PREDICT, SHOW = sys.argv[3:5] if len(sys.argv) > 4 else (None, None)
FULL = os.environ.get("TAPELINE_SWEEP") == "full"
sys.path.insert(0, os.path.join(SOURCE, "scripts"))
import convert_checkpoint as convert  # noqa: E402

SECONDS = 60
MOST_BYTES = 1 << 30  # what a program may hold, under sanitizers as well
random.seed(20261124)
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


# ------------------------------------------------------------------ CIFAR

def records(count, label=lambda i: i % 10, seed=1):
    pixels = random.Random(seed)
    return b"".join(bytes([label(i)]) + pixels.randbytes(3072) for i in range(count))


BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
GOOD = {name: records(4, seed=i) for i, name in enumerate(BATCHES)}
LITTLE = ["--depth", 8, "--width", 2, "--epochs", 1, "--batch-size", 4, "--threads", 1,
          "--no-augmentation"]


def train_on(dataset, path):
    return [TRAIN, "--dataset", dataset, "--data-dir", path, *LITTLE]


def cifar_folder(folder, changes):
    """changes: name -> content, None (missing) or a function of the path."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    for name, content in {**GOOD, **changes}.items():
        path = os.path.join(folder, name)
        if callable(content):
            content(path)
        elif content is not None:
            write(path, content)
    return folder


def gzip_bytes(content, **fields):
    packed = gzip.compress(content, mtime=0)
    head, body, end = packed[:10], packed[10:-8], packed[-8:]
    if "flags" in fields:
        head = head[:3] + bytes([fields["flags"]]) + head[4:]
    if "method" in fields:
        head = head[:2] + bytes([fields["method"]]) + head[3:]
    if "crc" in fields:
        end = struct.pack("<I", fields["crc"]) + end[4:]
    if "size" in fields:
        end = end[:4] + struct.pack("<I", fields["size"])
    return head + body + end


def cifar_cases(folder):
    batch, third = GOOD["data_batch_3.bin"], "data_batch_3.bin"
    zipped = third + ".gz"

    def fed(what, changes, refused=True, text="", name=third):
        path = cifar_folder(os.path.join(folder, "cifar"), changes)
        run(f"CIFAR, {what}", train_on("cifar10", path), refused, text, name)

    fed("good", {}, refused=False)
    fed("missing", {third: None}, text="not found")
    fed("empty", {third: b""}, text="empty")
    fed("one byte", {third: b"\0"})
    fed("cut off", {third: batch[:-1]}, text="whole records")
    fed("a byte too many", {third: batch + b"\0"}, text="whole records")
    fed("fewer records than its neighbours", {third: batch[:3073]}, text="4 records")
    fed("a label of 10", {third: records(4, lambda i: 10)}, text="record 0: .*label")
    fed("a label of 255 at the end", {third: records(4, lambda i: 255 if i == 3 else 0)},
        text="record 3")
    fed("a folder of that name", {third: os.mkdir}, text="folder")
    fed("a pipe of that name", {third: os.mkfifo}, text="regular file")
    fed("a device", {third: lambda path: os.symlink("/dev/zero", path)}, text="regular file")
    fed("a link to itself", {third: lambda path: os.symlink(third, path)})
    fed("a link to nothing", {third: lambda path: os.symlink("nowhere", path)}, text="not found")
    if os.geteuid() != 0:
        fed("no permission", {third: lambda path: os.chmod(write(path, batch), 0)},
            text="Permission")
    fed("gzip", {third: None, zipped: gzip_bytes(batch)}, refused=False)
    fed("gzip under a plain name", {third: gzip_bytes(batch)}, refused=False)
    fed("gzip in two members", {third: gzip_bytes(batch[:5000]) + gzip_bytes(batch[5000:])},
        refused=False)
    fed("plain under a gzip name", {third: None, zipped: batch}, text="gzip")
    fed("empty under a gzip name", {third: None, zipped: b""}, text="empty")
    for cut in (1, 2, 5, 9, 10, 11, 100, -9, -8, -4, -1):
        fed(f"gzip cut at {cut}", {third: None, zipped: gzip_bytes(batch)[:cut]})
    fed("gzip of nothing", {third: None, zipped: gzip_bytes(b"")})
    fed("gzip, wrong checksum", {third: None, zipped: gzip_bytes(batch, crc=1)}, text="damaged")
    fed("gzip, wrong length", {third: None, zipped: gzip_bytes(batch, size=1)}, text="damaged")
    fed("gzip, another method", {third: None, zipped: gzip_bytes(batch, method=7)}, text="damaged")
    fed("gzip, reserved flags", {third: None, zipped: gzip_bytes(batch, flags=0xE0)},
        text="damaged")
    fed("gzip, a name without end", {third: None, zipped: gzip_bytes(b"", flags=8)[:10] +
                                     b"a" * 100000})
    fed("gzip, then zeros", {third: None, zipped: gzip_bytes(batch) + bytes(512)}, text="follow")
    fed("gzip, then text", {third: None, zipped: gzip_bytes(batch) + b"hello"}, text="follow")
    packed = bytearray(gzip_bytes(batch))
    packed[len(packed) // 2] ^= 0xFF
    fed("gzip, a byte changed in the middle", {third: None, zipped: bytes(packed)})
    fed("the test batch damaged", {"test_batch.bin": batch[:-7]}, name="test_batch.bin")
    run("CIFAR, no such folder", train_on("cifar10", os.path.join(folder, "none")), True, "no such")
    empty = os.path.join(folder, "empty")
    os.mkdir(empty)
    run("CIFAR, an empty folder", train_on("cifar10", empty), True, "found neither")
    run("CIFAR, a very long name", train_on("cifar10", "a" * 5000), True, "")
    run("CIFAR, a name with control characters", train_on("cifar10", "a\x1b[31m\nb"), True, "")
    fine = records(4)
    for what, content in {"good": b"".join(bytes([2]) + fine[i * 3073 : (i + 1) * 3073]
                                           for i in range(4)),
                          "a coarse label of 20": bytes([20]) + fine[:3073],
                          "a fine label of 100": bytes([1, 100]) + fine[1:3073],
                          "records of CIFAR-10": fine}.items():
        path = os.path.join(folder, "cifar100")
        shutil.rmtree(path, ignore_errors=True)
        os.mkdir(path)
        for name in ("train.bin", "test.bin"):
            write(os.path.join(path, name), content)
        run(f"CIFAR-100, {what}", train_on("cifar100", path), what != "good", "", path)


def tar_member(name, content=b"", kind=b"0", size=None, checksum=None, size_field=None, link=b""):
    head = bytearray(512)
    head[: len(name)] = name
    head[100:108] = b"0000644\0"
    head[108:124] = b"0000000\0" * 2
    size = len(content) if size is None else size
    head[124:136] = size_field if size_field is not None else b"%011o\0" % size
    head[136:148] = b"%011o\0" % 0
    head[148:156] = b" " * 8
    head[156:157] = kind
    head[157 : 157 + len(link)] = link
    head[257:265] = b"ustar\x0000"
    total = sum(head) if checksum is None else checksum
    head[148:156] = b"%06o\0 " % total
    return bytes(head) + content + bytes(-len(content) % 512)


def tar_cases(folder):
    good = {b"cifar-10-batches-bin/" + name.encode(): content for name, content in GOOD.items()}
    members = [tar_member(name, content) for name, content in good.items()]
    end = bytes(1024)
    path = os.path.join(folder, "archive.tar.gz")

    def fed(what, content, refused=True, text="", pack=True):
        write(path, gzip_bytes(content) if pack else content)
        run(f"tar, {what}", train_on("cifar10", path), refused, text, "archive.tar.gz")

    name = b"cifar-10-batches-bin/data_batch_3.bin"
    batch = good[name]

    def with_third(*instead):
        return b"".join(members[:2]) + b"".join(instead) + b"".join(members[3:]) + end

    fed("good", with_third(members[2]), refused=False)
    fed("in another order", b"".join(reversed(members)) + end, refused=False)
    fed("without its end", b"".join(members), refused=False)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for each, content in good.items():
            info = tarfile.TarInfo("ä" * 120 + "/" + os.path.basename(each.decode()))
            info.size = len(content)
            info.mtime = 1.5
            archive.addfile(info, io.BytesIO(content))
    fed("long names in pax records", buffer.getvalue(), refused=False)
    fed("plain, not gzip", with_third(members[2]), pack=False, text="gzip")
    fed("zeros", end, text="does not hold")
    fed("nothing", b"")
    fed("text", b"hello, world\n" * 1000, text="tar header")
    fed("a member missing", with_third(), text="data_batch_3")
    fed("a member twice", with_third(members[2], members[2]), text="twice")
    fed("cut in a header", b"".join(members)[:-300 - 12800])
    fed("cut in a member", b"".join(members)[:5000], text="ends inside")
    fed("cut in front of a member", b"".join(members[:3]), text="does not hold")
    fed("wrong checksum", with_third(tar_member(name, batch, checksum=1)), text="tar header")
    for what, field in {"a negative size": b"-0000000001\0", "no size": b"\0" * 12,
                        "a size of letters": b"abcdefghijk\0", "decimal digits": b"00000009999\0",
                        "a size in base 256 that is huge": b"\x80" + b"\xff" * 11,
                        "a negative size in base 256": b"\xff" * 12,
                        "a size in base 256 of 2^62": b"\x80" + bytes(3) + b"\x40" + bytes(7),
                        "a size beyond the file": b"77777777777\0",
                        "a size with text behind": b"00000000010x"}.items():
        fed(what, with_third(tar_member(name, batch, size_field=field)))
    for kind in b"123456":
        fed(f"of type {chr(kind)}",
            with_third(tar_member(name, kind=bytes([kind]), size=3073, link=b"/etc/passwd")),
            text="does not hold")
    fed("a sparse file", with_third(tar_member(name, batch, kind=b"S")), text="does not hold")
    fed("a long name of 8 MB", with_third(tar_member(b"x", b"a" * (8 << 20), kind=b"L"),
                                          members[2]), refused=None)
    fed("a long name of nothing", with_third(tar_member(b"x", kind=b"L"), members[2]), refused=None)
    for record in (b"", b"0 path=x\n", b"99999 path=x\n", b"-5 path=x\n", b"7 path=", b"7", b"path=x\n",
                   b"18446744073709551617 path=x\n", b"9 path=x\n" * 500, b"10 path=\n\n",
                   b"6 path\n", b"\xff" * 600):
        fed(f"the pax record {record[:30]!r}",
            with_third(tar_member(b"x", record, kind=b"x"), members[2]), refused=None)
    fed("a name with control characters, cut off",
        b"".join(members[:2]) + tar_member(b"\x1b[31mred\nline", b"a", size=9999), text="ends inside")
    fed("100 kB of extensions", tar_member(b"x", b"9 path=x\n", kind=b"x") * 100 + with_third(
        members[2]), refused=None)


# ------------------------------------------------------------------ IDX

def idx(magic, dims, content):
    return struct.pack(">I", magic) + b"".join(struct.pack(">I", d) for d in dims) + content


def idx_cases(folder):
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


# ------------------------------------------------------------------ PNG

def chunk(kind, data, crc=None, length=None):
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data) if length is None else length) + kind + data + \
        struct.pack(">I", crc)


def header(width, height, depth=8, color=0, compression=0, filtering=0, interlace=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, compression,
                                      filtering, interlace))


def rows(width, height, bits):
    return zlib.compress((b"\0" + b"\x5a" * ((width * bits + 7) // 8)) * height)


SIGNATURE, END = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")


def adam7(width, height, bits):
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))
    out = b""
    for x, y, across, down in passes:
        w, h = (width - x + across - 1) // across, (height - y + down - 1) // down
        if w > 0 and h > 0:
            out += (b"\0" + b"\x5a" * ((w * bits + 7) // 8)) * h
    return zlib.compress(out)


def png_cases(folder, model):
    path = os.path.join(folder, "picture.png")
    outputs = os.path.join(folder, "sheet.png")

    def fed(what, content, refused=True, text=""):
        write(path, content)
        run(f"PNG, {what}", [PREDICT, "--checkpoint", model, path], refused, text, "picture.png")
        if refused is None or not refused or random.random() < 0.2:
            run(f"PNG (show_attention), {what}",
                [SHOW, "--checkpoint", model, "--image", path, "--output", outputs], refused, text,
                "picture.png")

    def picture(*chunks):
        return SIGNATURE + b"".join(chunks)

    data = chunk(b"IDAT", rows(20, 10, 8))
    good = picture(header(20, 10), data, END)
    fed("good", good, refused=False)
    for color, depths, channels in ((0, (1, 2, 4, 8, 16), 1), (2, (8, 16), 3), (3, (1, 2, 4, 8), 1),
                                    (4, (8, 16), 2), (6, (8, 16), 4)):
        for depth in depths:
            bits = depth * channels
            palette = [chunk(b"PLTE", random.randbytes(3 << depth))] if color == 3 else []
            fed(f"colour type {color}, {depth} bits",
                picture(header(21, 9, depth, color), *palette, chunk(b"IDAT", rows(21, 9, bits)),
                        END), refused=False)
            fed(f"colour type {color}, {depth} bits, interlaced",
                picture(header(21, 9, depth, color, interlace=1), *palette,
                        chunk(b"IDAT", adam7(21, 9, bits)), END), refused=False)
            fed(f"colour type {color}, {depth} bits, half of the data",
                picture(header(21, 9, depth, color), *palette, chunk(b"IDAT", rows(21, 4, bits)),
                        END))
    few = [header(21, 9, 8, 3), chunk(b"PLTE", b"\1\2\3"), chunk(b"IDAT", rows(21, 9, 8)), END]
    fed("indices beyond the palette", picture(*few), refused=None)
    fed("no palette", picture(few[0], *few[2:]))
    fed("a palette of 4 bytes", picture(few[0], chunk(b"PLTE", b"\1\2\3\4"), *few[2:]))
    fed("a palette of 257 colours", picture(few[0], chunk(b"PLTE", bytes(771)), *few[2:]))
    fed("a palette behind the data", picture(few[0], few[2], few[1], END))
    fed("transparent colours", picture(few[0], chunk(b"PLTE", bytes(300)), chunk(b"tRNS", b"\0\x80"),
                                       *few[2:]), refused=None)
    fed("more transparency than colours", picture(few[0], few[1], chunk(b"tRNS", bytes(200)),
                                                  *few[2:]), refused=None)
    for cut in (0, 1, 7, 8, 9, 12, 16, 20, 32, 33, 36, 45, len(good) - 13, len(good) - 12,
                len(good) - 1):
        fed(f"cut at {cut}", good[:cut])
    for at in range(8, len(good), 3):
        changed = bytearray(good)
        changed[at] ^= 0x41
        fed(f"byte {at} changed", bytes(changed), refused=None if at > len(good) - 12 else True)
    fed("more behind its end", good + b"more" * 100, refused=False)
    fed("text", b"not a picture\n" * 10, text="PNG")
    fed("a JPEG", b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(100), text="PNG")
    fed("the signature alone", SIGNATURE)
    fed("no header", picture(data, END))
    fed("two headers", picture(header(20, 10), header(20, 10), data, END))
    fed("no data", picture(header(20, 10), END))
    fed("no end", picture(header(20, 10), data))
    for size in ((0, 10), (10, 0), (0, 0), (1 << 31, 1), (1, 1 << 31), (0xFFFFFFFF, 0xFFFFFFFF),
                 ((1 << 31) - 1, (1 << 31) - 1), (65536, 65536), (30000, 30000), (1000000, 1)):
        fed(f"{size[0]} x {size[1]} pixels", picture(header(*size), data, END))
    for what, head in {"9 bits": header(20, 10, 9), "0 bits": header(20, 10, 0),
                       "colour type 5": header(20, 10, 8, 5), "4 bits of colour": header(20, 10, 4, 2),
                       "compression 1": header(20, 10, compression=1),
                       "filter 1": header(20, 10, filtering=1),
                       "interlace 2": header(20, 10, interlace=2),
                       "a header of 12 bytes": chunk(b"IHDR", bytes(12)),
                       "a header of 14 bytes": chunk(b"IHDR", header(20, 10)[8:21] + b"\0")}.items():
        fed(what, picture(head, data, END))
    fed("wrong checksum of the data", picture(header(20, 10), chunk(b"IDAT", rows(20, 10, 8), crc=7),
                                              END))
    fed("wrong checksum of the header", picture(chunk(b"IHDR", header(20, 10)[8:21], crc=7), data,
                                                END))
    fed("data that are no zlib stream", picture(header(20, 10), chunk(b"IDAT", b"\xff" * 100), END))
    wrong = bytearray(rows(20, 10, 8))
    wrong[-1] ^= 1
    fed("wrong checksum in the zlib stream", picture(header(20, 10), chunk(b"IDAT", bytes(wrong)),
                                                     END), refused=None)
    fed("filter type 9", picture(header(20, 10), chunk(b"IDAT", zlib.compress(
        (b"\x09" + bytes(20)) * 10)), END))
    fed("too many rows", picture(header(20, 10), chunk(b"IDAT", rows(20, 4000, 8)), END),
        refused=None)
    fed("a chunk of 2^31 bytes", picture(header(20, 10), chunk(b"tEXt", b"x", length=1 << 31), data,
                                         END))
    fed("a chunk of 2^31 - 1 bytes", picture(header(20, 10), chunk(b"tEXt", b"x",
                                                                   length=(1 << 31) - 1), data, END))
    fed("an unknown critical chunk", picture(header(20, 10), chunk(b"ABCD", b"x"), data, END))
    fed("a chunk with control characters for a name",
        picture(header(20, 10), chunk(b"\x1b[\n\0", b"x"), data, END))
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    fed("200 MB in a text", picture(header(20, 10), chunk(b"zTXt", b"a\0\0" + bomb), data, END),
        refused=None)
    fed("200 MB in a profile", picture(header(20, 10), chunk(b"iCCP", b"a\0\0" + bomb), data, END),
        refused=None)
    fed("200 MB of data for a small picture", picture(header(20, 10), chunk(b"IDAT", bomb), END),
        refused=None)
    fed("2,000 texts", picture(header(20, 10), chunk(b"tEXt", b"a\0b") * 2000, data, END),
        refused=None)
    run("PNG, a folder", [PREDICT, "--checkpoint", model, folder], True, "regular|directory")
    pipe = os.path.join(folder, "pipe.png")
    os.mkfifo(pipe)
    run("PNG, a pipe", [PREDICT, "--checkpoint", model, pipe], True, "regular", "pipe.png")
    run("PNG, a device", [PREDICT, "--checkpoint", model, "/dev/zero"], True, "regular")
    run("PNG, none", [PREDICT, "--checkpoint", model, os.path.join(folder, "none.png")], True,
        "No such", "none.png")


# ------------------------------------------------------------------ checkpoints

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


def checkpoint_cases(folder, model):
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


# ------------------------------------------------------------------ options

def option_cases():
    for arguments in ([], ["--"], ["--", "x"], ["-"], ["x"], [""], ["--="], ["---"], ["--epochs"],
                      ["--epochs="], ["--epochs", ""], ["--epochs", "0"], ["--epochs", "-1"],
                      ["--epochs", "1e3"], ["--epochs", "99999999999999999999"], ["--epochs", "0x10"],
                      ["--epochs", " 5"], ["--epochs", "5 "], ["--lr", "nan"], ["--lr", "inf"],
                      ["--lr", "-1"], ["--lr", "1e999"], ["--lr", "1,5"], ["--memory-limit", "-1"],
                      ["--memory-limit", "1X"], ["--memory-limit", "99999999999G"],
                      ["--dataset", "cifar"], ["--dataset", "\x1b[31m\n"], ["--seed", "1" * 5000],
                      ["--" + "a" * 5000], ["--\x1b[31m\nb"], ["\x1b[31m\nb"], ["--help=x"],
                      ["--attention-stages", "0,,1"], ["--attention-stages", "99"],
                      ["--attention-stages", "0-3"], ["--no-augmentation=maybe"],
                      ["--resume", ""], ["--evaluate", ""], ["--dataset", "mnist", "--data-dir", ""]):
        run(f"options {[a[:20] for a in arguments]}", [TRAIN, *arguments], True)


with tempfile.TemporaryDirectory() as folder:
    OUTPUT, ERRORS = os.path.join(folder, "out"), os.path.join(folder, "err")
    model = os.path.join(folder, "model.h5")
    made = subprocess.run(
        [TRAIN, "--dataset", "long-range", "--train-images", "32", "--test-images", "32", "--depth",
         "4", "--width", "4", "--attention", "efficient", "--batch-size", "16", "--threads", "1",
         "--epochs", "3", "--stop-after", "2", "--checkpoint", model], capture_output=True, text=True)
    if made.returncode != 0:
        print(f"FAILED: the model: {made.stderr}")
        sys.exit(1)
    option_cases()
    cifar_cases(folder)
    tar_cases(folder)
    idx_cases(folder)
    if PREDICT is not None:
        png_cases(folder, model)
    checkpoint_cases(folder, model)
for failure in failures[: len(failures) if FULL else 100]:
    print(f"FAILED: {failure}")
print(f"{counts['refused']} files refused, {counts['read']} read, {len(failures)} failed, "
      f"the largest program held {counts['MiB']} MiB")
sys.exit(1 if failures else 0)
