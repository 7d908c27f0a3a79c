#!/usr/bin/env python3
"""Makes the comments of the public headers readable for Doxygen, or looks for functions without.

    filter.py HEADER           prints the header with its comments as documentation (INPUT_FILTER)
    filter.py --check HEADER...  exit code 1, naming them, if functions have no comment

The headers follow four rules, so that they need no markup of Doxygen's: the first comment is about
the file; a comment right above a declaration is its documentation, also that of the declarations
that follow without an empty line; one followed by an empty line is a remark on the file; one behind
a member or enumerator is about that. Lines indented by four spaces more are formulas.
"""

import re
import sys

COMMENT = re.compile(r"/\*.*?\*/", re.S)
# What Doxygen would take for commands, tags or links.
SPECIAL = re.compile(r'([@#<>&%"|]|\\(?! ))')


def escape(line):
    parts = line.replace("et al. ", "et al.\\ ").split("`")
    return "`".join(p if i % 2 else SPECIAL.sub(r"\\\1", p) for i, p in enumerate(parts))


def lines_of(comment):
    """The text of a comment, without its stars and headings."""
    lines = [re.sub(r"^\s*\* ?", "", line) for line in comment[2:-2].split("\n")]
    lines[0] = lines[0].strip()
    if lines[0].startswith("----"):
        lines = lines[1:]
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    return [line.rstrip() for line in lines]


def markup(lines):
    """Indented blocks verbatim, the rest with what is special to Doxygen escaped."""
    found, formula = [], False
    for line in lines:
        indented = line.startswith("    ") or (formula and line.startswith("  "))
        if indented != formula and line.strip():
            found.append("@verbatim" if indented else "@endverbatim")
            formula = indented
        found.append(line if formula else escape(line))
    if formula:
        found.append("@endverbatim")
    return "\n".join(found)


def document(lines, opening="/**"):
    return f"{opening}\n{markup(lines)}\n*/" if lines else ""


def repeat(text):
    """Gives each function its comment: declarations without an empty line in between share one."""
    found, shared = [], None
    for part in re.split(r"(/\*\*.*?\*/\n|\n\s*\n)", text, flags=re.S):
        if re.match(r"/\*\*(?! @file|<)", part):
            shared = part
        elif not part.strip():
            shared = None
        elif shared is not None:
            part = re.sub(r"(?<=;\n)(?=TL_API)", lambda _, s=shared: s, part)
        found.append(part)
    return "".join(found)


def filtered(text):
    found, at = [], 0
    for match in COMMENT.finditer(text):
        before, comment = text[at : match.start()], match.group()
        found.append(before)
        at = match.end()
        lines = lines_of(comment)
        head = text[: match.start()].rpartition("\n")[2]
        own_line = head.strip() == ""
        if head:
            lines = [line.strip() for line in lines]  # of a member: no formulas
        after = text[at : at + 2]
        if match.start() == 0:
            lines[0] = re.sub(r"^\S+\.h - ", "", lines[0])
            lines[0] = lines[0][:1].upper() + lines[0][1:]
            found.append(document(lines, "/** @file"))
        elif not own_line:
            # a lone comment on the #endif or after a brace is none of a member
            found.append(document(lines, "/**<") if head.rstrip()[-1:] in ",;" else comment)
        elif after == "\n\n":
            found.append(document(lines, "/** @file"))
        else:
            found.append(document(lines))
    return repeat("".join(found) + text[at:])


def undocumented(text):
    """Functions that no comment is above."""
    for match in re.finditer(r"^TL_API [^;]*?\b(tl_\w+)\(", text, re.M):
        if not text[: match.start()].endswith("*/\n"):
            yield match.group(1)


def read(path):
    with open(path, encoding="utf-8") as file:
        return filtered(file.read())


def main(arguments):
    if arguments[:1] != ["--check"]:
        sys.stdout.write(read(arguments[0]))
        return 0
    missing = [f"{path}: {name}" for path in arguments[1:] for name in undocumented(read(path))]
    print("\n".join(f"{line} has no comment" for line in missing) or "every function has a comment")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
