"""Charts as PNG files in the output folder."""
import statistics

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from . import analysis, plan  # noqa: E402

# Okabe and Ito's palette: told apart without colour vision.
COLOURS = {"baseline": "#000000", "efficient": "#0072B2", "non-local": "#D55E00",
           "non-local tiled": "#E69F00", "non-local materialized": "#D55E00",
           "tiled": "#E69F00", "materialized": "#D55E00", "efficient, features": "#56B4E9",
           "efficient, volume": "#009E73", "efficient, both": "#0072B2"}
MARKERS = {"baseline": "s", "efficient": "o", "non-local": "^", "tiled": "v", "materialized": "^",
           "non-local tiled": "v", "non-local materialized": "^"}


def colour(kind):
    return COLOURS.get(kind) or COLOURS.get(kind.split(",")[0], "#CC79A7")


def marker(kind):
    return MARKERS.get(kind.split(",")[0], "o")


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def axes(title, x, y, **options):
    figure, ax = pyplot.subplots(figsize=(6.4, 4.2), **options)
    ax.set_title(title, fontsize=11)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(True, which="major", alpha=0.3)
    return figure, ax


def resources(results, folder):
    """Cost against the number of positions: lines are predictions, marks measurements."""
    rows = [row for row in results.resource_rows.values()
            if row is not None and row["setting"] == plan.PAPER_SETTING]
    made = []
    if not rows:
        return made
    for name, title, predicted, measured, unit, factor in (
            ("memory", "Peak memory of a training step", "peak_bytes",
             "measured_system_peak_bytes", "MB", 1e-6),
            ("flops", "FLOPs of a training step, executed", "training_flops_executed", None,
             "GFLOP", 1e-9),
            ("time", "Time of a training step", None, "measured_training_seconds", "s", 1)):
        figure, ax = axes(f"{title} ({plan.PAPER_SETTING})", "positions n", unit)
        for module in plan.MODULES:
            own = sorted((row for row in rows if row["module"] == module),
                         key=lambda row: int(row["positions"]))
            if predicted and own:
                ax.plot([int(r["positions"]) for r in own],
                        [factor * float(r[predicted]) for r in own], color=colour(module),
                        linewidth=1.5, label=None if measured else label_of(module))
            seen = [row for row in own if measured and row[measured]]
            if seen:
                ax.plot([int(r["positions"]) for r in seen],
                        [factor * float(r[measured]) for r in seen], marker(module),
                        color=colour(module), markersize=6, label=label_of(module),
                        linestyle="" if predicted else "-")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.legend(fontsize=9)
        made.append((save(figure, folder / f"resources-{name}.png"),
                     f"{title}. " + ("Lines: predicted; marks: measured, the system's view."
                                     if predicted and measured else
                                     "Predicted for every size." if predicted else "Measured.")))
    return made


def label_of(kind):
    return f"non-local {kind}" if kind in ("tiled", "materialized") else kind


METRICS = {"test_accuracy": ("test accuracy, %", 100), "test_iou": ("test IoU, %", 100),
           "test_end_point_error": ("test end-point error, pixels", 1)}


def learning_curves(results, part, group, folder):
    """Mean over the seeds, with a band of one standard deviation (of the least and greatest where
    there are two)."""
    runs = [run for run in results.plan.runs if (run.part, run.group) == (part, group)]
    metric = runs[0].metric
    label, factor = METRICS[metric]
    figure, ax = axes(f"Learning curves: {group}", "epoch", label)
    drawn = 0
    for kind in results.kinds(part, group):
        logs = [[factor * float(row[metric]) for row in results.log(run)]
                for run in results.runs_of(part, group, kind) if results.rows[run.key]]
        logs = [log for log in logs if log]
        if not logs:
            continue
        epochs = range(1, min(map(len, logs)) + 1)
        columns = [[log[e - 1] for log in logs] for e in epochs]
        means = [statistics.mean(c) for c in columns]
        ax.plot(epochs, means, color=colour(kind), marker="." if len(means) > 1 else marker(kind),
                label=f"{kind} ({len(logs)} seed{'s' if len(logs) > 1 else ''})")
        if len(logs) > 1:
            band = [statistics.stdev(c) for c in columns]
            if len(means) > 1:
                ax.fill_between(epochs, [m - b for m, b in zip(means, band)],
                                [m + b for m, b in zip(means, band)], color=colour(kind),
                                alpha=0.18, linewidth=0)
            else:
                ax.errorbar(epochs, means, yerr=band, color=colour(kind), capsize=4)
        drawn += 1
    if not drawn:
        pyplot.close(figure)
        return []
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize=8)
    path = save(figure, folder / f"curves-{part}-{group}.png".replace(" ", "-"))
    return [(path, f"Learning curves of {part} on {group}: means over the seeds, with ± one "
                   "standard deviation where there are several.")]


