"""Which images are learned from and which are tested on: few-shot samples, halves, and the rule for undivided folders."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeVar

from vlprompt import disk, reading
from vlprompt.data.samples import PARTS, Dataset, Part, Sample, Skipped, grouped
from vlprompt.errors import UserError, data_error

Subset = Literal["all", "base", "novel"]
MAX_VAL_SHOTS = 4
UNEVEN = 5
"""Times as many training images as another class has, from which on it is said (project's choice)."""
SCHEMA = 1
LABEL = attrgetter("label")


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShot:
    """The images that one seed learns from."""

    class_names: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    short: Mapping[str, int] = field(default_factory=dict)
    """Class name -> training images there are, for classes with fewer than the shots asked for."""
    held_out: bool = False
    """Whether `val` are training images that were not drawn, because the data set has no validation images."""


def few_shot(dataset: Dataset, shots: int | None, seed: int, *, hold_out: bool = False) -> FewShot:
    """Draw `shots` training and ``min(shots, 4)`` validation images per class, as published; None: all images.

    Python's generator seeded with `seed`; classes in order of first appearance; ``random.sample`` of a class that has
    enough, all images of one that has not (no repetition); then validation likewise from the same stream.
    Source: KaiyangZhou/Dassl.pytorch ``base_dataset.py``, KaiyangZhou/CoOp ``datasets/oxford_pets.py``.
    hold_out: if the data set has no validation images, draw as many from the training images that were not drawn. This is the
    project's choice, made for ImageNet, whose published validation images are its test images.
    """
    if shots is None:
        return FewShot(class_names=dataset.class_names, train=dataset.train, val=dataset.val)
    if shots < 1:
        raise UserError(f"shots is {shots}; it must be at least 1, or left out to use all images.")
    stream = random.Random(seed)
    train = _draw(dataset.train, shots, stream)
    instead = hold_out and not dataset.val
    taken = {sample.id for sample in train} if instead else set()
    rest = [sample for sample in dataset.train if sample.id not in taken] if instead else dataset.val
    val = _draw(rest, min(shots, MAX_VAL_SHOTS), stream)
    counts = Counter(label for sample in train for label in sample.labels)
    short = {name: counts[label] for label, name in enumerate(dataset.class_names) if counts[label] < shots}
    return FewShot(class_names=dataset.class_names, train=train, val=val, short=short, held_out=instead and bool(val))


def said_of_uneven(counts: Mapping[str, int]) -> str:
    """What to know where classes have very different numbers of training images (class -> number); else ""."""
    least, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    if not 0 < UNEVEN * counts[least] <= counts[most]:
        return ""
    return (
        f"the classes are unbalanced: {counts[least]} training images of {least}, {counts[most]} of {most}. --set draw=classes learns from "
        "as many of each class; look at macro accuracy, where every class counts the same"
    )


def _draw(samples: Sequence[Sample], number: int, stream: random.Random) -> tuple[Sample, ...]:
    drawn: list[Sample] = []
    for items in grouped(samples, LABEL).values():
        drawn += stream.sample(items, number) if len(items) >= number else items
    return tuple(drawn)


def halves(num_classes: int) -> tuple[range, range]:
    """Labels of the base classes, the first ceil(C/2), and of the novel ones, the rest (CoOp ``subsample_classes``)."""
    middle = (num_classes + 1) // 2
    return range(middle), range(middle, num_classes)


def fewer_tests(dataset: Dataset, number: int | None) -> Dataset:
    """At most so many test images, as many of each class as there can be; None: all of them.

    Drawn at random with seed 0, whatever is learned, so every run asks about the same ones (project's choice).
    """
    if number is None or len(dataset.test) <= number:
        return dataset
    stream = random.Random(0)
    classes = grouped(sorted(dataset.test, key=lambda one: (one.label, one.id)), LABEL)
    drawn = [stream.sample(ones, len(ones)) for ones in classes.values()]
    rounds = [
        ones[place].id
        for place in range(max(map(len, drawn)))
        for ones in stream.sample(drawn, len(drawn))
        if place < len(ones)
    ]
    kept = set(rounds[:number])
    return dataclasses.replace(
        dataset, test=tuple(one for one in dataset.test if one.id in kept), test_of=len(dataset.test)
    )


Parts = TypeVar("Parts", Dataset, FewShot)


def restrict(parts: Parts, subset: Subset) -> Parts:
    """Keep one half of the classes, labels counted from 0 again.

    The published order is few-shot sampling first, of all classes, and then the halves: give this the sample.
    """
    if subset == "all":
        return parts
    base, novel = halves(len(parts.class_names))
    labels = base if subset == "base" else novel
    names = tuple(parts.class_names[label] for label in labels)
    train, val = _relabel(parts.train, labels), _relabel(parts.val, labels)
    if isinstance(parts, FewShot):
        short = {name: count for name, count in parts.short.items() if name in names}
        return dataclasses.replace(parts, class_names=names, train=train, val=val, short=short)
    return dataclasses.replace(parts, class_names=names, train=train, val=val, test=_relabel(parts.test, labels))


def _relabel(samples: Sequence[Sample], labels: range) -> tuple[Sample, ...]:
    return tuple(
        dataclasses.replace(sample, label=sample.label - labels.start) for sample in samples if sample.label in labels
    )


def split_by_rule(dataset: Dataset) -> Dataset:
    """Divide a data set that has no parts: 50 % train, 20 % val, 30 % test of every class. Divided ones stay as they are.

    Shares as published for DTD, EuroSAT, Caltech101 and Food101. How images are picked is the project's choice. The n images of
    a class are ordered by the SHA-256 of their id (UTF-8). The first round(n/2) are train, the next round(n/5) val, the rest
    test. Train gets at least one image and, from two images on, test as well, taken from val.
    A file that is byte for byte an earlier one (classes in label order) goes where that one went: no test image is learned from
    under another name. The same folder is always divided alike, on any machine.
    """
    if dataset.divided:
        return dataset
    sizes = Counter(sample.size for sample in dataset.train)
    parts: dict[Part, list[Sample]] = {"train": [], "val": [], "test": []}
    went: dict[str, Part] = {}
    skipped = list(dataset.skipped)
    for _, members in sorted(grouped(dataset.train, LABEL).items()):
        items = sorted(members, key=_id_hash)
        for sample, part in zip(items, _parts_of(len(items)), strict=True):
            if sample.size is None or sizes[sample.size] > 1:  # a copy has the same size: others need no reading
                try:
                    part = went.setdefault(sample.content_hash, part)
                except UserError as error:
                    skipped.append(Skipped(sample.id, str(error).removeprefix(f"{sample.id}: ")))
                    continue
            parts[part].append(sample)
    sorted_parts = {part: tuple(sorted(parts[part], key=lambda s: (s.label, s.id))) for part in PARTS}
    return dataclasses.replace(
        dataset,
        train=sorted_parts["train"],
        val=sorted_parts["val"],
        test=sorted_parts["test"],
        skipped=tuple(skipped),
        divided=True,
    )


def _id_hash(sample: Sample) -> str:
    return hashlib.sha256(sample.id.encode("utf-8", "surrogateescape")).hexdigest()


def _parts_of(number: int) -> list[Part]:
    """The part of each of a class's images, in order."""
    train, val = min(number, max(1, round(number * 0.5))), round(number * 0.2)
    if train + val == number > 1:
        val -= 1
    parts: list[Part] = ["train"] * train
    parts += ["val"] * val
    parts += ["test"] * (number - len(parts))
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The images one run learned from, chose by and was tested on."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of ids and labels of the three parts, in order."""
        return split_hash(self.train, self.val, self.test)


def split_hash(train: Sequence[Sample], val: Sequence[Sample], test: Sequence[Sample]) -> str:
    """SHA-256 (hex) of the compact JSON of ``{"train": [[id, label], ...], "val": ..., "test": ...}``, in the order given."""
    return _hash({"train": _pairs(train), "val": _pairs(val), "test": _pairs(test)})


def write_split(path: Path, split: Split, *, dataset: str) -> None:
    """Write ``split.json``: relative paths and labels, and their hash; `seen`: SHA-256 (hex) of the images to learn and choose from."""
    pairs: dict[str, object] = {part: _pairs(getattr(split, part)) for part in PARTS}
    seen = sorted({sample.content_hash for sample in (*split.train, *split.val)})
    disk.write_json(path, {"schema": SCHEMA, "dataset": dataset, "hash": split.hash, **pairs, "seen": seen})


def read_split(path: Path, dataset: Dataset) -> Split:
    """The split of a ``split.json`` with the images of `dataset`; UserError where they no longer fit each other."""
    try:
        stored = reading.json_object(path)
        pairs = {part: [(str(id), int(label)) for id, label in stored[part]] for part in PARTS}
        intact = stored["hash"] == _hash({part: list(pairs[part]) for part in PARTS})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise data_error(f"{path}: not a split that vlprompt wrote ({error}).") from error
    if not intact:
        raise data_error(f"{path}: was changed after it was written (its hash does not fit).")
    known = {(sample.id, sample.label): sample for part in PARTS for sample in getattr(dataset, part)}
    lost = [id for part in PARTS for id, label in pairs[part] if (id, label) not in known]
    if lost:
        raise data_error(
            f"{path}: {len(lost)} of its images are not in {dataset.name} (or have another label there), "
            f"the first: {lost[0]}. The data have changed since; use them as they were, or a new output directory."
        )
    found = {part: tuple(known[id, label] for id, label in pairs[part]) for part in PARTS}
    return Split(train=found["train"], val=found["val"], test=found["test"])


def _pairs(samples: Sequence[Sample]) -> list[list[str | int]]:
    return [[sample.id, sample.label] for sample in samples]


def _hash(pairs: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()
