"""What `vlprompt data check` looks at: every file of a data set, decoded, counted and compared."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlprompt.data.images import open_image
from vlprompt.data.listing import Listing, as_dataset, problems, some
from vlprompt.data.samples import PARTS, Dataset, Part, Sample, Skipped
from vlprompt.data.sources import list_source, strict_error
from vlprompt.data.splits import split_by_rule
from vlprompt.data.views import WORKERS, in_threads
from vlprompt.errors import UserError

SHOTS = 16
"""The largest number of shots of the published protocol."""
CHUNK = 64 * WORKERS


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
    """Whether they lie in different parts, so that a test or validation image is learned from."""
    conflict: bool
    """Whether they have different labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found in a data set."""

    name: str
    divided: bool
    """False: it has no train, val and test of its own, and the counts are those of `split_by_rule`."""
    classes: tuple[ClassCount, ...]
    problems: tuple[str, ...]
    """Why it cannot be used; empty for a usable one."""
    skipped: tuple[Skipped, ...]
    copies: tuple[Copies, ...]
    few: Mapping[str, int]
    """Class -> training images, where they are fewer than 16."""
    number_names: tuple[str, ...]
    """Class names without a letter, which a text tower can make nothing of."""
    smallest: tuple[int, int] | None
    """(width, height) of the image with the shortest short edge, in pixels."""
    median_edge: int | None
    """Median of the short edges, in pixels."""
    largest: tuple[int, int] | None
    notes: tuple[str, ...] = ()
    """What the source itself has to say, as sizes that are not the published ones."""

    @property
    def ok(self) -> bool:
        """Whether it can be used and no test image is learned from."""
        return not self.problems and not any(copies.leak for copies in self.copies)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
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
        by_reason: dict[str, list[str]] = {}
        for skip in self.skipped:
            by_reason.setdefault(skip.reason, []).append(skip.id)
        out += [f"skipped: {len(ids)} x {reason}: {some(ids)}" for reason, ids in by_reason.items()]
        if self.few:
            names = some([f"{name} ({count})" for name, count in self.few.items()])
            out.append(f"note: fewer than {SHOTS} training images in {names}")
        untested = [count.name for count in self.classes if not count.test]
        if 0 < len(untested) < len(self.classes):
            out.append(f"note: no test images in {some(untested)}")
        if self.number_names:
            out.append(f"note: class names are read as words, and these have none: {some(self.number_names)}")
        return out + [f"note: {note}" for note in self.notes] + self._counts()

    def _counts(self) -> list[str]:
        totals = {part: sum(getattr(count, part) for count in self.classes) for part in PARTS}
        rule = "" if self.divided else " (divided by the rule 50/20/30, since there are no train and test folders)"
        out = [f"{self.name}: {len(self.classes)} classes; " + ", ".join(f"{totals[p]} {p}" for p in PARTS) + rule]
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
    found, sizes, contents, damaged = _decode_all(listing, progress)
    dataset = split_by_rule(found)
    parts = {sample.id: part for part in PARTS for sample in getattr(dataset, part)}
    counts = {part: Counter(sample.label for sample in getattr(dataset, part)) for part in PARTS}
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
        classes=classes,
        problems=tuple(problems(judged)),
        skipped=skipped,
        copies=_copies(contents, parts),
        few={c.name: c.train for c in classes if c.train < SHOTS} if dataset.train else {},
        number_names=tuple(name for name in names if not any(letter.isalpha() for letter in name)),
        smallest=by_edge[0] if by_edge else None,
        median_edge=round(statistics.median(min(size) for size in sizes)) if sizes else None,
        largest=by_edge[-1] if by_edge else None,
        notes=listing.notes,
    )


def _decode_all(
    listing: Listing, progress: Callable[[int], None] | None
) -> tuple[Dataset, list[tuple[int, int]], dict[str, list[Sample]], list[Skipped]]:
    """The data set of all that decodes, the images' sizes, samples by content, and what does not decode."""
    dataset = as_dataset(listing)
    sizes: list[tuple[int, int]] = []
    contents: dict[str, list[Sample]] = {}
    damaged: list[Skipped] = []
    good: dict[Part, tuple[Sample, ...]] = {}
    for part in PARTS:
        samples: tuple[Sample, ...] = getattr(dataset, part)
        fine = []
        for start in range(0, len(samples), CHUNK):
            chunk = samples[start : start + CHUNK]
            for sample, (content, size) in zip(chunk, in_threads(_look, chunk), strict=True):
                if size is None:
                    damaged.append(Skipped(sample.id, content))
                    continue
                fine.append(sample)
                sizes.append(size)
                contents.setdefault(content, []).append(sample)
            if progress:
                progress(len(chunk))
        good[part] = tuple(fine)
    whole = Dataset(
        name=dataset.name,
        class_names=dataset.class_names,
        train=good["train"],
        val=good["val"],
        test=good["test"],
        divided=dataset.divided,
    )
    return whole, sizes, contents, damaged


def _look(sample: Sample) -> tuple[str, tuple[int, int] | None]:
    """(content hash, size in pixels), or (the reason why not, None)."""
    try:
        data = sample.read()
        return hashlib.sha256(data).hexdigest(), open_image(data, name=sample.id).size
    except UserError as error:
        return str(error).removeprefix(f"{sample.id}: ").removesuffix("."), None


def _copies(contents: Mapping[str, Sequence[Sample]], parts: Mapping[str, Part]) -> tuple[Copies, ...]:
    return tuple(
        Copies(
            ids=tuple(sample.id for sample in samples),
            leak=len({parts[sample.id] for sample in samples}) > 1,
            conflict=len({sample.label for sample in samples}) > 1,
        )
        for samples in contents.values()
        if len(samples) > 1
    )


def verify(
    samples: Sequence[Sample],
    *,
    strict: bool = False,
    known: Container[str] = frozenset(),
    progress: Callable[[int], None] | None = None,
) -> tuple[tuple[Sample, ...], tuple[Skipped, ...]]:
    """The samples that decode, in order, and those that do not, each with the reason.

    `known`: content hashes of images that have been decoded before (`FeatureStore.known`), which are not decoded again.
    `progress` is called with the number of images just done. With `strict`, a UserError in place of skips.
    """
    good: list[Sample] = []
    skipped: list[Skipped] = []
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK]
        for sample, reason in zip(chunk, in_threads(lambda sample: damage(sample, known), chunk), strict=True):
            if reason is None:
                good.append(sample)
            else:
                skipped.append(Skipped(sample.id, reason))
        if progress:
            progress(len(chunk))
    if strict and skipped:
        raise strict_error("--strict", [f"{skip.id} ({skip.reason})" for skip in skipped])
    return tuple(good), tuple(skipped)


def damage(sample: Sample, known: Container[str] = frozenset()) -> str | None:
    """Why a sample cannot be decoded; None: it can."""
    try:
        data = sample.read()
        if sample.content_hash not in known:
            open_image(data, name=sample.id)
    except UserError as error:
        return str(error).removeprefix(f"{sample.id}: ").removesuffix(".")
    return None
