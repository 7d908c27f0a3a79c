"""The fenced blocks of the documentation, for the tests that check them."""

import os
import re
import subprocess


class Block:
    def __init__(self, page, line, language, mark, text):
        self.page, self.line, self.language = page, line, language
        self.mark, self.text = mark, text


def blocks_of(source, page):
    with open(os.path.join(source, page), encoding="utf-8") as file:
        lines = file.read().split("\n")
    found, at, mark = [], 0, ""
    while at < len(lines):
        comment = re.fullmatch(r"<!--\s*(.*?)\s*-->", lines[at])
        fence = re.fullmatch(r"```\s*(\S*)", lines[at])
        if fence:
            end = lines.index("```", at + 1)
            text = "\n".join(lines[at + 1 : end]) + "\n"
            found.append(Block(page, at + 1, fence.group(1), mark, text))
            at = end
        mark = comment.group(1) if comment else ""
        at += 1
    return found


def run(command, **options):
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    return done.returncode, done.stdout


def link_line(build):
    """What a program needs besides libtapeline.a, as pkg-config would say."""
    with open(os.path.join(build, "cmake", "tapeline.pc"), encoding="utf-8") as file:
        private = re.search(r"^Libs.private: (.*)$", file.read(), re.M).group(1)
    return private.split()
