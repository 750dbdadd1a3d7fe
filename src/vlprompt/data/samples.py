"""A picture with its label, and a set of them: values that know nothing of how they were found."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar, final

from vlprompt.errors import UserError, data_error

T = TypeVar("T")
K = TypeVar("K")
Part = Literal["train", "val", "test"]
Decoding = Literal["upright", "published"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
PART_NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What folders and table cells may call a part, in lower case."""
FILLERS = frozenset(
    (
        *("set", "sets", "split", "data", "dataset", "folder", "images", "image", "imgs", "img", "pictures", "photos"),
        *("pics", "seg", "ilsvrc", "ilsvrc2012"),
    )
)
"""Words that may stand next to it: ``training_set``, ``seg_train``, ``ILSVRC_train``, ``test-images``."""


def part_of(name: str) -> Part | None:
    """The part that a folder or a cell means by its name; None: it is a name of something else."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.casefold()) if word and word not in FILLERS]
    if len(words) != 1:
        return None
    fused = re.fullmatch(f"({'|'.join(PART_NAMES)})({'|'.join(FILLERS)})?", words[0])
    return PART_NAMES[fused[1]] if fused else None


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by a key, both in the order of their first appearance."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


DEFAULT_TEMPLATE = "a photo of a {}."


class Skipped(NamedTuple):
    """An image (or link, or file) that was left out, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One labelled image. Two samples are equal if id and label are."""

    id: str
    """The path relative to the data set's folder (with ``/``), or the key in an archive."""
    label: int
    """An index into the data set's class names."""
    also: tuple[int, ...] = ()
    """Its other classes, where the data set has several labels for an image; `label` is then the rarest of them."""
    source: Callable[[], bytes] = field(repr=False, compare=False)
    size: int | None = field(default=None, repr=False, compare=False)
    """Bytes, where known without reading."""
    decoding: Decoding = field(default="upright", repr=False, compare=False)
    """How the file becomes RGB, as `images.open_image` takes it."""
    _memo: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def labels(self) -> tuple[int, ...]:
        """All its classes."""
        return (self.label, *self.also)

    def read(self) -> bytes:
        """The file's bytes; UserError where it cannot be read (any more)."""
        try:
            data = self.source()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise data_error(f"{self.id}: cannot be read ({reason}).") from error
        if "content" not in self._memo:
            self._memo["content"] = hashlib.sha256(data).hexdigest()
            self._memo["size"] = str(len(data))
        return data

    @property
    def content_hash(self) -> str:
        """SHA-256 of the file's bytes, hex; read at first use, then remembered."""
        if "content" not in self._memo:
            self.read()
        return self._memo["content"]

    @property
    def num_bytes(self) -> int | None:
        """The file's size, where known without reading it now."""
        return int(self._memo["size"]) if "size" in self._memo else self.size

    @property
    def picture_hash(self) -> str:
        """What the pixels depend on: the content, and how it is decoded. The feature cache keeps features by it."""
        return self.content_hash if self.decoding == "upright" else f"{self.content_hash} {self.decoding}"


@final
@dataclass(frozen=True, slots=True)
class Tested:
    """The test images of a data set, which are asked one thing alone: whether another image is a copy of one of them."""

    samples: tuple[Sample, ...]
    _by_size: dict[int | None, list[Sample]] = field(default_factory=dict, repr=False)

    def copy_of(self, sample: Sample) -> str | None:
        """The id of a test image with the same bytes; None: there is none. Test images of another size are not read."""
        if not self._by_size:
            self._by_size.update(grouped(self.samples, lambda one: one.size))
        content = sample.content_hash
        same = [one for size in {sample.num_bytes, None} for one in self._by_size.get(size, [])]
        for one in same:
            try:
                if one.content_hash == content:
                    return one.id
            except UserError:  # it cannot be read, and so is not tested on either
                continue
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images in three parts, and the names of their classes."""

    name: str
    class_names: tuple[str, ...]
    """In label order: sorted by folder name, ``_`` shown as a space."""
    template: str = DEFAULT_TEMPLATE
    train: tuple[Sample, ...]
    val: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    divided: bool = True
    """False: the source names no parts and all images are in `train`; see `split_by_rule`."""
    notes: tuple[str, ...] = ()
    """What the user should know of the source, a sentence each."""
    renamed: bool = False
    """Whether a file of the user's says what its classes are called."""
    several: bool = False
    """Whether an image may have several labels (`Sample.also`)."""
    test_of: int = 0
    """How many test images there were, where some of them were drawn (`splits.fewer_tests`); 0: `test` is all of them."""
    tested: Tested | None = field(default=None, repr=False, compare=False)
    """The source's test part, for as long as only copies of it are asked for: kept where `test` itself is taken away."""
