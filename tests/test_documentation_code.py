"""test_documentation_code.py SOURCE BUILD CC - what README and docs show is true.

Every fenced block of code in them is checked. A comment on the line before the fence says how:

    ```c                       a complete program: compiled with warnings as errors, linked, run
    <!-- data PATH -->         the same, with PATH replaced by a folder of a small data set of the same
                               format as Fashion-MNIST's: run everywhere, and soon
    <!-- fragment -->          C statements in the middle of a function: compiled; usual names such
                               as `tape`, `x` and `error` are declared for them (PRELUDE below)
    <!-- declarations -->      C at file scope: compiled
    <!-- from FILE -->         lines of a file of the repository, word for word but for indentation
    <!-- output of PROGRAM -->  what a lesson's program prints; a line "..." stands for any lines
    <!-- output -->            what the C program before it prints
    <!-- file PATH -->         a file to be added to the library: test_lesson8.py builds and runs it,
    ```diff                    as it does with changes to files that are there
    ```sh                      every program, script and option in it exists
    ```python                  runs (beside it lies a checkpoint, model.h5; needs h5py)

Anything else fenced (```text, ``` with diagrams or messages) is not code. Links between the pages
are checked as well. Exit code 1 if something is not as the page says, with the page and the line.
"""

import os
import random
import re
import shlex
import struct
import sys
import tempfile

from support.documentation import blocks_of, link_line, run

SOURCE, BUILD, CC = sys.argv[1], sys.argv[2], sys.argv[3:]
WARNINGS = "-std=c17 -O1 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror".split()
INCLUDE = f"-I{SOURCE}/lib/include"
# Names that fragments use without declaring them.
PRELUDE = """
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tapeline/tapeline.h>
int fragment(tl_context *context, tl_tape *tape, tl_tensor *x, tl_tensor *y, tl_tensor *loss,
             tl_model *net, tl_optimizer *optimizer, tl_loader *loader, tl_parameters *parameters,
             tl_state *state, tl_random *random, tl_batch batch, tl_error error, uint64_t seed);
int fragment(tl_context *context, tl_tape *tape, tl_tensor *x, tl_tensor *y, tl_tensor *loss,
             tl_model *net, tl_optimizer *optimizer, tl_loader *loader, tl_parameters *parameters,
             tl_state *state, tl_random *random, tl_batch batch, tl_error error, uint64_t seed) {
    (void)context; (void)tape; (void)x; (void)y; (void)loss; (void)net; (void)optimizer;
    (void)loader; (void)parameters; (void)state; (void)random; (void)batch; (void)error;
    (void)seed;
    {
"""
CODE = {"c", "sh", "python", "cmake", "cpp", "c++", "bash", "console"}


def pages():
    found = [p for p in os.listdir(SOURCE) if p.endswith(".md") and p != "CHANGELOG.md"]
    for folder, _, names in os.walk(os.path.join(SOURCE, "docs")):
        found += [
            os.path.relpath(os.path.join(folder, n), SOURCE) for n in names if n.endswith(".md")
        ]
    return sorted(found + ["datasets/README.md"])


def same_output(expected, found):
    """Equal line by line; "..." stands for any number of lines."""
    pattern = ""
    for line in expected.rstrip("\n").split("\n"):
        pattern += r"(?:.*\n)*" if line == "..." else re.escape(line.rstrip()) + r"[ \t]*\n"
    return re.fullmatch(pattern, found.rstrip("\n") + "\n") is not None


# ------------------------------------------------------------------ the kinds of blocks


