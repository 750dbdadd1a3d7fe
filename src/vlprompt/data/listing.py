"""What a source holds before it is judged: entries by class and part, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlprompt.data.samples import DEFAULT_TEMPLATE, Dataset, Decoding, Part, Sample, Skipped, grouped
from vlprompt.types import plain_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image as the source names it."""

    id: str
    class_key: str
    """The class as written: the folder's name or the table's label."""
    part: Part | None
    """None: the source has no parts."""
    also: tuple[str, ...] = ()
    """Its other classes."""
    source: Callable[[], bytes] = field(repr=False)
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All of one source."""

    name: str
    class_keys: tuple[str, ...]
    """Every class, one without images too, in label order."""
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...] = ()
    template: str = DEFAULT_TEMPLATE
    own_names: tuple[str, ...] = ()
    """Class names in label order where the source gives them apart from the keys; two classes may then have one name."""
    decoding: Decoding = "upright"
    """How its files become RGB."""
    several: bool = False
    """Whether an entry may have several classes."""
    in_order: bool = False
    """Whether the order of the entries means something (a published split) and is kept."""
    notes: tuple[str, ...] = ()
    """What the user should know of the source, a sentence each."""

    @property
    def divided(self) -> bool:
        return any(entry.part is not None for entry in self.entries)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As they stand in a sentence, in label order."""
        return tuple(class_name(key) for key in self.own_names or self.class_keys)


def class_name(key: str) -> str:
    """A folder's name as it stands in a sentence: ``_`` becomes a space, as published."""
    return " ".join(key.replace("_", " ").split())


def some(items: Sequence[str], limit: int = 5) -> str:
    """The first few of many, for a message."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def problems(listing: Listing, *, to_learn: bool = True) -> list[str]:
    """What makes a listing unusable as a data set, a sentence each; none for a sound one.

    to_learn: whether it is learned from. Where it is only tested on, a class may lack training images, and be the only one.
    """
    found = []
    if not listing.entries:
        found.append(f"There is no usable image in it{_reasons(listing.skipped)}.")
        return found
    for name, keys in grouped(() if listing.own_names else listing.class_keys, plain_name).items():
        if not name:
            found.append(f"The class {keys[0]!r} has no name left once '_' is read as a space: rename it.")
        elif len(keys) > 1:
            found.append(f"{' and '.join(map(ascii, keys))} are one class name ({name!r}): rename or merge them.")
    if not to_learn:
        return found
    found += _empty_classes(listing)
    if len(listing.class_keys) < 2:
        found.append(f"It has one class only ({listing.class_keys[0]!r}); a classifier needs at least two.")
    return found


def _empty_classes(listing: Listing) -> list[str]:
    parts = {entry.part for entry in listing.entries}
    wanted: Part | None = "train" if "train" in parts else None
    counted = [entry for entry in listing.entries if wanted is None or entry.part == wanted]
    counts = Counter(key for entry in counted for key in (entry.class_key, *entry.also))
    empty = [key for key in listing.class_keys if not counts[key]]
    if not empty:
        return []
    kind = "training images" if wanted else "images"
    names = some([repr(key) for key in empty])
    lost = [skip for skip in listing.skipped if any(key in skip.id.split("/") for key in empty)]
    return [f"No {kind} for the class{'es' * (len(empty) > 1)} {names}{_reasons(lost)}: add some or remove it."]


def _reasons(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return ""
    counts = Counter(skip.reason for skip in skipped).most_common(3)
    return f" ({len(skipped)} skipped: " + "; ".join(f"{count} x {reason}" for reason, count in counts) + ")"


def read_file(path: str) -> bytes:
    """A file's bytes; a path as text takes less memory than a `Path`."""
    return Path(path).read_bytes()


def as_dataset(listing: Listing) -> Dataset:
    """A listing without problems as a data set: entries sorted by label, then id, where their order means nothing."""
    label_of = {key: label for label, key in enumerate(listing.class_keys)}
    parts: dict[Part, list[Sample]] = {"train": [], "val": [], "test": []}
    entries: Sequence[Entry] = listing.entries
    if not listing.in_order:
        entries = sorted(entries, key=lambda entry: (label_of[entry.class_key], entry.id))
    for entry in entries:
        sample = Sample(
            id=entry.id,
            label=label_of[entry.class_key],
            also=tuple(label_of[key] for key in entry.also),
            source=entry.source,
            size=entry.size,
            decoding=listing.decoding,
        )
        parts[entry.part or "train"].append(sample)
    return Dataset(
        name=listing.name,
        class_names=listing.class_names,
        template=listing.template,
        train=tuple(parts["train"]),
        val=tuple(parts["val"]),
        test=tuple(parts["test"]),
        skipped=listing.skipped,
        divided=listing.divided,
        several=listing.several,
        notes=listing.notes,
    )
