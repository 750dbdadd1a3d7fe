"""The quickstart's picture: accuracy bars by half of the classes, and test pictures with both answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprompt.report.canvas import GRID, INK, MUTED, png
from vlprompt.report.tables import TableRow

RIGHT, WRONG = "#1a7f4b", "#c0392b"
BARS = ("#b8c2cc", "#7aa6d8", "#2f6db3", "#1f4e79")
SIZE, DPI = (12.6, 6.2), 150
COLUMNS, ROWS = 5, 2
PICTURES = COLUMNS * ROWS
FOLD = 25
"""Characters of a line under a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A test picture and two opinions of it."""

    pixels: Any
    """(H, W, 3) uint8."""
    truth: str
    before: str
    """The class that zero-shot says."""
    after: str
    """The class that the learned prompt says."""


def quickstart(path: Path, found: Sequence[TableRow], pictures: Sequence[Picture], *, learned: str) -> Path:
    """Draws the figure as a PNG and returns its path; `learned` names the method of the pictures' second opinion."""
    with png(path, SIZE, dpi=DPI, font_size=10) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=(1.0, 2.3), squeeze=False)[0]
        _bars(left, found)
        _grid(right, pictures[:PICTURES], learned)
    return path


PARTS = {"base": "seen classes", "novel": "new classes", "all": "all classes"}


def _bars(figure: Any, found: Sequence[TableRow]) -> None:
    """A group of bars per part of the classes: one bar per method at its mean, a dot per seed."""
    from matplotlib.ticker import MaxNLocator

    axis = figure.subplots()
    figure.subplots_adjust(left=0.15, right=0.95, top=0.805, bottom=0.16)
    parts = list(dict.fromkeys(row.subset for row in found))
    methods = list(dict.fromkeys(row.method for row in found))
    top = max((record.top1 or 0.0 for row in found for record in row.records), default=0.0)
    for row in found:
        place, number = parts.index(row.subset) * (len(methods) + 0.7), methods.index(row.method)
        color = BARS[min(number, len(BARS) - 1)]
        if row.top1 is None:
            axis.text(place + number, 1.0, "missing", ha="center", va="bottom", color=WRONG, rotation=90)
            continue
        named = row.method if row.subset == parts[0] else None
        axis.bar(place + number, row.top1.mean, width=0.86, color=color, zorder=2, label=named)
        points = [record.top1 for record in row.records if record.top1 is not None]
        if len(points) > 1:
            offsets = [0.14 * (one - (len(points) - 1) / 2) for one in range(len(points))]
            places = [place + number + offset for offset in offsets]
            axis.scatter(places, points, s=14, color="white", edgecolor=INK, lw=0.8, zorder=3)
        height = max([*points, row.top1.mean]) + 0.022 * top
        axis.text(place + number, height, f"{row.top1.mean:.0f}", ha="center", va="bottom", weight="bold", size=8.5)
    middles = [place * (len(methods) + 0.7) + (len(methods) - 1) / 2 for place in range(len(parts))]
    if len(parts) > 1:
        axis.set_xticks(middles, [PARTS.get(part, part) for part in parts])
        figure.legend(loc="lower center", ncols=2, frameon=False, fontsize=8.5)
    else:
        axis.set_xticks(range(len(methods)), methods)
    axis.set_ylim(0, 1.14 * top if top else 1.0)
    axis.set_ylabel("test accuracy, %")
    axis.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.tick_params(length=0, colors=INK)
    axis.grid(axis="y", color=GRID, zorder=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(MUTED)
    shots = next((f"{one.shots} pictures" for one in found if one.shots), "all pictures")
    under = f"learned from {shots} per class\nbars: mean over seeds, dots: single seeds"
    _heading(figure, "Accuracy", f"{found[0].dataset}, {under}" if found else "")


def _grid(figure: Any, pictures: Sequence[Picture], learned: str) -> None:
    """Pictures in a grid; under each the truth, zero-shot's word and the learned prompt's word."""
    axes = figure.subplots(ROWS, COLUMNS, squeeze=False)
    figure.subplots_adjust(left=0.03, right=0.985, top=0.83, bottom=0.165, wspace=0.2, hspace=0.68)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture in zip(axes.flat, pictures, strict=False):
        axis.imshow(picture.pixels, interpolation="lanczos")
        lines = [(picture.truth, INK, "bold")]
        for who, says in (("zero-shot", picture.before), ("learned", picture.after)):
            mark, color = (
                ("\u2713", RIGHT) if says == picture.truth else ("\u2717", WRONG)
            )  # for those who see no colours
            lines.append((f"{mark} {who}: {says}", color, "normal"))
        height, place = -0.05, {"transform": axis.transAxes, "ha": "center", "va": "top", "size": 7.5}
        for text, color, weight in lines:
            for line in textwrap.wrap(text, FOLD, max_lines=2, placeholder="...") or [""]:
                axis.text(0.5, height, line, color=color, weight=weight, **place)
                height -= 0.105
    under = f"upper row: seen classes, lower row: new classes\nlearned: the prompt of {learned}; bold: what it shows"
    _heading(figure, "Test pictures, drawn at random", under)


def _heading(figure: Any, title: str, subtitle: str) -> None:
    figure.text(0.03, 0.96, title, size=13, weight="bold", va="top")
    figure.text(0.03, 0.912, subtitle, size=9, color=MUTED, va="top", linespacing=1.35)
