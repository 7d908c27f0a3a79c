"""CIFAR: plain, gzip and tar."""

import gzip
import io
import os
import random
import shutil
import struct
import tarfile

from damaged.programs import run, train_on, write


def records(count, label=lambda i: i % 10, seed=1):
    pixels = random.Random(seed)
    return b"".join(bytes([label(i)]) + pixels.randbytes(3072) for i in range(count))


BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
GOOD = {name: records(4, seed=i) for i, name in enumerate(BATCHES)}


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


def cases(folder):
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
