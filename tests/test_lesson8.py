"""test_lesson8.py SOURCE BUILD CC... - lesson 8, followed to the letter.

Puts the files that docs/lessons/8-your-own-operation.md lists into a copy of the sources, applies
its changes, and does what the lesson says comes out: builds operation, layer, tests and benchmark,
runs them, and looks whether the operation has its gradient check and its line in the table.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

from support.documentation import blocks_of, link_line, run

SOURCE, BUILD, CC = sys.argv[1], sys.argv[2], sys.argv[3:]
LESSON = "docs/lessons/8-your-own-operation.md"
FLAGS = "-std=c17 -O1 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -Wno-psabi -fopenmp"
FLAGS += " -D_DEFAULT_SOURCE -D_POSIX_C_SOURCE=200809L"


def require(command, **options):
    code, out = run(command, **options)
    if code != 0:
        print(f"{' '.join(command)}\nexit code {code}: {out}")
        sys.exit(1)
    return out


def follow(tree):
    """Files and changes of the lesson; returns the paths of the new files."""
    added = []
    for block in blocks_of(SOURCE, LESSON):
        if block.mark.startswith("file "):
            added.append(block.mark[len("file ") :])
            path = os.path.join(tree, added[-1])
            assert not os.path.exists(path), f"{added[-1]} is there already"
            with open(path, "w", encoding="utf-8") as file:
                file.write(block.text)
        elif block.language == "diff":
            require(["git", "apply", "--recount", "-"], cwd=tree, input=block.text)
    return added


def build(tree, name, sources, flags, libraries):
    program = os.path.join(tree, name)
    folders = [f"-I{tree}/{folder}" for folder in ("lib/include", "lib/src", "tests", "bench")]
    packages = subprocess.check_output(["pkg-config", "--cflags", "--libs", "check"], text=True)
    require(
        [*CC, *FLAGS.split(), *flags, *folders, "-o", program, *sources]
        + [os.path.join(BUILD, library) for library in libraries]
        + [*packages.split(), *link_line(BUILD)],
        cwd=tree,
    )
    return program


def main():
    with tempfile.TemporaryDirectory() as tree:
        for folder in ("lib", "tests", "bench", "docs"):
            shutil.copytree(os.path.join(SOURCE, folder), os.path.join(tree, folder))
        require(["git", "init", "--quiet"], cwd=tree)  # so that git applies changes here
        added = follow(tree)
        library = [path for path in added if path.startswith("lib/src/")]
        gradients = [path for path in added if path.startswith("tests/gradients/")]
        tests = [path for path in added if path.startswith("tests/test_")]
        assert len(library) == 2 and gradients and tests, added
        float_libraries = ["tests/libtest_support.a", "libtapeline.a"]
        double_libraries = ["tests/libtest_support_double.a", "tests/libtapeline_double.a"]
        for path in tests:
            print(require([build(tree, "test", [path, *library], [], float_libraries)]))
        sources = ["tests/test_operations.c", "tests/support/operation_list.c", *library]
        print(require([build(tree, "operations", sources, [], float_libraries)]))
        for path in gradients:
            program = build(
                tree, "gradients", [path, *library], ["-DTL_REAL_DOUBLE"], double_libraries
            )
            print(require([program]))
        sources = sorted(glob.glob("bench/*.c", root_dir=tree))
        program = build(tree, "benchmark", [*sources, *library], [], ["libtapeline.a"])
        cases = require([program, "--list"])
        assert "rms_norm/forward/" in cases and "rms_norm/backward/" in cases, cases
        print(require([program, "--filter", "rms_norm/forward/128x32x32x16"]))
        print(require(["sh", "tests/test_every_operation.sh", tree], cwd=tree))


main()