def numbered_kinds(results, part, group):
    return any(kind.partition(", ")[2].isdigit() for kind in results.kinds(part, group))


def scatter(results, part, group, folder, column, x_label, factor, file):
    runs = [run for run in results.plan.runs if (run.part, run.group) == (part, group)]
    label, y_factor = METRICS[runs[0].metric]
    title = f"{label.split(',')[0]} against {x_label.split(',')[0]}: {group}"
    figure, ax = axes(title[0].upper() + title[1:], x_label, label)
    drawn = 0
    named = set()
    for kind in results.kinds(part, group):
        rows = [row for row in results.of(part, group, kind) if row["value"] and row[column]]
        if not rows:
            continue
        x = [factor * float(row[column]) for row in rows]
        y = [y_factor * float(row["value"]) for row in rows]
        ax.plot(x, y, marker(kind), color=colour(kind), alpha=0.45, markersize=5)
        name, _, count = kind.partition(", ")
        numbered = count.isdigit()
        if not numbered:
            name = kind
        middle = (factor * analysis.typical(rows, column), statistics.mean(y))
        ax.plot(*middle, marker(kind), color=colour(kind), markersize=10,
                label=None if name in named else label_of(name))
        named.add(name)
        if numbered:
            ax.annotate(count, middle, fontsize=9, xytext=(8, -3), textcoords="offset points")
        drawn += 1
    if not drawn:
        pyplot.close(figure)
        return []
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8)
    path = save(figure, folder / f"{file}-{part}-{group}.png".replace(" ", "-"))
    return [(path, f"{part}, {group}: {label} against {x_label}. Large marks: means over the seeds; "
             "of times the least, as in the tables" +
             (", with the number of modules." if numbered_kinds(results, part, group) else "."))]


def resolution(results, folder):
    """Claim 3: IoU, and time a step, against the size of the image."""
    made = []
    for column, label, factor, log in (("value", "test IoU, %", 100, False),
                                       ("step_seconds", "time a step, s", 1, True)):
        figure, ax = axes(f"Claim 3: {label.split(',')[0]} against resolution",
                          "image side, pixels", label)
        drawn = 0
        for kind in ("baseline", "efficient", "non-local tiled", "non-local materialized"):
            points, stopped = [], []
            for group in results.groups("claim3"):
                rows = [row for row in results.of("claim3", group, kind) if row[column]]
                if rows:
                    point = (int(group.split("x")[0]),
                             statistics.mean(factor * float(row[column]) for row in rows))
                    points.append(point)
                    if column == "value" and any(row["status"] == "stopped" for row in rows):
                        stopped.append(point)
            if points:
                ax.plot(*zip(*points), marker=marker(kind), color=colour(kind), label=kind)
                drawn += 1
            if stopped:
                ax.plot(*zip(*stopped), marker(kind), color=colour(kind), markerfacecolor="white",
                        markersize=9)
        if not drawn:
            pyplot.close(figure)
            continue
        ax.set_xscale("log", base=2)
        ax.set_xticks([int(group.split("x")[0]) for group in results.groups("claim3")])
        ax.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
        if log:
            ax.set_yscale("log")
        ax.legend(fontsize=8)
        made.append((save(figure, folder / f"claim3-{column}.png"),
                     f"Claim 3: {label} by image side. A network that does not fit has no mark" +
                     ("; hollow marks were stopped at their cap." if column == "value" else ".")))
    return made
