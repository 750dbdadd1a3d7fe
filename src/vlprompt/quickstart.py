"""The first run: four methods learn from pictures of half of the classes, and are asked about both halves."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlprompt import bench
from vlprompt.bench import Cell, Grid
from vlprompt.data import Sample, Subset, open_dataset, picture, restrict
from vlprompt.engine.observer import Observer
from vlprompt.errors import UserError
from vlprompt.records import BY_HAND, Predictions, Record, id_hashes, read_predictions
from vlprompt.report import plots, tables
from vlprompt.report.write import write_report

METHODS = (BY_HAND, "coop", "plpp+coop", "rpp")
WORDS = "plpp+coop"
"""Its words are shown: PLPP asks for tokens that a reader would expect."""
HALVES: tuple[Subset, ...] = ("base", "novel")
FIGURE, TABLE = "quickstart.png", "quickstart.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickstartResult:
    """What came of it."""

    best: str
    """The learned method with the best mean on validation images."""
    prompt: Path
    """The prompt of `best` that did best on validation images, of all seeds."""
    words: Path
    """The same of `WORDS`."""
    table: tables.Table
    figure: Path
    page: Path


def run(
    out: Path,
    data: str,
    model: str,
    shots: int | None,
    seeds: tuple[int, ...],
    overrides: Mapping[str, str],
    device: str,
    observer: Observer,
    hear: Callable[[Cell, bench.Outcome], None],
) -> QuickstartResult:
    """Do what is missing in `out`, then write the figure, the table and the report's page there.

    hear: is told of every test that is done. UserError: what a grid refuses, or the reason of the first test that failed.
    """
    grid = Grid(out=out, means=bench.Means(device=device))
    desk = bench.Desk(grid.means)
    request = bench.Request(
        protocols=("base-to-novel",),
        data=(data,),
        model=model,
        methods=METHODS,
        shots=(shots,),
        seeds=seeds,
        overrides=overrides,
    )
    cells = bench.make(request, desk).cells
    for outcome in bench.work_off(cells, grid, bench.carrier(1, observer, desk), hear).values():
        if outcome.state != "done":
            raise UserError(f"{outcome.place}: {outcome.reason}", exit_code=outcome.exit_code or 1)
    records = [grid.record(cell) for cell in cells]
    best, table = _best(records), tables.halves(records)
    (out / TABLE).write_text(tables.as_markdown(table), encoding="utf-8")
    return QuickstartResult(
        best=best,
        prompt=_best_seed(best, grid, cells, records),
        words=_best_seed(WORDS, grid, cells, records),
        table=table,
        figure=plots.quickstart(out / FIGURE, tables.rows(records), _pictures(data, grid, cells, best), learned=best),
        page=write_report(out, title="Quickstart").files[0],
    )


def _best(records: Sequence[Record]) -> str:
    """The learned method with the best mean accuracy on validation images; test images do not count."""
    found: dict[str, list[float]] = {name: [] for name in METHODS if name != BY_HAND}
    for record in records:
        if record.val_top1 is not None and record.method in found:
            found[record.method].append(record.val_top1)
    return max(found, key=lambda name: statistics.fmean(found[name] or [0.0]))


def _best_seed(method: str, grid: Grid, cells: Sequence[Cell], records: Sequence[Record]) -> Path:
    """The prompt of a method that did best on validation images."""
    found = [
        (record.val_top1 or 0.0, -cell.course.seed, grid.learned(cell.course))
        for cell, record in zip(cells, records, strict=True)
        if record.method == method
    ]
    return max(found)[-1]


def _pictures(data: str, grid: Grid, cells: Sequence[Cell], best: str) -> list[plots.Picture]:
    """Test images drawn at random (always the same), a row of each half, one per class, with both answers."""
    dataset = open_dataset(data)
    found: list[plots.Picture] = []
    for half in HALVES:
        part = restrict(dataset, half)
        before, after = (
            _answers(read_predictions(next(grid.of(one) for one in cells if (one.course.method, one.subset) == wanted)))
            for wanted in ((BY_HAND, half), (best, half))
        )
        hashed = zip(part.test, map(str, id_hashes([one.id for one in part.test])), strict=True)  # as records know them
        for sample, key in _one_per_class([one for one in hashed if one[1] in before.keys() & after.keys()]):
            found.append(
                plots.Picture(
                    pixels=np.asarray(picture(sample)),
                    truth=part.class_names[sample.label],
                    before=part.class_names[before[key]],
                    after=part.class_names[after[key]],
                )
            )
    return found


def _answers(found: Predictions | None) -> dict[str, int]:
    return {} if found is None else dict(zip(found.id_hash.tolist(), found.predicted.tolist(), strict=True))


def _one_per_class(candidates: list[tuple[Sample, str]]) -> list[tuple[Sample, str]]:
    """A row of pictures in random order; classes repeat only where there are too few."""
    shuffled = random.Random(0).sample(candidates, len(candidates))
    seen: Counter[int] = Counter()
    ranked = []
    for sample, key in shuffled:
        seen[sample.label] += 1
        ranked.append((seen[sample.label], sample, key))
    return [(sample, key) for _, sample, key in sorted(ranked, key=lambda one: one[0])[: plots.COLUMNS]]
