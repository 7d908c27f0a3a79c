"""PNG, as predict and show_attention read them."""

import os
import random
import struct
import zlib

from damaged.programs import PREDICT, run, SHOW, write


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


def cases(folder, model):
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
