"""Very many images by number: what prompt pretraining draws from, without an object per image."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from vlprompt.data.samples import DEFAULT_TEMPLATE, Sample


class Pool(Protocol):
    """Labelled images by number, from 0. The same number is the same image in every process."""

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """The image of a number; nothing is read yet."""
        ...

    @property
    def runs(self) -> tuple[int, ...] | None:
        """Lengths of the stretches of numbers that are cheap to read together (shards); None: every order costs the same."""
        ...

    @property
    def identity(self) -> str:
        """What the pool is, for a run that continues with it: changes where images are added or taken away."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What a prompt is pretrained on: images to learn from, images held out, and the names of the classes."""

    name: str
    class_names: tuple[str, ...]
    template: str = DEFAULT_TEMPLATE
    train: Pool
    held_out: Pool
    """May be empty."""
    held_out_part: str = "val"
    """What the source calls the held-out images."""
    notes: tuple[str, ...] = ()


class Listed:
    """A pool of samples that are listed one by one."""

    runs = None

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        return self.samples[index]

    @property
    def identity(self) -> str:
        return listed_identity(f"{one.label} {one.id}" for one in self.samples)


def listed_identity(lines: Iterable[str]) -> str:
    """SHA-256 (hex) over lines."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


class Offsets:
    """Where a running number lies in stretches of given lengths."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.ends = list(accumulate(lengths))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def place(self, index: int) -> tuple[int, int]:
        """(stretch, number within it)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        stretch = bisect_right(self.ends, index)
        return stretch, index - (self.ends[stretch - 1] if stretch else 0)
