"""The first run: zero-shot, CoOp and PLPP on one data set, and a picture of what they say."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlprompt.artifact import pick
from vlprompt.data import Sample, open_dataset, picture
from vlprompt.engine.config import RunConfig
from vlprompt.engine.observer import Observer
from vlprompt.engine.run import train_run
from vlprompt.records import Predictions, Record, id_hashes, read_predictions
from vlprompt.report import plots, tables
from vlprompt.report.write import write_report

ZERO_SHOT = "zero-shot"
METHODS = (ZERO_SHOT, "coop", "plpp+coop")
FIGURE, TABLE = "quickstart.png", "quickstart.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the quickstart is asked to do."""

    out: Path
    data: str
    model: str
    shots: int | None = 16
    seeds: tuple[int, ...] = (1, 2, 3)
    overrides: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"

    def config(self, method: str) -> RunConfig:
        """One method's run. Zero-shot learns nothing, so that one seed is enough."""
        return RunConfig(
            method=method,
            model=self.model,
            data=self.data,
            out=self.out / method,
            overrides={} if method == ZERO_SHOT else self.overrides,
            shots=self.shots,
            seeds=self.seeds[:1] if method == ZERO_SHOT else self.seeds,
            device=self.device,
            resume=True,
        )

    @property
    def learned(self) -> Path:
        """The run whose prompt is shown."""
        return self.out / METHODS[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    records: tuple[Record, ...]
    table: tables.Table
    figure: Path
    page: Path


def run(plan: Plan, observing: Callable[[str], AbstractContextManager[Observer]]) -> Outcome:
    """Learns what is missing in `plan.out`, draws the figure and writes the table and the report's page beside it.

    observing: a method's name and a space -> the observer of its run.
    """
    records: list[Record] = []
    for method in METHODS:
        with observing(f"{method} ") as observer:
            records += train_run(plan.config(method), observer)
    rows = tables.rows(records)
    figure = plots.quickstart(plan.out / FIGURE, rows, pictures(plan), learned=METHODS[-1])
    table = tables.accuracy(records, methods=METHODS)
    (plan.out / TABLE).write_text(tables.as_markdown(table), encoding="utf-8")
    page = write_report(plan.out, title="Quickstart").files[0]
    return Outcome(records=tuple(records), table=table, figure=figure, page=page)


def pictures(plan: Plan) -> list[plots.Picture]:
    """Test images drawn at random (always the same), at most one per class, with the answers before and after."""
    dataset = open_dataset(plan.data)
    samples = {str(id_hash): one for one, id_hash in zip(dataset.test, id_hashes([one.id for one in dataset.test]))}
    before = read_predictions(pick(plan.out / ZERO_SHOT).directory)
    after = read_predictions(pick(plan.learned).directory)
    if before is None or after is None:
        return []
    said_before, said_after = _answers(before), _answers(after)
    both = sorted(said_before.keys() & said_after.keys() & samples.keys())
    chosen = _one_per_class([(samples[key], key) for key in both])
    return [
        plots.Picture(
            pixels=np.asarray(picture(sample)),
            truth=dataset.class_names[sample.label],
            before=dataset.class_names[said_before[key]],
            after=dataset.class_names[said_after[key]],
        )
        for sample, key in chosen
    ]


def _answers(predictions: Predictions) -> dict[str, int]:
    return dict(zip(map(str, predictions.id_hash), map(int, predictions.predicted), strict=True))


def _one_per_class(candidates: list[tuple[Sample, str]]) -> list[tuple[Sample, str]]:
    """As many as the figure holds, in random order; classes repeat only where there are too few."""
    shuffled = random.Random(0).sample(candidates, len(candidates))
    seen: dict[int, int] = {}
    ranked = []
    for place, (sample, key) in enumerate(shuffled):
        seen[sample.label] = seen.get(sample.label, 0) + 1
        ranked.append((seen[sample.label], place, sample, key))
    return [(sample, key) for _, _, sample, key in sorted(ranked, key=lambda one: one[:2])[: plots.PICTURES]]
