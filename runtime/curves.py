"""Curves of a run from its metrics file, and confusion matrices.

Matplotlib is imported where it is needed, since training itself does not need it; pyplot and its
global state are not used.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.errors import one_line
from runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST_NAME = 24  # letters of a class's name beside a matrix or in a legend
NAMED_CLASSES = 40  # a larger confusion matrix has no room for its classes' names
NUMBERED_CLASSES = 15  # ... and for numbers in its cells
NAMED_CURVES = 12  # of precision over recall: the best
FRACTIONS = ("coco/", "mean_iou", "pixel_accuracy")  # how metrics that are no percentages begin
# Around and between the curves, as parts of the picture: room for ticks as 0.00025, and for three
# lines of names. To search for a layout would take a third longer.
SPACES = {"left": 0.045, "right": 0.985, "top": 0.87, "bottom": 0.25, "wspace": 0.24}
MAX_CURVE_POINTS = 1500  # longer runs are averaged in groups: more than the picture's pixels


def read_metrics(path: str | Path) -> tuple[list[dict], list[dict]]:
    """Train events and eval events of a metrics.jsonl, in file order.

    Other events and lines that are no JSON object (a killed run's last one) are left out.
    """
    train, evals = [], []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if not isinstance(event, dict) or not isinstance(event.get("iteration"), int):
                continue
            if event.get("event") == "train":
                train.append(event)
            elif event.get("event") == "eval":
                evals.append(event)
    # an evaluation beside the training, whose epoch is null, may be of any file
    own = [event for event in evals if event.get("epoch", 0) is not None]
    return train, own or evals


def plot_curves(
    metrics_jsonl: str | Path,
    out_png: str | Path,
    metric_names: Sequence[str] | None = None,
    title: str = "",
    term_of: Callable[[str], str] | None = None,
) -> None:
    """Draw loss terms, learning rate and evaluation metrics over the iterations.

    metric_names: which of the eval events' metrics to draw (None: all)
    term_of:      losses for which it gives the same name are added up to one curve
    Values that are null, NaN or infinite are gaps in a curve; a file without events gives empty
    axes that say so. Raises SaveError when the picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    train, evals = read_metrics(metrics_jsonl)
    figure = Figure(figsize=(15, 4.8))
    loss_axes, lr_axes, metric_axes = figure.subplots(
        1, 3, sharex=True, width_ratios=(3, 2, 3), gridspec_kw=SPACES)
    if title:
        figure.suptitle(title)
    _draw_losses(loss_axes, train, term_of or str)
    steps = [event["iteration"] for event in train]
    rates = [event.get("lr") for event in train]
    _draw_curve(lr_axes, steps, rates, "", "black", smooth=False)
    _draw_metrics(metric_axes, evals, metric_names)
    for axes, name, missing in (
        (loss_axes, "loss", "no training step yet"),
        (lr_axes, "learning rate", "no training step yet"),
        (metric_axes, "evaluation", "no evaluation yet"),
    ):
        axes.set(title=name, xlabel="iteration (updates)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        axes.grid(alpha=0.25)
        if not axes.lines:
            axes.text(0.5, 0.5, missing, ha="center", transform=axes.transAxes, color="gray")
        elif axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13),
                        frameon=False)  # below the curves, not on them
    write_atomically(Path(out_png), lambda file: figure.savefig(file, format="png", dpi=100))


def _draw_losses(axes: "Axes", train: Sequence[dict], term_of: Callable[[str], str]) -> None:
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """The ticks that the base class chooses, as 20 or 0.6: not 2 x 10^1, 6e-01."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    steps = [event["iteration"] for event in train]
    terms = [_summed(event["losses"], term_of) if isinstance(event.get("losses"), dict) else {}
             for event in train]
    names = sorted({name for each in terms for name in each})
    for i, name in enumerate(names):
        _draw_curve(axes, steps, [each.get(name) for each in terms], name, f"C{i % 10}")
    totals = [event.get("loss") for event in train]
    if len(names) != 1:
        _draw_curve(axes, steps, totals, "total", "black")
    # Terms differ by orders of magnitude; zeros do not show on this scale.
    if any(value > 0 for value in _numbers(totals)):
        axes.set_yscale("log", nonpositive="mask")
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(Plain(minor_thresholds=(1, 0.4)))


def _summed(losses: Mapping[str, object], term_of: Callable[[str], str]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in zip(losses, _numbers(losses.values()).tolist(), strict=True):
        sums[term_of(name)] = sums.get(term_of(name), 0.0) + value
    return sums


def _draw_metrics(
    axes: "Axes", evals: Sequence[dict], metric_names: Sequence[str] | None
) -> None:
    values = [event["metrics"] if isinstance(event.get("metrics"), dict) else {} for event in evals]
    if metric_names is None:
        metric_names = sorted({name for each in values for name in each})
    axes.set_ylabel(" and ".join(dict.fromkeys(unit_of(name) for name in metric_names)))
    steps = [event["iteration"] for event in evals]
    for i, name in enumerate(metric_names):
        y = _numbers([each.get(name) for each in values])
        if np.isfinite(y).any():
            axes.plot(steps, y, marker="o", markersize=3, label=name, color=f"C{i % 10}")


def unit_of(metric: str) -> str:
    """The unit of an evaluation's number, by its name in metrics.jsonl."""
    return "fraction of 1" if metric.startswith(FRACTIONS) else "%"


