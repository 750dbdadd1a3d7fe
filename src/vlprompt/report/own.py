"""The page of one run: what was learned, class by class, its surest mistakes, labels to look at, curves. Reads records only."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprompt import __version__, disk, plain, records
from vlprompt.records import Record, id_hashes
from vlprompt.report.details import class_names, reliability
from vlprompt.report.judgement import judge
from vlprompt.report.page import template
from vlprompt.report.prospect import Prospect, prospect
from vlprompt.report.sides import Run
from vlprompt.report.tables import accuracy

PAGE, MARKDOWN, MISTAKES, ANSWERS = "report.html", "report.md", "mistakes.csv", "predictions.csv"
MOST_PICTURES, MOST_DOUBTFUL = 24, 12
"""Pictures on the page (project's choice)."""
MOST_CLASSES = 25
"""Classes of the confusion matrix; of more, those with the most mistakes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAnswer:
    """One test image and the answers that a run's seeds gave."""

    image: str
    """Its path relative to the data."""
    label: int
    predicted: int
    """What most seeds say; of equally many the surest."""
    probability: float
    """Of that class, and of the label's: means over the seeds that say it."""
    label_probability: float
    wrong: int
    """Seeds that are wrong."""
    doubtful: bool
    """Whether the label may be wrong, as more than half of the seeds see it."""


@dataclass(frozen=True)
class Own:
    """Everything that the page of one run shows."""

    runs: tuple[Run, ...]

    @property
    def said(self) -> list[str]:
        """The judgement."""
        return judge([run.record for run in self.runs]).lines

    @cached_property
    def prospect(self) -> Prospect | None:
        """What fewer images taught, where that was measured."""
        return prospect([run.directory for run in self.runs])

    @property
    def first(self) -> Record:
        return self.runs[0].record

    @cached_property
    def names(self) -> tuple[str, ...]:
        """By label; a number for a class without test images."""
        known = class_names(self.runs[0], self.runs[0].predictions)
        return tuple(name or f"class {label + 1}" for label, name in enumerate(known))

    @cached_property
    def answers(self) -> list[ImageAnswer]:
        """Of every test image whose path is known, in the data's order."""
        rows: dict[str, list[tuple[int, int, float, float, bool]]] = {}
        for run in self.runs:
            one, ids = run.predictions, records.images_of(run.directory)
            named = dict(zip(id_hashes(ids).tolist(), ids, strict=True)) if ids else {}
            unsure = doubtful(one)
            for row in zip(
                *(one.id_hash.tolist(), one.label.tolist(), one.predicted.tolist()),
                *(one.predicted_probability.tolist(), one.label_probability.tolist(), unsure.tolist()),
                strict=True,
            ):
                if row[0] in named:
                    rows.setdefault(named[row[0]], []).append(row[1:])
        return [_answer(image, given) for image, given in rows.items()]

    @property
    def mistakes(self) -> list[ImageAnswer]:
        """The surest first."""
        wrong = [one for one in self.answers if one.predicted != one.label]
        return sorted(wrong, key=lambda one: -one.probability)

    @property
    def doubtful(self) -> list[ImageAnswer]:
        """Images whose label may be wrong, the likeliest first."""
        found = [one for one in self.answers if one.doubtful and self.first.mean_ap is None]
        return sorted(found, key=lambda one: one.label_probability - one.probability)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(C, C) images by class and answer, all seeds together."""
        n = self.first.num_classes
        cells = np.concatenate([run.predictions.label * n + run.predictions.predicted for run in self.runs])
        return np.bincount(cells, minlength=n * n).reshape(n, n)

    @property
    def shown(self) -> list[int]:
        """The classes of the matrix: those with the most mistakes, as a class and as an answer, in label order."""
        off = self.counts.sum(0) + self.counts.sum(1) - 2 * self.counts.diagonal()
        return sorted(np.argsort(-off, kind="stable")[:MOST_CLASSES].tolist())

    @property
    def confusions(self) -> list[tuple[int, int, int]]:
        """(class, answer, images), the most frequent mistakes first."""
        pairs = [(int(i), int(j), int(self.counts[i, j])) for i, j in np.argwhere(self.counts) if i != j]
        return sorted(pairs, key=lambda one: -one[2])[:10]

    @property
    def measure(self) -> str:
        """What `recall` holds."""
        return "recall" if self.first.mean_ap is None else "average precision"

    @property
    def recall(self) -> list[tuple[str, float, int]]:
        """(class, percent, test images), the worst first; of images with several labels each class's average precision, and no number."""
        if self.first.mean_ap is not None:
            rows = [(name, value, 0) for name, value in self.first.per_class.items()]
            return sorted(rows, key=lambda one: one[1])
        total = self.counts.sum(1)
        rows = [
            (self.names[label], float(100 * self.counts[label, label] / total[label]), int(total[label]))
            for label in np.flatnonzero(total).tolist()
        ]
        return sorted(((name, share, n // len(self.runs)) for name, share, n in rows), key=lambda one: one[1])


def doubtful(one: records.Predictions) -> NDArray[np.bool_]:
    """(N,) whether a label may be wrong: another class is said, at least as surely as it is on average for its own images, and the
    label's class is less sure than that.

    Source: confident learning (Northcutt et al., JAIR 2021, eq. 1), with the answer alone in place of all classes above their mean.
    """
    count = int(max(one.label.max(initial=0), one.predicted.max(initial=0))) + 1
    images_C = np.bincount(one.label, minlength=count)
    mean_C = np.bincount(one.label, one.label_probability, count) / np.maximum(images_C, 1)
    mean_C = np.where(images_C > 0, mean_C, 1.0)
    wrong_N = one.predicted != one.label
    out: NDArray[np.bool_] = wrong_N & (one.predicted_probability >= mean_C[one.predicted])
    return out & (one.label_probability < mean_C[one.label])


def _answer(image: str, given: Sequence[tuple[int, int, float, float, bool]]) -> ImageAnswer:
    groups: dict[int, list[float]] = {}
    for _, predicted, probability, _, _ in given:
        groups.setdefault(predicted, []).append(probability)
    said = max(groups, key=lambda label: (len(groups[label]), statistics.fmean(groups[label])))
    label = given[0][0]
    return ImageAnswer(
        image=image,
        label=label,
        predicted=said,
        probability=statistics.fmean(groups[said]),
        label_probability=statistics.fmean(row[3] for row in given if row[1] == said),
        wrong=sum(row[1] != label for row in given),
        doubtful=2 * sum(row[4] for row in given) > len(given),
    )


def write_own(
    root: Path, places: Iterable[Path], draw: Callable[[list[str]], Mapping[str, str]], *, all_answers: bool = False
) -> tuple[Path, ...]:
    """Writes the page of one run, its tables as Markdown, `mistakes.csv` and with `all_answers` `predictions.csv` into `root`.

    places: the directories of its seeds. draw: images -> small pictures of them by image, as data addresses. Returns the files, the page
    first; none where there is nothing to show, because there are no test images.
    """
    runs = tuple(Run(place, records.read(place)) for place in places)
    runs = tuple(run for run in runs if run.record.num_test and (run.directory / records.PREDICTIONS).is_file())
    if not runs:
        return ()
    own = Own(runs)
    shown = dict.fromkeys(one.image for one in (*own.mistakes[:MOST_PICTURES], *own.doubtful[:MOST_DOUBTFUL]))
    contents = {PAGE: _page(own, draw(list(shown))), MARKDOWN: _markdown(own), MISTAKES: _table(own, own.mistakes)}
    if all_answers:
        contents[ANSWERS] = _table(own, own.answers)
    for name, content in contents.items():
        disk.write_text(root / name, content)
    return tuple(root / name for name in contents)


def _table(own: Own, answers: Sequence[ImageAnswer]) -> str:
    head = ["image", "label", "predicted", "probability", "label_probability", "seeds_wrong", "seeds", "doubtful_label"]
    body = [
        [
            *(one.image, own.names[one.label], own.names[one.predicted]),
            *(f"{one.probability:.4f}", f"{one.label_probability:.4f}", one.wrong, len(own.runs)),
            "yes" if one.doubtful else "",
        ]
        for one in answers
    ]
    return plain.table([head, *body])


def title_of(record: Record) -> str:
    if not record.num_train:
        return f"{record.method} on {record.dataset}, without training images"
    shots = "all images" if record.shots is None else f"{record.shots} images of each class"
    return f"{record.method} on {record.dataset}, learned from {shots}"


def _page(own: Own, pictures: Mapping[str, str]) -> str:
    table = accuracy([run.record for run in own.runs])
    return template("own.html.j2").render(
        own=own,
        title=title_of(own.first),
        said=own.said,
        table=table,
        ahead=own.prospect,
        pictures=pictures,
        most=(MOST_PICTURES, MOST_DOUBTFUL),
        curves=[records.losses(run.directory) for run in own.runs],
        bins=[one for one in reliability([run.predictions for run in own.runs]) if one[0]],
        version=__version__,
    )


def _markdown(own: Own) -> str:
    names, table = own.names, accuracy([run.record for run in own.runs])
    out = [f"# {plain.markdown(title_of(own.first))}", "", *[plain.markdown(line) + "\n" for line in own.said]]
    out += [plain.markdown(note) + "\n" for note in (own.prospect.lines() if own.prospect else ())]
    out += [
        *plain.markdown_rows(table.header, table.cells),
        "",
        plain.markdown(table.remark),
        "",
        f"## {own.measure.capitalize()} of each class",
        "",
    ]
    out += plain.markdown_rows(
        ("class", f"{own.measure}, %", "test images"),
        [(name, f"{share:.1f}", str(n or "")) for name, share, n in own.recall],
    )
    out += ["", "## What is taken for what", ""]
    out += plain.markdown_rows(
        ("class", "answer", "images"), [(names[i], names[j], str(n)) for i, j, n in own.confusions]
    )
    for title, answers in (
        ("The surest mistakes", own.mistakes[:MOST_PICTURES]),
        ("Labels to look at", own.doubtful[:MOST_DOUBTFUL]),
    ):
        rows = [
            (one.image, names[one.label], names[one.predicted], f"{100 * one.probability:.0f} %") for one in answers
        ]
        out += ["", f"## {title}", "", *plain.markdown_rows(("image", "label", "answer", "probability"), rows)]
    return "\n".join(out) + "\n"
