"""The curves of a run as the data of charts, and as text for who cannot see them."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.report.curve import Curve
from runtime.report.families import Family, unit_of
from runtime.report.history import History
from runtime.report.markup import Markup, element, shown

Chart = dict[str, Any]  # id, title, unit, smooth, log, series
_MORE = (  # title, unit, keys of the train lines
    ("Learning rate", "", re.compile(r"lr(_.+)?")),
    ("Accuracy on training images", "", re.compile(r"accuracy|top1")),
    ("Gradient norm", "", re.compile(r"grad_norm")),
    ("Speed", "images a second", re.compile(r"images_per_s")),
    ("Waiting for data", "s an update", re.compile(r"data_s")),
    ("Memory in use", "MB", re.compile(r"memory_mb")),
)


def charts_of(history: History, family: Family) -> list[Chart]:
    """What is to be drawn, each chart with at least one curve."""
    totals = {"total": history.others["loss"]} if "loss" in history.others else {}
    losses = history.losses if len(history.losses) == 1 else totals | history.losses
    charts = [_chart("Loss", "", losses, smooth=True, log=True)]
    units = sorted({unit_of(name) for name in history.scores})
    for unit in units:
        curves = {name: curve for name, curve in history.scores.items() if unit_of(name) == unit}
        first = [name for name in family.scores if name in curves]
        ordered = {name: curves[name] for name in [*first, *curves]}
        title = "Scores on validation images"
        charts.append(_chart(title, unit, ordered, first or list(ordered)[:8]))
    for title, unit, pattern in _MORE:
        curves = {name: curve for name, curve in history.others.items() if pattern.fullmatch(name)}
        charts.append(_chart(title, unit, curves, smooth=title not in ("Learning rate",)))
    charts = [chart for chart in charts if chart["series"]]
    for i, chart in enumerate(charts):
        chart["id"] = f"chart-{i}"
    return charts


def figures(charts: Sequence[Chart]) -> list[Markup]:
    """The places of the charts, with each curve's last value in words."""
    found = []
    for chart in charts:
        title = chart["title"] + (f" ({chart['unit']})" if chart["unit"] else "")
        words = "; ".join(_in_words(series) for series in chart["series"][:12])
        found.append(element(
            "figure", element("h3", title),
            element("div", class_="plot", id=chart["id"], data_label=f"{title}: {words}"),
            element("noscript", element("p", words)), class_="chart"))
    return found


def as_json(charts: Sequence[Chart]) -> Markup:
    """The charts as JSON inside a script element: no `<` in it can end the element."""
    text = json.dumps(charts, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(f'<script type="application/json" id="charts">{text}</script>')


def _chart(title: str, unit: str, curves: Mapping[str, Curve], shown_first: Sequence[str] = (),
           smooth: bool = False, log: bool = False) -> Chart:
    series = [_series(name, curve, bool(shown_first) and name not in shown_first)
              for name, curve in curves.items()]
    return {"title": title, "unit": unit, "smooth": smooth, "log": log,
            "series": [each for each in series if any(y is not None for y in each["y"])]}


def _series(name: str, curve: Curve, is_hidden: bool) -> Chart:
    points = curve.points()
    series: Chart = {"name": name, "hidden": is_hidden, "x": points[:, 0].astype(int).tolist()}
    for key, column in (("y", 2), ("low", 3), ("high", 4)):
        series[key] = [float(f"{value:.5g}") if math.isfinite(value) else None
                       for value in points[:, column].tolist()]
    if series["low"] == series["high"]:
        del series["low"], series["high"]
    else:
        series["x1"] = points[:, 1].astype(int).tolist()
    return series


def _in_words(series: Chart) -> str:
    ends = [(x, y) for x, y in zip(series["x"], series["y"], strict=True) if y is not None]
    return f"{series['name']} {shown(ends[-1][1])} at {ends[-1][0]}"