def _draw_curve(
    axes: "Axes",
    steps: Sequence[int],
    values: Collection[object],
    label: str,
    colour: str,
    smooth: bool = True,
) -> None:
    """The values, or their running mean over the faint values; nothing when none is finite."""
    y = _numbers(values)
    if not np.isfinite(y).any():
        return
    x, y = _thinned(np.asarray(steps, float), y)
    window = len(y) // 50
    # A single point is no line: mark it.
    marker = "o" if np.isfinite(y).sum() == 1 else None
    if smooth and window > 1:
        axes.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
        y = _running_mean(y, window)
    axes.plot(x, y, color=colour, linewidth=1.4, label=label, marker=marker)


def _numbers(values: Collection[object]) -> np.ndarray:
    """Float array; everything that is no finite number becomes NaN."""
    return np.array([v if isinstance(v, (int, float)) and math.isfinite(v) else math.nan
                     for v in values], float)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    group = -(-len(y) // MAX_CURVE_POINTS)
    if group <= 1:
        return x, y
    starts = np.arange(0, len(y), group)
    finite = np.isfinite(y)
    count = np.add.reduceat(finite.astype(float), starts)
    total = np.add.reduceat(np.where(finite, y, 0.0), starts)
    mean = np.divide(total, count, out=np.full(len(starts), math.nan), where=count > 0)
    return x[starts], mean


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Mean over the finite values among `window` neighbours on either side; gaps stay gaps."""
    finite = np.isfinite(y)
    kernel = np.ones(2 * window + 1)
    padded_total = np.convolve(np.where(finite, y, 0.0), kernel)[window:-window]
    padded_count = np.convolve(finite.astype(float), kernel)[window:-window]
    return np.where(finite, padded_total / np.maximum(padded_count, 1), math.nan)


def plot_confusion(
    counts: np.ndarray, classes: Sequence[str], out_png: str | Path, title: str = "",
    unit: str = "images",
) -> None:
    """Draw a confusion matrix, small ones with names, percentages and counts.

    counts:  [K, K], how many `unit` of class row were taken for class column
    classes: K names
    Raises SaveError when the picture cannot be written.
    """
    from matplotlib.figure import Figure

    counts, k = np.asarray(counts, float), len(classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.75 * k + 2.5, 5, 14))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(picture, label=f"% of the class's {unit}", shrink=0.8)
    axes.set(title=title, xlabel="taken for", ylabel="class")
    if k <= NAMED_CLASSES:
        names = [_as_text(name) for name in classes]
        axes.set_xticks(range(k), names, rotation=90 if k > 4 else 0)
        axes.set_yticks(range(k), names)
    if k <= NUMBERED_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            if counts[row, column]:
                axes.text(column, row, f"{100 * share:.0f} %\n{_short(counts[row, column])}",
                          ha="center", va="center", color="white" if share > 0.5 else "black",
                          fontsize="x-small" if k > 8 else "small")
    write_atomically(Path(out_png), lambda file: figure.savefig(file, format="png", dpi=100))


def plot_precision_recall(
    curves: Mapping[str, np.ndarray], classes: Sequence[str], out_png: str | Path, title: str = "",
) -> None:
    """Draw precision over recall, a line for each class, and their mean.

    curves:  {what it is of: [n, K] fractions at n recalls from 0 to 1, NaN where there is none}
    classes: K names; NAMED_CURVES of them at most are told
    Raises SaveError when the picture cannot be written.
    """
    from matplotlib.figure import Figure

    count = max(1, len(curves))
    figure = Figure(figsize=(6 * count, 5))
    figure.suptitle(title)
    places = figure.subplots(1, count, squeeze=False, gridspec_kw={
        "left": 0.11 / count, "right": 1 - 0.03 / count, "top": 0.88, "bottom": 0.1})[0]
    for axes, (name, values) in zip(places, curves.items(), strict=False):
        recalls, known = np.linspace(0, 1, len(values)), np.isfinite(values).any(0)
        means = np.where(known, np.nan_to_num(values).mean(0), -1)
        named = np.argsort(-means, kind="stable")[:NAMED_CURVES]
        for k in np.flatnonzero(known).tolist():
            told = f"{_as_text(classes[k])} {means[k]:.2f}" if k in named else None
            axes.plot(recalls, values[:, k], linewidth=1, label=told,
                      alpha=0.9 if len(classes) <= NAMED_CURVES else 0.3)
        if known.any():
            mean = values[:, known].mean(1)
            axes.plot(recalls, mean, color="black", linewidth=2.5,
                      label=f"all classes {mean.mean():.2f}")
            axes.legend(fontsize="small", title="average precision")
        axes.set(title=name, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.25)
    write_atomically(Path(out_png), lambda file: figure.savefig(file, format="png", dpi=100))


def _as_text(name: str) -> str:
    """A class's name, not too long, as matplotlib draws it letter by letter."""
    text = one_line(name)
    text = text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME - 3]}..."
    hidden = "\u200b" if text.startswith("_") else ""  # such a label is left out of a legend
    return hidden + text.replace("$", r"\$")  # which would begin a formula


def _short(count: float) -> str:
    """A count in at most five letters: 9999, 12k, 999k, 4.5M."""
    if count < 1e4:
        return f"{count:.0f}"
    for divisor, letter in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if count < 999.5 * divisor or letter == "G":
            break
    scaled = count / divisor
    return f"{scaled:.1f}{letter}" if scaled < 9.95 else f"{scaled:.0f}{letter}"
