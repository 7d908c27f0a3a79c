"""What follows from the rows: statistics, tables, verdicts. A table is a Table; a cell is text."""
import dataclasses
import math
import re
import statistics

from . import paper, plan
from .runner import read_csv, scaled

# Student's t, two-sided 95%, by degrees of freedom.
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262,
        10: 2.228, 11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110,
        18: 2.101, 19: 2.093}


@dataclasses.dataclass
class Table:
    title: str
    header: list
    rows: list
    note: str = ""


@dataclasses.dataclass
class Difference:
    """Of paired runs: second minus first."""
    mean: float
    low: float
    high: float
    pairs: int

    def verdict(self, margin):
        if self.pairs < 2:
            return "one seed: nothing can be said"
        if -margin < self.low and self.high < margin:
            return f"the same within ±{margin:g} points"
        if self.low > 0 or self.high < 0:
            return "different" + ("" if abs(self.mean) > margin else
                                  ", if by less than the margin on average")
        return f"not decided: neither different nor the same within ±{margin:g} points"


def interval(values):
    """Mean and 95% interval of a sample's mean."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return Difference(mean, math.nan, math.nan, len(values))
    half = T_95[min(len(values) - 1, max(T_95))] * statistics.stdev(values) / math.sqrt(len(values))
    return Difference(mean, mean - half, mean + half, len(values))


class Results:
    """The plan's runs with their rows."""

    def __init__(self, the_plan, runs, resources, output):
        self.plan = the_plan
        self.output = output
        self.rows = {run.key: runs.find(run) for run in the_plan.runs}
        self.resource_rows = {unit.key: resources.find(unit) for unit in the_plan.resources}
        self.labels = {}  # (part, group, kind) -> number in the list of commands
        for run in the_plan.runs:
            self.labels.setdefault((run.part, run.group, run.kind), len(self.labels) + 1)
        for unit in the_plan.resources:
            self.labels[unit.key] = len(self.labels) + 1

    def groups(self, part):
        return list(dict.fromkeys(run.group for run in self.plan.runs if run.part == part))

    def kinds(self, part, group):
        return list(dict.fromkeys(run.kind for run in self.plan.runs
                                  if run.part == part and run.group == group))

    def runs_of(self, part, group, kind):
        return [run for run in self.plan.runs
                if (run.part, run.group, run.kind) == (part, group, kind)]

    def of(self, part, group, kind):
        """Rows of all seeds that are there."""
        rows = [self.rows[run.key] for run in self.runs_of(part, group, kind)]
        return [row for row in rows if row is not None]

    def log(self, run):
        """A row per epoch."""
        return read_csv(self.output / "logs" / f"{run.key}.csv")

    def last_epoch(self, run):
        rows = self.log(run)
        return rows[-1] if rows else {}

    def label(self, part, group, kind):
        return f"[{self.labels[(part, group, kind)]}]"

    def values(self, part, group, kind):
        return {row["seed"]: float(row["value"]) for row in self.of(part, group, kind)
                if row["value"]}

    def difference(self, part, group, first, second, factor=1.0):
        a, b = self.values(part, group, first), self.values(part, group, second)
        common = sorted(set(a) & set(b), key=int)
        return interval([factor * (b[s] - a[s]) for s in common]) if common else None


# ---------------------------------------------------------------- cells

def seconds(value):
    if value >= 120:
        return f"{value / 60:.3g} min"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def spread(values, percent=True):
    factor, unit = (100.0, "%") if percent else (1.0, "")
    scaled_values = [factor * v for v in values]
    mean = statistics.mean(scaled_values)
    if len(scaled_values) == 1:
        return f"{mean:.2f}{unit}"
    return f"{mean:.2f} ± {statistics.stdev(scaled_values):.2f}{unit}"


def signed(difference):
    if difference.pairs < 2:
        return f"{difference.mean:+.2f} (one pair)"
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def typical(rows, column):
    """Of all seeds: the median; of times the least, for other work on the machine only adds to
    them."""
    values = [float(row[column]) for row in rows if row[column]]
    if not values:
        return None
    return min(values) if column == "step_seconds" else statistics.median(values)


