#!/usr/bin/env python3
"""Reproduces the paper (Shen et al. 2021, arXiv 1812.01243) in small: networks without attention
('baseline'), with non-local blocks and with efficient attention, trained on the same data.

    scripts/compare.py --quick                        under 10 minutes on 2 cores
    scripts/compare.py --full --cifar DIR             two hours; DIR: datasets/README.md
    scripts/compare.py --full --cifar DIR --parts claim1,stereo

The work is done by the example programs, which are built if need be. Each unit of work appends its
row to runs.csv or resources.csv in the output folder as it ends; a training run that takes long is
cut into slices of at most 14 minutes, from checkpoint to checkpoint. Ctrl-C stops cleanly; started
again, the script does what is missing. The report (report.html, self-contained; report.md) is made
of what is there.
"""
import argparse
import csv
import datetime
import importlib.util
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import report  # noqa: E402

PACKAGES = ["gcc", "libc6-dev", "make", "cmake", "libhdf5-dev", "zlib1g-dev", "libpng-dev"]
PROGRAMS = ["train_classifier", "train_dense", "train_stereo", "attention_cost", "show_attention"]
PARTS = ["resources", "claim1", "claim2", "claim3", "ablations", "stereo"]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--quick", action="store_true", help="every part in small")
    mode.add_argument("--full", action="store_true", help="about two hours on two cores")
    parser.add_argument("--cifar", metavar="DIR", help="--full: CIFAR-10's files")
    parser.add_argument("--output", metavar="DIR", default=str(report.ROOT / "results"),
                        help="where rows, logs, checkpoints and the report go (default: results)")
    parser.add_argument("--parts", metavar="LIST", default=",".join(PARTS),
                        help=f"run only these of {','.join(PARTS)}; the report has all")
    parser.add_argument("--document", metavar="FILE",
                        help="write the report into a section of this page as well, and its rows "
                             "into a folder beside it (docs/reproduction.md)")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    parser.add_argument("--build", metavar="DIR",
                        help="where the programs are built (default: build if it is configured, "
                             "else build-compare)")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts.split(",")
    wrong = set(arguments.parts) - set(PARTS)
    if wrong:
        parser.error(f"--parts: unknown: {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    if arguments.full and not arguments.cifar:
        parser.error("--full needs --cifar DIR (scripts/fetch_cifar10.sh downloads CIFAR-10)")
    if arguments.cifar and not os.path.exists(arguments.cifar):
        parser.error(f"--cifar: {arguments.cifar} does not exist")
    return arguments


def install(packages):
    return subprocess.run(["sh", str(report.ROOT / "scripts/install_packages.sh"),
                           *packages]).returncode == 0


def use_system_python():
    """Starts again with the Python that the distribution's packages are for."""
    system = "/usr/bin/python3"
    if os.path.realpath(sys.executable) != os.path.realpath(system) and subprocess.run(
            [system, "-c", "import matplotlib"], capture_output=True).returncode == 0:
        os.execv(system, [system, *sys.argv])
    raise SystemExit("compare.py needs matplotlib for this Python (Debian: python3-matplotlib)")


def prepare(arguments):
    """What is missing is installed or named; the programs are built."""
    if importlib.util.find_spec("matplotlib") is None:
        install(["python3-matplotlib"])
        importlib.invalidate_caches()
        if importlib.util.find_spec("matplotlib") is None:
            use_system_python()
    if arguments.quick and not os.path.isdir("/usr/share/datasets/fashion-mnist"):
        install(["dataset-fashion-mnist"])
    return build(arguments.build, arguments.report_only)


def build(folder, if_missing):
    """The programs, up to date: in a folder that was configured before, or in one of their own."""
    if folder is None:
        default = report.ROOT / "build"
        configured = (default / "CMakeCache.txt").exists() and (default / "examples").exists()
        folder = default if configured else report.ROOT / "build-compare"
    programs = pathlib.Path(folder) / "examples"
    if if_missing and all((programs / name).exists() for name in PROGRAMS):
        return programs
    commands = [["cmake", "--build", str(folder), f"-j{os.cpu_count()}", "--target", *PROGRAMS]]
    if not (pathlib.Path(folder) / "CMakeCache.txt").exists():
        install(PACKAGES)
        commands.insert(0, ["cmake", "-S", str(report.ROOT), "-B", str(folder),
                            "-DTAPELINE_BUILD_TESTS=OFF", "-DTAPELINE_BUILD_BENCH=OFF"])
    for command in commands:
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
            raise SystemExit(f"failed: {' '.join(command)}")
    return programs


def work(the_plan, parts, runner, runs, resources):
    """Does what is missing."""
    units = [unit for unit in the_plan.resources if "resources" in parts]
    units += [run for run in the_plan.runs
              if run.part in parts or (run.part == "costs" and "claim1" in parts)]
    started = time.monotonic()
    for number, unit in enumerate(units, 1):
        store, act = (resources, runner.measure) if unit in the_plan.resources else (
            runs, runner.train)
        if store.find(unit) is not None:
            continue
        began = time.monotonic()
        print(f"[{number}/{len(units)}] {unit.key} ...", end="", flush=True)
        row = act(unit)
        store.append(row)
        what = (f"{row['metric']} {row['value']}" if row.get("value") else
                row.get("message") or row["status"])
        print(f" {time.monotonic() - began:.1f} s: {what}", flush=True)
    print(f"all units are done; this took {(time.monotonic() - started) / 60:.1f} minutes")


def write_report(the_plan, runner, runs, resources, command, document):
    from comparison import analysis, charts, images, page
    results = analysis.Results(the_plan, runs, resources, runner.output)
    folder = runner.output / f"charts-{the_plan.name}"
    folder.mkdir(exist_ok=True)
    claim1 = results.groups("claim1")
    rows = [*results.rows.values(), *results.resource_rows.values()]
    dates = [row["date"] for row in rows if row]
    commits = sorted({row["commit"] for row in rows if row})
    missing = sum(row is None for row in rows)
    head = [f"{report.machine()}; rows of {min(dates, default='-')} to {max(dates, default='-')}, "
            f"commit {', '.join(commits) or '-'}. Command: {command}.",
            f"Mode {the_plan.name}: {the_plan.data_note}; {the_plan.seed_note}. The network without "
            "attention is the baseline. ± is one standard deviation over seeds, [a, b] a 95% "
            "interval of Student's t over paired seeds. The paper's figures are from arXiv "
            "1812.01243: other data and larger networks, so compare what follows from what, not "
            "the numbers."]
    if missing:
        head.append(f"{missing} units have not been run yet; their cells say so.")
    sections = [
        ("Resources", ["What one attention module costs, by prediction and by measurement."],
         analysis.resource_tables(results), charts.resources(results, folder), "charts"),
        ("Claim 1", ["The same accuracy for less memory and time: the networks are the same but for "
                     "the modules at the same places."], analysis.claim1_tables(results),
         [f for g in claim1 for f in charts.learning_curves(results, "claim1", g, folder) +
          charts.scatter(results, "claim1", g, folder, "context_peak_bytes", "peak memory, MB",
                         1e-6, "memory")], "charts"),
        ("Claim 2", ["More accuracy within the same budget.", *analysis.claim2_verdict(results)],
         [analysis.claim2_table(results)],
         charts.scatter(results, "claim2", "dense", folder, "context_peak_bytes",
                        "peak memory, MB", 1e-6, "memory") +
         charts.scatter(results, "claim2", "dense", folder, "step_seconds", "time a step, ms", 1e3,
                        "time"), "charts"),
        ("Claim 3", ["Training where the non-local block cannot: segment the glyph that has the "
                     "ring's colour (docs/datasets.md)."], [analysis.claim3_table(results)],
         charts.resolution(results, folder) +
         [f for g in results.groups("claim3")
          for f in charts.learning_curves(results, "claim3", g, folder)], "charts"),
        ("Ablations", ["On the dense task of 32x32, unless a row says otherwise. A single seed decides "
                       "nothing: within its steps a run finds the relation between ring and glyph, "
                       "or does not yet."],
         analysis.ablation_tables(results), [], "charts"),
        ("Stereo", ["Depth from procedural pairs by a small network after PSMNet."],
         analysis.stereo_tables(results),
         charts.learning_curves(results, "stereo", "pairs", folder), "charts"),
        ("Attention maps", ["What the modules of claim 1's networks (seed 1) look at in real test "
                            "images. Bright is much. Efficient attention: a global map per key "
                            "channel. Non-local: the map of the middle pixel."],
         [], images.attention_maps(runner, results, folder), "maps"),
    ]
    commands = []
    for part, group, kind in (label for label in results.labels if isinstance(label, tuple)):
        of_kind = results.runs_of(part, group, kind)
        first = of_kind[0].command.rsplit(" ", 1)[0]
        commands.append(f"{first} {{{','.join(str(run.seed) for run in of_kind)}}}")
    for unit in the_plan.resources:
        commands.append(unit.command)
    title = "Efficient attention: the paper's claims, measured again"
    summary = analysis.summary(results)
    page.write_html(runner.output / "report.html", title, head, summary, sections, commands)
    (runner.output / "report.md").write_text(
        page.markdown(title, head, summary, sections, commands, output=runner.output))
    print(f"wrote {runner.output / 'report.html'} and report.md")
    if document:
        write_document(pathlib.Path(document), the_plan, results, page.markdown(
            f"The {the_plan.name} run", head, summary, sections, commands, level=2))


def write_document(path, the_plan, results, text):
    """The report as a section of a page, its rows beside the page."""
    report.write_section(path, the_plan.name, text)
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, rows in (("runs", results.rows), ("resources", results.resource_rows)):
        rows = [row for row in rows.values() if row is not None]
        with open(folder / f"{the_plan.name}-{name}.csv", "w", newline="") as file:
            if rows:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
    print(f"wrote a section of {path}")


def main():
    arguments = parse()
    programs = prepare(arguments)
    from comparison import plan
    from comparison.runner import (RESOURCE_COLUMNS, RUN_COLUMNS, Failed, Interrupted, Runner,
                                   Store)
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    the_plan = plan.quick() if arguments.quick else plan.full(os.path.abspath(arguments.cifar))
    runner = Runner(programs, output, {"commit": report.commit(),
                                       "date": str(datetime.date.today())},
                    arguments.cifar and os.path.abspath(arguments.cifar))
    runs = Store(output / "runs.csv", RUN_COLUMNS)
    resources = Store(output / "resources.csv", RESOURCE_COLUMNS)
    command = "scripts/compare.py " + ("--quick" if arguments.quick else "--full --cifar DIR")
    try:
        if not arguments.report_only:
            work(the_plan, arguments.parts, runner, runs, resources)
        write_report(the_plan, runner, runs, resources, command, arguments.document)
    except Interrupted:
        print("\ninterrupted; started again, the script does what is missing")
        return 130
    except Failed as failure:
        print(f"\ncompare.py: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
