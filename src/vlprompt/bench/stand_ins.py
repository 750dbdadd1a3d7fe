"""The papers' data sets where they are not on disk: as many samples as are published, without an image, to plan by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from vlprompt import pocket
from vlprompt.bench.workspace import Desk
from vlprompt.data import Dataset, Sample
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.catalogue import FEW_SHOT, SHIFTED
from vlprompt.data.papers.row import Row
from vlprompt.engine.images import Images, open_images
from vlprompt.engine.job import Means
from vlprompt.engine.precision import resolve_device
from vlprompt.errors import UserError
from vlprompt.towers import load
from vlprompt.towers.clip_vocabulary import clip_tokenizer
from vlprompt.towers.random_clip import draw_clip

PAPERS_MODEL = "openai/clip-vit-base-patch16"
"""The backbone of the papers' tables; where it cannot be had, random weights of its shape are timed."""
SOURCE = "imagenet"
"""Whose classes the variants have."""
FEWEST_LETTERS = 4
"""Of a word that a stand-in's class may be called by."""


def lacking(data: str) -> Row | None:
    """The row of a set of the papers that is not on this disk; None: it is there, or `data` means something else."""
    row = catalogue.find(data)
    if row is None or row.name not in FEW_SHOT + SHIFTED or data in pocket.names():
        return None
    place = catalogue.place(data, None)
    there = (place is not None and place.exists()) or Path(data).expanduser().exists()
    return None if there else row


class SizedDesk(Desk):
    """A desk to plan at, with which nothing can be learned: sets of the papers that are not on disk stand there by their sizes."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self.sized: dict[str, Row] = {}
        """Those that are not on disk, as they were asked for."""
        self.instead = ""
        """Why random weights stand in for the papers' model; empty: they do not."""

    def images(self, model: str, dtype: str) -> Images:
        """As `Desk.images`; the papers' model in random weights where it cannot be had and the data are not there either."""
        if (model, dtype) not in self._images:
            device = resolve_device(self.means.device)
            try:
                clip = load(model, device=device, dtype=dtype)
            except UserError as problem:
                if model != PAPERS_MODEL or not self.sized:
                    raise
                self.instead = str(problem)
                clip = draw_clip(device=device, dtype=dtype)
            self._images[model, dtype] = open_images(clip, self.means.cache)
        return self._images[model, dtype]

    def _halves(self, data: str) -> tuple[Dataset, Dataset]:
        if data not in self._datasets and (row := lacking(data)) is not None:
            self.sized[data] = row
            whole = stand_in(row)
            self._datasets[data] = (
                dataclasses.replace(whole, test=()),
                dataclasses.replace(whole, train=(), val=()),
            )
        return super()._halves(data)


def stand_in(row: Row) -> Dataset:
    """A set with a row's published numbers of classes and images, in classes as equal as they can be, whose images cannot be read.

    An ImageNet variant has the first of ImageNet's classes; of other sets no class is another's.
    """
    train, val, test = (
        tuple(_samples(part, number or 0, row.classes))
        for part, number in zip(("train", "val", "test"), row.sizes, strict=True)
    )
    names = class_names(row)
    return Dataset(name=row.name, class_names=names, template=row.template, train=train, val=val, test=test)


def class_names(row: Row) -> tuple[str, ...]:
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


@cache
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
