"""What `vlprompt data check` looks at: every file of a data set, decoded, counted and compared."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from vlprompt.data.images import open_image
from vlprompt.data.listing import Listing, as_dataset, problems, some
from vlprompt.data.samples import PARTS, Dataset, Part, Sample, Skipped, grouped
from vlprompt.data.sources import list_source, notes_of, strict_error
from vlprompt.data.splits import said_of_uneven, split_by_rule
from vlprompt.data.views import WORKERS, in_threads
from vlprompt.errors import UserError

SHOTS = 16
"""The largest number of shots of the published protocol."""
CHUNK = 64 * WORKERS
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """Readable images of one class."""

    name: str
    train: int
    val: int
    test: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Files with one and the same content."""

    ids: tuple[str, ...]
    leak: bool
    """Whether they lie in different parts: a test or validation image is learned from."""
    conflict: bool
    """Whether they have different labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found in a data set."""

    name: str
    divided: bool
    """False: it has no train, val and test, and the counts are those of `split_by_rule`."""
    several: bool = False
    """Whether an image may have several labels; the counts are then of labels."""
    classes: tuple[ClassCount, ...]
    problems: tuple[str, ...]
    """Why it cannot be used; empty for a usable one."""
    skipped: tuple[Skipped, ...]
    copies: tuple[Copies, ...]
    few: Mapping[str, int]
    """Class -> training images, where they are fewer than 16."""
    smallest: tuple[int, int] | None
    """(width, height) of the image with the shortest short edge, in pixels."""
    median_edge: int | None
    """Median of the short edges, in pixels."""
    largest: tuple[int, int] | None
    near: tuple[tuple[str, str], ...] = ()
    """(training or validation image, test image) that look the same in small, though their bytes differ."""
    dark: tuple[str, ...] = ()
    """Images without any light: 12-bit values in a file of 16 bits, for one."""
    notes: tuple[str, ...] = ()
    """What the source itself has to say, as sizes that are not the published ones."""

    @property
    def ok(self) -> bool:
        """Whether it can be used and no test image is learned from."""
        return not self.problems and not any(copies.leak for copies in self.copies)

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"ok": self.ok, "skipped": [skip._asdict() for skip in self.skipped]}

    def lines(self) -> list[str]:
        """For people: problems first, then what to know, then the counts."""
        out = [f"problem: {problem}" for problem in self.problems]
        for copies in self.copies:
            if copies.leak or copies.conflict:
                faults = ["in several of train, val and test"] * copies.leak + ["with several labels"] * copies.conflict
                out.append(
                    f"{'problem' if copies.leak else 'warning'}: one image {' and '.join(faults)}: {some(copies.ids)}"
                )
        plain = sum(len(copies.ids) - 1 for copies in self.copies if not copies.leak and not copies.conflict)
        if plain:
            out.append(f"note: {plain} files are copies of others of the same class and part")
        if self.near:
            pairs = some([f"{learned} and {tested}" for learned, tested in self.near], 3)
            number = len({tested for _, tested in self.near})
            out.append(f"note: {number} test images look as training images do (resized or saved again?): {pairs}")
        if self.dark:
            out.append(
                f"note: {len(self.dark)} images use less than a tenth of their range, and are seen nearly black: {some(self.dark)}. "
                "Are they 12-bit values in 16-bit files? Scale them to the full range"
            )
        by_reason = grouped(self.skipped, lambda skip: skip.reason)
        out += [
            f"skipped: {len(found)} x {reason}: {some([one.id for one in found])}"
            for reason, found in by_reason.items()
        ]
        if self.few:
            names = some([f"{name} ({count})" for name, count in self.few.items()])
            out.append(f"note: fewer than {SHOTS} training images in {names}")
        if uneven := said_of_uneven({count.name: count.train for count in self.classes if count.train} or {"": 0}):
            out.append(f"note: {uneven}")
        untested = [count.name for count in self.classes if not count.test]
        if 0 < len(untested) < len(self.classes):
            out.append(f"note: no test images in {some(untested)}")
        return out + [f"note: {note}" for note in self.notes] + self._counts()

    def _counts(self) -> list[str]:
        totals = {part: sum(getattr(count, part) for count in self.classes) for part in PARTS}
        labels = " labels" if self.several else ""
        rule = "" if self.divided else " (divided by the rule 50/20/30, since there are no train and test folders)"
        out = [
            f"{self.name}: {len(self.classes)} classes; " + ", ".join(f"{totals[p]} {p}" for p in PARTS) + labels + rule
        ]
        if self.smallest and self.largest:
            sizes = [f"{width} x {height}" for width, height in (self.smallest, self.largest)]
            out.append(f"sizes: {sizes[0]} to {sizes[1]} pixels, median short edge {self.median_edge}")
        width = max((len(count.name) for count in self.classes), default=0)
        out += [f"  {c.name:<{width}}  train {c.train:>5}  val {c.val:>5}  test {c.test:>5}" for c in self.classes]
        return out


