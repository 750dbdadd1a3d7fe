"""What a finished run leaves behind: `result.json`, and `predictions.npz` next to it. Knows no torch and no model.

`result.json` is written last and atomically; that file alone means finished. All accuracies, F1 and calibration errors are
percent; a value that cannot be measured (no test images, no validation images) is null, never zero.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprompt import disk, reading
from vlprompt.errors import UserError, data_error

SCHEMA = 1
RESULT, PREDICTIONS, SPLIT, METRICS = "result.json", "predictions.npz", "split.json", "metrics.jsonl"
CURVE = "curve.json"
BY_HAND = "zero-shot"
"""The method of hand-written words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One finished run: one method, one seed, one set of test images."""

    method: str
    dataset: str
    shots: int | None
    """Images per class; None: all that there are."""
    seed: int
    model: str
    template: str
    """The words of the zero-shot classifier, with {} for the class name."""
    top1: float | None
    zero_shot_top1: float | None
    """The template's accuracy on the same images with the same classes."""
    top5: float | None
    """None too where there are five classes or fewer: it would be 100."""
    macro_f1: float | None
    balanced_accuracy: float | None
    ece: float | None
    """Expected calibration error: 15 bins of equal width, percent."""
    num_classes: int
    num_test: int
    split_hash: str
    """SHA-256 over the ids and labels of the training, validation and test images."""
    seconds: float
    """Wall time of learning and testing, image features included."""
    seconds_features: float
    """The part of `seconds` that went into encoding (or reading back) images."""
    epochs: int
    """0 for a method without gradient steps."""
    peak_mib: float
    """Peak memory: of the device on an accelerator, of the process on a CPU."""
    device: str
    versions: Mapping[str, str]
    schema: int = SCHEMA
    protocol: str = "few-shot"
    subset: str = "all"
    """Which classes: all, base (the first half) or novel (the second)."""
    source: str = ""
    """The data set that the prompt was learned from, where it is another than the one it is tested on."""
    init: str = ""
    """SHA-256 (hex) of the learned prompt that this one started from; empty: from its own initialisation."""
    setting: str = "inductive"
    """`test-time` where something is learned from each test image alone; `transductive` where from many unlabelled ones."""
    val_top1: float | None = None
    """On validation images; used to choose the seed that predicts, for nothing else."""
    parameters: int = 0
    """Learned numbers."""
    dtype: str = "float32"
    """Of the frozen weights."""
    weight_hash: str = ""
    recipe: str = ""
    """The recipe that the settings come from: the name of its file in `vlprompt/recipes`; "": the method's neutral values. Records of
    earlier versions say `published` or `pocket`."""
    recipe_hash: str = ""
    """SHA-256 (hex) of the recipe's files."""
    choices: str = ""
    """Whose the settings are: `published` as they are for this method, data set and shots, the `project`'s, or `changed` from the
    recipe by whoever asked for the run."""
    options: Mapping[str, object] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    """Loss term -> its weight, where that was found in the first epoch (`plpp.balance`)."""
    config_hash: str = ""
    per_class: Mapping[str, float] = field(default_factory=dict)
    """Class name -> recall, for the classes that have test images."""
    num_train: int = 0
    num_val: int = 0
    val_from: str = ""
    """`training images` where unused ones were held out, because the data set has no validation images."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Image -> why it could not be used."""
    folds: int = 0
    """Folds of the training images by which the answers were had: each image is answered by what was learned from the other folds; 0:
    there were test images."""
    test_of: int = 0
    """How many test images there were, where `num_test` of them were drawn (`--max-test`); 0: all were asked about."""
    hand_written: str = ""
    """The best hand-written words on validation images, or on training images without any: a template, or the name of several
    (`vlprompt methods zero-shot`, option `templates`); empty: not looked for, the template stands for them."""
    hand_written_top1: float | None = None
    """The accuracy of those words on the same images; None: not looked for."""
    gained: int | None = None
    """Test images that only the learned prompt answers rightly; the hand-written words (else the template) do not."""
    lost: int | None = None
    """Test images that only the hand-written words answer rightly."""
    majority_top1: float | None = None
    """The share of the most frequent class among the test images, percent."""
    temperature: float = 1.0
    """By which logits were divided, as validation images say; 1: nothing was fitted."""
    ece_before: float | None = None
    """The calibration error without it, where one was fitted."""
    reject_below: float | None = None
    """The highest probability below which a picture is taken for none of the classes: the suggestion of validation images."""
    reject_auroc: float | None = None
    """Percent: how well that probability tells images of the classes from those of a left-out class."""
    mean_ap: float | None = None
    """The mean over classes of average precision (mAP), of images with several labels; None: they have one. `per_class` then holds each
    class's average precision, `macro_f1` is at the thresholds, and an answer counts as right if it is one of the labels."""
    hand_written_ap: float | None = None
    """That of the best hand-written words."""
    ap_gain_error: float | None = None
    """The standard error over test images of `mean_ap` minus `hand_written_ap`, points (`several.gain_error`)."""
    short_classes: Mapping[str, int] = field(default_factory=dict)
    """Class name -> its training images, for classes that have fewer than `shots`."""

    @property
    def by_hand(self) -> bool:
        """Whether the answers are those of hand-written words, which there is nothing to compare with."""
        return self.method == BY_HAND

    @property
    def by_hand_top1(self) -> float | None:
        """Of the best hand-written words where they were looked for, else of the template."""
        return self.zero_shot_top1 if self.hand_written_top1 is None else self.hand_written_top1


