"""test_comparison.py REPOSITORY [PROGRAMS]: the statistics, the rows and the plans of
scripts/compare.py; with a folder of programs also that runs are cut, resumed and not repeated."""
import math
import pathlib
import sys
import tempfile
import types

ROOT = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(ROOT / "scripts"))
from comparison import analysis, page, plan, runner  # noqa: E402

passed = 0


def check(condition, what):
    global passed
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    passed += 1


def statistics_by_hand():
    # mean 2, deviation sqrt(2.5), t(4) = 2.776: half width 2.776 * sqrt(2.5 / 5) = 1.963
    d = analysis.interval([0, 1, 2, 3, 4])
    check(d.mean == 2 and math.isclose(d.low, 2 - 1.963, abs_tol=1e-3), "interval's low end")
    check(math.isclose(d.high, 2 + 1.963, abs_tol=1e-3), "interval's high end")
    check(d.verdict(1).startswith("different"), "an interval without zero is a difference")
    check("not decided" in analysis.interval([-2, 2, 1]).verdict(0.5), "wide ones do not")
    check("the same" in analysis.interval([-.01, .01, .02, 0]).verdict(0.5), "narrow ones decide")
    check("nothing" in analysis.interval([3]).verdict(0.5), "one seed says nothing")


def plans_are_sound():
    for the_plan in (plan.quick(), plan.full("somewhere")):
        keys = [unit.key for unit in the_plan.runs + the_plan.resources]
        check(len(keys) == len(set(keys)), f"{the_plan.name}: keys are unique")
        check(not any("/" in run.command or "somewhere" in run.command for run in the_plan.runs),
              f"{the_plan.name}: commands name no folder")
        seeds = {}
        for run in the_plan.runs:
            seeds.setdefault((run.part, run.group), {}).setdefault(run.kind, set()).add(run.seed)
        for group, kinds in seeds.items():
            check(len({frozenset(s) for s in kinds.values()}) == 1, f"{group}: kinds are paired")
    full = plan.full("somewhere")
    for group in ("CIFAR-10", "long-range"):
        check(len({run.seed for run in full.runs if run.group == group}) >= 5, "five seeds")


def rows_survive(folder):
    store = runner.Store(folder / "rows.csv", ["key", "command", "value", "date"])
    store.append({"key": "a", "command": "x", "value": "1,5", "date": "d"})
    with open(folder / "rows.csv", "a") as file:
        file.write("b,y,2")  # cut off
    again = runner.Store(folder / "rows.csv", ["key", "command", "value", "date"])
    check(set(again.rows) == {"a"} and again.rows["a"]["value"] == "1,5", "whole rows are kept")
    again.append({"key": "b", "command": "y", "value": "3", "date": "d"})
    last = runner.Store(folder / "rows.csv", ["key", "command", "value", "date"])
    check(last.rows["b"]["value"] == "3", "a row that was cut off is written again")
    unit = types.SimpleNamespace(key="a", command="x")
    check(last.find(unit) is not None, "a row is found")
    unit.command = "other"
    check(last.find(unit) is None, "but not for another command")


def pages_are_whole(folder):
    table = analysis.Table("T<1>", ["a", "b"], [["1 < 2", "[7]"]], "note")
    page.write_html(folder / "p.html", "t", ["h"], ["s"], [("S", ["p"], [table], [], "charts")],
                    ["command"])
    text = (folder / "p.html").read_text()
    check("T&lt;1&gt;" in text and "1 &lt; 2" in text, "text is escaped")
    check('href="#command-7"' in text and 'id="command-1"' in text, "numbers lead to commands")


def runs_are_cut_and_resumed(folder, programs):
    output = folder / "out"
    run = plan.Run("part", "group", "kind", 3, "train_dense",
                   ("--train-images", "64", "--test-images", "8", "--depth", "4", "--width", "8",
                    "--epochs", "60"), "test_iou")
    r = runner.Runner(programs, output, {"commit": "c", "date": "d"}, None)
    whole = r.train(run)
    check(whole["status"] == "done" and whole["epochs_done"] == 60, f"a run ends: {whole}")
    log = [row["train_loss"] for row in runner.read_csv(output / "logs" / f"{run.key}.csv")]
    other = runner.Runner(programs, folder / "cut", {"commit": "c", "date": "d"}, None)
    runner.SLICE_SECONDS = float(whole["total_seconds"]) / 3
    cut = other.train(run)
    check(cut["status"] == "done" and cut["value"] == whole["value"], f"cut into slices: {cut}")
    said = (folder / "cut" / "logs" / f"{run.key}.txt").read_text()
    check("resumed" in said, "it was indeed cut")
    check([row["train_loss"] for row in runner.read_csv(folder / "cut" / "logs" / f"{run.key}.csv")]
          == log, "the same losses")
    small = plan.Run("part", "group", "small", 3, "train_dense",
                     run.arguments + ("--memory-limit", "1M"), "test_iou")
    row = r.train(small)
    check(row["status"] == "does not fit" and row["value"] == "", f"what does not fit: {row}")
    unit = plan.Resource("s", "16x16", 8, 1, "tiled", 1e12, "1G")
    row = r.measure(unit)
    check(row["status"] == "measured" and row["measured_peak_bytes"], f"a module: {row}")
    unit = plan.Resource("s", "64x64", 8, 1, "materialized", 1e12, "1M")
    row = r.measure(unit)
    check(row["status"] == "does not fit" and "needs" in row["message"], f"too large: {row}")


def costs_follow_the_paper(folder, programs):
    """By hand, for d = d_v = 64 and d_k = 32: four projections take 2 n 64 (32 + 32 + 64 + 64) FLOPs,
    the two products of efficient attention 4 n 32 64, those of the non-local block 2 n^2 (32 + 64)."""
    r = runner.Runner(programs, folder / "costs", {"commit": "c", "date": "d"}, None)
    for side in (16, 32, 64):
        n = side * side
        for module, products in (("efficient", 8192 * n), ("tiled", 192 * n * n),
                                 ("materialized", 192 * n * n)):
            row = r.measure(plan.Resource("s", f"{side}x{side}", 64, 1, module, 0, "1G"))
            # what is linear in n and small (the residual, say) adds less than half a percent
            ours, by_hand = float(row["forward_flops"]), 24576 * n + products
            check(abs(ours - by_hand) < 0.005 * by_hand, f"{module}, n = {n}: {ours}, {by_hand}")
            # backward: two products for each of forward's
            ratio = float(row["training_flops"]) / float(row["forward_flops"])
            check(abs(ratio - 3) < 0.01, f"{module}, n = {n}: training takes {ratio} times")


with tempfile.TemporaryDirectory() as name:
    statistics_by_hand()
    plans_are_sound()
    rows_survive(pathlib.Path(name))
    pages_are_whole(pathlib.Path(name))
    if len(sys.argv) > 2:
        costs_follow_the_paper(pathlib.Path(name), sys.argv[2])
        runs_are_cut_and_resumed(pathlib.Path(name), sys.argv[2])
print(f"{passed} passed, 0 failed")