def check(spec: str | Path, *, progress: Callable[[int], None] | None = None) -> Report:
    """Look at all of a data set, every image decoded. What is wrong is reported, not raised.

    UserError only where there is nothing that could be listed. `progress` is called with the number of images just done.
    """
    listing = list_source(spec)
    found, looks, damaged = _decode_all(listing, progress)
    sizes = [look.size for look in looks]
    dataset = split_by_rule(found)
    went = {sample.id: part for part in PARTS for sample in getattr(dataset, part)}
    counts = {part: Counter(label for one in getattr(dataset, part) for label in one.labels) for part in PARTS}
    names = listing.class_names
    classes = tuple(
        ClassCount(name=name, **{part: counts[part][label] for part in PARTS}) for label, name in enumerate(names)
    )
    unread = {skip.id for skip in damaged}
    kept = tuple(entry for entry in listing.entries if entry.id not in unread)
    skipped = tuple(sorted({*listing.skipped, *damaged}))
    judged = dataclasses.replace(listing, entries=kept, skipped=skipped)
    by_edge = sorted(sizes, key=min)
    return Report(
        name=listing.name,
        divided=listing.divided,
        several=listing.several,
        classes=classes,
        problems=tuple(problems(judged)),
        skipped=skipped,
        copies=_copies(looks, went if not found.divided else {}),
        near=_near(looks) if found.divided else (),
        few={c.name: c.train for c in classes if c.train < SHOTS} if dataset.train else {},
        smallest=by_edge[0] if by_edge else None,
        median_edge=round(statistics.median(min(size) for size in sizes)) if sizes else None,
        largest=by_edge[-1] if by_edge else None,
        dark=tuple(look.sample.id for look in looks if look.dark),
        notes=notes_of(listing),
    )


DARK = 26
"""Of 256 levels: below it every pixel of a dark image lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What is kept of a decoded image."""

    sample: Sample
    part: Part
    content: str
    size: tuple[int, int]
    small: bytes
    """9 x 8 pixels, RGB: what near copies have in common."""
    dark: bool


def _decode_all(listing: Listing, progress: Callable[[int], None] | None) -> tuple[Dataset, list[_Look], list[Skipped]]:
    """The data set of all that decodes, how its images look, and what does not decode."""
    dataset = as_dataset(listing)
    looks: list[_Look] = []
    damaged: list[Skipped] = []
    good: dict[Part, tuple[Sample, ...]] = {}
    for part in PARTS:
        found = _each(functools.partial(_look, part), getattr(dataset, part), progress)
        looks += (fine := [look for look in found if isinstance(look, _Look)])
        damaged += [look for look in found if isinstance(look, Skipped)]
        good[part] = tuple(look.sample for look in fine)
    return dataclasses.replace(dataset, train=good["train"], val=good["val"], test=good["test"]), looks, damaged


def _each(look: Callable[[Sample], T], samples: Sequence[Sample], progress: Callable[[int], None] | None) -> list[T]:
    """What `look` finds of each sample; some at a time are looked at, then `progress` is told how many."""
    found: list[T] = []
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK]
        found += in_threads(look, chunk)
        if progress:
            progress(len(chunk))
    return found


