"""What pretraining is worth on real images: methods, distillation, epochs and amount of data, and transfer to other data sets.

Every cell is a run of `pretrain_run` and the tests of its last prompt; called again, only what is missing is done. Several processes
may work on one directory: a cell is one process's at a time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.pretraining_study import curves
from vlprompt import disk, plain, pocket, records
from vlprompt.disk import LOCK, locked_if_free, one_at_a_time
from vlprompt.engine.config import RunConfig
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.run import train_run
from vlprompt.engine.test import evaluate_run
from vlprompt.errors import UserError
from vlprompt.pretrain.config import PretrainConfig
from vlprompt.pretrain.run import LAST, pretrain_run
from vlprompt.pretrain.source import POCKET
from vlprompt.report.comparison import compare
from vlprompt.report.sides import read_side

SUMMARY, TABLE, FIGURE = "study.json", "study.md", "study.png"
PRETRAINED, HELD_OUT, TRANSFER = "pretrained", "held-out", "transfer"
"""Directories of a study: runs, and their records on the set's own held-out images and on other sets."""
SECONDS_BETWEEN_LOOKS = 2.0
"""While all that is left is in other processes' hands."""
ZERO_SHOT = ("zero_shot_top1", "zero_shot_train_top1")
KEPT = ("top1", "train_top1", *ZERO_SHOT, "largest_loss", "train_largest_loss", "tests", "seconds", "images")
"""Of a run's summary, in the study's rows."""
CLASSES = 200
"""Classes of a step; of about a thousand in the embedded set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCell:
    """One setting."""

    name: str
    method: str
    settings: Mapping[str, object] = field(default_factory=dict)
    shots: int | None = None
    kind: Literal["method", "distillation", "data"] = "method"


METHODS = (
    StudyCell(name="pomp", method="pomp"),
    StudyCell(name="rpp", method="rpp"),
    StudyCell(name="rpp-without-distillation", method="rpp", settings={"weight": "0"}),
    StudyCell(name="rpp-shared3x", method="rpp-shared3x"),
    StudyCell(name="rpp-text-only", method="rpp", settings={"towers": "text"}),
    StudyCell(name="rpp-image-only", method="rpp", settings={"towers": "image"}),
)
"""Run with every seed; their tests after each epoch are the curves over epochs."""
DISTILLATION = tuple(
    StudyCell(name=f"rpp-weight-{weight}", method="rpp", settings={"weight": weight}, kind="distillation")
    for weight in ("0.1", "0.3", "3", "10")
)
"""The weight of the distillation, with the first seed; 0 and 1 are among the methods."""
DATA = tuple(
    StudyCell(name=f"{method}-{shots}-shots", method=method, shots=shots, kind="data")
    for method in ("pomp", "rpp")
    for shots in (1, 2)
)
"""Images per concept, with the first seed; all of them are among the methods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is asked for."""

    out: Path
    data: str = "pocket"
    model: str = pocket.MODEL
    targets: tuple[str, ...] | None = None
    """Data sets to transfer to; None: the embedded benchmark sets."""
    seeds: tuple[int, ...] = (1, 2, 3)
    epochs: int = 5
    device: str = "auto"
    cache: Path | None = None

    @property
    def tests(self) -> tuple[tuple[str, str], ...]:
        """Kind and name of the data sets that a prompt is tested on. The test images of the embedded pretraining set are those held out."""
        own = pocket.names("pretraining") if self.data == POCKET else ()
        others = pocket.names("benchmark") if self.targets is None else self.targets
        return (*((HELD_OUT, one) for one in own), *((TRANSFER, one) for one in others))

    @property
    def cells(self) -> tuple[tuple[StudyCell, int], ...]:
        every = [(cell, seed) for seed in self.seeds for cell in METHODS]
        return (*every, *((cell, self.seeds[0]) for cell in (*DISTILLATION, *DATA)))


def run_study(study: Study, observer: Observer = SILENT) -> list[dict[str, Any]]:
    """All cells' rows, run or read back; `study.json`, `study.md` and `study.png` are written when all are there."""
    if not study.seeds:
        raise UserError("a study needs at least one seed, for example --seeds 1,2,3.")
    found: dict[tuple[str, int], dict[str, Any]] = {}
    while missing := [(cell, seed) for cell, seed in study.cells if (cell.name, seed) not in found]:
        before = len(found)
        for cell, seed in missing:
            with locked_if_free(study.out / PRETRAINED / cell.name / f"seed{seed}-claimed") as ours:
                if ours:
                    observer.note(f"{cell.name}, seed {seed}: cell {len(found) + 1} of {len(study.cells)}")
                    found[cell.name, seed] = _row(study, cell, seed, observer)
        if len(found) == before:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    rows = [found[cell.name, seed] for cell, seed in study.cells]
    with one_at_a_time(study.out / "zero-shot-claimed" / LOCK):
        _zero_shot(study, observer)
    conclude(study.out, {"data": study.data, "model": study.model, "rows": rows})
    return rows


def conclude(out: Path, facts: Mapping[str, Any]) -> None:
    """Write the tables and the figure of a study's directory. facts: what `study.json` has, or all of it but the differences."""
    rows = facts["rows"]
    found = differences([out / HELD_OUT, out / TRANSFER], [cell.name for cell in METHODS])
    disk.write_json(out / SUMMARY, {**facts, "differences": found})
    curves.draw(out / FIGURE, rows)
    disk.write_text(out / TABLE, render(rows) + "\n" + difference_table(found))