@dataclass(frozen=True, slots=True)
class Predictions:
    """The answers behind a record, one row per test image, in the data set's order."""

    id_hash: NDArray[np.str_]
    """(n,) first 16 hex digits of the SHA-256 of the image's id, so methods are compared image by image."""
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    label_probability: NDArray[np.float32]
    predicted_probability: NDArray[np.float32]


def id_hashes(ids: Sequence[str]) -> NDArray[np.str_]:
    """Image ids -> the hashes that `Predictions` keeps."""
    return np.array([hashlib.sha256(one.encode()).hexdigest()[:16] for one in ids], dtype="<U16")


def write(directory: Path, record: Record, predictions: Predictions | None = None) -> None:
    """Write the predictions, then the record: from then on the run is finished."""
    if predictions is not None:
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, **{one.name: getattr(predictions, one.name) for one in dataclasses.fields(Predictions)}
        )
        disk.write_bytes(directory / PREDICTIONS, buffer.getvalue())
    disk.write_json(directory / RESULT, dataclasses.asdict(record))


def finished(directory: Path) -> bool:
    """Whether the run in this directory is finished."""
    return (directory / RESULT).is_file()


def read(path: Path) -> Record:
    """The record in a run's directory, or in the file itself. UserError where it is damaged or newer than this version."""
    path = path / RESULT if path.is_dir() else path
    values = reading.json_object(path)
    if type(values.get("schema")) is not int:
        raise data_error(f"{path} is not a record of vlprompt: it has no 'schema'.")
    reading.require_schema(values, SCHEMA, path)
    record = reading.typed(Record, values, str(path))
    if wrong := _out_of_range(record):
        raise data_error(f"{path}: {'; '.join(wrong)}.")
    return record


def _out_of_range(record: Record) -> list[str]:
    """Numbers that no run can have, each in words: percentages beyond 0 to 100, negative counts and times, no method or data set."""
    wrong = [f"{name} is empty" for name in ("method", "dataset", "model") if not getattr(record, name).strip()]
    texts = [one for one in (getattr(record, each.name) for each in dataclasses.fields(Record)) if isinstance(one, str)]
    wrong += [f"{reading.shown(one)} is too long" for one in (*texts, *record.per_class) if len(one) > MAX_TEXT]
    for name in PERCENT:
        value = getattr(record, name)
        if value is not None and not 0 <= value <= 100:
            wrong.append(f"{name} is {value}, no percentage")
    wrong += [
        f"the recall of {reading.shown(name)} is {value}"
        for name, value in record.per_class.items()
        if not 0 <= value <= 100
    ]
    for name in COUNTS:
        value = getattr(record, name)
        if value is not None and value < 0:
            wrong.append(f"{name} is {value}")
    if record.num_classes > MAX_ROWS or len(record.per_class) > record.num_classes:
        wrong.append(f"num_classes is {record.num_classes}, and {len(record.per_class)} classes have a recall")
    return wrong


PERCENT = (
    *("top1", "zero_shot_top1", "top5", "macro_f1", "balanced_accuracy", "ece", "val_top1"),
    *("hand_written_top1", "majority_top1", "ece_before", "reject_auroc", "mean_ap", "hand_written_ap"),
)
COUNTS = (
    *("shots", "seed", "num_classes", "num_test", "test_of", "folds", "num_train", "num_val", "epochs"),
    *("parameters", "gained", "lost", "seconds", "seconds_features", "peak_mib", "ap_gain_error"),
)
MAX_ROWS = 4_000_000
"""Test images of one run, and classes."""
MAX_HEADER, MAX_TEXT = 4096, 1000


