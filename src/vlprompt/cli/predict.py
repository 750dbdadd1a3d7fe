"""`vlprompt predict`: classify pictures with a learned prompt."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.measure import Measurement
from rich.text import Text

from vlprompt.cli import console, options, progress
from vlprompt.cli.options import argument, option
from vlprompt.errors import UserError, data_error
from vlprompt.plain import table

if TYPE_CHECKING:
    from vlprompt.classifier import PromptClassifier
    from vlprompt.data.samples import Sample

BATCH = 1024
"""Files between two looks at what could not be read."""
GAP = 3
"""Columns between two columns of a table."""
FEW = 32
"""Up to so many files no progress is shown."""
NONE = "none of these"
LISTED = 10
"""Unusable files that are named; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one picture: classes by falling probability."""

    path: str
    top: tuple[tuple[str, float], ...]
    below: float = 0.0
    """The highest probability below which it is none of them."""
    chosen: tuple[str, ...] | None = None
    """All classes above their thresholds, of a prompt that was learned from several labels for each picture."""

    @property
    def name(self) -> str:
        if self.chosen is not None:
            return ", ".join(self.chosen) or NONE
        return self.top[0][0] if self.top[0][1] >= self.below else NONE

    def as_dict(self) -> dict[str, object]:
        name, probability = self.name, self.top[0][1]
        top = [{"class": one, "probability": value} for one, value in self.top]
        several = {} if self.chosen is None else {"classes": list(self.chosen)}
        return {"path": self.path, "class": name, **several, "probability": probability, "top": top}


Reject = Annotated[
    str | None,
    option(
        "--reject P|auto",
        f"Say `{NONE}` where the highest probability is below P, a number from 0 to 1; auto: as `train` suggests.",
    ),
]


def predict(
    run: options.Run,
    images: Annotated[
        list[str],
        argument(
            "IMAGE|DIR|URL|VIDEO|-...",
            "Pictures, folders of them, addresses (https://...), videos, or - for a picture from standard input.",
        ),
    ],
    classes: options.Classes = None,
    top: Annotated[int, option("--top", "How many classes to list.", min=1)] = 5,
    every: Annotated[float, option("--every SECONDS", "Of a video: a frame every so many seconds.", min=0.01)] = 1.0,
    reject: Reject = None,
    model: options.Backbone = None,
    strict: options.Strict = False,
    device: options.Device = "auto",
    as_csv: Annotated[bool, option("--csv", "Print a table as CSV on stdout, and nothing else.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Classify pictures. A run with several seeds predicts with the one best on validation images, else the lowest.

    Example: `vlprompt predict runs/mine cat.jpg holiday/ --classes "cat,dog" --json`
    """
    from vlprompt.artifact import pick
    from vlprompt.classifier import PromptClassifier
    from vlprompt.hub import located

    if as_csv and as_json:
        raise UserError("--csv and --json are two forms of one answer. Give one of them.")
    names = options.parse_names(classes)
    paths = list(pictures_of(images, every))
    picked = pick(located(run))
    classifier = PromptClassifier.load(picked.directory, model=model, device=device)
    console.note(f"Predicting with {picked.reason}.")
    below = 0.0 if reject is None else _below(reject, classifier)
    with progress.counted("classifying", len(paths) if len(paths) > FEW else 0) as advance:
        answers, bad = _answer(classifier, paths, names, top, strict=strict, advance=advance)
    answers = [dataclasses.replace(answer, below=below) for answer in answers]
    if bad:
        listed = "".join(f"\n  {line}" for line in list(bad.values())[:LISTED])
        more = f"\n  and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        console.warn(f"{len(bad)} of {len(paths)} files were skipped:{listed}{more}")
    if as_json:
        errors = [{"path": path, "error": why} for path, why in bad.items()]
        console.dump([one.as_dict() for one in answers] + errors)
    elif as_csv:
        console.plain(_table(answers, bad))
    else:
        _show(answers, top)


def _below(text: str, classifier: PromptClassifier) -> float:
    """The threshold that is meant."""
    if classifier.several is not None:
        raise UserError(
            "--reject: this prompt has a threshold for each class, and says `none of these` by them. Leave it out."
        )
    if text == "auto":
        known = classifier.learned.facts.get("reject_below")
        if known is None:
            raise UserError(
                "--reject auto: this prompt has no threshold. It is found on validation images of three classes or more. Give a number "
                "from 0 to 1."
            )
        console.note(f"Below {known:.2f} it is none of these.")
        return float(known)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"--reject {text}: give a number from 0 to 1, or auto.")
    return value