class Checker:
    def __init__(self, folder):
        self.folder = folder
        self.checked = 0
        self.failed = 0
        self.skipped = []
        self.last_output = None
        self.help = {}

    def fail(self, block, text):
        print(f"{block.page}:{block.line}: {text.strip()}")
        self.failed += 1

    def compile(self, block, text, arguments):
        path = os.path.join(self.folder, "block.c")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        code, out = run([*CC, *WARNINGS, INCLUDE, path, *arguments])
        if code != 0:
            self.fail(block, out)
        return code == 0

    def check_c(self, block):
        if block.mark == "fragment":
            text = PRELUDE + block.text + "    }\n    return 0;\n}\n"
            self.compile(block, text, ["-fsyntax-only", "-Wno-shadow", "-Wno-unused-variable"])
        elif block.mark == "declarations":
            self.compile(block, "#include <tapeline/tapeline.h>\n" + block.text, ["-fsyntax-only"])
        elif "int main(" in block.text:
            program = os.path.join(self.folder, "program")
            libraries = [os.path.join(BUILD, "libtapeline.a"), *link_line(BUILD)]
            text = block.text
            if block.mark.startswith("data "):
                text = text.replace(block.mark[len("data ") :], make_images(self.folder))
            if self.compile(block, text, ["-o", program, *libraries]):
                code, self.last_output = run([program], cwd=self.folder)
                if code != 0:
                    self.fail(block, f"exit code {code}: {self.last_output}")
        else:
            self.fail(block, "neither a program nor marked as fragment, declarations or from FILE")

    def check_excerpt(self, block):
        path = block.mark[len("from ") :]
        with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        wanted = [line.strip() for line in block.text.rstrip("\n").split("\n")]
        count = len(wanted)
        if not any(lines[i : i + count] == wanted for i in range(len(lines) - count + 1)):
            near = next((line for line in wanted if line not in lines), "the order of the lines")
            self.fail(block, f"not in {path}: {near}")

    def check_output(self, block):
        found = self.last_output
        if block.mark != "output":
            program = os.path.join(BUILD, "examples", "lessons", block.mark[len("output of ") :])
            code, found = run([program], cwd=self.folder)
            if code != 0:
                return self.fail(block, f"{program}: exit code {code}: {found}")
        if found is None or not same_output(block.text, found):
            self.fail(block, f"the program prints something else:\n{found}")

    def options_of(self, program):
        if program not in self.help:
            self.help[program] = run([program, "--help"])[1]
        return self.help[program]

    def check_command(self, block, words):
        """The first word that names a file of ours must exist, and take the options given."""
        for i, word in enumerate(words):
            if re.match(r"(\./)?build/(examples|bench|tests)/", word):
                source = word[word.index("build/") + 6 :]
                program = os.path.join(BUILD, source)
                if not os.path.exists(program):
                    if os.path.exists(os.path.join(SOURCE, source + ".c")):
                        self.skipped.append(f"{word} (not built)")
                    else:
                        self.fail(block, f"no such program: {word}")
                    return
                for option in (w for w in words[i + 1 :] if w.startswith("--")):
                    if f"{option.split('=')[0]}" not in self.options_of(program):
                        self.fail(block, f"{word} has no option {option}")
                return
            if re.match(r"(\./)?(scripts|tests)/", word):
                if not os.path.exists(os.path.join(SOURCE, word)):
                    self.fail(block, f"no such file: {word}")
                elif word.endswith(".py"):
                    with open(os.path.join(SOURCE, word), encoding="utf-8") as file:
                        text = file.read()
                    for option in (w for w in words[i + 1 :] if w.startswith("--")):
                        if f'"{option.split("=")[0]}"' not in text:
                            self.fail(block, f"{word} has no option {option}")
                return

    def check_sh(self, block):
        code, out = run(["sh", "-n"], input=block.text)
        if code != 0:
            self.fail(block, out)
        text = block.text.replace("\\\n", " ")
        for line in text.split("\n"):
            for command in re.split(r"&&|\|\||;|\|", line):
                try:
                    words = shlex.split(command, comments=True)
                except ValueError:
                    continue  # quotes that go on over lines; sh -n has looked at them
                self.check_command(block, words)

    def check_python(self, block):
        if run([sys.executable, "-c", "import h5py"])[0] != 0:
            self.skipped.append(f"{block.page}:{block.line} (h5py is not installed)")
            return
        code, out = run([sys.executable, "-c", block.text], cwd=self.folder)
        if code != 0:
            self.fail(block, out)

    def check(self, block):
        self.checked += 1
        if block.mark.startswith("file ") or block.language == "diff":
            self.checked -= 1
        elif block.mark.startswith("from "):
            self.check_excerpt(block)
        elif block.mark.startswith("output"):
            self.check_output(block)
        elif block.language == "c":
            self.check_c(block)
        elif block.language == "sh":
            self.check_sh(block)
        elif block.language == "python":
            self.check_python(block)
        elif block.language in CODE:
            self.fail(block, f"{block.language} must be marked as from FILE")
        else:
            self.checked -= 1

    def check_links(self, page):
        with open(os.path.join(SOURCE, page), encoding="utf-8") as file:
            text = re.sub(r"```.*?```", "", file.read(), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:|#", target):
                continue
            self.checked += 1
            path = os.path.join(SOURCE, os.path.dirname(page), target.split("#")[0])
            if not os.path.exists(path):
                print(f"{page}: a link leads nowhere: {target}")
                self.failed += 1


def make_images(folder):
    """300 images of noise in the files of Fashion-MNIST."""
    path, count = os.path.join(folder, "images"), 300
    os.makedirs(path, exist_ok=True)
    for kind in ("train", "t10k"):
        with open(os.path.join(path, f"{kind}-images-idx3-ubyte"), "wb") as file:
            file.write(struct.pack(">4I", 0x803, count, 28, 28) + random.randbytes(count * 784))
        with open(os.path.join(path, f"{kind}-labels-idx1-ubyte"), "wb") as file:
            file.write(struct.pack(">2I", 0x801, count) + bytes(i % 10 for i in range(count)))
    return path


def make_checkpoint(folder):
    """A small model.h5 for the Python blocks."""
    train = os.path.join(BUILD, "examples", "train_classifier")
    command = f"{train} --dataset long-range --model resnet --depth 8 --width 8 --train-images 64"
    command += " --test-images 32 --batch-size 32 --epochs 1 --attention efficient"
    code, out = run([*command.split(), "--checkpoint", os.path.join(folder, "model.h5")])
    if code != 0:
        print(out)
        sys.exit(1)


def main():
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(folder)
        checker = Checker(folder)
        for page in pages():
            checker.last_output = None
            for block in blocks_of(SOURCE, page):
                checker.check(block)
            checker.check_links(page)
    for text in checker.skipped:
        print(f"skipped: {text}")
    print(f"{checker.checked} checked, {checker.failed} failed")
    sys.exit(1 if checker.failed or not checker.checked else 0)


main()
