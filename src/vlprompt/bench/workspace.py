"""What a process needs for cells and keeps between them: the frozen model, its images, and data sets by half.

A set is handed out in two halves that have nothing in common. `material` is for learning and choosing and has no test images;
`questions` has only those.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import torch

from vlprompt.data import Dataset, Sample, open_dataset, split_by_rule
from vlprompt.disk import LOCK, one_at_a_time
from vlprompt.engine.config import Means
from vlprompt.engine.images import Images, open_images
from vlprompt.engine.precision import resolve_device
from vlprompt.engine.teacher import Teacher, open_teacher
from vlprompt.towers import Clip, load
from vlprompt.types import Method

NAME = 24
"""Characters of a hash that name a lock."""


class Desk:
    """Loads each model and each set once."""

    def __init__(self, means: Means) -> None:
        self.means = means
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