def pictures_of(images: Iterable[str], every: float) -> Iterator[Path | Sample]:
    """Files, the pictures below folders, addresses, the frames of videos, and standard input, each read when its turn comes."""
    from vlprompt.data.download import is_url
    from vlprompt.data.frames import frames, is_video
    from vlprompt.data.samples import Sample
    from vlprompt.inputs import listed

    for name in images:
        path = Path(name).expanduser()
        if is_url(name):
            yield Sample(id=name, label=0, source=functools.partial(_fetched, name))
        elif name == "-":
            yield Sample(id="standard input", label=0, source=functools.partial(bytes, _piped()))
        elif is_video(name) and path.is_file():
            yield from frames(path, every)
        else:
            yield from listed(path)


def _fetched(url: str) -> bytes:
    """ValueError: it cannot be had, or is larger than a picture should be."""
    from vlprompt.data.download import AddressRefused, Fetcher

    try:
        return Fetcher(tries=2, timeout=20.0).small(url)
    except AddressRefused as problem:
        raise ValueError(str(problem)) from problem


def _piped() -> bytes:
    if sys.stdin.isatty():
        raise UserError(
            "- reads a picture from standard input. Pipe one into it: cat picture.jpg | vlprompt predict RUN -"
        )
    from vlprompt.data.download import SMALL

    found = sys.stdin.buffer.read(SMALL + 1)
    if len(found) > SMALL:
        said = f"standard input holds more than {SMALL:,} bytes. Save it as a file, and give that."
        raise data_error(said)
    return found


def _answer(
    classifier: PromptClassifier,
    paths: Sequence[Path | Sample],
    names: Sequence[str] | None,
    top: int,
    *,
    strict: bool,
    advance: Callable[[int], None],
) -> tuple[list[Answer], dict[str, str]]:
    """The answers, and why each other file cannot be used. UserError where none can, or with strict."""
    answers: list[Answer] = []
    bad: dict[str, str] = {}
    shown = tuple(names or classifier.classes_.tolist())
    for start in range(0, len(paths), BATCH):
        chunk = paths[start : start + BATCH]
        probability_BC, reasons = classifier.predict_files(chunk, names, advance)
        if strict and reasons:
            raise data_error(next(iter(reasons.values())))
        bad |= {_name(chunk[number]): why for number, why in reasons.items()}
        good = [path for number, path in enumerate(chunk) if number not in reasons]
        for path, row in zip(good, probability_BC.tolist(), strict=True):
            order = sorted(range(len(shown)), key=lambda label: (-row[label], label))[:top]
            listed = tuple((shown[label], float(row[label])) for label in order)
            answers.append(Answer(_name(path), listed, chosen=_chosen(classifier, row, shown)))
    if not answers:
        why = "; ".join(list(bad.values())[:LISTED])
        raise data_error(f"none of the {len(paths)} files is a usable image: {why}")
    return answers, bad


def _chosen(classifier: PromptClassifier, row: Sequence[float], shown: Sequence[str]) -> tuple[str, ...] | None:
    if classifier.several is None:
        return None
    import numpy as np

    found = classifier.several.chosen(np.array([row], dtype=np.float32), shown)[0]
    return tuple(name for _, name in sorted((-p, n) for p, n, above in zip(row, shown, found, strict=True) if above))


def _name(picture: Path | Sample) -> str:
    return str(picture) if isinstance(picture, Path) else picture.id


def _table(answers: Sequence[Answer], bad: Mapping[str, str]) -> str:
    """The answers as CSV, one row for each picture; the last column says why a file has none."""
    numbers = range(max(len(answer.top) for answer in answers))
    names = [f"{word}{f' {number + 1}' if number else ''}" for number in numbers for word in ("class", "probability")]
    rows = [[answer.path, answer.name, *[cell for one in answer.top for cell in one][1:], ""] for answer in answers]
    return table([["path", *names, "error"], *rows, *([path, *[""] * len(names), why] for path, why in bad.items())])


def _show(answers: Sequence[Answer], top: int) -> None:
    """A table in which a picture has one line: as many of the next best as there is room for."""
    rows: list[list[object]] = []
    others = []
    for answer in answers:
        known = answer.name == answer.top[0][0]  # else all probabilities are listed behind it
        (_, probability), *rest = answer.top if known else (answer.top[0], *answer.top)
        rows.append([answer.path, Text(answer.name, style="bold"), f"{probability:.2f}"])
        others.append([f"{one} {value:.2f}" for one, value in rest])
    columns: tuple[str, ...] = ("~picture", "class", ">probability")
    taken = Measurement.get(console.out(), console.out().options, console.table(None, columns, rows)).maximum
    room = console.width() - taken - GAP
    shown = max((n for n in range(top + 1) if all(len(", ".join(one[:n])) <= room for one in others)), default=0)
    if shown:
        rows = [[*row, ", ".join(one[:shown])] for row, one in zip(rows, others, strict=True)]
        columns += ("next best",)
    console.show(console.table(None, columns, rows))
    if shown < max(map(len, others)):
        console.note("Some of the next best are left out for width: --csv and --json have them.")