def reason(rows):
    """Why a cell has no number."""
    for row in rows:
        if row["status"] == "does not fit":
            needs = re.search(r"needs (\S+ \S?B)", row["message"])
            return f"does not fit: a map needs {needs.group(1)}" if needs else row["message"]
        if row["status"] == "stopped":
            return f"no epoch within {seconds(float(row['total_seconds']))}"
    return "not run yet"


def result(rows, percent=True):
    values = [float(row["value"]) for row in rows if row["value"]]
    if not values:
        return reason(rows)
    text = spread(values, percent)
    short = [row for row in rows if row["status"] == "stopped"]
    if short:
        text += f" (stopped after {short[0]['epochs_done']} of {short[0]['epochs']} epochs)"
    return text


def cell(rows, column, form):
    value = typical(rows, column)
    return form(value) if value is not None else reason(rows)


def short_reason(rows):
    return "does not fit" if any(r["status"] == "does not fit" for r in rows) else reason(rows)


def costs(rows):
    """Time per step, peak memory in two views, FLOPs in two counts, parameters."""
    def one(column, form):
        value = typical(rows, column)
        return form(value) if value is not None else short_reason(rows)
    return [one("step_seconds", seconds), one("context_peak_bytes", lambda v: scaled(v, "B")),
            one("system_peak_bytes", lambda v: scaled(v, "B")),
            one("step_gflop", lambda v: scaled(1e9 * v, "")),
            one("step_gflop_executed", lambda v: scaled(1e9 * v, "")),
            one("parameters", lambda v: f"{v:,.0f}")]


COSTS = ["time a step", "peak memory, counted", "peak memory, the system's view",
         "FLOPs a step, as the paper counts", "FLOPs a step, executed", "parameters"]


# ---------------------------------------------------------------- resources

def resource_rates(results):
    """FLOPs a second of each module at its largest measured size."""
    rates = {}
    for row in results.resource_rows.values():
        if row is not None and row["status"] == "measured" and row["setting"] == plan.PAPER_SETTING:
            flops = float(row["training_flops_executed"])
            if flops > rates.get(row["module"], (0, 0))[0]:
                rates[row["module"]] = (flops, flops / float(row["measured_training_seconds"]))
    return rates


def resource_tables(results):
    rates = resource_rates(results)
    tables = []
    for setting in dict.fromkeys(unit.setting for unit in results.plan.resources):
        rows = []
        for unit in results.plan.resources:
            row = results.resource_rows[unit.key]
            if unit.setting != setting:
                continue
            if row is None:
                rows.append([unit.size, module_name(unit.module)] + ["not run yet"] * 9)
                continue
            rows.append(resource_row(unit, row, rates) + [f"[{results.labels[unit.key]}]"])
        cap = results.plan.resources[0]
        note = "" if tables else (
            f"A row is measured if its training step takes at most {cap.flop_cap:.0e} executed "
            f"FLOPs and fits in {cap.memory_limit}iB. ≈ marks times that are extrapolated: executed "
            "FLOPs over the rate that the module reached at its largest measured size. Memory is "
            "what is resident at once, x, y and all gradients included; 'counted' is by the "
            "library's own allocator, 'the system's view' the growth of the process (Linux's "
            "VmHWM, in which what the process held before is missing: it says little below a few "
            "MB).")
        tables.append(Table(
            f"One module, {setting}",
            ["input", "module", "FLOPs, forward", "FLOPs, training, as the paper counts",
             "FLOPs, training, executed", "peak memory, predicted", "peak memory, counted",
             "peak memory, the system's view", "time, forward", "time, training",
             "command"], rows, note))
    return tables


def module_name(module):
    return "efficient" if module == "efficient" else f"non-local {module}"


def resource_row(unit, row, rates):
    text = [unit.size, module_name(unit.module), scaled(float(row["forward_flops"]), ""),
            scaled(float(row["training_flops"]), ""),
            scaled(float(row["training_flops_executed"]), ""),
            scaled(float(row["peak_bytes"]), "B")]
    if row["status"] == "measured":
        return text + [scaled(float(row["measured_peak_bytes"]), "B"),
                       scaled(float(row["measured_system_peak_bytes"]), "B")
                       if row["measured_system_peak_bytes"] else "the system does not say",
                       seconds(float(row["measured_forward_seconds"])),
                       seconds(float(row["measured_training_seconds"]))]
    if row["status"] == "does not fit":
        return text + [row["message"]] * 4
    rate = rates.get(unit.module)
    if rate is None:
        return text + ["not measured"] * 4
    return text + ["not measured", "not measured",
                   "≈ " + seconds(float(row["forward_flops_executed"]) / rate[1]),
                   "≈ " + seconds(float(row["training_flops_executed"]) / rate[1])]


