"""What a process needs for cells and keeps between them: the frozen model, its images, and data sets by half.

A set is handed out in two halves that have nothing in common. `material` is for learning and choosing and has no test images;
`questions` has only those. A set of the papers that is not on disk may stand there by its published size, without an image.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from vlprompt import pocket
from vlprompt.data import Dataset, Sample, open_dataset, split_by_rule
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.catalogue import FEW_SHOT, SHIFTED, SetRow
from vlprompt.disk import LOCK, one_at_a_time
from vlprompt.engine.config import Means
from vlprompt.engine.images import Images, open_images
from vlprompt.engine.precision import resolve_device
from vlprompt.engine.teacher import Teacher, open_teacher
from vlprompt.errors import UserError
from vlprompt.towers import Clip, load
from vlprompt.towers.random_clip import draw_clip
from vlprompt.towers.tokenizer import clip_tokenizer
from vlprompt.types import Method

NAME = 24
"""Characters of a hash that name a lock."""


class Desk:
    """Loads each model and each set once."""

    instead = ""
    """Why random weights stand in for the papers' model; empty: they do not."""

    def __init__(self, means: Means) -> None:
        self.means = means
        self.sized: dict[str, SetRow] = {}
        """The papers' sets that stand here by their sizes, as they were asked for."""
        self._images: dict[tuple[str, str], Images] = {}
        self._teachers: dict[tuple[str, str, str], Teacher] = {}
        self._datasets: dict[str, tuple[Dataset, Dataset]] = {}
        if means.threads is not None:
            torch.set_num_threads(means.threads)

    def clip(self, model: str, dtype: str) -> Clip:
        return self.images(model, dtype).clip

    def images(self, model: str, dtype: str) -> Images:
        """Images as that model sees them; the features that it gives are shared by all cells, and on disk by all processes."""
        if (model, dtype) not in self._images:
            self._images[model, dtype] = open_images(self._loaded(model, dtype), self.means.cache)
        return self._images[model, dtype]

    def _loaded(self, model: str, dtype: str) -> Clip:
        return load(model, device=resolve_device(self.means.device), dtype=dtype)

    def teacher(self, teacher: str, method: Method, model: str, dtype: str) -> Teacher:
        """Another model or run that teaches. UserError as `open_teacher`."""
        key = (teacher, model, dtype)
        if key not in self._teachers:
            found = open_teacher(teacher, method, self.clip(model, dtype), self.means.cache)
            assert found is not None, "it has a name"
            self._teachers[key] = found
        return self._teachers[key]

    def encode(self, images: Images, samples: Sequence[Sample], views: Iterable[int | None]) -> None:
        """Fill the cache with the features of some images. Of all processes one encodes for a model at a time, so no image
        is encoded twice: sets of images overlap."""
        assert images.store is not None
        if images.store.root is None:
            return
        name = hashlib.sha256(images.model_key.encode()).hexdigest()[:NAME]
        with ExitStack() as stack:
            try:
                if images.store.writable:
                    stack.enter_context(one_at_a_time(images.store.root / "locks" / name / LOCK))
            except OSError as error:
                images.store.give_up(error)
            for view in views:
                images.features(samples, view, quiet=True)

    def material(self, data: str) -> Dataset:
        """A set to learn and to choose from: its training and validation images."""
        return self._halves(data)[0]

    def questions(self, data: str) -> Dataset:
        """A set to be tested on: its test images."""
        return self._halves(data)[1]

    def _halves(self, data: str) -> tuple[Dataset, Dataset]:
        if data not in self._datasets:
            dataset = self._opened(data)
            self._datasets[data] = (
                dataclasses.replace(dataset, test=(), tested=None),
                dataclasses.replace(dataset, train=(), val=()),
            )
        return self._datasets[data]

    def _opened(self, data: str) -> Dataset:
        return split_by_rule(open_dataset(data))


PAPERS_MODEL = "openai/clip-vit-base-patch16"
"""The backbone of the papers' tables; where it cannot be had, random weights of its shape are timed."""
SOURCE = "imagenet"
"""Whose classes the variants have."""
FEWEST_LETTERS = 4
"""Of a word that a stand-in's class may be called by."""


def lacking(data: str) -> SetRow | None:
    """The row of a set of the papers that is not on this disk; None: it is there, or `data` means something else."""
    row = catalogue.find(data)
    if row is None or row.name not in FEW_SHOT + SHIFTED or data in pocket.names():
        return None
    place = catalogue.place(data)
    there = (place is not None and place.exists()) or Path(data).expanduser().exists()
    return None if there else row


class SizedDesk(Desk):
    """A desk to plan at, with which nothing can be learned: sets of the papers that are not on disk stand there by their sizes."""

    def _loaded(self, model: str, dtype: str) -> Clip:
        """The papers' model in random weights where it cannot be had and the data are not there either."""
        try:
            return super()._loaded(model, dtype)
        except UserError as problem:
            if model != PAPERS_MODEL or not self.sized:
                raise
            self.instead = str(problem)
            return draw_clip(device=resolve_device(self.means.device), dtype=dtype)

    def _opened(self, data: str) -> Dataset:
        if (row := lacking(data)) is None:
            return super()._opened(data)
        self.sized[data] = row
        return stand_in(row)


def stand_in(row: SetRow) -> Dataset:
    """A set with a row's published numbers of classes and images, in classes as equal as they can be, whose images cannot be read.

    An ImageNet variant has the first of ImageNet's classes; of other sets no class is another's.
    """
    train, val, test = (
        tuple(_samples(part, number or 0, row.classes))
        for part, number in zip(("train", "val", "test"), row.sizes, strict=True)
    )
    names = class_names(row)
    return Dataset(name=row.name, class_names=names, template=row.template, train=train, val=val, test=test)


def class_names(row: SetRow) -> tuple[str, ...]:
    """As `made_up`, ImageNet's from the first on and each other set's after the set before it."""
    first = 0
    if row.name not in (SOURCE, *SHIFTED):
        before = FEW_SHOT[: FEW_SHOT.index(row.name)]
        first = sum(catalogue.get(name).classes for name in before)
    return made_up(first, row.classes)


def made_up(first: int, number: int) -> tuple[str, ...]:
    """Names of two and of three words in turn, each of one token of CLIP's: with full stop and [EOT] 4.5 rows a class, as many as
    the 100 real names of docs/performance.md take."""
    words = _words()
    return tuple(" ".join(words[i : i + 2 + i % 2]) for i in range(first, first + number))


@functools.cache
def _words() -> tuple[str, ...]:
    """The words of one token in CLIP's vocabulary, the most frequent first."""
    tokenizer = clip_tokenizer()
    words = dict.fromkeys(tokenizer.word(number) for number in range(tokenizer.vocab_size))
    return tuple(word for word in words if len(word) >= FEWEST_LETTERS and word.isascii() and word.isalpha())


def _samples(part: str, number: int, classes: int) -> Iterator[Sample]:
    """`number` images, class after class; the first classes have one more where they cannot all have as many."""
    each, more = divmod(number, classes)
    memo: dict[str, str] = {}  # one for all of them: nothing can be read that would be remembered
    for label in range(classes):
        for i in range(each + (label < more)):
            yield Sample(id=f"{part}/{label}/{i}", label=label, source=_read_nothing, _memo=memo)


def _read_nothing() -> bytes:
    raise FileNotFoundError(2, "the data set is not on this disk; only its size is known")