def _skipped(sample: Sample, error: UserError) -> Skipped:
    """The reason is the error without the image's name."""
    return Skipped(sample.id, str(error).removeprefix(f"{sample.id}: ").removesuffix("."))


def _look(part: Part, sample: Sample) -> _Look | Skipped:
    try:
        data = sample.read()
        image = open_image(data, name=sample.id, decoding=sample.decoding)
    except UserError as error:
        return _skipped(sample, error)
    small = image.resize((9, 8), Image.Resampling.BOX).tobytes()
    dark = not any(image.convert("L").histogram()[DARK:])
    return _Look(sample=sample, part=part, content=sample.content_hash, size=image.size, small=small, dark=dark)


def _copies(looks: Sequence[_Look], went: Mapping[str, Part]) -> tuple[Copies, ...]:
    """Files with one content; `went`: the parts of a data set that names none."""
    return tuple(
        Copies(
            ids=tuple(dict.fromkeys(look.sample.id for look in same)),
            leak=len({went.get(look.sample.id, look.part) for look in same}) > 1,
            conflict=len({look.sample.label for look in same}) > 1,
        )
        for same in grouped(looks, lambda look: look.content).values()
        if len(same) > 1
    )


NEAR_BITS, NEAR_LEVELS = 3, 6.0
"""How far two pictures in small may be apart to count as one: signs of 64 brightness steps, mean levels of 255 (project's choice)."""


def _near(looks: Sequence[_Look]) -> tuple[tuple[str, str], ...]:
    """(learned from, tested on) that look the same, other than copies byte for byte.

    By the signs of brightness steps (64 bits): two that differ in at most three share one quarter of them, so only pairs with a
    quarter in common are compared. Pictures of one plain colour have hardly a step and are left out.
    """
    small = np.array([np.frombuffer(look.small, np.uint8) for look in looks], np.int16).reshape(-1, 8, 9, 3)
    steps = np.diff(small.mean(3), axis=2)
    bits = np.packbits(steps.reshape(-1, 64) > 0, axis=1)
    plain = (np.abs(steps) > 2).reshape(-1, 64).sum(1) < 8
    quarters: dict[tuple[int, bytes], list[int]] = {}
    for number, look in enumerate(looks):
        if look.part != "test" and not plain[number]:
            for quarter in range(4):
                quarters.setdefault((quarter, bits[number, 2 * quarter : 2 * quarter + 2].tobytes()), []).append(number)
    found = []
    for number, look in enumerate(looks):
        if look.part != "test" or plain[number]:
            continue
        near = {n for q in range(4) for n in quarters.get((q, bits[number, 2 * q : 2 * q + 2].tobytes()), ())}
        for other in sorted(near):
            apart = int(np.unpackbits(bits[number] ^ bits[other]).sum())
            level = float(np.abs(small[number] - small[other]).mean())
            if apart <= NEAR_BITS and level <= NEAR_LEVELS and looks[other].content != look.content:
                found.append((looks[other].sample.id, look.sample.id))
                break
    return tuple(found)


def verify(
    samples: Sequence[Sample],
    *,
    strict: bool = False,
    known: Container[str] = frozenset(),
    progress: Callable[[int], None] | None = None,
) -> tuple[tuple[Sample, ...], tuple[Skipped, ...]]:
    """The samples that decode, in order, and those that do not, each with the reason.

    `known`: picture hashes of images that have been decoded before (`FeatureStore.known`), which are not decoded again.
    `progress` is called with the number of images just done. With `strict`, a UserError in place of skips.
    """

    def decoded(sample: Sample) -> Sample | Skipped:
        try:
            data = sample.read()
            if sample.picture_hash not in known:
                open_image(data, name=sample.id, decoding=sample.decoding)
        except UserError as error:
            return _skipped(sample, error)
        return sample

    looked = _each(decoded, samples, progress)
    skipped = tuple(one for one in looked if isinstance(one, Skipped))
    if strict and skipped:
        raise strict_error("--strict", skipped)
    return tuple(one for one in looked if isinstance(one, Sample)), skipped