def read_predictions(directory: Path, record: Record | None = None) -> Predictions | None:
    """The predictions next to a record; None where there are none. UserError: damaged, or another run's.

    Sizes and types are compared with the record before anything is unpacked.
    """
    path = directory / PREDICTIONS
    if not path.is_file():
        return None
    record = record or read(directory)
    try:
        with zipfile.ZipFile(path) as archive:
            found = Predictions(
                **{name: _column(archive, name, kind, record.num_test) for name, kind in COLUMNS.items()}
            )
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as problem:
        raise data_error(f"{path} is damaged, or no predictions of vlprompt ({problem}).") from problem
    labels = np.concatenate([found.label, found.predicted])
    chances = np.concatenate([found.label_probability, found.predicted_probability])
    if len(labels) and not (labels.min() >= 0 and labels.max() < record.num_classes):
        raise data_error(f"{path} has labels that are none of {record.num_classes} classes.")
    if not ((chances >= 0) & (chances <= 1.0001)).all():
        raise data_error(f"{path} has probabilities that lie outside 0 to 1.")
    return found


COLUMNS = {
    "id_hash": "<U16",
    "label": "<i8",
    "predicted": "<i8",
    "label_probability": "<f4",
    "predicted_probability": "<f4",
}
"""Field of `Predictions` -> its type in the file."""


def _column(archive: zipfile.ZipFile, name: str, kind: str, rows: int) -> NDArray[Any]:
    """One array: a vector of this type with so many rows. ValueError where the file says something else."""
    if rows > MAX_ROWS:
        raise ValueError(f"{rows:,} test images; at most {MAX_ROWS:,} are read")
    with archive.open(f"{name}.npy") as file:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file, max_header_size=MAX_HEADER)
        if shape != (rows,) or dtype != np.dtype(kind):
            raise ValueError(f"{name} is {shape} {dtype}, and the record says ({rows},) {np.dtype(kind)}")
        data = file.read(rows * dtype.itemsize)
        if len(data) != rows * dtype.itemsize or file.read(1):
            raise ValueError(f"{name} has another length than it says")
    return np.frombuffer(data, dtype).copy()


def images_of(directory: Path) -> tuple[str, ...]:
    """The ids of a run's test images (paths relative to the data) from the `split.json` next to its record; empty: nobody wrote one."""
    path = directory / SPLIT
    if not path.is_file():
        return ()
    try:
        return tuple(str(id) for id, _ in reading.json_object(path)["test"])
    except (KeyError, TypeError, ValueError) as problem:
        raise data_error(f"{path} is damaged ({problem}).") from problem


def read_curve(directory: Path) -> tuple[list[int], NDArray[np.bool_]] | None:
    """(training images, (P, N) which test images what was learned from so many answers rightly); None: no curve was measured."""
    path = directory / CURVE
    if not path.is_file():
        return None
    values = reading.json_object(path)
    try:
        images = [int(one) for one in values["images"]]
        right = np.array([[sign == "1" for sign in row] for row in values["right"]], dtype=np.bool_)
        if right.shape[:1] != (len(images),) or right.ndim != 2:
            raise ValueError(f"{len(images)} points and an array of {right.shape}")
    except (KeyError, TypeError, ValueError) as problem:
        raise data_error(f"{path} is damaged ({problem}). Remove it, and train again with --resume.") from problem
    return images, right


def losses(directory: Path) -> list[float]:
    """The mean loss of each epoch, from `metrics.jsonl`; empty for what is fitted at once."""
    rows = [row for _, row in logged(directory / METRICS) if isinstance(row, dict)]
    return [float(row["loss"]) for row in rows if type(row.get("loss")) in (int, float)]


def harmonic(base: float, novel: float) -> float:
    """``2 B N / (B + N)``; 0 where both are 0."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0


def log(path: Path, values: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def logged(path: Path) -> list[tuple[str, Any]]:
    """The lines of a log with their values, without those that a kill cut short; empty where there is no file."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(UserError):
            found.append((line, reading.json_value(line, str(path))))
    return found


def cut_log(path: Path, name: str, last: int) -> None:
    """Take off what a killed run wrote after its last state: lines whose number `name` is above `last`, or that lack it."""
    if path.is_file():
        found = [(line, values.get(name) if isinstance(values, dict) else None) for line, values in logged(path)]
        disk.write_text(path, "".join(f"{line}\n" for line, number in found if type(number) is int and number <= last))


def find(root: Path) -> Iterator[tuple[Path, Record]]:
    """Every finished run at or below `root`: its directory and its record, in the order of their paths."""
    for path in sorted(root.rglob(RESULT)):
        yield path.parent, read(path)
