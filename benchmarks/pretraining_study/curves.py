"""The study's figure: accuracy over epochs, over the weight of the distillation, and over the amount of data."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlprompt.report.canvas import GRID, MUTED, png

COLOURS = ("#1f4e79", "#c0392b", "#1a7f4b", "#8e5ea2", "#d98c10", "#4aa3b5")
SIZE, DPI = (15.0, 4.6), 130
Row = Mapping[str, Any]


def draw(path: Path, rows: Sequence[Row]) -> Path:
    """Three panels as a PNG; full lines are held-out images, broken ones training images, bands the standard deviation over seeds."""
    with png(path, SIZE, dpi=DPI, font_size=9.5, layout="constrained") as figure:
        epochs, weights, data = figure.subplots(1, 3)
        _over_epochs(epochs, [row for row in rows if row["kind"] == "method"])
        _over_weights(weights, rows)
        _over_data(data, rows)
        for axis in (epochs, weights, data):
            _zero_shot(axis, rows)
            axis.grid(color=GRID, zorder=0)
            axis.tick_params(colors=MUTED)
            for side in axis.spines.values():
                side.set_color(GRID)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize=8, framealpha=0.85, edgecolor="none")
    return path


def _zero_shot(axis: Any, rows: Sequence[Row]) -> None:
    """Level lines: what the bare model says of the same images."""
    for key, style in (("zero_shot_top1", "-"), ("zero_shot_train_top1", "--")):
        known = [row[key] for row in rows if row.get(key) is not None][:1]
        for value in known:
            axis.axhline(
                value, color=MUTED, linestyle=style, linewidth=1.0, label="zero-shot" if style == "-" else None
            )


def _over_epochs(axis: Any, rows: Sequence[Row]) -> None:
    axis.set(title="Methods: held-out (full), training images (broken)", xlabel="epoch", ylabel="top-1, %")
    for number, name in enumerate(dict.fromkeys(row["cell"] for row in rows)):
        tests = [row["tests"] for row in rows if row["cell"] == name]
        places = range(min(map(len, tests)))
        at = [tests[0][place]["epoch"] + 1 for place in places]
        for key, style in (("top1", "-"), ("train_top1", "--")):
            values = [[one[place].get(key) for one in tests] for place in places]
            axis.set_xticks(at)
            _line(axis, at, values, COLOURS[number % len(COLOURS)], style, name if style == "-" else None)


def _over_weights(axis: Any, rows: Sequence[Row]) -> None:
    """With the seed that all weights have."""
    axis.set(title="rpp: weight of the distillation", xlabel="weight (0, then logarithmic)", ylabel="top-1, %")
    found = _weights(rows)
    labels = [f"{weight:g}" for weight in found]
    axis.set_xticks(range(len(found)), labels)
    for key, style, label in (("top1", "-", "held-out"), ("train_top1", "--", "training")):
        _line(axis, range(len(found)), [[row[key]] for row in found.values()], COLOURS[1], style, label)
    beside = axis.twinx()
    beside.set_ylabel("largest loss of a held-out image", color=MUTED)
    beside.tick_params(colors=MUTED)
    beside.spines[:].set_color(GRID)
    axis.set_zorder(beside.get_zorder() + 1)  # the legend above both
    axis.patch.set_visible(False)
    _line(beside, range(len(found)), [[row["largest_loss"]] for row in found.values()], MUTED, ":", None)


def _weights(rows: Sequence[Row]) -> dict[float, Row]:
    """Weight -> its row, by weight: `rpp` is 1, `rpp-without-distillation` 0."""
    first = min(row["seed"] for row in rows)
    named = {"rpp": 1.0, "rpp-without-distillation": 0.0}
    found = {}
    for row in rows:
        if row["seed"] == first and (row["cell"] in named or row["kind"] == "distillation"):
            weight = named.get(row["cell"])
            found[float(row["cell"].rpartition("-")[2]) if weight is None else weight] = row
    return dict(sorted(found.items()))


def _over_data(axis: Any, rows: Sequence[Row]) -> None:
    """With the seed that all amounts have."""
    axis.set(title="Amount of data", xlabel="training images seen, all epochs", ylabel="top-1, %")
    first = min(row["seed"] for row in rows)
    for number, method in enumerate(("pomp", "rpp")):
        here = [row for row in rows if row["seed"] == first and _amount_of(row) == method]
        own = sorted(here, key=lambda row: row["images"])
        for key, style in (("top1", "-"), ("train_top1", "--")):
            values = [[row[key]] for row in own]
            _line(
                axis, [row["images"] for row in own], values, COLOURS[number], style, method if style == "-" else None
            )


def _amount_of(row: Row) -> str:
    """The method whose amounts of data a row belongs to; its full amount is the method's own cell."""
    name: str = row["cell"]
    return name.partition("-")[0] if row["kind"] == "data" else name


def _line(
    axis: Any, at: Sequence[float], values: Sequence[Sequence[float | None]], colour: str, style: str, label: str | None
) -> None:
    """A curve of means, with a band where there are several values; places with a missing value are left out."""
    whole = [(x, [v for v in here if v is not None]) for x, here in zip(at, values, strict=True) if None not in here]
    if not whole:
        return
    xs, means = [x for x, _ in whole], [statistics.fmean(here) for _, here in whole]
    axis.plot(xs, means, style, color=colour, label=label, marker="o", markersize=3, linewidth=1.6, zorder=3)
    if all(len(here) > 1 for _, here in whole) and style == "-":
        spread = [statistics.stdev(here) for _, here in whole]
        low, high = ([m + s * d for m, d in zip(means, spread, strict=True)] for s in (-1, 1))
        axis.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0, zorder=2)