# ---------------------------------------------------------------- claims

def seeds_of(rows):
    return str(len(rows))


def claim1_tables(results):
    tables = []
    for group in results.groups("claim1"):
        rows = []
        for kind in results.kinds("claim1", group):
            found = results.of("claim1", group, kind)
            rows.append([kind, result(found), seeds_of(found)] + costs(found) +
                        [results.label("claim1", group, kind)])
        for kind in results.kinds("costs", group):
            found = results.of("costs", group, kind)
            rows.append([kind, "as non-local; one epoch for the costs" if found else
                         reason(found), seeds_of(found)] + costs(found) +
                        [results.label("costs", group, kind)])
        tables.append(Table(f"Claim 1 on {group}: the same accuracy for less",
                            ["network", "test accuracy", "seeds"] + COSTS + ["command"], rows,
                            "'non-local' is the tiled form, which keeps no map; the materialized "
                            "one is the paper's rival."))
        rows = []
        for first, second in (("baseline", "non-local"), ("baseline", "efficient"),
                              ("non-local", "efficient")):
            difference = results.difference("claim1", group, first, second, 100)
            rows.append([f"{second} − {first}"] + (
                [signed(difference), difference.verdict(results.plan.margins[group])]
                if difference else ["not run yet", "not run yet"]))
        tables.append(Table(f"Claim 1 on {group}: paired differences over the seeds",
                            ["difference", "points, with 95% interval", "verdict"], rows,
                            f"The margin of ±{results.plan.margins[group]:g} points was fixed "
                            "before the runs. 'The same' is said only if the whole interval lies "
                            "within it."))
    return tables


def claim2_table(results):
    rows = []
    for kind in results.kinds("claim2", "dense"):
        found = results.of("claim2", "dense", kind)
        name, count = kind.split(", ")
        rows.append([name if name in ("baseline", "efficient") else f"non-local {name}", count,
                     result(found), seeds_of(found)] + costs(found) +
                    [results.label("claim2", "dense", kind)])
    budget = budget_of(results, "claim2")
    return Table("Claim 2: as many modules as the budget allows",
                 ["module", "how many", "test IoU", "seeds"] + COSTS + ["command"], rows,
                 f"Every network is trained under the same memory budget, {budget}.")


def budget_of(results, part):
    run = next(run for run in results.plan.runs if run.part == part)
    return run.arguments[run.arguments.index("--memory-limit") + 1] + "iB"


def counts_of(results, name):
    kinds = [kind.split(", ") for kind in results.kinds("claim2", "dense")]
    return [int(count) for kind, count in kinds if kind == name]


def claim2_verdict(results):
    """Sentences about the memory budget and about the time budget."""
    text = []
    fits = {}
    for name in ("efficient", "materialized", "tiled"):
        done = [c for c in counts_of(results, name)
                if any(r["value"] for r in results.of("claim2", "dense", f"{name}, {c}"))]
        fits[name] = max(done, default=0)
    if not fits["efficient"]:
        return ["Not run yet."]
    best = {name: results.of("claim2", "dense", f"{name}, {count}")
            for name, count in fits.items() if count}
    text.append(f"Memory budget ({budget_of(results, 'claim2')}): {fits['efficient']} efficient "
                f"modules fit, {fits['materialized']} materialized non-local, {fits['tiled']} tiled "
                "non-local; the IoU is " + ", ".join(
                    f"{result(rows)} with {fits[name]} {name}" for name, rows in best.items()) + ".")
    time_budget = typical(best["efficient"], "step_seconds")
    within = [c for c in counts_of(results, "tiled")
              if (typical(results.of("claim2", "dense", f"tiled, {c}"), "step_seconds") or 1e9)
              <= time_budget]
    most = max(within, default=0)
    rival = results.of("claim2", "dense", f"tiled, {most}" if most else "baseline, 0")
    text.append(f"Time budget ({seconds(time_budget)} a step, what {fits['efficient']} efficient "
                f"modules take): {most} tiled non-local modules fit; IoU {result(rival)} with "
                f"{most} tiled, {result(best['efficient'])} with {fits['efficient']} efficient.")
    text.append("So of the claim of 2018, more modules in the same memory " + (
        "stands against the materialized block" if fits["efficient"] > fits["materialized"] else
        "does not stand even against the materialized block") + (
        ", not against the tiled one" if fits["tiled"] >= fits["efficient"] else
        ", and against the tiled one") + "; more modules in the same time " + (
        "stands against the tiled one." if most < fits["efficient"] else
        "does not stand against the tiled one."))
    return text


