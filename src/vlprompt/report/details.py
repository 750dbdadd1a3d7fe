"""Class by class: recall, confusions and reliability of every method, from the predictions next to its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlprompt.records import Predictions
from vlprompt.report.grid import DIGITS, ReportGrid
from vlprompt.report.sections import Section
from vlprompt.report.sides import Run

BINS = 15
"""As in the calibration error of a record."""
MOST_CONFUSIONS = 600
"""Cells of a confusion matrix that the page holds, the most frequent ones (project's choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One contender at one place, its seeds together."""

    contender: int
    place: int
    recall: dict[str, float]
    """Class -> percent, mean over seeds."""
    deviation: dict[str, float]
    """Class -> standard deviation over seeds; empty with one."""
    confusion: tuple[tuple[int, int, int], ...]
    """(class, said class, images), summed over seeds, the most frequent first."""
    left_out: int
    """Images in cells beyond `MOST_CONFUSIONS`."""
    reliability: tuple[tuple[int, float, float], ...]
    """Per bin: images, mean confidence and accuracy, both percent."""


def make_details(grid: ReportGrid, sections: Sequence[Section]) -> tuple[dict[int, tuple[str, ...]], list[Detail]]:
    """Class names (see `class_names`) of each data set's place with the most shots, and details of every contender there."""
    classes, details = {}, []
    for place in dict.fromkeys(place for section in sections for place in section.asked):
        names: tuple[str, ...] = ()
        for contender in range(len(grid.contenders)):
            runs = grid.runs.get((contender, place), ())
            kept = [(run, run.predictions) for run in runs if (run.directory / "predictions.npz").is_file()]
            if not runs or not runs[0].record.per_class:
                continue
            if not names and kept:
                names = class_names(*kept[0])
            details.append(_detail(contender, place, runs, [one for _, one in kept]))
        classes[place] = names
    return classes, details


def class_names(run: Run, predictions: Predictions) -> tuple[str, ...]:
    """By label, "" for a class without test images: a record names those that have some, in the order of their labels."""
    labels = np.unique(predictions.label)
    out = [""] * run.record.num_classes
    if len(labels) == len(run.record.per_class) and (not len(labels) or labels[-1] < len(out)):
        for label, name in zip(labels.tolist(), run.record.per_class, strict=True):
            out[label] = name
    return tuple(out)


def _detail(contender: int, place: int, runs: Sequence[Run], kept: Sequence[Predictions]) -> Detail:
    names = list(runs[0].record.per_class)
    recall_SC = np.array([[run.record.per_class.get(name, np.nan) for name in names] for run in runs])
    mean_C = np.nanmean(recall_SC, axis=0).round(DIGITS)
    deviation_C = recall_SC.std(0, ddof=1) if len(runs) > 1 else np.empty(0)
    confusion, left_out = _confusion(kept, runs[0].record.num_classes)
    return Detail(
        contender=contender,
        place=place,
        recall=dict(zip(names, mean_C.tolist(), strict=True)),
        deviation=dict(zip(names, deviation_C.tolist(), strict=False)),
        confusion=confusion,
        left_out=left_out,
        reliability=reliability(kept),
    )


def _confusion(kept: Sequence[Predictions], count: int) -> tuple[tuple[tuple[int, int, int], ...], int]:
    if not kept:
        return (), 0
    cell_N = np.concatenate([one.label * count + one.predicted for one in kept])
    cell_K, times_K = np.unique(cell_N, return_counts=True)
    order = np.argsort(-times_K, kind="stable")
    shown = order[:MOST_CONFUSIONS]
    rows = zip((cell_K[shown] // count).tolist(), (cell_K[shown] % count).tolist(), times_K[shown].tolist())
    return tuple(rows), int(times_K[order[MOST_CONFUSIONS:]].sum())


def reliability(kept: Sequence[Predictions]) -> tuple[tuple[int, float, float], ...]:
    """Per bin of confidence: images, mean confidence, accuracy. Bins are closed to the right; the first holds 0 too."""
    if not kept:
        return ()
    confidence_N: NDArray[np.float64] = np.concatenate([one.predicted_probability for one in kept]).astype(np.float64)
    right_N = np.concatenate([one.predicted == one.label for one in kept])
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(bin_N, minlength=BINS)
    below = np.maximum(count, 1)
    confidence = 100 * np.bincount(bin_N, confidence_N, BINS) / below
    accuracy = 100 * np.bincount(bin_N, right_N, BINS) / below
    return tuple(zip(count.tolist(), confidence.round(4).tolist(), accuracy.round(4).tolist()))
