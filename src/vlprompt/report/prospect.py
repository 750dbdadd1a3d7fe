"""Would more images help: the accuracy after a quarter, a half and all of a run's images, and after twice as many. Reads `curve.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlprompt import records
from vlprompt.report.judgement import Z

ENOUGH = 1.0
"""Points that are worth the work of twice as many images (project's choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """A learning curve over doublings, and one step beyond it."""

    images: tuple[int, ...]
    accuracy: tuple[float, ...]
    """Percent, the mean over seeds."""
    half: tuple[float, ...]
    """Half of the 95 % interval of each one, points."""
    gain: float
    """Points from the last one to twice as many images, on the straight line through the curve over doublings."""
    low: float
    high: float

    @property
    def points(self) -> list[tuple[int, float, float, float]]:
        """(images, percent right, its interval) of the curve, and last of twice as many images, to be drawn."""
        measured = zip(self.images, self.accuracy, self.half, strict=True)
        last = self.accuracy[-1]
        ahead = (2 * self.images[-1], last + self.gain, last + self.low, last + self.high)
        found = [*((n, level, level - half, level + half) for n, level, half in measured), ahead]
        return [(n, *(min(100.0, max(0.0, one)) for one in numbers)) for n, *numbers in found]  # type: ignore[misc]

    @property
    def axis(self) -> tuple[int, int]:
        """The lowest and the highest percent of a plot, in tens."""
        low, high = min(one[2] for one in self.points), max(one[3] for one in self.points)
        return 10 * math.floor(low / 10), max(10 * math.ceil(high / 10), 10 * math.floor(low / 10) + 10)

    @property
    def word(self) -> str:
        if self.low > 0:
            return "More images would help."
        return (
            "More images would hardly help." if self.high < ENOUGH else "Whether more images would help cannot be told."
        )

    def lines(self) -> list[str]:
        counts = ", ".join(f"{one:,}" for one in self.images)
        levels = ", ".join(f"{one:.1f}" for one in self.accuracy)
        return [
            f"learned from {counts} images: {levels} % right",
            f"{self.word} With twice as many: {_points(self.gain)} points (95 % interval {_points(self.low)} to {_points(self.high)}), "
            "if the curve goes on as it did.",
        ]


def _points(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # never -0.0


def prospect(places: Sequence[Path]) -> Prospect | None:
    """The curve of some seeds; None where one has none.

    The least-squares line of accuracy over the logarithm of the images is followed one doubling on. Its gain over the last point is a
    weighted sum of the points, so a mean over test images. Its variance is that over images (of the mean over seeds), plus that between
    seeds, plus the line's own at that place from the points' distance to it (project's choice).
    """
    found = [one for one in map(records.read_curve, places) if one is not None]
    if not found or len(found) < len(places) or len({right.shape for _, right in found}) > 1:
        return None
    images = np.mean([counts for counts, _ in found], axis=0)
    right_SPN = np.stack([right for _, right in found]).astype(float)
    level_P = right_SPN.mean((0, 2))
    line_P2 = np.stack([np.ones_like(images), np.log2(images)], axis=1)
    ahead_2 = np.array([1.0, math.log2(images[-1]) + 1])
    weight_P = ahead_2 @ np.linalg.pinv(line_P2)
    misfit = (
        (level_P - line_P2 @ np.linalg.pinv(line_P2) @ level_P) ** 2
    ).sum()  # one degree of freedom: three points, two numbers
    weight_P[-1] -= 1
    gain_SN = np.tensordot(weight_P, right_SPN, (0, 1))
    seeds, number = gain_SN.shape
    mean_PN = right_SPN.mean(0)
    # Two more images here too, one of them right: an interval of some width where all answers are alike.
    near_P = (((mean_PN - level_P[:, None]) ** 2).sum(1) + 0.5) / (number + 2) ** 2
    near_P += right_SPN.mean(2).var(0, ddof=1) / seeds if seeds > 1 else 0.0
    # Two more images, one for each sign, half of the largest step each: no interval of width zero from a few images (as in `judge`).
    most_step = max(weight_P.clip(0).sum(), -weight_P.clip(None, 0).sum())
    squares = ((gain_SN.mean(0) - gain_SN.mean()) ** 2).sum() + most_step**2
    variance = squares / (number + 2) ** 2
    variance += gain_SN.mean(1).var(ddof=1) / seeds if seeds > 1 else 0.0
    variance += misfit * (ahead_2 @ np.linalg.inv(line_P2.T @ line_P2) @ ahead_2)
    gain, half = 100 * float(gain_SN.mean()), 100 * Z * math.sqrt(variance)
    most = 100 * (1 - float(level_P[-1]))
    return Prospect(
        images=tuple(round(one) for one in images.tolist()),
        accuracy=tuple((100 * level_P).tolist()),
        half=tuple((100 * Z * np.sqrt(near_P)).tolist()),
        gain=min(gain, most),
        low=gain - half,
        high=min(gain + half, most),
    )