def claim3_table(results):
    rows = []
    for group in results.groups("claim3"):
        for kind in results.kinds("claim3", group):
            found = results.of("claim3", group, kind)
            rows.append([group, kind, result(found), seeds_of(found)] + costs(found) +
                        [results.label("claim3", group, kind)])
    return Table("Claim 3: dense prediction at growing resolution",
                 ["image", "network", "test IoU", "seeds"] + COSTS + ["command"], rows,
                 f"Memory budget {budget_of(results, 'claim3')}. Non-local networks that need longer "
                 "than the cap are stopped, and the table says where they stood.")


# ---------------------------------------------------------------- ablations, stereo

def ours(results, part, group, kind, percent=True):
    return result(results.of(part, group, kind), percent)


def ablation_tables(results):
    head = "ours: test IoU"
    part = "ablations"
    tables = [
        Table("Ablation: normalization", ["normalization", head, "the paper: box / mask AP",
                                          "command"],
              [[name, ours(results, part, "normalization", name), paper.NORMALIZATION[name],
                results.label(part, "normalization", name)] for name in ("softmax", "scaling")]),
        Table("Ablation: heads", ["heads", head, "the paper: box / mask AP", "command"],
              [[str(h), ours(results, part, "heads", str(h)), paper.HEADS[h],
                results.label(part, "heads", str(h))] for h in (1, 8, 32)],
              "The network is 64 channels wide with 64 key channels, so that each of 32 heads "
              "keeps two: with one, the softmax of the queries would be constant."),
    ]
    counts = counts_of(results, "efficient")
    tables.append(Table(
        "Ablation: number of modules",
        ["modules", "ours, efficient: test IoU", "ours, non-local materialized",
         "the paper's, efficient: box / mask AP", "the paper's, non-local"],
        [[str(c), ours(results, "claim2", "dense", f"efficient, {c}"),
          ours(results, "claim2", "dense", f"materialized, {c}"),
          paper.MODULES_EFFICIENT.get(c, "not reported"),
          paper.MODULES_NON_LOCAL.get(c, "not reported")] for c in counts],
        "Our rows are those of claim 2. The paper also reports ImageNet top-1 accuracy of ResNet-50 "
        "with 0, 1 and 2 modules: " + ", ".join(paper.IMAGENET_MODULES.values()) + "."))
    kinds = results.kinds(part, "key channels")
    tables.append(Table("Ablation: key channels", ["key channels (of 32)", head, "command"],
                        [[k, ours(results, part, "key channels", k),
                          results.label(part, "key channels", k)] for k in kinds]))
    rows = []
    for group in results.groups(part):
        if group.startswith("depth "):
            rows.append([group, "IoU", ours(results, part, group, "baseline"),
                         ours(results, part, group, "efficient"),
                         results.label(part, group, "baseline") + " " +
                         results.label(part, group, "efficient")])
    if "CIFAR-10" in results.groups("claim1"):
        rows.append(["ResNet-20", "accuracy", ours(results, "claim1", "CIFAR-10", "baseline"),
                     ours(results, "claim1", "CIFAR-10", "efficient"),
                     results.label("claim1", "CIFAR-10", "baseline") + " " +
                     results.label("claim1", "CIFAR-10", "efficient")])
    tables.append(Table("Ablation: depth of the backbone",
                        ["backbone", "metric", "ours, without", "ours, with efficient attention",
                         "command"], rows))
    tables.append(Table("The paper's backbones",
                        ["backbone", "without: box / mask AP", "with efficient attention"],
                        [[name, *values] for name, values in paper.BACKBONES.items()],
                        f"From {paper.SOURCE}, as all figures of the paper here."))
    return tables