def _row(study: Study, cell: StudyCell, seed: int, observer: Observer) -> dict[str, Any]:
    place = study.out / PRETRAINED / cell.name / f"seed{seed}"
    config = PretrainConfig(
        method=cell.method,
        model=study.model,
        data=study.data,
        out=place,
        overrides={"epochs": study.epochs, **cell.settings},
        shots=cell.shots,
        seed=seed,
        classes_per_step=CLASSES,
        device=study.device,
        cache=study.cache,
        resume=True,
    )
    summary = pretrain_run(config, observer)
    found = {}
    for where, target in study.tests:  # OUT/WHERE/CELL/DATA/seedN, as `vlprompt compare` reads them
        out = study.out / where / cell.name / Path(target).name
        if records.finished(out / f"seed{seed}"):
            found[where, target] = records.read(out / f"seed{seed}")
        else:
            (found[where, target],) = evaluate_run(
                place / LAST, target, device=study.device, cache=study.cache, out=out, observer=observer
            )
    return {
        "cell": cell.name,
        "kind": cell.kind,
        "seed": seed,
        "shots": cell.shots,
        **{name: summary.get(name) for name in KEPT},
        "transfer": {
            target: {"top1": one.top1, "zero_shot_top1": one.zero_shot_top1}
            for (where, target), one in found.items()
            if where == TRANSFER
        },
    }


def _zero_shot(study: Study, observer: Observer) -> None:
    """What the bare model says of the same images."""
    for where, target in study.tests:
        config = RunConfig(
            method=BARE,
            model=study.model,
            data=target,
            out=study.out / where / BARE / Path(target).name,
            device=study.device,
            cache=study.cache,
            resume=True,
        )
        train_run(config, observer)


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown tables: means over seeds, and the standard deviation where there are several."""
    known = [_mean([row[key] for row in rows if row.get(key) is not None][:1]) for key in ZERO_SHOT]
    before = [one["zero_shot_top1"] for row in rows[:1] for one in row["transfer"].values()]
    known.append(_mean([statistics.fmean(before)] if before else []))
    parts = [
        "Zero-shot: {} % held-out, {} % training, {} % transfer. Transfer is the mean of the data sets.".format(*known)
    ]
    titles = {"method": "Methods", "distillation": "Weight of the distillation", "data": "Amount of data"}
    for kind, title in titles.items():
        if names := dict.fromkeys(row["cell"] for row in rows if row["kind"] == kind):
            body = [_columns(name, [row for row in rows if row["cell"] == name]) for name in names]
            parts += [f"\n## {title}\n", *plain.markdown_rows(COLUMNS, body, numbers=True)]
    epochs = plain.markdown_rows(("cell", "epoch", "held-out", "training"), _epochs(rows), numbers=True)
    return "\n".join([*parts, "", "## After each epoch\n", *epochs]) + "\n"


COLUMNS = ("cell", "seeds", "held-out", "training", "gap", "largest loss, held-out", "transfer", "seconds")


def _columns(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    transfer = [statistics.fmean(one["top1"] for one in row["transfer"].values()) for row in rows if row["transfer"]]
    gap = [row["train_top1"] - row["top1"] for row in rows if None not in (row["train_top1"], row["top1"])]
    top1, train_top1, loss, seconds = (
        [row[key] for row in rows] for key in ("top1", "train_top1", "largest_loss", "seconds")
    )
    return [name, str(len(rows)), *map(_mean, (top1, train_top1, gap, loss, transfer, seconds))]


def _epochs(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for name in dict.fromkeys(row["cell"] for row in rows if row["kind"] == "method"):
        tests = [row["tests"] for row in rows if row["cell"] == name]
        for place in range(min(map(len, tests))):
            both = [_mean([one[place].get(key) for one in tests]) for key in ("top1", "train_top1")]
            yield [name, str(tests[0][place]["epoch"] + 1), *both]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "-"
    spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.2f}{spread}"


CENTRE, BARE = "rpp", "zero-shot"
ALTHOUGH = ("protocol", "source")
"""Zero-shot has learned from nothing."""


def differences(places: Sequence[Path], cells: Sequence[str]) -> list[dict[str, Any]]:
    """places: directories of records, `PLACE/CELL/DATA/seedN`, each under its own name. cells: those with all seeds."""
    pairs = [(BARE, cell) for cell in cells] + [(CENTRE, cell) for cell in cells if cell != CENTRE]
    return [
        _difference(place, first, second)
        for place in places
        for first, second in pairs
        if (place / first).is_dir() and (place / second).is_dir()
    ]


def _difference(place: Path, first: str, second: str) -> dict[str, Any]:
    """A line of the table; gain: points of the second over the first, the mean of the data sets."""
    found, _ = compare(read_side(place / first), read_side(place / second), although=ALTHOUGH)
    whole = max(found, key=lambda one: len(one.datasets))
    said = whole.estimate
    where = {"where": place.name, "first": first, "second": second, "datasets": len(whole.datasets)}
    gain = {"gain": said.difference, "low": said.low, "high": said.high, "verdict": said.verdict}
    return {**where, **gain, "seeds": len(whole.seeds)}


def difference_table(found: Sequence[Mapping[str, Any]]) -> str:
    """As a Markdown table; nothing where nothing was compared."""
    lines = [
        "## Paired differences\n",
        "| second against first | images | data sets | seeds | gain, points | 95 % interval | verdict |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    line = "| {second} against {first} | {where} | {datasets} | {seeds} | {gain:+.1f} | {low:+.1f} to {high:+.1f} | {verdict} |"
    return "\n".join([*lines, *(line.format(**one) for one in found)]) + "\n" if found else ""