def stereo_tables(results):
    rows = []
    for kind in results.kinds("stereo", "pairs"):
        found = results.of("stereo", "pairs", kind)
        rows.append([kind, result(found, percent=False), bad_3(results, kind), seeds_of(found)] +
                    costs(found) + [results.label("stereo", "pairs", kind)])
    tables = [Table("Stereo: end-point error on procedural pairs",
                    ["network", "end-point error, pixels", "off by more than 3 pixels", "seeds"] +
                    COSTS + ["command"], rows,
                    "Lower is better. All pixels count, hidden ones included."),
              Table("The paper's stereo figures: end-point error on Scene Flow",
                    ["network", "pixels"], [["PSMNet", paper.STEREO["baseline"].split()[0]],
                                            ["with efficient attention",
                                             paper.STEREO["efficient"]]],
                    f"From {paper.SOURCE}.")]
    rows = []
    for kind in results.kinds("stereo", "pairs")[1:]:
        difference = results.difference("stereo", "pairs", "baseline", kind)
        rows.append([f"{kind} − baseline", signed(difference) if difference else "not run yet"])
    tables.insert(1, Table("Stereo: paired differences of the end-point error",
                           ["difference", "pixels, with 95% interval"], rows))
    return tables


def bad_3(results, kind):
    values = [results.last_epoch(run).get("test_bad_3") for run in
              results.runs_of("stereo", "pairs", kind) if results.rows[run.key]]
    values = [float(v) for v in values if v]
    return spread(values) if values else reason(results.of("stereo", "pairs", kind))


# ---------------------------------------------------------------- in words

def summary(results):
    lines = []
    for group in results.groups("claim1"):
        difference = results.difference("claim1", group, "non-local", "efficient", 100)
        if difference is None:
            lines.append(f"Claim 1 on {group}: not run yet.")
            continue
        margin = results.plan.margins[group]
        lines.append(f"Claim 1 on {group}: efficient minus non-local is {signed(difference)} points "
                     f"over {difference.pairs} seeds: {difference.verdict(margin)}.")
    lines += ["Claim 2. " + text for text in claim2_verdict(results)]
    lines += claim3_lines(results)
    d = results.difference("ablations", "normalization", "softmax", "scaling", 100)
    if d:
        lines.append(f"Normalization: scaling minus softmax is {signed(d)} points of IoU over "
                     f"{d.pairs} seed{'s' if d.pairs > 1 else ''} (the paper: hardly any "
                     "difference).")
    counts = counts_of(results, "efficient")
    lines.append("Modules: IoU " + ", ".join(
        f"{ours(results, 'claim2', 'dense', f'efficient, {c}')} with {c}" for c in counts) +
        " efficient modules (the paper: more modules, more AP).")
    lines.append("Heads: IoU " + ", ".join(
        f"{ours(results, 'ablations', 'heads', str(h))} with {h}" for h in (1, 8, 32)) +
        " (the paper: hardly any difference).")
    for kind in results.kinds("stereo", "pairs")[1:]:
        d = results.difference("stereo", "pairs", "baseline", kind)
        if d:
            lines.append(f"Stereo: {kind} changes the end-point error by {signed(d)} pixels (the "
                         "paper: from 1.09 to 0.48).")
    return lines


def claim3_lines(results):
    lines = []
    for group in results.groups("claim3"):
        rows = results.of("claim3", group, "non-local materialized")
        if any(row["status"] == "does not fit" for row in rows):
            lines.append(
                f"Claim 3 at {group}: the materialized non-local network does not fit in "
                f"{budget_of(results, 'claim3')}; tiled: "
                f"{ours(results, 'claim3', group, 'non-local tiled')} at "
                f"{cell(results.of('claim3', group, 'non-local tiled'), 'step_seconds', seconds)} a "
                f"step; efficient: {ours(results, 'claim3', group, 'efficient')} at "
                f"{cell(results.of('claim3', group, 'efficient'), 'step_seconds', seconds)} a step; "
                f"baseline: {ours(results, 'claim3', group, 'baseline')}.")
    return lines or ["Claim 3: not run yet."]
